package bundle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle/content"
	"pannier/store"
)

// readBack reads what no seal covers yet from the drive itself and compares it with the sums
// that were taken while it was written.
func (p *packer) readBack(ctx context.Context) (ReadBack, error) {
	method, err := p.layout.DropCache(ctx)
	if err != nil {
		return ReadBack{}, err
	}
	rb := ReadBack{Method: string(method)}
	ev := Event{Phase: PhaseReadBack}
	var todo []store.Completed
	for _, d := range slices.Sorted(maps.Keys(p.items)) {
		it := p.items[d]
		if it.state == stateSealed {
			continue
		}
		sums, err := p.index.Slices(d)
		if err != nil {
			return rb, fmt.Errorf("%s: slice sums: %w", d, err)
		}
		todo = append(todo, store.Completed{Record: store.Record{Digest: d, Size: it.desc.Size}, Slices: sums})
		ev.Total += it.desc.Size
		ev.TotalBlobs++
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(min(p.opts.Jobs, 4))
	for _, c := range todo {
		g.Go(func() error {
			desc := ocispec.Descriptor{Digest: c.Record.Digest, Size: c.Record.Size}
			err := p.layout.ReadBack(gctx, desc, c.Slices, func(n int64) {
				mu.Lock()
				ev.Done += n
				e := ev
				mu.Unlock()
				p.opts.Progress(e)
			})
			if err != nil {
				return fmt.Errorf("read back: %w", err)
			}
			mu.Lock()
			ev.Blobs++
			e := ev
			mu.Unlock()
			p.opts.Progress(e)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		p.forget(err)
		return rb, err
	}
	rb.Blobs, rb.Bytes = len(todo), ev.Total
	return rb, nil
}

// forget takes back that blobs are complete when the drive does not return what was written:
// the next run hashes them anew.
func (p *packer) forget(cause error) {
	if !errors.Is(cause, content.ErrDigest) {
		return
	}
	var records []store.Record
	for d := range p.items {
		if r, err := p.index.Record(d); err == nil && r.Sealed == 0 && r.State == store.StateComplete {
			r.State, r.Offset = store.StateWanted, 0
			records = append(records, r)
		}
	}
	if err := p.index.Put(records...); err != nil {
		p.log.Warn("the index cannot be corrected", "err", err)
	}
}
