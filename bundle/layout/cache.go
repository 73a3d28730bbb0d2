package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// CacheMethod is how memory is passed when a drive is read back. Reports say it, because
// reading a file that the computer still holds in memory proves nothing about the stick.
type CacheMethod string

// The methods there are.
const (
	// CacheFadvise drops the pages of each file; that is enough where the kernel itself
	// holds the file system.
	CacheFadvise CacheMethod = "fadvise"
	// CacheDevice also drops the pages of the block device, from which drivers outside
	// the kernel (exfat-fuse, ntfs-3g) read.
	CacheDevice CacheMethod = "fadvise+device"
	// CacheDriver is what is left of that when the block device may not be opened.
	CacheDriver CacheMethod = "fadvise, driver cache kept"
	// CacheMemory is a file system that is memory.
	CacheMemory CacheMethod = "memory"
	// CacheNone is a system on which the cache cannot be dropped.
	CacheNone CacheMethod = "none"
)

// Passed reports whether what is read comes from the medium.
func (m CacheMethod) Passed() bool { return m == CacheFadvise || m == CacheDevice }

// Text says in a sentence, for a report, what the method proves.
func (m CacheMethod) Text() string {
	switch m {
	case CacheFadvise:
		return "read from the medium: the page cache of every file was dropped"
	case CacheDevice:
		return "read from the medium: the page caches of every file and of the block device were dropped"
	case CacheDriver:
		return "perhaps not read from the medium: the file system's driver reads through the block device's cache, which only a user who may open the device can drop; unplug the drive, plug it in and audit it"
	case CacheMemory:
		return "not read from a medium: this file system is in memory"
	}
	return "perhaps not read from the medium: the page cache cannot be dropped on this system; unplug the drive, plug it in and audit it"
}

// DropCache passes the page cache as well as this drive allows and says how. What was
// written must have been flushed: unwritten pages cannot be dropped. [Layout.ReadBack] drops
// for itself; the call is there to know the method.
func (l *Layout) DropCache(ctx context.Context) (CacheMethod, error) {
	if err := ctx.Err(); err != nil {
		return CacheNone, err
	}
	f, err := l.fs.OpenFile(".", os.O_RDONLY, 0)
	if err != nil {
		return CacheNone, err
	}
	defer f.Close()
	return dropDrive(f)
}

// ReadBack reads the blob that desc names past the cache and compares every slice with its
// sum. It needs a [Layout.Flush] before. progress, which may be nil, is told the bytes
// compared, by increments. Errors wrap [content.ErrDigest], with the offset in the message,
// [content.ErrSize], [content.ErrInvalid] for sums of another size, [fs.ErrNotExist] and
// [ErrUnsafe]; a medium that cannot be read there is an error with the offset as well.
func (l *Layout) ReadBack(ctx context.Context, desc ocispec.Descriptor, slices content.Slices, progress func(n int64)) error {
	if want := content.SliceCount(desc.Size) * content.SumSize; int64(len(slices)) != want {
		return fmt.Errorf("blob %s: %w: %d bytes of slice sums, %d expected", desc.Digest, content.ErrInvalid, len(slices), want)
	}
	f, err := l.openBlob(desc)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := dropDrive(f); err != nil {
		return err
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for i := range content.SliceCount(desc.Size) {
		if err := ctx.Err(); err != nil {
			return err
		}
		offset := i * content.SliceSize
		b := (*buf)[:min(content.SliceSize, desc.Size-offset)]
		if _, err := io.ReadFull(f, b); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%w: %w", content.ErrSize, io.ErrUnexpectedEOF)
			}
			return fmt.Errorf("blob %s: read back at offset %d: %w", desc.Digest, offset, err)
		}
		if err := slices.Check(i, b); err != nil {
			return fmt.Errorf("blob %s: read back at offset %d: %w", desc.Digest, offset, err)
		}
		report(progress, int64(len(b)))
	}
	return nil
}

// DropBlob drops the blob that desc names from the cache, so that [Layout.ReadSlice] reads it
// from the medium; it needs a [Layout.Flush], and a [Layout.DropCache] for what lies below
// files, before. Dropping waits for every processor, so it is not for each slice. Errors wrap
// [content.ErrSize], [fs.ErrNotExist] and [ErrUnsafe].
func (l *Layout) DropBlob(desc ocispec.Descriptor) error {
	f, err := l.openBlob(desc)
	if err != nil {
		return err
	}
	dropFile(f)
	return f.Close()
}

// openBlob opens the blob that desc names, which must have its size.
func (l *Layout) openBlob(desc ocispec.Descriptor) (File, error) {
	if err := content.CheckDescriptor(desc); err != nil {
		return nil, err
	}
	f, fi, err := l.open(BlobPath(desc.Digest), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if fi.Size() != desc.Size {
		f.Close()
		return nil, fmt.Errorf("blob %s: %w: %d bytes on the drive, %d expected", desc.Digest, content.ErrSize, fi.Size(), desc.Size)
	}
	return f, nil
}

// ReadSlice reads slice i of the blob that desc names into b, as much of it as the blob has,
// for slices that are read out of order. It compares nothing. Errors are those of
// [Layout.DropBlob], and say the offset.
func (l *Layout) ReadSlice(ctx context.Context, desc ocispec.Descriptor, i int64, b []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := l.openBlob(desc)
	if err != nil {
		return err
	}
	defer f.Close()
	offset := i * content.SliceSize
	if _, err := f.ReadAt(b[:min(content.SliceSize, desc.Size-offset)], offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %w", content.ErrSize, io.ErrUnexpectedEOF)
		}
		return fmt.Errorf("blob %s: read at offset %d: %w", desc.Digest, offset, err)
	}
	return nil
}
