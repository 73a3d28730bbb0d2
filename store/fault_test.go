package store

import (
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
)

// A disk that fails under an open index raises faults in mapped memory. They come back as
// errors, the process goes on, and Close returns.
func TestFaultsAreContained(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a mapped file cannot be cut there")
	}
	raw := treeSnapshot(t)
	for name, call := range map[string]func(*Index) error{
		"walk":     func(x *Index) error { return x.Records(func(Record) error { return nil }) },
		"write":    func(x *Index) error { return x.Put(sampleRecord(1)) },
		"snapshot": func(x *Index) error { _, err := x.WriteTo(io.Discard); return errors.Unwrap(err) },
	} {
		path := t.TempDir() + "/copy.db"
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		first := call(x)
		if !errors.Is(first, ErrCorrupt) {
			t.Errorf("%s: %v", name, first)
		}
		if err := call(x); err != first {
			t.Errorf("%s: the second time %v, want the error of the first", name, err)
		}
		if _, err := x.Record(sampleRecord(1).Digest); err != first {
			t.Errorf("%s: another call: %v, want the error of the first", name, err)
		}
		if err := x.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}
