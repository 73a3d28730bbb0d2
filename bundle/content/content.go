// Package content holds the vocabulary of everything pannier moves: blobs named by
// descriptors, read through a verifying reader, and the few facts about manifests that
// walking from a tag to its last layer needs.
//
// Invariants: identity is a SHA-256 [digest.Digest]; bytes are never converted; nothing read
// through this package is reported as good before its length and digest have been compared.
package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrDigest says that bytes do not hash to the digest they were named by.
var ErrDigest = errors.New("digest mismatch")

// ErrSize says that there are more or fewer bytes than the descriptor states.
var ErrSize = errors.New("size mismatch")

// ErrInvalid says that a descriptor, a manifest or an index cannot be what it claims to be.
var ErrInvalid = errors.New("invalid content")

// MaxManifest is the largest manifest or image index, in bytes, that is read into memory.
// Registries must accept 4 MiB (OCI distribution-spec, "Pushing Manifests"); twice that is
// refused by none of them and bounds what a hostile one can make us hold.
const MaxManifest = 8 << 20

// Fetcher opens the bytes that a descriptor names, from an offset on. What it returns is
// not verified: wrap it in [NewReader], or use [ReadAll].
type Fetcher interface {
	Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// CheckDigest returns an error wrapping [ErrInvalid] unless d is a well-formed SHA-256
// digest. It is the gate in front of every path that is made from a digest.
func CheckDigest(d digest.Digest) error {
	if IsSHA256(d) {
		return nil
	}
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w: %w", string(d), ErrInvalid, err)
	}
	if d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %q: %w: only sha256 is supported", string(d), ErrInvalid)
	}
	return nil
}

// IsSHA256 reports whether d, text or bytes, is a well-formed SHA-256 digest: what
// [CheckDigest] lets pass, without the regular expression of package digest, which costs more
// than a whole record of the index otherwise does.
func IsSHA256[T ~string | ~[]byte](d T) bool {
	const prefix, digits = "sha256:", 64
	if len(d) != len(prefix)+digits || string(d[:len(prefix)]) != prefix {
		return false
	}
	var other byte // one question for all digits: no processor foresees each
	for i := len(prefix); i < len(d); i++ {
		other |= notHex[d[i]]
	}
	return other == 0
}

// notHex is 1 for what is no lower-case hexadecimal digit.
var notHex = func() (t [256]byte) {
	for c := range t {
		if !strings.ContainsRune("0123456789abcdef", rune(c)) {
			t[c] = 1
		}
	}
	return t
}()

// CheckDescriptor returns an error wrapping [ErrInvalid] unless desc has a SHA-256 digest
// and a size of zero or more.
func CheckDescriptor(desc ocispec.Descriptor) error {
	if err := CheckDigest(desc.Digest); err != nil {
		return err
	}
	if desc.Size < 0 {
		return fmt.Errorf("%s: %w: size %d", desc.Digest, ErrInvalid, desc.Size)
	}
	return nil
}

// ReadAll reads the whole of desc from f, at most limit bytes, and returns it verified.
// Errors wrap [ErrSize] if desc is larger than limit or the bytes are cut or too many, and
// [ErrDigest] if they are others.
func ReadAll(ctx context.Context, f Fetcher, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d are read", desc.Digest, ErrSize, desc.Size, limit)
	}
	rc, err := f.Fetch(ctx, desc, 0)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	r, err := NewReader(rc, desc)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, desc.Size)
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, err
	}
	if _, err := r.Read(nil); err != nil && err != io.EOF {
		return nil, err
	}
	return buf, nil
}

// Descriptor returns the descriptor of data.
func Descriptor(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}
