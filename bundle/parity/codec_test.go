package parity

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/reedsolomon"
)

func randomSlices(seed byte, n int) [][]byte {
	r := rand.NewChaCha8([32]byte{seed})
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, sliceSize)
		r.Read(out[i])
	}
	return out
}

func zeroSlices(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, sliceSize)
	}
	return out
}

// encode sums up a group batch by batch, without the slots that are missing.
func encode(tb testing.TB, c *codec, data [][]byte) [][]byte {
	tb.Helper()
	sums := zeroSlices(c.parity)
	for b := range c.batches {
		from, to := c.slots(b)
		if err := c.add(tb.Context(), b, data[from:to], sums); err != nil {
			tb.Fatal(err)
		}
	}
	return sums
}

// Batches added up are what the library's own encoder with its Cauchy matrix gives for the
// whole group.
func TestBatchesAddUp(t *testing.T) {
	for _, g := range []geometry{{data: 1, parity: 1}, {data: 33, parity: 2}, {data: 70, parity: 35}} {
		data := randomSlices(1, g.data)
		c, err := newCodec(g)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := reedsolomon.New(g.data, g.parity, reedsolomon.WithCauchyMatrix())
		if err != nil {
			t.Fatal(err)
		}
		want := append(append([][]byte{}, data...), zeroSlices(g.parity)...)
		if err := whole.Encode(want); err != nil {
			t.Fatal(err)
		}
		for r, got := range encode(t, c, data) {
			if !bytes.Equal(got, want[g.data+r]) {
				t.Errorf("%d+%d: row %d differs", g.data, g.parity, r)
			}
		}
	}
}

func TestSolve(t *testing.T) {
	const data, rows = 37, 5
	c, err := newCodec(geometry{data: data, parity: rows})
	if err != nil {
		t.Fatal(err)
	}
	slices := randomSlices(2, data)
	parity := encode(t, c, slices)
	for _, missing := range [][]int{{0}, {36}, {3, 4, 5, 6, 7}, {0, 11, 36}} {
		known := append([][]byte{}, slices...)
		for _, m := range missing {
			known[m] = nil
		}
		syndromes := encode(t, c, known)
		for r := range syndromes {
			for i, b := range parity[r] {
				syndromes[r][i] ^= b
			}
		}
		for r := range rows - len(missing) { // just as many as are needed
			syndromes[r] = nil
		}
		out := zeroSlices(len(missing))
		if err := c.solve(t.Context(), missing, syndromes, out); err != nil {
			t.Fatal(err)
		}
		for k, m := range missing {
			if !bytes.Equal(out[k], slices[m]) {
				t.Errorf("%v missing: slot %d is wrong", missing, m)
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, g := range []geometry{{data: 200, parity: 10}, {data: 200, parity: 2}, {data: 170, parity: 85}} {
		b.Run(fmt.Sprintf("%d+%d", g.data, g.parity), func(b *testing.B) {
			c, err := newCodec(g)
			if err != nil {
				b.Fatal(err)
			}
			batch := randomSlices(3, batchSlices)
			sums := zeroSlices(g.parity)
			b.SetBytes(batchSlices * sliceSize)
			b.ResetTimer()
			for range b.N {
				if err := c.add(b.Context(), 0, batch, sums); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
