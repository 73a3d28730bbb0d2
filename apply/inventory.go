package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/verify/custody"
)

// held lists what the registry has of the images, by repository, as the last comparison found.
func (u *unpacker) held() []custody.Held {
	var out []custody.Held
	for _, img := range u.images {
		if slices.ContainsFunc(out, func(h custody.Held) bool { return h.Repository == img.repo.Name() }) {
			continue
		}
		var manifests, blobs []ocispec.Descriptor
		for _, other := range u.images {
			if other.repo.Name() != img.repo.Name() {
				continue
			}
			for _, n := range other.nodes {
				if other.present[n.Descriptor.Digest] {
					manifests = append(manifests, n.Descriptor)
				}
			}
			for _, d := range other.blobs {
				if other.present[d.Digest] {
					blobs = append(blobs, d)
				}
			}
		}
		out = append(out, custody.HeldOf(img.repo.Name(), manifests, blobs))
	}
	return out
}

// PhaseInventory is the phase in which the manifests of a registry are read, as progress shows it.
const PhaseInventory = "read the manifests"

// InventoryOptions say what [Inventory] asks. Client and Repositories must be set.
type InventoryOptions struct {
	Client       *remote.Client        // should be confined (remote.Options.Confined)
	Repositories []objects.Destination // that are asked; releases are in the first
	Digests      []digest.Digest       // manifests in the first that are asked for too, if no tag leads to them
	Jobs         int                   // questions at a time; 0 is 8
	Progress     bundle.ProgressFunc
}

// InventoryResult is what [Inventory] found. It is returned with no error.
type InventoryResult struct {
	Held     []custody.Held
	Releases []custody.ReceiptRelease
	Tags     int      // that were followed
	Missing  int      // manifests and blobs that are named there and are not there
	Warnings []string // what could not be followed
}

// Inventory asks a registry what it holds. A registry lists its tags and nothing else: what is
// found is what they lead to, and what the release images among that name by digest. Manifests
// are read and hashed; of every blob that they name the registry is asked whether it is there.
// What no tag leads to stays unknown.
//
// Errors are remote's. A tag that cannot be followed is a warning.
func Inventory(ctx context.Context, opts InventoryOptions) (*InventoryResult, error) {
	if opts.Jobs <= 0 {
		opts.Jobs = 8
	}
	if opts.Progress == nil {
		opts.Progress = func(bundle.Event) {}
	}
	res := &InventoryResult{}
	for i, where := range opts.Repositories {
		repo, err := opts.Client.Repository(where.String())
		if err != nil {
			return nil, err
		}
		v := &inventory{opts: opts, repo: repo, res: res,
			manifests: map[digest.Digest]*heldManifest{}, blobs: map[digest.Digest]ocispec.Descriptor{}}
		var digests []digest.Digest
		if i == 0 {
			digests = opts.Digests
		}
		if err := v.run(ctx, digests); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(res.Releases, func(a, b custody.ReceiptRelease) int { return strings.Compare(a.Release, b.Release) })
	res.Releases = slices.CompactFunc(res.Releases, func(a, b custody.ReceiptRelease) bool { return a.Digest == b.Digest })
	slices.Sort(res.Warnings)
	return res, nil
}

// inventory is one repository that is asked.
type inventory struct {
	opts InventoryOptions
	repo *remote.Repository
	res  *InventoryResult

	mu        sync.Mutex
	manifests map[digest.Digest]*heldManifest // that are there, or were named
	blobs     map[digest.Digest]ocispec.Descriptor
	payloads  []*release.Payload
	ev        bundle.Event
}

// heldManifest is a manifest, with what it names.
type heldManifest struct {
	desc     ocispec.Descriptor
	there    bool
	children []digest.Digest
}

func (v *inventory) run(ctx context.Context, digests []digest.Digest) error {
	tags, err := v.repo.Tags(ctx)
	if err != nil {
		return err
	}
	v.res.Tags += len(tags)
	refs := slices.Clone(tags)
	for _, d := range digests {
		refs = append(refs, d.String())
	}
	if err := v.read(ctx, refs); err != nil {
		return err
	}
	var named []string // by release images
	for _, p := range v.payloads {
		for _, img := range p.Images {
			if v.manifests[img.Digest] == nil {
				named = append(named, img.Digest.String())
			}
		}
	}
	slices.Sort(named)
	if err := v.read(ctx, slices.Compact(named)); err != nil {
		return err
	}
	return v.ask(ctx)
}

// read reads the images that refs, tags or digests, name.
func (v *inventory) read(ctx context.Context, refs []string) error {
	v.ev = bundle.Event{Phase: PhaseInventory, TotalBlobs: len(refs)}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(v.opts.Jobs)
	for _, ref := range refs {
		g.Go(func() error {
			err := v.image(gctx, ref)
			v.mu.Lock()
			v.ev.Blobs++
			e := v.ev
			v.mu.Unlock()
			v.opts.Progress(e)
			return err
		})
	}
	return g.Wait()
}

// image reads an image and what lies below it. An error ends the inventory: it is of the
// registry as a whole.
func (v *inventory) image(ctx context.Context, ref string) error {
	desc, raw, err := v.repo.Manifest(ctx, ref)
	switch {
	case isAbsent(err) && digest.Digest(ref).Validate() == nil:
		v.mu.Lock()
		defer v.mu.Unlock()
		v.manifests[digest.Digest(ref)] = &heldManifest{}
		return nil
	case isAbsent(err) || errors.Is(err, content.ErrInvalid) || errors.Is(err, content.ErrDigest):
		v.warn("%s: tag %s leads nowhere: %v", v.repo.Name(), ref, err)
		return nil
	case err != nil:
		return err
	}
	v.mu.Lock()
	known := v.manifests[desc.Digest] != nil
	v.mu.Unlock()
	if known {
		return nil // under another tag
	}
	err = bundle.Walk(ctx, &root{v.repo, desc.Digest, raw}, desc,
		func(n bundle.Node) error { v.manifest(n); return nil },
		func(d ocispec.Descriptor) error {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.blobs[d.Digest] = d
			return nil
		},
		func(d ocispec.Descriptor, err error) error {
			switch {
			case isAbsent(err):
			case errors.Is(err, content.ErrInvalid) || errors.Is(err, content.ErrDigest) || errors.Is(err, content.ErrSize):
				v.warn("%s: %s: %v", v.repo.Name(), d.Digest, err)
			default:
				return err
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			v.manifests[d.Digest] = &heldManifest{desc: d}
			return nil
		})
	if err != nil || !release.IsReference(ref) && digest.Digest(ref).Validate() != nil {
		return err
	}
	// It is named as releases are. What is none has no payload.
	if p, err := release.Read(ctx, &root{v.repo, desc.Digest, raw}, desc); err == nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.payloads = append(v.payloads, p)
	} else if ctx.Err() != nil {
		return ctx.Err()
	}
	return nil
}

func (v *inventory) manifest(n bundle.Node) {
	m := &heldManifest{desc: n.Descriptor, there: true}
	for _, c := range n.Manifest.Children() {
		m.children = append(m.children, c.Digest)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.manifests[n.Descriptor.Digest] = m
}

func (v *inventory) warn(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.res.Warnings = append(v.res.Warnings, fmt.Sprintf(format, args...))
}

// ask asks for every blob, each once, and sums up.
func (v *inventory) ask(ctx context.Context) error {
	v.ev = bundle.Event{Phase: PhaseAsk, TotalBlobs: len(v.blobs)}
	there := map[digest.Digest]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(v.opts.Jobs)
	for d, desc := range v.blobs {
		g.Go(func() error {
			ok, err := v.repo.Exists(gctx, desc)
			v.mu.Lock()
			there[d] = ok
			v.ev.Blobs++
			e := v.ev
			v.mu.Unlock()
			v.opts.Progress(e)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var manifests, blobs []ocispec.Descriptor
	for d, desc := range v.blobs {
		if there[d] {
			blobs = append(blobs, desc)
		} else {
			v.res.Missing++
		}
	}
	for d, m := range v.manifests {
		if m.there {
			manifests, there[d] = append(manifests, m.desc), true
		} else {
			v.res.Missing++
		}
	}
	v.res.Held = append(v.res.Held, custody.HeldOf(v.repo.Name(), manifests, blobs))
	for _, p := range v.payloads {
		rel := custody.ReceiptRelease{Release: p.Tag(), Digest: p.Descriptor.Digest, Complete: v.whole(p.Descriptor.Digest, there)}
		for _, img := range p.Images {
			rel.Complete = rel.Complete && v.whole(img.Digest, there)
		}
		v.res.Releases = append(v.res.Releases, rel)
	}
	return nil
}

// whole reports whether a manifest and all below it are there.
func (v *inventory) whole(d digest.Digest, there map[digest.Digest]bool) bool {
	if !there[d] {
		return false
	}
	m := v.manifests[d]
	return m == nil || !slices.ContainsFunc(m.children, func(c digest.Digest) bool { return !v.whole(c, there) })
}
