package parity

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle/content"
	"pannier/bundle/layout"
)

// Restore reconstructs what damage says and hands it to put, slice by slice, in an order of
// its own; data is valid during the call. Every group is read once, and what turns out to be
// damaged there beside what damage says counts as lost too. It returns what could not be
// reconstructed, which was not put. An error is put's or the context's.
//
// What is put is a guess until the SHA-256 of the whole blob has been compared.
func (s *Set) Restore(ctx context.Context, damage []Damage, put func(desc ocispec.Descriptor, slice int64, data []byte) error) (lost []Damage, err error) {
	lost = slices.DeleteFunc(slices.Clone(damage), func(d Damage) bool { return len(d.Slices) == 0 })
	for _, g := range s.Generations {
		bad := g.damaged(lost)
		if len(bad) == 0 {
			continue
		}
		h, err := g.healer()
		if err != nil {
			return lost, err
		}
		failed := map[int]bool{}
		for _, group := range sortedKeys(bad) {
			err := h.group(ctx, group, bad[group])
			if errors.Is(err, ErrLost) {
				failed[group] = true
				continue
			}
			if err != nil {
				return lost, err
			}
			if err := h.put(group, lost, put); err != nil {
				return lost, err
			}
		}
		lost = g.remaining(lost, func(group int) bool { return failed[group] })
	}
	return lost, nil
}

func sortedKeys(m map[int][]int) []int {
	out := make([]int, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Rebuild writes a blob as it should be to w: the slices that are right as they stand on the
// drive, the others reconstructed, each at its place, in no order. It returns which were
// reconstructed. The caller compares the SHA-256 of what came out, and believes nothing else.
//
// Errors wrap [ErrNotCovered], and [ErrLost] if too much is damaged or no slice is found
// damaged at all (for a caller who knows that the blob is wrong); w's and the context's are
// returned as they are.
func (s *Set) Rebuild(ctx context.Context, desc ocispec.Descriptor, w io.WriterAt) (Damage, error) {
	d, err := s.mend(ctx, desc, func(_ Damage, slice int64, data []byte) error {
		_, err := w.WriteAt(data, slice*sliceSize)
		return err
	})
	if err != nil || int64(len(d.Slices)) == content.SliceCount(desc.Size) {
		return d, err
	}
	f, err := s.layout.OpenFile(layout.BlobPath(desc.Digest))
	if err != nil {
		return d, err
	}
	defer f.Close()
	buf := make([]byte, sliceSize)
	for j := range content.SliceCount(desc.Size) {
		if _, bad := slices.BinarySearch(d.Slices, j); bad {
			continue
		}
		part := buf[:min(sliceSize, desc.Size-j*sliceSize)]
		if !readAt(f, part, j*sliceSize) {
			return d, fmt.Errorf("blob %s: at offset %d: %w", desc.Digest, j*sliceSize, io.ErrUnexpectedEOF)
		}
		if _, err := w.WriteAt(part, j*sliceSize); err != nil {
			return d, err
		}
	}
	return d, ctx.Err()
}

// mend locates the damage of a blob and reconstructs it.
func (s *Set) mend(ctx context.Context, desc ocispec.Descriptor, put func(d Damage, slice int64, data []byte) error) (Damage, error) {
	d, err := s.Locate(ctx, desc, nil)
	if err != nil {
		return d, err
	}
	if len(d.Slices) == 0 && desc.Size > 0 {
		return d, fmt.Errorf("%w: no slice of the blob is found wrong", ErrLost)
	}
	lost, err := s.Restore(ctx, []Damage{d}, func(_ ocispec.Descriptor, slice int64, data []byte) error { return put(d, slice, data) })
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("%w: %s of 1 MiB of the blob, in groups of which more is damaged than they have good parity", ErrLost, content.Plural(len(lost[0].Slices), "slice", "slices"))
	}
	return d, err
}

// healer reconstructs slices of one group after the other.
type healer struct {
	g     *Generation
	c     *codec
	sums  [][]byte
	batch [][]byte

	missing []int    // slots of the group that were reconstructed
	out     [][]byte // their slices
}

func (g *Generation) healer() (*healer, error) {
	c, err := newCodec(g.geometry)
	if err != nil {
		return nil, err
	}
	h := &healer{g: g, c: c, sums: make([][]byte, g.parity), batch: make([][]byte, min(batchSlices, g.data))}
	for _, list := range [][][]byte{h.sums, h.batch} {
		for i := range list {
			list[i] = make([]byte, sliceSize)
		}
	}
	return h, nil
}

// group reconstructs the slots known to be missing, and those found to be. The error wraps
// [ErrLost] if they are more than the parity slices that are right.
func (h *healer) group(ctx context.Context, group int, known []int) error {
	h.missing = slices.Clone(known)
	for _, s := range h.sums {
		clear(s)
	}
	for b := range h.c.batches {
		slots, err := h.read(ctx, group, b)
		if err != nil {
			return err
		}
		if err := h.c.add(ctx, b, slots, h.sums); err != nil {
			return err
		}
	}
	if len(h.missing) == 0 {
		return nil
	}
	slices.Sort(h.missing)
	syndromes, err := h.syndromes(ctx, group)
	if err != nil {
		return err
	}
	for len(h.out) < len(h.missing) {
		h.out = append(h.out, make([]byte, sliceSize))
	}
	return h.c.solve(ctx, h.missing, syndromes, h.out)
}

// read reads a batch of a group; what is missing or wrong is nil.
func (h *healer) read(ctx context.Context, group, batch int) ([][]byte, error) {
	from, to := h.c.slots(batch)
	out := make([][]byte, to-from)
	var g errgroup.Group
	g.SetLimit(4)
	for slot := from; slot < to; slot++ {
		i, ok := h.g.slice(group, slot)
		if !ok || slices.Contains(h.missing, slot) {
			continue
		}
		g.Go(func() error {
			if h.g.readSlice(i, h.batch[slot-from]) {
				out[slot-from] = h.batch[slot-from]
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for slot := from; slot < to; slot++ {
		if _, ok := h.g.slice(group, slot); ok && out[slot-from] == nil && !slices.Contains(h.missing, slot) {
			h.missing = append(h.missing, slot)
		}
	}
	return out, nil
}

// readSlice reads slice i of the row, and reports whether all of it is right.
func (g *Generation) readSlice(i int, b []byte) bool {
	end := 0
	for _, p := range g.pieces(i) {
		blob := g.Blobs[p.blob]
		f, err := g.layout.OpenFile(layout.BlobPath(blob.Digest))
		if err != nil {
			return false
		}
		part := b[p.at : p.at+p.n]
		ok := readAt(f, part, p.slice*sliceSize)
		f.Close()
		if !ok || blob.Sums.Check(p.slice, part) != nil {
			return false
		}
		end = p.at + p.n
	}
	clear(b[end:])
	return true
}

// syndromes adds as many parity slices that are right to the sums of their rows as slots are
// missing.
func (h *healer) syndromes(ctx context.Context, group int) ([][]byte, error) {
	out := make([][]byte, h.g.parity)
	buf := h.batch[0]
	found := 0
	for row := 0; row < h.g.parity && found < len(h.missing); row++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !h.g.readParity(group, row, buf) {
			continue
		}
		subtle.XORBytes(h.sums[row], h.sums[row], buf)
		out[row] = h.sums[row]
		found++
	}
	if found < len(h.missing) {
		return nil, fmt.Errorf("%w: %d slices of group %d, which has %d parity slices that are right", ErrLost, len(h.missing), group, found)
	}
	return out, nil
}

// readParity reads a parity slice, and reports whether it is right.
func (g *Generation) readParity(group, row int, b []byte) bool {
	file, offset := g.parityAt(group, row)
	f, err := g.layout.OpenFile(slicesName(g.Number, file))
	if err != nil {
		return false
	}
	defer f.Close()
	return readAt(f, b, offset) && g.Parity.Check(int64(group*g.parity+row), b) == nil
}

// put hands over what was reconstructed of a group and was asked for.
func (h *healer) put(group int, damage []Damage, put func(ocispec.Descriptor, int64, []byte) error) error {
	for _, d := range damage {
		k, ok := h.g.index[d.Digest]
		if !ok || h.g.Blobs[k].Size != d.Size {
			continue
		}
		for _, j := range d.Slices {
			i := h.g.row(k, j)
			if i%h.g.groups != group {
				continue
			}
			n, ok := slices.BinarySearch(h.missing, i/h.g.groups)
			if !ok {
				return fmt.Errorf("slot %d of group %d was not reconstructed", i/h.g.groups, group) // cannot be
			}
			for _, p := range h.g.pieces(i) {
				if p.blob == k && p.slice == j {
					if err := put(h.g.Blobs[k].Descriptor(), j, h.out[n][p.at:p.at+p.n]); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// RestoreParity reconstructs parity slices, numbered as by CheckParity, and hands each to put
// with the file it belongs to and its place there. Blobs that are damaged in the same group are
// reconstructed on the way if they can be. It returns the slices that could not be made.
func (g *Generation) RestoreParity(ctx context.Context, bad []int, put func(name string, offset int64, data []byte) error) (lost []int, err error) {
	byGroup := map[int][]int{}
	for _, n := range bad {
		byGroup[n/g.parity] = append(byGroup[n/g.parity], n%g.parity)
	}
	h, err := g.healer()
	if err != nil {
		return bad, err
	}
	for _, group := range sortedKeys(byGroup) {
		err := h.group(ctx, group, nil)
		if errors.Is(err, ErrLost) {
			for _, row := range byGroup[group] {
				lost = append(lost, group*g.parity+row)
			}
			continue
		}
		if err == nil {
			err = h.complete(ctx, byGroup[group])
		}
		if err != nil {
			return lost, err
		}
		for _, row := range byGroup[group] {
			n := group*g.parity + row
			if g.Parity.Check(int64(n), h.sums[row]) != nil {
				lost = append(lost, n) // a slice passed its sum and was wrong
				continue
			}
			file, offset := g.parityAt(group, row)
			if err := put(slicesName(g.Number, file), offset, h.sums[row]); err != nil {
				return lost, err
			}
		}
	}
	return lost, nil
}

// complete adds what was reconstructed to the sums of rows, which then are the parity slices.
func (h *healer) complete(ctx context.Context, rows []int) error {
	if len(h.missing) == 0 {
		return nil
	}
	full := make([][]byte, h.g.parity)
	for r := range full {
		full[r] = make([]byte, sliceSize)
	}
	for b := range h.c.batches {
		from, to := h.c.slots(b)
		slots := make([][]byte, to-from)
		for n, slot := range h.missing {
			if slot >= from && slot < to {
				slots[slot-from] = h.out[n]
			}
		}
		if err := h.c.add(ctx, b, slots, full); err != nil {
			return err
		}
	}
	for _, row := range rows {
		subtle.XORBytes(h.sums[row], h.sums[row], full[row])
	}
	return nil
}
