package layout

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

func statSpace(dir string) (Space, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return Space{}, err
	}
	var free, total uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, &total, nil); err != nil {
		return Space{}, err
	}
	volume := make([]uint16, windows.MAX_LONG_PATH)
	if err := windows.GetVolumePathName(path, &volume[0], uint32(len(volume))); err != nil {
		return Space{}, err
	}
	var flags, serial uint32
	name := make([]uint16, windows.MAX_PATH+1)
	if err := windows.GetVolumeInformation(&volume[0], nil, 0, &serial, nil, &flags, &name[0], uint32(len(name))); err != nil {
		return Space{}, err
	}
	s := Space{
		Filesystem: windows.UTF16ToString(name),
		Free:       times(free, 1), Total: times(total, 1),
		Device:   uint64(serial),
		ReadOnly: flags&windows.FILE_READ_ONLY_VOLUME != 0,
	}
	if system, err := windows.GetSystemWindowsDirectory(); err == nil {
		at := strings.TrimRight(windows.UTF16ToString(volume), `\`)
		s.SameDeviceAsRoot = strings.EqualFold(at, filepath.VolumeName(system))
	}
	return s, nil
}
