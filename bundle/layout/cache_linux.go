package layout

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropFile drops the pages of f that are on the medium.
func dropFile(f File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

// dropDrive drops the pages of f, and those of the block device below it where the driver is
// not in the kernel. It says what that amounts to.
func dropDrive(f File) (CacheMethod, error) {
	fd := int(f.Fd())
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return CacheNone, &os.PathError{Op: "statfs", Path: nameOf(f), Err: err}
	}
	dropFile(f)
	switch uint32(st.Type) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return CacheMemory, nil
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.V9FS_MAGIC:
		return CacheDriver, nil // the other machine has a cache too
	case unix.FUSE_SUPER_MAGIC:
		if dropDevice(fd) {
			return CacheDevice, nil
		}
		return CacheDriver, nil
	}
	return CacheFadvise, nil
}

// dropDevice drops the cache of the block device that the open file fd is on, and reports
// whether it could.
func dropDevice(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	m, ok := mountOf(uint64(st.Dev))
	if !ok || m.fstype != "fuseblk" {
		return false
	}
	// The name comes from whoever mounted; it is believed only if it is this very device.
	dev, err := unix.Open(m.source, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dev)
	var ds unix.Stat_t
	if unix.Fstat(dev, &ds) != nil || ds.Mode&unix.S_IFMT != unix.S_IFBLK || uint64(ds.Rdev) != uint64(st.Dev) {
		return false
	}
	_ = unix.Fsync(dev) // dirty pages stay
	return unix.Fadvise(dev, 0, 0, unix.FADV_DONTNEED) == nil
}
