//go:build unix

package layout

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reopenFlag opens a file for nothing but a sync.
const reopenFlag = os.O_RDONLY

const dirSync = true

// syncFile syncs f. On macOS a sync asks the device itself to flush, which the drivers of
// some file systems refuse; then the plain call is what there is.
func syncFile(f File) error {
	err := f.Sync()
	if err != nil && (errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOTSUP)) {
		if unix.Fsync(int(f.Fd())) == nil {
			return nil
		}
	}
	return err
}
