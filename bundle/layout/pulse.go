package layout

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
	switch {
	case isPulled(err):
		p.failed = pulseless
	case errors.Is(err, syscall.EIO):
		p.failed++
	case err == nil:
		p.failed = 0
	}
	if p.failed >= pulseless && err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return nil
}

// isPulled reports whether err says that there is no such drive any more.
func isPulled(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{syscall.ENXIO, syscall.ENODEV, syscall.ESTALE, syscall.ENOTCONN},
		func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

// Diagnose finds out whether err, which a call on the drive below dir returned, is of a drive
// that is gone: it then wraps [ErrGone] as well. Every other error is returned as it is.
func Diagnose(dir string, err error) error {
	if !isOfDrive(err) {
		return err
	}
	f, oerr := OpenFS(dir)
	if oerr == nil {
		oerr = probe(f)
		f.Close()
	}
	if isOfDrive(oerr) {
		return fmt.Errorf("%s: %w: %w", dir, ErrGone, err)
	}
	return err
}

// Diagnose is [Diagnose] by the folder that the layout has open: where the drive was mounted
// there may be something else by now.
func (l *Layout) Diagnose(err error) error {
	if isOfDrive(err) && l.Gone() != nil {
		return fmt.Errorf("%s: %w: %w", l.dir, ErrGone, err)
	}
	return err
}

// Gone returns an error that wraps [ErrGone] if nothing can be read from the drive any more.
func (l *Layout) Gone() error {
	if err := probe(l.fs); isOfDrive(err) {
		return fmt.Errorf("%s: %w: %w", l.dir, ErrGone, err)
	}
	return nil
}

// isOfDrive reports whether err is what a drive answers that fails or is gone, and does not
// say which of the two yet.
func isOfDrive(err error) bool {
	return !errors.Is(err, ErrGone) && (isPulled(err) || errors.Is(err, syscall.EIO))
}

// probe reads from the medium itself, past the cache. A drive of which anything can be read
// has bad places; it returns nil then.
func probe(fsys FS) error {
	var first error
	for _, name := range []string{ocispec.ImageLayoutFile, ocispec.ImageIndexFile, "SHA256SUMS", "START-HERE.txt"} {
		f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
		if err == nil {
			dropFile(f)
			_, err = f.Read(make([]byte, 1))
			f.Close()
		}
		if err == nil || errors.Is(err, io.EOF) {
			return nil
		}
		if first == nil || isOfDrive(err) {
			first = err
		}
	}
	if isOfDrive(first) {
		return first
	}
	_, err := fsys.ReadDir(".", 1) // of a bundle that has not begun
	return err
}
