//go:build unix

package layout

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

func sentinelOf(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return ErrNoSpace
	case errors.Is(err, unix.EFBIG):
		return ErrTooLarge
	case errors.Is(err, unix.EROFS):
		return ErrReadOnly
	}
	return nil
}

func isNoSuchCall(err error) bool { return errors.Is(err, unix.ENOSYS) }

// isUnreadable reports whether err says that the medium could not be read there, as opposed
// to a file that may not be looked at.
func isUnreadable(err error) bool {
	return errors.Is(err, unix.EIO)
}

// toleratedOnDir reports whether err is how a file system says that folders cannot be synced
// there. squashfs and iso9660 answer EINVAL, network and FUSE drivers ENOTSUP, macOS on exFAT
// ENOTTY.
func toleratedOnDir(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EOPNOTSUPP) ||
		errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EACCES) || errors.Is(err, errors.ErrUnsupported) ||
		errors.Is(err, fs.ErrPermission)
}
