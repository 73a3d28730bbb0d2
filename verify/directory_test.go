package verify_test

import (
	"errors"
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

// What oc wrote audits as whole, in each of its forms, and stays as it is.
func TestAuditDirectory(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	next := trip.Small(t, "4.8.22")
	for name, dir := range map[string]string{
		"one":     trip.OC(t, trip.OCOptions{}, r),
		"two":     trip.OC(t, trip.OCOptions{Ext: ".yaml"}, r, next),
		"windows": trip.OC(t, trip.OCOptions{Windows: true}, r),
		"old":     trip.OC(t, trip.OCOptions{Old: true}, r),
		"multi":   trip.OC(t, trip.OCOptions{}, trip.Make(t, sample.Options{Multi: true, Archs: []string{"x86_64", "s390x"}, Components: 3, LayerSize: 1 << 10})),
		"aarch64": trip.OC(t, trip.OCOptions{}, trip.Make(t, sample.Options{Arch: "aarch64", Components: 3, LayerSize: 1 << 10})), // whose components' tags read as versions
	} {
		t.Run(name, func(t *testing.T) {
			before := trip.Tree(t, dir)
			report := trip.Whole(t, dir)
			if len(report.Releases) == 0 || report.Releases[0].Images != 3 || report.Releases[0].Signature != "verified" || !report.Directory || report.Blobs.Count == 0 {
				t.Errorf("%+v", report)
			}
			in, err := verify.Inspect(t.Context(), verify.InspectOptions{Media: dir, Signatures: trip.Verifier(t, trip.Key())})
			if err != nil || in.Sealed || in.Lacking || len(in.Releases) != len(report.Releases) || in.Blobs != report.Blobs || in.Releases[0].Signature != "verified" {
				t.Errorf("%+v %v", in, err)
			}
			after := trip.Tree(t, dir)
			for path, s := range before {
				if after[path] != s {
					t.Errorf("%s was changed", path)
				}
			}
		})
	}
}

// Each way in which such a folder goes bad has its finding, and its outcome.
func TestAuditDirectoryDamage(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 3, LayerSize: 4 << 10})
	other := trip.Small(t, "4.8.22")
	component := func(name string) digest.Digest {
		i := slices.IndexFunc(r.Components, func(c release.Image) bool { return c.Name == name })
		return r.Components[i].Digest
	}
	m, err := content.ParseManifest(content.MediaTypeDockerManifest, r.Blobs[component("cli")])
	if err != nil {
		t.Fatal(err)
	}
	layer := m.Layers[len(m.Layers)-1].Digest // its own
	remove := func(t *testing.T, paths ...string) {
		t.Helper()
		for _, p := range paths {
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	relink := func(t *testing.T, dir, tag string, d digest.Digest) {
		t.Helper()
		replace(t, trip.OCTag(dir, tag), func(path string) error { return os.Symlink(d.String(), path) })
	}
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir string)
		status verify.Status
		kind   verify.Kind
		path   string // the end of the finding's path
		detail string
	}{
		"layer flipped": {func(t *testing.T, dir string) { trip.Flip(t, trip.OCBlob(dir, layer), 100) },
			verify.StatusDamaged, verify.KindCorrupt, "blobs/" + layer.String(), "not what its name says"},
		"layer cut": {func(t *testing.T, dir string) { truncate(t, trip.OCBlob(dir, layer), 10) },
			verify.StatusDamaged, verify.KindTruncated, "blobs/" + layer.String(), "10 bytes"},
		"manifest edited": {func(t *testing.T, dir string) { // in place: both names are of one file
			rewrite(t, trip.OCBlob(dir, component("cli")), append(r.Blobs[component("cli")], ' '))
		}, verify.StatusDamaged, verify.KindCorrupt, component("cli").String(), "not what its name says"},
		"component's tag swapped": {func(t *testing.T, dir string) { relink(t, dir, "4.8.21-x86_64-cli", component("etcd")) },
			verify.StatusDamaged, verify.KindCorrupt, "manifests/4.8.21-x86_64", "component cli is " + component("cli").String()},
		"release's tag names a component": {func(t *testing.T, dir string) { relink(t, dir, "4.8.21-x86_64", component("etcd")) },
			verify.StatusDamaged, verify.KindCorrupt, "manifests/4.8.21-x86_64", "no release image"},
		"release's tag names another release": {func(t *testing.T, dir string) { relink(t, dir, "4.8.21-x86_64", other.Descriptor.Digest) },
			verify.StatusDamaged, verify.KindCorrupt, "manifests/4.8.21-x86_64", "names the release 4.8.22-x86_64"},
		"tag leads out": {func(t *testing.T, dir string) {
			replace(t, trip.OCTag(dir, "4.8.21-x86_64-cli"), func(path string) error { return os.Symlink("../blobs/"+component("cli").String(), path) })
		}, verify.StatusDamaged, verify.KindCorrupt, "manifests/4.8.21-x86_64-cli", "no link to a digest beside it"},
		"download": {func(t *testing.T, dir string) {
			if err := os.Rename(trip.OCBlob(dir, layer), trip.OCBlob(dir, layer)+".download"); err != nil {
				t.Fatal(err)
			}
		}, verify.StatusIncomplete, verify.KindPartial, layer.String() + ".download", "did not finish"},
		"layer missing": {func(t *testing.T, dir string) { remove(t, trip.OCBlob(dir, layer)) },
			verify.StatusIncomplete, verify.KindMissing, layer.String(), "not there"},
		"manifest missing": {func(t *testing.T, dir string) {
			remove(t, trip.OCBlob(dir, component("cli")), trip.OCTag(dir, component("cli").String()))
		}, verify.StatusIncomplete, verify.KindMissing, component("cli").String(), "not there"},
		"release image missing": {func(t *testing.T, dir string) {
			remove(t, trip.OCBlob(dir, r.Descriptor.Digest), trip.OCTag(dir, r.Descriptor.Digest.String()))
		}, verify.StatusIncomplete, verify.KindMissing, "manifests/4.8.21-x86_64", "not whole"},
		"release image flipped": {func(t *testing.T, dir string) { trip.Flip(t, trip.OCBlob(dir, r.Descriptor.Digest), 5) },
			verify.StatusDamaged, verify.KindCorrupt, "blobs/" + r.Descriptor.Digest.String(), "not what its name says"},
		"second copy flipped": {func(t *testing.T, dir string) {
			replace(t, trip.OCTag(dir, component("cli").String()), func(path string) error {
				return os.WriteFile(path, append(r.Blobs[component("cli")], '\n'), 0o644)
			})
		}, verify.StatusDamaged, verify.KindCorrupt, "manifests/" + component("cli").String(), ""},
		"unsigned": {func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "config")); err != nil {
				t.Fatal(err)
			}
		}, verify.StatusUntrusted, verify.KindUntrusted, r.Descriptor.Digest.String(), "no signature"},
		"stranger": {func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, trip.OCBlobs, "notes.txt"), 0) },
			verify.StatusDamaged, verify.KindExtra, "notes.txt", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := trip.OC(t, trip.OCOptions{}, r, other)
			test.damage(t, dir)
			report := trip.Audit(t, dir)
			i := slices.IndexFunc(report.Findings, func(f verify.Finding) bool {
				return f.Kind == test.kind && strings.HasSuffix(f.Path, test.path) && strings.Contains(f.Detail, test.detail)
			})
			if report.Status != test.status || i < 0 {
				t.Errorf("%s: %+v", report.Status, report.Findings)
			}
		})
	}
}

// One release of several may be looked at alone, and what is near a folder is answered with
// what was meant.
func TestAuditDirectorySelects(t *testing.T) {
	r, next := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	dir := trip.OC(t, trip.OCOptions{}, r, next)
	trip.Flip(t, trip.OCBlob(dir, next.Descriptor.Digest), 5)
	opts := verify.AuditOptions{Media: dir, Signatures: trip.Verifier(t, trip.Key()), Releases: []string{"4.8.21"}}
	report, err := verify.Audit(t.Context(), opts)
	if err != nil || len(report.Releases) != 1 || report.Releases[0].Version != "4.8.21" {
		t.Errorf("%+v %v", report, err)
	}
	var tree *bundle.DirectoryError
	if _, err := verify.Repair(t.Context(), verify.RepairOptions{Audit: opts}); !errors.As(err, &tree) {
		t.Errorf("a folder that oc wrote is repaired: %v", err)
	}
	for _, near := range []string{filepath.Dir(dir), filepath.Join(dir, "v2"), filepath.Join(dir, "v2/openshift/release"), filepath.Join(dir, trip.OCBlobs), filepath.Join(dir, "config")} {
		opts.Media = near
		if _, err := verify.Audit(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "did you mean "+dir) || !errors.Is(err, bundle.ErrNotBundle) {
			t.Errorf("%s: %v", near, err)
		}
	}
}
