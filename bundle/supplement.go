package bundle

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/remote"
	"pannier/store"
)

// ArtifactSupplement is the artifact type of the manifests of a supplement: a drive that holds
// blobs which another one has lost, and nothing else (docs/format.md, "Supplements").
const ArtifactSupplement = "application/vnd.pannier.supplement.v1+json"

// annotationSupplements is the bundle id of the drive that a supplement was made for.
const annotationSupplements = "vnd.pannier.supplement.of"

// supplementLayers is how many blobs one manifest of a supplement names: far below the limits
// of a manifest.
const supplementLayers = 2000

// supplementTag is the key of a manifest of a supplement in the manifest index; in the layout
// index it has no name.
func supplementTag(d ocispec.Descriptor) string { return "supplement-" + d.Digest.Encoded() }

// untagged reports whether images of a kind stand in the layout index without a name.
func untagged(kind string) bool {
	return kind == store.KindDocuments || kind == store.KindSupplement || kind == store.KindPresumes
}

// Supplement reports whether the contents are a supplement's.
func (c *Contents) Supplement() bool {
	return slices.ContainsFunc(c.Images, func(img store.Image) bool { return img.Kind == store.KindSupplement })
}

// supplementManifests name the blobs of a list. They hold nothing else, so the same list gives
// the same digests.
func supplementManifests(list *RefetchList) (descs []ocispec.Descriptor, raws [][]byte, err error) {
	for part := range slices.Chunk(list.Blobs, supplementLayers) {
		m := ocispec.Manifest{
			Versioned:    specs.Versioned{SchemaVersion: 2},
			MediaType:    ocispec.MediaTypeImageManifest,
			ArtifactType: ArtifactSupplement,
			Config:       emptyConfig,
			Annotations:  map[string]string{annotationSupplements: string(list.Bundle)},
		}
		for _, b := range part {
			m.Layers = append(m.Layers, b.descriptor())
		}
		raw, err := json.Marshal(m)
		if err != nil {
			return nil, nil, err
		}
		desc := content.Descriptor(ocispec.MediaTypeImageManifest, raw)
		desc.ArtifactType = ArtifactSupplement
		descs, raws = append(descs, desc), append(raws, raw)
	}
	return descs, raws, nil
}

// resolveAll plans what is asked for: releases and images, or the blobs of a list.
func (p *packer) resolveAll(ctx context.Context) error {
	if p.opts.Only != nil {
		return p.resolveOnly()
	}
	if p.base != nil && p.base.Supplement() {
		return fmt.Errorf("%s: %w: it is a supplement", p.opts.Media, ErrSupplement)
	}
	return p.resolve(ctx)
}

// resolveOnly plans the blobs of opts.Only, in place of releases. What another supplement had
// put there goes.
func (p *packer) resolveOnly() error {
	if p.base != nil {
		for _, img := range p.base.Images {
			if img.Kind != store.KindSupplement {
				return fmt.Errorf("%s: %w: it holds %s; a supplement is a drive of its own", p.opts.Media, ErrSupplement, img.Tag)
			}
			p.replaced[img.Tag] = true
		}
	}
	descs, raws, err := supplementManifests(p.opts.Only)
	if err != nil {
		return err
	}
	parts := slices.Collect(slices.Chunk(p.opts.Only.Blobs, supplementLayers))
	for i, desc := range descs {
		tag := supplementTag(desc)
		delete(p.replaced, tag)
		if d, ok := p.baseTag(tag); ok && d == desc.Digest && p.trusted {
			p.kept[tag] = true
			continue
		}
		img := store.Image{Tag: tag, Kind: store.KindSupplement, Descriptor: plain(desc), Bytes: desc.Size + emptyConfig.Size}
		if err := p.want(desc, raws[i], nil, tag); err != nil {
			return err
		}
		if err := p.want(emptyConfig, emptyConfigData, nil, tag); err != nil {
			return err
		}
		for _, b := range parts[i] {
			if err := p.wantOnly(b, tag); err != nil {
				return err
			}
			img.Bytes += b.Size
		}
		p.images[tag] = img
	}
	return p.distrust()
}

func (p *packer) wantOnly(b RefetchBlob, tag string) error {
	repos := make([]*remote.Repository, 0, len(b.Sources))
	for _, s := range b.Sources {
		repo, err := p.opts.Client.Repository(s)
		if err != nil {
			return fmt.Errorf("refetch list: %s: %w", b.Digest, err)
		}
		repos = append(repos, repo)
	}
	for _, repo := range repos {
		if err := p.want(b.descriptor(), nil, repo, tag); err != nil {
			return err
		}
	}
	return nil
}

// readSupplement takes a manifest of a supplement into contents that are walked.
func (c *Contents) readSupplement(ctx context.Context, f content.Fetcher, d ocispec.Descriptor) error {
	tag := supplementTag(d)
	bytes, err := c.walk(ctx, f, d, "", tag)
	c.Images = append(c.Images, store.Image{Tag: tag, Kind: store.KindSupplement, Descriptor: plain(d), Bytes: bytes})
	return err
}

// startSupplement is START-HERE.txt of a supplement.
func startSupplement(id digest.Digest) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("This drive is a supplement: it holds pieces of OpenShift release images that")
	line("another drive has lost, and nothing else. It was written by pannier.")
	line("")
	line("Bundle %s", id)
	line("")
	line("What to do, with the program pannier, where MEDIA is the other drive:")
	line("")
	line("  heal the other drive:   pannier audit --repair MEDIA --from .")
	line("  or use both as one:     pannier unpack MEDIA . REGISTRY/REPO -a FILE")
	line("")
	line("Every piece is accepted by its digest alone. Whether the release is trusted is")
	line("judged on the other drive, as ever. \"pannier audit .\" proves this one whole.")
	return b.String()
}
