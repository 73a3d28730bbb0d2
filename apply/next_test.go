package apply

import (
	"context"
	"errors"
	"testing"

	"pannier/bundle"
	"pannier/bundle/objects"
)

func TestNext(t *testing.T) {
	rel := func(version, arch string, from ...string) objects.ReleaseInfo {
		r := objects.ReleaseInfo{Version: version, Arch: arch}
		for _, f := range from {
			r.Updates = append(r.Updates, objects.Update{From: f})
		}
		return r
	}
	path := []objects.ReleaseInfo{rel("4.7.37", "x86_64", "4.7.0"), rel("4.8.21", "x86_64", "4.7.37", "4.8.2"), rel("4.8.20", "x86_64")}
	for name, row := range map[string]struct {
		releases []objects.ReleaseInfo
		current  string
		want     string // "" for a choice among several
	}{
		"first":                           {path, "4.7.0", "4.7.37"},
		"next":                            {path, "4.7.37", "4.8.21"},
		"another path":                    {path, "4.8.2", "4.8.21"},
		"at the end":                      {path, "4.8.21", "4.8.21"},
		"beside the path":                 {path, "4.7.5", ""},
		"at a release that is in no path": {path, "4.8.20", ""},
		"two ways":                        {append([]objects.ReleaseInfo{rel("4.8.22", "x86_64", "4.7.37")}, path...), "4.7.37", ""},
		"of two architectures":            {append([]objects.ReleaseInfo{rel("4.7.37", "aarch64", "4.7.0")}, path...), "4.7.0", ""},
		"a version nobody knows":          {path, "", ""},
		"only one, whatever runs":         {path[1:2], "4.0.1", "4.8.21"},
		"no path at all":                  {[]objects.ReleaseInfo{rel("4.8.20", "x86_64"), rel("4.8.21", "x86_64")}, "4.8.20", ""},
	} {
		asked := false
		d := &Delivery{Releases: row.releases}
		got, err := d.Next(t.Context(), func(context.Context) (string, error) { asked = true; return row.current, nil })
		var several *SeveralError
		if got.Version != row.want || (row.want == "") != errors.As(err, &several) {
			t.Errorf("%s: %q, %v", name, got.Version, err)
		}
		if asked != (len(row.releases) > 1 && name != "no path at all") {
			t.Errorf("%s: cluster asked: %v", name, asked)
		}
	}
	if _, err := (&Delivery{}).Next(t.Context(), nil); !errors.Is(err, bundle.ErrNoRelease) {
		t.Errorf("none: %v", err)
	}
	down := errors.New("down")
	if _, err := (&Delivery{Releases: path}).Next(t.Context(), func(context.Context) (string, error) { return "", down }); !errors.Is(err, down) {
		t.Errorf("cluster down: %v", err)
	}
}
