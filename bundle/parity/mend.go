package parity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/layout"
)

// Scratch keeps reconstructed slices while a blob is read; a temporary file is one.
type Scratch interface {
	io.ReaderAt
	io.WriterAt
}

// Mended is a damaged blob with its reconstructed slices laid over it. The drive stays as it
// is.
type Mended struct {
	Damage Damage // what was reconstructed

	desc    ocispec.Descriptor
	layout  *layout.Layout
	scratch io.ReaderAt
}

// Mend reconstructs the damaged slices of a blob into scratch, one after the other, which takes
// as many bytes as are damaged. Errors are those of [Set.Rebuild].
func (s *Set) Mend(ctx context.Context, desc ocispec.Descriptor, scratch Scratch) (*Mended, error) {
	d, err := s.mend(ctx, desc, func(d Damage, slice int64, data []byte) error {
		k, _ := slices.BinarySearch(d.Slices, slice)
		_, err := scratch.WriteAt(data, int64(k)*sliceSize)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Mended{Damage: d, desc: desc, layout: s.layout, scratch: scratch}, nil
}

// Open reads the blob from its beginning. What is read is not verified.
func (m *Mended) Open(ctx context.Context) io.ReadCloser {
	r := &mendedReader{ctx: ctx, m: m}
	// Of a blob that is not there no slice is right, and none is read.
	r.f, r.err = m.layout.OpenFile(layout.BlobPath(m.desc.Digest))
	return r
}

type mendedReader struct {
	ctx context.Context
	m   *Mended
	f   *layout.FileReader
	err error // of opening the blob
	at  int64
}

// Read reads to the end of a slice at most.
func (r *mendedReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	left := r.m.desc.Size - r.at
	if left <= 0 {
		return 0, io.EOF
	}
	j, within := r.at/sliceSize, r.at%sliceSize
	p = p[:min(int64(len(p)), left, sliceSize-within)]
	source, offset := io.ReaderAt(r.f), r.at
	if k, bad := slices.BinarySearch(r.m.Damage.Slices, j); bad {
		source, offset = r.m.scratch, int64(k)*sliceSize+within
	} else if r.err != nil {
		return 0, r.err
	}
	if !readAt(source, p, offset) {
		return 0, fmt.Errorf("blob %s: at offset %d: %w", r.m.desc.Digest, r.at, io.ErrUnexpectedEOF)
	}
	r.at += int64(len(p))
	return len(p), nil
}

func (r *mendedReader) Close() error {
	if r.f == nil {
		return nil
	}
	return r.f.Close()
}

// MendAll is [Set.Mend] of several blobs, for which every group is read once. Blobs that
// nothing covers, that no slice is found wrong of, or that are lost are left out. scratch takes
// as many bytes as can be reconstructed, at places of its own.
func (s *Set) MendAll(ctx context.Context, descs []ocispec.Descriptor, scratch Scratch) (map[digest.Digest]*Mended, error) {
	var all []Damage
	base := map[digest.Digest]int64{} // where the slices of a blob lie in scratch
	var end int64
	for _, desc := range descs {
		d, err := s.Locate(ctx, desc, nil)
		if errors.Is(err, ErrNotCovered) || err == nil && len(d.Slices) == 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, twice := base[d.Digest]; twice {
			continue
		}
		base[d.Digest] = end
		end += int64(len(d.Slices)) * sliceSize
		all = append(all, d)
	}
	damaged := map[digest.Digest]Damage{}
	for _, d := range all {
		damaged[d.Digest] = d
	}
	lost, err := s.Restore(ctx, all, func(desc ocispec.Descriptor, slice int64, data []byte) error {
		k, _ := slices.BinarySearch(damaged[desc.Digest].Slices, slice)
		_, err := scratch.WriteAt(data, base[desc.Digest]+int64(k)*sliceSize)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, d := range lost {
		delete(damaged, d.Digest)
	}
	out := map[digest.Digest]*Mended{}
	for _, d := range damaged {
		out[d.Digest] = &Mended{
			Damage: d, desc: ocispec.Descriptor{Digest: d.Digest, Size: d.Size}, layout: s.layout,
			scratch: io.NewSectionReader(scratch, base[d.Digest], int64(len(d.Slices))*sliceSize),
		}
	}
	return out, nil
}
