package release

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// inflate finds out by its first bytes how r is compressed. Media types are not asked: some
// registries' layers bear wrong ones.
func inflate(r *bufio.Reader) (io.Reader, func(), error) {
	magic, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, fmt.Errorf("gzip: %w", err)
		}
		return named{"gzip", z}, func() { z.Close() }, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) || len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("zstd: %w", err)
		}
		return named{"zstd", z}, z.Close, nil
	}
	return r, func() {}, nil
}

// named says in errors which decompressor found them.
type named struct {
	name string
	r    io.Reader
}

func (n named) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", n.name, err)
	}
	return k, err
}

var errBomb = errors.New("it inflates to more than any release image has")

// limitReader ends when a layer, or all layers together, inflate to too much.
type limitReader struct {
	r     io.Reader
	left  *budget
	ratio int64 // bytes that this layer may still inflate to
}

func (l *limitReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.left.inflated -= int64(n)
	l.ratio -= int64(n)
	if l.left.inflated < 0 || l.ratio < 0 {
		return n, fmt.Errorf("%w: %w", ErrPayload, errBomb)
	}
	return n, err
}
