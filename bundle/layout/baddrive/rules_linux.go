package baddrive

import (
	"strings"
	"syscall"
	"unicode/utf8"
)

// Rules are what a file system can hold and how it says no.
type Rules struct {
	Name      string        // type in the mount table, after "fuse."
	FoldCase  bool          // names that differ in case only are one
	Forbidden string        // characters that no name may have
	BadName   syscall.Errno // the answer to those
	NoModes   bool          // chmod succeeds and changes nothing
	MaxFile   int64         // largest file in bytes; 0: no limit
	MaxSlots  int           // directory entries in a folder, long names take several; 0: no limit
	FAT       bool          // a rename is durable only after another sync of the file, see move
	NoDirSync bool          // folders cannot be synced; a sync of any file takes all names along
}

const reserved = "\"*/:<>?\\|\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"

// The file systems that drives have. There are no links on any of them: pannier makes none.
var (
	// POSIX promises nothing but what the standard says of fsync.
	POSIX = Rules{Name: "posix"}
	// FAT32 is the kernel's vfat.
	FAT32 = Rules{Name: "vfat", FoldCase: true, Forbidden: reserved, BadName: syscall.EINVAL, NoModes: true, MaxFile: 1<<32 - 1, MaxSlots: 65536, FAT: true}
	// ExFAT is exfat-fuse, which writes all folders whenever a file is synced; here it cannot
	// sync a folder alone.
	ExFAT = Rules{Name: "exfat", FoldCase: true, Forbidden: reserved, BadName: syscall.ENOENT, NoModes: true, NoDirSync: true}
	// NTFS is ntfs-3g with windows_names.
	NTFS = Rules{Name: "ntfs", FoldCase: true, Forbidden: reserved, BadName: syscall.EINVAL, NoModes: true}
)

// find looks for a name in a folder.
func (r Rules) find(dir *inode, name string) *inode {
	if n := dir.names[name]; n != nil || !r.FoldCase {
		return n
	}
	for have, n := range dir.names {
		if strings.EqualFold(strings.TrimRight(have, "."), strings.TrimRight(name, ".")) {
			return n
		}
	}
	return nil
}

func (r Rules) check(name string) syscall.Errno {
	switch {
	case len(name) > 255:
		return syscall.ENAMETOOLONG
	case r.Forbidden != "" && (strings.ContainsAny(name, r.Forbidden) || !utf8.ValidString(name) || strings.HasSuffix(name, " ")):
		return r.BadName
	}
	return 0
}

// slots is how many directory entries of 32 bytes a name takes on FAT: one, and one for each
// 13 characters of a name that is not 8.3.
func slots(name string) int { return 1 + (len(name)+12)/13 }

func (r Rules) full(dir *inode, name string) bool {
	if r.MaxSlots == 0 {
		return false
	}
	n := slots(name) + 2 // "." and ".."
	for have := range dir.names {
		n += slots(have)
	}
	return n > r.MaxSlots
}
