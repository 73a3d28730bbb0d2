//go:build e2e && linux

package e2e_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// drive is a directory where a drive would be mounted. Bundles lie in a folder of it.
type drive struct {
	dir    string
	image  string // file that holds the file system, "" for a plain folder
	attach func(t *testing.T, options string)
	detach func(t *testing.T)
	frail  string // what the driver that it was mounted with does not do well; "" is nothing
}

func (d *drive) media() string { return filepath.Join(d.dir, "mirror") }

// snapshot is everything that a visitor could change in a tree: names, modes, sizes, times
// of change, contents.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		entry := fmt.Sprintf("%v %v", info.Mode(), info.ModTime().UnixNano())
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			entry += fmt.Sprintf(" %d %s", len(data), digestOf(data))
		}
		tree[path] = entry
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// unchanged compares a tree with what it was.
func unchanged(t *testing.T, dir string, before map[string]string) {
	t.Helper()
	after := snapshot(t, dir)
	for _, path := range slices.Sorted(maps.Keys(before)) {
		switch now, ok := after[path]; {
		case !ok:
			t.Errorf("the drive was touched: %s is gone", path)
		case now != before[path]:
			t.Errorf("the drive was touched: %s was %s, is %s", path, before[path], now)
		}
		delete(after, path)
	}
	for path := range after {
		t.Errorf("the drive was touched: %s is new", path)
	}
}

// mounts says whether this process may mount; where it may not, that is the machine's
// choice, and no package that CI could install would change it.
func mounts(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		fmt.Fprintf(os.Stderr, "*** %s SKIPPED: this machine does not let us mount: %v\n", t.Name(), err)
		t.Skipf("this machine does not let us mount: %v", err)
	}
	syscall.Unmount(dir, 0)
}

// readOnly shows dir at another place, write-protected as a drive with its switch set.
func readOnly(t *testing.T, dir string) string {
	t.Helper()
	mounts(t)
	at := t.TempDir()
	if err := syscall.Mount(dir, at, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(at, syscall.MNT_DETACH) })
	if err := syscall.Mount("", at, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "x"), nil, 0o644); err == nil {
		t.Fatal("the write protection does not protect")
	}
	return at
}

// fileSystem is one kind of drive. Where the kernel does not know it, a FUSE driver that
// people really use stands in.
type fileSystem struct {
	name   string
	mkfs   []string
	pkg    string // Debian package of mkfs and driver
	kernel string // type for mount
	fuse   []string
	fuseRO []string // the same, read-only
	loop   bool     // the FUSE driver wants a block device
	check  []string // looks for damage without repairing it
	frail  string   // what the FUSE driver does not do well
}

var fileSystems = []fileSystem{
	{name: "ext4", mkfs: []string{"mkfs.ext4", "-q", "-F"}, pkg: "e2fsprogs", kernel: "ext4", check: []string{"fsck.ext4", "-f", "-n"}},
	{name: "xfs", mkfs: []string{"mkfs.xfs", "-q", "-f"}, pkg: "xfsprogs", kernel: "xfs", check: []string{"xfs_repair", "-n"}},
	{name: "exfat", mkfs: []string{"mkfs.exfat"}, pkg: "exfatprogs exfat-fuse", kernel: "exfat",
		fuse: []string{"mount.exfat-fuse"}, fuseRO: []string{"mount.exfat-fuse", "-o", "ro"}, loop: true, check: []string{"fsck.exfat", "-n"}},
	{name: "vfat", mkfs: []string{"mkfs.vfat", "-F", "32"}, pkg: "dosfstools fusefat", kernel: "vfat",
		fuse: []string{"fusefat", "-s", "-o", "rw+"}, fuseRO: []string{"fusefat", "-s", "-o", "ro"}, check: []string{"fsck.vfat", "-n"},
		frail: "now and then it returns the end of a file wrong; when a process is killed that had files open, its two FATs differ, and it may refuse writes from then on"},
	{name: "ntfs", mkfs: []string{"mkntfs", "-Q", "-q", "-F"}, pkg: "ntfs-3g", kernel: "ntfs3",
		fuse: []string{"ntfs-3g"}, fuseRO: []string{"ntfs-3g", "-o", "ro"}, loop: true},
}

// insert makes a fresh drive of this kind and mounts it.
func (fsys fileSystem) insert(t *testing.T, size int64) *drive {
	t.Helper()
	mounts(t)
	dir := t.TempDir()
	d := &drive{dir: filepath.Join(dir, "drive"), image: filepath.Join(dir, "image")}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, d.image, nil)
	if err := os.Truncate(d.image, size); err != nil {
		t.Fatal(err)
	}
	mkfs := need(t, fsys.mkfs[0], "apt-get install "+fsys.pkg)
	if out, err := exec.Command(mkfs, append(slices.Clone(fsys.mkfs[1:]), d.image)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", fsys.mkfs[0], err, out)
	}
	d.attach = func(t *testing.T, options string) { t.Helper(); fsys.mount(t, d, options) }
	d.attach(t, "")
	t.Cleanup(func() { d.eject(t) })
	return d
}

func (fsys fileSystem) mount(t *testing.T, d *drive, options string) {
	t.Helper()
	device := loopDevice(t, d.image)
	release := func() { exec.Command(need(t, "losetup", "apt-get install mount"), "-d", device).Run() }
	flags := uintptr(0)
	if options == "ro" {
		flags = syscall.MS_RDONLY
	}
	kernel := syscall.Mount(device, d.dir, fsys.kernel, flags, "")
	if kernel == nil {
		t.Logf("%s: the kernel's driver", fsys.name)
		d.detach = func(t *testing.T) { t.Helper(); unmount(t, d.dir); release() }
		return
	}
	if fsys.fuse == nil {
		release()
		t.Fatalf("mount %s: %v", fsys.name, kernel)
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		release()
		fmt.Fprintf(os.Stderr, "*** %s SKIPPED: the kernel has no %s (%v) and no /dev/fuse\n", t.Name(), fsys.name, kernel)
		t.Skipf("the kernel has no %s and no /dev/fuse", fsys.name)
	}
	driver := need(t, fsys.fuse[0], "apt-get install "+fsys.pkg)
	args := fsys.fuse[1:]
	if options == "ro" {
		args = fsys.fuseRO[1:]
	}
	target := d.image
	if fsys.loop {
		target = device
	} else {
		release()
		release = func() {}
	}
	if out, err := exec.Command(driver, append(slices.Clone(args), target, d.dir)...).CombinedOutput(); err != nil {
		release()
		t.Fatalf("%s: %v\n%s", driver, err, out)
	}
	t.Logf("%s: %s, since the kernel has none", fsys.name, filepath.Base(driver))
	d.frail = fsys.frail
	d.detach = func(t *testing.T) { t.Helper(); unmount(t, d.dir); release() }
}

// eject unmounts the drive; a second time is nothing.
func (d *drive) eject(t *testing.T) {
	t.Helper()
	if d.detach != nil {
		d.detach(t)
		d.detach = nil
	}
}

func loopDevice(t *testing.T, image string) string {
	t.Helper()
	out, err := exec.Command(need(t, "losetup", "apt-get install mount"), "-f", "--show", image).CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "*** %s SKIPPED: this machine has no loop devices: %s\n", t.Name(), out)
		t.Skipf("no loop devices: %s", out)
	}
	return strings.TrimSpace(string(out))
}

// unmount waits for whoever still looks at the drive, as a person does, and then for the
// FUSE driver, which writes its last after the unmount and holds the device until then.
func unmount(t *testing.T, dir string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for syscall.Unmount(dir, 0) == syscall.EBUSY {
		if time.Now().After(deadline) {
			syscall.Unmount(dir, syscall.MNT_DETACH)
			t.Fatal("somebody keeps a file of the drive open")
		}
		time.Sleep(50 * time.Millisecond)
	}
	for driverOf(dir) != "" {
		if time.Now().After(deadline) {
			t.Fatalf("the driver did not end after the unmount: %s", driverOf(dir))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// driverOf is the command line of the FUSE driver that serves dir, "" if there is none.
func driverOf(dir string) string {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		if raw, err := os.ReadFile(file); err == nil && strings.Contains(string(raw), dir) {
			return strings.ReplaceAll(string(raw), "\x00", " ")
		}
	}
	return ""
}
