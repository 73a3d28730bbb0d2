package content

import (
	"bytes"
	"encoding/json"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's image manifest version 2, schema 2, which OpenShift's release
// payloads use. They are carried as they are; nothing is ever converted.
const (
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	MediaTypeDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// ManifestTypes are the media types that are asked for, and accepted, as manifests.
var ManifestTypes = []string{
	MediaTypeDockerManifest, MediaTypeDockerList, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
}

// maxChildren bounds how many descriptors one manifest may name.
const maxChildren = 10000

// IsManifest reports whether mediaType is an image manifest or an image index.
func IsManifest(mediaType string) bool { return IsImage(mediaType) || IsIndex(mediaType) }

// IsImage reports whether mediaType is the manifest of a single image.
func IsImage(mediaType string) bool {
	return mediaType == MediaTypeDockerManifest || mediaType == ocispec.MediaTypeImageManifest
}

// IsIndex reports whether mediaType is an image index (a manifest list).
func IsIndex(mediaType string) bool {
	return mediaType == MediaTypeDockerList || mediaType == ocispec.MediaTypeImageIndex
}

// Manifest is what pannier reads of an image manifest or an image index (OCI image-spec,
// manifest.md and image-index.md; Docker's equivalents have the same fields).
type Manifest struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType"`
	Config        ocispec.Descriptor   `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Subject       *ocispec.Descriptor  `json:"subject"`
	Annotations   map[string]string    `json:"annotations"`
}

// ParseManifest reads raw as what mediaType says. Errors wrap [ErrInvalid]: for a body whose
// own mediaType differs, whose descriptors are malformed, that is neither kind or both.
func ParseManifest(mediaType string, raw []byte) (*Manifest, error) {
	if !IsManifest(mediaType) {
		return nil, fmt.Errorf("%w: media type %q is no manifest", ErrInvalid, mediaType)
	}
	if len(raw) > MaxManifest {
		return nil, fmt.Errorf("%w: a manifest of %d bytes", ErrInvalid, len(raw))
	}
	if bytes.Count(raw, []byte("{")) > 8*maxChildren {
		return nil, fmt.Errorf("%w: a manifest with more than %d objects", ErrInvalid, 8*maxChildren) // each takes a hundred times its bytes in memory
	}
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrInvalid, err)
	}
	if dec.More() {
		return nil, fmt.Errorf("%w: manifest: data after the JSON value", ErrInvalid)
	}
	if m.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: manifest of schema version %d", ErrInvalid, m.SchemaVersion)
	}
	if m.MediaType != "" && m.MediaType != mediaType {
		return nil, fmt.Errorf("%w: manifest says it is %q, its descriptor %q", ErrInvalid, m.MediaType, mediaType)
	}
	if len(m.Layers) > maxChildren || len(m.Manifests) > maxChildren {
		return nil, fmt.Errorf("%w: a manifest with more than %d entries", ErrInvalid, maxChildren)
	}
	if IsIndex(mediaType) {
		if m.Config.Digest != "" || len(m.Layers) > 0 {
			return nil, fmt.Errorf("%w: an index with a config or layers", ErrInvalid)
		}
		for _, d := range m.Manifests {
			if !IsManifest(d.MediaType) {
				return nil, fmt.Errorf("%w: an index names %s, of media type %q", ErrInvalid, d.Digest, d.MediaType)
			}
		}
	} else if len(m.Manifests) > 0 || m.Config.Digest == "" {
		return nil, fmt.Errorf("%w: an image manifest with children or without config", ErrInvalid)
	}
	for _, d := range m.Children() {
		if err := CheckDescriptor(d); err != nil {
			return nil, err
		}
	}
	return &m, nil
}

// Children returns what m needs to be whole, in order: the children of an index, or config
// and layers of an image. Layers that are to be had from elsewhere only (with urls) are
// left out: registries do not hold them. The subject is not a child.
func (m *Manifest) Children() []ocispec.Descriptor {
	if m.Config.Digest == "" {
		return m.Manifests
	}
	out := []ocispec.Descriptor{m.Config}
	for _, l := range m.Layers {
		if len(l.URLs) == 0 {
			out = append(out, l)
		}
	}
	return out
}
