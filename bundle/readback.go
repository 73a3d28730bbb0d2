package bundle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle/content"
	"pannier/store"
)

// readBack reads what no seal covers yet from the drive itself and compares it with the sums
// that were taken while it was written. On the way parity is made of what has none; it is
// written as generation g of the bundle with that id. It returns the digests of all files of
// parity that the seal is to name.
func (p *packer) readBack(ctx context.Context, g uint64, id digest.Digest) (ReadBack, map[string]digest.Digest, error) {
	method, err := p.layout.DropCache(ctx)
	if err != nil {
		return ReadBack{}, nil, err
	}
	rb := ReadBack{Method: string(method)}
	r := &reader{p: p, ev: Event{Phase: PhaseReadBack}}
	covered := map[digest.Digest]bool{} // read for parity, and compared there
	for _, b := range p.cover.bare {
		covered[b.Digest] = true
		r.ev.Total += b.Size
		r.ev.TotalBlobs++
	}
	var todo []ocispec.Descriptor
	for _, d := range slices.Sorted(maps.Keys(p.items)) {
		it := p.items[d]
		if it.state == stateSealed {
			continue
		}
		rb.Blobs++
		rb.Bytes += it.desc.Size
		if !covered[d] {
			todo = append(todo, ocispec.Descriptor{Digest: d, Size: it.desc.Size})
			r.ev.Total += it.desc.Size
			r.ev.TotalBlobs++
		}
	}
	if err := r.compare(ctx, todo); err != nil {
		p.forget(err)
		return ReadBack{}, nil, err
	}
	files, err := p.writeParity(ctx, p.cover, g, id, func(n int64) { r.add(n, 0) })
	if err != nil {
		p.forget(err)
		return ReadBack{}, nil, err
	}
	r.add(0, len(covered))
	out := maps.Clone(p.cover.kept)
	maps.Copy(out, files)
	return rb, out, nil
}

// reader reads blobs back and tells of its progress.
type reader struct {
	p  *packer
	mu sync.Mutex
	ev Event
}

func (r *reader) add(bytes int64, blobs int) {
	r.mu.Lock()
	r.ev.Done += bytes
	r.ev.Blobs += blobs
	e := r.ev
	r.mu.Unlock()
	r.p.opts.Progress(e)
}

// compare reads blobs back, several at once.
func (r *reader) compare(ctx context.Context, blobs []ocispec.Descriptor) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(min(r.p.opts.Jobs, 4))
	for _, desc := range blobs {
		sums, err := r.p.index.Slices(desc.Digest)
		if err != nil {
			return errors.Join(fmt.Errorf("%s: slice sums: %w", desc.Digest, err), g.Wait())
		}
		g.Go(func() error {
			if err := r.p.layout.ReadBack(gctx, desc, sums, func(n int64) { r.add(n, 0) }); err != nil {
				return fmt.Errorf("read back: %w", err)
			}
			r.add(0, 1)
			return nil
		})
	}
	return g.Wait()
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
