//go:build e2e && linux

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pannier/bundle/release/sample"
)

// The whole trip on the file systems that drives really have. Between the steps the drive is
// pulled and put back, the last time with its switch on write protection. Then another pack is
// killed on its way.
func TestDrives(t *testing.T) {
	c := newCargo(t, sample.Options{})
	source := startDistribution(t, gate{})
	c.stock(t, source, nil)
	for _, fsys := range fileSystems {
		t.Run(fsys.name, func(t *testing.T) {
			d := fsys.insert(t, 320<<20) // the least that XFS takes
			x := newTrip(t, c, source.host, startDistribution(t, gate{}))
			x.media = d.media()
			x.packOnto(t, d)
			x.whole(t)

			d.eject(t)
			fsys.fsck(t, d.image)
			d.attach(t, "")
			x.pack(t, 0)
			x.readable(t)

			d.eject(t)
			d.attach(t, "ro")
			if err := os.WriteFile(filepath.Join(d.dir, "x"), nil, 0o644); err == nil {
				t.Fatal("the drive is not write-protected")
			}
			before := snapshot(t, x.media)
			x.whole(t)
			x.unpack(t, 0)
			x.arrived(t)
			unchanged(t, x.media, before)

			// Another one, whose pack is killed: the same command goes on.
			if d.frail != "" {
				t.Logf("no pack is killed on this driver: %s", d.frail)
				return
			}
			d.eject(t)
			d.attach(t, "")
			slow := startFront(t, source, 50*time.Millisecond, 0)
			y := newTrip(t, c, slow.host, x.target)
			y.media = filepath.Join(d.dir, "killed")
			y.killed(t, slow, 9)
			y.source = source.host
			y.pack(t, 0)
			d.eject(t)
			fsys.fsck(t, d.image)
			d.attach(t, "ro")
			y.whole(t)
		})
	}
}

// packOnto packs. A frail driver may give other bytes back than it was given: pack must find
// that before it seals, and the same command, told to read everything, must heal it.
func (x *trip) packOnto(t *testing.T, d *drive) {
	t.Helper()
	exe, err := program()
	if err != nil {
		t.Fatal(err)
	}
	o := x.user.run(t, exe, x.packArgs()...)
	for range 3 {
		if d.frail == "" || o.code != 4 || !strings.Contains(o.stderr, "read back: blob ") {
			break
		}
		t.Logf("the driver has lost bytes, and pack has found it: %v", o)
		o = x.user.run(t, exe, append(x.packArgs(), "--verify")...)
	}
	if o.code != 0 {
		t.Fatal(o)
	}
}

// A drive that is too small is refused before the first byte.
func TestDriveTooSmall(t *testing.T) {
	c := newCargo(t, sample.Options{LargeLayer: 6 << 20, LargeLayers: 4})
	source := startDistribution(t, gate{})
	c.stock(t, source, nil)
	f := startFront(t, source, 0, 0)
	d := fileSystems[0].insert(t, 16<<20)
	x := newTrip(t, c, f.host, source)
	x.media = d.media()
	o := x.pack(t, 6)
	// The layers of the release image are read to know what belongs to it.
	if blobs, _ := filepath.Glob(filepath.Join(x.media, "blobs/sha256/*")); len(blobs) > 0 {
		t.Errorf("refused, and yet there are blobs on the drive: %v\n%v", blobs, o)
	}
	if n := f.count(); n > 8 {
		t.Errorf("%d blobs were fetched before the drive was found too small", n)
	}
}

// fsck lets the file system's own checker look at what pannier left there.
func (fsys fileSystem) fsck(t *testing.T, image string) {
	t.Helper()
	if fsys.check == nil {
		return
	}
	exe := need(t, fsys.check[0], "apt-get install "+fsys.pkg)
	if out, err := exec.Command(exe, append(slices.Clone(fsys.check[1:]), image)...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(fsys.check, " "), err, out)
	}
}
