package bundle

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pannier/bundle/release"
	"pannier/store"
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
		if ref.Digest == d && p.keepImage(tag) {
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

// keepImage leaves an additional image as it is on the drive, if the seal covers all that it
// needs, or what it lacks is presumed and still held; otherwise it reports false.
func (p *packer) keepImage(tag string) bool {
	if !p.trusted || p.opts.Refresh || p.broken[tag] != nil || p.lacksPresumed(map[string]bool{tag: true}) {
		return false
	}
	p.kept[tag] = true
	return true
}

// conflicts refuses images that would have one name at the destination, where each additional
// one goes to the path that it has at its source, and all others, if the destination is known,
// to its repository.
func (p *packer) conflicts() error {
	taken := map[string]store.Image{}
	check := func(img store.Image) error {
		name := p.nameAtDestination(img)
		if name == "" {
			return nil
		}
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

// nameAtDestination is the path and tag that an image will have at the destination; "" if it
// has none, or if that is not known.
func (p *packer) nameAtDestination(img store.Image) string {
	switch {
	case untagged(img.Kind):
		return ""
	case img.Kind == store.KindAdditional:
		ref, err := release.ParseImageReference(img.Tag)
		if err != nil || ref.Tag == "" {
			return ""
		}
		_, path, _ := strings.Cut(ref.Repository, "/")
		if prefix := strings.Trim(p.opts.Prefix, "/"); prefix != "" {
			path = prefix + "/" + path
		}
		return path + ":" + ref.Tag
	case p.opts.Destination == nil:
		return ""
	}
	return p.opts.Destination.Repository + ":" + img.Tag
}
