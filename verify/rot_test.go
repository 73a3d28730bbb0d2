//go:build faults

package verify_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle/parity"
	"pannier/bundle/release/sample"
)

// 2 GB heal from 5% of parity: every group at its limit, slices at random, 4% in one piece, each
// file that is no larger than the parity, and damage to the parity itself. 8% is too much, and
// then nothing is changed.
func TestTwoGigabytesRot(t *testing.T) {
	layers := make([][]int64, 24)
	for i := range layers {
		layers[i] = []int64{64 * mib, 13*mib + int64(i)*4097}
	}
	d := pickle(t, parity.DefaultShare, sample.Options{
		Components: len(layers), Layers: layers, BaseLayers: []int64{90 * mib}, LargeLayer: 100 * mib, LargeLayers: 1, LayerSize: 300 << 10,
	})
	var total int64
	for _, b := range d.blobs {
		total += b.Size
	}
	t.Logf("%d blobs, %d MiB, groups of %d parity slices", len(d.blobs), total/mib, d.gen.Rows())
	if total < 1900*mib {
		t.Fatalf("%d bytes", total)
	}
	d.quick = true
	rnd := rand.New(rand.NewPCG(7, 8))
	d.spoil(rnd, d.full(rnd))
	d.heals("as many slices in every group as it has parity slices")
	d.burst(total * 4 / 100)
	d.heals("4% in one piece")
	for _, b := range d.blobs {
		if b.Size > total/21 {
			continue
		}
		if err := os.Remove(trip.Blob(d.media, b.Digest)); err != nil {
			t.Fatal(err)
		}
		d.heals("without " + b.Digest.String())
	}
	for _, name := range d.gen.Files() {
		if name == d.gen.MapFiles()[1] {
			continue // with both copies of the map gone the parity would be made anew
		}
		fi, err := os.Stat(at(d.media, name))
		if err != nil {
			t.Fatal(err)
		}
		d.zero(at(d.media, name), fi.Size()/2, fi.Size()*3/100)
	}
	d.heals("3% of the parity")
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		d.spoil(rnd, d.slices(rnd)[:20])
		d.heals(fmt.Sprintf("20 slices, seed %d", seed))
	}
	d.burst(total * 8 / 100)
	t.Logf("8%%: %d MiB are lost", d.stays("8% in one piece")/mib)
}

// full chooses as many slices of every group as it has parity slices.
func (d *rotten) full(rnd *rand.Rand) []slice {
	taken := map[int]int{}
	var out []slice
	for _, s := range d.slices(rnd) {
		g, ok := d.gen.Group(s.blob, s.n)
		if ok && taken[g] < d.gen.Rows() {
			taken[g]++
			out = append(out, s)
		}
	}
	return out
}

// burst zeroes n bytes in the order in which the largest blobs stand on the drive.
func (d *rotten) burst(n int64) {
	for _, b := range d.blobs {
		part := min(n, b.Size)
		d.zero(trip.Blob(d.media, b.Digest), 0, part)
		if n -= part; n == 0 {
			return
		}
	}
}
