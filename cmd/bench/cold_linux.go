package main

import (
	"fmt"
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

// warmMemory touches that many bytes of memory and gives them back. The first touch of a page
// that a virtual machine has not used for a while costs ten times the copy into it, and whoever
// came first would pay.
func warmMemory(n int64) error {
	b, err := syscall.Mmap(-1, 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("%d bytes of memory: %w", n, err)
	}
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	return syscall.Munmap(b)
}
