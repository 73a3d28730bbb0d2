package layout

import "golang.org/x/sys/unix"

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
	return Space{
		Filesystem: unix.ByteSliceToString(st.Fstypename[:]),
		Free:       times(st.Bavail, uint64(st.Bsize)), Total: times(st.Blocks, uint64(st.Bsize)),
		ReadOnly:         st.Flags&unix.MNT_RDONLY != 0,
		Device:           uint64(at.Dev),
		SameDeviceAsRoot: at.Dev == root.Dev,
	}, nil
}
