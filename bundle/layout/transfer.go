package layout

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// transfer is one blob on its way.
type transfer struct {
	l        *Layout
	desc     ocispec.Descriptor
	progress func(n int64)

	adopted bool  // the blob was there
	replace bool  // something else is under the blob's name
	resumed int64 // see Ingested

	f      File  // the partial file
	out    paced // appends to it
	hash   hash.Hash
	slicer *content.Slicer
	n      int64 // bytes in f, all hashed
}

// errContent marks errors that say that the bytes at hand are wrong, so that continuing
// after them is useless.
type errContent struct{ error }

func (e errContent) Unwrap() error { return e.error }

// adopt takes the blob that is under its name already, if it is right: one that no record
// knows of, because power failed in between.
func (t *transfer) adopt(ctx context.Context) (content.Slices, error) {
	name := BlobPath(t.desc.Digest)
	f, fi, err := t.l.open(name, reopenFlag)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, classify(err)
	}
	defer f.Close()
	t.replace = true
	if fi.Size() != t.desc.Size {
		return nil, nil
	}
	sums, err := t.rehash(ctx, f, name)
	if err != nil {
		return nil, err
	}
	if sums == nil {
		return nil, nil
	}
	t.adopted, t.resumed = true, t.desc.Size
	t.l.named(name)
	// After power failed during a rename FAT may list one file under both names; removing
	// one then takes clusters of the other. Reading back before the seal finds that.
	if err := t.l.RemovePartial(t.desc.Digest); err != nil {
		return nil, err
	}
	return sums, nil
}

// rehash hashes the blob in f, which is open as reopenFlag says, from the medium. It returns
// nil if the content is wrong or cannot be read.
func (t *transfer) rehash(ctx context.Context, f File, name string) (content.Slices, error) {
	// After a failed sync the cache may hold what the medium does not.
	if err := syncFile(f); err != nil {
		return nil, classify(err)
	}
	dropFile(f)
	r, _, err := t.l.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var counted int64
	sums, err := hashFile(ctx, r, t.desc, func(n int64) { counted += n; report(t.progress, n) })
	if err == nil {
		return append(content.Slices{}, sums...), nil
	}
	report(t.progress, -counted)
	if errors.Is(err, content.ErrDigest) || errors.Is(err, content.ErrSize) || isUnreadable(err) {
		t.l.log.Info("a blob on the drive is damaged and will be replaced", "digest", t.desc.Digest, "error", err)
		return nil, nil
	}
	return nil, err
}

// run fills the partial file and makes it a blob.
func (t *transfer) run(ctx context.Context, open Opener) (content.Slices, error) {
	if err := t.openPartial(ctx); err != nil {
		if t.f != nil {
			t.f.Close()
		}
		return nil, classify(err)
	}
	t.resumed = t.n
	err := t.fill(ctx, open)
	if errors.As(err, new(errContent)) && t.resumed > 0 {
		t.l.log.Info("a partial file could not be continued, starting over", "digest", t.desc.Digest, "error", err)
		if err = t.reset(); err == nil {
			t.resumed = 0
			err = t.fill(ctx, open)
		}
	}
	if errors.As(err, new(errContent)) {
		report(t.progress, -t.n)
		return nil, errors.Join(err, t.f.Close(), t.l.RemovePartial(t.desc.Digest))
	}
	if err != nil {
		// What is there is worth keeping; whether it got there is found out on resume.
		return nil, errors.Join(err, classify(syncFile(t.f)), t.f.Close())
	}
	return t.slicer.Slices(), t.commit()
}

// openPartial opens the partial file, new or old, and hashes what is in it.
func (t *transfer) openPartial(ctx context.Context) error {
	name := PartialPath(t.desc.Digest)
	f, fi, err := t.l.open(name, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		if t.f, err = t.l.create(name); err != nil {
			return err
		}
		return t.reset()
	}
	if err != nil {
		return err
	}
	t.f = f
	if fi.Size() == 0 || fi.Size() > t.desc.Size {
		return t.reset()
	}
	if err := syncFile(f); err != nil { // see rehash
		return err
	}
	dropFile(f)
	err = t.rehashPartial(ctx)
	if err != nil && isUnreadable(err) {
		t.l.log.Info("a partial file cannot be read, starting over", "digest", t.desc.Digest, "error", err)
		return t.reset()
	}
	return err
}

// reset makes the partial file empty.
func (t *transfer) reset() error {
	report(t.progress, -t.n)
	t.hash, t.slicer, t.n, t.out = sha256.New(), &content.Slicer{}, 0, paced{f: t.f}
	if _, err := t.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return classify(t.f.Truncate(0))
}

// rehashPartial hashes the partial file from its beginning to its end, and leaves the file
// position there.
func (t *transfer) rehashPartial(ctx context.Context) error {
	t.hash, t.slicer, t.n = sha256.New(), &content.Slicer{}, 0
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := t.f.Read(*buf)
		t.add((*buf)[:n])
		if err == io.EOF {
			t.out = paced{f: t.f, end: t.n, pushed: t.n}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// add accounts for bytes that are in the partial file.
func (t *transfer) add(b []byte) {
	t.hash.Write(b)
	t.slicer.Write(b)
	t.n += int64(len(b))
	report(t.progress, int64(len(b)))
}

// fill continues the partial file at its end, up to the size of the blob, and compares. The
// error is an errContent if the bytes are wrong.
func (t *transfer) fill(ctx context.Context, open Opener) error {
	if t.n < t.desc.Size {
		rc, err := open(ctx, t.n)
		if err != nil {
			return err
		}
		defer rc.Close()
		if err := t.copy(ctx, rc); err != nil {
			return err
		}
	}
	if t.n > t.desc.Size { // grown behind our back while it was hashed
		return errContent{fmt.Errorf("%w: %d bytes, %d expected", content.ErrSize, t.n, t.desc.Size)}
	}
	if got := digest.NewDigest(digest.SHA256, t.hash); got != t.desc.Digest {
		return errContent{fmt.Errorf("%w: the bytes hash to %s", content.ErrDigest, got)}
	}
	return nil
}

// copy appends what r holds, which must be exactly what is missing.
func (t *transfer) copy(ctx context.Context, r io.Reader) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for t.n < t.desc.Size {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := (*buf)[:min(stepSize, t.desc.Size-t.n)]
		n, rerr := io.ReadFull(r, b)
		if _, err := t.out.Write(b[:n]); err != nil {
			return classify(err)
		}
		t.add(b[:n])
		switch rerr {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return fmt.Errorf("%w: the source ended after %d bytes of %d: %w",
				content.ErrSize, t.n, t.desc.Size, io.ErrUnexpectedEOF)
		default:
			return rerr
		}
	}
	switch n, err := io.ReadFull(r, (*buf)[:1]); {
	case n > 0:
		return errContent{fmt.Errorf("%w: the source sends more than %d bytes", content.ErrSize, t.desc.Size)}
	case err != io.EOF:
		return err
	}
	return nil
}

// commit leaves the whole partial file to the next Flush.
func (t *transfer) commit() error {
	if err := t.f.Close(); err != nil {
		return classify(err)
	}
	t.l.whole(t.desc.Digest, t.replace)
	return nil
}
