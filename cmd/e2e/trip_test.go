//go:build e2e && linux

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pannier/bundle/release"
	"pannier/bundle/release/sample"
)

const destination = "ocp4/openshift4"

// trip is one release on its way: from a registry, by a folder, into another registry.
type trip struct {
	*cargo
	user   *user
	source string // host to fetch from instead of quay.io
	media  string
	target *distribution
	read   []string // flags that reach the source
	push   []string // flags that reach the target
	look   []string // flags by which skopeo reaches the target
}

func newTrip(t *testing.T, c *cargo, source string, target *distribution) *trip {
	t.Helper()
	x := &trip{cargo: c, user: newUser(t), source: source, target: target, media: filepath.Join(t.TempDir(), "mirror")}
	if target.ca == "" {
		x.look = []string{"--tls-verify=false"}
	} else {
		x.push = []string{"--certificate-authority", target.ca}
		dir := t.TempDir()
		ca, err := os.ReadFile(target.ca)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "ca.crt"), ca)
		x.look = []string{"--cert-dir", dir}
	}
	return x
}

func (x *trip) to() string { return x.target.host + "/" + destination }

func (x *trip) packArgs() []string {
	return slices.Concat([]string{"pack", x.Version, x.media, "--registry-mirror", quay + "=" + x.source,
		"--signature-store", x.store, "--keyring", x.keyring, "--additional-image", quay + "/" + extraPath + ":v1", "-v"}, x.read)
}

func (x *trip) pack(t *testing.T, code int) outcome {
	t.Helper()
	return x.user.pannier(t, code, x.packArgs()...)
}

func (x *trip) unpack(t *testing.T, code int, flags ...string) outcome {
	t.Helper()
	return x.user.pannier(t, code, slices.Concat([]string{"unpack", x.media, x.to(), "--keyring", x.keyring, "-v"}, x.push, flags)...)
}

// whole audits the drive: complete, nothing found, and the checksums that any system can
// check say so too.
func (x *trip) whole(t *testing.T) {
	t.Helper()
	var report struct {
		Status   string
		Blobs    struct{ Count, Partial int }
		Releases []struct {
			Version, Digest, Signature string
			Images                     int
		}
		Findings []json.RawMessage
	}
	o := x.user.pannier(t, 0, "audit", x.media, "-o", "json", "--keyring", x.keyring)
	if err := json.Unmarshal(o.stdout, &report); err != nil {
		t.Fatalf("audit: %v\n%v", err, o)
	}
	if report.Status != "complete" || len(report.Findings) > 0 || len(report.Releases) != 1 || report.Blobs.Partial != 0 {
		t.Fatalf("audit: %s", o.stdout)
	}
	if r := report.Releases[0]; r.Digest != x.Descriptor.Digest.String() || r.Signature != "verified" || r.Images != len(x.Components) {
		t.Errorf("audit of the release: %+v", r)
	}
	// What the index and its documents add is not counted in the cargo: at least all of it is there.
	if n := len(x.Digests()); report.Blobs.Count < n {
		t.Errorf("the drive has %d blobs, the cargo %d", report.Blobs.Count, n)
	}
	sums := x.user.command(t.Context(), need(t, "sha256sum", "coreutils"), "--quiet", "-c", "SHA256SUMS")
	sums.Dir = x.media
	if out, err := sums.CombinedOutput(); err != nil {
		t.Errorf("sha256sum -c SHA256SUMS: %v\n%s", err, out)
	}
}

// readable asks two programs that know nothing of pannier for the manifests on the drive, by
// the tags that oc writes.
func (x *trip) readable(t *testing.T) {
	t.Helper()
	oras := need(t, "oras", "make readers")
	regctl := need(t, "regctl", "make readers")
	want := map[string]string{x.tag: x.Descriptor.Digest.String()}
	for _, c := range x.Components {
		want[release.ComponentTag(x.Version, x.Arch, c.Name)] = c.Digest.String()
	}
	for tag, digest := range want {
		readers := map[string][]string{
			oras:   {"manifest", "fetch", "--oci-layout", x.media + ":" + tag},
			regctl: {"manifest", "get", "--format", "raw-body", "ocidir://" + x.media + ":" + tag},
		}
		for reader, args := range readers {
			if raw := x.user.must(t, reader, args...); digestOf(raw) != digest {
				t.Errorf("%s %s: got %s, want %s", filepath.Base(reader), strings.Join(args, " "), digestOf(raw), digest)
			}
		}
	}
}

// arrived asks skopeo for what should be at the target: manifests by tag and digest, byte
// for byte, and the blobs of some images.
func (x *trip) arrived(t *testing.T) {
	t.Helper()
	skopeo := need(t, "skopeo", "apt-get install skopeo")
	want := map[string]string{
		destination + ":" + x.tag:                           x.Descriptor.Digest.String(),
		destination + "@" + x.Descriptor.Digest.String():    x.Descriptor.Digest.String(),
		destination + "@" + x.Components[1].Digest.String(): x.Components[1].Digest.String(),
		extraPath + ":v1":                                   x.extra.Digest.String(),
		extraPath + "@" + x.extra.Digest.String():           x.extra.Digest.String(),
	}
	for _, c := range x.Components {
		want[destination+":"+release.ComponentTag(x.Version, x.Arch, c.Name)] = c.Digest.String()
	}
	for subject, desc := range x.sigs {
		want[destination+":"+release.SigstoreTag(subject)] = desc.Digest.String()
	}
	for reference, digest := range want {
		args := slices.Concat([]string{"inspect", "--raw"}, x.look, []string{"docker://" + x.target.host + "/" + reference})
		o := x.user.run(t, skopeo, args...)
		if o.code != 0 {
			t.Errorf("%s did not arrive: %s", reference, o.stderr)
		} else if digestOf(o.stdout) != digest {
			t.Errorf("%s arrived as %s, want %s", reference, digestOf(o.stdout), digest)
		}
	}
	var look []string
	for _, flag := range x.look {
		look = append(look, strings.Replace(flag, "--", "--src-", 1))
	}
	for i, reference := range []string{destination + ":" + x.tag, extraPath + ":v1", destination + "@" + x.Components[0].Digest.String()} {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
		x.user.must(t, skopeo, slices.Concat([]string{"copy", "--all", "--insecure-policy"}, unauth(look), []string{"docker://" + x.target.host + "/" + reference, "dir:" + dir})...)
	}
}

// unauth keeps skopeo's --authfile as it is: unlike its neighbours it has one name on both
// sides.
func unauth(flags []string) []string {
	out := slices.Clone(flags)
	for i, f := range out {
		out[i] = strings.Replace(f, "--src-authfile", "--authfile", 1)
	}
	return out
}

// rendered looks at what unpack writes for the cluster.
func (x *trip) rendered(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, data...)
		}
	}
	for _, want := range []string{x.to(), quay + "/" + releasePath, quay + "/" + componentsPath,
		"openshift-config-managed", "sha256-" + x.Descriptor.Digest.Encoded()} {
		if !bytes.Contains(all, []byte(want)) {
			t.Errorf("the cluster objects do not name %s; files: %v", want, files)
		}
	}
}

func TestTripForAnybody(t *testing.T) {
	c := newCargo(t, sample.Options{})
	source, target := startDistribution(t, gate{}), startDistribution(t, gate{})
	c.stock(t, source, nil)
	f := startFront(t, source, 0, 0)
	x := newTrip(t, c, f.host, target)

	x.pack(t, 0)
	x.whole(t)
	before := snapshot(t, x.media)
	x.readable(t)
	unchanged(t, x.media, before)

	served := f.count()
	x.pack(t, 0)
	if n := f.count() - served; n != 0 {
		t.Errorf("packing again fetched %d blobs", n)
	}
	unchanged(t, x.media, before)

	x.unpack(t, 0, "--dry-run")
	if o := x.user.run(t, need(t, "skopeo", "apt-get install skopeo"), "inspect", "--raw", "--tls-verify=false", "docker://"+x.to()+":"+x.tag); o.code == 0 {
		t.Errorf("a dry run pushed")
	}
	objects := filepath.Join(t.TempDir(), "objects")
	o := x.unpack(t, 0, "--objects-dir", objects)
	unchanged(t, x.media, before)
	x.arrived(t)
	x.rendered(t, objects)
	if upgrade := "oc adm upgrade --allow-explicit-upgrade --to-image " + x.to() + "@" + x.Descriptor.Digest.String(); !strings.Contains(string(o.stdout)+o.stderr, upgrade) {
		t.Errorf("unpack does not print %q: %v", upgrade, o)
	}

	t.Run("again, write-protected", func(t *testing.T) {
		y := *x
		y.media = readOnly(t, x.media)
		y.target = startDistribution(t, gate{})
		y.whole(t)
		y.user.pannier(t, 0, "inspect", y.media)
		y.unpack(t, 0)
		y.arrived(t)
		y.unpack(t, 0, "--check-all")
		unchanged(t, x.media, before)
		if o := y.user.run(t, mustProgram(t), append(y.packArgs(), "--additional-image", quay+"/"+releasePath+":"+y.tag)...); o.code != 6 {
			t.Errorf("packing onto a write-protected drive: want exit 6, got %v", o)
		}
		unchanged(t, x.media, before)
	})
}

func TestTripWithPasswords(t *testing.T) {
	const alice, carol = "correct-horse:alice", "battery-staple-carol"
	c := newCargo(t, sample.Options{Compression: "zstd", OCI: true})
	source := startDistribution(t, gate{htpasswd: map[string]string{"alice": alice}})
	target := startDistribution(t, gate{htpasswd: map[string]string{"carol": carol}, tls: true})
	c.stock(t, source, func(r *http.Request, _ string) { r.SetBasicAuth("alice", alice) })
	x := newTrip(t, c, source.host, target)

	x.read = []string{"-a", authFile(t, map[string]string{source.host: "alice:wrong-password"})}
	o := x.pack(t, 5)
	if !strings.Contains(o.stderr, source.host) {
		t.Errorf("the refusal does not name the host: %v", o)
	}
	if blobs, _ := filepath.Glob(filepath.Join(x.media, "blobs/sha256/*")); len(blobs) > 0 {
		t.Errorf("refused, and yet there are blobs: %v", blobs)
	}
	x.read = []string{"-a", authFile(t, map[string]string{source.host: "alice:" + alice})}
	o = x.pack(t, 0)
	x.whole(t)

	x.unpack(t, 5)
	x.push = append(x.push, "-a", authFile(t, map[string]string{target.host + "/ocp4": "carol:" + carol, target.host + "/extra": "carol:" + carol}))
	x.look = append(x.look, "--authfile", x.push[len(x.push)-1])
	p := x.unpack(t, 0)
	x.arrived(t)
	noSecrets(t, x.media, []outcome{o, p}, alice, carol)
}

func TestTripWithTokens(t *testing.T) {
	const alice, bob, carol, dave = "correct-horse-alice", "correct-horse-bob", "battery-staple-carol", "battery-staple-dave"
	c := newCargo(t, sample.Options{})
	// Nobody may read both repositories of a release, and no token lives long enough.
	read := startTokenServer(t, time.Second, map[string]tokenUser{
		"alice": {alice, map[string]string{releasePath: "pull", extraPath: "pull"}},
		"bob":   {bob, map[string]string{componentsPath: "pull"}},
	})
	push := startTokenServer(t, time.Second, map[string]tokenUser{
		"carol": {carol, map[string]string{destination: "pull,push"}},
		"dave":  {dave, map[string]string{extraPath: "pull,push"}},
	})
	source, target := startDistribution(t, gate{tokens: read}), startDistribution(t, gate{tokens: push})
	c.stock(t, source, read.login)
	f := startFront(t, source, 250*time.Millisecond, 2)
	x := newTrip(t, c, f.host, target)
	x.read = []string{"-a", authFile(t, map[string]string{
		f.host: "nobody:nothing", f.host + "/openshift-release-dev": "bob:" + bob, f.host + "/" + releasePath: "alice:" + alice, f.host + "/extra": "alice:" + alice})}
	x.push = []string{"-a", authFile(t, map[string]string{target.host + "/" + destination: "carol:" + carol, target.host + "/" + extraPath: "dave:" + dave})}
	x.look = append(x.look, "--authfile", x.push[1])

	o := x.pack(t, 0)
	x.whole(t)
	f.mu.Lock()
	defer f.mu.Unlock()
	t.Logf("%d blobs, %d redirects, %d continued, %d broken off, %d tokens refused; alice %d tokens, bob %d",
		f.served, f.redirects, f.ranges, f.cuts, f.refused, read.count("alice"), read.count("bob"))
	if len(f.forwarded) > 0 {
		t.Errorf("Authorization arrived at the host of the blobs: %v", f.forwarded)
	}
	if f.redirects == 0 || f.served == 0 {
		t.Errorf("no blob came by way of the other host")
	}
	if f.cuts != f.cut || f.ranges < f.cuts {
		t.Errorf("%d bodies broke off, %d were continued in the middle", f.cuts, f.ranges)
	}
	if f.refused == 0 || read.count("bob") < 2 {
		t.Errorf("no token ran out on the way: %d were refused, bob got %d", f.refused, read.count("bob"))
	}

	before := snapshot(t, x.media)
	p := x.unpack(t, 0)
	unchanged(t, x.media, before)
	x.arrived(t)
	noSecrets(t, x.media, []outcome{o, p}, alice, bob, carol, dave, "eyJ")
}

// killed packs and is killed once so many blobs more have been asked for at f, the source.
func (x *trip) killed(t *testing.T, f *front, moment int) {
	t.Helper()
	start := f.count()
	cmd := x.user.command(t.Context(), mustProgram(t), x.packArgs()...)
	var log lockedBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); f.count()-start < moment; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("pack fetched %d blobs in a minute, not %d\n%s", f.count()-start, moment, &log)
		}
	}
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Wait()
}

// Whoever pulls the plug finds an incomplete drive, and the same command continues.
func TestTripCutShort(t *testing.T) {
	c := newCargo(t, sample.Options{LargeLayers: 4})
	source, target := startDistribution(t, gate{}), startDistribution(t, gate{})
	c.stock(t, source, nil)
	f := startFront(t, source, 150*time.Millisecond, 0)
	x := newTrip(t, c, f.host, target)

	exe := mustProgram(t)
	for _, moment := range []int{1, 7, 15} {
		x.killed(t, f, moment)
		o := x.user.run(t, exe, "audit", x.media, "--keyring", x.keyring)
		// Early enough there is not even a layout.
		if _, err := os.Stat(filepath.Join(x.media, "oci-layout")); err == nil && o.code != 3 {
			t.Fatalf("audit after %d blobs: want exit 3, got %v", moment, o)
		}
	}
	x.unpack(t, 3)
	x.pack(t, 0)
	x.whole(t)
	x.unpack(t, 0)
	x.arrived(t)
}

func mustProgram(t *testing.T) string {
	t.Helper()
	exe, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// noSecrets looks for passwords and tokens on the drive and in what was said.
func noSecrets(t *testing.T, media string, said []outcome, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		for _, o := range said {
			if strings.Contains(string(o.stdout)+o.stderr, secret) {
				t.Errorf("%q was printed: %v", secret, o)
			}
		}
		err := filepath.WalkDir(media, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(secret)) && !strings.Contains(path, "blobs") {
				t.Errorf("%q is on the drive, in %s", secret, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
