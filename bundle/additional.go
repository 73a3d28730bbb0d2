package bundle

import (
	"context"
	"fmt"
	"maps"
	"pannier/bundle/release"
	"pannier/store"
	"slices"
	"strings"
)

// resolveAdditional plans an image that was asked for beside releases.
func (p *packer) resolveAdditional(ctx context.Context, ref release.Reference) error {
	repo, err := p.opts.Client.Repository(ref.Repository)
	if err != nil {
		return err
	}
	tag := ref.String()
	want := ref.Tag
	if ref.Digest != "" {
		want = ref.Digest.String()
	}
	if d, ok := p.baseTag(tag); ok {
		if ref.Digest == "" {
			desc, err := repo.Resolve(ctx, want)
			if err != nil {
				return err
			}
			if desc.Digest != d {
				p.warn("%s was %s on the drive and is %s now: it is replaced", tag, d, desc.Digest)
			}
			ref.Digest = desc.Digest
		}
		if ref.Digest == d && p.trusted && !p.opts.Refresh {
			p.kept[tag] = true
			return nil
		}
		p.replaced[tag] = true
	}
	p.opts.Progress(Event{Phase: PhasePlan, Item: tag})
	desc, raw, err := repo.Manifest(ctx, want)
	if err != nil {
		return err
	}
	img := store.Image{Tag: tag, Kind: store.KindAdditional, Reference: tag, Descriptor: plain(desc)}
	return p.collect(ctx, &rooted{Fetcher: repo, root: desc, raw: raw}, repo, img)
}

// conflicts refuses additional images that would have one name at the destination, where each
// goes to the path that it has at its source.
func (p *packer) conflicts() error {
	taken := map[string]store.Image{}
	check := func(img store.Image) error {
		ref, err := release.ParseImageReference(img.Tag)
		if img.Kind != store.KindAdditional || err != nil || ref.Tag == "" {
			return nil
		}
		_, path, _ := strings.Cut(ref.Repository, "/")
		name := path + ":" + ref.Tag
		if other, ok := taken[name]; ok && other.Descriptor.Digest != img.Descriptor.Digest {
			return fmt.Errorf("%w: %s and %s are different images and would both be %s at the destination", ErrConflict, other.Tag, img.Tag, name)
		}
		taken[name] = img
		return nil
	}
	for _, tag := range slices.Sorted(maps.Keys(p.images)) {
		if err := check(p.images[tag]); err != nil {
			return err
		}
	}
	if p.base == nil {
		return nil
	}
	for _, img := range p.base.Images {
		if p.replaced[img.Tag] {
			continue
		}
		if err := check(img); err != nil {
			return err
		}
	}
	return nil
}
