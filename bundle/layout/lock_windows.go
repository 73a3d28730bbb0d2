package layout

import (
	"errors"

	"golang.org/x/sys/windows"
)

// lockOffset is far behind the content, because a lock on bytes keeps others from reading
// them.
const lockOffset = 1 << 30

// tryLock takes an exclusive lock on one byte of f, or reports false if another has it.
func tryLock(f File) (bool, error) {
	flags := uint32(windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY)
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{Offset: lockOffset})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}

// unlock closes first, since an open file cannot be removed here; if another process was
// faster to open it, it stays and that is right.
func (l *Layout) unlock(f File) {
	f.Close()
	if err := l.RemoveFile(lockFile); err != nil {
		l.log.Debug("the lock file stays behind", "error", err)
	}
}
