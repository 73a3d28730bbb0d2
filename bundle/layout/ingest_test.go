package layout

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"testing"
	"testing/iotest"

	"pannier/bundle/content"
)

func TestIngest(t *testing.T) {
	l := newLayout(t, Options{})
	modes := hasModes(t, t.TempDir())
	for _, size := range []int{0, 1, stepSize - 1, stepSize, stepSize + 1, content.SliceSize, 3*windowSize + 12345} {
		b, desc := blob(size)
		var n int64
		in, err := l.Ingest(t.Context(), desc, from(b, nil), func(k int64) { n += k })
		if err != nil {
			t.Fatalf("%d: %v", size, err)
		}
		if in.Resumed != 0 || !bytes.Equal(in.Slices, sums(b)) || n != desc.Size {
			t.Errorf("%d: resumed %d, %d reported", size, in.Resumed, n)
		}
		mustHold(t, l, desc, b)
		fi, err := os.Stat(l.path(BlobPath(desc.Digest)))
		if err != nil || modes && fi.Mode().Perm() != 0o644 {
			t.Errorf("%v, %v", fi, err)
		}
		// Again: adopted, hashed, not fetched.
		n = 0
		in, err = l.Ingest(t.Context(), desc, never(t), func(k int64) { n += k })
		if err != nil || in.Resumed != desc.Size || !bytes.Equal(in.Slices, sums(b)) || n != desc.Size {
			t.Errorf("%d again: %+v, %d reported, %v", size, in.Resumed, n, err)
		}
	}
	if err := l.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestResumeAtEveryOffset: an honest partial file is continued, a wrong one is found out.
func TestResumeAtEveryOffset(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(50)
	for k := range len(b) + 1 {
		for _, honest := range []bool{true, false} {
			part := bytes.Clone(b[:k])
			if !honest && k > 0 {
				part[k/2] ^= 0x40
			}
			writePartial(t, l, desc.Digest, part)
			asked, n := int64(-1), int64(0)
			in, err := l.Ingest(t.Context(), desc, from(b, &asked), func(k int64) { n += k })
			if err != nil {
				t.Fatalf("offset %d, %v: %v", k, honest, err)
			}
			wantResumed, wantAsked := int64(k), int64(k)
			if !honest || k == 0 {
				wantResumed, wantAsked = 0, 0
			}
			if honest && k == len(b) {
				wantAsked = -1 // nothing left to ask for
			}
			if in.Resumed != wantResumed || asked != wantAsked || n != desc.Size || !bytes.Equal(in.Slices, sums(b)) {
				t.Errorf("offset %d, %v: resumed %d, asked at %d, %d reported", k, honest, in.Resumed, asked, n)
			}
			mustHold(t, l, desc, b)
			if err := l.RemoveBlob(desc.Digest); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestPartialLongerThanBlob(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(50)
	writePartial(t, l, desc.Digest, append(bytes.Clone(b), "more"...))
	asked := int64(-1)
	in, err := l.Ingest(t.Context(), desc, from(b, &asked), nil)
	if err != nil || in.Resumed != 0 || asked != 0 {
		t.Fatalf("%+v asked at %d: %v", in, asked, err)
	}
	mustHold(t, l, desc, b)
}

func TestIngestReplacesDamagedBlob(t *testing.T) {
	b, desc := blob(5000)
	flipped := bytes.Clone(b)
	flipped[1] ^= 1
	for name, have := range map[string][]byte{"flipped": flipped, "empty": {}, "short": b[:100], "long": append(bytes.Clone(b), 1)} {
		l := newLayout(t, Options{})
		if err := os.WriteFile(l.path(BlobPath(desc.Digest)), have, 0o644); err != nil {
			t.Fatal(err)
		}
		var n int64
		in, err := l.Ingest(t.Context(), desc, from(b, nil), func(k int64) { n += k })
		if err != nil || in.Resumed != 0 || n != desc.Size {
			t.Errorf("%s: %+v, %d reported, %v", name, in.Resumed, n, err)
		}
		mustHold(t, l, desc, b)
	}
}

func TestTruncatedSource(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(2*stepSize + 10)
	short := func(_ context.Context, offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b[offset : stepSize+5])), nil
	}
	_, err := l.Ingest(t.Context(), desc, short, nil)
	if !errors.Is(err, content.ErrSize) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if p, err := l.Partials(); err != nil || len(p) != 1 || p[0].Size != stepSize+5 {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := l.Stat(desc.Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("half a blob under its name: %v", err)
	}
	in, err := l.Ingest(t.Context(), desc, from(b, nil), nil)
	if err != nil || in.Resumed != stepSize+5 {
		t.Fatalf("%+v, %v", in.Resumed, err)
	}
	mustHold(t, l, desc, b)
}

func TestWrongSource(t *testing.T) {
	b, desc := blob(stepSize + 10)
	wrong := bytes.Clone(b)
	wrong[stepSize] ^= 1
	rows := []struct {
		name   string
		data   []byte
		want   error
		resume bool
	}{
		{"wrong", wrong, content.ErrDigest, false},
		{"too long", append(bytes.Clone(b), 0), content.ErrSize, false},
		{"wrong after resume", wrong, content.ErrDigest, true},
		{"too long after resume", append(bytes.Clone(b), 0), content.ErrSize, true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			l := newLayout(t, Options{})
			if row.resume {
				writePartial(t, l, desc.Digest, b[:100])
			}
			var offsets []int64
			n := int64(0)
			_, err := l.Ingest(t.Context(), desc, func(ctx context.Context, offset int64) (io.ReadCloser, error) {
				offsets = append(offsets, offset)
				return from(row.data, nil)(ctx, offset)
			}, func(k int64) { n += k })
			if !errors.Is(err, row.want) {
				t.Errorf("%v, want %v", err, row.want)
			}
			if want := 1 + map[bool]int{true: 1}[row.resume]; len(offsets) != want || offsets[len(offsets)-1] != 0 {
				t.Errorf("opened at %v", offsets)
			}
			if n != 0 {
				t.Errorf("%d bytes reported in place", n)
			}
			if p, err := l.Partials(); err != nil || len(p) != 0 {
				t.Errorf("left %v, %v", p, err)
			}
			if _, err := l.Stat(desc.Digest); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("under its name: %v", err)
			}
		})
	}
}

// TestSourceIgnoresOffset: a server that sends all from the start is found out by the digest
// and asked again from zero, which is what it can do.
func TestSourceIgnoresOffset(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(500)
	writePartial(t, l, desc.Digest, b[:100])
	in, err := l.Ingest(t.Context(), desc, func(context.Context, int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}, nil)
	if err != nil || in.Resumed != 0 {
		t.Fatalf("%+v, %v", in, err)
	}
	mustHold(t, l, desc, b)
}

func TestSourceFails(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(3 * stepSize)
	gone := errors.New("connection reset")
	_, err := l.Ingest(t.Context(), desc, func(context.Context, int64) (io.ReadCloser, error) { return nil, gone }, nil)
	if !errors.Is(err, gone) {
		t.Error(err)
	}
	_, err = l.Ingest(t.Context(), desc, func(context.Context, int64) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(b[:stepSize+77]), iotest.ErrReader(gone))), nil
	}, nil)
	if !errors.Is(err, gone) {
		t.Error(err)
	}
	in, err := l.Ingest(t.Context(), desc, from(b, nil), nil)
	if err != nil || in.Resumed != stepSize+77 {
		t.Errorf("resumed %d, %v", in.Resumed, err)
	}
	mustHold(t, l, desc, b)
}

func TestCancelled(t *testing.T) {
	rec := &recorder{}
	l := newLayout(t, Options{FS: rec.open})
	b, desc := blob(4 * stepSize)
	ctx, cancel := context.WithCancel(t.Context())
	rec.calls = nil
	_, err := l.Ingest(ctx, desc, from(b, nil), func(int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	rec.order(t, "write "+PartialPath(desc.Digest), "sync "+PartialPath(desc.Digest), "close "+PartialPath(desc.Digest))
	if _, err := l.Ingest(ctx, desc, from(b, nil), nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	in, err := l.Ingest(t.Context(), desc, from(b, nil), nil)
	if err != nil || in.Resumed != stepSize {
		t.Errorf("resumed %d, %v", in.Resumed, err)
	}
	mustHold(t, l, desc, b)
}

func TestIngestTogether(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(2*stepSize + 9)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := l.Ingest(t.Context(), desc, from(b, nil), nil); err != nil {
				t.Error(err)
			}
			if err := l.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	mustHold(t, l, desc, b)
}

func TestIngestBytesRefuses(t *testing.T) {
	rec := &recorder{}
	l := newLayout(t, Options{FS: rec.open})
	b, desc := blob(50)
	rec.calls = nil
	if _, err := l.IngestBytes(t.Context(), desc, b[1:]); !errors.Is(err, content.ErrSize) {
		t.Error(err)
	}
	b[0]++
	if _, err := l.IngestBytes(t.Context(), desc, b); !errors.Is(err, content.ErrDigest) {
		t.Error(err)
	}
	if len(rec.calls) > 0 {
		t.Errorf("touched the drive: %v", rec.calls)
	}
}

func BenchmarkIngest256M(b *testing.B) {
	data, desc := blob(256 << 20)
	l := newLayout(b, Options{})
	b.SetBytes(desc.Size)
	for b.Loop() {
		if _, err := l.Ingest(b.Context(), desc, from(data, nil), nil); err != nil {
			b.Fatal(err)
		}
		if err := l.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := l.RemoveBlob(desc.Digest); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
