package ocdir

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/layout"
)

// Stat returns the size of a blob, in bytes; of several copies the first counts. The error
// wraps [fs.ErrNotExist].
func (t *Tree) Stat(d digest.Digest) (int64, error) {
	p := t.places[d]
	if len(p) == 0 {
		return 0, missing(d)
	}
	fi, err := t.folders[p[0].folder].Lstat(p[0].name)
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func missing(d digest.Digest) error { return fmt.Errorf("%s: %w", d, fs.ErrNotExist) }

// Fetch opens a blob from an offset on, not verified. Errors wrap [fs.ErrNotExist],
// [layout.ErrUnsafe], and [content.ErrSize] for an offset beyond its end.
func (t *Tree) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := content.CheckDescriptor(desc); err != nil {
		return nil, err
	}
	p := t.places[desc.Digest]
	if len(p) == 0 {
		return nil, missing(desc.Digest)
	}
	return t.fetch(ctx, p[0], offset)
}

func (t *Tree) fetch(ctx context.Context, p place, offset int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := t.openFile(p)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && (offset < 0 || offset > fi.Size()) {
		err = fmt.Errorf("%s/%s: %w: offset %d of %d bytes", p.folder, p.name, content.ErrSize, offset, fi.Size())
	}
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &reader{ctx, f}, nil
}

// openFile opens a file that was a regular one when it was listed, and is the same still: opening
// a pipe waits, and opening a device may act.
func (t *Tree) openFile(p place) (*os.File, error) {
	root := t.folders[p.folder]
	fi, err := root.Lstat(p.name)
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s/%s: %w", p.folder, p.name, layout.ErrUnsafe)
	}
	if err != nil {
		return nil, err
	}
	f, err := root.Open(p.name)
	if err != nil {
		return nil, err
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(fi, now) {
		f.Close()
		return nil, fmt.Errorf("%s/%s: %w: it was exchanged while it was opened", p.folder, p.name, layout.ErrUnsafe)
	}
	return f, nil
}

// reader ends with its context, which a file knows nothing of.
type reader struct {
	ctx context.Context
	f   *os.File
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.f.Read(p)
}

func (r *reader) Close() error { return r.f.Close() }

func (t *Tree) readAll(p place, limit int64) ([]byte, error) {
	f, err := t.openFile(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%w: more than %d bytes", content.ErrSize, limit)
	}
	return raw, err
}

// Manifest reads the manifest d, verified, with the descriptor that its registry had for it.
// Errors wrap [fs.ErrNotExist], [content.ErrDigest], [content.ErrSize] if it is larger than a
// manifest may be, and [content.ErrInvalid] if it is none.
func (t *Tree) Manifest(ctx context.Context, d digest.Digest) (ocispec.Descriptor, []byte, error) {
	desc := ocispec.Descriptor{Digest: d}
	var err error
	if desc.Size, err = t.Stat(d); err != nil {
		return desc, nil, err
	}
	raw, err := content.ReadAll(ctx, t, desc, content.MaxManifest)
	if err != nil {
		return desc, nil, err
	}
	if desc.MediaType, err = mediaType(raw); err != nil {
		return desc, nil, fmt.Errorf("%s: %w", d, err)
	}
	_, err = content.ParseManifest(desc.MediaType, raw)
	return desc, raw, err
}

// mediaType is what a manifest says that it is. Docker's always do; of OCI's that do not, what
// they hold tells.
func mediaType(raw []byte) (string, error) {
	var m struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", fmt.Errorf("%w: manifest: %w", content.ErrInvalid, err)
	}
	switch {
	case m.MediaType != "":
		return m.MediaType, nil
	case m.Manifests != nil:
		return ocispec.MediaTypeImageIndex, nil
	}
	return ocispec.MediaTypeImageManifest, nil
}

// Verify reads a file of the tree and compares it with the digest that its name states.
// progress is told of the bytes read, by increments; it may be nil. Errors wrap
// [content.ErrDigest] and [layout.ErrUnsafe].
func (t *Tree) Verify(ctx context.Context, f File, progress func(int64)) error {
	for _, p := range t.places[f.Digest] {
		if p.folder+"/"+p.name != f.Path {
			continue
		}
		rc, err := t.fetch(ctx, p, 0)
		if err != nil {
			return err
		}
		defer rc.Close()
		v := f.Digest.Verifier()
		buf := make([]byte, content.SliceSize)
		for {
			n, err := rc.Read(buf)
			v.Write(buf[:n])
			if progress != nil {
				progress(int64(n))
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
		if !v.Verified() {
			return fmt.Errorf("%s: %w", f.Path, content.ErrDigest)
		}
		return nil
	}
	return missing(f.Digest)
}
