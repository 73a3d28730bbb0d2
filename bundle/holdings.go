package bundle

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/store"
)

// Sized is a blob or manifest with its size in bytes; in JSON a text, "sha256:… 123".
type Sized struct {
	Digest digest.Digest
	Size   int64
}

// MarshalText makes the text of it.
func (s Sized) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%s %d", s.Digest, s.Size), nil }

// UnmarshalText reads the text of it.
func (s *Sized) UnmarshalText(text []byte) error {
	d, size, _ := strings.Cut(string(text), " ")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 || n > store.MaxBlob || strconv.FormatInt(n, 10) != size {
		return fmt.Errorf("%.100q has no size", text)
	}
	s.Digest, s.Size = digest.Digest(d), n
	return content.CheckDigest(s.Digest)
}

// SortSized sorts a list by digest, and leaves each once.
func SortSized(list []Sized) []Sized {
	slices.SortFunc(list, func(a, b Sized) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return slices.CompactFunc(list, func(a, b Sized) bool { return a.Digest == b.Digest })
}

// CheckSized returns an error unless a list is sorted by digest and has each once.
func CheckSized(list []Sized) error {
	for i := 1; i < len(list); i++ {
		if list[i].Digest <= list[i-1].Digest {
			return fmt.Errorf("%s stands twice, or out of order", list[i].Digest)
		}
	}
	return nil
}

// Holdings is what a registry on the other side holds, as a receipt or an inventory of it says.
// Pack believes it; unpack proves what was made of that before it pushes anything.
type Holdings struct {
	Registry objects.Destination                // that releases are in
	Blobs    map[string]map[digest.Digest]int64 // sizes by digest, by repository
}

// RepositoryAt returns the repository, "host[:port]/path", that an image goes to at a registry:
// the one of the releases, or, if it is part of no release, the path that it has at its source
// below prefix. The error wraps [ErrDamaged]: the image has no name that can be understood.
func RepositoryAt(img store.Image, to objects.Destination, prefix string) (string, error) {
	if img.Kind != store.KindAdditional {
		return to.String(), nil
	}
	ref, err := release.ParseImageReference(img.Tag)
	if err != nil {
		return "", fmt.Errorf("additional image: %w: %w", ErrDamaged, err)
	}
	return to.Additional(prefix, ref.Repository), nil
}
