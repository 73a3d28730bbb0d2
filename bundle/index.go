package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/layout"
	"pannier/store"
)

// contentsFromIndex copies the index that the seal names, or the newest one of a bundle
// without seal, to the local disk and reads it there: a drive that is pulled while a mapped
// file of it is read kills the process.
func (b *Bundle) contentsFromIndex(cache string) (*Contents, error) {
	var last error = fmt.Errorf("there is none: %w", fs.ErrNotExist)
	for _, g := range b.indexGenerations() {
		x, cleanup, err := b.openIndexCopy(g, cache)
		if errors.As(err, new(*localError)) {
			return nil, err
		}
		if err != nil {
			last = fmt.Errorf("%s: %w", indexName(g), err)
			continue
		}
		idx := b.Index
		if b.Seal == nil {
			idx = nil // what is wanted counts, not what an index.json of yesterday names
		}
		c, err := contentsFromStore(x, idx)
		if err == nil && b.Seal != nil {
			b.Pending = c.pending(x)
		}
		cleanup()
		if err != nil {
			last = fmt.Errorf("%s: %w", indexName(g), err)
			continue
		}
		return c, nil
	}
	return nil, last
}

// readPending reads what a pack that did not finish noted in an index that is newer than the
// sealed one, whose own is known already. It explains files; nothing depends on it.
func (b *Bundle) readPending(cache string) {
	for _, g := range b.generations(indexPrefix, indexSuffix) {
		if g <= b.Seal.Generation {
			return
		}
		x, cleanup, err := b.openIndexCopy(g, cache)
		if err != nil {
			continue
		}
		pending := b.Contents.pending(x)
		cleanup()
		if pending != nil {
			b.Pending = pending
			return
		}
	}
}

// pending are the records of an index that are not among the contents; nil if it cannot be
// read.
func (c *Contents) pending(x *store.Index) map[digest.Digest]store.Record {
	all, err := contentsFromStore(x, nil)
	if err != nil {
		return nil
	}
	for d := range c.Records {
		delete(all.Records, d)
	}
	return all.Records
}

// IndexPath is where the bbolt index stands that counts, below the root.
func (b *Bundle) IndexPath() string {
	if list := b.indexGenerations(); len(list) > 0 {
		return indexName(list[0])
	}
	return dirOwn
}

// SealPath is where the seal stands that counts, below the root.
func (b *Bundle) SealPath() string {
	if b.Seal == nil {
		return dirOwn
	}
	return sealName(b.Seal.Generation)
}

// indexGenerations are the generations of the index worth trying, best first.
func (b *Bundle) indexGenerations() []uint64 {
	if b.Seal != nil {
		return []uint64{b.Seal.Generation}
	}
	return b.generations(indexPrefix, indexSuffix)
}

// openIndexCopy opens a private copy of one generation of the index, compared with the
// digest that the seal has of it, if any.
func (b *Bundle) openIndexCopy(g uint64, cache string) (*store.Index, func(), error) {
	path, err := copyIndex(b.Layout, b.Seal, g, cache)
	if err != nil {
		return nil, nil, err
	}
	x, err := store.OpenReadOnly(path)
	if err != nil {
		os.RemoveAll(filepath.Dir(path))
		return nil, nil, err
	}
	return x, func() { x.Close(); os.RemoveAll(filepath.Dir(path)) }, nil
}

// localError is a failure of the local disk, which says nothing of the drive.
type localError struct{ err error }

func (e *localError) Error() string { return "the working copy of the index: " + e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// copyIndex copies a generation of the index into a new private folder below cache. The
// caller removes the folder. Failures of the local disk are a [*localError].
func copyIndex(l *layout.Layout, seal *Seal, g uint64, cache string) (string, error) {
	sealed := seal != nil && seal.Generation == g
	limit := int64(maxIndexDB)
	if sealed {
		limit = min(limit, seal.Files[indexName(g)].Size)
	}
	dir, err := workingFolder(cache)
	if err != nil {
		return "", &localError{err}
	}
	path := filepath.Join(dir, "index.db")
	found, err := copyToLocal(l, indexName(g), limit, path)
	if err == nil && sealed {
		err = seal.Files[indexName(g)].compare(found)
	}
	if err != nil {
		os.RemoveAll(dir)
		return "", err
	}
	return path, nil
}

// copyToLocal copies the file name to a new file on the local disk.
func copyToLocal(l *layout.Layout, name string, limit int64, path string) (SealedFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return SealedFile{}, &localError{err}
	}
	found, err := copyFile(l.OpenFile, name, limit, localWriter{f})
	if cerr := f.Close(); err == nil && cerr != nil {
		err = &localError{cerr}
	}
	return found, err
}

// localWriter tells failures of the local disk from those of the drive.
type localWriter struct{ f *os.File }

func (w localWriter) Write(b []byte) (int, error) {
	n, err := w.f.Write(b)
	if err != nil {
		err = &localError{err}
	}
	return n, err
}

// staleAfter is when a working folder is nobody's: the process that made it was killed.
const staleAfter = 7 * 24 * time.Hour

// workingFolder makes a private folder below cache, and removes those that were left behind.
func workingFolder(cache string) (string, error) {
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(cache)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.IsDir() && strings.HasPrefix(e.Name(), "index-") && time.Since(fi.ModTime()) > staleAfter {
			os.RemoveAll(filepath.Join(cache, e.Name()))
		}
	}
	return os.MkdirTemp(cache, "index-")
}
