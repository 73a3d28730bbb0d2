//go:build !unix

package layout

import "os"

// reopenFlag opens a file for nothing but a sync; Windows flushes only what is open for
// writing.
const reopenFlag = os.O_WRONLY

// dirSync is false: folders cannot be flushed here.
const dirSync = false

func syncFile(f File) error { return f.Sync() }
