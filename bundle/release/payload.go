// Package release reads OpenShift release payloads: which images a release consists of, its
// version and architecture, where it may be updated from, and the keys and policies it
// brings. It also knows how releases are named.
//
// Invariants: whatever is returned was hashed to the end and found to be what the release
// image's digest names; nothing is believed because of its name or its tag. Payloads may be
// hostile: reads are bounded, no path is made from their contents.
package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// ErrPayload says that a release image is truncated, contradicts itself, or is no release
// image. Failures of the source that it is read from do not wrap it.
var ErrPayload = errors.New("invalid release payload")

// ErrNotRelease, an ErrPayload, says that an image is whole as far as it was read, and is no
// release image but a component of one, or something else.
var ErrNotRelease = fmt.Errorf("%w: this is no release image", ErrPayload)

// Image is one component of a release, as its image-references names it.
type Image struct {
	Name       string // component name, "etcd"
	Repository string // "quay.io/openshift-release-dev/ocp-v4.0-art-dev"
	Digest     digest.Digest
}

// File is a file found inside a release payload.
type File struct {
	Name string
	Data []byte
}

// Payload is what a release image says.
type Payload struct {
	Descriptor ocispec.Descriptor // what was read: an image manifest, or a list of them
	Version    string             // "4.8.21"
	Arch       string             // as in tags, "x86_64"; Multi for a list of several whose metadata says so
	Created    time.Time          // of image-references; zero if it does not say
	Previous   []string           // versions that may update to this one, as known when it was built
	URL        string             // of the errata; may be empty

	References []byte               // image-references as it is
	Metadata   []byte               // release-metadata as it is
	Images     []Image              // in the order of image-references; several may share a digest
	Children   []ocispec.Descriptor // of a list, in its order

	// Keys are the key rings of the ConfigMaps annotated as verification config maps, one File
	// per verifier-public-key entry. They are candidates: nothing here makes them trusted.
	Keys []File
	// ImagePolicies are the ClusterImagePolicy manifests, one document each.
	ImagePolicies []File
}

// Tag returns the release's tag, "4.8.21-x86_64".
func (p *Payload) Tag() string { return Tag(p.Version, p.Arch) }

// Repositories returns the repositories that the components live in, sorted, each once.
func (p *Payload) Repositories() []string {
	var out []string
	for _, i := range p.Images {
		out = append(out, i.Repository)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Read reads the release image that desc names, an image manifest or a list, from f, which
// serves manifests and blobs. Of a list the linux/amd64 child is read, else the first. Errors
// wrap [ErrPayload] for what cannot be a whole release, also for one architecture's part of a
// multi release; content.ErrDigest or content.ErrSize if f serves other bytes; otherwise they
// are f's own.
func Read(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor) (*Payload, error) {
	p := &Payload{Descriptor: desc}
	m, err := readManifest(ctx, f, desc)
	if err != nil {
		return nil, fmt.Errorf("release image %s: %w", desc.Digest, err)
	}
	images := []ocispec.Descriptor{desc}
	if content.IsIndex(desc.MediaType) {
		p.Children = m.Manifests
		images = m.Manifests
		if len(images) == 0 || len(images) > maxArchs {
			return nil, fmt.Errorf("release image %s: %w: a list of %d images", desc.Digest, ErrPayload, len(images))
		}
	}
	main := mainChild(images)
	img, err := readImage(ctx, f, images[main])
	if err != nil {
		return nil, fmt.Errorf("release image %s: %w", images[main].Digest, err)
	}
	if err := p.read(ctx, f, img, len(images) > 1); err != nil {
		return nil, fmt.Errorf("release image %s: %w", images[main].Digest, err)
	}
	for i, child := range images {
		if i == main {
			continue
		}
		img, err := readImage(ctx, f, child)
		if err == nil {
			err = img.check(p.Version)
		}
		if err != nil {
			return nil, fmt.Errorf("release image %s: %w", child.Digest, err)
		}
	}
	return p, nil
}

// maxArchs bounds the children of a release's list; there are four architectures.
const maxArchs = 32

// mainChild returns which of the children's payload is read.
func mainChild(children []ocispec.Descriptor) int {
	for i, c := range children {
		if c.Platform != nil && c.Platform.OS == "linux" && c.Platform.Architecture == "amd64" {
			return i
		}
	}
	return 0
}

// read fills p from img's layers. several says that img is one of a list of several.
func (p *Payload) read(ctx context.Context, f content.Fetcher, img *image, several bool) error {
	found, err := readLayers(ctx, f, img.layers)
	if errors.Is(err, ErrNotRelease) && img.title != "" {
		return fmt.Errorf("it calls itself %q: %w", short(img.title), err)
	}
	if err != nil {
		return err
	}
	meta, err := parseMetadata(found.metadata)
	if err != nil {
		return fmt.Errorf("release-metadata: %w", err)
	}
	if err := img.check(meta.version); err != nil {
		return err
	}
	p.Arch = img.arch
	if several {
		p.Arch = Multi
	}
	switch {
	case several && !meta.multi:
		return fmt.Errorf("%w: a list of several images, but release-metadata of %s does not say that it is a multi release", ErrPayload, meta.version)
	case !several && meta.multi:
		return fmt.Errorf("%w: this image is the %s part of the multi release %s, not a release of its own; ask for %s",
			ErrPayload, img.arch, meta.version, Tag(meta.version, Multi))
	}
	refs, err := parseReferences(found.references, p.Arch)
	if err != nil {
		return fmt.Errorf("image-references: %w", err)
	}
	if refs.version != meta.version {
		return fmt.Errorf("%w: image-references is of version %q, release-metadata of %q", ErrPayload, refs.version, meta.version)
	}
	p.Version, p.Previous, p.URL = meta.version, meta.previous, meta.url
	p.Created, p.Images = refs.created, refs.images
	p.References, p.Metadata = found.references, found.metadata
	if p.Keys, p.ImagePolicies, err = found.trust(); err != nil {
		return err
	}
	return nil
}
