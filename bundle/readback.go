package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle/content"
	"pannier/bundle/layout"
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
	var todo, all []ocispec.Descriptor
	for _, d := range slices.Sorted(maps.Keys(p.items)) {
		it := p.items[d]
		if it.state == stateSealed {
			continue
		}
		rb.Blobs++
		rb.Bytes += it.desc.Size
		all = append(all, ocispec.Descriptor{Digest: d, Size: it.desc.Size})
		if !covered[d] {
			todo = append(todo, ocispec.Descriptor{Digest: d, Size: it.desc.Size})
			r.ev.Total += it.desc.Size
			r.ev.TotalBlobs++
		}
	}
	if err := r.compare(ctx, todo); err != nil {
		p.forget(err)
		err = r.compareAll(ctx, all, err)
		return ReadBack{}, nil, err
	}
	files, err := p.writeParity(ctx, p.cover, g, id, func(n int64) { r.add(n, 0) })
	if err != nil {
		p.forget(err)
		return ReadBack{}, nil, r.compareAll(ctx, all, err)
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

// maxBad is how many bad blobs an error lists.
const maxBad = 20

// compareAll reads all blobs back once one of them was not what was written, as cause says: how
// many they are tells a bad place from a false drive. It returns an error that lists the first
// of them and wraps cause, or cause alone where that is no damage or nothing more is known.
func (r *reader) compareAll(ctx context.Context, blobs []ocispec.Descriptor, cause error) error {
	if !isDamage(cause) {
		return cause
	}
	r.mu.Lock()
	r.ev = Event{Phase: PhaseReadBack, TotalBlobs: len(blobs)}
	for _, d := range blobs {
		r.ev.Total += d.Size
	}
	r.mu.Unlock()
	bad, named := 0, []error{}
	for _, desc := range blobs {
		sums, err := r.p.index.Slices(desc.Digest)
		if err == nil {
			err = r.p.layout.ReadBack(ctx, desc, sums, func(n int64) { r.add(n, 0) })
		}
		r.add(0, 1)
		switch {
		case err == nil:
			continue
		case !isDamage(err), errors.Is(r.p.layout.Diagnose(err), layout.ErrGone):
			return cause // the drive is gone, or somebody has had enough
		}
		if bad++; len(named) < maxBad {
			named = append(named, err)
		}
	}
	if bad < 2 {
		return cause
	}
	if n := bad - len(named); n > 0 {
		named = append(named, fmt.Errorf("and %d more", n))
	}
	return fmt.Errorf("%w\n%d of %d blobs are not as they were written:\n%w", cause, bad, len(blobs), errors.Join(named...))
}

// isDamage reports whether a drive returned other bytes than it was given, or cannot read them.
func isDamage(err error) bool {
	return errors.Is(err, content.ErrDigest) || errors.Is(err, content.ErrSize) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EIO)
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
