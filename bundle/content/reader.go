package content

import (
	"context"
	"fmt"
	"hash"
	"io"

	"crypto/sha256"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Reader passes bytes through and compares their number and SHA-256 with a descriptor. The
// last buffer is handed on only after both have been found right, so a consumer that needs
// every byte (an upload with a Content-Length, a file that is renamed at the end) can never
// finish with wrong ones.
type Reader struct {
	r    io.Reader
	desc ocispec.Descriptor
	hash hash.Hash
	n    int64
	err  error // sticky, io.EOF once verified
}

// NewReader returns a Reader of what desc names. It refuses a descriptor that is not
// SHA-256 with an error wrapping [ErrInvalid].
func NewReader(r io.Reader, desc ocispec.Descriptor) (*Reader, error) {
	if err := CheckDescriptor(desc); err != nil {
		return nil, err
	}
	v := &Reader{r: r, desc: desc, hash: sha256.New()}
	if desc.Size == 0 {
		v.err = v.verify()
	}
	return v, nil
}

// Read implements [io.Reader]. It ends with [io.EOF] if all was right, otherwise with an
// error wrapping [ErrSize] or [ErrDigest], or with the source's own error.
func (v *Reader) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if left := v.desc.Size - v.n; int64(len(p)) > left {
		p = p[:left]
	}
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	v.n += int64(n)
	if v.n == v.desc.Size {
		v.err = v.verify()
		if v.err != io.EOF {
			return 0, v.err
		}
		return n, nil
	}
	if err == io.EOF {
		v.err = fmt.Errorf("%s: %w: %d bytes of %d: %w", v.desc.Digest, ErrSize, v.n, v.desc.Size, io.ErrUnexpectedEOF)
		return n, v.err
	}
	if err != nil {
		v.err = err
	}
	return n, err
}

// Verify reads the whole of desc from f and reports whether it is what desc names, by an error
// wrapping [ErrSize] or [ErrDigest] if not. It holds a buffer, not the blob.
func Verify(ctx context.Context, f Fetcher, desc ocispec.Descriptor) error {
	rc, err := f.Fetch(ctx, desc, 0)
	if err != nil {
		return err
	}
	defer rc.Close()
	r, err := NewReader(rc, desc)
	if err != nil {
		return err
	}
	buf := make([]byte, min(desc.Size+1, verifyBuffer))
	for err == nil {
		_, err = r.Read(buf)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// verifyBuffer is how many bytes [Verify] reads at a time.
const verifyBuffer = 256 << 10

// verify is called when as many bytes as expected have been read.
func (v *Reader) verify() error {
	var one [1]byte
	for {
		n, err := v.r.Read(one[:])
		if n > 0 {
			return fmt.Errorf("%s: %w: more than %d bytes", v.desc.Digest, ErrSize, v.desc.Size)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if got := digest.NewDigest(digest.SHA256, v.hash); got != v.desc.Digest {
		return fmt.Errorf("%s: %w: the bytes hash to %s", v.desc.Digest, ErrDigest, got)
	}
	return io.EOF
}
