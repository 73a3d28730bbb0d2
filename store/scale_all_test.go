//go:build faults

package store

var scaleBlobs = []int{1_000, 10_000, 100_000, 1_000_000}
