package layout

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/windows"
)

func sentinelOf(err error) error {
	switch {
	case errors.Is(err, windows.ERROR_DISK_FULL), errors.Is(err, windows.ERROR_HANDLE_DISK_FULL),
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED):
		return ErrNoSpace
	case errors.Is(err, windows.ERROR_FILE_TOO_LARGE), errors.Is(err, windows.ERROR_FILE_SYSTEM_LIMITATION):
		return ErrTooLarge
	case errors.Is(err, windows.ERROR_WRITE_PROTECT):
		return ErrReadOnly
	}
	return nil
}

func isNoSuchCall(err error) bool { return errors.Is(err, windows.ERROR_INVALID_FUNCTION) }

func isUnreadable(err error) bool {
	return errors.Is(err, windows.ERROR_CRC) || errors.Is(err, windows.ERROR_IO_DEVICE) ||
		errors.Is(err, windows.ERROR_SECTOR_NOT_FOUND) || errors.Is(err, windows.ERROR_READ_FAULT)
}

// toleratedOnDir: Windows has no handle of a folder that could be flushed.
func toleratedOnDir(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) ||
		errors.Is(err, windows.ERROR_INVALID_FUNCTION) || errors.Is(err, windows.ERROR_INVALID_HANDLE)
}
