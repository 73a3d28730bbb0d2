package bundle_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

func withClients(t *testing.T, version string, multi bool) *sample.Release {
	return trip.Make(t, sample.Options{Version: version, Components: 3, LayerSize: 1 << 10, Clients: true, Multi: multi, Archs: []string{"x86_64", "aarch64"}})
}

var linuxAndWindows = []release.Platform{{OS: "linux", Arch: "amd64"}, {OS: "windows", Arch: "amd64"}}

// clientsOn are the files in the folder of clients, by path below it.
func clientsOn(t *testing.T, media string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	root := filepath.Join(media, "pannier", "clients")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(root, path)
		out[filepath.ToSlash(name)], err = os.ReadFile(path)
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return out
}

func TestPackClients(t *testing.T) {
	r21, r22 := withClients(t, "4.8.21", false), withClients(t, "4.8.22", false)
	o := trip.NewOrigin(t, r21, r22)
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)
	pack := func(version string, platforms ...release.Platform) *bundle.PackResult {
		t.Helper()
		opts := o.Options(media, version)
		opts.Clients = platforms
		return trip.Pack(t, opts)
	}
	pack("4.8.21", linuxAndWindows...)
	want := map[string][]byte{
		"4.8.21-x86_64/linux-amd64/oc":                r21.Clients["4.8.21-x86_64-cli-artifacts/usr/share/openshift/linux_amd64/oc"],
		"4.8.21-x86_64/linux-amd64/openshift-install": r21.Clients["4.8.21-x86_64-installer/usr/bin/openshift-install"],
		"4.8.21-x86_64/windows-amd64/oc.exe":          r21.Clients["4.8.21-x86_64-cli-artifacts/usr/share/openshift/windows/oc.exe"],
	}
	compare := func() {
		t.Helper()
		got := clientsOn(t, media)
		for name, data := range want {
			if data == nil || !bytes.Equal(got[name], data) {
				t.Errorf("%s: %d bytes, want %d", name, len(got[name]), len(data))
			}
		}
		for name := range got {
			if _, ok := want[name]; !ok && !strings.HasSuffix(name, "/sha256sum.txt") {
				t.Errorf("%s should not be there", name)
			}
		}
	}
	compare()
	if !pack("4.8.21", linuxAndWindows...).Unchanged || !o.Pack(media, "4.8.21").Unchanged {
		t.Error("packed again although all was there")
	}

	// Of a sealed release, without network but for the tag; through a symbolic link; and the
	// sealed clients stay when another release is added.
	pack("4.8.21", release.Platform{OS: "linux", Arch: "s390x"})
	want["4.8.21-x86_64/linux-s390x/oc"] = r21.Clients["4.8.21-x86_64-cli-artifacts/usr/share/openshift/linux_s390x/oc"]
	want["4.8.21-x86_64/linux-s390x/openshift-install"] = r21.Clients["4.8.21-x86_64-installer-artifacts/usr/share/openshift/linux_s390x/openshift-install"]
	compare()
	o.Pack(media, "4.8.22")
	compare()
	in, err := verify.Inspect(t.Context(), verify.InspectOptions{Media: media, Cache: t.TempDir(), Signatures: o.Verifier})
	if err != nil || !slices.Equal(in.Releases[0].Clients, []string{"linux/amd64", "linux/s390x", "windows/amd64"}) || in.Releases[1].Clients != nil {
		t.Errorf("%v: %+v", err, in.Releases)
	}

	// Damage, and a loss, are found, and healed by pack --verify.
	oc := filepath.Join(media, "pannier", "clients", "4.8.21-x86_64", "linux-amd64", "oc")
	if err := os.WriteFile(oc, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(oc), "openshift-install")); err != nil {
		t.Fatal(err)
	}
	if a := trip.Audit(t, media); a.Status != verify.StatusDamaged || len(a.Findings) != 2 {
		t.Errorf("audit: %s, %+v", a.Status, a.Findings)
	}
	opts := o.Options(media, "4.8.21")
	opts.Verify = true
	trip.Pack(t, opts)
	compare()
}

func TestPackClientsOfMulti(t *testing.T) {
	r := withClients(t, "4.8.21", true)
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)
	opts := o.Options(media, "4.8.21-multi")
	opts.Clients, opts.AnyClients = release.Platforms(), true
	trip.Pack(t, opts)
	got := clientsOn(t, media)
	for _, row := range [][2]string{
		{"4.8.21-multi/linux-arm64/openshift-install", "4.8.21-aarch64-installer/usr/bin/openshift-install"},
		{"4.8.21-multi/linux-amd64/openshift-install", "4.8.21-x86_64-installer/usr/bin/openshift-install"},
		{"4.8.21-multi/darwin-arm64/oc", "4.8.21-x86_64-cli-artifacts/usr/share/openshift/mac_arm64/oc"},
	} {
		if want := r.Clients[row[1]]; want == nil || !bytes.Equal(got[row[0]], want) {
			t.Errorf("%s is not %s", row[0], row[1])
		}
	}
}

func TestPackClientsRefused(t *testing.T) {
	o := trip.NewOrigin(t, trip.Small(t, "4.8.21"))
	opts := o.Options(trip.Drive(t), "4.8.21")
	opts.Clients = linuxAndWindows
	if _, err := bundle.Pack(t.Context(), opts); !errors.Is(err, bundle.ErrNoClient) {
		t.Errorf("a release without clients: %v", err)
	}
	if _, err := os.Lstat(opts.Media); err == nil {
		t.Error("MEDIA was made")
	}
}

// Whoever seals a drive again cannot put programs of his own on it: audit compares them with
// the signed release.
func TestAuditForeignClients(t *testing.T) {
	r := withClients(t, "4.8.21", false)
	o := trip.NewOrigin(t, r)
	for name, path := range map[string]string{
		"another oc":         "4.8.21-x86_64/linux-amd64/oc",
		"another installer":  "4.8.21-x86_64/linux-amd64/openshift-install",
		"another program":    "4.8.21-x86_64/linux-amd64/helper",
		"another platform":   "4.8.21-x86_64/plan9-amd64/oc",
		"other sums":         "4.8.21-x86_64/sha256sum.txt",
		"no such release":    "4.8.99-x86_64/linux-amd64/oc",
		"beside the folders": "oc",
	} {
		t.Run(name, func(t *testing.T) {
			media := trip.Drive(t)
			opts := o.Options(media, "4.8.21")
			opts.Clients = linuxAndWindows
			trip.Pack(t, opts)
			trip.Reseal(t, media, func(e *trip.Edit) {
				write(t, filepath.Join(media, "pannier", "clients", filepath.FromSlash(path)), "evil")
			})
			a := trip.Audit(t, media)
			if a.Status != verify.StatusDamaged || !slices.ContainsFunc(a.Findings, func(f verify.Finding) bool { return f.Path == "pannier/clients/"+path }) {
				t.Errorf("audit: %s, %+v", a.Status, a.Findings)
			}
		})
	}
}
