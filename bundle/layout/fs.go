package layout

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// FS is the seam between a layout and its drive: one folder, in which files are named by
// slash-separated paths. [OpenFS] gives the real one; tests wrap it to record calls and to
// make them fail. Every error is the operating system's own.
type FS interface {
	// OpenFile is [os.OpenFile] below the folder.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Lstat describes name, which may be a symbolic link.
	Lstat(name string) (fs.FileInfo, error)
	// ReadDir returns the names in a folder, in no order, at most limit of them.
	ReadDir(name string, limit int) ([]string, error)
	Mkdir(name string, perm fs.FileMode) error
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes the names in a folder durable, where the file system can.
	SyncDir(name string) error
	// SyncFS makes everything written to the file system durable. It answers
	// [errors.ErrUnsupported] where no such call is to be relied on.
	SyncFS() error
	Close() error
}

// File is an open file of an [FS]; *[os.File] is one.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.Seeker
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Sync() error
	Chmod(mode fs.FileMode) error
	// Fd returns the descriptor, which hints to the page cache and locks are given to.
	Fd() uintptr
}

// OpenFS opens the folder dir, which may be reached through symbolic links.
//
// It is an [os.Root]: whatever a hostile drive holds, no name leads out of dir. And it keeps
// dir open: a drive that is pulled makes every later call fail, where paths would lead to the
// bare mount point and so onto the local disk.
func OpenFS(dir string) (FS, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() { // opening a pipe would wait for ever
		return nil, refuse(dir, fi.Mode())
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	// A descriptor from before the first write: syncfs reports every write-back error
	// since its descriptor was opened, and none of before.
	d, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	return &rootFS{dir: dir, root: root, self: d}, nil
}

type rootFS struct {
	dir  string
	root *os.Root
	self *os.File
}

func (r *rootFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := r.root.OpenFile(name, flag, perm)
	if err != nil {
		return nil, r.full(err) // never a nil *os.File in a File
	}
	return f, nil
}

func (r *rootFS) Lstat(name string) (fs.FileInfo, error) {
	fi, err := r.root.Lstat(name)
	return fi, r.full(err)
}

func (r *rootFS) ReadDir(name string, limit int) ([]string, error) {
	f, err := r.root.Open(name)
	if err != nil {
		return nil, r.full(err)
	}
	defer f.Close()
	var names []string
	for len(names) < limit {
		more, err := f.Readdirnames(min(1024, limit-len(names)))
		names = append(names, more...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

func (r *rootFS) Mkdir(name string, perm fs.FileMode) error {
	if err := r.root.Mkdir(name, perm); err != nil {
		return r.full(err)
	}
	_ = r.root.Chmod(name, perm) // against the umask; FAT has no modes and may say so
	return nil
}

func (r *rootFS) Rename(from, to string) error { return r.full(r.root.Rename(from, to)) }

func (r *rootFS) Remove(name string) error { return r.full(r.root.Remove(name)) }

func (r *rootFS) SyncDir(name string) error {
	if !dirSync {
		return nil
	}
	f, err := r.root.Open(name)
	if err != nil {
		return r.full(err)
	}
	defer f.Close()
	return f.Sync()
}

func (r *rootFS) SyncFS() error {
	if err := syncFS(r.self); err != nil {
		return &fs.PathError{Op: "syncfs", Path: r.dir, Err: err}
	}
	return nil
}

func (r *rootFS) Close() error { return errors.Join(r.self.Close(), r.root.Close()) }

// full puts the whole path into an error of an os.Root, which knows names below it only.
func (r *rootFS) full(err error) error {
	join := func(name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(r.dir, filepath.FromSlash(name))
	}
	switch e := err.(type) {
	case *fs.PathError:
		return &fs.PathError{Op: strings.TrimSuffix(e.Op, "at"), Path: join(e.Path), Err: e.Err}
	case *os.LinkError:
		return &os.LinkError{Op: strings.TrimSuffix(e.Op, "at"), Old: join(e.Old), New: join(e.New), Err: e.Err}
	}
	return err
}

// lstat describes name after making sure that every folder on the way is a real one: an
// os.Root would follow a link that stays on the drive.
func (l *Layout) lstat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) || name == "." {
		return nil, fmt.Errorf("%q: %w", name, fs.ErrInvalid)
	}
	for i, c := range name {
		if c != '/' {
			continue
		}
		fi, err := l.fs.Lstat(name[:i])
		if err != nil {
			return nil, err
		}
		if !fi.IsDir() {
			return nil, refuse(l.path(name[:i]), fi.Mode())
		}
	}
	return l.fs.Lstat(name)
}

// open opens the existing regular file name. It looks before it opens, since opening a pipe
// waits and opening a device may act, and again after.
func (l *Layout) open(name string, flag int) (File, fs.FileInfo, error) {
	fi, err := l.lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, nil, refuse(l.path(name), fi.Mode())
	}
	f, err := l.fs.OpenFile(name, flag, 0)
	if err != nil {
		return nil, nil, err
	}
	fi, err = f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = refuse(l.path(name), fi.Mode())
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

// create makes the new file name, 0644 whatever the umask: somebody else reads it on the
// other side.
func (l *Layout) create(name string) (File, error) {
	if _, err := l.lstat(name); err == nil {
		return nil, &fs.PathError{Op: "create", Path: l.path(name), Err: fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := l.fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, classifyCreate(err)
	}
	_ = f.Chmod(0o644) // FAT has no modes and may say so
	return f, nil
}

// syncDirs syncs folders, except where the file system has no such thing.
func (l *Layout) syncDirs(names ...string) error {
	for _, name := range names {
		if err := l.fs.SyncDir(name); err != nil && !toleratedOnDir(err) {
			return classify(err)
		}
	}
	return nil
}

// resync opens name again and syncs it: after a rename, FAT writes the size and the first
// cluster into the new name only when the file itself is written again.
func (l *Layout) resync(name string) error {
	f, _, err := l.open(name, reopenFlag)
	if err != nil {
		return classify(err)
	}
	return classify(errors.Join(syncFile(f), f.Close()))
}

func (l *Layout) path(name string) string { return filepath.Join(l.dir, filepath.FromSlash(name)) }
