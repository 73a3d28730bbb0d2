package release

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

const textOne = `Name:           4.8.21
Digest:         sha256:1111111111111111111111111111111111111111111111111111111111111111
Created:        2021-11-29T12:00:00Z
OS/Arch:        linux/amd64
Manifests:      495
Metadata files: 1

Pull From: quay.io/openshift-release-dev/ocp-release@sha256:1111111111111111111111111111111111111111111111111111111111111111

Release Metadata:
  Version:  4.8.21
  Upgrades: 4.7.21, 4.7.22

Images:
  NAME    DIGEST
  etcd    sha256:2222222222222222222222222222222222222222222222222222222222222222
`

func TestParseText(t *testing.T) {
	ones := digest.Digest("sha256:" + strings.Repeat("1", 64))
	edit := strings.NewReplacer
	for name, row := range map[string]struct {
		text string
		bad  string
	}{
		"as published":      {textOne, ""},
		"narrow columns":    {edit("Name:           ", "Name: ", "Digest:         ", "Digest:    ").Replace(textOne), ""},
		"indented":          {edit("Digest: ", "\tDigest: ").Replace(textOne), ""},
		"from Windows":      {edit("\n", "\r\n").Replace(textOne), ""},
		"no name":           {edit("Name: ", "Nom: ").Replace(textOne), ""},
		"no digest":         {edit("Digest: ", "Sum: ").Replace(textOne), "is missing"},
		"no pull spec":      {edit("Pull From: ", "From: ").Replace(textOne), "is missing"},
		"by tag":            {edit("ocp-release@sha256:"+strings.Repeat("1", 64), "ocp-release:4.8.21-x86_64").Replace(textOne), "Pull From says"},
		"no digest at all":  {edit("sha256:"+strings.Repeat("1", 64)+"\nC", "latest\nC").Replace(textOne), "Digest"},
		"two that disagree": {edit("ocp-release@sha256:1", "ocp-release@sha256:2").Replace(textOne), "Pull From says"},
		"two digests":       {textOne + "Digest: sha256:" + strings.Repeat("3", 64) + "\n", "and again"},
		"a web page":        {"<html>Digest: none</html>", "is missing"},
		"empty":             {"", "is missing"},
		"too long":          {textOne + strings.Repeat(" ", MaxText), "at most"},
	} {
		got, err := ParseText([]byte(row.text))
		switch {
		case row.bad == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case row.bad == "" && (got.Digest != ones || got.Source != DefaultRepository):
			t.Errorf("%s: %+v", name, got)
		case row.bad != "" && (!errors.Is(err, ErrText) || !strings.Contains(err.Error(), row.bad)):
			t.Errorf("%s: %v, and %q is wrong with it", name, err, row.bad)
		}
	}
	if got, _ := ParseText([]byte(textOne)); got.Version != "4.8.21" {
		t.Errorf("version %q", got.Version)
	}
}

func FuzzParseText(f *testing.F) {
	f.Add([]byte(textOne))
	f.Add([]byte("Digest: \xff\nPull From: \x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := ParseText(raw)
		if err != nil && !errors.Is(err, ErrText) {
			t.Error(err)
		}
		if err == nil && (!strings.Contains(string(raw), got.Source+"@"+got.Digest.String()) && !strings.Contains(string(raw), got.Source+":")) {
			t.Errorf("%+v is not in it", got)
		}
	})
}
