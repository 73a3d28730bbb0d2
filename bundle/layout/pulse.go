package layout

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
)

// ErrGone says that a drive can no longer be read at all: it was unplugged, or its port,
// cable or reader failed. Nothing is known of what is on it.
var ErrGone = errors.New("the drive can no longer be read")

// pulseless is how many blobs in a row must fail to be read before a drive counts as gone. A
// drive with bad places returns something in between.
const pulseless = 3

// Pulse tells a drive that is gone from one with bad places. The zero value is a drive that
// lives; it may be used by several goroutines.
type Pulse struct {
	mu     sync.Mutex
	failed int
}

// Feel is told the outcome of reading each blob. It returns nil, or an error wrapping
// [ErrGone] once the drive's own errors leave no doubt.
func (p *Pulse) Feel(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	is := func(errno syscall.Errno) bool { return errors.Is(err, errno) }
	switch {
	case slices.ContainsFunc([]syscall.Errno{syscall.ENXIO, syscall.ENODEV, syscall.ESTALE, syscall.ENOTCONN}, is):
		p.failed = pulseless
	case is(syscall.EIO):
		p.failed++
	case err == nil:
		p.failed = 0
	}
	if p.failed >= pulseless && err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return nil
}
