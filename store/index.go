// Package store is the manifest index: a bbolt database that says, blob by blob, what a
// bundle holds and what it still lacks, and that carries the documents captured with each
// release. It owns the buckets, their keys and the encoding of their values (docs/format.md,
// "Manifest index"); no other package opens a bbolt database.
//
// bbolt maps its file into memory, trusts every offset in it and keeps no checksums of its
// data. Three rules follow, and callers can rely on them:
//
//   - Paths given to this package lie on a private local disk. A drive that is pulled while
//     its file is mapped kills the process; what goes onto a drive is a snapshot made by
//     [Index.WriteTo], what comes from a drive is copied first.
//   - A file is walked with plain reads before bbolt sees it: every page, every element. The
//     file may come from an enemy; what is accepted cannot make bbolt panic, loop or read
//     outside of the file.
//   - A working copy is never resumed after a crash, so it is not synced: losing it costs
//     what was done since the last snapshot.
//
// All methods may be called from several goroutines. Values handed out are copies.
package store

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// FormatVersion is the version of buckets, keys and values that this package writes, and
// the newest that it reads (docs/format.md, "Manifest index").
const FormatVersion = 1

// ErrNotFound says that the index has no entry under a key.
var ErrNotFound = errors.New("not in the manifest index")

// ErrCorrupt says that a file is no manifest index, or a damaged one. The index can be
// rebuilt from the image layout.
var ErrCorrupt = errors.New("manifest index is damaged")

// ErrByteOrder says that a manifest index was written on a machine of the other byte order
// (bbolt writes its own). It is [ErrCorrupt] too: it is of no use here.
var ErrByteOrder = fmt.Errorf("%w: written on a machine of the other byte order", ErrCorrupt)

// ErrVersion says that a manifest index was written in a newer format.
var ErrVersion = errors.New("manifest index of a newer format")

// errReadOnly is returned by writing methods after [OpenReadOnly].
var errReadOnly = errors.New("manifest index is open for reading only")

// The buckets, in the order in which a snapshot holds them.
var (
	bucketMeta      = []byte("meta")
	bucketBlobs     = []byte("blobs")
	bucketSlices    = []byte("slices")
	bucketImages    = []byte("images")
	bucketReleases  = []byte("releases")
	bucketDocuments = []byte("documents")

	buckets = [][]byte{bucketMeta, bucketBlobs, bucketSlices, bucketImages, bucketReleases, bucketDocuments}
)

const (
	// allocSize is how far a database file is grown at a time. bbolt's 16 MiB would be most
	// of the file for an index of ordinary size.
	allocSize = 1 << 20
	// lockTimeout is how long to wait for the lock of a file that is open already. Zero
	// would wait for ever.
	lockTimeout = time.Second
)

// Index is an open manifest index.
type Index struct {
	db       *bolt.DB
	file     *os.File
	readOnly bool

	mu     sync.Mutex
	failed error // set once a commit failed or bbolt panicked: the handle is not to be used
	leaked bool  // bbolt panicked, perhaps with locks that it now holds for ever
}

// Create makes a new, empty index at path, which must not exist: otherwise the error wraps
// [os.ErrExist].
func Create(path string) (*Index, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	x, err := openFile(file, false)
	if err == nil {
		if err = x.update(initialise); err == nil {
			return x, nil
		}
		x.Close()
	}
	os.Remove(path)
	return nil, fmt.Errorf("create index %s: %w", path, err)
}

// Open opens the index at path for reading and writing. It is checked as [OpenReadOnly]
// checks it, with the same errors.
func Open(path string) (*Index, error) { return open(path, false) }

// OpenReadOnly opens the index at path for reading. Nothing is trusted: the structure of the
// file is walked before bbolt maps it, then every entry is decoded and checked, so its cost
// grows with the file. Errors wrap [ErrCorrupt] for a file that is no index, was cut or
// changed so that it shows; and [ErrVersion] for one of a newer format. bbolt has no
// checksums: a changed byte inside of a text can go unnoticed, so compare the file's digest
// with the seal as well.
func OpenReadOnly(path string) (*Index, error) { return open(path, true) }

func open(path string, readOnly bool) (*Index, error) {
	x, err := openChecked(path, readOnly)
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", path, err)
	}
	return x, nil
}

func openChecked(path string, readOnly bool) (*Index, error) {
	// A pipe in place of the file would block the open below.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, corrupt("not a regular file")
	}
	flag := os.O_RDWR
	if readOnly {
		flag = os.O_RDONLY
	}
	file, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, err
	}
	if info, err = file.Stat(); err != nil {
		file.Close()
		return nil, err
	}
	if err := checkPages(file, info.Size()); err != nil {
		file.Close()
		return nil, err
	}
	x, err := openFile(file, readOnly)
	if err != nil {
		return nil, err
	}
	if err := x.view(checkEntries); err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

// openFile has bbolt map file, which it takes over: the very file that was checked, not
// whatever stands under its name by now.
func openFile(file *os.File, readOnly bool) (*Index, error) {
	x := &Index{file: file, readOnly: readOnly}
	err := contain(func() error {
		db, err := bolt.Open(file.Name(), 0o600, &bolt.Options{
			Timeout:      lockTimeout,
			PageSize:     pageSize,
			ReadOnly:     readOnly,
			NoSync:       true, // never resumed after a crash: see the package comment
			NoStatistics: true,
			OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return file, nil },
		})
		x.db = db
		return err
	})
	if err != nil {
		file.Close()
		return nil, err
	}
	x.db.AllocSize = allocSize
	return x, nil
}

// Close releases the file. It waits for calls under way.
func (x *Index) Close() error {
	x.mu.Lock()
	leaked := x.leaked
	x.mu.Unlock()
	if leaked {
		// Closing would wait for a lock that nobody will release. Closing the file at least
		// frees its lock; the mapping stays until the process ends.
		return x.file.Close()
	}
	return contain(x.db.Close)
}

// view runs fn in a read transaction.
func (x *Index) view(fn func(*bolt.Tx) error) error {
	if err := x.failure(); err != nil {
		return err
	}
	returned := false
	err := contain(func() error {
		err := x.db.View(fn)
		returned = true
		return err
	})
	if !returned {
		return x.fail(err, true)
	}
	return err
}

// update runs fn in a write transaction. After a failed commit nothing is known about the
// state of the pages in memory, so every later call returns the same error.
func (x *Index) update(fn func(*bolt.Tx) error) error {
	if x.readOnly {
		return errReadOnly
	}
	if err := x.failure(); err != nil {
		return err
	}
	refused, returned := false, false
	err := contain(func() error {
		err := x.db.Update(func(tx *bolt.Tx) error {
			err := fn(tx)
			refused = err != nil
			return err
		})
		returned = true
		return err
	})
	if !returned || err != nil && !refused {
		return x.fail(fmt.Errorf("write index: %w", err), !returned)
	}
	return err
}

// fail notes err as the answer to every later call and returns it.
func (x *Index) fail(err error, leaked bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failed, x.leaked = err, x.leaked || leaked
	return err
}

func (x *Index) failure() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.failed
}

// contain runs fn, which may touch mapped memory, and turns panics into errors wrapping
// [ErrCorrupt]: bbolt's assertions, and faults of the mapping, which a failing local disk
// can still raise after all checks. It works for the calling goroutine only; therefore
// nothing of bbolt that starts one is called here (Check does, and so does opening a
// database without a stored list of free pages, which checkPages refuses).
func contain(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = corrupt("%.200s", fmt.Sprint(r))
		}
	}()
	return fn()
}

// corrupt returns an error wrapping [ErrCorrupt] with a detail.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(format, args...))
}
