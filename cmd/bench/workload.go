//go:build linux

package main

import (
	"math/rand/v2"

	"pannier/bundle/release/sample"
)

const mb = 1_000_000

// workload is a release with the sizes of a real one: 150 components on five layers that all
// share, one very large layer, some tens of large ones and hundreds of small ones, about
// 2 GB. small divides all but the number of images by fifty.
func workload(small bool) (*sample.Release, error) {
	const images = 150
	r := rand.New(rand.NewPCG(42, 7))
	span := func(low, high int64) int64 { return low + r.Int64N(high-low) }
	base := []int64{60 * mb, 40 * mb, 20 * mb, 12 * mb, 5 * mb}
	own := []int64{150 * mb}
	for range 26 {
		own = append(own, span(20*mb, 60*mb))
	}
	for range 110 {
		own = append(own, span(1*mb, 8*mb))
	}
	for range 208 {
		own = append(own, span(mb/10, mb))
	}
	r.Shuffle(len(own), func(i, j int) { own[i], own[j] = own[j], own[i] })
	layers := make([][]int64, images)
	for i, size := range own {
		if small {
			size /= 50
		}
		layers[i%images] = append(layers[i%images], size)
	}
	if small {
		for i := range base {
			base[i] /= 50
		}
	}
	// With the small layer of its own that each component has besides, and its config, there
	// are 650 blobs. All but those are computed when they are read, so that this process holds
	// little.
	return sample.Make(sample.Options{Version: version, Components: images, BaseLayers: base, Layers: layers, LayerSize: 1000})
}

// version is the release that is carried.
const version = "4.20.1"
