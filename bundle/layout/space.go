package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// Limits of FAT (measured: kernel vfat): the largest file, and how many names of 64 hex
// digits, each three long-name entries and more, one folder of 65,536 entries holds.
const (
	fatMaxFile  = 1<<32 - 1
	fatMaxNames = 10900
)

// Space is what a file system has and can hold.
type Space struct {
	Filesystem       string // "vfat", "exfat", "ext4", "fuseblk" …; a number in hex if unknown
	Free             int64  // bytes that this user may still write; -1 if the driver does not say
	Total            int64  // bytes
	MaxFile          int64  // the largest file in bytes; 0: no limit that matters is known
	MaxNames         int    // names of blobs in one folder; 0: no limit that matters is known
	ReadOnly         bool   // mounted read-only; false is no proof of the contrary
	Device           uint64 // tells file systems apart while they are mounted
	SameDeviceAsRoot bool   // on the system's own disk: perhaps the drive is not mounted
}

// StatSpace asks about the file system that dir is on, or will be: dir or its nearest existing
// parent. It needs no right to read dir.
func StatSpace(dir string) (Space, error) {
	at, err := filepath.Abs(dir)
	if err != nil {
		return Space{}, err
	}
	for {
		_, err := os.Stat(at)
		if err == nil {
			break
		}
		up := filepath.Dir(at)
		if !errors.Is(err, fs.ErrNotExist) || up == at {
			return Space{}, err
		}
		at = up
	}
	s, err := statSpace(at)
	if err != nil {
		return Space{}, fmt.Errorf("free space of %s: %w", at, err)
	}
	// Drivers in user space name the same file systems "fuse.vfat", "fuse.fusefat".
	switch strings.TrimPrefix(strings.ToLower(s.Filesystem), "fuse.") {
	case "vfat", "msdos", "fat", "fat32", "fusefat":
		s.MaxFile, s.MaxNames = fatMaxFile, fatMaxNames
	}
	return s, nil
}

// times multiplies block counts as a driver reports them, which may be anything.
func times(blocks, size uint64) int64 {
	if size != 0 && blocks > math.MaxInt64/size {
		return math.MaxInt64
	}
	return int64(blocks * size)
}
