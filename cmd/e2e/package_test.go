//go:build e2e && linux

package e2e_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"pannier/bundle/release/sample"
)

const distVersion = "v1.2.3"

// dist is what "make dist" makes for this platform, once.
var dist = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(scratch, "dist")
	out, err := exec.Command("make", "-C", "../..", "dist", "DIST="+dir, "VERSION="+distVersion, "PLATFORMS=linux/"+runtime.GOARCH).CombinedOutput()
	if err != nil {
		os.Stderr.Write(out)
	}
	return dir, err
})

// made finds a file of the distribution by its ending.
func made(t *testing.T, ending string) string {
	t.Helper()
	dir, err := dist()
	if err != nil {
		t.Fatalf("make dist: %v", err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*"+ending))
	if err != nil || len(found) != 1 {
		t.Fatalf("*%s: %q, %v", ending, found, err)
	}
	return found[0]
}

// What is in a package, whichever kind it is.
func installed(t *testing.T, u *user, root string) {
	t.Helper()
	if out := u.must(t, filepath.Join(root, "usr/bin/pannier"), "version"); !strings.HasPrefix(string(out), "pannier "+distVersion) {
		t.Errorf("%s", out)
	}
	for _, name := range []string{
		"usr/bin/oc-pannier", "usr/bin/kubectl_complete-pannier", "usr/share/man/man1/pannier.1.gz", "usr/share/man/man1/pannier-unpack.1.gz",
		"usr/share/bash-completion/completions/oc-pannier", "usr/share/fish/vendor_completions.d/pannier.fish", "usr/share/doc/pannier/copyright",
	} {
		if info, err := os.Stat(filepath.Join(root, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func removed(t *testing.T, root string) {
	t.Helper()
	for _, pattern := range []string{"usr/bin/*", "usr/share/man/man1/*", "usr/share/*/*/*pannier*", "usr/share/doc/pannier/*"} {
		if left, err := filepath.Glob(filepath.Join(root, pattern)); err != nil || len(left) > 0 {
			t.Errorf("left: %q, %v", left, err)
		}
	}
}

func TestDeb(t *testing.T) {
	dpkg := need(t, "dpkg", "dpkg")
	u, root := newUser(t), t.TempDir()
	for _, dir := range []string{"updates", "info", "triggers"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "var/lib/dpkg/status"), nil)
	write(t, filepath.Join(root, "var/lib/dpkg/available"), nil)
	u.env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}
	u.must(t, dpkg, "--root="+root, "--log=/dev/null", "-i", made(t, ".deb"))
	installed(t, u, root)
	u.must(t, dpkg, "--root="+root, "--log=/dev/null", "-r", "pannier")
	removed(t, root)
}

func TestRPM(t *testing.T) {
	rpm := need(t, "rpm", "rpm")
	u, root := newUser(t), t.TempDir()
	u.must(t, rpm, "--root", root, "--initdb")
	u.must(t, rpm, "--root", root, "--nosignature", "-i", made(t, ".rpm"))
	installed(t, u, root)
	u.must(t, rpm, "--root", root, "-e", "pannier")
	removed(t, root)
}

func TestDistribution(t *testing.T) {
	u := newUser(t)
	archive, bill := made(t, ".tar.gz"), made(t, ".cdx.json")
	dir := filepath.Dir(archive)
	u.must(t, need(t, "sh", "dash"), "-c", "cd '"+dir+"' && sha256sum -c --strict SHA256SUMS && [ $(ls | wc -l) -eq $(($(wc -l <SHA256SUMS) + 1)) ]")
	u.must(t, need(t, "tar", "tar"), "-xzf", archive)
	exe := filepath.Join(u.home, strings.TrimSuffix(filepath.Base(archive), ".tar.gz"), "pannier")

	// The bill has every module that the binary says it was built from.
	var doc struct {
		Format     string `json:"bomFormat"`
		Components []struct{ Name, Version, PURL string }
		Metadata   struct {
			Component struct{ Hashes []struct{ Content string } }
		}
	}
	data, err := os.ReadFile(bill)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &doc); err != nil || doc.Format != "CycloneDX" {
		t.Fatalf("%q, %v", doc.Format, err)
	}
	have := map[string]string{}
	for _, c := range doc.Components {
		have[c.Name] = c.Version
	}
	modules := 0
	for _, line := range strings.Split(string(u.must(t, need(t, "go", "Go"), "version", "-m", exe)), "\n") {
		if f := strings.Fields(line); len(f) >= 3 && f[0] == "dep" {
			modules++
			if have[f[1]] != f[2] {
				t.Errorf("%s %s is %q in the bill", f[1], f[2], have[f[1]])
			}
		}
	}
	if modules == 0 || modules+1 != len(doc.Components) { // and the standard library
		t.Errorf("%d modules, %d components", modules, len(doc.Components))
	}
	binary, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if got := doc.Metadata.Component.Hashes[0].Content; "sha256:"+got != digestOf(binary) {
		t.Errorf("the bill is of %s", got)
	}
}

// The image of the program goes the way of any other image: pushed to the source registry
// with skopeo, packed beside the release, unpacked; there it runs.
func TestImageRides(t *testing.T) {
	skopeo, tar := need(t, "skopeo", "apt-get install skopeo"), need(t, "tar", "tar")
	c := newCargo(t, sample.Options{})
	source, target := startDistribution(t, gate{}), startDistribution(t, gate{})
	c.stock(t, source, nil)
	x := newTrip(t, c, source.host, target)
	x.user.must(t, skopeo, "copy", "--all", "--insecure-policy", "--dest-tls-verify=false", "oci-archive:"+made(t, "_image.tar"), "docker://"+source.host+"/tools/pannier:"+distVersion)
	x.user.pannier(t, 0, append(x.packArgs(), "--additional-image", source.host+"/tools/pannier:"+distVersion)...)
	x.unpack(t, 0)
	x.arrived(t)
	x.user.must(t, skopeo, "copy", "--insecure-policy", "--src-tls-verify=false", "docker://"+target.host+"/tools/pannier:"+distVersion, "dir:image")

	var manifest struct{ Layers []struct{ Digest string } }
	data, err := os.ReadFile(filepath.Join(x.user.home, "image/manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &manifest); err != nil || len(manifest.Layers) != 1 {
		t.Fatalf("%s: %v", data, err)
	}
	root := t.TempDir()
	x.user.must(t, tar, "-xzf", filepath.Join("image", strings.TrimPrefix(manifest.Layers[0].Digest, "sha256:")), "-C", root)
	if out := x.user.must(t, filepath.Join(root, "usr/bin/pannier"), "version"); !strings.HasPrefix(string(out), "pannier "+distVersion) {
		t.Errorf("%s", out)
	}
}
