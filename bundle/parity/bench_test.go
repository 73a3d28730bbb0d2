package parity

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"pannier/bundle/layout"
)

// BenchmarkSeal measures the sealing pass: reading back alone, and reading back with parity. "disk"
// is whatever TMPDIR is on, half a gigabyte; "ssd" is one on USB, which reads and writes 400 MB a
// second; "stick" reads 100 MB and writes 50 MB a second, which is what a good one does.
func BenchmarkSeal(b *testing.B) {
	other, err := os.Create(filepath.Join(b.TempDir(), "other"))
	if err != nil {
		b.Fatal(err)
	}
	defer other.Close()
	played := func(read, write float64) func(dir string) (layout.FS, error) {
		return func(dir string) (layout.FS, error) {
			f, err := layout.OpenFS(dir)
			return &stick{FS: f, read: read, write: write, other: other}, err
		}
	}
	for _, bc := range []struct {
		name  string
		blobs int
		fs    func(dir string) (layout.FS, error)
	}{
		{"disk", 16, layout.OpenFS},
		{"ssd", 60, played(400e6, 400e6)},
		{"stick", 7, played(100e6, 50e6)},
	} {
		var sizes []int
		for i := range bc.blobs {
			sizes = append(sizes, 32*sliceSize-i)
		}
		d := newDrive(b, 20, sizes...)
		l, err := layout.Open(d.dir, layout.Options{FS: bc.fs})
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		var total int64
		for _, blob := range d.blobs {
			total += blob.Size
		}
		b.Run(bc.name+"/alone", func(b *testing.B) {
			b.SetBytes(total)
			for range b.N {
				g, ctx := errgroup.WithContext(b.Context())
				g.SetLimit(4)
				for _, blob := range d.blobs {
					g.Go(func() error { return l.ReadBack(ctx, blob.Descriptor(), blob.Sums, nil) })
				}
				if err := g.Wait(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bc.name+"/parity", func(b *testing.B) {
			b.SetBytes(total)
			for range b.N {
				if _, err := Write(b.Context(), WriteOptions{Layout: l, Generation: 1, Share: DefaultShare, Blobs: d.blobs, Bundle: d.blobs[0].Digest}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := l.RemoveFolder(Dir(1)); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// stick is a drive that does one thing at a time, at speeds of its own, in bytes a second.
type stick struct {
	layout.FS
	read, write float64
	other       *os.File
	mu          sync.Mutex
	free        time.Time // when it has done what it was told
}

func (s *stick) OpenFile(name string, flag int, perm fs.FileMode) (layout.File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &stickFile{File: f, s: s}, nil
}

func (s *stick) work(n int, speed float64) {
	s.mu.Lock()
	now := time.Now()
	if s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(time.Duration(float64(n) / speed * 1e9))
	until := s.free
	s.mu.Unlock()
	time.Sleep(time.Until(until))
}

type stickFile struct {
	layout.File
	s *stick
}

// Fd is another file's: what is dropped from the cache is not these bytes, so that the disk below
// adds nothing to the speed that is played.
func (f *stickFile) Fd() uintptr { return f.s.other.Fd() }

func (f *stickFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.s.work(n, f.s.read)
	return n, err
}

func (f *stickFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.s.work(n, f.s.read)
	return n, err
}

func (f *stickFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.s.work(n, f.s.write)
	return n, err
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
