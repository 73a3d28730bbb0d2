package bundle

import (
	"context"
	"errors"
	"log/slog"

	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/remote"
)

// Policy says what happens to a release whose signature is missing or not trusted.
type Policy int

const (
	// PolicyRequire refuses such a release. It is the zero value.
	PolicyRequire Policy = iota
	// PolicyWarn carries it and says so.
	PolicyWarn
)

// PackOptions says what [Pack] packs, from where and onto what. Media and Client must be
// set; the zero value of every other field works.
type PackOptions struct {
	Releases   []release.Reference // what to pack
	Additional []release.Reference // other images to carry
	Media      string              // root of the bundle; made if its parent exists
	Client     *remote.Client      // reaches the source registries and the signature stores

	Signatures SignatureVerifier // judges releases; nil finds every signature unverified
	Stores     []string          // signature stores; nil means remote.DefaultSignatureStores
	Policy     Policy

	Destination *objects.Destination // if known, its mirror set is rendered and kept
	MirrorSet   objects.Kind         // kind of mirror set; "" chooses by the release
	Prefix      string               // what stands before additional images' path at the destination

	DryRun  bool // plan only; nothing is written anywhere
	Refresh bool // ask again for the captured documents of sealed releases
	Jobs    int  // parallel transfers; 0 means 4

	Cache    string       // folder on the local disk for the working copy of the index; must be given
	Program  string       // name and version of the program, for the seal
	Progress ProgressFunc // may be nil
	Logger   *slog.Logger // may be nil
}

// Count is a number of things, of which some are there and the others are to be moved.
type Count struct {
	Total    int64 `json:"total"`
	Present  int64 `json:"present"`
	Transfer int64 `json:"transfer"`
}

// Plan is what a run will do, or would do: the set of blobs that are wanted less those that
// are present. Manifests are counted apart from other blobs.
type Plan struct {
	Blobs      Count            // number of blobs, manifests not among them
	Bytes      Count            // their bytes
	Manifests  int              // manifests and lists
	Tags       []string         // tags that will stand in the layout or at the registry, sorted
	Objects    []objects.Object // cluster objects that are rendered
	Free       int64            // free bytes where Media lies; -1 if not known
	Missing    int64            // bytes that are lacking there; 0 if it fits
	Filesystem string           // its type, "exfat"; "" if not known
	Hosts      []string         // hosts that were or will be asked
}

// PackResult is what [Pack] did. It is returned, as far as it came, with an error as well.
type PackResult struct {
	Plan      Plan
	Releases  []PackedRelease
	Objects   []objects.Object // rendered for Destination
	Unchanged bool             // everything was there and sealed already
	Sealed    bool
	BundleID  string
	Moved     int64  // bytes fetched and written in this run
	Resumed   int64  // bytes taken over from partial files of earlier runs
	Blobs     int    // blobs and manifests on the drive
	Bytes     int64  // their bytes
	ReadBack  string // how the read-back passed the cache, in words
	Warnings  []string
}

// PackedRelease is one release of a [PackResult].
type PackedRelease struct {
	Tag       string // "4.8.21-x86_64"
	Digest    string
	Images    int // components
	Signature SignatureVerdict
}

// Pack puts releases and additional images on the drive at opts.Media and seals it. Running
// it again with the same options continues where it stopped; on a sealed bundle that holds
// everything it costs one request a release and writes nothing.
//
// Errors: [ErrNotBundle] if Media is something else, [ErrVersion] if it is of a newer format,
// [ErrSignature] if a release is not signed by somebody trusted, layout.ErrNoSpace and its
// siblings, remote's errors, release.ErrPayload and content's errors for wrong bytes. On
// cancellation of ctx the state is saved and ctx's error returned.
func Pack(ctx context.Context, opts PackOptions) (*PackResult, error) {
	return nil, errors.New("pack: not there yet")
}
