// Package apply puts what a drive holds into a disconnected site: blobs and manifests into
// the local registry, and then the objects that make a cluster use them.
package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/remote"
	"pannier/store"
	"pannier/verify"
	"pannier/verify/custody"
)

// UnpackOptions says what [Unpack] and [Mirror] push, from where and to where. Media, Destination and
// Client must be set.
type UnpackOptions struct {
	Media       []string // one or more drives
	Destination objects.Destination
	Cluster     *objects.Destination // the name by which the nodes know the registry, if another
	Releases    []string             // only these, "4.8.21" or "4.8.21-x86_64"; nil means all
	Client      *remote.Client       // should be confined (remote.Options.Confined)

	Signatures  bundle.SignatureVerifier
	Policy      bundle.Policy
	StoreClient *remote.Client // asks Stores for releases whose drive carries no signature; nil asks nobody
	Stores      []string

	MirrorSet  objects.Kind
	Prefix     string // what stands before the path of additional images
	ObjectsDir string // folder to write the cluster objects to, made if its parent exists; "" writes none
	// RepoPerComponent gives every component a repository of its own too, REPO/NAME, where its
	// tag is the release's. Nodes pull from the destination, which has everything all the same.
	RepoPerComponent bool
	CheckAll         bool // ask the registry for every blob, not only every manifest
	MissingOnly      bool // read only what the registry lacks
	Confirm          bool // after pushing, ask the registry for every manifest and blob; what is lacking is an error
	// OneRelease finds out before anything is pushed that a cluster can be asked for one of the
	// releases, as [Delivery.Next] does. Current is the version that the cluster runs; nil knows
	// of none.
	OneRelease bool
	Current    func(context.Context) (string, error)
	DryRun     bool
	Jobs       int
	Cache      string              // folder on the local disk for copies of indexes; must be given
	Planned    func(*UnpackResult) // called once the plan stands, before anything is pushed; may be nil
	Progress   bundle.ProgressFunc
	Logger     *slog.Logger
}

// Refusal is a blob or an image that was not pushed.
type Refusal struct {
	Digest string
	Images []string
	Err    error
}

// UnpackResult is what [Unpack] or [Mirror] did. It is returned, as far as it came, with an error too.
type UnpackResult struct {
	Plan          bundle.Plan
	Releases      []UnpackedRelease
	LeftOut       []string              // tags of releases on the drives that were not asked for
	Objects       []objects.Object      // to be applied, in order
	Alternatives  []objects.Object      // the mirror set in its other form, never to be applied beside Objects
	InstallConfig []byte                // the same mirrors for install-config.yaml
	Infos         []objects.ReleaseInfo // the complete releases, as ReleaseJSON has them
	ReleaseJSON   []byte                // release.json, for scripts and for apply
	Pushed        bundle.Totals         // read, verified and pushed
	Present       bundle.Totals         // read and verified, the registry had them
	Skipped       bundle.Totals         // not read: the registry had them (MissingOnly)
	Mounted       bundle.Totals         // not read: the registry took them over from a repository of its own (MissingOnly)
	Presumed      bundle.Totals         // on no drive: they were presumed at the registry, which has them
	Documents     bundle.Totals         // captured with the releases: read and verified, they stay on the drive
	Proven        []digest.Digest       // blobs and manifests that were read and were what their digest says
	Manifests     int                   // how many of Proven are manifests, which no total counts
	Refused       []Refusal
	Held          []custody.Held // what the registry said that it holds of it, asked when all was pushed (Confirm)
	Contacts      []remote.Contact
	Warnings      []string
}

// Delivery is what the cluster is to be given of what was unpacked from media, or, without
// media, mirrored.
func (r *UnpackResult) Delivery(media []string) *Delivery {
	from := "what was mirrored"
	if len(media) > 0 {
		from = media[0]
	}
	return &Delivery{From: from, Media: len(media) == 1, Objects: r.Objects, Alternatives: r.Alternatives, Releases: r.Infos, LeftOut: r.LeftOut}
}

// UnpackedRelease is one release of an [UnpackResult].
type UnpackedRelease struct {
	Tag       string
	Digest    string
	Image     string // REG/REPO@sha256:…, by which the nodes know it
	Complete  bool   // everything it needs is at the registry
	Images    int    // components, whose digests are in the release image
	Bytes     int64  // of its blobs, each once, without manifests
	After     string // tag of the complete release that a recorded update leads from; "" if none does
	Signature bundle.SignatureVerdict
}

// Unpack checks the drives, pushes what they hold and renders the cluster objects. It never
// writes to a drive. A bad blob is not pushed, nor is anything that names it; the rest is,
// and the error joins one error for each refusal.
//
// What a drive presumes at the registry is proved to be there before anything is pushed, and
// looked for once more if the push fails.
//
// Errors: [bundle.ErrPresumed] if it is not, [bundle.ErrUnsealed] for what is not sealed, [bundle.ErrDamaged] for a seal that is
// not valid, [bundle.ErrSignature], [bundle.ErrNoRelease], content's errors for bad blobs,
// remote's errors, [ErrNotArrived], and ctx's.
func Unpack(ctx context.Context, opts UnpackOptions) (*UnpackResult, error) {
	u := newUnpacker(opts)
	defer u.close()
	err := u.run(ctx)
	if err != nil {
		for _, d := range u.opened {
			if gone := d.Gone(); gone != nil {
				err = gone // what else was found of it is no more than that
			}
		}
	}
	u.res.Contacts = opts.Client.Contacts()
	u.proveManifests()
	return u.res, err
}

// unpacker is one run of Unpack or Mirror.
type unpacker struct {
	opts UnpackOptions
	log  *slog.Logger
	res  *UnpackResult

	opened   []*bundle.Source
	sources  sources     // those of them that something may be taken from
	hosts    []string    // asked for what is at the sources
	releases []*selected // what is pushed, by tag
	images   []*image    // in order of their tags

	presumed map[digest.Digest]bool // blobs that no drive holds, and one presumes at the registry

	mu   sync.Mutex
	bad  map[digest.Digest]error // blobs and manifests that may not be pushed
	errs []error                 // what was refused before anything was pushed
}

// selected is a release that is to be pushed.
type selected struct {
	from    *bundle.Source
	record  store.Release
	verdict bundle.SignatureVerdict
	unread  bool // its image could not be read, so that nobody knows what it is made of
}

func newUnpacker(opts UnpackOptions) *unpacker {
	if opts.Jobs <= 0 {
		opts.Jobs = 4
	}
	if opts.Progress == nil {
		opts.Progress = func(bundle.Event) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &unpacker{
		opts: opts, log: opts.Logger, res: &UnpackResult{}, bad: map[digest.Digest]error{}, presumed: map[digest.Digest]bool{},
	}
}

func (u *unpacker) close() {
	for _, d := range u.opened {
		d.Close()
	}
}

func (u *unpacker) run(ctx context.Context) error {
	if err := u.open(ctx); err != nil {
		return err
	}
	return u.deliver(ctx)
}

// deliver brings what the sources hold to the destination.
func (u *unpacker) deliver(ctx context.Context) error {
	if err := u.choose(ctx); err != nil {
		return err
	}
	if u.opts.OneRelease {
		if err := u.oneRelease(ctx); err != nil {
			return err
		}
	}
	if len(u.releases) == 0 && len(u.images) == 0 {
		return errors.Join(u.errs...)
	}
	if err := u.walk(ctx); err != nil {
		return err
	}
	u.checkSizes()
	if err := u.compare(ctx); err != nil {
		return err
	}
	if err := u.provePresumed(); err != nil {
		return errors.Join(append(u.errs, err)...)
	}
	u.plan()
	if u.opts.DryRun {
		err := u.render()
		u.res.Plan.Objects = u.res.Objects
		return errors.Join(append(append(u.errs, u.refusals()...), err)...)
	}
	if u.opts.Planned != nil {
		u.opts.Planned(u.res)
	}
	err := u.tryTarget(ctx)
	if err == nil {
		err = u.push(ctx)
	}
	for _, text := range u.sources.healed() {
		u.warn("%s", text)
	}
	if err == nil && u.opts.Confirm {
		err = u.confirm(ctx)
	}
	if err == nil {
		err = u.render()
	}
	if err == nil && u.opts.ObjectsDir != "" {
		err = u.writeObjects()
	}
	errs := append(u.errs, u.refusals()...)
	if err != nil && len(u.presumed) > 0 && ctx.Err() == nil {
		err = u.lostPresumed(ctx, err)
	}
	return errors.Join(append(errs, err)...)
}

// oneRelease finds out whether a cluster can be asked for one of the releases.
func (u *unpacker) oneRelease(ctx context.Context) error {
	d := &Delivery{}
	for _, r := range u.releases {
		updates, err := r.from.Contents.Updates(r.record.Tag)
		if err != nil {
			return err
		}
		d.Releases = append(d.Releases, objects.ReleaseInfo{Version: r.record.Version, Arch: r.record.Arch, Digest: r.record.Descriptor.Digest, Updates: updates})
	}
	if len(d.Releases) < 2 {
		return nil
	}
	current := u.opts.Current
	if current == nil {
		current = func(context.Context) (string, error) { return "", nil }
	}
	_, err := d.Next(ctx, current)
	return err
}

// open opens the drives. One that nothing may be taken from is refused; the others go on.
func (u *unpacker) open(ctx context.Context) error {
	for _, media := range u.opts.Media {
		d, err := bundle.OpenSource(ctx, media, bundle.OpenOptions{Cache: u.opts.Cache, Logger: u.log})
		if err != nil {
			return err
		}
		u.take(d)
	}
	return nil
}

// take adds an opened source, which is closed with the unpacker.
func (u *unpacker) take(d *bundle.Source) {
	u.opened = append(u.opened, d)
	if d.Refused != nil {
		u.errs = append(u.errs, d.Refused)
		return
	}
	switch {
	case d.Unfinished == nil:
	case len(u.opts.Releases) > 0 && errors.Is(d.Unfinished, bundle.ErrUnsealed):
		// What is chosen is sealed, else choose refuses it: a later pack is no matter of it.
		u.warn("%v; if that pack was given up, audit --repair --drop-unfinished removes what it has left", d.Unfinished)
	default:
		u.errs = append(u.errs, d.Unfinished)
	}
	for _, note := range d.Notes {
		u.warn("%s", note)
	}
	u.sources = append(u.sources, d)
}

func (u *unpacker) warn(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.res.Warnings = append(u.res.Warnings, fmt.Sprintf(format, args...))
}

// choose selects the releases and checks their signatures, before anything is pushed.
func (u *unpacker) choose(ctx context.Context) error {
	seen := map[string]digest.Digest{}
	var lacking error
	for _, d := range u.sources {
		tags, err := d.Contents.Select(u.opts.Releases)
		if err != nil && len(u.sources) == 1 {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
		if err != nil {
			lacking = fmt.Errorf("%s: %w", d.Name, err)
		}
		for _, rel := range d.Contents.Releases {
			if !slices.Contains(tags, rel.Tag) && !slices.Contains(u.res.LeftOut, rel.Tag) {
				u.res.LeftOut = append(u.res.LeftOut, rel.Tag)
			}
		}
		for _, tag := range tags {
			rel, _ := d.Contents.Release(tag)
			if other, ok := seen[tag]; ok && other != rel.Descriptor.Digest {
				return fmt.Errorf("%s: %w: %s is %s on one drive and %s on another", d.Name, bundle.ErrConflict, tag, other, rel.Descriptor.Digest)
			}
			seen[tag] = rel.Descriptor.Digest
			if slices.ContainsFunc(u.releases, func(s *selected) bool { return s.record.Tag == tag }) {
				continue // another drive has it, and that was found good
			}
			if err := u.judge(ctx, d, rel); err != nil {
				return err
			}
		}
	}
	if len(seen) == 0 && lacking != nil {
		return lacking
	}
	u.selectImages()
	return nil
}

// judge checks that the source holds what the release image says, and the signature of that,
// unless both have been judged when it was opened; a release that fails is refused as a whole.
func (u *unpacker) judge(ctx context.Context, d *bundle.Source, rel store.Release) error {
	if verdict, ok := d.Judged[rel.Tag]; ok {
		u.releases = append(u.releases, &selected{from: d, record: rel, verdict: verdict})
		return nil
	}
	wrong := d.Contents.CheckPayload(ctx, verified{u.sources}, rel.Tag)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, err := range wrong {
		u.errs = append(u.errs, fmt.Errorf("%s: %w", d.Name, err))
	}
	unread := bundle.Unread(wrong)
	if len(wrong) > 0 && !unread {
		return nil
	}
	verdict, err := verify.Signature(ctx, d.Contents, d.Blobs, rel.Tag, u.opts.Signatures, u.opts.StoreClient, u.opts.Stores)
	if err != nil {
		return err
	}
	s := &selected{from: d, record: rel, verdict: verdict, unread: unread}
	if verdict.Status != bundle.SignatureVerified {
		serr := &bundle.SignatureError{Tag: rel.Tag, Digest: rel.Descriptor.Digest.String(), Verdict: verdict}
		if u.opts.Policy == bundle.PolicyRequire {
			u.errs = append(u.errs, fmt.Errorf("%s: %w", d.Name, serr))
			return nil
		}
		u.warn("%v", serr)
	}
	u.releases = append(u.releases, s)
	return nil
}
