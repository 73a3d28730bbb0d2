package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
)

// takeBase finds out what the drive holds beside what is asked for. index.json without a
// valid seal is of a pack that was interrupted at its very end, or the seal was lost: what it
// names is kept, but every byte of it is hashed again.
func (p *packer) takeBase(ctx context.Context) error {
	switch {
	case p.have.Seal != nil:
		return p.takeSealed(ctx)
	case p.have.Index == nil:
		return nil
	}
	return p.walkBase(ctx)
}

// takeSealed takes what the seal covers, if manifest index and seal say of it what the layout
// says: what another program has sealed otherwise is not sealed a second time as it is.
func (p *packer) takeSealed(ctx context.Context) error {
	p.trusted = !p.opts.Verify
	walked := p.have.Contents // where the index cannot be used
	if p.have.IndexProblem == nil {
		var err error
		if walked, err = ContentsFromLayout(ctx, p.have.Layout, p.have.Index); err != nil {
			return err
		}
	} else if len(walked.Broken()) > 0 {
		// Nothing says what the seal covers below a broken manifest.
		p.trusted = false
		return p.walkBase(ctx)
	}
	for _, b := range walked.Broken() {
		p.unsound[b.Descriptor.Digest] = true
		for _, img := range p.have.Contents.Images {
			if img.Tag == b.Image || img.Descriptor.Digest == b.Descriptor.Digest {
				p.broken[img.Tag] = b.Err
			}
		}
	}
	if len(walked.Broken()) == 0 {
		for _, wrong := range p.have.Seal.Differences(p.have.Index, walked) {
			p.have.SealProblems = append(p.have.SealProblems, FileProblem{p.have.SealPath(), fmt.Errorf("%w: %s", ErrDamaged, wrong)})
		}
		if wrong := p.have.Contents.Differences(walked); len(wrong) > 0 {
			p.have.IndexProblem = fmt.Errorf("%w: %s", store.ErrCorrupt, wrong[0])
			p.have.Contents = walked
			p.warn("the index on the drive says otherwise than the layout (%s); it is made again", wrong[0])
		}
	}
	p.base = p.have.Contents
	return nil
}

// walkBase makes base from the layout. What the manifest index holds a second time stands in
// for what is damaged of it.
func (p *packer) walkBase(ctx context.Context) error {
	if p.patch == nil {
		p.patch = p.have.Contents.carried()
	}
	base, err := ContentsFromLayout(ctx, patched{p.have.Layout, p.patch}, p.have.Index)
	if err != nil {
		return err
	}
	for i, rel := range base.Releases {
		base.Releases[i].Signature = SignatureUnverified
		if known, ok := p.have.Contents.Release(rel.Tag); ok && known.Signature != "" {
			base.Releases[i].Signature = known.Signature
		}
	}
	p.base = base
	return nil
}

// patched is what a drive holds, but for the blobs that are at hand in memory.
type patched struct {
	drive content.Fetcher
	patch carried
}

// Fetch implements [content.Fetcher].
func (f patched) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if _, ok := f.patch[desc.Digest]; ok {
		return f.patch.Fetch(ctx, desc, offset)
	}
	return f.drive.Fetch(ctx, desc, offset)
}

// mendBase makes of base, once it is known what else is planned, what a seal can cover: broken
// manifests are fetched again, and what is not whole even so is set aside.
func (p *packer) mendBase(ctx context.Context) error {
	if p.base == nil {
		return nil
	}
	failed := map[digest.Digest]error{}
	if p.patch != nil {
		var err error
		if failed, err = p.fetchBroken(ctx); err != nil {
			return err
		}
	}
	if err := p.setAside(ctx, failed); err != nil {
		return err
	}
	if err := p.mendSealed(ctx); err != nil {
		return err
	}
	for _, img := range p.base.Images {
		if err := p.base.CheckImage(img); err != nil && !p.planned(img.Tag) {
			p.replaced[img.Tag] = true
			p.warn("%s on the drive is dropped, and what nothing else needs of it is removed: %v", img.Tag, err)
		}
	}
	return nil
}

// planned reports whether an image of base is planned anew, or goes.
func (p *packer) planned(tag string) bool {
	_, ok := p.images[tag]
	return ok || p.replaced[tag]
}

// fetchBroken fetches the broken manifests of what base keeps, and walks it again: there may be
// others below them. It returns why which could not be had.
func (p *packer) fetchBroken(ctx context.Context) (map[digest.Digest]error, error) {
	failed := map[digest.Digest]error{}
	for again := true; again; {
		again = false
		for _, b := range p.base.Broken() {
			d := b.Descriptor.Digest
			if failed[d] != nil || p.planned(b.Image) || errors.Is(b.Err, content.ErrInvalid) {
				continue // of an invalid one the registry has nothing better
			}
			source := p.base.Records[d].Source
			if source == "" {
				continue
			}
			repo, err := p.opts.Client.Repository(source)
			if err == nil {
				p.opts.Progress(Event{Phase: PhasePlan, Item: b.Image})
				p.patch[d], err = content.ReadAll(ctx, repo, b.Descriptor, content.MaxManifest)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				delete(p.patch, d)
				failed[d] = err
				continue
			}
			again = true
		}
		if again {
			if err := p.walkBase(ctx); err != nil {
				return nil, err
			}
		}
	}
	return failed, nil
}

// mendSealed plans to write the broken manifests anew that a seal covers, whether they are asked for
// or not. What they name the manifest index knows.
func (p *packer) mendSealed(ctx context.Context) error {
	at := p.have.Contents.carried()
	for _, d := range slices.Sorted(maps.Keys(p.unsound)) {
		r := p.base.Records[d]
		tags := slices.DeleteFunc(slices.Clone(r.Images), p.planned)
		if len(tags) == 0 {
			continue
		}
		desc := ocispec.Descriptor{MediaType: r.MediaType, Digest: d, Size: r.Size}
		data, repo, err := at[d], (*remote.Repository)(nil), error(nil)
		if data == nil && r.Source != "" {
			if repo, err = p.opts.Client.Repository(r.Source); err == nil {
				data, err = content.ReadAll(ctx, repo, desc, content.MaxManifest)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if data == nil || err != nil {
			continue // it is told, see tellBroken
		}
		for _, tag := range tags {
			delete(p.broken, tag)
			if err := p.want(desc, data, repo, tag); err != nil {
				return err
			}
		}
	}
	return nil
}

// ofRelease is the form of the tags of a release and its components.
var ofRelease = regexp.MustCompile(`^([0-9]+\.[0-9]+\.[0-9][^/:@]*-(?:x86_64|aarch64|ppc64le|s390x|multi))(?:-[^/:@]*)?$`)

// setAside takes out of base what no seal can cover as it is, and tells of it. It stays on the
// drive like what a pack has left that was given up, and packing the same again uses it.
func (p *packer) setAside(ctx context.Context, failed map[digest.Digest]error) error {
	why, err := p.notWhole(ctx, failed)
	if err != nil {
		return err
	}
	aside := p.alongWith(why)
	for _, tag := range slices.Sorted(maps.Keys(why)) {
		p.warn("%s, which the drive holds, is not whole and is left out of the seal (%v): name it in a pack to have it whole again; what is sound of it stays until then, and audit --repair --drop-unfinished removes it", tag, why[tag])
	}
	if len(aside) > 0 || p.patch != nil {
		p.base, p.aside = p.base.split(aside)
	}
	return nil
}

// notWhole says by tag which images and releases of the base are not whole, and why.
func (p *packer) notWhole(ctx context.Context, failed map[digest.Digest]error) (map[string]error, error) {
	why := map[string]error{}
	for _, b := range p.base.Broken() {
		err := b.Err
		if failed[b.Descriptor.Digest] != nil {
			err = fmt.Errorf("%w, and could not be fetched: %w", b.Err, failed[b.Descriptor.Digest])
		}
		if tag := b.Image; tag != "" && !p.planned(tag) && why[tag] == nil {
			why[tag] = err
		}
	}
	for tag, err := range p.broken { // of a sealed drive: what is merely damaged can be healed
		if errors.Is(err, content.ErrInvalid) && !p.planned(tag) {
			why[tag] = err
		}
	}
	for _, rel := range p.base.Releases {
		if p.planned(rel.Tag) || p.kept[rel.Tag] {
			continue // what is kept has been looked at
		}
		wrong := p.base.CheckPayload(ctx, patched{p.have.Layout, p.patch}, rel.Tag)
		if repo, err := p.opts.Client.Repository(rel.Source); err == nil && Unread(wrong) {
			wrong = p.base.CheckPayload(ctx, repo, rel.Tag)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if len(wrong) > 0 && !Unread(wrong) && why[rel.Tag] == nil {
			why[rel.Tag] = wrong[0]
		}
	}
	return why, nil
}

// alongWith lists the images that cannot stay for one of the reasons: those, what belongs to
// a release that is not whole, and what was captured with one that is gone. In why stays one
// reason for all that belongs together.
func (p *packer) alongWith(why map[string]error) map[string]bool {
	aside := map[string]bool{}
	for _, img := range p.base.Images {
		if m := ofRelease.FindStringSubmatch(img.Tag); m != nil && img.Kind == store.KindAdditional && !p.planned(img.Tag) {
			aside[img.Tag] = true
			if why[m[1]] == nil {
				why[m[1]] = fmt.Errorf("%w: what was captured with it cannot be read", ErrDamaged)
			}
			if m[1] != img.Tag {
				delete(why, img.Tag) // told of with the release
			}
		}
		switch err := why[img.Tag]; {
		case err == nil:
		case img.Kind == store.KindSignature || img.Kind == store.KindPresumes:
			p.replaced[img.Tag] = true // a release is whole without it
			p.warn("%s on the drive cannot be read and is left out (%v); pack its release with --refresh to look for it again", img.Tag, err)
			delete(why, img.Tag)
		default:
			aside[img.Tag] = true
			if img.Release != "" && why[img.Release] == nil {
				why[img.Release] = fmt.Errorf("image %s: %w", img.Tag, err)
			}
		}
	}
	for _, img := range p.base.Images {
		if why[img.Release] != nil && !p.planned(img.Tag) {
			aside[img.Tag] = true
			if img.Tag != img.Release {
				delete(why, img.Tag) // told of with the release
			}
		}
	}
	return aside
}

// split returns contents without the images whose tags are given, and with nothing but these.
// Of the blobs of the latter nothing is said to be there.
func (c *Contents) split(aside map[string]bool) (in, out *Contents) {
	in = &Contents{Records: map[digest.Digest]store.Record{}, Presumed: map[digest.Digest]store.Record{}, documents: c.documents}
	out = &Contents{Records: map[digest.Digest]store.Record{}, Presumed: map[digest.Digest]store.Record{}, documents: c.documents}
	side, known := map[bool]*Contents{false: in, true: out}, map[string]bool{}
	for _, img := range c.Images {
		known[img.Tag] = true
		side[aside[img.Tag]].Images = append(side[aside[img.Tag]].Images, img)
	}
	for _, rel := range c.Releases {
		side[aside[rel.Tag]].Releases = append(side[aside[rel.Tag]].Releases, rel)
	}
	for from, to := range map[*map[digest.Digest]store.Record]func(*Contents) map[digest.Digest]store.Record{
		&c.Records:  func(s *Contents) map[digest.Digest]store.Record { return s.Records },
		&c.Presumed: func(s *Contents) map[digest.Digest]store.Record { return s.Presumed },
	} {
		for d, r := range *from {
			for far, s := range side {
				part := r
				part.Images = slices.DeleteFunc(slices.Clone(r.Images), func(t string) bool { return !known[t] || aside[t] != far })
				if far && part.State == store.StateComplete {
					part.State, part.Offset = store.StateWanted, 0
				}
				if len(part.Images) > 0 {
					to(s)[d] = part
				}
			}
		}
	}
	return in, out
}

// CheckImage says what is wrong with the name of an image, or with the release that it names as
// its own: no reader takes such an image.
func (c *Contents) CheckImage(img store.Image) error {
	switch img.Kind {
	case store.KindAdditional:
		ref, err := release.ParseImageReference(img.Tag)
		if err != nil {
			return fmt.Errorf("an image that belongs to no release must be named by its full reference: %w", err)
		}
		if ref.Digest != "" && ref.Digest != img.Descriptor.Digest {
			return errors.New("its name says another digest")
		}
	case store.KindPresumes, store.KindSupplement:
	default:
		if _, ok := c.Release(img.Release); !ok {
			return fmt.Errorf("it belongs to the release %q, which is not on the drive", img.Release)
		}
	}
	return nil
}

// tellBroken warns of images on the drive that cannot be read and that this run leaves as they
// are, since nobody asked for them.
func (p *packer) tellBroken() {
	for _, tag := range slices.Sorted(maps.Keys(p.broken)) {
		if _, ok := p.baseTag(tag); ok && !p.planned(tag) {
			p.warn("%s on the drive cannot be read (%v) and is not asked for now: pack its release again", tag, p.broken[tag])
		}
	}
}

// distrust plans to hash, and if need be to fetch again, what no valid seal covers.
func (p *packer) distrust() error {
	if p.base == nil || p.trusted {
		return nil
	}
	at := p.patch
	if at == nil {
		at = p.have.Contents.carried()
	}
	for d, r := range p.base.Records {
		desc := ocispec.Descriptor{MediaType: r.MediaType, Digest: d, Size: r.Size}
		var repo *remote.Repository
		if r.Source != "" {
			var err error
			if repo, err = p.opts.Client.Repository(r.Source); err != nil {
				return err
			}
		}
		for _, tag := range r.Images {
			if p.planned(tag) {
				continue
			}
			if err := p.want(desc, at[d], repo, tag); err != nil {
				return err
			}
		}
	}
	return nil
}
