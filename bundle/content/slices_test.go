package content_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"pannier/bundle/content"
)

// The sums do not depend on how the bytes were written, and each finds a flip in its slice
// and in no other.
func TestSlices(t *testing.T) {
	for _, size := range []int{0, 1, content.SliceSize - 1, content.SliceSize, content.SliceSize + 1, 3*content.SliceSize + 7} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		var whole content.Slicer
		whole.Write(data)
		sums := whole.Slices()
		var pieces content.Slicer
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(content.SliceSize*3/2))
			if k, err := pieces.Write(rest[:n]); k != n || err != nil {
				t.Fatal(k, err)
			}
			rest = rest[n:]
		}
		if !bytes.Equal(sums, pieces.Slices()) {
			t.Errorf("%d bytes: other sums when written in pieces", size)
		}
		count := content.SliceCount(int64(size))
		if int64(len(sums)) != count*content.SumSize {
			t.Errorf("%d bytes: %d bytes of sums, %d slices", size, len(sums), count)
		}
		slice := func(i int64) []byte {
			return data[i*content.SliceSize : min(int64(size), (i+1)*content.SliceSize)]
		}
		for i := range count {
			if err := sums.Check(i, slice(i)); err != nil {
				t.Errorf("%d bytes, slice %d: %v", size, i, err)
			}
			b := bytes.Clone(slice(i))
			b[rand.IntN(len(b))] ^= 1
			if err := sums.Check(i, b); !errors.Is(err, content.ErrDigest) {
				t.Errorf("%d bytes, slice %d with a flip: %v", size, i, err)
			}
		}
		for _, i := range []int64{-1, count} {
			if err := sums.Check(i, nil); !errors.Is(err, content.ErrInvalid) {
				t.Errorf("slice %d of %d: %v", i, count, err)
			}
		}
	}
}
