package bundle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"pannier/bundle/content"
	"pannier/bundle/graph"
	"pannier/bundle/layout"
	"pannier/bundle/objects"
	"pannier/bundle/parity"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
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
	Local      []LocalImage        // images of layouts on the local disk to carry
	Only       *RefetchList        // in place of both: make a supplement of what it names
	Media      string              // root of the bundle; made if its parent exists
	Client     *remote.Client      // reaches the source registries and the signature stores

	Signatures SignatureVerifier // judges releases; nil finds every signature unverified
	Stores     []string          // signature stores; nil means remote.DefaultSignatureStores
	Policy     Policy

	// Texts are files or addresses of release.txt, each for the release that it says it is
	// of. nil asks the public client mirror for those of releases that come, with their
	// signatures, from their public places; an empty list asks for none.
	Texts []string

	Clients    []release.Platform // take oc and openshift-install for these out of the releases
	AnyClients bool               // a platform that a release has no oc for is no error
	Tools      []Tool             // this program, for these platforms, onto the drive too

	Updates UpdateOptions // the path of updates to pack, if one is wanted

	Destination *objects.Destination // if known, its mirror set is rendered and kept; nil takes that of an earlier run
	MirrorSet   objects.Kind         // kind of mirror set; "" chooses by the release
	Prefix      string               // what stands before additional images' path at the destination

	// Adopt is a folder that oc adm release mirror wrote, or another bundle: what is wanted is
	// copied from there, hashed, before a registry is asked for it. Without Releases all that
	// are there, whole and signed, are taken over, and no registry is asked.
	Adopt string

	// Have says what registries on the other side hold. Of what the images need the drive then
	// gets what one of those lacks, and presumes the rest (docs/format.md, "Presumed blobs").
	Have []Holdings

	DryRun  bool         // plan only; nothing is written anywhere
	Refresh bool         // ask again for the captured documents of sealed releases
	Parity  parity.Share // how much parity stands for what has none yet; 0 for none
	Verify  bool         // hash what the seal covers too, and fetch again what is bad
	Jobs    int          // parallel transfers; 0 means 4

	Cache    string                              // folder on the local disk for the working copy of the index; must be given
	Program  string                              // name and version of the program, for the seal
	FS       func(dir string) (layout.FS, error) // opens the drive for writing; nil is layout.OpenFS. Tests put faults here
	Planned  func(*PackResult)                   // called once the plan stands, before anything is written; may be nil
	Progress ProgressFunc                        // may be nil
	Logger   *slog.Logger                        // may be nil
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
	Bytes      Count            // their bytes; of downloads that had begun, Present has what is there of them
	Begun      int              // pack only: blobs to be moved of which a part is there
	Resumed    int64            // bytes of those parts, which are in Bytes.Present
	Manifests  int              // manifests and lists
	Tags       []string         // tags that will stand in the layout or at the registry, sorted
	Objects    []objects.Object // cluster objects that are rendered
	Free       int64            // free bytes where Media lies; -1 if not known
	Need       int64            // pack only: bytes that the run will write there, with parity and all else that is no blob
	Missing    int64            // bytes that are lacking there; 0 if it fits
	Filesystem string           // its type, "exfat"; "" if not known
	Path       []graph.Edge     // updates that the releases are for, in order
	Hosts      []string         // hosts that were or will be asked
	Parity     PlannedParity    // pack only
	Presumed   Totals           // blobs that are not moved and not there, since a registry on the other side holds them
}

// PackResult is what [Pack] did. It is returned, as far as it came, with an error as well.
type PackResult struct {
	Plan      Plan
	Releases  []PackedRelease
	Unchanged bool // everything was there and sealed already
	Sealed    bool
	BundleID  string
	Tools     []InstalledTool // under the seal: those of this run, and those that were there

	Destination *objects.Destination // that START-HERE.txt names: of this run, or of an earlier one; nil if none is known

	Moved     int64 // bytes fetched and written in this run
	Adopted   int64 // bytes copied in this run from what was taken over
	Resumed   int64 // bytes taken over from partial files of earlier runs
	Blobs     int   // blobs and manifests on the drive
	Manifests int   // how many of them are manifests and lists
	Bytes     int64 // their bytes
	ReadBack  ReadBack
	SameDisk  bool // Media lies on the same device as /: perhaps no drive is mounted there
	Warnings  []string
	Notes     []string // what a person should know although it is no reason to worry
}

// PackedRelease is one release of a [PackResult].
type PackedRelease struct {
	Tag       string // "4.8.21-x86_64"
	Digest    string
	Images    int // components
	Signature SignatureVerdict
	Text      string // where the release.txt that agrees with it is from; "" if none was compared
	Kept      bool   // it was on the drive, sealed, before this run
}

// Pack puts releases and additional images on the drive at opts.Media and seals it. Running
// it again with the same options continues where it stopped; on a sealed bundle that holds
// everything it costs one request a release and writes nothing.
//
// Errors: [ErrNotBundle] if Media is something else, [ErrVersion] if it is of a newer format,
// [ErrSignature] if a release is not signed by somebody trusted, [ErrDisagree] if its release.txt
// names another digest, graph.ErrUnknown and graph.ErrNoPath, [ErrNoClient], layout.ErrNoSpace and its siblings,
// layout.ErrGone if the drive was pulled, remote's errors, release.ErrPayload and content's
// errors for wrong bytes. On
// cancellation of ctx the state is saved and ctx's error returned.
//
// What is taken over (Adopt) and is not whole or not signed is left out, with an error in the
// end: [ErrIncomplete], [ErrDamaged] or [ErrSignature]; the rest is sealed.
func Pack(ctx context.Context, opts PackOptions) (*PackResult, error) {
	leftOut := map[string]error{} // releases that cannot be taken over, by tag
	for {
		p, err := newPacker(opts)
		if err != nil {
			return nil, err
		}
		p.leftOut = leftOut
		res := &PackResult{}
		err = layout.Diagnose(opts.Media, p.run(ctx, res))
		res.Warnings, res.Notes = p.warnings, p.notes
		var bad *adoptError
		if !errors.As(err, &bad) || len(bad.releases) == 0 {
			errs := []error{err, p.adoptProblem}
			for _, tag := range slices.Sorted(maps.Keys(leftOut)) {
				errs = append(errs, leftOut[tag])
			}
			return res, errors.Join(errs...)
		}
		for _, tag := range bad.releases {
			leftOut[tag] = bad.err
		}
	}
}

func (p *packer) run(ctx context.Context, res *PackResult) error {
	if err := p.open(ctx); err != nil {
		return err
	}
	if p.have != nil {
		defer p.have.Close()
	}
	res.Destination = p.opts.Destination
	p.warnLoopback()
	if err := p.openAdopted(ctx); err != nil {
		return err
	}
	if p.adopt != nil {
		defer p.adopt.Close()
	}
	defer func() {
		for _, l := range p.locals {
			l.Close()
		}
	}()
	if err := p.resolveAll(ctx); err != nil {
		return err
	}
	if p.adoptsAll() && len(p.items) == 0 && len(p.kept) == 0 {
		if p.adoptProblem == nil && len(p.leftOut) == 0 {
			return fmt.Errorf("%s: %w: there is none to take over", p.opts.Adopt, ErrNoRelease)
		}
		return nil // nothing of it can be sealed
	}
	plan, err := p.compare(ctx)
	if err != nil {
		return err
	}
	res.Plan, res.SameDisk = plan, p.sameDisk
	p.summarize(res)
	res.Warnings = p.warnings
	if p.opts.Planned != nil {
		p.opts.Planned(res)
	}
	if p.opts.DryRun {
		if p.unchanged() {
			return nil
		}
		return p.checkSpace(plan) // that it would not fit is worth knowing
	}
	if p.unchanged() {
		p.stays(res)
		return nil
	}
	if err := p.checkSpace(plan); err != nil {
		return err
	}
	return p.carryOut(ctx, res)
}

// compare finds out what of all that is planned is on the drive, and plans the rest.
func (p *packer) compare(ctx context.Context) (Plan, error) {
	if err := p.checkClients(); err != nil {
		return Plan{}, err
	}
	if err := p.classify(); err != nil {
		return Plan{}, err
	}
	if err := p.presume(); err != nil {
		return Plan{}, err
	}
	var err error
	if p.cover, err = p.planCover(ctx); err != nil {
		return Plan{}, err
	}
	return p.plan()
}

// stays reports a drive that needs nothing.
func (p *packer) stays(res *PackResult) {
	res.Unchanged, res.Sealed = true, true
	res.take(p.have.Seal)
	res.Tools = p.have.Tools()
	for _, r := range p.base.Records {
		res.count(r)
	}
	res.ReadBack = ReadBack{} // nothing was read in this run
}

// carryOut does what was planned, and seals it.
func (p *packer) carryOut(ctx context.Context, res *PackResult) error {
	end, err := p.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	seal, err := p.move(ctx, res)
	if err = p.layout.Diagnose(err); err != nil {
		if seal != nil {
			return fmt.Errorf("the drive is sealed, but what is not needed any more could not be removed: %w", err)
		}
		if serr := p.publishSnapshot(); serr != nil {
			p.log.Warn("the state could not be written to the drive; the next run hashes what is there", "err", serr)
		}
		return err
	}
	res.Sealed = true
	res.take(seal)
	res.Tools = installedTools(p.clients)
	return p.index.Records(func(r store.Record) error {
		res.count(r)
		return nil
	})
}

// move moves the blobs, and seals.
func (p *packer) move(ctx context.Context, res *PackResult) (seal *Seal, err error) {
	if err = p.transfer(ctx, res); err != nil {
		return nil, err
	}
	return p.publish(ctx)
}

// unchanged reports whether the seal on the drive covers everything that is asked for, and
// nothing was left behind by an interrupted run.
func (p *packer) unchanged() bool {
	return p.trusted && p.have.smallFilesSound() && !p.have.Interrupted && !p.have.Leftovers && len(p.have.SealProblems) == 0 &&
		p.have.IndexProblem == nil && len(p.items) == 0 && len(p.cover.bare) == 0 && !p.lacksClients() && len(p.lackingTools()) == 0
}

// summarize tells of the releases that were asked for, those that were there already too.
func (p *packer) summarize(res *PackResult) {
	for _, pr := range p.releases {
		res.Releases = append(res.Releases, PackedRelease{
			Tag: pr.record.Tag, Digest: pr.record.Descriptor.Digest.String(),
			Images: len(pr.payload.Images), Signature: pr.verdict, Text: pr.text,
		})
	}
	for _, r := range p.allReleases() {
		if !slices.ContainsFunc(res.Releases, func(o PackedRelease) bool { return o.Tag == r.Tag }) {
			res.Releases = append(res.Releases, PackedRelease{
				Tag: r.Tag, Digest: r.Descriptor.Digest.String(), Images: p.base.Components(r.Tag),
				Signature: SignatureVerdict{Status: r.Signature}, Kept: true,
			})
		}
	}
	slices.SortFunc(res.Releases, func(a, b PackedRelease) int { return strings.Compare(a.Tag, b.Tag) })
}

// count counts a record of what is sealed.
func (res *PackResult) count(r store.Record) {
	if r.Sealed > 0 && content.IsManifest(r.MediaType) {
		res.Manifests++
	}
}

// take tells of a seal.
func (res *PackResult) take(s *Seal) {
	res.BundleID = s.Bundle.String()
	res.Blobs, res.Bytes = s.Totals.Blobs, s.Totals.Bytes
	res.ReadBack = s.ReadBack
}
