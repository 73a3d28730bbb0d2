package verify_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

// programs is a drive with parity, clients for two platforms, and a tool.
func programs(t *testing.T) (*sample.Release, string) {
	t.Helper()
	r := trip.Make(t, sample.Options{Components: 3, LayerSize: 1 << 10, Clients: true})
	o := trip.NewOrigin(t, r)
	opts := o.Options(trip.Drive(t), r.Reference())
	linux := release.Platform{OS: "linux", Arch: "amd64"}
	tool := []byte("pannier")
	opts.Parity, opts.Clients = 5000, []release.Platform{linux, {OS: "windows", Arch: "amd64"}}
	opts.Tools = []bundle.Tool{{Platform: linux, Digest: digest.FromBytes(tool), Size: int64(len(tool)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tool)), nil }}}
	trip.Pack(t, opts)
	return r, opts.Media
}

// clientImage is the layer that holds oc: the last of its image.
func clientImage(t *testing.T, r *sample.Release) digest.Digest {
	t.Helper()
	for _, c := range r.Components {
		if c.Name == "cli-artifacts" {
			m, err := content.ParseManifest(content.MediaTypeDockerManifest, r.Blobs[c.Digest])
			if err != nil {
				t.Fatal(err)
			}
			return m.Layers[len(m.Layers)-1].Digest
		}
	}
	t.Fatal("no cli-artifacts")
	return ""
}

const (
	clientsFolder = "pannier/clients/4.8.21-x86_64"
	ocPath        = clientsFolder + "/linux-amd64/oc"
	toolPath      = "pannier/bin/linux-amd64/pannier"
)

// Clients need no parity of their own: they are taken once more out of the images of their
// release, after those have been healed. A tool comes from another copy of the drive alone.
func TestRepairPrograms(t *testing.T) {
	r, clean := programs(t)
	all := sums(t, clean, "")
	image := clientImage(t, r)
	flip := func(media, name string) error { trip.Flip(t, at(media, name), 1); return nil }
	remove := func(media, name string) error { return os.RemoveAll(at(media, name)) }
	for name, tc := range map[string]struct {
		hurt func(media string) error
		from bool // only another copy of the drive heals it
	}{
		"oc damaged":    {hurt: func(m string) error { return flip(m, ocPath) }},
		"oc empty":      {hurt: func(m string) error { return os.Truncate(at(m, ocPath), 0) }},
		"oc longer":     {hurt: func(m string) error { return os.WriteFile(at(m, ocPath), make([]byte, 1<<20), 0o644) }},
		"all lost":      {hurt: func(m string) error { return remove(m, "pannier/clients") }},
		"sums damaged":  {hurt: func(m string) error { return flip(m, clientsFolder+"/sha256sum.txt") }},
		"tools' sums":   {hurt: func(m string) error { return remove(m, "pannier/bin/sha256sum.txt") }},
		"a link":        {hurt: func(m string) error { return errors.Join(remove(m, ocPath), os.Symlink("/etc/passwd", at(m, ocPath))) }},
		"empty folder":  {hurt: func(m string) error { return errors.Join(remove(m, ocPath), os.Mkdir(at(m, ocPath), 0o755)) }},
		"image damaged": {hurt: func(m string) error { return errors.Join(flip(m, ocPath), os.Truncate(trip.Blob(m, image), 1)) }},
		"SHA256SUMS too": {hurt: func(m string) error {
			return errors.Join(flip(m, ocPath), flip(m, "SHA256SUMS"))
		}},
		"left by an interruption": {hurt: func(m string) error { return os.WriteFile(at(m, ocPath+".new"), []byte("x"), 0o644) }},
		"tool damaged":            {hurt: func(m string) error { return flip(m, toolPath) }, from: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, clean)
			if err := tc.hurt(media); err != nil {
				t.Fatal(err)
			}
			before := trip.Audit(t, media)
			if before.Status != verify.StatusDamaged {
				t.Fatalf("audit says %s", before.Status)
			}
			for _, f := range before.Findings {
				if f.Healable == tc.from && !strings.HasSuffix(f.Path, ".new") {
					t.Errorf("%s: can be healed here: %v", f.Path, f.Healable)
				}
			}
			report, err := mend(t, media, nil)
			if tc.from {
				if err != nil || report.Status != verify.StatusDamaged {
					t.Errorf("nobody has it: %v %+v", err, report)
				}
				report, err = mend(t, media, func(o *verify.RepairOptions) { o.Repair.From = []bundle.RepairSource{from(t, clean)} })
			}
			if err != nil || report.Status != verify.StatusComplete {
				t.Errorf("%v %+v", err, report)
			}
			if got := sums(t, media, ""); !maps.Equal(got, all) {
				t.Errorf("another bundle: %v", slices.Collect(maps.Keys(got)))
			}
			trip.Whole(t, media)
		})
	}
}

// A program that somebody sealed is not replaced, and what an image cannot give any more is
// not made up.
func TestRepairProgramsRefused(t *testing.T) {
	r, clean := programs(t)
	media := trip.Copy(t, clean)
	trip.Reseal(t, media, func(*trip.Edit) {
		if err := os.WriteFile(at(media, ocPath), []byte("evil"), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	report, err := mend(t, media, nil)
	if raw, rerr := os.ReadFile(at(media, ocPath)); err != nil || rerr != nil || report.Status != verify.StatusDamaged || string(raw) != "evil" {
		t.Errorf("%v %v %s %+v", err, rerr, raw, report)
	}
	// The same, and damaged: what the image holds is not what was sealed.
	if err := os.WriteFile(at(media, ocPath), []byte("worse"), 0o644); err != nil {
		t.Fatal(err)
	}
	report, err = mend(t, media, nil)
	if raw, rerr := os.ReadFile(at(media, ocPath)); err != nil || rerr != nil || report.Status != verify.StatusDamaged || string(raw) != "worse" {
		t.Errorf("%v %v %s %+v", err, rerr, raw, report)
	}

	media = trip.Copy(t, clean)
	lost, err := filepath.Glob(at(media, "pannier/parity/[0-9]*/*.bin"))
	if err != nil || len(lost) == 0 {
		t.Fatal(lost, err)
	}
	lost = append(lost, trip.Blob(media, clientImage(t, r)))
	for _, name := range lost {
		if err := os.Truncate(name, 0); err != nil {
			t.Fatal(err)
		}
	}
	trip.Flip(t, at(media, ocPath), 1)
	for _, f := range trip.Audit(t, media).Findings {
		if f.Path == ocPath && f.Healable {
			t.Error("the image is lost, and the audit says that oc can be healed here")
		}
	}
	if report, err = mend(t, media, nil); err != nil || report.Status != verify.StatusDamaged {
		t.Errorf("%v %+v", err, report)
	}
}

// An interruption at any write leaves the clients at least as good as before.
func TestRepairProgramsCutAnywhere(t *testing.T) {
	_, clean := programs(t)
	all := sums(t, clean, "")
	start := trip.Copy(t, clean)
	trip.Flip(t, at(start, ocPath), 1)
	if err := os.Remove(at(start, clientsFolder+"/sha256sum.txt")); err != nil {
		t.Fatal(err)
	}
	run := func(media string, cut *trip.Cut) (*verify.Report, error) {
		return mend(t, media, func(o *verify.RepairOptions) { o.Repair.FS = cut.FS })
	}
	counter := &trip.Cut{}
	if report, err := run(trip.Copy(t, start), counter); err != nil || report.Status != verify.StatusComplete {
		t.Fatalf("%v %+v", err, report)
	}
	for k := 1; k <= counter.Calls(); k++ {
		media := trip.Copy(t, start)
		cut := &trip.Cut{At: k}
		_, _ = run(media, cut)
		for name, sum := range sums(t, media, "") {
			if want, ok := all[name]; ok && sum != want && name != ocPath && name != "pannier/lock" {
				t.Errorf("cut at %s: %s is damaged, and was not before", cut.Call, name)
			}
		}
		if report, err := run(media, &trip.Cut{}); err != nil || report.Status != verify.StatusComplete || !maps.Equal(sums(t, media, ""), all) {
			t.Errorf("cut at %s: again: %v %+v", cut.Call, err, report)
		}
	}
}
