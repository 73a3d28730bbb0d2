package parity

import (
	"context"
	"crypto/subtle"
	"runtime"
	"sync"

	"github.com/klauspost/reedsolomon"
	"golang.org/x/sync/errgroup"
)

const (
	// batchSlices is how many data slices are summed up at once. With no more than ten of them
	// and as many parity slices the Reed-Solomon library takes its fastest code.
	batchSlices = 10
	// column is how many bytes of every slice are worked on at once, so that they stay in
	// the processor's cache.
	column = 32 << 10
)

var zeros = make([]byte, sliceSize)

// codec encodes and solves groups of one shape. The sum over a group is taken in batches,
// which are added up: a group is never in memory as a whole.
type codec struct {
	geometry
	whole   reedsolomon.Encoder
	batches []reedsolomon.Encoder // each over batchSlices columns of the matrix, the last one fewer
}

func newCodec(g geometry) (*codec, error) {
	matrix := matrix(g.data, g.parity)
	c := &codec{geometry: g}
	var err error
	if c.whole, err = reedsolomon.New(g.data, g.parity, reedsolomon.WithCustomMatrix(matrix)); err != nil {
		return nil, err
	}
	for from := 0; from < g.data; from += batchSlices {
		n := min(batchSlices, g.data-from)
		part := make([][]byte, g.parity)
		for r := range part {
			part[r] = matrix[r][from : from+n]
		}
		enc, err := reedsolomon.New(n, g.parity, reedsolomon.WithCustomMatrix(part), reedsolomon.WithMaxGoroutines(1))
		if err != nil {
			return nil, err
		}
		c.batches = append(c.batches, enc)
	}
	return c, nil
}

// matrix is the Cauchy matrix of docs/format.md, "Parity slices": row r, column c is the
// inverse of (data+r) xor c.
func matrix(data, parity int) [][]byte {
	out := make([][]byte, parity)
	for r := range out {
		out[r] = make([]byte, data)
		for c := range out[r] {
			out[r][c] = inverse(byte(data+r) ^ byte(c))
		}
	}
	return out
}

// inverse is the multiplicative inverse of x, not 0, in the field of 256 elements modulo
// x^8+x^4+x^3+x^2+1.
func inverse(x byte) byte {
	out, square := byte(1), x
	for range 7 { // x^254 is the product of x^2, x^4 … x^128
		square = multiply(square, square)
		out = multiply(out, square)
	}
	return out
}

func multiply(a, b byte) byte {
	var out byte
	for ; b > 0; b >>= 1 {
		if b&1 == 1 {
			out ^= a
		}
		high := a&0x80 != 0
		a <<= 1
		if high {
			a ^= 0x1d
		}
	}
	return out
}

// slots returns the slots of a batch.
func (c *codec) slots(batch int) (from, to int) {
	return batch * batchSlices, min(c.data, (batch+1)*batchSlices)
}

// add adds to the sums of a group what the slices of a batch contribute. A nil slice is zeros.
func (c *codec) add(ctx context.Context, batch int, slices, sums [][]byte) error {
	return columns(ctx, func(from, to int) error {
		shards := make([][]byte, len(slices)+c.parity)
		for i, s := range slices {
			if s == nil {
				s = zeros
			}
			shards[i] = s[from:to]
		}
		part := scratch.Get().(*[]byte)
		defer scratch.Put(part)
		if len(*part) < c.parity*column {
			*part = make([]byte, c.parity*column)
		}
		for r := range c.parity {
			shards[len(slices)+r] = (*part)[r*column : r*column+to-from]
		}
		if err := c.batches[batch].Encode(shards); err != nil {
			return err
		}
		for r, sum := range sums {
			subtle.XORBytes(sum[from:to], sum[from:to], shards[len(slices)+r])
		}
		return nil
	})
}

var scratch = sync.Pool{New: func() any { return new([]byte) }}

// solve finds the slices in the slots that are missing. syndromes holds, for as many rows as
// there are missing slots or more, the sum of the parity slice and what the other slices
// contribute to it; nil for the rows that are not known. The code is linear: what is left
// of a group when all that is known is taken away is a group of zeros but for what is missing.
func (c *codec) solve(ctx context.Context, missing []int, syndromes, out [][]byte) error {
	return columns(ctx, func(from, to int) error {
		shards := make([][]byte, c.data+c.parity)
		for i := range c.data {
			shards[i] = zeros[from:to]
		}
		for k, slot := range missing {
			shards[slot] = out[k][from:from:to]
		}
		for r, s := range syndromes {
			if s != nil {
				shards[c.data+r] = s[from:to]
			}
		}
		return c.whole.ReconstructData(shards)
	})
}

// columns calls fn for every column of a slice, on several processors.
func columns(ctx context.Context, fn func(from, to int) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(min(4, runtime.GOMAXPROCS(0)))
	for from := 0; from < sliceSize; from += column {
		g.Go(func() error {
			if err := gctx.Err(); err != nil {
				return err
			}
			return fn(from, from+column)
		})
	}
	return g.Wait()
}
