package layout

import (
	"math"
	"path/filepath"
	"testing"
)

func TestStatSpace(t *testing.T) {
	dir := t.TempDir()
	s, err := StatSpace(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Filesystem == "" || s.Free <= 0 || s.Total < s.Free || s.ReadOnly {
		t.Errorf("%+v", s)
	}
	below, err := StatSpace(filepath.Join(dir, "not", "yet"))
	if err != nil || below.Filesystem != s.Filesystem || below.Total != s.Total {
		t.Errorf("%+v, %v", below, err)
	}
	root, err := StatSpace(filepath.VolumeName(dir) + string(filepath.Separator))
	if err != nil || root.Total <= 0 {
		t.Errorf("%+v, %v", root, err)
	}
}

func TestTimes(t *testing.T) {
	for _, row := range []struct {
		blocks, size uint64
		want         int64
	}{{3, 4096, 12288}, {0, 4096, 0}, {5, 0, 0}, {math.MaxUint64, 1, math.MaxInt64}, {math.MaxUint64, 4096, math.MaxInt64}, {math.MaxInt64, 1, math.MaxInt64}} {
		if got := times(row.blocks, row.size); got != row.want {
			t.Errorf("%d x %d = %d", row.blocks, row.size, got)
		}
	}
}
