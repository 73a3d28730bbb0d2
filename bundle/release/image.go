package release

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

const (
	versionLabel = "io.openshift.release" // in the config of a release image: its version

	maxConfig = 4 << 20 // bytes of an image config
	maxLayers = 256     // of a release image; container storage allows about half of that
)

// image is a single-architecture release image: what its manifest and config say.
type image struct {
	arch    string // as in tags
	version string // the label; empty if there is none
	title   string // what its labels call it, for messages; empty if nothing
	layers  []ocispec.Descriptor
}

func readManifest(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor) (*content.Manifest, error) {
	if !content.IsManifest(desc.MediaType) {
		return nil, fmt.Errorf("%w: it is a %q, not an image", ErrPayload, desc.MediaType)
	}
	raw, err := content.ReadAll(ctx, f, desc, content.MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := content.ParseManifest(desc.MediaType, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPayload, err)
	}
	return m, nil
}

// readImage reads manifest and config of one image, not of a list.
func readImage(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor) (*image, error) {
	if !content.IsImage(desc.MediaType) {
		return nil, fmt.Errorf("%w: a list names a %q, not an image", ErrPayload, desc.MediaType)
	}
	m, err := readManifest(ctx, f, desc)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) == 0 || len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("%w: an image of %d layers", ErrPayload, len(m.Layers))
	}
	if m.Config.Size > maxConfig {
		return nil, fmt.Errorf("%w: an image config of %d bytes", ErrPayload, m.Config.Size)
	}
	raw, err := content.ReadAll(ctx, f, m.Config, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("read image config: %w", err)
	}
	var config struct {
		Architecture string `json:"architecture"`
		Config       struct {
			Labels map[string]string `json:"Labels"`
		} `json:"config"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("image config %s: %w: %w", m.Config.Digest, ErrPayload, err)
	}
	arch, err := NormalizeArch(config.Architecture)
	if err != nil || arch == Multi {
		return nil, fmt.Errorf("image config %s: %w: architecture %q", m.Config.Digest, ErrPayload, config.Architecture)
	}
	if p := desc.Platform; p != nil && p.Architecture != "" && p.Architecture != GoArch(arch) {
		return nil, fmt.Errorf("image config %s: %w: architecture %q, its list says %q", m.Config.Digest, ErrPayload, config.Architecture, p.Architecture)
	}
	labels := config.Config.Labels
	title := cmp.Or(labels["name"], labels["io.k8s.display-name"], labels[ocispec.AnnotationTitle])
	return &image{arch: arch, version: labels[versionLabel], title: title, layers: m.Layers}, nil
}

// check compares the label with the version that the payload states.
func (i *image) check(version string) error {
	if i.version != "" && i.version != version {
		return fmt.Errorf("%w: label %s says version %q, release-metadata %q", ErrPayload, versionLabel, i.version, version)
	}
	return nil
}
