package release

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestParseReference(t *testing.T) {
	d := digest.FromString("x")
	for _, c := range []struct {
		text     string
		defaults Defaults
		want     Reference
	}{
		{"4.8.21", Defaults{}, Reference{DefaultRepository, "4.8.21-x86_64", "", "4.8.21", "x86_64"}},
		{"4.8.21", Defaults{Arch: "arm64"}, Reference{DefaultRepository, "4.8.21-aarch64", "", "4.8.21", "aarch64"}},
		{"4.8.21", Defaults{Arch: "multi", Repository: "quay.io/a/b"}, Reference{"quay.io/a/b", "4.8.21-multi", "", "4.8.21", "multi"}},
		{"4.8.21-s390x", Defaults{Arch: "multi"}, Reference{DefaultRepository, "4.8.21-s390x", "", "4.8.21", "s390x"}},
		{"4.8.21-amd64", Defaults{}, Reference{DefaultRepository, "4.8.21-x86_64", "", "4.8.21", "x86_64"}},
		{"4.15.0-rc.1", Defaults{}, Reference{DefaultRepository, "4.15.0-rc.1-x86_64", "", "4.15.0-rc.1", "x86_64"}},
		{"4.15.0-rc.1-multi", Defaults{}, Reference{DefaultRepository, "4.15.0-rc.1-multi", "", "4.15.0-rc.1", "multi"}},
		{"4.12.0-multi-x86_64", Defaults{}, Reference{DefaultRepository, "4.12.0-multi-x86_64", "", "4.12.0-multi", "x86_64"}},
		{"quay.io/a/b:4.8.21-x86_64", Defaults{Arch: "multi"}, Reference{"quay.io/a/b", "4.8.21-x86_64", "", "4.8.21", "x86_64"}},
		{"docker://reg:5000/a/b:4.8.21", Defaults{}, Reference{"reg:5000/a/b", "4.8.21", "", "4.8.21", ""}},
		{"quay.io/a/b:latest", Defaults{}, Reference{"quay.io/a/b", "latest", "", "", ""}},
		{"quay.io/a/b@" + d.String(), Defaults{}, Reference{"quay.io/a/b", "", d, "", ""}},
		{"quay.io/a/b:4.8.21-x86_64@" + d.String(), Defaults{}, Reference{"quay.io/a/b", "4.8.21-x86_64", d, "4.8.21", "x86_64"}},
		{"localhost/a:1", Defaults{}, Reference{"localhost/a", "1", "", "", ""}},
		{"[::1]:5000/a/b:1", Defaults{}, Reference{"[::1]:5000/a/b", "1", "", "", ""}},
	} {
		got, err := ParseReference(c.text, c.defaults)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", c.text, got, err, c.want)
			continue
		}
		if back, err := ParseReference(got.String(), Defaults{}); err != nil || back != got {
			t.Errorf("%s: %s comes back as %+v, %v", c.text, got, back, err)
		}
		if !IsReference(c.text) {
			t.Errorf("%s is not taken for a release", c.text)
		}
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	for _, c := range []struct {
		text     string
		defaults Defaults
		why      string
	}{
		{"", Defaults{}, "no release"},
		{"4.8", Defaults{}, "no release"},
		{"v4.8.21", Defaults{}, "no release"},
		{"04.8.21", Defaults{}, "no release"},
		{"4.8.21+build", Defaults{}, "no release"},
		{"4.8.21 ", Defaults{}, "no release"},
		{"usb", Defaults{}, "no release"},
		{"4.8.21", Defaults{Arch: "riscv64"}, "riscv64"},
		{"4.8.21", Defaults{Repository: "quay.io"}, "no repository"},
		{"./4.8.21", Defaults{}, "no host"},
		{"/mnt/usb:1/x:4", Defaults{}, "registry is missing"},
		{"~/usb", Defaults{}, "registry is missing"},
		{"mnt/usb", Defaults{}, "registry is missing"},
		{"nginx/nginx:1", Defaults{}, "docker.io/library/nginx:1"},
		{"docker.io/nginx:1", Defaults{}, "docker.io/library/nginx:1"},
		{"reg:5000/ocp4/openshift4", Defaults{}, "neither tag nor digest"},
		{"https://quay.io/a/b:1", Defaults{}, "https://"},
		{"quay.io/A/b:1", Defaults{}, "lower case"},
		{"quay.io/a//b:1", Defaults{}, "no repository"},
		{"quay.io/a/../b:1", Defaults{}, "no repository"},
		{"quay.io/a/b:", Defaults{}, "no tag"},
		{"quay.io/a/b:-x", Defaults{}, "no tag"},
		{"quay.io/a/b@sha256:abc", Defaults{}, "digest"},
		{"quay.io/a/b@", Defaults{}, "digest"},
		{"C:/usb/x:1", Defaults{}, "no host"},
		{"quay.io/" + strings.Repeat("a", 256) + ":1", Defaults{}, "no repository"},
	} {
		_, err := ParseReference(c.text, c.defaults)
		if !errors.Is(err, ErrReference) || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%q: error %v, want one about %s", c.text, err, c.why)
		}
		if c.defaults == (Defaults{}) && IsReference(c.text) {
			t.Errorf("%q is taken for a release", c.text)
		}
	}
}

func TestArchitectures(t *testing.T) {
	for in, want := range map[string][2]string{
		"amd64": {"x86_64", "amd64"}, "x86_64": {"x86_64", "amd64"}, "ARM64": {"aarch64", "arm64"}, "aarch64": {"aarch64", "arm64"},
		"ppc64le": {"ppc64le", "ppc64le"}, "s390x": {"s390x", "s390x"}, "multi": {"multi", "multi"},
	} {
		got, err := NormalizeArch(in)
		if err != nil || got != want[0] || GoArch(got) != want[1] {
			t.Errorf("%s: %s, %s, %v", in, got, GoArch(got), err)
		}
	}
	if _, err := NormalizeArch(""); !errors.Is(err, ErrReference) {
		t.Errorf("no architecture: %v", err)
	}
}

func TestTags(t *testing.T) {
	d := digest.FromString("x")
	for got, want := range map[string]string{
		Tag("4.8.21", "x86_64"):                  "4.8.21-x86_64",
		ComponentTag("4.8.21", "x86_64", "etcd"): "4.8.21-x86_64-etcd",
		SigstoreTag(d):                           "sha256-" + d.Encoded() + ".sig",
	} {
		if got != want || !ValidTag(got) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for _, tag := range []string{"", ".a", "-a", "a b", "a/b", "a\n", strings.Repeat("a", 129)} {
		if ValidTag(tag) {
			t.Errorf("%q is taken for a tag", tag)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"4.8.21", "4.8.21-x86_64", "docker://quay.io/a/b:1@sha256:0", "[::1]:5/a:1", "docker.io/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s, Defaults{})
		if err != nil {
			if !errors.Is(err, ErrReference) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		back, err := ParseReference(r.String(), Defaults{})
		if err != nil || back != r {
			t.Errorf("%q: %+v comes back as %+v, %v", s, r, back, err)
		}
	})
}
