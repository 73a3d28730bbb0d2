package parity

import (
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
)

const (
	// ahead is how many batches are being read, or wait to be encoded, at once: so many that
	// the drive has something to read while one is encoded.
	ahead = 4
	// spareRows is how many parity slices a group may have for two groups to be in memory, one
	// being written while the next is summed up.
	spareRows = 32
)

// batch is the data slices of some slots of a group.
type batch struct {
	number  int      // of the group's batches
	slices  [][]byte // nil for slots that are zeros, which are the last ones
	buffers [][]byte
	asked   int           // slices that are to be read
	read    chan struct{} // sent on for each that was
}

// wanted is a slice that is to be read into a slot of a batch.
type wanted struct {
	batch    *batch
	slice, k int
}

// encode reads the groups that a parity file holds and writes their parity slices to out. Four
// kinds of work go on at once, so that the drive never waits for arithmetic: asking for the
// slices of batch after batch, reading and comparing them, summing up, and writing.
func (w *writer) encode(ctx context.Context, file int, out io.Writer) error {
	var (
		g, gctx = errgroup.WithContext(ctx)
		p       = pipeline{
			writer: w, wanted: make(chan wanted), batches: make(chan *batch, ahead), groups: make(chan [][]byte),
			free: make(chan *batch, ahead), sums: make(chan [][]byte, 2),
		}
	)
	for range ahead {
		p.free <- &batch{buffers: makeSlices(min(batchSlices, w.m.data)), read: make(chan struct{}, batchSlices)}
	}
	p.sums <- makeSlices(w.m.parity)
	if w.m.parity <= spareRows {
		p.sums <- makeSlices(w.m.parity)
	}
	from, to := w.m.held(file)
	g.Go(func() error { return p.ask(gctx, from, to) })
	for range jobs(w.opts.Jobs) {
		g.Go(func() error { return p.read(gctx) })
	}
	g.Go(func() error { return p.sum(gctx) })
	g.Go(func() error { return p.write(out) })
	return g.Wait()
}

func makeSlices(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, sliceSize)
	}
	return out
}

// pipeline is the channels between the kinds of work, and those on which buffers come back.
// Who sends on one of the first three closes it at the end.
type pipeline struct {
	*writer
	wanted  chan wanted
	batches chan *batch   // in the order of groups and slots, perhaps still being read
	groups  chan [][]byte // parity slices, in the order of groups
	free    chan *batch
	sums    chan [][]byte

	progress sync.Mutex // guards Progress
}

// ask asks for the slices of the groups from one to before another.
func (p *pipeline) ask(ctx context.Context, from, to int) error {
	defer close(p.wanted)
	defer close(p.batches)
	for group := from; group < to; group++ {
		for number := range p.c.batches {
			b, err := receive(ctx, p.free)
			if err != nil {
				return err
			}
			first, last := p.c.slots(number)
			b.number, b.slices, b.asked = number, make([][]byte, last-first), 0
			for k := range b.slices {
				if _, ok := p.m.slice(group, first+k); ok {
					b.slices[k] = b.buffers[k]
					b.asked++
				}
			}
			if err := send(ctx, p.batches, b); err != nil {
				return err
			}
			for k := range b.asked {
				i, _ := p.m.slice(group, first+k)
				if err := send(ctx, p.wanted, wanted{b, i, k}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// read reads slices, and compares them.
func (p *pipeline) read(ctx context.Context) error {
	for want := range p.wanted {
		if err := p.readSlice(ctx, want); err != nil {
			return err
		}
		want.batch.read <- struct{}{}
	}
	return nil
}

func (p *pipeline) readSlice(ctx context.Context, want wanted) error {
	buf, end := want.batch.slices[want.k], 0
	for _, piece := range p.m.pieces(want.slice) {
		b, at := p.m.Blobs[piece.blob], buf[piece.at:piece.at+piece.n]
		if err := p.opts.Layout.ReadSlice(ctx, b.Descriptor(), piece.slice, at); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		if err := b.Sums.Check(piece.slice, at); err != nil {
			return fmt.Errorf("read back: blob %s: at offset %d: %w", b.Digest, piece.slice*sliceSize, err)
		}
		p.told(int64(piece.n))
		end = piece.at + piece.n
	}
	clear(buf[end:])
	return nil
}

func (p *pipeline) told(n int64) {
	if p.opts.Progress != nil {
		p.progress.Lock()
		defer p.progress.Unlock()
		p.opts.Progress(n)
	}
}

// sum adds up the parity slices of each group.
func (p *pipeline) sum(ctx context.Context) error {
	defer close(p.groups)
	var sums [][]byte
	for b := range p.batches {
		for range b.asked {
			if _, err := receive(ctx, b.read); err != nil {
				return err
			}
		}
		if b.number == 0 {
			var err error
			if sums, err = receive(ctx, p.sums); err != nil {
				return err
			}
			for _, s := range sums {
				clear(s)
			}
		}
		if err := p.c.add(ctx, b.number, b.slices, sums); err != nil {
			return err
		}
		last := b.number == len(p.c.batches)-1
		p.free <- b
		if last {
			if err := send(ctx, p.groups, sums); err != nil {
				return err
			}
		}
	}
	return nil
}

// write writes the parity slices of each group to out.
func (p *pipeline) write(out io.Writer) error {
	for sums := range p.groups {
		for _, s := range sums {
			if _, err := out.Write(s); err != nil {
				return err
			}
		}
		p.sums <- sums
	}
	return nil
}

func receive[T any](ctx context.Context, from <-chan T) (T, error) {
	select {
	case v := <-from:
		return v, nil
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func send[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func jobs(n int) int {
	if n <= 0 || n > 4 {
		return 4
	}
	return n
}
