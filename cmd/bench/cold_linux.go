package main

import (
	"io"
	"os"
	"path/filepath"
	"syscall"

	"pannier/bundle/content"
)

// fadviseDontNeed asks the kernel to forget the pages of a file (fadvise64(2)).
const fadviseDontNeed = 4

// forget drops the files of a folder from the page cache; they must be on the disk.
func forget(dir string) error {
	return filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, fadviseDontNeed, 0, 0); errno != 0 {
			return &os.PathError{Op: "fadvise", Path: name, Err: errno}
		}
		return nil
	})
}

// rawSums reads a blob and takes its slice sums, the work of reading back.
func rawSums(d, dir string) error {
	f, err := os.Open(filepath.Join(dir, hexOf(d)))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(&content.Slicer{}, onlyReader{f}, make([]byte, 1<<20))
	return err
}

type onlyReader struct{ io.Reader }
