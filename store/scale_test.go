package store

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
)

// scaleImages is how many images there are for so many blobs at scale: one for ten, as in
// releases whose images share layers.
func scaleImages(blobs int) int { return blobs / 10 }

func scaleRecord(i int) Record {
	return Record{
		Digest: digest.FromString(fmt.Sprint("blob ", i)), Size: int64(i + 1), MediaType: content.MediaTypeDockerLayer,
		Source: "quay.io/openshift-release-dev/ocp-v4.0-art-dev",
		Images: []string{scaleTag(i / 10), scaleTag(i/10 + 1)},
	}
}

func scaleTag(i int) string {
	return fmt.Sprintf("4.%02d.%d-x86_64-component-%03d", i/25000, i/250%100, i%250)
}

// scaleIndex writes a snapshot of an index of so many blobs, all complete, and returns where.
func scaleIndex(tb testing.TB, blobs int) string {
	tb.Helper()
	x, err := Create(filepath.Join(tb.TempDir(), "index.db"))
	if err != nil {
		tb.Fatal(err)
	}
	defer x.Close()
	const batch = 10_000
	for i := 0; i < blobs; {
		var items []Completed
		for ; i < blobs && len(items) < batch; i++ {
			items = append(items, Completed{Record: scaleRecord(i), Slices: make(content.Slices, sumBytes(int64(i+1)))})
		}
		if err := x.Complete(items...); err != nil {
			tb.Fatal(err)
		}
	}
	var images []Image
	for i := range scaleImages(blobs) + 1 {
		img := sampleImage("x")
		img.Tag = scaleTag(i)
		images = append(images, img)
	}
	if err := x.PutImages(images...); err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(tb.TempDir(), "copy.db")
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := x.WriteTo(f); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	return path
}

// What encode writes is read without encoding/json: else an index of 100,000 blobs takes a
// second to open.
func TestScan(t *testing.T) {
	record := scaleRecord(7)
	for _, change := range []func(*Record){
		func(*Record) {},
		func(r *Record) { r.State, r.Offset, r.Sealed = StateComplete, r.Size, 12 },
		func(r *Record) { r.State, r.Offset, r.Images = StatePartial, 1, nil },
		func(r *Record) { r.State, r.MediaType, r.Source, r.Size = StatePresumed, "", "", MaxBlob },
	} {
		r := record
		r.State = StateWanted
		change(&r)
		value, err := encodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := scanRecord(entry{[]byte(r.Digest), value}); !ok {
			t.Errorf("%s is read by encoding/json", value)
		}
	}
	image := sampleImage("etcd")
	for _, image.Release = range []string{"", sampleTag} {
		value, err := encodeImage(image)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := scanImage(entry{[]byte(image.Tag), value}, false); !ok {
			t.Errorf("%s is read by encoding/json", value)
		}
	}
}

// memory is what the Go heap holds, and what the process has of the system for it: the mapping
// of the index is in neither.
func memory() (heap, anonymous float64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6, float64(m.Sys-m.HeapReleased) / 1e6
}

// BenchmarkScale opens a checked copy, reads all of it, and looks blobs up, for each of
// scaleBlobs; with the tag faults a million blobs too (docs/performance.md, "Scale").
func BenchmarkScale(b *testing.B) {
	for _, blobs := range scaleBlobs {
		path := scaleIndex(b, blobs)
		open := func(b *testing.B) *Index {
			x, err := OpenReadOnly(path)
			if err != nil {
				b.Fatal(err)
			}
			return x
		}
		fi, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("open/%d", blobs), func(b *testing.B) {
			before, _ := memory()
			for b.Loop() {
				open(b).Close()
			}
			x := open(b)
			after, _ := memory()
			b.ReportMetric(after-before, "MB-heap")
			b.ReportMetric(float64(fi.Size())/1e6, "MB-file")
			x.Close()
		})
		b.Run(fmt.Sprintf("records/%d", blobs), func(b *testing.B) {
			x := open(b)
			defer x.Close()
			for b.Loop() {
				n := 0
				if err := x.Records(func(Record) error { n++; return nil }); err != nil || n != blobs {
					b.Fatal(n, err)
				}
			}
			_, anonymous := memory()
			b.ReportMetric(anonymous, "MB-anonymous")
		})
		b.Run(fmt.Sprintf("lookup/%d", blobs), func(b *testing.B) {
			x := open(b)
			defer x.Close()
			for i := 0; b.Loop(); i++ {
				if _, err := x.Record(scaleRecord(i * 7919 % blobs).Digest); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
