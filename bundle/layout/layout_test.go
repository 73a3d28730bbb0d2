package layout

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

var _ content.Fetcher = (*Layout)(nil)

func newLayout(t testing.TB, opts Options) *Layout {
	t.Helper()
	l, err := Create(filepath.Join(t.TempDir(), "media"), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// hasModes reports whether the file system of dir keeps permissions; FAT does not and says
// nothing.
func hasModes(t testing.TB, dir string) bool {
	t.Helper()
	f, err := os.CreateTemp(dir, "mode")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	fi, err := os.Stat(f.Name())
	return err == nil && fi.Mode().Perm() == 0o600
}

// blob returns size bytes that differ from slice to slice, and their descriptor.
func blob(size int) ([]byte, ocispec.Descriptor) {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)})
	r.Read(b)
	return b, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(b), Size: int64(size)}
}

func sums(b []byte) content.Slices {
	var s content.Slicer
	s.Write(b)
	return s.Slices()
}

// from opens b at the offset asked for and remembers that offset.
func from(b []byte, asked *int64) Opener {
	return func(_ context.Context, offset int64) (io.ReadCloser, error) {
		if asked != nil {
			*asked = offset
		}
		return io.NopCloser(bytes.NewReader(b[offset:])), nil
	}
}

func never(t testing.TB) Opener {
	return func(context.Context, int64) (io.ReadCloser, error) {
		t.Error("the source was opened")
		return nil, errors.New("not to be opened")
	}
}

func writePartial(t testing.TB, l *Layout, d digest.Digest, b []byte) {
	t.Helper()
	if err := os.WriteFile(l.path(PartialPath(d)), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// mustHold checks that the blob is there, right, and no partial file is left.
func mustHold(t testing.TB, l *Layout, desc ocispec.Descriptor, want []byte) {
	t.Helper()
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := content.ReadAll(t.Context(), l, desc, desc.Size)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("blob: %d bytes, %v", len(got), err)
	}
	if p, err := l.Partials(); err != nil || len(p) > 0 {
		t.Fatalf("partial files %v, %v", p, err)
	}
}

// ingest ingests b, and gives it its name.
func ingest(t testing.TB, l *Layout, desc ocispec.Descriptor, b []byte) error {
	t.Helper()
	if _, err := l.IngestBytes(t.Context(), desc, b); err != nil {
		return err
	}
	return l.Flush(t.Context())
}

func TestCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "media")
	l, err := Create(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := os.ReadFile(filepath.Join(dir, "oci-layout"))
	if err != nil || string(raw) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout: %q, %v", raw, err)
	}
	if hasModes(t, t.TempDir()) {
		for name, mode := range map[string]fs.FileMode{"oci-layout": 0o644, "blobs/sha256": 0o755, "pannier/partial": 0o755, ".": 0o755} {
			fi, err := os.Stat(filepath.Join(dir, name))
			if err != nil || fi.Mode().Perm() != mode {
				t.Errorf("%s: %v, %v", name, fi, err)
			}
		}
	}
	rec := &recorder{}
	again, err := Create(dir, Options{FS: rec.open})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if w := rec.writes(); len(w) > 0 {
		t.Errorf("a second Create wrote: %v", w)
	}
	if _, err := Create(filepath.Join(dir, "no", "such"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a parent: %v", err)
	}
}

func TestCreateAfterInterruptedCreate(t *testing.T) {
	for _, left := range []string{"", "{\"imageLay", "\x00\x00\x00"} {
		l := newLayout(t, Options{})
		if err := os.WriteFile(l.path("oci-layout"), []byte(left), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(l.Dir(), Options{}); !errors.Is(err, ErrNotLayout) {
			t.Errorf("%q: Open: %v", left, err)
		}
		again, err := Create(l.Dir(), Options{})
		if err != nil {
			t.Fatalf("%q: %v", left, err)
		}
		again.Close()
	}
}

func TestOpenRefuses(t *testing.T) {
	rows := []struct {
		name  string
		spoil func(t *testing.T, dir string) error
		want  error
	}{
		{"nothing", func(_ *testing.T, dir string) error { return os.RemoveAll(dir) }, ErrNotLayout},
		{"no marker", func(_ *testing.T, dir string) error { return os.Remove(filepath.Join(dir, "oci-layout")) }, ErrNotLayout},
		{"other marker", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"2.0.0"}`), 0o644)
		}, ErrNotLayout},
		{"huge marker", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "oci-layout"), make([]byte, 5000), 0o644)
		}, content.ErrSize},
		{"marker is a link", func(_ *testing.T, dir string) error {
			m := filepath.Join(dir, "oci-layout")
			return errors.Join(os.Rename(m, m+"2"), os.Symlink("oci-layout2", m))
		}, ErrUnsafe},
		{"blobs is a link within the drive", func(_ *testing.T, dir string) error {
			b := filepath.Join(dir, "blobs")
			return errors.Join(os.Rename(b, b+"2"), os.Symlink("blobs2", b))
		}, ErrUnsafe},
		{"sha256 is a link out of it", func(t *testing.T, dir string) error {
			b := filepath.Join(dir, "blobs", "sha256")
			return errors.Join(os.Remove(b), os.Symlink(t.TempDir(), b))
		}, ErrUnsafe},
		{"pannier is a file", func(_ *testing.T, dir string) error {
			p := filepath.Join(dir, "pannier")
			return errors.Join(os.RemoveAll(p), os.WriteFile(p, nil, 0o644))
		}, ErrUnsafe},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := newLayout(t, Options{}).Dir()
			if err := row.spoil(t, dir); err != nil {
				t.Skip(err)
			}
			l, err := Open(dir, Options{})
			if !errors.Is(err, row.want) {
				t.Errorf("Open: %v, want %v", err, row.want)
			}
			if err == nil {
				l.Close()
			}
		})
	}
}

func TestOpenHasNoSideEffects(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(3000)
	if err := ingest(t, l, desc, b); err != nil {
		t.Fatal(err)
	}
	rec := &recorder{}
	r, err := Open(l.Dir(), Options{FS: rec.open})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := content.ReadAll(t.Context(), r, desc, 3000); err != nil {
		t.Error(err)
	}
	if _, err := r.Verify(t.Context(), desc, nil); err != nil {
		t.Error(err)
	}
	if err := r.ReadBack(t.Context(), desc, sums(b), nil); err != nil {
		t.Error(err)
	}
	if _, err := r.Blobs(); err != nil {
		t.Error(err)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if w := rec.writes(); len(w) > 0 {
		t.Errorf("reading wrote: %v", w)
	}
}

func TestOpenDamaged(t *testing.T) {
	l := newLayout(t, Options{})
	if err := os.Remove(l.path("oci-layout")); err != nil {
		t.Fatal(err)
	}
	d, err := Open(l.Dir(), Options{Damaged: true})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

// TestHostileNames: what stands where a blob or a file should is looked at, never through.
func TestHostileNames(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs symbolic links and pipes")
	}
	b, desc := blob(100)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, b, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(path string) error{
		"link out":    func(p string) error { return os.Symlink(outside, p) },
		"link within": func(p string) error { return os.Symlink("../../oci-layout", p) },
		"dangling":    func(p string) error { return os.Symlink("nowhere", p) },
		"pipe":        mkfifo,
		"folder":      func(p string) error { return os.Mkdir(p, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t, Options{})
			if err := put(l.path(BlobPath(desc.Digest))); err != nil {
				t.Skip(err)
			}
			_, err1 := l.Stat(desc.Digest)
			_, err2 := l.Fetch(t.Context(), desc, 0)
			_, err3 := l.Verify(t.Context(), desc, nil)
			_, err4 := l.ReadFile(BlobPath(desc.Digest), 1000)
			_, err5 := l.Ingest(t.Context(), desc, from(b, nil), nil)
			err6 := l.ReadBack(t.Context(), desc, sums(b), nil)
			for i, err := range []error{err1, err2, err3, err4, err5, err6} {
				if !errors.Is(err, ErrUnsafe) {
					t.Errorf("call %d: %v", i+1, err)
				}
			}
			files, err := l.Blobs()
			if err != nil || len(files) != 1 || files[0].Regular || files[0].Digest != desc.Digest {
				t.Errorf("Blobs: %+v, %v", files, err)
			}

			p := newLayout(t, Options{})
			if err := put(p.path(PartialPath(desc.Digest))); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Ingest(t.Context(), desc, from(b, nil), nil); !errors.Is(err, ErrUnsafe) {
				t.Errorf("Ingest into the partial file: %v", err)
			}
			if err := put(p.path("pannier/lock")); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Lock("test"); !errors.Is(err, ErrUnsafe) {
				t.Errorf("Lock: %v", err)
			}
		})
	}
	if got, err := os.ReadFile(outside); err != nil || !bytes.Equal(got, b) {
		t.Errorf("the file outside was touched: %v", err)
	}
	l := newLayout(t, Options{})
	for _, name := range []string{"", ".", "..", "../x", "/etc/passwd", "a//b", "blobs/../oci-layout", "pannier/"} {
		_, err1 := l.ReadFile(name, 10)
		err2 := l.WriteFile(name, []byte("x"))
		err3 := l.RemoveFile(name)
		if !errors.Is(err1, fs.ErrInvalid) || !errors.Is(err2, fs.ErrInvalid) || !errors.Is(err3, fs.ErrInvalid) {
			t.Errorf("%q: %v; %v; %v", name, err1, err2, err3)
		}
	}
	for _, d := range []digest.Digest{"", "sha256:../../x", "sha512:00", "sha256:" + digest.Digest(strings.Repeat("A", 64))} {
		if _, err := l.Stat(d); !errors.Is(err, content.ErrInvalid) {
			t.Errorf("%q: %v", d, err)
		}
	}
}

func TestBlobs(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(10)
	if err := ingest(t, l, desc, b); err != nil {
		t.Fatal(err)
	}
	other := strings.ToUpper(desc.Digest.Encoded())
	for _, name := range []string{"blobs/sha256/" + other[:63] + "F", "blobs/sha256/readme.txt", PartialPath(desc.Digest), "pannier/partial/x.download"} {
		if err := os.WriteFile(l.path(name), []byte("abc"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := l.Blobs()
	if err != nil || len(files) != 3 {
		t.Fatalf("%+v, %v", files, err)
	}
	known := 0
	for _, f := range files {
		if f.Digest != "" {
			known++
			if f.Digest != desc.Digest || f.Size != 10 || !f.Regular {
				t.Errorf("%+v", f)
			}
		}
	}
	if known != 1 {
		t.Errorf("%d names taken for digests: %+v", known, files)
	}
	partials, err := l.Partials()
	if err != nil || len(partials) != 2 || partials[0].Digest != desc.Digest && partials[1].Digest != desc.Digest {
		t.Errorf("%+v, %v", partials, err)
	}
	if err := os.RemoveAll(l.path("pannier/partial")); err != nil {
		t.Fatal(err)
	}
	if partials, err := l.Partials(); err != nil || len(partials) != 0 {
		t.Errorf("a missing folder: %v, %v", partials, err)
	}
}

func TestFetchAtOffset(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(1000)
	if err := ingest(t, l, desc, b); err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int64{0, 1, 999, 1000} {
		rc, err := l.Fetch(t.Context(), desc, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rc)
		rc.Close()
		if err != nil || !bytes.Equal(got, b[offset:]) {
			t.Errorf("offset %d: %d bytes, %v", offset, len(got), err)
		}
	}
	for _, offset := range []int64{-1, 1001} {
		if _, err := l.Fetch(t.Context(), desc, offset); !errors.Is(err, content.ErrSize) {
			t.Errorf("offset %d: %v", offset, err)
		}
	}
	_, gone := blob(7)
	if _, err := l.Fetch(t.Context(), gone, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	rc, err := l.Fetch(ctx, desc, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	cancel()
	if _, err := rc.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestVerify(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(content.SliceSize + 5)
	if err := ingest(t, l, desc, b); err != nil {
		t.Fatal(err)
	}
	var n int64
	got, err := l.Verify(t.Context(), desc, func(k int64) { n += k })
	if err != nil || !bytes.Equal(got, sums(b)) || n != desc.Size {
		t.Errorf("%d bytes, %v", n, err)
	}
	path := l.path(BlobPath(desc.Digest))
	b[77] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Verify(t.Context(), desc, nil); !errors.Is(err, content.ErrDigest) {
		t.Error(err)
	}
	if err := os.Truncate(path, 9); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Verify(t.Context(), desc, nil); !errors.Is(err, content.ErrSize) {
		t.Error(err)
	}
	if err := l.RemoveBlob(desc.Digest); err != nil {
		t.Error(err)
	}
	if _, err := l.Verify(t.Context(), desc, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := l.RemoveBlob(desc.Digest); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
}

// On a drive that is known to be ours oci-layout is written again whatever it says; a link in
// its place is not followed.
func TestCreateOverDamagedMarker(t *testing.T) {
	for name, text := range map[string]string{"other version": `{"imageLayoutVersion":"2.0.0"}`, "text": "x", "long": strings.Repeat(" ", 5000)} {
		dir := t.TempDir()
		path := filepath.Join(dir, "oci-layout")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(dir, Options{}); err == nil {
			t.Errorf("%s: taken without being told that it is ours", name)
		}
		if raw, err := os.ReadFile(path); err != nil || string(raw) != text {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
		l, err := Create(dir, Options{Damaged: true})
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if raw, err := os.ReadFile(path); err != nil || string(raw) != `{"imageLayoutVersion":"1.0.0"}` {
			t.Errorf("%s: %q, %v", name, raw, err)
		}
	}
}
