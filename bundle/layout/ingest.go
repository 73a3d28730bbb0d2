package layout

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

const (
	// bufferSize is how much is read and written at once. It is a slice, so that reading
	// back needs no other buffer.
	bufferSize = content.SliceSize
	// stepSize is how much is collected from a source before it is written and reported.
	stepSize = 256 << 10
	// windowSize is how much may wait in memory before it is pushed to the medium; two
	// windows are under way at most.
	windowSize = 8 << 20
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// Opener opens the source of a blob from offset on. offset is the number of bytes that are
// already there and have been hashed.
type Opener func(ctx context.Context, offset int64) (io.ReadCloser, error)

// Ingested is what [Layout.Ingest] found out about a blob.
type Ingested struct {
	Slices  content.Slices // sums of the slices as they were written
	Resumed int64          // bytes that were on the drive already and hashed again; the size if nothing was fetched
}

// Ingest writes the blob that desc names: into a partial file, hashed on the way, compared.
// It has its name, and is durable, only after the next [Layout.Flush].
//
// A partial file from before is read from the medium and hashed, then continued at its
// length; if that turns out wrong, or it is too long, all is started over once. A blob that
// is there already is hashed and kept if right (nothing is opened then), and replaced if not.
//
// progress, which may be nil, is told how many bytes more are in place, hashed ones included;
// the number is negative when bytes are given up, so that the sum is the truth.
//
// If the source fails or ctx ends, the partial file stays, synced, and the source's error is
// returned; a source that ends early is [content.ErrSize] with [io.ErrUnexpectedEOF]. If the
// source sends wrong or too many bytes the partial file is removed and the error wraps
// [content.ErrDigest] or [content.ErrSize]. Errors of the drive wrap [ErrNoSpace],
// [ErrTooLarge], [ErrReadOnly] and [ErrUnsafe] where they are that. Two calls for one digest
// run one after the other.
func (l *Layout) Ingest(ctx context.Context, desc ocispec.Descriptor, open Opener, progress func(n int64)) (Ingested, error) {
	if err := content.CheckDescriptor(desc); err != nil {
		return Ingested{}, err
	}
	release, err := l.claim(ctx, desc.Digest)
	if err != nil {
		return Ingested{}, err
	}
	defer release()
	if l.isWhole(desc.Digest) { // ingested a moment ago
		if err := l.Flush(ctx); err != nil {
			return Ingested{}, err
		}
	}
	t := &transfer{l: l, desc: desc, progress: progress}
	sums, err := t.adopt(ctx)
	if err != nil {
		return Ingested{}, fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	if !t.adopted {
		if sums, err = t.run(ctx, open); err != nil {
			return Ingested{}, fmt.Errorf("blob %s: %w", desc.Digest, err)
		}
	}
	return Ingested{Slices: sums, Resumed: t.resumed}, nil
}

// Adopt takes a blob that is under its name already and that nobody vouches for: it is synced,
// hashed from the medium, and durable after the next [Layout.Flush]; what is left of its
// download is removed. It returns the slice sums, or false if what is there is not the blob
// or cannot be read; [Layout.Ingest] then replaces it. progress is that of Ingest.
func (l *Layout) Adopt(ctx context.Context, desc ocispec.Descriptor, progress func(n int64)) (content.Slices, bool, error) {
	if err := content.CheckDescriptor(desc); err != nil {
		return nil, false, err
	}
	release, err := l.claim(ctx, desc.Digest)
	if err != nil {
		return nil, false, err
	}
	defer release()
	t := &transfer{l: l, desc: desc, progress: progress}
	sums, err := t.adopt(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	return sums, t.adopted, nil
}

// IngestBytes is [Layout.Ingest] of data, for manifests and documents. Data that is not what
// desc names is refused before anything is written.
func (l *Layout) IngestBytes(ctx context.Context, desc ocispec.Descriptor, data []byte) (content.Slices, error) {
	if err := content.CheckDescriptor(desc); err != nil {
		return nil, err
	}
	if int64(len(data)) != desc.Size {
		return nil, fmt.Errorf("%s: %w: %d bytes, %d expected", desc.Digest, content.ErrSize, len(data), desc.Size)
	}
	if got := digest.FromBytes(data); got != desc.Digest {
		return nil, fmt.Errorf("%s: %w: the bytes hash to %s", desc.Digest, content.ErrDigest, got)
	}
	in, err := l.Ingest(ctx, desc, func(_ context.Context, offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data[offset:])), nil
	}, nil)
	return in.Slices, err
}

// claim waits until nobody else ingests d.
func (l *Layout) claim(ctx context.Context, d digest.Digest) (release func(), err error) {
	for {
		l.mu.Lock()
		done, taken := l.busy[d]
		if !taken {
			mine := make(chan struct{})
			l.busy[d] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.busy, d)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
