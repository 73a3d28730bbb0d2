package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/store"
)

// A bundle may presume blobs: its images need them, and it does not hold them, since the
// registry that it is for was known to (docs/format.md, "Presumed blobs").

// ArtifactPresumes is the artifact type of the manifest that names the presumed blobs.
const ArtifactPresumes = "application/vnd.pannier.presumes.v1+json"

const (
	mediaTypePresumed = "application/vnd.pannier.presumed.v1+json"

	maxPresumed           = 16 << 20 // bytes of the list
	maxPresumedRegistries = 16
)

// ErrPresumed says that something is needed that a drive does not hold, since it presumes it at
// a registry.
var ErrPresumed = errors.New("presumed at a registry, and not on the drive")

// presumedDocument is the list of presumed blobs, as it stands on the drive.
type presumedDocument struct {
	Format     int      `json:"format"`
	Registries []string `json:"registries"` // REGISTRY/REPO, where they were seen, sorted
	Blobs      []Sized  `json:"blobs"`      // sorted by digest
}

// parsePresumed reads the list, which is hostile. Errors wrap [content.ErrInvalid], or
// [ErrVersion].
func parsePresumed(raw []byte) (*presumedDocument, error) {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("list of presumed blobs: %w: %w", content.ErrInvalid, fmt.Errorf(format, args...))
	}
	if len(raw) > maxPresumed {
		return nil, invalid("%d bytes", len(raw))
	}
	var doc presumedDocument
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&doc); err != nil {
		return nil, invalid("%w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, invalid("something follows it")
	}
	switch {
	case doc.Format > FormatVersion:
		return nil, fmt.Errorf("the list of presumed blobs is of format %d: %w", doc.Format, ErrVersion)
	case doc.Format < 1:
		return nil, invalid("format %d", doc.Format)
	case len(doc.Blobs) == 0:
		return nil, invalid("it names no blob")
	case len(doc.Registries) == 0 || len(doc.Registries) > maxPresumedRegistries:
		return nil, invalid("%d registries", len(doc.Registries))
	}
	for _, r := range doc.Registries {
		if _, err := objects.ParseDestination(r); err != nil {
			return nil, invalid("%w", err)
		}
	}
	if err := CheckSized(doc.Blobs); err != nil {
		return nil, invalid("%w", err)
	}
	return &doc, nil
}

// manifest makes the artifact that holds the list. The same list gives the same digest.
func (doc *presumedDocument) manifest() (desc ocispec.Descriptor, raw []byte, layer ocispec.Descriptor, data []byte, err error) {
	if data, err = json.Marshal(doc); err != nil {
		return desc, nil, layer, nil, err
	}
	if len(data) > maxPresumed {
		return desc, nil, layer, nil, fmt.Errorf("%d blobs are presumed, more than a bundle can name (%d bytes)", len(doc.Blobs), maxPresumed)
	}
	layer = content.Descriptor(mediaTypePresumed, data)
	raw, err = json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: ArtifactPresumes, Config: emptyConfig, Layers: []ocispec.Descriptor{layer},
	})
	desc = content.Descriptor(ocispec.MediaTypeImageManifest, raw)
	desc.ArtifactType = ArtifactPresumes
	return desc, raw, layer, data, err
}

// presumesTag is the key of the artifact in the manifest index; in the layout index it has no
// name.
func presumesTag(d ocispec.Descriptor) string { return "presumes-" + d.Digest.Encoded() }

// image is the artifact as the manifest index has it.
func (doc *presumedDocument) image(desc ocispec.Descriptor, bytes int64) store.Image {
	return store.Image{Tag: presumesTag(desc), Kind: store.KindPresumes, Descriptor: plain(desc),
		Reference: strings.Join(doc.Registries, " "), Bytes: bytes}
}

// PresumedAt are the registries, REGISTRY/REPO, where the presumed blobs were seen, as the drive says.
func (c *Contents) PresumedAt() []string {
	for _, img := range c.Images {
		if img.Kind == store.KindPresumes {
			return strings.Fields(img.Reference)
		}
	}
	return nil
}

// PresumedTotals counts the presumed blobs.
func (c *Contents) PresumedTotals() (t Totals) {
	for _, r := range c.Presumed {
		t.Blobs++
		t.Bytes += r.Size
	}
	return t
}

// readPresumed takes the artifact into contents that are walked, and returns its list; nil if
// that cannot be read.
func (c *Contents) readPresumed(ctx context.Context, f content.Fetcher, d ocispec.Descriptor) (*presumedDocument, error) {
	tag := presumesTag(d)
	bytes, err := c.walk(ctx, f, d, "", tag)
	if err != nil {
		return nil, err
	}
	doc, err := readPresumed(ctx, f, d)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil && slices.ContainsFunc(c.Images, func(img store.Image) bool { return img.Kind == store.KindPresumes }) {
		err = fmt.Errorf("%s: %w: a second list of presumed blobs", d.Digest, content.ErrInvalid)
	}
	if err != nil {
		c.broken = append(c.broken, BrokenManifest{Descriptor: d, Image: tag, Err: err})
		c.Images = append(c.Images, store.Image{Tag: tag, Kind: store.KindPresumes, Descriptor: plain(d), Bytes: bytes})
		return nil, nil
	}
	c.Images = append(c.Images, doc.image(d, bytes))
	return doc, nil
}

func readPresumed(ctx context.Context, f content.Fetcher, d ocispec.Descriptor) (*presumedDocument, error) {
	raw, err := content.ReadAll(ctx, f, d, content.MaxManifest)
	if err != nil {
		return nil, err
	}
	m, err := content.ParseManifest(d.MediaType, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	if m.ArtifactType != ArtifactPresumes || len(m.Layers) != 1 {
		return nil, fmt.Errorf("%s: %w: no list of presumed blobs", d.Digest, content.ErrInvalid)
	}
	if raw, err = content.ReadAll(ctx, f, m.Layers[0], maxPresumed); err != nil {
		return nil, fmt.Errorf("list of presumed blobs: %w", err)
	}
	return parsePresumed(raw)
}

// presume takes the blobs of a list out of those that must be on the drive. What may not be
// presumed stays, and so is missing.
func (c *Contents) presume(doc *presumedDocument) {
	carried := map[string]bool{}
	for _, img := range c.Images {
		carried[img.Tag] = carriedWhole(img.Kind)
	}
	for _, b := range doc.Blobs {
		r, ok := c.Records[b.Digest]
		if !ok || r.Size != b.Size || content.IsManifest(r.MediaType) || slices.ContainsFunc(r.Images, func(t string) bool { return carried[t] }) {
			continue
		}
		delete(c.Records, b.Digest)
		r.State, r.Offset = store.StatePresumed, 0
		c.Presumed[b.Digest] = r
	}
}

// carriedWhole reports whether a drive holds all that images of a kind need, whatever the other
// side has: what vouches for a release, and what the drive says of itself.
func carriedWhole(kind string) bool {
	return kind != store.KindComponent && kind != store.KindAdditional
}
