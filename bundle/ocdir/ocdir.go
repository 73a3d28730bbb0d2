// Package ocdir reads the folders that oc adm release mirror --to-dir writes:
//
//	v2/openshift/release/blobs/sha256:<hex>       blobs, manifests among them
//	v2/openshift/release/manifests/sha256:<hex>   manifests, hard links to those
//	v2/openshift/release/manifests/<tag>          symbolic link to sha256:<hex> beside it
//	config/signature-sha256-<16 hex>.json|.yaml   ConfigMaps with signatures
//
// On Windows oc writes a hyphen for the colon. It hashes nothing of what it writes, syncs
// nothing, and leaves <name>.download behind where it was interrupted.
//
// Invariants. Nothing is written. Whatever the folder holds is hostile: no name leads out of
// it, links are read only as tags, beside the manifest that they name, and special files are
// never opened; every read is bounded. What [Tree.Fetch] returns is not verified;
// what [Tree.Manifest] returns is.
package ocdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/layout"
)

// Where things are, below the folder.
const (
	releaseDir   = "v2/openshift/release"
	blobsDir     = releaseDir + "/blobs"
	manifestsDir = releaseDir + "/manifests"
	configDir    = "config"
)

// maxNames bounds how many names of one folder are looked at.
const maxNames = 1_000_000

// Is reports whether dir is such a folder. It says nothing of what is in it.
func Is(dir string) bool {
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() { // opening a pipe would wait for ever
		return false
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false
	}
	defer root.Close()
	for _, name := range []string{blobsDir, manifestsDir} {
		if fi, err := root.Stat(name); err == nil && fi.IsDir() {
			return true
		}
	}
	return false
}

// Find looks for such a folder near path: one that path lies in, or one that lies in path, as
// where a drive is named by its mount point. It returns "" if there is none, or if path is one
// itself.
func Find(path string) string {
	if Is(path) {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		for range len(releaseDir) { // a few levels; the top ends it before
			parent := filepath.Dir(abs)
			if parent == abs {
				break
			}
			if abs = parent; Is(abs) {
				return abs
			}
			if base := filepath.Base(abs); base != "v2" && base != "openshift" && base != "release" {
				break // path is beside a folder, not in it
			}
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	names, _ := f.Readdirnames(100) // of a folder full of other things a few will do
	slices.Sort(names)
	for _, name := range names {
		if dir := filepath.Join(path, name); Is(dir) {
			return dir
		}
	}
	return ""
}

// File is a file in the folders of blobs and manifests that is no tag.
type File struct {
	Path    string        // below the tree, with slashes
	Digest  digest.Digest // that its name states; "" if it states none
	Size    int64         // bytes
	Partial bool          // oc was interrupted while it wrote it
	Again   bool          // another file of that digest stands before it
	Linked  bool          // and is the same file
	Err     error         // why it is no file of such a tree; nil of the others
}

// Tag is a name that a manifest has.
type Tag struct {
	Name   string
	Path   string // below the tree, with slashes
	Digest digest.Digest
}

// Problem is what is wrong with one file of the tree that is no blob.
type Problem struct {
	Path string
	Err  error
}

// Tree is an opened folder. It keeps the folder open until Close. Its methods may be called
// concurrently.
type Tree struct {
	dir     string
	folders map[string]*os.Root // by their names below the tree; absent ones are not there

	files      []File
	tags       []Tag
	problems   []Problem
	places     map[digest.Digest][]place
	signatures map[digest.Digest][][]byte

	signed, signedBytes int // files with signatures, and bytes of those
}

// place is where a file is.
type place struct {
	folder, name string
	size         int64
	info         fs.FileInfo
}

// Open reads what the folder dir holds: names, tags and signatures; no blob is read. Errors
// wrap [layout.ErrUnsafe] if one of its folders is a link, and [content.ErrInvalid] if it
// holds more names than any release could need. What is wrong with single files is no error
// here.
func Open(dir string) (*Tree, error) {
	t := &Tree{dir: dir, folders: map[string]*os.Root{}, places: map[digest.Digest][]place{}, signatures: map[digest.Digest][][]byte{}}
	if err := t.open(); err != nil {
		t.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return t, nil
}

func (t *Tree) open() error {
	root, err := os.OpenRoot(t.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range []string{blobsDir, manifestsDir, configDir} {
		f, err := openFolder(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		t.folders[name] = f
	}
	if err := t.list(blobsDir, t.blob); err != nil {
		return err
	}
	if err := t.list(manifestsDir, t.manifest); err != nil {
		return err
	}
	return t.list(configDir, t.signature)
}

// openFolder opens a folder through real folders alone: an os.Root would follow a link that
// stays in it.
func openFolder(root *os.Root, name string) (*os.Root, error) {
	at := root
	parts := splitPath(name)
	for i, part := range parts {
		fi, err := at.Lstat(part)
		if err == nil && !fi.IsDir() {
			err = fmt.Errorf("%s: %w", name, layout.ErrUnsafe)
		}
		var next *os.Root
		if err == nil {
			next, err = at.OpenRoot(part)
		}
		if i > 0 {
			at.Close()
		}
		if err != nil {
			return nil, err
		}
		at = next
	}
	return at, nil
}

// Close lets go of the folder.
func (t *Tree) Close() error {
	var errs []error
	for _, f := range t.folders {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Dir returns the folder as it was given.
func (t *Tree) Dir() string { return t.dir }

// Files lists what the folders of blobs and manifests hold beside tags, sorted by path.
func (t *Tree) Files() []File { return t.files }

// Tags lists the tags that name a manifest, sorted.
func (t *Tree) Tags() []Tag { return t.tags }

// Problems lists what is wrong with tags and signature files.
func (t *Tree) Problems() []Problem { return t.problems }

// Signatures are the signatures in config, by the digest that each says it is for. They are
// not checked.
func (t *Tree) Signatures() map[digest.Digest][][]byte { return t.signatures }

// Path is where a blob is, below the tree with slashes; of one that is not there, where it
// would be.
func (t *Tree) Path(d digest.Digest) string {
	if p := t.places[d]; len(p) > 0 {
		return p[0].folder + "/" + p[0].name
	}
	return blobsDir + "/" + d.String()
}

var _ content.Fetcher = (*Tree)(nil)
