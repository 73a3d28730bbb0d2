package layout

import (
	"errors"
	"fmt"
	"io/fs"
)

// ErrNotLayout says that a folder is no OCI image layout (OCI image-spec, image-layout.md),
// or one of a version this package does not know.
var ErrNotLayout = errors.New("not an OCI image layout")

// ErrNoSpace says that the drive, or the quota on it, is full.
var ErrNoSpace = errors.New("no space left on the drive")

// ErrTooLarge says that a file is larger than the drive's file system can hold, 4 GiB less
// one byte on FAT32.
var ErrTooLarge = errors.New("larger than the file system can hold")

// ErrReadOnly says that the drive cannot be written to.
var ErrReadOnly = errors.New("the drive is read-only")

// ErrUnsafe says that there is a symbolic link, a device, a pipe or the like where a regular
// file or a folder must be. Nothing of the kind is ever followed or opened.
var ErrUnsafe = errors.New("neither a regular file nor a folder")

// ErrLocked says that another process is writing to the same drive.
var ErrLocked = errors.New("the drive is in use by another process")

// classify adds the sentinel that err's error number stands for. The error of the operating
// system, which names operation and path, stays in the chain.
func classify(err error) error {
	if err == nil {
		return nil
	}
	for _, sentinel := range []error{ErrNoSpace, ErrTooLarge, ErrReadOnly, ErrUnsafe} {
		if errors.Is(err, sentinel) {
			return err
		}
	}
	if sentinel := sentinelOf(err); sentinel != nil {
		return fmt.Errorf("%w: %w", sentinel, err)
	}
	return err
}

// classifyCreate is classify for calls that make a new name: there, a driver of a read-only
// format may answer that it does not have the call at all (fuseiso does).
func classifyCreate(err error) error {
	if err != nil && isNoSuchCall(err) {
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return classify(err)
}

// refuse describes what was found at name.
func refuse(name string, mode fs.FileMode) error {
	kind := "a special file"
	switch {
	case mode&fs.ModeSymlink != 0:
		kind = "a symbolic link"
	case mode.IsDir():
		kind = "a folder"
	case mode.IsRegular():
		kind = "a file"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a named pipe"
	case mode&fs.ModeDevice != 0:
		kind = "a device"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	}
	return fmt.Errorf("%s: %w: it is %s", name, ErrUnsafe, kind)
}
