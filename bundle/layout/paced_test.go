//go:build linux

package layout

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPaced: of what was written no more than two windows wait in memory, whatever the size of
// the writes.
func TestPaced(t *testing.T) {
	for _, size := range []int{1 << 20, 3*windowSize + 1} {
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p := &paced{f: f}
		b, _ := blob(size)
		for p.end < 6*windowSize {
			if n, err := p.Write(b); err != nil || n != size {
				t.Fatalf("%d, %v", n, err)
			}
			if p.end-p.pushed >= 2*windowSize || p.pushed > p.end {
				t.Fatalf("%d bytes written, pushed up to %d", p.end, p.pushed)
			}
		}
	}
	if n, err := (&paced{}).Write(nil); n != 0 || err != nil {
		t.Errorf("nothing to write: %d, %v", n, err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if _, err := (&paced{f: full}).Write([]byte("x")); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
}
