package content

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"
)

// SliceSize is the number of bytes that one slice sum covers: 1 MiB (docs/format.md,
// "Slice sums").
const SliceSize = 1 << 20

// SumSize is the number of bytes of one slice sum, an XXH3-128, big endian.
const SumSize = 16

// Slices are the XXH3-128 sums of consecutive slices of [SliceSize] bytes of one blob, the
// last one shorter, joined together. They locate damage and prove a read-back; a blob's
// identity is its SHA-256 alone.
type Slices []byte

// SliceCount returns the number of slices of a blob of size bytes.
func SliceCount(size int64) int64 { return (size + SliceSize - 1) / SliceSize }

// Check compares b, which is slice i of a blob, with its sum. The error wraps
// [ErrDigest].
func (s Slices) Check(i int64, b []byte) error {
	if i < 0 || (i+1)*SumSize > int64(len(s)) {
		return fmt.Errorf("slice %d: %w: no sum is recorded", i, ErrInvalid)
	}
	if got := sum(b); string(got[:]) != string(s[i*SumSize:(i+1)*SumSize]) {
		return fmt.Errorf("slice %d: %w", i, ErrDigest)
	}
	return nil
}

func sum(b []byte) [SumSize]byte {
	h := xxh3.Hash128(b)
	return h.Bytes()
}

// Slicer is an [io.Writer] that computes [Slices] of what is written to it.
type Slicer struct {
	h    xxh3.Hasher
	n    int
	sums Slices
}

// Write adds p. It never fails.
func (s *Slicer) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		k := min(len(p), SliceSize-s.n)
		s.h.Write(p[:k])
		s.n += k
		p = p[k:]
		if s.n == SliceSize {
			s.flush()
		}
	}
	return total, nil
}

// Slices returns the sums of all that was written; the Slicer must not be written to after.
func (s *Slicer) Slices() Slices {
	if s.n > 0 {
		s.flush()
	}
	return s.sums
}

func (s *Slicer) flush() {
	h := s.h.Sum128()
	s.sums = binary.BigEndian.AppendUint64(s.sums, h.Hi)
	s.sums = binary.BigEndian.AppendUint64(s.sums, h.Lo)
	s.h.Reset()
	s.n = 0
}
