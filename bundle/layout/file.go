package layout

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"pannier/bundle/content"
)

// FileReader is a regular file on the drive, open for reading.
type FileReader struct {
	f    File
	size int64
}

// Read implements [io.Reader].
func (r *FileReader) Read(p []byte) (int, error) { return r.f.Read(p) }

// ReadAt implements [io.ReaderAt].
func (r *FileReader) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(p, off) }

// Size returns the size in bytes as it was when the file was opened.
func (r *FileReader) Size() int64 { return r.size }

// Close closes the file.
func (r *FileReader) Close() error { return r.f.Close() }

// OpenFile opens the regular file name, a slash path below the layout's folder, for reading.
// Errors wrap [fs.ErrNotExist], [fs.ErrInvalid] for a name that is no such path, and
// [ErrUnsafe].
func (l *Layout) OpenFile(name string) (*FileReader, error) {
	f, fi, err := l.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return &FileReader{f: f, size: fi.Size()}, nil
}

// OpenMedium is [Layout.OpenFile] past the cache of the file, to read back what was written
// and flushed.
func (l *Layout) OpenMedium(name string) (*FileReader, error) {
	r, err := l.OpenFile(name)
	if err == nil {
		dropFile(r.f)
	}
	return r, err
}

// ReadFile returns the content of the regular file name, a slash path below the layout's
// folder. Errors are those of [Layout.OpenFile], and [content.ErrSize] for more than limit
// bytes.
func (l *Layout) ReadFile(name string, limit int64) ([]byte, error) {
	r, err := l.OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Size() > limit {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d are read", l.path(name), content.ErrSize, r.Size(), limit)
	}
	// The size is not believed: what is read is counted.
	var buf bytes.Buffer
	if n := r.Size(); n > 0 {
		buf.Grow(int(min(n, 64<<20)) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(io.LimitReader(r, limit+1)); err != nil {
		return nil, err
	}
	if int64(buf.Len()) > limit {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", l.path(name), content.ErrSize, limit)
	}
	return buf.Bytes(), nil
}

// WriteFile writes a file under a new name, a slash path, and makes it durable; missing
// folders are made. A file with the same content is only synced; with other content the
// error wraps [fs.ErrExist] and nothing is touched: an interrupted WriteFile leaves such a
// file, so a caller who knows that nothing vouches for it removes it first. It is written in
// place, since that is what survives a power cut on FAT.
func (l *Layout) WriteFile(name string, data []byte) error {
	same, err := l.holds(name, data)
	if err != nil {
		return err
	}
	if same {
		if err := l.resync(name); err != nil {
			return err
		}
		return l.syncDirs(parent(name))
	}
	return l.WriteStream(name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// holds reports whether name is a file of this content; false without error also if it is
// a file of other content or none.
func (l *Layout) holds(name string, data []byte) (bool, error) {
	have, err := l.ReadFile(name, int64(len(data)))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, content.ErrSize), err != nil && isUnreadable(err):
		return false, nil
	case err != nil:
		return false, err
	}
	return bytes.Equal(have, data), nil
}

// WriteStream writes what fn writes under a new name, like [Layout.WriteFile] but with an
// error wrapping [fs.ErrExist] whatever is there. If fn fails the file is removed and fn's
// error returned.
func (l *Layout) WriteStream(name string, fn func(w io.Writer) error) error {
	if !fs.ValidPath(name) || name == "." {
		return fmt.Errorf("%q: %w", name, fs.ErrInvalid)
	}
	if dir := parent(name); dir != "." {
		if err := l.mkdirAll(dir); err != nil {
			return err
		}
	}
	f, err := l.create(name)
	if err != nil {
		return err
	}
	if err := fillFile(f, fn); err != nil {
		// Half a file under a final name helps nobody; that it could not be removed
		// either is part of the story.
		return errors.Join(err, l.RemoveFile(name))
	}
	if err := l.syncDirs(parent(name)); err != nil {
		return err
	}
	return l.resync(name)
}

// fillFile writes, syncs and closes f.
func fillFile(f File, fn func(w io.Writer) error) error {
	w := bufio.NewWriterSize(&paced{f: f}, stepSize)
	err := fn(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = syncFile(f)
	}
	return classify(errors.Join(err, f.Close()))
}

// ReplaceFile writes a file over another, or anew: under a temporary name, synced, renamed,
// synced again. On FAT a power cut in between can destroy both, so it is only for files that
// have a second copy elsewhere. A file that has this content already is left alone.
func (l *Layout) ReplaceFile(name string, data []byte) error {
	same, err := l.holds(name, data)
	if err != nil {
		return err
	}
	if !same {
		return l.ReplaceStream(name, func(w io.Writer) error { _, err := w.Write(data); return err })
	}
	if err := l.resync(name); err != nil {
		return err
	}
	return l.syncDirs(parent(name))
}

// ReplaceStream is [Layout.ReplaceFile] of what fn writes, for files that are too large for
// memory. If fn fails the file that is there stays as it is, and fn's error is returned.
func (l *Layout) ReplaceStream(name string, fn func(w io.Writer) error) error {
	tmp := name + ".new"
	if err := l.RemoveFile(tmp); err != nil {
		return err
	}
	if dir := parent(name); dir != "." {
		if err := l.mkdirAll(dir); err != nil {
			return err
		}
	}
	f, err := l.create(tmp)
	if err != nil {
		return err
	}
	if err = fillFile(f, fn); err == nil {
		err = classify(l.fs.Rename(tmp, name))
	}
	if err != nil {
		return errors.Join(err, l.RemoveFile(tmp))
	}
	if err := l.resync(name); err != nil {
		return err
	}
	return l.syncDirs(parent(name))
}

// RemoveFile removes the file name, or the link or special file of that name; that there is
// none is no error. The removal is durable after the next sync of its folder.
func (l *Layout) RemoveFile(name string) error {
	fi, err := l.lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return refuse(l.path(name), fi.Mode())
	}
	if err := l.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return classify(err)
	}
	l.mu.Lock()
	delete(l.unsynced, name)
	l.mu.Unlock()
	return nil
}

// OverwriteFile writes data over a file of the same size, in place, and makes it durable: for
// a file whose place on the drive was taken earlier with [Layout.WriteStream], and that nothing
// vouches for yet. Errors wrap [content.ErrSize] and [fs.ErrNotExist].
func (l *Layout) OverwriteFile(name string, data []byte) error {
	f, fi, err := l.open(name, os.O_WRONLY)
	if err != nil {
		return classify(err)
	}
	if fi.Size() != int64(len(data)) {
		f.Close()
		return fmt.Errorf("%s: %w: %d bytes, %d are to be written over it", l.path(name), content.ErrSize, fi.Size(), len(data))
	}
	return fillFile(f, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// AppendFile adds data to the end of the file name, which is made if there is none, and makes
// it durable. If that fails the file is as it was before, as far as the drive still lets it; a
// power cut may leave a part of data.
func (l *Layout) AppendFile(name string, data []byte) error {
	f, fi, err := l.open(name, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return l.WriteFile(name, data)
	}
	if err != nil {
		return classify(err)
	}
	if _, err = f.Seek(0, io.SeekEnd); err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = syncFile(f)
	}
	if err != nil {
		_ = f.Truncate(fi.Size())
	}
	return classify(errors.Join(err, f.Close()))
}

// RemoveFolder removes the folder name, a slash path, and the files and folders in it. Links
// are removed and not followed; that there is no such folder is no error.
func (l *Layout) RemoveFolder(name string) error {
	entries, err := l.List(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		remove := l.RemoveFile
		if e.Mode.IsDir() {
			remove = l.RemoveFolder
		}
		if err := remove(name + "/" + e.Name); err != nil {
			return err
		}
	}
	if err := l.fs.Remove(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return classify(err)
	}
	return l.syncDirs(parent(name))
}
