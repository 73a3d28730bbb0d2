//go:build e2e && linux

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/release/sample"
)

func (x *trip) mirrorArgs(flags ...string) []string {
	return slices.Concat([]string{"mirror", x.Version, x.to(), "--registry-mirror", quay + "=" + x.source,
		"--signature-store", x.store, "--keyring", x.keyring, "--additional-image", quay + "/" + extraPath + ":v1", "-v"}, x.read, x.push, flags)
}

// nodeConf writes what the machine config operator makes of the mirror sets in dir: how a node
// finds images that are named by a digest at their source.
func (x *trip) nodeConf(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var conf strings.Builder
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, mirrors, err := objects.ParseMirrorSet(raw)
		if err != nil || kind == objects.ITMS {
			continue
		}
		for _, m := range mirrors {
			fmt.Fprintf(&conf, "[[registry]]\nlocation = %q\n", m.Source)
			for _, to := range m.Mirrors {
				fmt.Fprintf(&conf, "[[registry.mirror]]\nlocation = %q\ninsecure = true\npull-from-mirror = \"digest-only\"\n", to)
			}
		}
	}
	if conf.Len() == 0 {
		t.Fatalf("no mirror set among %v", files)
	}
	name := filepath.Join(t.TempDir(), "registries.conf")
	write(t, name, []byte(conf.String()))
	return name
}

// pulledByNodes has skopeo pull every image of the release by its name at the source, with
// nothing but the mirror sets to find it.
func (x *trip) pulledByNodes(t *testing.T, dir string) {
	t.Helper()
	skopeo := need(t, "skopeo", "apt-get install skopeo")
	conf := x.nodeConf(t, dir)
	images := []string{quay + "/" + releasePath + "@" + x.Descriptor.Digest.String()}
	for _, c := range x.Components {
		images = append(images, c.Repository+"@"+c.Digest.String())
	}
	for i, image := range images {
		x.user.must(t, skopeo, "--registries-conf", conf, "--insecure-policy", "copy", "--all", "docker://"+image, "dir:"+filepath.Join(t.TempDir(), fmt.Sprint(i)))
	}
}

// beforehand counts the blobs that are read before it is known what is lacking: those of the
// release image and of signatures.
func (x *trip) beforehand(t *testing.T) int {
	t.Helper()
	seen := map[string]bool{}
	for _, p := range x.Images {
		if p.Descriptor.Digest != x.Descriptor.Digest && !strings.HasSuffix(p.Tag, ".sig") {
			continue
		}
		err := x.Walk(p.Descriptor, func(d ocispec.Descriptor) error {
			if !content.IsManifest(d.MediaType) {
				seen[d.Digest.String()] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return len(seen)
}

// From one registry to another, cut off in the middle and killed, and then everything is there
// for nodes, and nothing is transferred again.
func TestMirror(t *testing.T) {
	c := newCargo(t, sample.Options{LargeLayers: 2})
	source, target := startDistribution(t, gate{}), startDistribution(t, gate{})
	c.stock(t, source, nil)
	f := startFront(t, source, 150*time.Millisecond, 2)
	x := newTrip(t, c, f.host, target)
	skopeo := need(t, "skopeo", "apt-get install skopeo")

	x.user.pannier(t, 0, x.mirrorArgs("--dry-run")...)
	if o := x.user.run(t, skopeo, "inspect", "--raw", "--tls-verify=false", "docker://"+x.to()+":"+x.tag); o.code == 0 {
		t.Errorf("a dry run pushed")
	}

	start := f.count()
	cmd := x.user.command(t.Context(), mustProgram(t), x.mirrorArgs()...)
	var log lockedBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); f.count()-start < x.beforehand(t)+6; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("mirror fetched %d blobs in a minute\n%s", f.count()-start, &log)
		}
	}
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Wait()
	if o := x.user.run(t, skopeo, "inspect", "--raw", "--tls-verify=false", "docker://"+x.to()+":"+x.tag); o.code == 0 {
		t.Errorf("the release had its tag before it was whole")
	}

	dir := filepath.Join(t.TempDir(), "objects")
	o := x.user.pannier(t, 0, x.mirrorArgs("--objects-dir", dir)...)
	x.arrived(t)
	x.rendered(t, dir)
	x.pulledByNodes(t, dir)
	if upgrade := "oc adm upgrade --allow-explicit-upgrade --to-image " + x.to() + "@" + x.Descriptor.Digest.String(); !strings.Contains(o.stderr, upgrade) {
		t.Errorf("mirror does not print %q: %v", upgrade, o)
	}

	served := f.count()
	x.user.pannier(t, 0, x.mirrorArgs()...)
	if n := f.count() - served; n > x.beforehand(t) {
		t.Errorf("mirroring again fetched %d blobs, and %d are read to see what there is", n, x.beforehand(t))
	}

	// A repository for each component beside, for which nothing is sent.
	served = f.count()
	x.user.pannier(t, 0, x.mirrorArgs("--repo-per-component", "--objects-dir", dir)...)
	if n := f.count() - served; n > x.beforehand(t) {
		t.Errorf("%d blobs were fetched for other repositories of the same registry", n)
	}
	for _, comp := range x.Components {
		raw := x.user.must(t, skopeo, "inspect", "--raw", "--tls-verify=false", "docker://"+x.to()+"/"+comp.Name+":"+x.tag)
		if digestOf(raw) != comp.Digest.String() {
			t.Errorf("%s is %s", comp.Name, digestOf(raw))
		}
	}
	x.pulledByNodes(t, dir)

	// One registry as source and destination: it takes the blobs over by itself.
	c.stock(t, target, nil)
	y := *x
	y.source = target.host
	args := y.mirrorArgs()
	args[2] = target.host + "/second/place"
	o = y.user.pannier(t, 0, args...)
	if !regexp.MustCompile(`mounted +[1-9]`).MatchString(o.stderr) || !regexp.MustCompile(`pushed +0 blobs`).MatchString(o.stderr) {
		t.Errorf("blobs were sent to the registry that they come from: %v", o)
	}
}
