// Package parity owns the Reed-Solomon parity of a drive (docs/format.md, "Parity"): how the
// blobs of a generation are laid into slices and groups, the map that says so, the parity
// slices, and how damaged slices are reconstructed from them.
//
// Invariants. Parity locates and reconstructs, it accepts nothing: whoever takes a
// reconstructed blob compares its SHA-256. A map is never trusted: every number in it is
// checked against the others and against the size of the file before anything is allocated.
// Memory is bounded by the geometry of one group, whatever the size of the drive.
package parity

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

var (
	// ErrMap says that a parity map is not one, or contradicts itself.
	ErrMap = errors.New("parity map is damaged")
	// ErrVersion says that a sound map is of a format that this program does not know.
	ErrVersion = errors.New("parity of a newer format")
	// ErrNotCovered says that no parity on the drive covers a blob.
	ErrNotCovered = errors.New("no parity covers it")
	// ErrLost says that more is damaged than the parity can reconstruct.
	ErrLost = errors.New("more is damaged than parity can heal")
	// ErrShare says that a share of parity is not one.
	ErrShare = errors.New("not a share of parity")
)

// Share is how much parity stands for the data, in hundredths of a percent.
type Share int

const (
	// DefaultShare is the share that pack takes: 5%.
	DefaultShare Share = 500
	// MaxShare is the largest share: 50%.
	MaxShare Share = 5000
)

// ParseShare reads "5%", "5" or "2.5%"; "0" is none. The error wraps [ErrShare].
func ParseShare(text string) (Share, error) {
	number := strings.TrimSuffix(strings.TrimSpace(text), "%")
	whole, fraction, _ := strings.Cut(number, ".")
	digits := whole + fraction
	if digits == "" || whole == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, fmt.Errorf("%w: %q; 5%%, 2.5%% or 0 for none is meant", ErrShare, text)
	}
	v, err := strconv.ParseFloat(number, 64)
	hundredths := math.Round(v * 100)
	switch {
	case err != nil, v < 0, v > float64(MaxShare)/100:
		return 0, fmt.Errorf("%w: %q; from 0 to %s is meant", ErrShare, text, MaxShare)
	case math.Abs(v*100-hundredths) > 1e-6:
		return 0, fmt.Errorf("%w: %q; at most two digits after the point are meant", ErrShare, text)
	}
	return Share(hundredths), nil
}

// String is the share as it is typed: "5%".
func (s Share) String() string { return strconv.FormatFloat(float64(s)/100, 'f', -1, 64) + "%" }

// Blob is a blob that parity covers, with its slice sums.
type Blob struct {
	Digest digest.Digest
	Size   int64
	Sums   content.Slices
}

// Descriptor names the blob; it has no media type.
func (b Blob) Descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: b.Digest, Size: b.Size}
}
