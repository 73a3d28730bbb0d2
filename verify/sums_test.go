package verify

import (
	"strings"
	"testing"

	"pannier/bundle/content"
)

func TestParseSums(t *testing.T) {
	line := strings.Repeat("ab", 32) + "  blobs/sha256/x\n"
	sums, err := parseSums([]byte(line + strings.Replace(line, "x", "name with  spaces", 1)))
	if err != nil || len(sums) != 2 || sums["blobs/sha256/name with  spaces"] == "" {
		t.Errorf("%v, %v", sums, err)
	}
	for _, bad := range []string{"x", "  y", strings.ToUpper(line), strings.Replace(line, "  ", " *", 1), strings.Repeat("ab", 32) + "  \n", line + "\n" + line} {
		if sums, err := parseSums([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, sums)
		}
	}
}

func FuzzParseSums(f *testing.F) {
	f.Add([]byte(strings.Repeat("ab", 32) + "  index.json\n"))
	f.Add([]byte("zz  x"))
	f.Add([]byte(strings.Repeat("ab", 40000)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		sums, err := parseSums(raw)
		if err != nil {
			return
		}
		for name, d := range sums {
			if name == "" || content.CheckDigest(d) != nil {
				t.Errorf("%q: %q", name, d)
			}
		}
	})
}
