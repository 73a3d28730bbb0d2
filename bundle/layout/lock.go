package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// holder is the content of pannier/lock (docs/format.md, "The lock"). It is for people; what
// excludes is the lock that the kernel holds on the file, and that vanishes with its process.
type holder struct {
	Holder  string    `json:"holder"`
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	Started time.Time `json:"started"`
}

// maxHolder bounds the lock file, in bytes.
const maxHolder = 4096

// Lock takes the drive for writing, until unlock is called or the process ends, however it
// ends: a lock file that is left over locks nothing. holder names the command, for the error
// of whoever comes second, which wraps [ErrLocked]. The lock does not cross machines. It
// writes to the drive; what only reads does not need it.
func (l *Layout) Lock(holder string) (unlock func(), err error) {
	if err := l.mkdirAll(ownDir); err != nil {
		return nil, err
	}
	// The one who unlocks removes the file; who opened it just before holds a lock on a
	// file without a name, looks again and starts over.
	for range 100 {
		f, err := l.openLock()
		if err != nil {
			return nil, err
		}
		ok, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", l.path(lockFile), err)
		}
		if !ok {
			err := l.lockedBy(f)
			f.Close()
			return nil, err
		}
		if !l.isNamed(f, lockFile) {
			f.Close()
			continue
		}
		if err := writeHolder(f, holder); err != nil {
			l.unlock(f)
			return nil, classify(err)
		}
		return sync.OnceFunc(func() { l.unlock(f) }), nil
	}
	return nil, fmt.Errorf("%s: %w: it comes and goes", l.path(lockFile), ErrLocked)
}

func (l *Layout) openLock() (File, error) {
	f, _, err := l.open(lockFile, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = l.create(lockFile)
		if errors.Is(err, fs.ErrExist) { // somebody was faster
			f, _, err = l.open(lockFile, os.O_RDWR)
		}
	}
	return f, classify(err)
}

// isNamed reports whether name is still the file f.
func (l *Layout) isNamed(f File, name string) bool {
	have, err := f.Stat()
	if err != nil {
		return false
	}
	fi, err := l.lstat(name)
	return err == nil && os.SameFile(have, fi)
}

func writeHolder(f File, name string) error {
	host, err := os.Hostname()
	if err != nil {
		host = "" // a courtesy only
	}
	raw, err := json.Marshal(holder{Holder: name, PID: os.Getpid(), Host: host, Started: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := f.Write(append(raw, '\n')); err != nil {
		return err
	}
	return f.Sync()
}

// lockedBy reads who holds the lock. The text comes from the drive and is quoted.
func (l *Layout) lockedBy(f File) error {
	raw, err := io.ReadAll(io.LimitReader(f, maxHolder))
	var h holder
	if err != nil || json.Unmarshal(raw, &h) != nil {
		return fmt.Errorf("%s: %w", l.path(lockFile), ErrLocked)
	}
	return fmt.Errorf("%s: %w: %q, process %d on %q, since %s",
		l.path(lockFile), ErrLocked, h.Holder, h.PID, h.Host, h.Started.Format(time.RFC3339))
}
