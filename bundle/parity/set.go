package parity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"golang.org/x/sync/errgroup"

	"pannier/bundle/content"
	"pannier/bundle/layout"
)

// maxGenerations bounds how many generations of parity are looked at.
const maxGenerations = 1000

// Set is the parity that stands on a drive. Its methods may be called concurrently, and read
// only.
type Set struct {
	Generations []*Generation // that have a map, the newest first
	Problems    []Problem     // what is wrong with maps and names; slices are looked at by CheckParity

	layout *layout.Layout
}

// Generation is the parity of one generation. It covers the blobs of its map.
type Generation struct {
	*Map
	Number uint64

	layout *layout.Layout
}

// Problem is what is wrong with one file.
type Problem struct {
	Path string // below the root, with slashes
	Err  error  // wraps [fs.ErrNotExist], [ErrMap], [ErrVersion] or an error of package layout
}

// Open reads the maps of all parity on a drive, from whichever copy of each is good. What it
// finds wrong is in Problems; an error is only that the folder cannot be listed. That a map is
// there says nothing of who wrote it: whether SHA256SUMS names it is for the caller to know,
// and matters to nobody who compares digests.
func Open(l *layout.Layout) (*Set, error) {
	entries, err := l.List(Folder)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range entries {
		g, err := strconv.ParseUint(e.Name, 10, 31)
		if e.Mode.IsDir() && err == nil && strconv.FormatUint(g, 10) == e.Name {
			numbers = append(numbers, g)
		}
	}
	slices.SortFunc(numbers, func(a, b uint64) int { return int(int64(b) - int64(a)) })
	s := &Set{layout: l}
	if len(numbers) > maxGenerations {
		s.Problems = append(s.Problems, Problem{Folder, fmt.Errorf("%w: %d generations, %d are looked at", ErrMap, len(numbers), maxGenerations)})
		numbers = numbers[:maxGenerations]
	}
	left := int64(MaxMap) // for all maps together
	for _, g := range numbers {
		if m := s.readMap(l, g, left); m != nil {
			left -= m.mapSize()
			s.Generations = append(s.Generations, &Generation{Map: m, Number: g, layout: l})
		}
	}
	return s, nil
}

// readMap returns the first copy of a map that is good, or nil, and notes what is wrong with
// each.
func (s *Set) readMap(l *layout.Layout, g uint64, limit int64) *Map {
	var good *Map
	for _, name := range []string{mapName(g, 1), mapName(g, 2)} {
		raw, err := l.ReadFile(name, limit)
		var m *Map
		if err == nil {
			m, err = ParseMap(raw)
		}
		if err != nil {
			s.Problems = append(s.Problems, Problem{name, err})
		} else if good == nil {
			good = m
		}
	}
	return good
}

// Blob returns what the parity knows of a blob, and whether any covers it with this size.
func (s *Set) Blob(desc ocispec.Descriptor) (Blob, bool) {
	for _, g := range s.Generations {
		if k, ok := g.index[desc.Digest]; ok && g.Blobs[k].Size == desc.Size {
			return g.Blobs[k], true
		}
	}
	return Blob{}, false
}

// Size returns how many bytes a blob should have, and whether any parity covers it.
func (s *Set) Size(d digest.Digest) (int64, bool) {
	for _, g := range s.Generations {
		if k, ok := g.index[d]; ok {
			return g.Blobs[k].Size, true
		}
	}
	return 0, false
}

// Damage is what is damaged of a blob.
type Damage struct {
	Digest digest.Digest
	Size   int64   // of the blob, as it should be
	Slices []int64 // that are wrong, cut off or not there, ascending
}

// Bytes is how much of the blob is damaged, at most.
func (d Damage) Bytes() int64 {
	var n int64
	for _, j := range d.Slices {
		n += min(sliceSize, d.Size-j*sliceSize)
	}
	return n
}

// locate is [Set.Locate] of blob k.
func (g *Generation) locate(ctx context.Context, k int, progress func(int64)) (Damage, error) {
	b := g.Blobs[k]
	d := Damage{Digest: b.Digest, Size: b.Size}
	f, err := g.layout.OpenFile(layout.BlobPath(b.Digest))
	if err == nil {
		defer f.Close()
	}
	buf := make([]byte, min(sliceSize, b.Size))
	// What stands behind the end of a blob is damage too, if no slice's: the last one counts.
	long, last := f != nil && f.Size() > b.Size, content.SliceCount(b.Size)-1
	for j := range last + 1 {
		if err := ctx.Err(); err != nil {
			return d, err
		}
		part := buf[:min(sliceSize, b.Size-j*sliceSize)]
		if f == nil || !readAt(f, part, j*sliceSize) || b.Sums.Check(j, part) != nil || long && j == last {
			d.Slices = append(d.Slices, j)
		}
		if progress != nil {
			progress(int64(len(part)))
		}
	}
	return d, nil
}

// Locate reads a blob as it stands on the drive and says which of its slices are not what they
// should be; all of them if it is not there. progress, which may be nil, is told the bytes read,
// by increments. That no slice is found wrong does not prove the blob: its digest does. Errors
// wrap [ErrNotCovered], or are the context's.
func (s *Set) Locate(ctx context.Context, desc ocispec.Descriptor, progress func(int64)) (Damage, error) {
	for _, g := range s.Generations {
		if k, ok := g.index[desc.Digest]; ok && g.Blobs[k].Size == desc.Size {
			return g.locate(ctx, k, progress)
		}
	}
	return Damage{}, fmt.Errorf("blob %s: %w", desc.Digest, ErrNotCovered)
}

func readAt(r io.ReaderAt, b []byte, offset int64) bool {
	n, err := r.ReadAt(b, offset)
	return n == len(b) && (err == nil || errors.Is(err, io.EOF))
}

// CheckParity reads the parity slices of a generation and returns the numbers of those that
// are not what the map says, ascending: slice n is row n mod the rows of group n div them. An
// error is the context's.
func (g *Generation) CheckParity(ctx context.Context) ([]int, error) {
	var bad []int
	for i := range g.files() {
		from, to := g.held(i)
		right := make([]bool, (to-from)*g.parity) // none is, if the file cannot be opened
		if f, err := g.layout.OpenMedium(slicesName(g.Number, i)); err == nil {
			err := g.checkSlices(ctx, f, from*g.parity, right)
			f.Close()
			if err != nil {
				return bad, err
			}
		}
		for n, ok := range right {
			if !ok {
				bad = append(bad, from*g.parity+n)
			}
		}
	}
	return bad, nil
}

// checkSlices tells which parity slices of a file, from number first on, are right. Two readers
// take turns, so that the drive is busy while a sum is taken.
func (g *Generation) checkSlices(ctx context.Context, f io.ReaderAt, first int, right []bool) error {
	const readers = 2
	eg, ctx := errgroup.WithContext(ctx)
	for r := range readers {
		eg.Go(func() error {
			buf := make([]byte, sliceSize)
			for k := r; k < len(right); k += readers {
				if err := ctx.Err(); err != nil {
					return err
				}
				_, offset := g.parityAt((first+k)/g.parity, (first+k)%g.parity)
				right[k] = readAt(f, buf, offset) && g.Parity.Check(int64(first+k), buf) == nil
			}
			return nil
		})
	}
	return eg.Wait()
}

// SizesRight reports whether every file of the parity slices has the size that the map asks
// for, which costs no reading.
func (g *Generation) SizesRight() bool {
	for i := range g.files() {
		f, err := g.layout.OpenFile(slicesName(g.Number, i))
		if err != nil {
			return false
		}
		from, to := g.held(i)
		right := f.Size() == int64(to-from)*int64(g.parity)*sliceSize
		f.Close()
		if !right {
			return false
		}
	}
	return true
}

// ParityDamage names the parity slices of a generation that are damaged, as CheckParity does.
type ParityDamage struct {
	Generation uint64
	Slices     []int
}

// Lost says what of the damage cannot be reconstructed: for each group, more of its slices are
// damaged than parity slices of it are left. It reads nothing. What it leaves out can be healed,
// provided that damage and parity name all that is damaged in the groups concerned.
func (s *Set) Lost(damage []Damage, parity []ParityDamage) []Damage {
	rest := damage
	for _, g := range s.Generations {
		bad := g.damaged(rest)
		rows := map[int]int{} // group -> parity slices that are damaged
		for _, p := range parity {
			if p.Generation == g.Number {
				for _, n := range p.Slices {
					rows[n/g.parity]++
				}
			}
		}
		rest = g.remaining(rest, func(group int) bool { return len(bad[group]) > g.parity-rows[group] })
	}
	return rest
}

// Absent says what of the covered blobs is not there, or cut off, by the sizes of the files alone.
func (s *Set) Absent() []Damage {
	var out []Damage
	seen := map[digest.Digest]bool{}
	for _, g := range s.Generations {
		for _, b := range g.Blobs {
			if seen[b.Digest] {
				continue
			}
			seen[b.Digest] = true
			have, err := s.layout.Stat(b.Digest)
			if err != nil { // whatever stands there is no blob
				have = 0
			}
			if have >= b.Size {
				continue
			}
			d := Damage{Digest: b.Digest, Size: b.Size}
			for j := have / sliceSize; j < content.SliceCount(b.Size); j++ {
				d.Slices = append(d.Slices, j)
			}
			out = append(out, d)
		}
	}
	return out
}

// damaged lists, by group, the slots that damage hits.
func (g *Generation) damaged(damage []Damage) map[int][]int {
	out := map[int][]int{}
	for _, d := range damage {
		k, ok := g.index[d.Digest]
		if !ok || g.Blobs[k].Size != d.Size {
			continue
		}
		for _, j := range d.Slices {
			i := g.row(k, j)
			if group, slot := i%g.groups, i/g.groups; !slices.Contains(out[group], slot) {
				out[group] = append(out[group], slot)
			}
		}
	}
	return out
}

// remaining keeps of damage what this generation does not cover, and what lies in groups that
// are lost.
func (g *Generation) remaining(damage []Damage, lost func(group int) bool) []Damage {
	var out []Damage
	for _, d := range damage {
		if k, ok := g.index[d.Digest]; ok && g.Blobs[k].Size == d.Size {
			left := d.Slices
			d.Slices = nil
			for _, j := range left {
				if lost(g.row(k, j) % g.groups) {
					d.Slices = append(d.Slices, j)
				}
			}
			if len(d.Slices) == 0 {
				continue
			}
		}
		out = append(out, d)
	}
	return out
}
