package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// outside refuses a file that would stand on one of the drives, among their own files, or whose folder is not there.
func outside(name string, media []string) error {
	if _, err := real(filepath.Dir(name)); err != nil {
		return fmt.Errorf("its folder: %w", err)
	}
	if info, err := os.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is there, and is no plain file", name)
	}
	return apart(name, media)
}

// apart refuses a file or folder that would stand among the files of one of the drives, also by
// way of links.
func apart(name string, media []string) error {
	for _, m := range media {
		if within(where(name), where(m)) {
			return fmt.Errorf("%s is among the files of the bundle; write it beside %s, not into it", name, m)
		}
	}
	return nil
}

// within reports whether a path is root or lies below it, by its name or, as a folder can have
// several names (in upper and lower case, mounted twice), because a folder above it is root.
func within(name, root string) bool {
	if rel, err := filepath.Rel(root, name); err == nil && filepath.IsLocal(rel) {
		return true
	}
	top, err := os.Stat(root)
	for dir := name; err == nil; dir = filepath.Dir(dir) {
		if fi, serr := os.Stat(dir); serr == nil && os.SameFile(fi, top) {
			return true
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return false
}

// offDrive refuses what a flag names to be written if it lies on a drive of the command: what
// belongs there the command itself knows.
func (s *session) offDrive(flag, name string) error {
	if name == "" {
		return nil
	}
	if err := apart(s.env.expandHome(name), s.drives); err != nil {
		return usagef(s.command, "%s: %v", flag, err)
	}
	return nil
}

// where is the absolute path, without links, of what is there or would be made.
func where(name string) string {
	for range 40 { // links, at most
		path, err := real(name)
		if err == nil {
			return path
		}
		target, err := os.Readlink(name)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) { // what is made through a link stands where it leads to
			target = filepath.Join(filepath.Dir(name), target)
		}
		name = target
	}
	abs, err := filepath.Abs(name)
	if dir := filepath.Dir(abs); err == nil && dir != abs {
		return filepath.Join(where(dir), filepath.Base(abs))
	}
	return abs
}

// real is the absolute path of what is there, without links.
func real(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// replaceFile puts a file in its place only when all of it is written.
func replaceFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return ofFile(name, err)
	}
	_, err = io.Copy(f, bytes.NewReader(data))
	if err == nil {
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return ofFile(name, err)
	}
	return nil
}

// ofFile makes an error speak of the file that was to be written, and not of the temporary one
// beside it, which nobody has heard of.
func ofFile(name string, err error) error {
	var of *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &of):
		return &fs.PathError{Op: of.Op, Path: name, Err: of.Err}
	case errors.As(err, &link):
		return &fs.PathError{Op: link.Op, Path: name, Err: link.Err}
	}
	return fmt.Errorf("%s: %w", name, err)
}
