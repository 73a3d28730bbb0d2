package baddrive

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"pannier/bundle/throttle"
)

// Options of [New]. The zero value is an honest drive of 1 TiB.
type Options struct {
	Rules Rules // zero is POSIX

	Size     int64 // what it says to hold, in bytes; 0 means 1 TiB
	RealSize int64 // what it holds: what is written beyond is taken and lost; 0 means all of Size

	LyingSync bool                              // syncs succeed and make nothing durable
	Rot       func(path string, off int64) bool // pages that are stored with one bit wrong, and say so to nobody
	Line      *throttle.Line                    // what writing takes; nil is as fast as it goes
	SyncTime  time.Duration                     // how long a sync takes

	// OnWrite is called before every call that would change the medium or make something
	// durable, with the number of that call, from 1. It may ask for [Drive.Crash].
	OnWrite func(k int)
}

// Op is a call that reached the drive.
type Op struct {
	Kind string // "lookup", "write", "fsync" …
	Path string // with slashes, below the mount
	To   string // of a rename
	Nth  int    // how many of this kind on this path there were, this one among them
	Off  int64
	Size int
}

// Writes reports whether the call changes something or asks for it to be made durable.
func (o Op) Writes() bool {
	switch o.Kind {
	case "create", "mkdir", "write", "truncate", "chmod", "utimes", "rename", "unlink", "rmdir", "fsync", "fsyncdir", "openrw", "other":
		return true
	}
	return false
}

// Takes reports whether the call may need space.
func (o Op) Takes() bool {
	switch o.Kind {
	case "create", "mkdir", "write", "rename", "fsync", "fsyncdir", "flushrw":
		return true
	}
	return false
}

func (o Op) String() string {
	s := o.Kind + " " + o.Path
	if o.To != "" {
		s += " " + o.To
	}
	return fmt.Sprintf("%s (%d)", s, o.Nth)
}

// Fault fails calls.
type Fault struct {
	Errno syscall.Errno
	At    func(Op) bool // the first call that fails
	Then  func(Op) bool // those after it that fail too; nil: none
}

// Drive is a drive that can be plugged in.
type Drive struct {
	opts Options
	tb   testing.TB

	mu     sync.Mutex
	root   *inode
	nodes  map[uint64]*inode
	next   uint64
	writes int
	trace  []Op
	count  map[string]int
	fault  Fault
	struck bool  // the fault has begun
	hit    *Op   // what failed first
	taken  int64 // by others

	dir    string
	server *fuse.Server
	slot   *slot
}

// slot is where a drive is plugged in. The test's cleanup knows the slot and not the drive, so
// that drives that were pulled take no memory: there are thousands of them.
type slot struct{ *Drive }

// New makes an empty drive.
func New(tb testing.TB, opts Options) *Drive {
	if opts.Rules.Name == "" {
		opts.Rules = POSIX
	}
	if opts.Size == 0 {
		opts.Size = 1 << 40
	}
	if opts.RealSize == 0 {
		opts.RealSize = math.MaxInt64
	}
	return (&Drive{opts: opts, tb: tb}).hold(&inode{mode: syscall.S_IFDIR | 0o755, names: map[string]*inode{}, safeNames: map[string]*inode{}})
}

// hold puts a tree on the drive.
func (d *Drive) hold(root *inode) *Drive {
	d.root, d.nodes, d.next, d.count = root, map[uint64]*inode{}, 0, map[string]int{}
	var number func(*inode)
	number = func(n *inode) {
		d.add(n)
		for _, child := range n.names {
			number(child)
		}
	}
	number(root)
	return d
}

func (d *Drive) add(n *inode) {
	d.next++
	n.number = d.next
	d.nodes[n.number] = n
}

// Crash is the drive as it would be found if the power failed now. It has the same rules and
// is honest otherwise.
func (d *Drive) Crash(how Survival, seed uint64) *Drive {
	// The callback of OnWrite holds the lock already; nobody else asks while calls are made.
	out := New(d.tb, Options{Rules: d.opts.Rules, Size: d.opts.Size})
	return out.hold(d.root.survive(how, rand.New(rand.NewPCG(seed, 0))))
}

// Print is the same for two drives that hold the same.
func (d *Drive) Print() string { return d.root.print() }

// Set changes the options of a drive, which may be plugged in.
func (d *Drive) Set(change func(*Options)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.opts)
}

// Fail arms a fault; the zero value disarms.
func (d *Drive) Fail(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault, d.struck, d.hit = f, false, nil
}

// Hit is the call that failed first, or nil.
func (d *Drive) Hit() *Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hit
}

// Leave has other programs fill the drive until n bytes are free.
func (d *Drive) Leave(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.taken = 0
	d.taken = d.free() - n
}

// Fill has other programs take all that is free. It is for OnWrite, under whose lock it runs.
func (d *Drive) Fill() { d.taken += d.free() }

// FillTo is Fill that leaves n bytes.
func (d *Drive) FillTo(n int64) { d.taken += d.free() - n }

func (d *Drive) free() int64 { return max(0, d.opts.Size-d.taken-d.root.used()) }

// Damage flips a bit of what the medium holds of a file.
func (d *Drive) Damage(path string, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.nodes {
		if !n.gone && n.path() == path && off < n.live.size {
			n.live.flip(off)
			n.safe = n.live.clone()
			return
		}
	}
	d.tb.Fatalf("there is no byte %d of %s", off, path)
}

func (c *content) flip(off int64) {
	page := make([]byte, pageSize)
	copy(page, c.pages[off/pageSize])
	page[off%pageSize] ^= 1 << (off % 8)
	c.put(off/pageSize, page)
}

// Sync makes all durable: what syncfs is on other file systems. The kernel does not pass that
// call on to a file system in user space.
func (d *Drive) Sync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.opts.LyingSync {
		d.root.syncAll()
	}
}

// Take returns the calls since the last Take, or since the drive was plugged in, and counts
// anew from there.
func (d *Drive) Take() []Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.trace
	d.trace, d.count = nil, map[string]int{}
	return out
}

// Plug mounts the drive and returns where. In CI that must succeed; elsewhere the test is
// skipped, loudly, where there is no FUSE.
func (d *Drive) Plug() string {
	d.tb.Helper()
	if d.server != nil {
		d.tb.Fatal("the drive is plugged in")
	}
	if d.dir == "" {
		d.dir = d.tb.TempDir()
		d.slot = &slot{}
		s := d.slot
		d.tb.Cleanup(func() {
			if s.Drive != nil {
				s.Pull()
			}
		})
	}
	guard()
	opts := &fuse.MountOptions{
		FsName: fsName(), Name: d.opts.Rules.Name, DirectMount: true, MaxWrite: 1 << 20, DisableXAttrs: true, DisableReadDirPlus: true, ExplicitDataCacheControl: true,
		Options: []string{"default_permissions"}, AllowOther: os.Geteuid() == 0,
	}
	server, err := fuse.NewServer(&front{fuse.NewDefaultRawFileSystem(), d}, d.dir, opts)
	if err != nil {
		if os.Getenv("CI") == "true" {
			d.tb.Fatalf("mount: %v (this takes /dev/fuse, and root or fusermount)", err)
		}
		fmt.Fprintf(os.Stderr, "*** %s SKIPPED: no FUSE file system can be mounted here: %v\n", d.tb.Name(), err)
		d.tb.Skipf("no FUSE file system can be mounted here: %v", err)
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		d.tb.Fatalf("mount: %v", err)
	}
	d.server, d.slot.Drive = server, d
	d.Take()
	return d.dir
}

// Pull unmounts the drive; a second time is nothing. What programs wrote and the medium does
// not have yet is kept: it is no power cut.
func (d *Drive) Pull() {
	if d.server == nil {
		return
	}
	if err := d.server.Unmount(); err != nil {
		d.tb.Errorf("a file of the drive is still open: %v", err)
		syscall.Unmount(d.dir, syscall.MNT_DETACH)
	}
	d.server, d.slot.Drive = nil, nil
}

// fsName is what stands in the mount table as the device of this process's drives.
func fsName() string { return fmt.Sprintf("baddrive-%d", os.Getpid()) }

// guard starts a process that takes the drives away when this one has died with calls under
// way: they would wait for an answer for ever, and so would whoever waits for this process.
var guard = sync.OnceFunc(func() {
	cmd := exec.Command("/bin/sh", "-c", `
while state=$(sed 's/.*) //;s/ .*//' "/proc/$1/stat") && [ -n "$state" ] && [ "$state" != Z ]; do sleep 1; done
grep " - [^ ]* $2 " /proc/self/mountinfo | while read -r _ _ _ _ dir _; do
	umount -f -l "$dir" || fusermount3 -u -z "$dir" || fusermount -u -z "$dir"
done`, "guard", fmt.Sprint(os.Getpid()), fsName())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is not for it
	if cmd.Start() == nil {
		go cmd.Wait()
	}
})
