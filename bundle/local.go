package bundle

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/release"
	"pannier/store"
)

// LocalImage is an image in an OCI image layout on the local disk, which is carried under the
// name Reference as if it came from there. Reference has a tag and no digest.
type LocalImage struct {
	Dir       string
	Reference release.Reference
}

// resolveLocal plans an image of a layout on the local disk: the one that is named by the
// reference or its tag, or the only one.
func (p *packer) resolveLocal(ctx context.Context, li LocalImage) error {
	l, err := layout.Open(li.Dir, layout.Options{Logger: p.log})
	if err != nil {
		return fmt.Errorf("%s: %w", li.Dir, err)
	}
	p.locals = append(p.locals, l)
	raw, err := l.ReadFile(fileIndexJSON, maxIndexJSON)
	if err != nil {
		return fmt.Errorf("%s: %w", li.Dir, err)
	}
	idx, err := parseIndex(raw)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", li.Dir, fileIndexJSON, err)
	}
	desc, err := li.choose(idx)
	if err != nil {
		return err
	}
	tag := li.Reference.String()
	if d, ok := p.baseTag(tag); ok {
		if d == desc.Digest && p.keepImage(tag) {
			return nil
		}
		if d != desc.Digest {
			p.warn("%s was %s on the drive and is %s now: it is replaced", tag, d, desc.Digest)
		}
		p.replaced[tag] = true
	}
	p.opts.Progress(Event{Phase: PhasePlan, Item: tag})
	img := store.Image{Tag: tag, Kind: store.KindAdditional, Reference: tag, Descriptor: plain(desc)}
	if err := p.collect(ctx, l, nil, img); err != nil {
		return fmt.Errorf("%s: %w", li.Dir, err)
	}
	p.nameSource(img)
	for _, it := range p.items {
		if it.tags[tag] {
			it.local = l
		}
	}
	return nil
}

// choose finds the image in the layout's index.
func (li LocalImage) choose(idx *ocispec.Index) (ocispec.Descriptor, error) {
	var names []string
	for _, d := range idx.Manifests {
		name := d.Annotations[ocispec.AnnotationRefName]
		if content.IsManifest(d.MediaType) && (name == li.Reference.String() || name == li.Reference.Tag || len(idx.Manifests) == 1) {
			return d, nil
		}
		names = append(names, fmt.Sprintf("%q", name))
	}
	return ocispec.Descriptor{}, fmt.Errorf("%s: %w: none of its images is named %s or %q; it has %s", li.Dir, layout.ErrNotLayout, li.Reference, li.Reference.Tag, content.Few(names))
}
