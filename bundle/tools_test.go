package bundle_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

func toolFor(pl release.Platform, text string) bundle.Tool {
	return bundle.Tool{Platform: pl, Digest: digest.FromString(text), Size: int64(len(text)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader([]byte(text))), nil
	}}
}

func TestPackTools(t *testing.T) {
	o := trip.NewOrigin(t, trip.Small(t, "4.8.21"))
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)
	pack := func(tools ...bundle.Tool) (*bundle.PackResult, error) {
		opts := o.Options(media, "4.8.21")
		opts.Tools = tools
		return bundle.Pack(t.Context(), opts)
	}
	linux, windows := release.Platform{OS: "linux", Arch: "amd64"}, release.Platform{OS: "windows", Arch: "amd64"}
	for _, step := range []struct {
		tools     []bundle.Tool
		unchanged bool
		want      string // what is on the drive for Linux
	}{
		{[]bundle.Tool{toolFor(linux, "first")}, false, "first"},
		{[]bundle.Tool{toolFor(linux, "first")}, true, "first"},
		{nil, true, "first"},
		{[]bundle.Tool{toolFor(windows, "for windows")}, false, "first"},
		{[]bundle.Tool{toolFor(linux, "second")}, false, "second"},
	} {
		res, err := pack(step.tools...)
		if err != nil || res.Unchanged != step.unchanged {
			t.Fatalf("unchanged %v, want %v: %v", res.Unchanged, step.unchanged, err)
		}
		if got, err := os.ReadFile(filepath.Join(media, "pannier", "bin", "linux-amd64", "pannier")); err != nil || string(got) != step.want {
			t.Errorf("%q, want %q: %v", got, step.want, err)
		}
		trip.Whole(t, media)
	}
	if _, err := os.Stat(filepath.Join(media, "pannier", "bin", "windows-amd64", "pannier.exe")); err != nil {
		t.Error(err)
	}

	// One that is not what it was when it was looked at does not come under a seal.
	changed := toolFor(linux, "third")
	changed.Digest = digest.FromString("another")
	if _, err := pack(changed); !errors.Is(err, content.ErrDigest) {
		t.Errorf("a program that changed: %v", err)
	}
	if _, err := pack(toolFor(linux, "third")); err != nil {
		t.Error(err)
	}
}

// Whoever seals a drive anew cannot put other files where the tools are.
func TestAuditForeignTools(t *testing.T) {
	o := trip.NewOrigin(t, trip.Small(t, "4.8.21"))
	for _, name := range []string{"pannier", "linux-amd64/helper", "plan9-amd64/pannier", "linux-amd64/pannier.exe"} {
		media := trip.Drive(t)
		o.Pack(media, "4.8.21")
		trip.Reseal(t, media, func(*trip.Edit) {
			write(t, filepath.Join(media, "pannier", "bin", filepath.FromSlash(name)), "evil")
		})
		if a := trip.Audit(t, media); a.Status != verify.StatusDamaged || len(a.Findings) != 1 || a.Findings[0].Path != "pannier/bin/"+name {
			t.Errorf("%s: %s, %+v", name, a.Status, a.Findings)
		}
	}
	sums := map[string]digest.Digest{"pannier/bin/linux-amd64/pannier": digest.FromString("x"), "pannier/bin/sha256sum.txt": digest.FromString("y")}
	if n, wrong := bundle.CheckTools(sums); n != 1 || len(wrong) != 1 || wrong["pannier/bin/sha256sum.txt"] == nil {
		t.Errorf("other sums: %d, %v", n, wrong)
	}
}

// A tool stays where the whole drive is verified again, if it is what was sealed. One that goes
// is told of.
func TestPackKeepsTools(t *testing.T) {
	linux := release.Platform{OS: "linux", Arch: "amd64"}
	for name, tc := range map[string]struct {
		harm func(media, tool string) error
		kept bool
	}{
		"as sealed": {func(string, string) error { return nil }, true},
		"changed":   {func(_, tool string) error { return os.WriteFile(tool, []byte("first?"), 0o755) }, false},
		"lost":      {func(_, tool string) error { return os.Remove(tool) }, false},
		"no seal": {func(media, _ string) error {
			seals, _ := filepath.Glob(filepath.Join(media, "pannier", "seal-*.json"))
			return errors.Join(os.RemoveAll(filepath.Join(media, "pannier", "parity")), os.Remove(seals[0]))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := trip.NewOrigin(t, trip.Small(t, "4.8.21"))
			media := trip.Drive(t)
			opts := o.Options(media, "4.8.21")
			opts.Tools = []bundle.Tool{toolFor(linux, "first")}
			trip.Pack(t, opts)
			tool := filepath.Join(media, "pannier", "bin", "linux-amd64", "pannier")
			if err := tc.harm(media, tool); err != nil {
				t.Fatal(err)
			}
			opts.Tools, opts.Verify = nil, true
			res, err := bundle.Pack(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			told := strings.Contains(strings.Join(res.Warnings, "\n"), "bin/linux-amd64/pannier")
			if _, err := os.Stat(tool); (err == nil) != tc.kept || told == tc.kept {
				t.Errorf("%v; told of it: %v", err, told)
			}
			trip.Whole(t, media)
		})
	}
}

// Clients that are asked for later need the whole image that they are taken out of, whatever the
// other side holds.
func TestPackClientsOntoLean(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 3, LayerSize: 1 << 10, Clients: true})
	o := trip.NewOrigin(t, r)
	opts := o.Options(trip.Drive(t), r.Reference())
	dest := objects.Destination{Registry: "one.example", Repository: "r"}
	held := map[digest.Digest]int64{}
	for d, raw := range r.Blobs {
		held[d] = int64(len(raw))
	}
	opts.Have = []bundle.Holdings{{Registry: dest, Blobs: map[string]map[digest.Digest]int64{dest.String(): held}}}
	trip.Pack(t, opts)
	opts.Clients = []release.Platform{{OS: "linux", Arch: "amd64"}}
	trip.Pack(t, opts)
	if report := trip.Audit(t, opts.Media); report.Status != verify.StatusComplete || report.Presumes == nil {
		t.Errorf("%s %+v, presumes %+v", report.Status, report.Findings, report.Presumes)
	}
	if oc, _ := filepath.Glob(filepath.Join(opts.Media, "pannier", "clients", "*", "linux-amd64", "oc")); len(oc) != 1 {
		t.Errorf("oc: %q", oc)
	}
}
