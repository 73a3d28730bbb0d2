package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// The file format of bbolt, as far as it must be right for bbolt to be let near it. All
// numbers are in the byte order of the machine that wrote them.
const (
	pageSize     = 4096
	headerSize   = 16 // id uint64, flags uint16, count uint16, overflow uint32
	elementSize  = 16 // branch: pos, ksize uint32, page uint64; leaf: flags, pos, ksize, vsize uint32
	bucketSize   = 16 // root uint64, sequence uint64; an inline page follows if root is 0
	metaSize     = 64 // magic, version, page size, flags uint32, then 6 uint64 and a checksum
	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf element
)

// Limits of what is read of a file from elsewhere. An index as this package writes it stays
// well below.
const (
	maxKey   = 1024     // bytes of a key
	maxValue = 64 << 20 // bytes of any value; the slice sums of the largest blob
	maxDepth = 32       // pages from the root bucket down to a leaf; a page holds 2 keys or more
	maxTxid  = 1 << 62  // transactions are numbered upwards; a wrap would make old pages new
	headSize = 64 << 10 // how much of a node is read at once
)

// checkPages walks a bbolt file by plain reads and returns an error wrapping [ErrCorrupt]
// unless everything that bbolt will follow leads to where it belongs: each page inside of
// the file and used once, each element inside of its page, each key in order. It asks for
// more than bbolt's own Check, which is no use here: that one runs in a goroutine of its own
// and follows pointers into unmapped memory and pages into endless recursion, neither of
// which a process survives.
func checkPages(r io.ReaderAt, size int64) error {
	m, err := readMetas(r, size)
	if err != nil {
		return err
	}
	w := &pageWalk{r: &ahead{r: r}, used: make([]bool, m.pages)}
	w.used[0], w.used[1] = true, true
	free, err := w.freelist(m.freelist)
	if err != nil {
		return err
	}
	if err := w.tree(m.root, nil, nil, 0); err != nil {
		return err
	}
	for _, id := range free {
		if w.used[id] {
			return corrupt("page %d is in use and free at once", id)
		}
		w.used[id] = true
	}
	for id, used := range w.used {
		if !used {
			return corrupt("page %d is neither in use nor free", id)
		}
	}
	return nil
}

// pageWalk is one walk over a file.
type pageWalk struct {
	r       io.ReaderAt
	used    []bool // by page; its length is the number of pages
	buffers bufferPool
}

// bufferPool keeps what nodes were read into for the nodes after them: of a large file there
// are hundreds of thousands, a page each.
type bufferPool struct {
	heads    [][]byte
	elements [][]element
}

func (p *bufferPool) head(size int64) []byte {
	if n := len(p.heads); n > 0 && int64(cap(p.heads[n-1])) >= size {
		b := p.heads[n-1][:size]
		p.heads = p.heads[:n-1]
		return b
	}
	return make([]byte, size)
}

func (p *bufferPool) list(count int) []element {
	if n := len(p.elements); n > 0 && cap(p.elements[n-1]) >= count {
		list := p.elements[n-1][:count]
		p.elements = p.elements[:n-1]
		return list
	}
	return make([]element, count)
}

// put takes back what head and list gave for a node.
func (p *bufferPool) put(head []byte, list []element) {
	p.heads, p.elements = append(p.heads, head), append(p.elements, list)
}

// node is one page with the pages it overflows into, or the page inside of an inline bucket.
type node struct {
	id     uint64
	flags  uint16
	count  int
	inline bool
	base   int64  // where it begins in the file
	size   int64  // bytes
	head   []byte // its first headSize bytes
}

// element is one entry of a node.
type element struct {
	key   []byte
	child uint64 // branch: the page below
	flags uint32 // leaf
	at    int64  // leaf: where the value begins in the file
	size  int64  // leaf: bytes of the value
}

// page reads the node at page id and marks its pages used.
func (w *pageWalk) page(id uint64) (node, error) {
	if id < 2 || id >= uint64(len(w.used)) {
		return node{}, corrupt("a reference to page %d of %d", id, len(w.used))
	}
	n := node{id: id, base: int64(id) * pageSize, size: pageSize}
	if err := w.load(&n); err != nil {
		return node{}, err
	}
	self, overflow := binary.NativeEndian.Uint64(n.head), uint64(binary.NativeEndian.Uint32(n.head[12:]))
	if self != id {
		return node{}, corrupt("page %d says that it is page %d", id, self)
	}
	if overflow >= uint64(len(w.used))-id {
		return node{}, corrupt("page %d goes on for %d pages, past the last", id, overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if w.used[i] {
			return node{}, corrupt("page %d is used twice", i)
		}
		w.used[i] = true
	}
	if overflow > 0 {
		n.size = int64(overflow+1) * pageSize
		if err := w.load(&n); err != nil {
			return node{}, err
		}
	}
	return n, nil
}

// load reads the head of n, which has a base and a size.
func (w *pageWalk) load(n *node) error {
	n.head = w.buffers.head(min(n.size, headSize))
	if err := readAt(w.r, n.head, n.base); err != nil {
		return err
	}
	n.flags = binary.NativeEndian.Uint16(n.head[8:])
	n.count = int(binary.NativeEndian.Uint16(n.head[10:]))
	return nil
}

// bytes returns length bytes of n from off on; the caller has compared both with its size.
func (w *pageWalk) bytes(n *node, off, length int64) ([]byte, error) {
	if off+length <= int64(len(n.head)) {
		return n.head[off : off+length], nil
	}
	b := make([]byte, length)
	return b, readAt(w.r, b, n.base+off)
}

// freelist returns the numbers of the free pages.
func (w *pageWalk) freelist(id uint64) ([]uint64, error) {
	// Without a stored list bbolt makes one up, in a goroutine that panics at errors.
	if id == ^uint64(0) {
		return nil, corrupt("no list of free pages")
	}
	n, err := w.page(id)
	if err != nil {
		return nil, err
	}
	if n.flags != flagFreelist {
		return nil, corrupt("page %d: flags %#x, expected a list of free pages", id, n.flags)
	}
	count, off := uint64(n.count), int64(headerSize)
	if n.count == 0xFFFF { // too many for the header: the number comes first
		b, err := w.bytes(&n, off, 8)
		if err != nil {
			return nil, err
		}
		count, off = binary.NativeEndian.Uint64(b), off+8
	}
	if count > uint64(n.size-off)/8 {
		return nil, corrupt("page %d: a list of %d free pages", id, count)
	}
	b, err := w.bytes(&n, off, int64(count)*8)
	if err != nil {
		return nil, err
	}
	free := make([]uint64, count)
	for i := range free {
		free[i] = binary.NativeEndian.Uint64(b[i*8:])
		if free[i] < 2 || free[i] >= uint64(len(w.used)) || i > 0 && free[i] <= free[i-1] {
			return nil, corrupt("page %d: a bad list of free pages", id)
		}
	}
	return free, nil
}

// tree walks the tree below page id, whose keys must be from low to before high; nil is no
// limit.
func (w *pageWalk) tree(id uint64, low, high []byte, depth int) error {
	if depth > maxDepth {
		return corrupt("page %d: a tree of more than %d levels", id, maxDepth)
	}
	n, err := w.page(id)
	if err != nil {
		return err
	}
	elements, err := w.elements(&n, low, high)
	if err != nil {
		return err
	}
	defer w.buffers.put(n.head, elements)
	if n.flags == flagLeaf {
		return w.buckets(elements, depth)
	}
	for i, e := range elements {
		below := high
		if i+1 < len(elements) {
			below = elements[i+1].key
		}
		if err := w.tree(e.child, e.key, below, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// buckets walks the buckets among the elements of a leaf.
func (w *pageWalk) buckets(elements []element, depth int) error {
	for _, e := range elements {
		if e.flags == 0 {
			continue
		}
		if e.size < bucketSize {
			return corrupt("bucket %.80q: a header of %d bytes", e.key, e.size)
		}
		b := make([]byte, bucketSize)
		if err := readAt(w.r, b, e.at); err != nil {
			return err
		}
		root := binary.NativeEndian.Uint64(b)
		var err error
		if root == 0 {
			err = w.inline(e)
		} else {
			err = w.tree(root, nil, nil, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inline checks the page that is stored in the value of a small bucket.
func (w *pageWalk) inline(e element) error {
	n := node{inline: true, base: e.at + bucketSize, size: e.size - bucketSize}
	if n.size < headerSize || n.size > pageSize {
		return corrupt("bucket %.80q: an inline page of %d bytes", e.key, n.size)
	}
	if err := w.load(&n); err != nil {
		return err
	}
	_, err := w.elements(&n, nil, nil)
	return err
}

// elements returns the checked elements of a branch or leaf. bbolt writes keys and values
// one after another behind the elements, without gaps; nothing else is accepted, so that no
// byte can be made to serve as many values.
func (w *pageWalk) elements(n *node, low, high []byte) ([]element, error) {
	branch := n.flags == flagBranch
	if !branch && n.flags != flagLeaf || n.inline && branch {
		return nil, corrupt("page %d: flags %#x, expected a branch or a leaf", n.id, n.flags)
	}
	if branch && n.count == 0 {
		return nil, corrupt("page %d: a branch that leads nowhere", n.id)
	}
	next := headerSize + elementSize*int64(n.count)
	if next > n.size {
		return nil, corrupt("page %d: %d elements in %d bytes", n.id, n.count, n.size)
	}
	table, err := w.bytes(n, headerSize, elementSize*int64(n.count))
	if err != nil {
		return nil, err
	}
	elements := w.buffers.list(n.count)
	for i := range elements {
		e := &elements[i]
		*e = element{}
		pos, keySize := parseElement(table[i*elementSize:], branch, e)
		start := headerSize + elementSize*int64(i) + pos
		if start != next || keySize == 0 || keySize > maxKey || e.size > maxValue || next+keySize+e.size > n.size {
			return nil, corrupt("page %d: element %d of %d+%d bytes at %d of %d", n.id, i, keySize, e.size, start, n.size)
		}
		if e.flags&^flagBucket != 0 || n.inline && e.flags != 0 {
			return nil, corrupt("page %d: element %d has flags %#x", n.id, i, e.flags)
		}
		if e.key, err = w.bytes(n, start, keySize); err != nil {
			return nil, err
		}
		if i > 0 && bytes.Compare(elements[i-1].key, e.key) >= 0 || bytes.Compare(e.key, low) < 0 ||
			high != nil && bytes.Compare(e.key, high) >= 0 {
			return nil, corrupt("page %d: key %d is out of order", n.id, i)
		}
		e.at = n.base + start + keySize
		next += keySize + e.size
	}
	return elements, nil
}

// parseElement reads one element into e and returns where its key is, relative to the
// element, and how long.
func parseElement(b []byte, branch bool, e *element) (pos, keySize int64) {
	ne := binary.NativeEndian
	if branch {
		e.child = ne.Uint64(b[8:])
		return int64(ne.Uint32(b)), int64(ne.Uint32(b[4:]))
	}
	e.flags, e.size = ne.Uint32(b), int64(ne.Uint32(b[12:]))
	return int64(ne.Uint32(b[4:])), int64(ne.Uint32(b[8:]))
}

// ahead reads more than it is asked for, since a snapshot's pages lie about in the order in
// which a walk comes to them. A file that is built to defeat it costs what 16 of its size would.
type ahead struct {
	r   io.ReaderAt
	buf []byte // what was read last
	at  int64  // where that lies in the file
}

const aheadSize = 16 * pageSize

func (a *ahead) ReadAt(p []byte, off int64) (int, error) {
	if off >= a.at && off+int64(len(p)) <= a.at+int64(len(a.buf)) {
		return copy(p, a.buf[off-a.at:]), nil
	}
	if len(p) > aheadSize {
		return a.r.ReadAt(p, off)
	}
	if a.buf == nil {
		a.buf = make([]byte, aheadSize)
	}
	n, err := a.r.ReadAt(a.buf[:aheadSize], off)
	a.buf, a.at = a.buf[:n], off
	if n >= len(p) {
		err = nil
	}
	return copy(p, a.buf), err
}

// readAt fills b; a file that ends too early is damaged, other errors are the disk's.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return corrupt("cut at byte %d", off+int64(n))
	}
	return err
}
