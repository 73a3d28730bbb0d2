// Package layout owns the OCI image layout on the drive (docs/format.md, "The medium"): its
// folders, the blobs in it, how they get there and what may be believed about them.
//
// Invariants. A blob comes under its name only after its size and SHA-256 have been compared
// and its bytes synced, when [Layout.Flush] gives names to all that are whole; it is durable,
// even on FAT, once that has returned.
// Presence of a file proves nothing: a partial download is hashed again before it is
// continued. Whatever the drive holds is hostile: symbolic links and special files are never
// followed or opened, no name leads out of the folder, every read is bounded. Reading never
// writes, creates, locks or syncs.
package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// Names in a layout (docs/format.md, "The medium"). Those under pannier/ are ours.
const (
	blobsDir   = "blobs"
	blobDir    = "blobs/sha256"
	ownDir     = "pannier"
	partialDir = "pannier/partial"
	lockFile   = "pannier/lock"
	// partialExt ends the name of a partial file.
	partialExt = ".download"
)

// Options of [Create] and [Open].
type Options struct {
	// FS opens the folder of the layout; nil is [OpenFS]. Tests put their faults here.
	FS func(dir string) (FS, error)
	// Logger is told what is worth knowing but no error; nil discards.
	Logger *slog.Logger
	// Damaged opens a folder although its oci-layout file is missing or unreadable, for
	// an audit that wants to report just that; and has Create write the file anew, whatever
	// it says, where the caller knows that the folder is ours.
	Damaged bool
}

// Layout is an OCI image layout on a drive. Its methods may be called concurrently.
type Layout struct {
	dir string
	fs  FS
	log *slog.Logger

	flushing sync.Mutex // held by Flush
	mu       sync.Mutex
	busy     map[digest.Digest]chan struct{} // blobs being ingested; closed when done
	waiting  map[digest.Digest]waiting       // blobs that are whole and have no name yet, see Flush
	unsynced map[string]bool                 // files under new names that have not been synced again
	flushErr error                           // sticky, see Flush
}

// Create makes dir an image layout: the folder itself, whose parent must exist, the folders
// for blobs and partial files, and oci-layout. What is already there stays; on a complete
// layout nothing is written. Errors wrap [ErrUnsafe], [ErrNotLayout] if there is an
// oci-layout file of something else, [ErrReadOnly], [ErrNoSpace], and [ErrLocked] if somebody
// else is making it.
func Create(dir string, opts Options) (*Layout, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, classifyCreate(err)
		}
		_ = os.Chmod(dir, 0o755)
	} else if err != nil {
		return nil, err
	}
	l, err := open(dir, opts)
	if err != nil {
		return nil, err
	}
	err = l.init(opts.Damaged)
	if err == nil {
		err = syncAbove(dir)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// syncAbove makes the name of the folder dir itself durable, whoever made it: without that
// all that is in it is lost with the name.
func syncAbove(dir string) error {
	above, err := OpenFS(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		if toleratedOnDir(err) {
			return nil // it is not ours to read
		}
		return err
	}
	defer above.Close()
	if err := above.SyncDir("."); err != nil && !toleratedOnDir(err) {
		return fmt.Errorf("the folder above %s: %w", dir, classify(err))
	}
	return nil
}

// Open opens the existing image layout in dir, without side effects. Errors wrap
// [ErrNotLayout], also where there is nothing at all, and [ErrUnsafe].
func Open(dir string, opts Options) (*Layout, error) {
	l, err := open(dir, opts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotLayout, err)
	}
	if err != nil {
		return nil, err
	}
	if err := l.checkFolders(); err != nil {
		l.Close()
		return nil, err
	}
	if err := l.checkMarker(); err != nil && !opts.Damaged {
		l.Close()
		return nil, err
	}
	return l, nil
}

func open(dir string, opts Options) (*Layout, error) {
	openFS := opts.FS
	if openFS == nil {
		openFS = OpenFS
	}
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f, err := openFS(dir)
	if err != nil {
		return nil, err
	}
	return &Layout{
		dir: dir, fs: f, log: log,
		busy: map[digest.Digest]chan struct{}{}, waiting: map[digest.Digest]waiting{}, unsynced: map[string]bool{},
	}, nil
}

// Close lets go of the drive, so that it can be unmounted. It does not flush.
func (l *Layout) Close() error { return l.fs.Close() }

// Dir returns the folder as it was given.
func (l *Layout) Dir() string { return l.dir }

// init makes what is missing.
func (l *Layout) init(damaged bool) error {
	if err := l.MakeFolders(); err != nil {
		return err
	}
	err := l.checkMarker()
	if err == nil {
		return nil
	}
	// Two may begin at the same moment: only one of them writes.
	unlock, err := l.Lock("making the image layout")
	if err != nil {
		return err
	}
	defer unlock()
	if err = l.checkMarker(); err == nil {
		return nil
	}
	ours := damaged && (errors.Is(err, ErrNotLayout) || errors.Is(err, content.ErrSize))
	if !ours {
		unfinished, uerr := l.markerUnfinished()
		if uerr != nil {
			return uerr
		}
		if !unfinished {
			return err
		}
	}
	marker, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	return l.ReplaceFile(ocispec.ImageLayoutFile, marker)
}

// MakeFolders makes the folders for blobs and partial files that are missing.
func (l *Layout) MakeFolders() error {
	if err := l.mkdirAll(blobDir); err != nil {
		return err
	}
	return l.mkdirAll(partialDir)
}

// checkFolders refuses a layout whose folders are something else. Missing ones are an empty
// layout's.
func (l *Layout) checkFolders() error {
	for _, name := range []string{blobsDir, blobDir, ownDir, partialDir} {
		fi, err := l.fs.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !fi.IsDir():
			return refuse(l.path(name), fi.Mode())
		}
	}
	return nil
}

// maxMarker bounds the oci-layout file: a JSON object of one short field.
const maxMarker = 4096

// checkMarker looks at the file that makes a folder an image layout.
func (l *Layout) checkMarker() error {
	raw, err := l.ReadFile(ocispec.ImageLayoutFile, maxMarker)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotLayout, err)
	}
	if err != nil {
		return err
	}
	var marker ocispec.ImageLayout
	if err := json.Unmarshal(raw, &marker); err != nil {
		return fmt.Errorf("%s: %w: %w", l.path(ocispec.ImageLayoutFile), ErrNotLayout, err)
	}
	if marker.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("%s: %w of version %s: this is version %q",
			l.path(ocispec.ImageLayoutFile), ErrNotLayout, ocispec.ImageLayoutVersion, marker.Version)
	}
	return nil
}

// markerUnfinished reports whether oci-layout is missing, or holds what an interrupted Create
// leaves: nothing, the beginning, or zeros where data never arrived.
func (l *Layout) markerUnfinished() (bool, error) {
	raw, err := l.ReadFile(ocispec.ImageLayoutFile, maxMarker)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case errors.Is(err, content.ErrSize):
		return false, nil
	case err != nil:
		return false, err
	}
	return strings.Trim(string(raw), "\x00") == "" ||
		strings.HasPrefix(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`, string(raw)), nil
}

// mkdirAll makes the folder name and those above it, 0755, and syncs the folder above each
// new one.
func (l *Layout) mkdirAll(name string) error {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		sub := name[:i]
		fi, err := l.fs.Lstat(sub)
		if err == nil && !fi.IsDir() {
			return refuse(l.path(sub), fi.Mode())
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := l.fs.Mkdir(sub, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return classifyCreate(err)
		}
		if err := l.syncDirs(parent(sub)); err != nil {
			return err
		}
	}
	return nil
}

// parent returns the folder that name is in, "." at the top.
func parent(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return "."
}
