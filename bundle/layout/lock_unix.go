//go:build unix && !aix && !solaris

package layout

import (
	"errors"

	"golang.org/x/sys/unix"
)

// tryLock takes an exclusive flock on f, or reports false if another has it.
func tryLock(f File) (bool, error) {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		default:
			return false, err
		}
	}
}

// unlock removes the lock file before the lock ends, so that only its holder ever does.
func (l *Layout) unlock(f File) {
	if err := l.RemoveFile(lockFile); err != nil {
		l.log.Warn("the lock file stays behind; it locks nothing", "error", err)
	}
	f.Close()
}
