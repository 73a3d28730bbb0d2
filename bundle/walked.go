package bundle

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/store"
)

// ContentsFromLayout walks the layout and needs no bbolt index: what it finds is what the
// index must say. Manifests that cannot be read are listed by [Contents.Broken].
func ContentsFromLayout(ctx context.Context, f content.Fetcher, idx *ocispec.Index) (*Contents, error) {
	c := &Contents{Records: map[digest.Digest]store.Record{}, Presumed: map[digest.Digest]store.Record{}, documents: map[string][]byte{}}
	known := map[string]store.Image{} // by tag, as the documents of the releases have them
	for _, d := range idx.Manifests {
		var err error
		switch {
		case d.ArtifactType == ArtifactRelease:
			err = c.readRelease(ctx, f, d, known)
		case d.ArtifactType == ArtifactSupplement && d.Annotations[ocispec.AnnotationRefName] == "":
			err = c.readSupplement(ctx, f, d)
		}
		if err != nil {
			return nil, err
		}
	}
	var presumed *presumedDocument
	for _, d := range idx.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] != "" {
			if err := c.readImage(ctx, f, d, known); err != nil {
				return nil, err
			}
		} else if d.ArtifactType == ArtifactPresumes {
			doc, err := c.readPresumed(ctx, f, d)
			if err != nil {
				return nil, err
			}
			if doc != nil {
				presumed = doc
			}
		}
	}
	for d, r := range c.Records {
		slices.Sort(r.Images)
		r.Images = slices.Compact(r.Images)
		c.Records[d] = r
	}
	if presumed != nil {
		c.presume(presumed)
	}
	slices.SortFunc(c.Images, func(a, b store.Image) int { return strings.Compare(a.Tag, b.Tag) })
	slices.SortFunc(c.Releases, func(a, b store.Release) int { return strings.Compare(a.Tag, b.Tag) })
	return c, nil
}

// readRelease adds a release and its documents, which name its images: known.
func (c *Contents) readRelease(ctx context.Context, f content.Fetcher, d ocispec.Descriptor, known map[string]store.Image) error {
	rel, images, docs, err := readDocuments(ctx, f, d)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.broken = append(c.broken, BrokenManifest{Descriptor: d, Err: err})
		c.record(d, "", d.Digest.String())
		return nil
	}
	for name, data := range docs {
		c.documents[rel.Tag+"/"+name] = data
	}
	for _, img := range images {
		known[img.Tag] = img.Image
	}
	own := store.Image{Tag: documentsTag(rel.Tag), Kind: store.KindDocuments, Release: rel.Tag, Descriptor: plain(d)}
	if own.Bytes, err = c.walk(ctx, f, d, "", own.Tag); err != nil {
		return err
	}
	c.Releases = append(c.Releases, rel)
	c.Images = append(c.Images, own)
	return nil
}

// readImage adds what a tag leads to. An image that no release knows was added by the user.
func (c *Contents) readImage(ctx context.Context, f content.Fetcher, d ocispec.Descriptor, known map[string]store.Image) error {
	tag := d.Annotations[ocispec.AnnotationRefName]
	img, ok := known[tag]
	if !ok || img.Descriptor.Digest != d.Digest {
		img = store.Image{Kind: store.KindAdditional, Reference: tag}
	}
	img.Tag, img.Descriptor = tag, plain(d)
	source := ""
	if ref, err := release.ParseImageReference(img.Reference); err == nil {
		source = ref.Repository
	}
	before := len(c.broken)
	bytes, err := c.walk(ctx, f, d, source, tag)
	if err != nil {
		return err
	}
	if img.Bytes == 0 && len(c.broken) == before {
		img.Bytes = bytes
	}
	c.Images = append(c.Images, img)
	return nil
}

// plain is a descriptor as the index keeps it: what identifies content and nothing else.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// walk records what the image root needs, and returns how many bytes that is.
func (c *Contents) walk(ctx context.Context, f content.Fetcher, root ocispec.Descriptor, source, tag string) (bytes int64, err error) {
	add := func(d ocispec.Descriptor) error {
		bytes += d.Size
		c.record(d, source, tag)
		return nil
	}
	err = Walk(ctx, f, root,
		func(n Node) error { return add(n.Descriptor) },
		add,
		func(d ocispec.Descriptor, err error) error {
			c.record(d, source, tag)
			c.broken = append(c.broken, BrokenManifest{Descriptor: d, Image: tag, Err: err})
			return nil
		})
	return bytes, err
}

// record adds tag to the images that need what desc names.
func (c *Contents) record(desc ocispec.Descriptor, source, tag string) {
	r, ok := c.Records[desc.Digest]
	if !ok {
		r = store.Record{
			Digest: desc.Digest, Size: desc.Size, MediaType: desc.MediaType,
			State: store.StateComplete, Offset: desc.Size, Source: source,
		}
	}
	r.Images = append(r.Images, tag)
	c.Records[desc.Digest] = r
}
