//go:build e2e && linux

package e2e_test

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
)

// served is a drive that is being served by the program.
type served struct {
	host string
	stop func() outcome // interrupts it; what came of it
}

// serve starts the program, and waits until it answers.
func (u *user) serve(t *testing.T, args ...string) *served {
	t.Helper()
	exe, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := u.command(t.Context(), exe, slices.Concat([]string{"serve", "--listen", "127.0.0.1:0"}, args)...)
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cmd.Wait()
		t.Fatalf("serve did not begin: %v\n%s", err, stderr.String())
	}
	return &served{host: strings.TrimSpace(line), stop: func() outcome {
		t.Helper()
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
		defer timer.Stop()
		cmd.Wait()
		return outcome{code: cmd.ProcessState.ExitCode(), stderr: stderr.String()}
	}}
}

// What a node does, skopeo does here: every image by its digest, from a drive that is
// write-protected, under the names that the release has for them.
func TestServeToSkopeo(t *testing.T) {
	skopeo := need(t, "skopeo", "apt-get install skopeo")
	c := newCargo(t, sample.Options{})
	source := startDistribution(t, gate{})
	c.stock(t, source, nil)
	x := newTrip(t, c, source.host, startDistribution(t, gate{}))
	x.pack(t, 0)
	before := snapshot(t, x.media)
	saved := filepath.Join(t.TempDir(), "ca.crt")
	s := x.user.serve(t, readOnly(t, x.media), "--keyring", x.keyring, "--repository", destination, "--tls", "--tls-save", saved)

	pull := func(reference, digest string) {
		t.Helper()
		dir := t.TempDir()
		x.user.must(t, skopeo, "copy", "--all", "--preserve-digests", "--insecure-policy", "--src-cert-dir", filepath.Dir(saved),
			"docker://"+s.host+"/"+reference, "dir:"+dir)
		if raw, err := os.ReadFile(filepath.Join(dir, "manifest.json")); err != nil || digestOf(raw) != digest {
			t.Errorf("%s: %v, got %s", reference, err, digestOf(raw))
		}
	}
	for _, i := range x.Images {
		path := strings.TrimPrefix(i.Repository, quay+"/")
		d := i.Descriptor.Digest.String()
		pull(path+"@"+d, d)
		pull(destination+"@"+d, d)
	}
	pull(releasePath+":"+x.tag, x.Descriptor.Digest.String())
	pull(destination+":"+release.ComponentTag(x.Version, x.Arch, x.Components[1].Name), x.Components[1].Digest.String())
	pull(extraPath+":v1", x.extra.Digest.String())
	if o := s.stop(); o.code != 0 || !strings.Contains(o.stderr, "skopeo/") {
		t.Error(o)
	}
	unchanged(t, x.media, before)
}

// The conformance suite of the distribution-spec has nothing against it.
func TestServeConforms(t *testing.T) {
	conformance := need(t, "conformance", "make readers")
	c := newCargo(t, sample.Options{})
	source := startDistribution(t, gate{})
	c.stock(t, source, nil)
	x := newTrip(t, c, source.host, startDistribution(t, gate{}))
	x.pack(t, 0)
	s := x.user.serve(t, x.media, "--keyring", x.keyring)

	m, err := content.ParseManifest(x.Descriptor.MediaType, c.bytes(t, x.Descriptor.Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	var blobs []string
	for _, d := range m.Children() {
		blobs = append(blobs, d.Digest.String())
	}
	x.user.env = []string{
		"OCI_REGISTRY=" + s.host, "OCI_TLS=disabled", "OCI_REPO1=" + releasePath, "OCI_REPO2=" + componentsPath, "OCI_VERSION=1.1",
		"OCI_API_PUSH=false", "OCI_API_BLOBS_ATOMIC=false", "OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_ATOMIC=false", "OCI_API_MANIFESTS_DELETE=false",
		"OCI_API_TAGS_ATOMIC=false", "OCI_API_TAGS_DELETE=false",
		"OCI_RO_DATA_TAGS=" + x.tag, "OCI_RO_DATA_MANIFESTS=" + x.Descriptor.Digest.String(), "OCI_RO_DATA_BLOBS=" + strings.Join(blobs, " "),
		"OCI_RO_DATA_REFERRERS=" + x.Descriptor.Digest.String(),
	}
	// Its exit code is not asked: this version of it falls over its own report, with nothing to
	// push, after it has said how it ended.
	o := x.user.run(t, conformance)
	x.user.env = nil
	_, result, _ := bytes.Cut(o.stdout, []byte("OCI Conformance Result: "))
	if !bytes.HasPrefix(result, []byte("Pass\n")) {
		t.Fatal(o)
	}
	for _, line := range strings.Split(string(result), "\n") {
		name, count, _ := strings.Cut(strings.TrimSpace(line), "...")
		count = strings.Trim(count, ".: ")
		switch name {
		case "FAIL", "Error", "Skip":
			if count != "0" {
				t.Error(line)
			}
		case "Tag listing", "Blob get", "Blob head", "Manifest get by digest", "Manifest get by tag", "Manifest head by digest", "Manifest head by tag", "Referrers", "Ping":
			if count != "Pass" {
				t.Error(line)
			}
		}
	}
	if o := s.stop(); o.code != 0 {
		t.Error(o)
	}
}
