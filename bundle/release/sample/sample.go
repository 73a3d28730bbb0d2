// Package sample makes OpenShift releases that are structurally exact and small, and serves
// them from a registry inside the process. The demo and the tests use it; nothing here is
// signed.
//
// Invariants: equal [Options] make equal bytes, so equal digests; releases made with the same
// seed share the layers and components that successive releases really share.
package sample

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
)

// DefaultComponentRepository is where the components of real releases live.
const DefaultComponentRepository = "quay.io/openshift-release-dev/ocp-v4.0-art-dev"

// Options say what release to make. The zero value makes one like 4.8.21 for x86_64: twelve
// components in Docker's format with gzip layers, about forty blobs of some KiB.
type Options struct {
	Version string   // default "4.8.21"
	Arch    string   // default "x86_64"; ignored with Multi
	Multi   bool     // a list of one release image for each of Archs; every component is a list too
	Archs   []string // children of a multi release; default all four

	Components int // default 12; one of them is always cluster-version-operator

	Repository          string // of the release image, with host; default release.DefaultRepository
	ComponentRepository string // default DefaultComponentRepository

	OCI         bool   // OCI media types instead of Docker's
	Compression string // of layers: "gzip" (default), "zstd" or "none"
	LayerSize   int    // bytes in each layer of its own, before compression; default 8 KiB

	// Each of the first LargeLayers components (default 1 if LargeLayer is set) gets a further
	// layer of about LargeLayer bytes, which is computed whenever it is read and never held.
	LargeLayer  int64
	LargeLayers int

	// BaseLayers are further layers under every component, and Layers further ones of each
	// component, all given by their sizes and computed like LargeLayer. Components beyond the
	// end of Layers have none.
	BaseLayers []int64
	Layers     [][]int64

	Seed     int64     // another seed shares no component with this one
	Previous []string  // versions that may update to this one
	URL      string    // of the errata
	Created  time.Time // default: a moment in 2021

	KeyConfigMap []byte         // a manifest file with release keys, put into the payload
	ImagePolicy  []byte         // a ClusterImagePolicy manifest, put into the payload
	Manifests    []release.File // more manifests for the payload

	Clients      bool // further components that hold oc and openshift-install
	SharedDigest bool // the last two components are one image under two names

	// Mutate may change each release image before it is made, to produce hostile ones; it is
	// called once for each architecture.
	Mutate func(*Draft)
}

func (o *Options) complete() error {
	def := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	def(&o.Version, "4.8.21")
	def(&o.Arch, release.DefaultArch)
	def(&o.Repository, release.DefaultRepository)
	def(&o.ComponentRepository, DefaultComponentRepository)
	def(&o.Compression, "gzip")
	def(&o.URL, "https://errata.example/"+o.Version)
	if o.Components == 0 {
		o.Components = 12
	}
	if o.LayerSize == 0 {
		o.LayerSize = 8 << 10
	}
	if o.LargeLayer > 0 && o.LargeLayers == 0 {
		o.LargeLayers = 1
	}
	if o.Created.IsZero() {
		o.Created = time.Date(2021, 11, 29, 12, 0, 0, 0, time.UTC)
	}
	if len(o.Archs) == 0 {
		o.Archs = []string{"x86_64", "aarch64", "ppc64le", "s390x"}
	}
	if !o.Multi {
		o.Archs = []string{o.Arch}
	}
	for i, a := range o.Archs {
		a, err := release.NormalizeArch(a)
		if err != nil {
			return err
		}
		o.Archs[i] = a
	}
	o.Arch = o.Archs[0]
	if o.Multi {
		o.Arch = release.Multi
	}
	if o.SharedDigest && o.Components < 3 {
		return fmt.Errorf("a shared digest needs three components, not %d", o.Components)
	}
	return nil
}

// Placed is an image at its place: a manifest or list in a repository.
type Placed struct {
	Repository string // with host
	Tag        string // empty if it is there by digest only
	Descriptor ocispec.Descriptor
}

// Release is a release that was made, with everything that belongs to it. It serves its
// bytes as a [content.Fetcher]. It must not be changed while it is served.
type Release struct {
	Version, Arch       string // Arch as in tags; "multi" for a multi release
	Repository          string
	ComponentRepository string
	Descriptor          ocispec.Descriptor                  // of the release image, or its list
	Children            []ocispec.Descriptor                // release images of a multi release
	Components          []release.Image                     // as image-references names them
	Images              []Placed                            // everything that a registry must hold
	Blobs               map[digest.Digest][]byte            // manifests, configs, layers
	Large               map[digest.Digest]*io.SectionReader // layers that are computed when read
	Clients             map[string][]byte                   // with Options.Clients: by component tag, of each architecture, slash, path
}

// Reference returns the release's pull spec by tag.
func (r *Release) Reference() string {
	return r.Repository + ":" + release.Tag(r.Version, r.Arch)
}

// Fetch implements [content.Fetcher]. Errors wrap [fs.ErrNotExist] for what does not belong to
// the release.
func (r *Release) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if large, ok := r.Large[desc.Digest]; ok {
		return io.NopCloser(io.NewSectionReader(large, offset, large.Size()-offset)), nil
	}
	data, ok := r.Blobs[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, fs.ErrNotExist)
	}
	if offset < 0 || offset > int64(len(data)) {
		return nil, fmt.Errorf("blob %s: offset %d of %d", desc.Digest, offset, len(data))
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), nil
}

// Size returns the bytes of all unique blobs and manifests.
func (r *Release) Size() int64 {
	var n int64
	for _, b := range r.Blobs {
		n += int64(len(b))
	}
	for _, l := range r.Large {
		n += l.Size()
	}
	return n
}

// Digests returns the digests of all unique blobs and manifests, sorted.
func (r *Release) Digests() []digest.Digest {
	var out []digest.Digest
	for d := range r.Blobs {
		out = append(out, d)
	}
	for d := range r.Large {
		out = append(out, d)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

// Make makes a release.
func Make(o Options) (*Release, error) {
	o.Archs = append([]string(nil), o.Archs...)
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("sample release: %w", err)
	}
	r := &Release{
		Version: o.Version, Arch: o.Arch, Repository: o.Repository, ComponentRepository: o.ComponentRepository,
		Blobs: map[digest.Digest][]byte{}, Large: map[digest.Digest]*io.SectionReader{}, Clients: map[string][]byte{},
	}
	m := &maker{Options: o, r: r}
	bases, err := m.components()
	if err != nil {
		return nil, fmt.Errorf("sample release: %w", err)
	}
	if err := m.releaseImages(bases); err != nil {
		return nil, fmt.Errorf("sample release: %w", err)
	}
	return r, nil
}

type maker struct {
	Options
	r *Release
}

var _ content.Fetcher = (*Release)(nil)
