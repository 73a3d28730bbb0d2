package layout

import (
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resident counts the pages of path that are in memory.
func resident(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	page := os.Getpagesize()
	pages := make([]byte, (len(m)+page-1)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		t.Fatal(errno)
	}
	n := 0
	for _, p := range pages {
		n += int(p & 1)
	}
	return n
}

// TestCacheIsReallyDropped: the method is not only named.
func TestCacheIsReallyDropped(t *testing.T) {
	l := newLayout(t, Options{})
	b, desc := blob(4 << 20)
	if err := ingest(t, l, desc, b); err != nil {
		t.Fatal(err)
	}
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m, err := l.DropCache(t.Context()); err != nil || m != CacheFadvise {
		t.Skipf("method %q here, %v", m, err)
	}
	path := l.path(BlobPath(desc.Digest))
	if resident(t, path) == 0 {
		t.Skip("nothing stays in memory here")
	}
	f, _, err := l.open(BlobPath(desc.Digest), os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := dropDrive(f); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, path); n != 0 {
		t.Errorf("%d pages stay", n)
	}
}

func TestMountinfo(t *testing.T) {
	const table = `22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue
40 27 8:17 / /media/my\040stick rw,nosuid - fuseblk /dev/disk\040x\134y rw,user_id=0
41 27 8:18
nonsense - - -
`
	m, ok := findMount(strings.NewReader(table), "8:17")
	if !ok || m.fstype != "fuseblk" || m.source != `/dev/disk x\y` {
		t.Errorf("%+v, %v", m, ok)
	}
	if m, ok := findMount(strings.NewReader(table), "98:0"); !ok || m.fstype != "ext3" {
		t.Errorf("%+v, %v", m, ok)
	}
	if m, ok := findMount(strings.NewReader(table), "8:18"); ok {
		t.Errorf("%+v", m)
	}
}

// TestMemoryIsNoMedium: a file system in memory is not called read back.
func TestMemoryIsNoMedium(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "layout")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	if s, err := StatSpace(dir); err != nil || s.Filesystem != "tmpfs" {
		t.Skipf("%+v, %v", s, err)
	}
	l, err := Create(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if m, err := l.DropCache(t.Context()); err != nil || m != CacheMemory {
		t.Errorf("%q, %v", m, err)
	}
}
