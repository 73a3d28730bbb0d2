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
	known := map[string]store.Image{}
	for _, d := range idx.Manifests {
		if d.ArtifactType == ArtifactSupplement && d.Annotations[ocispec.AnnotationRefName] == "" {
			if err := c.readSupplement(ctx, f, d); err != nil {
				return nil, err
			}
		}
		if d.ArtifactType != ArtifactRelease {
			continue
		}
		rel, images, docs, err := readDocuments(ctx, f, d)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			c.broken = append(c.broken, BrokenManifest{Descriptor: d, Err: err})
			c.record(d, "", d.Digest.String())
			continue
		}
		tag := documentsTag(rel.Tag)
		c.Releases = append(c.Releases, rel)
		c.Images = append(c.Images, store.Image{Tag: tag, Kind: store.KindDocuments, Release: rel.Tag, Descriptor: plain(d)})
		for name, data := range docs {
			c.documents[rel.Tag+"/"+name] = data
		}
		for _, img := range images {
			known[img.Tag] = img.Image
		}
		if c.Images[len(c.Images)-1].Bytes, err = c.walk(ctx, f, d, "", tag); err != nil {
			return nil, err
		}
	}
	for _, d := range idx.Manifests {
		tag := d.Annotations[ocispec.AnnotationRefName]
		if tag == "" {
			continue
		}
		img, ok := known[tag]
		if !ok || img.Descriptor.Digest != d.Digest {
			img = store.Image{Tag: tag, Kind: store.KindAdditional, Reference: tag}
		}
		img.Tag, img.Descriptor = tag, plain(d)
		source := ""
		if ref, err := release.ParseImageReference(img.Reference); err == nil {
			source = ref.Repository
		}
		before := len(c.broken)
		bytes, err := c.walk(ctx, f, d, source, tag)
		if err != nil {
			return nil, err
		}
		if img.Bytes == 0 && len(c.broken) == before {
			img.Bytes = bytes
		}
		c.Images = append(c.Images, img)
	}
	var presumed *presumedDocument
	for _, d := range idx.Manifests {
		if d.ArtifactType == ArtifactPresumes && d.Annotations[ocispec.AnnotationRefName] == "" {
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
