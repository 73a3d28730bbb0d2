//go:build e2e && linux

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"pannier/bundle/release/sample"
)

// A bundle that was burnt onto a disc, or squashed, is audited and unpacked as it is.
func TestImages(t *testing.T) {
	c := newCargo(t, sample.Options{})
	source := startDistribution(t, gate{})
	c.stock(t, source, nil)
	x := newTrip(t, c, source.host, source)
	x.pack(t, 0)
	for _, image := range []struct {
		name, pkg, kernel string
		make              []string // then the folder and the image, in the order that the tool wants
		fuse              string   // driver where the kernel has none
		pkgFUSE           string
	}{
		{"iso9660", "genisoimage", "iso9660", []string{"genisoimage", "-quiet", "-R", "-J", "-joliet-long", "-o"}, "fuseiso", "fuseiso"},
		{"squashfs", "squashfs-tools", "squashfs", []string{"mksquashfs"}, "squashfuse", "squashfuse"},
	} {
		t.Run(image.name, func(t *testing.T) {
			mounts(t)
			file, at := filepath.Join(t.TempDir(), "image"), t.TempDir()
			args := []string{file, filepath.Dir(x.media)}
			if image.name == "squashfs" {
				args = []string{filepath.Dir(x.media), file, "-quiet", "-no-progress"}
			}
			if out, err := exec.Command(need(t, image.make[0], "apt-get install "+image.pkg), append(image.make[1:], args...)...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", image.make[0], err, out)
			}
			mountImage(t, file, at, image.kernel, image.fuse, image.pkgFUSE)
			y := newTrip(t, c, source.host, startDistribution(t, gate{}))
			y.media = filepath.Join(at, filepath.Base(x.media))
			y.whole(t)
			y.unpack(t, 0)
			y.arrived(t)
		})
	}
}

// mountImage mounts an image that cannot be written to.
func mountImage(t *testing.T, file, at, kernel, fuse, pkg string) {
	t.Helper()
	device := loopDevice(t, file)
	err := syscall.Mount(device, at, kernel, syscall.MS_RDONLY, "")
	if err == nil {
		t.Cleanup(func() {
			unmount(t, at)
			exec.Command(need(t, "losetup", "apt-get install mount"), "-d", device).Run()
		})
		return
	}
	exec.Command(need(t, "losetup", "apt-get install mount"), "-d", device).Run()
	if _, serr := os.Stat("/dev/fuse"); serr != nil {
		fmt.Fprintf(os.Stderr, "*** %s SKIPPED: the kernel has no %s (%v) and no /dev/fuse\n", t.Name(), kernel, err)
		t.Skipf("the kernel has no %s and no /dev/fuse", kernel)
	}
	if out, err := exec.Command(need(t, fuse, "apt-get install "+pkg), file, at).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", fuse, err, out)
	}
	t.Logf("%s: %s, since the kernel has none", kernel, fuse)
	t.Cleanup(func() { unmount(t, at) })
}
