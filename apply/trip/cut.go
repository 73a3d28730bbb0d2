package trip

import (
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"

	"pannier/bundle/layout"
)

// Cut is a drive that is pulled: the call number At that would change something, counted
// from 1, fails, half done if it writes, and so does every one after it. With At zero it
// counts only. It never waits for the real drive: nothing here outlives the process.
type Cut struct {
	At   int
	Once bool  // the calls after it work again
	Err  error // default EIO

	// Only says which files' calls are counted, and can fail; nil means all.
	Only func(name string) bool

	mu    sync.Mutex
	calls int
	Call  string // that failed first
}

// Calls is how many calls there were that would change something.
func (c *Cut) Calls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

// FS is for the option FS of a pack.
func (c *Cut) FS(dir string) (layout.FS, error) {
	f, err := layout.OpenFS(dir)
	if err != nil {
		return nil, err
	}
	return &cutFS{f, c}, nil
}

// step reports whether the call fails, and whether it is the first that does.
func (c *Cut) step(op, name string) (failed, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.At > 0 && c.calls >= c.At && !c.Once {
		return true, false // the drive is gone
	}
	if c.Only != nil && !c.Only(name) {
		return false, false
	}
	c.calls++
	if c.calls == c.At {
		c.Call = op + " " + name
		return true, true
	}
	return false, false
}

func (c *Cut) fail(op, name string) error {
	err := c.Err
	if err == nil {
		err = syscall.EIO
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func (c *Cut) check(op, name string) error {
	if failed, _ := c.step(op, name); failed {
		return c.fail(op, name)
	}
	return nil
}

type cutFS struct {
	layout.FS
	c *Cut
}

func (f *cutFS) OpenFile(name string, flag int, perm fs.FileMode) (layout.File, error) {
	if flag&os.O_CREATE != 0 && !strings.HasSuffix(name, "pannier/lock") {
		if err := f.c.check("create", name); err != nil {
			return nil, err
		}
	}
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &cutFile{file, name, f.c}, nil
}

func (f *cutFS) Mkdir(name string, perm fs.FileMode) error {
	if err := f.c.check("mkdir", name); err != nil {
		return err
	}
	return f.FS.Mkdir(name, perm)
}

func (f *cutFS) Rename(from, to string) error {
	if err := f.c.check("rename", to); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

func (f *cutFS) Remove(name string) error {
	if err := f.c.check("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *cutFS) SyncDir(name string) error { return f.c.check("syncdir", name) }

func (f *cutFS) SyncFS() error { return f.c.check("syncfs", ".") }

type cutFile struct {
	layout.File
	name string
	c    *Cut
}

func (f *cutFile) Write(p []byte) (int, error) {
	failed, first := f.c.step("write", f.name)
	if !failed {
		return f.File.Write(p)
	}
	n := 0
	if first {
		n, _ = f.File.Write(p[:len(p)/2])
	}
	return n, f.c.fail("write", f.name)
}

func (f *cutFile) Truncate(size int64) error {
	if err := f.c.check("truncate", f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *cutFile) Sync() error { return f.c.check("sync", f.name) }
