package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// maxNames bounds how many names of one folder are looked at, so that a hostile drive cannot
// exhaust memory. Releases have hundreds of blobs.
const maxNames = 1_000_000

// BlobPath returns where the blob d is in every layout, "blobs/sha256/<hex>", a slash path.
// d must have passed [content.CheckDigest].
func BlobPath(d digest.Digest) string { return blobDir + "/" + d.Encoded() }

// PartialPath returns where the blob d is while it is being downloaded,
// "pannier/partial/<hex>.download", a slash path. d must have passed [content.CheckDigest].
func PartialPath(d digest.Digest) string { return partialDir + "/" + d.Encoded() + partialExt }

// Stat returns the size of the blob d, in bytes. It says nothing about its content. Errors
// wrap [fs.ErrNotExist] and [ErrUnsafe].
func (l *Layout) Stat(d digest.Digest) (int64, error) {
	if err := content.CheckDigest(d); err != nil {
		return 0, err
	}
	fi, err := l.lstat(BlobPath(d))
	if err != nil {
		return 0, err
	}
	if !fi.Mode().IsRegular() {
		return 0, refuse(l.path(BlobPath(d)), fi.Mode())
	}
	return fi.Size(), nil
}

// Fetch opens the blob that desc names, from offset on; it is a [content.Fetcher]. What is
// read is not verified. Errors wrap [fs.ErrNotExist], [ErrUnsafe], and [content.ErrSize] for
// an offset beyond the end.
func (l *Layout) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := content.CheckDescriptor(desc); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, fi, err := l.open(BlobPath(desc.Digest), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if offset < 0 || offset > fi.Size() {
		f.Close()
		return nil, fmt.Errorf("%s: %w: offset %d of %d bytes", desc.Digest, content.ErrSize, offset, fi.Size())
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return &blobReader{ctx: ctx, f: f}, nil
}

// blobReader ends with its context, which a file knows nothing of.
type blobReader struct {
	ctx context.Context
	f   File
}

func (b *blobReader) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	return b.f.Read(p)
}

func (b *blobReader) Close() error { return b.f.Close() }

// Verify reads the blob that desc names and compares its size and SHA-256; it returns the
// slice sums of what it read. The page cache may answer: [Layout.ReadBack] passes it.
// progress, which may be nil, is told the bytes read, by increments. Errors wrap
// [content.ErrSize], [content.ErrDigest], [fs.ErrNotExist] and [ErrUnsafe].
func (l *Layout) Verify(ctx context.Context, desc ocispec.Descriptor, progress func(n int64)) (content.Slices, error) {
	if err := content.CheckDescriptor(desc); err != nil {
		return nil, err
	}
	f, fi, err := l.open(BlobPath(desc.Digest), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi.Size() != desc.Size {
		return nil, fmt.Errorf("%s: %w: %d bytes on the drive, %d expected", desc.Digest, content.ErrSize, fi.Size(), desc.Size)
	}
	return hashFile(ctx, f, desc, progress)
}

// hashFile reads f to its end as desc.
func hashFile(ctx context.Context, f File, desc ocispec.Descriptor, progress func(n int64)) (content.Slices, error) {
	r, err := content.NewReader(f, desc)
	if err != nil {
		return nil, err
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var slicer content.Slicer
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := r.Read(*buf)
		slicer.Write((*buf)[:n])
		report(progress, int64(n))
		if err == io.EOF {
			return slicer.Slices(), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func report(progress func(n int64), n int64) {
	if progress != nil && n != 0 {
		progress(n)
	}
}

// BlobFile is a name found in the folder of blobs or of partial files.
type BlobFile struct {
	Digest  digest.Digest // "" if the name is not 64 lower-case hex digits (and the ending of a partial file)
	Name    string        // as the folder lists it, without the folder
	Size    int64         // bytes
	Regular bool          // false for folders, links and special files
}

// Blobs lists blobs/sha256, sorted by name, whatever is in it. A missing folder is empty. An
// error wraps [content.ErrInvalid] if there are more than a million names.
func (l *Layout) Blobs() ([]BlobFile, error) { return l.blobFiles(blobDir, "") }

// Partials lists pannier/partial like [Layout.Blobs]. A size is a hint and no more.
func (l *Layout) Partials() ([]BlobFile, error) { return l.blobFiles(partialDir, partialExt) }

func (l *Layout) blobFiles(dir, ext string) ([]BlobFile, error) {
	entries, err := l.List(dir)
	if err != nil {
		return nil, err
	}
	out := make([]BlobFile, 0, len(entries))
	for _, e := range entries {
		b := BlobFile{Name: e.Name, Size: e.Size, Regular: e.Mode.IsRegular()}
		if encoded, ok := strings.CutSuffix(e.Name, ext); ok {
			if d := digest.NewDigestFromEncoded(digest.SHA256, encoded); content.CheckDigest(d) == nil {
				b.Digest = d
			}
		}
		out = append(out, b)
	}
	return out, nil
}

// Entry is what [Layout.List] tells of one name.
type Entry struct {
	Name string // without the folder
	Size int64  // bytes
	Mode fs.FileMode
	Err  error // why it could not be looked at, a damaged folder for instance; then the mode is [fs.ModeIrregular]
}

// List returns what the folder name, a slash path or ".", holds, sorted by name. A missing
// folder is empty. Errors wrap [ErrUnsafe] if it is none, and [content.ErrInvalid] if there
// are more than a million names in it.
func (l *Layout) List(name string) ([]Entry, error) {
	if name != "." {
		fi, err := l.lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if !fi.IsDir() {
			return nil, refuse(l.path(name), fi.Mode())
		}
	}
	names, err := l.fs.ReadDir(name, maxNames+1)
	if err != nil {
		return nil, err
	}
	if len(names) > maxNames {
		return nil, fmt.Errorf("%s: %w: more than %d names", l.path(name), content.ErrInvalid, maxNames)
	}
	slices.Sort(names)
	out := make([]Entry, 0, len(names))
	for _, n := range names {
		full := n
		if name != "." {
			full = name + "/" + n
		}
		fi, err := l.fs.Lstat(full)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since
		}
		if err != nil {
			out = append(out, Entry{Name: n, Mode: fs.ModeIrregular, Err: err})
			continue
		}
		out = append(out, Entry{Name: n, Size: fi.Size(), Mode: fi.Mode()})
	}
	return out, nil
}

// RemoveBlob removes the blob d; that there is none is no error.
func (l *Layout) RemoveBlob(d digest.Digest) error {
	if err := content.CheckDigest(d); err != nil {
		return err
	}
	return l.RemoveFile(BlobPath(d))
}

// RemovePartial removes the partial file of d; that there is none is no error.
func (l *Layout) RemovePartial(d digest.Digest) error {
	if err := content.CheckDigest(d); err != nil {
		return err
	}
	l.mu.Lock()
	delete(l.waiting, d)
	l.mu.Unlock()
	return l.RemoveFile(PartialPath(d))
}
