package parity

import (
	"os"
	"path/filepath"
	"testing"

	"pannier/bundle/layout"
)

// BenchmarkSeal measures the sealing pass on half a gigabyte, from the medium: reading back alone,
// and reading back with parity. Set TMPDIR to a folder on the drive that is of interest.
func BenchmarkSeal(b *testing.B) {
	var sizes []int
	for i := range 16 {
		sizes = append(sizes, 32*sliceSize+i)
	}
	d := newDrive(b, 20, sizes...)
	var total int64
	for _, blob := range d.blobs {
		total += blob.Size
	}
	b.Run("alone", func(b *testing.B) {
		b.SetBytes(total)
		for range b.N {
			for _, blob := range d.blobs {
				if err := d.l.ReadBack(b.Context(), blob.Descriptor(), blob.Sums, nil); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("parity", func(b *testing.B) {
		b.SetBytes(total)
		for range b.N {
			if _, err := Write(b.Context(), WriteOptions{Layout: d.l, Generation: 1, Share: DefaultShare, Blobs: d.blobs, Bundle: d.blobs[0].Digest}); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := d.l.RemoveFolder(Dir(1)); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}

// BenchmarkHeal measures the reconstruction of a lost blob of 8 MiB.
func BenchmarkHeal(b *testing.B) {
	sizes := []int{8 * sliceSize}
	for i := range 24 {
		sizes = append(sizes, 8*sliceSize+i+1)
	}
	d := newDrive(b, 21, sizes...)
	d.write(1, DefaultShare, 0)
	if err := os.Remove(filepath.Join(d.dir, filepath.FromSlash(layout.BlobPath(d.blobs[0].Digest)))); err != nil {
		b.Fatal(err)
	}
	s := d.open()
	b.SetBytes(8 * sliceSize)
	b.ResetTimer()
	for range b.N {
		if _, err := s.Rebuild(b.Context(), d.blobs[0].Descriptor(), new(buffer)); err != nil {
			b.Fatal(err)
		}
	}
}
