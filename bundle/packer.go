package bundle

import (
	"context"
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

	"pannier/bundle/layout"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
)

// packer is one run of Pack.
type packer struct {
	opts PackOptions
	log  *slog.Logger
	have *Bundle // what stands on the drive; nil if nothing does

	adopt   *Source          // what is taken over; nil if nothing is
	leftOut map[string]error // releases of it that are not
	locals  []*layout.Layout // layouts on the local disk of images that are carried

	adoptProblem error // what is wrong with it beside those

	// base is what the drive's layout index names and this run leaves as it is, or nil. Its
	// blobs are trusted, by record and size, only if a valid seal covers them.
	base    *Contents
	trusted bool
	kept    map[string]bool        // tags of base that were asked for and need nothing
	broken  map[string]error       // tags of base whose manifests cannot be read, and why
	unsound map[digest.Digest]bool // those manifests
	aside   *Contents              // what the layout index names as well, and no seal can cover as it is
	unknown bool                   // there is no index that says what the blobs are for that base does not need
	patch   carried                // what base is read with in place of what the drive has; nil if base is as an index has it

	mu       sync.Mutex // guards what follows while the plan is made
	items    map[digest.Digest]*item
	images   map[string]store.Image // planned in this run, by tag
	releases []*plannedRelease
	replaced map[string]bool // tags on the drive that this run plans anew
	warnings []string
	notes    []string
	sameDisk bool
	path     updatePath
	recalled bool                     // the destination is the one that the drive was packed for before
	asked    []string                 // tags of the releases that were asked for
	clients  map[string]digest.Digest // by path, as they stand on the drive
	fresh    []string                 // paths of clients that this run wrote
	texts    []*givenText             // that were named
	public   bool                     // signatures are looked for in the public stores

	presumed       map[digest.Digest]*item // what images of this run need and the other side holds
	presumedTotals Totals                  // of all that the next seal presumes
	programs       int64                   // bytes of clients and tools that the drive lacks

	layout   *layout.Layout
	index    *store.Index
	work     string // folder of the index's working copy
	instance string
	written  uint64 // newest generation of any of our files on the drive
	sealing  uint64 // generation of the seal that is being written, or stands; 0 before
	orphans  []digest.Digest
	start    string          // START-HERE.txt as it stays; "" writes it anew
	dropped  bool            // the notes of packs that were given up are not taken over
	cover    *cover          // how the next seal is covered by parity
	parity   map[string]bool // folders of parity that the next seal names
}

// item is a blob that the plan wants.
type item struct {
	desc  ocispec.Descriptor
	data  []byte // manifests and documents, at hand since the plan was made
	repos []*remote.Repository
	tags  map[string]bool

	source string         // repository that it comes from, where repos is empty
	local  *layout.Layout // on the local disk that has it, if repos is empty

	state itemState
	begun int64 // bytes of it in a partial file, if state is stateAbsent: a hint
}

type itemState int

const (
	stateAbsent itemState = iota // must be fetched
	stateThere                   // a file of the right size, not covered by a seal: must be hashed
	stateSealed                  // covered by the seal, right size: trusted
)

// plannedRelease is a release that this run captures.
type plannedRelease struct {
	record  store.Release
	payload *release.Payload
	verdict SignatureVerdict
	docs    []document
	text    string   // where its release.txt is from
	asked   []string // stores and what they answered
}

func newPacker(opts PackOptions) (*packer, error) {
	if opts.Jobs <= 0 {
		opts.Jobs = 4
	}
	public := opts.Stores == nil
	if public && (opts.Adopt == "" || len(opts.Releases) > 0) {
		opts.Stores = remote.DefaultSignatureStores
	}
	if opts.Progress == nil {
		opts.Progress = func(Event) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &packer{
		opts: opts, log: opts.Logger, public: public,
		items: map[digest.Digest]*item{}, images: map[string]store.Image{}, replaced: map[string]bool{}, kept: map[string]bool{}, broken: map[string]error{}, unsound: map[digest.Digest]bool{},
	}, nil
}

// open looks at what stands at Media. A folder that is not there yet, an empty one, and one
// in which creation was interrupted are all a bundle that has not begun.
func (p *packer) open(ctx context.Context) error {
	media := p.opts.Media
	fi, err := os.Stat(media)
	if errors.Is(err, fs.ErrNotExist) {
		parent, perr := os.Stat(filepath.Dir(filepath.Clean(media)))
		if perr != nil || !parent.IsDir() {
			return fmt.Errorf("%s: %w: the folder above it does not exist; is the drive mounted?", media, ErrNotBundle)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if fi.IsDir() {
		begun, err := notBegun(media)
		if err != nil {
			return err
		}
		if begun {
			return nil
		}
	}
	if p.have, err = p.openHave(ctx); err != nil {
		return err
	}
	if p.have.IndexProblem != nil && p.have.Index != nil {
		p.warn("the index on the drive cannot be used (%v); it is made again from the layout", p.have.IndexProblem)
	}
	if err := p.takeBase(ctx); err != nil {
		return err
	}
	p.unknown = p.have.IndexProblem != nil && !p.trusted
	p.recall()
	return nil
}

// openHave opens the bundle on the drive, or what a power cut has left of one.
func (p *packer) openHave(ctx context.Context) (*Bundle, error) {
	opts := OpenOptions{Cache: p.opts.Cache, Logger: p.log}
	b, err := Open(ctx, p.opts.Media, opts)
	if !errors.Is(err, ErrNotBundle) {
		return b, err
	}
	if left, rerr := remains(p.opts.Media); rerr != nil || !left {
		return nil, err
	}
	p.warn("%s holds only a part of a bundle, as a power cut leaves on a drive that says that it has written what it has not: what is right of it is kept; do not trust this drive", p.opts.Media)
	l, err := layout.Open(p.opts.Media, layout.Options{Damaged: true})
	if err != nil {
		return nil, err
	}
	return openAt(ctx, l, opts)
}

// notBegun reports whether nothing but what operating systems leave, or the first folders of
// an interrupted creation, stands in dir.
func notBegun(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if SystemFile(e.Name()) {
			continue
		}
		if e.Name() != dirOwn && e.Name() != "blobs" || !e.IsDir() {
			return false, nil
		}
	}
	if _, err := os.Stat(filepath.Join(dir, dirOwn)); err == nil {
		return true, nil
	}
	return emptyBlobs(filepath.Join(dir, "blobs"))
}

// emptyBlobs reports whether dir is what an interrupted creation leaves of blobs/sha256:
// with anything in it, it is somebody else's.
func emptyBlobs(dir string) (bool, error) {
	for _, path := range []string{dir, filepath.Join(dir, "sha256")} {
		entries, err := os.ReadDir(path)
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if len(entries) > 1 || len(entries) == 1 && (path != dir || entries[0].Name() != "sha256") {
			return false, nil
		}
	}
	return true, nil
}

// SystemFile reports whether a name is one that operating systems leave in folders by
// themselves (docs/format.md, "Files that are not ours").
func SystemFile(name string) bool {
	switch name {
	case "System Volume Information", "$RECYCLE.BIN", ".fseventsd", ".DS_Store", "lost+found", ".Spotlight-V100", ".Trashes", ".TemporaryItems":
		return true
	}
	switch strings.ToLower(name) { // Windows does not tell cases apart, and has used several
	case "thumbs.db", "ehthumbs.db", "desktop.ini":
		return true
	}
	return strings.HasPrefix(name, ".Trash-") || strings.HasPrefix(name, "._")
}

func (p *packer) warn(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

// sealed returns the record of a blob that the drive's seal covers.
func (p *packer) sealed(d digest.Digest) (store.Record, bool) {
	if !p.trusted || p.unsound[d] {
		return store.Record{}, false
	}
	r, ok := p.base.Records[d]
	return r, ok
}

// baseTag returns the digest that a tag has on the drive.
func (p *packer) baseTag(tag string) (digest.Digest, bool) {
	if p.base == nil {
		return "", false
	}
	for _, img := range p.base.Images {
		if img.Tag == tag {
			return img.Descriptor.Digest, true
		}
	}
	return "", false
}
