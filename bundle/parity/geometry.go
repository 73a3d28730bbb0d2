package parity

import (
	"sort"

	"pannier/bundle/content"
)

const (
	sliceSize = content.SliceSize
	maxData   = 200 // data slices of a group
	maxShards = 256 // slices of a group in all: the size of the field
	// fileSlices is how many parity slices a file holds at most: 1 GiB, which every file
	// system can hold. A file ends with a whole group.
	fileSlices = 1024
)

// geometry says how slices form groups: slice i is slot i div groups of group i mod groups, so
// that damage in one place spreads over all groups. Slots past the last slice are zeros.
type geometry struct {
	slices int // data slices
	data   int // slots of a group
	parity int // parity slices of a group
	groups int
}

// newGeometry plans groups of at most that many slots for slices, at least one.
func newGeometry(slices int, share Share, most int) geometry {
	for most+parityOf(most, share) > maxShards {
		most--
	}
	groups := (slices + most - 1) / most
	data := (slices + groups - 1) / groups
	return geometry{slices: slices, data: data, parity: parityOf(data, share), groups: groups}
}

func parityOf(data int, share Share) int { return max(1, (data*int(share)+9999)/10000) }

// slice returns the number of the slice in a slot of a group, and false for a slot that is
// zeros.
func (g geometry) slice(group, slot int) (int, bool) {
	i := slot*g.groups + group
	return i, i < g.slices
}

// filed returns how many groups a parity file holds, the last one perhaps fewer.
func (g geometry) filed() int { return fileSlices / g.parity }

// files returns how many parity files there are.
func (g geometry) files() int { return (g.groups + g.filed() - 1) / g.filed() }

// held returns the first group of a file, counted from 0, and the one after its last.
func (g geometry) held(file int) (from, to int) {
	return file * g.filed(), min(g.groups, (file+1)*g.filed())
}

// parityAt returns the file, counted from 0, and the offset in it of a parity slice.
func (g geometry) parityAt(group, row int) (file int, offset int64) {
	return group / g.filed(), int64(group%g.filed()*g.parity+row) * sliceSize
}

// size returns the bytes of all parity files.
func (g geometry) size() int64 { return int64(g.groups) * int64(g.parity) * sliceSize }

// placement says where blobs begin in the row of slices, in bytes. A blob of a slice and more
// begins a slice and ends one; smaller ones stand together, none across a boundary.
func placement(blobs []Blob) (starts []int64, slices int) {
	starts = make([]int64, len(blobs))
	up := func(n int64) int64 { return content.SliceCount(n) * sliceSize }
	var at int64
	for i, b := range blobs {
		large := b.Size >= sliceSize
		if large || at%sliceSize+b.Size > sliceSize {
			at = up(at)
		}
		starts[i] = at
		at += b.Size
		if large {
			at = up(at)
		}
	}
	return starts, int(content.SliceCount(at))
}

// piece is a run of a blob in a slice.
type piece struct {
	blob  int   // index in the map
	slice int64 // of the blob
	at    int   // where it begins in the slice of the row
	n     int   // bytes
}

// pieces lists what stands in slice i of the row, in order: one slice of a large blob, or
// small blobs.
func (m *Map) pieces(i int) []piece {
	from, to := int64(i)*sliceSize, int64(i+1)*sliceSize
	// The last blob that begins at or before the slice: a large one may reach into it.
	k := max(0, sort.Search(len(m.starts), func(k int) bool { return m.starts[k] >= from })-1)
	var out []piece
	for ; k < len(m.Blobs) && m.starts[k] < to; k++ {
		b, start := m.Blobs[k], m.starts[k]
		if b.Size == 0 || start+b.Size <= from {
			continue
		}
		begin := max(from, start)
		out = append(out, piece{
			blob: k, slice: (begin - start) / sliceSize,
			at: int(begin - from), n: int(min(to, start+b.Size) - begin),
		})
	}
	return out
}

// row returns the slice of the row in which slice j of a blob stands.
func (m *Map) row(blob int, j int64) int { return int((m.starts[blob] + j*sliceSize) / sliceSize) }
