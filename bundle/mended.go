package bundle

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/parity"
)

// Mended is what parity makes of a drive: the blobs that it covers, with what is damaged of them
// reconstructed on the local disk. The drive stays as it is. Nothing of it is verified, as of
// any other [Blobs].
type Mended struct {
	layout *layout.Layout
	cache  string

	mu     sync.Mutex // one blob after the other: the memory of a group is bounded once
	set    *parity.Set
	err    error // of opening the set
	folder string
	mended map[digest.Digest]*parity.Mended
}

// open reads the maps of parity, when somebody asks for the first time.
func (h *Mended) open() (*parity.Set, error) {
	if h.set == nil && h.err == nil {
		h.set, h.err = parity.Open(h.layout)
	}
	return h.set, h.err
}

// Covers reports whether a blob may be had from parity.
func (h *Mended) Covers(desc ocispec.Descriptor) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	set, err := h.open()
	if err != nil {
		return false
	}
	_, ok := set.Blob(desc)
	return ok
}

// Lost names the covered blobs that are missing or cut and that parity cannot bring back, since
// more of their groups is gone than there is parity of: as far as the sizes of the files tell.
// What is damaged within files is not known, nor read; only the slices of parity are, where one
// of its own files is missing or cut.
func (h *Mended) Lost(ctx context.Context) map[digest.Digest]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	set, err := h.open()
	if err != nil {
		return nil
	}
	absent := set.Absent()
	if len(absent) == 0 {
		return nil
	}
	var bad []parity.ParityDamage
	for _, g := range set.Generations {
		if g.SizesRight() {
			continue
		}
		if wrong, err := g.CheckParity(ctx); err == nil {
			bad = append(bad, parity.ParityDamage{Generation: g.Number, Slices: wrong})
		}
	}
	out := map[digest.Digest]bool{}
	for _, d := range set.Lost(absent, bad) {
		out[d.Digest] = true
	}
	return out
}

// Stat implements [Blobs]: it returns the size that a covered blob should have.
func (h *Mended) Stat(d digest.Digest) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	set, err := h.open()
	if err != nil {
		return 0, err
	}
	if size, ok := set.Size(d); ok {
		return size, nil
	}
	return 0, fmt.Errorf("blob %s: %w: %w", d, fs.ErrNotExist, parity.ErrNotCovered)
}

// Fetch implements [content.Fetcher]. The first call for a blob reconstructs it. Errors wrap
// those of [parity.Set.Mend].
func (h *Mended) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	m, err := h.mend(ctx, desc)
	if err != nil {
		return nil, err
	}
	rc := m.Open(ctx)
	if _, err := io.CopyN(io.Discard, rc, offset); err != nil {
		rc.Close()
		return nil, fmt.Errorf("%s: %w: offset %d: %w", desc.Digest, content.ErrSize, offset, err)
	}
	return rc, nil
}

// Totals returns how many blobs were reconstructed, and how many bytes of them were damaged.
func (h *Mended) Totals() (blobs int, bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.mended {
		bytes += m.Damage.Bytes()
	}
	return len(h.mended), bytes
}

func (h *Mended) mend(ctx context.Context, desc ocispec.Descriptor) (*parity.Mended, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.mended[desc.Digest]; m != nil {
		return m, nil
	}
	set, err := h.open()
	if err != nil {
		return nil, err
	}
	if h.folder == "" {
		if h.folder, err = workingFolder(h.cache); err != nil {
			return nil, &localError{err}
		}
	}
	f, err := os.CreateTemp(h.folder, desc.Digest.Encoded()+"-")
	if err != nil {
		return nil, &localError{err}
	}
	m, err := set.Mend(ctx, desc, &scratch{f.Name()})
	if cerr := f.Close(); err == nil && cerr != nil {
		err = &localError{cerr}
	}
	if err != nil {
		os.Remove(f.Name())
		return nil, err
	}
	h.mended[desc.Digest] = m
	return m, nil
}

// Forget makes the next Fetch of a blob reconstruct it again: what is damaged of it now may be
// more. Whoever reads the former reconstruction can go on.
func (h *Mended) Forget(d digest.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.mended, d)
}

// close removes what was reconstructed.
func (h *Mended) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.folder == "" {
		return nil
	}
	return os.RemoveAll(h.folder)
}

// scratch is a file that is open only while it is read or written: a drive may have many
// damaged blobs, and a process may have few open files.
type scratch struct{ path string }

func (s *scratch) WriteAt(p []byte, off int64) (int, error) {
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	if err != nil {
		return 0, &localError{err}
	}
	n, err := f.WriteAt(p, off)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return n, &localError{err}
	}
	return n, nil
}

func (s *scratch) ReadAt(p []byte, off int64) (int, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return 0, &localError{err}
	}
	defer f.Close()
	return f.ReadAt(p, off)
}
