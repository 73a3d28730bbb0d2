package content

import "testing"

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 1<<30 - 1: "1.0 GiB", 1000 << 20: "1000.0 MiB",
		1 << 30: "1.0 GiB", 17179869184: "16.0 GiB", 5 << 40: "5.0 TiB", 1<<63 - 1: "8.0 EiB", -1: "unknown",
	} {
		if got := SizeText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestPlural(t *testing.T) {
	for n, want := range map[int]string{0: "0 blobs", 1: "1 blob", 2: "2 blobs"} {
		if got := Plural(n, "blob", "blobs"); got != want {
			t.Errorf("Plural(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestFew(t *testing.T) {
	for _, test := range []struct {
		names []string
		want  string
	}{
		{nil, ""}, {[]string{"a"}, "a"}, {[]string{"a", "b", "c", "d"}, "a, b, c, d"}, {[]string{"a", "b", "c", "d", "e"}, "a, b, c and 2 more"},
	} {
		if got := Few(test.names); got != test.want {
			t.Errorf("%v: %q, want %q", test.names, got, test.want)
		}
	}
}
