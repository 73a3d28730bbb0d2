package layout

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// filesystems names the statfs magic numbers of what drives are formatted with, and of what
// people mistake for drives.
var filesystems = map[uint32]string{
	unix.MSDOS_SUPER_MAGIC: "vfat", unix.EXFAT_SUPER_MAGIC: "exfat", 0x7366746e: "ntfs3",
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.F2FS_SUPER_MAGIC: "f2fs",
	unix.ISOFS_SUPER_MAGIC: "iso9660", unix.UDF_SUPER_MAGIC: "udf", unix.SQUASHFS_MAGIC: "squashfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", 0x2fc12fc1: "zfs",
	unix.NFS_SUPER_MAGIC: "nfs", unix.CIFS_SUPER_MAGIC: "cifs", unix.SMB2_SUPER_MAGIC: "smb2", unix.V9FS_MAGIC: "9p",
	unix.FUSE_SUPER_MAGIC: "fuse", 0x482b: "hfsplus",
}

func statSpace(dir string) (Space, error) {
	var st unix.Statfs_t
	var at, root unix.Stat_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Space{}, err
	}
	if err := unix.Stat(dir, &at); err != nil {
		return Space{}, err
	}
	if err := unix.Stat("/", &root); err != nil {
		return Space{}, err
	}
	unit := uint64(st.Frsize)
	if unit == 0 {
		unit = uint64(st.Bsize)
	}
	s := Space{
		Free: times(st.Bavail, unit), Total: times(st.Blocks, unit),
		ReadOnly:         uint64(st.Flags)&unix.ST_RDONLY != 0,
		Device:           uint64(at.Dev),
		SameDeviceAsRoot: at.Dev == root.Dev,
	}
	if st.Blocks == 0 {
		s.Free = -1 // some FUSE drivers count nothing
	}
	s.Filesystem = filesystems[uint32(st.Type)]
	if s.Filesystem == "" {
		s.Filesystem = fmt.Sprintf("%#x", uint32(st.Type))
	}
	// FUSE has one number for all its drivers; the mount table tells more.
	if uint32(st.Type) == unix.FUSE_SUPER_MAGIC {
		if m, ok := mountOf(uint64(at.Dev)); ok {
			s.Filesystem = m.fstype
		}
	}
	return s, nil
}
