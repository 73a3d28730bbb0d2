//go:build !linux

package layout

func dropFile(File) {}

func dropDrive(File) (CacheMethod, error) { return CacheNone, nil }
