package baddrive

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
)

// pageSize is the unit in which contents survive a power cut, rot and get lost.
const pageSize = 4096

// content is what a file holds. Pages are never changed once they stand, so that a copy of
// the map is a copy of the file; a missing page reads as zeros.
type content struct {
	size  int64
	pages map[int64][]byte
}

func (c content) clone() content { return content{c.size, maps.Clone(c.pages)} }

func (c *content) write(data []byte, off int64) {
	for len(data) > 0 {
		i, at := off/pageSize, off%pageSize
		n := min(int64(len(data)), pageSize-at)
		if c.pages[i] == nil && bytes.Equal(data[:n], zeros[:n]) {
			data, off = data[n:], off+n
			continue
		}
		page := make([]byte, pageSize)
		copy(page, c.pages[i])
		copy(page[at:], data[:n])
		c.put(i, page)
		data, off = data[n:], off+n
	}
	c.size = max(c.size, off)
}

var zeros = make([]byte, pageSize)

// put stores a page, unless it is zeros: large files of nothing stay small.
func (c *content) put(i int64, page []byte) {
	if bytes.Equal(page, zeros) {
		delete(c.pages, i)
		return
	}
	if c.pages == nil {
		c.pages = map[int64][]byte{}
	}
	c.pages[i] = page
}

func (c *content) truncate(size int64) {
	if size < c.size {
		maps.DeleteFunc(c.pages, func(i int64, _ []byte) bool { return i*pageSize >= size })
		if i, at := size/pageSize, size%pageSize; c.pages[i] != nil {
			page := make([]byte, pageSize)
			copy(page, c.pages[i][:at])
			c.put(i, page)
		}
	}
	c.size = size
}

func (c *content) read(buf []byte, off int64) []byte {
	n := max(0, min(int64(len(buf)), c.size-off))
	clear(buf[:n])
	for done := int64(0); done < n; {
		i, at := (off+done)/pageSize, (off+done)%pageSize
		step := min(n-done, pageSize-at)
		if page := c.pages[i]; page != nil {
			copy(buf[done:done+step], page[at:])
		}
		done += step
	}
	return buf[:n]
}

// inode is a file or a folder: as programs see it, and as the medium has it.
type inode struct {
	number uint64
	mode   uint32
	mtime  int64 // nanoseconds
	parent *inode
	name   string

	live, safe       content
	names, safeNames map[string]*inode // of a folder; nil for a file

	gone  bool  // without a name
	moved *move // see move
	freed bool  // its clusters were given away: reading is EIO
}

// move is a rename on FAT that the medium has not quite heard of: the new directory entry gets
// size and first cluster only when the file itself is synced again (measured, kernel vfat).
type move struct {
	from *inode // folder
	name string // in from
	over *inode // the file that stood under the new name, or nil
}

func (n *inode) isDir() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

func (n *inode) path() string {
	if n.parent == nil {
		return "."
	}
	if n.parent.parent == nil {
		return n.name
	}
	return n.parent.path() + "/" + n.name
}

// fsync makes the content of a file durable; on FAT, which writes the directory entry with
// it, its name too; and where folders cannot be synced, all names there are.
func (n *inode) fsync(r Rules) {
	n.safe = n.live.clone()
	if r.NoDirSync {
		top := n
		for top.parent != nil {
			top = top.parent
		}
		top.syncAllNames()
	}
	if !r.FAT || n.gone {
		return
	}
	if m := n.moved; m != nil {
		if m.from.safeNames[m.name] == n {
			delete(m.from.safeNames, m.name)
		}
		n.moved = nil
	}
	n.parent.safeNames[n.name] = n
}

// syncNames makes the names in a folder durable, as far as that is in the power of a folder.
func (n *inode) syncNames() {
	safe := map[string]*inode{}
	for name, child := range n.names {
		m := child.moved
		switch {
		case m == nil:
			safe[name] = child
		case m.from == n:
			// The old entry stays as it was; what stood under the new name has lost its
			// clusters to it.
			safe[m.name] = child
			if m.over != nil && n.safeNames[name] != nil {
				safe[name] = &inode{mode: m.over.mode, safe: m.over.safe.clone(), freed: true}
			}
		default: // the new entry arrives empty, the old one goes with its own folder
			safe[name] = &inode{mode: child.mode}
		}
	}
	n.safeNames = safe
}

func (n *inode) syncAllNames() {
	if n.isDir() {
		n.syncNames()
	}
	for _, child := range n.names {
		child.syncAllNames()
	}
}

// syncAll is syncfs, from the folder n down.
func (n *inode) syncAll() {
	n.safe, n.moved = n.live.clone(), nil
	if n.isDir() {
		n.safeNames = maps.Clone(n.names)
		for _, child := range n.names {
			child.syncAll()
		}
	}
}

// Survival says what of the unsynced is there after a power cut.
type Survival int

const (
	Lost      Survival = iota // nothing: the medium has what was synced
	Random                    // by chance, each name and each 4 KiB for itself
	NamesOnly                 // names and sizes, without what was in the files
	Kept                      // everything, durable or not as before: a killed process, no power cut
)

func (s Survival) String() string {
	return [...]string{"nothing unsynced survives", "part of the unsynced survives", "names without data survive", "all survives"}[s]
}

// clone is a copy of n, what is durable of it and what is not; seen has those that are made.
func (n *inode) clone(seen map[*inode]*inode) *inode {
	if n == nil || seen[n] != nil {
		return seen[n]
	}
	out := *n
	seen[n] = &out
	out.live, out.safe = n.live.clone(), n.safe.clone()
	out.parent = n.parent.clone(seen)
	out.names, out.safeNames = cloneNames(n.names, seen), cloneNames(n.safeNames, seen)
	if n.moved != nil {
		out.moved = &move{n.moved.from.clone(seen), n.moved.name, n.moved.over.clone(seen)}
	}
	return &out
}

func cloneNames(names map[string]*inode, seen map[*inode]*inode) map[string]*inode {
	if names == nil {
		return nil
	}
	out := map[string]*inode{}
	for name, n := range names {
		out[name] = n.clone(seen)
	}
	return out
}

// survive is what n is after a power cut.
func (n *inode) survive(how Survival, dice *rand.Rand) *inode {
	if how == Kept {
		return n.clone(map[*inode]*inode{})
	}
	out := &inode{mode: n.mode, mtime: n.mtime, freed: n.freed}
	if !n.isDir() {
		switch how {
		case Lost:
			out.live = n.safe.clone()
		case NamesOnly:
			out.live = n.safe.clone()
			out.live.truncate(n.live.size)
		case Random:
			out.live = n.gamble(dice)
		}
		out.safe = out.live.clone()
		return out
	}
	names := n.safeNames
	if how == NamesOnly {
		names = n.names
	} else if how == Random {
		names = map[string]*inode{}
		all := slices.Compact(slices.Sorted(slices.Values(slices.AppendSeq(slices.Collect(maps.Keys(n.names)), maps.Keys(n.safeNames)))))
		for _, name := range all {
			child := n.safeNames[name]
			if now := n.names[name]; now != child && dice.IntN(2) == 1 && (now == nil || now.moved == nil) {
				child = now
			}
			if child != nil {
				names[name] = child
			}
		}
	}
	out.names = map[string]*inode{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		child := names[name].survive(how, dice)
		child.parent, child.name = out, name
		out.names[name] = child
	}
	out.safeNames = maps.Clone(out.names)
	return out
}

// gamble mixes the pages of a file as it is and as the medium has it.
func (n *inode) gamble(dice *rand.Rand) content {
	out := content{size: n.safe.size}
	if dice.IntN(2) == 1 {
		out.size = n.live.size
	}
	for i := range (max(n.live.size, n.safe.size) + pageSize - 1) / pageSize {
		page := n.safe.pages[i]
		if dice.IntN(2) == 1 {
			page = n.live.pages[i]
		}
		if page != nil && i*pageSize < out.size {
			out.put(i, page)
		}
	}
	return out
}

// used is how many bytes the files below n take, whole pages of them.
func (n *inode) used() int64 {
	sum := int64(len(n.live.pages)) * pageSize
	for _, child := range n.names {
		sum += child.used()
	}
	return sum
}

// print identifies what is below n.
func (n *inode) print() string {
	h := fnv.New128a()
	var walk func(*inode)
	walk = func(n *inode) {
		fmt.Fprintf(h, "%s %o %d %v\n", n.path(), n.mode, n.live.size, n.freed)
		for _, i := range slices.Sorted(maps.Keys(n.live.pages)) {
			fmt.Fprintf(h, "%d ", i)
			h.Write(n.live.pages[i])
		}
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			walk(n.names[name])
		}
	}
	walk(n)
	return string(h.Sum(nil))
}
