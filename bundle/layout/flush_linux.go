package layout

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncFS is one syncfs, except on FUSE: there the kernel writes its pages to the driver but
// does not tell it to flush, and exfat-fuse keeps folder entries in its own memory until a
// file is synced.
func syncFS(dir *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return err
	}
	if uint32(st.Type) == unix.FUSE_SUPER_MAGIC {
		return errors.ErrUnsupported
	}
	err := unix.Syncfs(int(dir.Fd()))
	if err == unix.ENOSYS {
		return errors.ErrUnsupported
	}
	return err
}

// writeback starts writing n bytes of f at off to the medium; if wait is true it returns
// when they are there. Without it gigabytes pile up in memory before a slow stick, progress
// lies and the sync at the end cannot be interrupted. It promises no durability. An error of
// the medium must be taken seriously: the kernel reports it once.
func writeback(f File, off, n int64, wait bool) error {
	flags := unix.SYNC_FILE_RANGE_WRITE
	if wait {
		flags |= unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	}
	switch err := unix.SyncFileRange(int(f.Fd()), off, n, flags); err {
	case unix.EIO, unix.ENOSPC, unix.EDQUOT:
		return &os.PathError{Op: "sync_file_range", Path: nameOf(f), Err: err}
	default: // not to be had here; the sync at the end does it all
		return nil
	}
}

func nameOf(f File) string {
	if n, ok := f.(interface{ Name() string }); ok {
		return n.Name()
	}
	return "file"
}
