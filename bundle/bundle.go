// Package bundle says what a bundle is, the thing that stands on a drive: it creates, opens,
// plans, fills and seals it.
//
// Everything in a bundle is a set of blobs named by their digests; every run is set
// arithmetic on them (wanted less present) followed by one loop. Invariants:
//
//   - a record that says complete implies a durable blob; a blob without a record is adopted
//     after hashing, never trusted;
//   - names and promises (index.json, the index, the seal) are written only after everything
//     that they name is durable, and the seal last of all;
//   - until the next seal is durable, everything that the last one covers stays as it is.
//
// The medium is specified in docs/format.md.
package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/ocdir"
	"pannier/store"
)

// FormatVersion is the version of the medium that this program writes, and the newest that
// it reads (docs/format.md, "Versions").
const FormatVersion = 1

// Names on the drive (docs/format.md, "Tree of the medium").
const (
	fileIndexJSON = "index.json"
	fileSums      = "SHA256SUMS"
	fileStart     = "START-HERE.txt"
	dirOwn        = "pannier"
	dirObjects    = "pannier/objects"
)

const (
	maxIndexJSON = 64 << 20 // bytes of index.json that are read
	maxIndexDB   = 1 << 30  // bytes of a snapshot of the index that are copied
)

// Bundle is a bundle opened for reading; it keeps its folder open until Close.
type Bundle struct {
	Layout *layout.Layout

	// Seal is the newest valid seal, nil if there is none.
	Seal *Seal
	// SealProblems says why seals that stand on the drive are not valid.
	SealProblems []FileProblem
	// Interrupted says that a pack was begun after Seal and not finished: what is newer than
	// Seal is partial.
	Interrupted bool
	// Leftovers says that a pack was interrupted after its seal, while it removed what the seal
	// before it had needed.
	Leftovers bool

	// Index is the layout index that counts: the one that Seal names, or index.json of a
	// bundle without seal. Nil if a bundle without seal has none yet.
	Index *ocispec.Index
	// Contents is what Index names, from the bbolt index where that is sound, else from the
	// layout itself. Of a bundle without seal it is all that the bbolt index knows of.
	Contents *Contents
	// Pending are the blobs, by digest, of what a pack wanted and did not finish beside what
	// Seal covers, as far as the newest index on the drive tells.
	Pending map[digest.Digest]store.Record
	// IndexProblem says why the bbolt index was not used; nil if it was.
	IndexProblem error

	unlisted error // why the folder of our own files could not be listed
}

// FileProblem is what is wrong with one of our own files.
type FileProblem struct {
	Path string // below the root, with slashes
	Err  error
}

// OpenOptions are the options of [Open].
type OpenOptions struct {
	Cache  string       // folder on the local disk, for a copy of the index; must be given
	Logger *slog.Logger // may be nil
}

// Open reads what a bundle says of itself: seal, layout index and bbolt index. It hashes
// nothing but these and writes nothing to the drive.
//
// Errors: [ErrNotBundle], [ErrVersion], and [ErrDamaged] if there is a seal but the layout
// index that it names is nowhere on the drive. A bundle without a valid seal is no error
// here: look at Seal.
func Open(ctx context.Context, media string, opts OpenOptions) (*Bundle, error) {
	l, err := openLayout(media)
	if err != nil {
		return nil, layout.Diagnose(media, err)
	}
	return openAt(ctx, l, opts)
}

// openAt is [Open] of a layout, which it closes if that fails.
func openAt(ctx context.Context, l *layout.Layout, opts OpenOptions) (*Bundle, error) {
	b := &Bundle{Layout: l}
	err := b.read(ctx, opts)
	if err == nil {
		err = b.unlisted
	}
	if err = l.Diagnose(err); err != nil {
		l.Close()
		return nil, err
	}
	return b, nil
}

// Close lets go of the drive.
func (b *Bundle) Close() error { return b.Layout.Close() }

func (b *Bundle) read(ctx context.Context, opts OpenOptions) error {
	if err := b.findSeal(); err != nil {
		return err
	}
	if err := b.loadIndexJSON(); err != nil {
		return err
	}
	var here *localError
	b.Contents, b.IndexProblem = b.contentsFromIndex(opts.Cache)
	switch {
	case errors.As(b.IndexProblem, &here):
		return here
	case b.IndexProblem == nil:
		if b.Seal != nil {
			b.readPending(opts.Cache)
		}
		return nil
	case errors.Is(b.IndexProblem, store.ErrVersion):
		return fmt.Errorf("%s: %w", b.Layout.Dir(), ErrVersion)
	case b.Index == nil:
		b.Contents = &Contents{}
		return nil
	}
	var err error
	if b.Contents, err = ContentsFromLayout(ctx, b.Layout, b.Index); err != nil {
		return fmt.Errorf("%s: the layout cannot be read either: %w", b.Layout.Dir(), err)
	}
	return nil
}

// parseIndex is layout.ParseIndex, and refuses a ref name that stands twice: which of the two
// is meant, every reader decides otherwise.
func parseIndex(raw []byte) (*ocispec.Index, error) {
	idx, err := layout.ParseIndex(raw)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(idx.Manifests))
	for _, d := range idx.Manifests {
		if tag := d.Annotations[ocispec.AnnotationRefName]; tag != "" {
			if seen[tag] {
				return nil, fmt.Errorf("%w: two entries are named %q", content.ErrInvalid, tag)
			}
			seen[tag] = true
		}
	}
	return idx, nil
}

// openLayout refuses what is no bundle with words that say why.
func openLayout(media string) (*layout.Layout, error) {
	fi, err := os.Lstat(media)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: it does not exist", media, ErrNotBundle)
	}
	if err != nil {
		return nil, err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		if fi, err = os.Stat(media); err != nil {
			return nil, err
		}
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("%s: %w: it is a file, and MEDIA is a folder", media, ErrNotBundle)
	}
	own, ownErr := os.Lstat(filepath.Join(media, dirOwn))
	if ownErr == nil && own.IsDir() {
		return layout.Open(media, layout.Options{Damaged: true})
	}
	if ownErr != nil && !errors.Is(ownErr, fs.ErrNotExist) {
		return nil, ownErr
	}
	if ocdir.Is(media) {
		return nil, &DirectoryError{Dir: media}
	}
	if tree := ocdir.Find(media); tree != "" {
		return nil, fmt.Errorf("%s: %w: did you mean %s, which oc adm release mirror wrote?", media, ErrNotBundle, tree)
	}
	if l, err := readLeft(media); err == nil && l != nil {
		if ours, _ := l.whose(); ours {
			return nil, fmt.Errorf("%s: %w: %w: a pack onto it keeps what is right, and seals it again", media, ErrNotBundle, ErrRecordsLost)
		}
	}
	if _, err := os.Lstat(filepath.Join(media, ocispec.ImageLayoutFile)); err == nil {
		return nil, fmt.Errorf("%s: %w: it is an OCI image layout that pannier did not write", media, ErrNotBundle)
	}
	if begun, err := notBegun(media); err == nil && begun {
		return nil, fmt.Errorf("%s: %w: nothing has been packed there", media, ErrNotBundle)
	}
	switch inside := bundlesInside(media); len(inside) {
	case 0:
	case 1:
		return nil, fmt.Errorf("%s: %w: did you mean %s, which is in it?", media, ErrNotBundle, inside[0])
	default:
		return nil, fmt.Errorf("%s: %w: did you mean one of those in it: %s?", media, ErrNotBundle, content.Few(inside))
	}
	return nil, fmt.Errorf("%s: %w: it is a folder with other things in it", media, ErrNotBundle)
}

// bundlesInside finds the bundles that lie in folders of media: drives are named by the place
// where they are mounted more often than not.
func bundlesInside(media string) (found []string) {
	f, err := os.Open(media)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(100) // of a folder full of other things a few will do
	slices.Sort(names)
	for _, name := range names {
		dir := filepath.Join(media, name)
		for _, own := range []string{dirOwn, ocispec.ImageLayoutFile} {
			if _, err = os.Lstat(filepath.Join(dir, own)); err != nil {
				break
			}
		}
		if err == nil {
			found = append(found, dir)
		}
	}
	return found
}

// loadIndexJSON finds the layout index that counts.
func (b *Bundle) loadIndexJSON() error {
	if b.Seal == nil {
		raw, err := b.Layout.ReadFile(fileIndexJSON, maxIndexJSON)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil && !errors.Is(err, content.ErrSize) {
			return err
		}
		var idx *ocispec.Index
		if err == nil {
			idx, err = parseIndex(raw)
		}
		if err != nil {
			b.SealProblems = append(b.SealProblems, FileProblem{fileIndexJSON, err})
			return nil
		}
		b.Index = idx
		return nil
	}
	want := b.Seal.Files[fileIndexJSON]
	for _, name := range []string{fileIndexJSON, layoutName(b.Seal.Generation)} {
		raw, err := b.Layout.ReadFile(name, min(want.Size, maxIndexJSON))
		if err != nil || want.Check(raw) != nil {
			continue
		}
		idx, err := parseIndex(raw)
		if err != nil {
			b.SealProblems = append(b.SealProblems, FileProblem{name, fmt.Errorf("%w: %w", ErrDamaged, err)})
			b.Seal = nil
			return nil
		}
		b.Index = idx
		return nil
	}
	b.SealProblems = append(b.SealProblems, FileProblem{fileIndexJSON, fmt.Errorf(
		"%w: the layout index that the seal names is neither %s nor %s", ErrDamaged, fileIndexJSON, layoutName(b.Seal.Generation))})
	b.Seal = nil
	return nil
}
