package layout

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"pannier/bundle/content"
)

// TestReadBackFindsFlippedByte writes behind the layout's back, at every slice in turn.
func TestReadBackFindsFlippedByte(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(2*content.SliceSize + 100)
	in, err := l.Ingest(t.Context(), desc, from(b, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var n int64
	if err := l.ReadBack(t.Context(), desc, in.Slices, func(k int64) { n += k }); err != nil || n != desc.Size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	for offset, where := range map[int64]string{0: "offset 0:", content.SliceSize + 5: "offset 1048576:", desc.Size - 1: "offset 2097152:"} {
		f, err := os.OpenFile(l.path(BlobPath(desc.Digest)), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		poke := func(c byte) {
			if _, err := f.WriteAt([]byte{c}, offset); err != nil {
				t.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		poke(b[offset] ^ 0x10)
		err = l.ReadBack(t.Context(), desc, in.Slices, nil)
		if !errors.Is(err, content.ErrDigest) || !strings.Contains(err.Error(), where) {
			t.Errorf("offset %d: %v", offset, err)
		}
		poke(b[offset])
		f.Close()
	}
	if err := l.ReadBack(t.Context(), desc, in.Slices, nil); err != nil {
		t.Errorf("healed: %v", err)
	}
	if err := l.ReadBack(t.Context(), desc, in.Slices[16:], nil); !errors.Is(err, content.ErrInvalid) {
		t.Errorf("too few sums: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.ReadBack(ctx, desc, in.Slices, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := os.Truncate(l.path(BlobPath(desc.Digest)), 5); err != nil {
		t.Fatal(err)
	}
	if err := l.ReadBack(t.Context(), desc, in.Slices, nil); !errors.Is(err, content.ErrSize) {
		t.Errorf("truncated: %v", err)
	}
	if err := l.RemoveBlob(desc.Digest); err != nil {
		t.Fatal(err)
	}
	if err := l.ReadBack(t.Context(), desc, in.Slices, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
}

func TestDropCache(t *testing.T) {
	l := newLayout(t, Options{})
	m, err := l.DropCache(t.Context())
	if err != nil || m.Text() == "" {
		t.Errorf("%q, %v", m, err)
	}
	for m, passed := range map[CacheMethod]bool{CacheFadvise: true, CacheDevice: true, CacheDriver: false, CacheMemory: false, CacheNone: false, "": false} {
		if m.Passed() != passed || passed != strings.HasPrefix(m.Text(), "read from the medium") {
			t.Errorf("%q: %v, %q", m, m.Passed(), m.Text())
		}
	}
}
