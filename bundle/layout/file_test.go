package layout

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"pannier/bundle/content"
)

func TestWriteFile(t *testing.T) {
	l := newLayout(t, Options{})
	if err := l.WriteFile("pannier/parity/1/000.rs", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := l.WriteFile("pannier/parity/1/000.rs", []byte("one")); err != nil {
		t.Errorf("the same again: %v", err)
	}
	for _, other := range []string{"two", "", "one and more"} {
		if err := l.WriteFile("pannier/parity/1/000.rs", []byte(other)); !errors.Is(err, fs.ErrExist) {
			t.Errorf("other content %q: %v", other, err)
		}
	}
	got, err := l.ReadFile("pannier/parity/1/000.rs", 3)
	if err != nil || string(got) != "one" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := l.ReadFile("pannier/parity/1/000.rs", 2); !errors.Is(err, content.ErrSize) {
		t.Errorf("limit: %v", err)
	}
	if err := l.WriteFile("pannier/parity/1/000.rs/below", []byte("x")); !errors.Is(err, ErrUnsafe) {
		t.Errorf("below a file: %v", err)
	}
	entries, err := l.List("pannier/parity/1")
	if err != nil || len(entries) != 1 || entries[0].Name != "000.rs" || entries[0].Size != 3 || !entries[0].Mode.IsRegular() {
		t.Errorf("%+v, %v", entries, err)
	}
	if entries, err := l.List("pannier/nothing"); err != nil || len(entries) != 0 {
		t.Errorf("%+v, %v", entries, err)
	}
	if entries, err := l.List("."); err != nil || len(entries) != 3 {
		t.Errorf("the top: %+v, %v", entries, err)
	}
	if _, err := l.List("oci-layout"); !errors.Is(err, ErrUnsafe) {
		t.Errorf("a file: %v", err)
	}
}

func TestReplaceFile(t *testing.T) {
	l := newLayout(t, Options{})
	// What an interrupted replacement leaves is in nobody's way.
	if err := os.WriteFile(l.path("index.json.new"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"one", "two", "two", ""} {
		if err := l.ReplaceFile("index.json", []byte(data)); err != nil {
			t.Fatal(err)
		}
		got, err := l.ReadFile("index.json", 10)
		if err != nil || string(got) != data {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := os.Stat(l.path("index.json.new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	if err := l.RemoveFile("index.json"); err != nil {
		t.Error(err)
	}
	if err := l.RemoveFile("index.json"); err != nil {
		t.Errorf("once more: %v", err)
	}
	if err := l.RemoveFile("blobs"); !errors.Is(err, ErrUnsafe) {
		t.Errorf("a folder: %v", err)
	}
}

func TestReplaceFileNeverFollowsLinks(t *testing.T) {
	l := newLayout(t, Options{})
	if err := os.Symlink("oci-layout", l.path("index.json")); err != nil {
		t.Skip(err)
	}
	if err := l.ReplaceFile("index.json", []byte("x")); !errors.Is(err, ErrUnsafe) {
		t.Error(err)
	}
	if err := l.WriteFile("index.json", []byte("x")); !errors.Is(err, ErrUnsafe) {
		t.Error(err)
	}
	if err := l.RemoveFile("index.json"); err != nil {
		t.Error(err)
	}
	if _, err := l.ReadFile("oci-layout", 100); err != nil {
		t.Errorf("removing the link took the file: %v", err)
	}
}

func TestWriteStream(t *testing.T) {
	l := newLayout(t, Options{})
	data, _ := blob(3*windowSize + 3) // so that windows are pushed to the medium while it is written
	write := func(w io.Writer) error {
		for c := range slices.Chunk(data, 1000) {
			if _, err := w.Write(c); err != nil {
				return err
			}
		}
		return nil
	}
	if err := l.WriteStream("pannier/index-1.db", write); err != nil {
		t.Fatal(err)
	}
	r, err := l.OpenFile("pannier/index-1.db")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, data) || r.Size() != int64(len(data)) {
		t.Errorf("%d bytes, size %d, %v", len(got), r.Size(), err)
	}
	one := make([]byte, 1)
	if _, err := r.ReadAt(one, 70); err != nil || one[0] != data[70] {
		t.Errorf("%v, %v", one, err)
	}
	if err := l.WriteStream("pannier/index-1.db", write); !errors.Is(err, fs.ErrExist) {
		t.Errorf("once more: %v", err)
	}
	failed := errors.New("snapshot failed")
	err = l.WriteStream("pannier/index-2.db", func(w io.Writer) error {
		_, err := w.Write(data)
		return errors.Join(failed, err)
	})
	if !errors.Is(err, failed) {
		t.Error(err)
	}
	if _, err := l.OpenFile("pannier/index-2.db"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a snapshot stays: %v", err)
	}
}

// A file that is larger than it may be is refused before anything of it is read.
func TestReadFileTooLarge(t *testing.T) {
	dir := t.TempDir()
	l, err := Create(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(dir, "large")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 80<<30); err != nil {
		t.Skip(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := l.ReadFile("large", 256<<20); !errors.Is(err, content.ErrSize) {
		t.Errorf("%v", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}
