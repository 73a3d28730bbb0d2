package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/store"
)

// ArtifactRelease is the artifact type of the manifest that holds what was captured with a
// release (docs/format.md, "Captured documents"). Its subject is the release image.
const ArtifactRelease = "application/vnd.pannier.release.v1+json"

// Media types of captured documents.
const (
	mediaTypeRelease   = "application/vnd.pannier.release.config.v1+json"
	mediaTypeSignature = "application/vnd.pannier.signature.openpgp.v1"
	mediaTypeKey       = "application/pgp-keys"
	mediaTypeJSON      = "application/json"
	mediaTypeYAML      = "application/yaml"
	mediaTypeText      = "text/plain"
)

// Names of captured documents. Signatures are signature-1, signature-2 …, those of the
// children of a list signature-<hex>-1 …, key rings found in the payload key-1 …, image
// policies image-policy-1 ….
const (
	DocumentRelease    = "release.json"
	DocumentReferences = "image-references.json"
	DocumentMetadata   = "release-metadata.json"
	DocumentSources    = "mirror-sources.json"
	DocumentText       = "release.txt"
	DocumentUpdates    = "updates.json"

	prefixSignature = "signature-"
	prefixKey       = "key-"
	prefixPolicy    = "image-policy-"
)

const (
	maxDocument      = store.MaxDocument // bytes of one captured document
	maxDocumentBytes = 64 << 20          // bytes of all documents of one release
	maxDocuments     = 1000              // documents of one release
)

var documentName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,127}$`)

// document is one captured document.
type document struct {
	name      string
	mediaType string
	data      []byte
}

// releaseDocument is release.json: the record of a release and of its images, so that the
// bbolt index can be made again from the layout alone.
type releaseDocument struct {
	Format     int                `json:"format"`
	Tag        string             `json:"tag"`
	Version    string             `json:"version"`
	Arch       string             `json:"arch"`
	Source     string             `json:"source"`
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Created    time.Time          `json:"created"`
	Previous   []string           `json:"previous"`
	Images     []imageDocument    `json:"images"`
}

type imageDocument struct {
	Tag string `json:"tag"`
	store.Image
}

// mirrorSources is mirror-sources.json: the repositories that a mirror set must cover.
type mirrorSources struct {
	Sources  []string `json:"sources"`
	Previous []string `json:"previous"`
}

func documentsTag(releaseTag string) string { return releaseTag + ".documents" }

// documentsManifest makes the artifact manifest of docs. It holds no time and no order of
// arrival, so the same documents give the same digest.
func documentsManifest(rel store.Release, docs []document) (ocispec.Descriptor, []byte, error) {
	layers := make([]ocispec.Descriptor, 0, len(docs))
	for _, d := range docs {
		desc := content.Descriptor(d.mediaType, d.data)
		desc.Annotations = map[string]string{ocispec.AnnotationTitle: d.name}
		layers = append(layers, desc)
	}
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ArtifactRelease,
		Config:       emptyConfig,
		Layers:       layers,
		Subject:      &ocispec.Descriptor{MediaType: rel.Descriptor.MediaType, Digest: rel.Descriptor.Digest, Size: rel.Descriptor.Size},
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	desc := content.Descriptor(ocispec.MediaTypeImageManifest, raw)
	desc.ArtifactType = ArtifactRelease
	return desc, raw, nil
}

// captured returns the descriptions of docs, in order.
func captured(docs []document) []store.Document {
	out := make([]store.Document, len(docs))
	for i, d := range docs {
		out[i] = store.Document{Name: d.name, MediaType: d.mediaType, Digest: digest.FromBytes(d.data), Size: int64(len(d.data))}
	}
	return out
}

// readDocuments reads a release's captured documents from the layout, verified.
func readDocuments(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor) (store.Release, []imageDocument, map[string][]byte, error) {
	none := store.Release{}
	raw, err := content.ReadAll(ctx, f, desc, content.MaxManifest)
	if err != nil {
		return none, nil, nil, err
	}
	m, err := content.ParseManifest(desc.MediaType, raw)
	if err != nil {
		return none, nil, nil, fmt.Errorf("%s: %w", desc.Digest, err)
	}
	if m.ArtifactType != ArtifactRelease || len(m.Layers) > maxDocuments {
		return none, nil, nil, fmt.Errorf("%s: %w: no captured documents", desc.Digest, content.ErrInvalid)
	}
	docs := make(map[string][]byte, len(m.Layers))
	var list []store.Document
	var total int64
	for _, layer := range m.Layers {
		name := layer.Annotations[ocispec.AnnotationTitle]
		if _, twice := docs[name]; twice || !documentName.MatchString(name) {
			return none, nil, nil, fmt.Errorf("%s: %w: a document named %q, or two", desc.Digest, content.ErrInvalid, name)
		}
		if total += layer.Size; total > maxDocumentBytes {
			return none, nil, nil, fmt.Errorf("%s: %w: more than %d bytes of documents", desc.Digest, content.ErrInvalid, int64(maxDocumentBytes))
		}
		data, err := content.ReadAll(ctx, f, layer, maxDocument)
		if err != nil {
			return none, nil, nil, fmt.Errorf("document %s: %w", name, err)
		}
		docs[name] = data
		list = append(list, store.Document{Name: name, MediaType: layer.MediaType, Digest: layer.Digest, Size: layer.Size})
	}
	rd, err := parseReleaseDocument(docs[DocumentRelease])
	if err != nil {
		return none, nil, nil, fmt.Errorf("document %s: %w", DocumentRelease, err)
	}
	if m.Subject == nil || m.Subject.Digest != rd.Descriptor.Digest {
		return none, nil, nil, fmt.Errorf("%s: %w: its subject is not the release that it describes", desc.Digest, content.ErrInvalid)
	}
	rel := store.Release{
		Tag: rd.Tag, Version: rd.Version, Arch: rd.Arch, Source: rd.Source, Descriptor: rd.Descriptor,
		Created: rd.Created, Previous: rd.Previous, Documents: list,
	}
	return rel, rd.Images, docs, nil
}

// parseReleaseDocument reads release.json.
func parseReleaseDocument(data []byte) (*releaseDocument, error) {
	var rd releaseDocument
	if err := json.Unmarshal(data, &rd); err != nil {
		return nil, fmt.Errorf("%w: %w", content.ErrInvalid, err)
	}
	if rd.Format > FormatVersion {
		return nil, fmt.Errorf("%s is of format %d: %w", DocumentRelease, rd.Format, ErrVersion)
	}
	if rd.Tag == "" || rd.Tag != rd.Version+"-"+rd.Arch {
		return nil, fmt.Errorf("%w: tag %q of version %q and architecture %q", content.ErrInvalid, rd.Tag, rd.Version, rd.Arch)
	}
	if err := content.CheckDescriptor(rd.Descriptor); err != nil {
		return nil, err
	}
	for i, img := range rd.Images {
		if err := content.CheckDescriptor(img.Descriptor); err != nil {
			return nil, fmt.Errorf("image %q: %w", img.Tag, err)
		}
		rd.Images[i].Image.Tag = img.Tag
	}
	return &rd, nil
}

func (rd *releaseDocument) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(rd); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// isSignatureDocument reports whether name is an OpenPGP signature, and of which child of a
// list ("" for the release itself).
func isSignatureDocument(name string) (child digest.Digest, ok bool) {
	rest, ok := strings.CutPrefix(name, prefixSignature)
	if !ok {
		return "", false
	}
	if hexes, _, found := strings.Cut(rest, "-"); found {
		d := digest.NewDigestFromEncoded(digest.SHA256, hexes)
		return d, content.CheckDigest(d) == nil
	}
	return "", true
}

// sortDocuments puts docs into the order that they stand in on every drive.
func sortDocuments(docs []document) {
	slices.SortFunc(docs, func(a, b document) int { return strings.Compare(a.name, b.name) })
}

// emptyConfig is the config of a manifest that needs none (OCI image-spec, manifest.md,
// "Guidance for an Empty Descriptor").
var (
	emptyConfigData = []byte("{}")
	emptyConfig     = content.Descriptor(ocispec.MediaTypeEmptyJSON, emptyConfigData)
)

func documentDescriptor(d store.Document) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}
