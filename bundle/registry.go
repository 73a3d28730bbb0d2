package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
)

// ResolveOptions say what [Resolve] asks for, and whom. Client must be set; the zero value of
// every other field works.
type ResolveOptions struct {
	Releases   []release.Reference
	Additional []release.Reference // other images
	Client     *remote.Client      // reaches the registries and the signature stores

	Signatures SignatureVerifier // judges releases; nil finds every signature unverified
	Stores     []string          // signature stores; nil means remote.DefaultSignatureStores
	Policy     Policy

	Jobs     int // requests at a time are twice as many; 0 means 4
	Progress ProgressFunc
	Logger   *slog.Logger
}

// Resolve makes a source of the registries that releases and images are named at. It asks
// exactly what [Pack] asks for its plan, and in the same order: no component is read before
// the release's signature was judged. The manifests are held in memory; of other blobs it is
// known who has them. Contents have no captured documents that anybody could push.
//
// Errors are those of [Pack] while it plans.
func Resolve(ctx context.Context, opts ResolveOptions) (*Source, error) {
	p, err := newPacker(PackOptions{
		Releases: opts.Releases, Additional: opts.Additional, Client: opts.Client,
		Signatures: opts.Signatures, Stores: opts.Stores, Policy: opts.Policy,
		Jobs: opts.Jobs, Progress: opts.Progress, Logger: opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	if err := p.resolve(ctx); err != nil {
		return nil, err
	}
	return p.source(), nil
}

// source is a plan that was made without a drive, as a source.
func (p *packer) source() *Source {
	c := &Contents{Records: map[digest.Digest]store.Record{}, documents: map[string][]byte{}}
	s := &Source{Contents: c, Notes: p.warnings, Judged: map[string]SignatureVerdict{}, feel: feelRegistry, Registries: true}
	for _, pr := range p.releases {
		c.Releases = append(c.Releases, pr.record)
		for _, d := range pr.docs {
			c.documents[pr.record.Tag+"/"+d.name] = d.data
		}
		s.Judged[pr.record.Tag] = pr.verdict
	}
	slices.SortFunc(c.Releases, func(a, b store.Release) int { return strings.Compare(a.Tag, b.Tag) })
	for _, tag := range slices.Sorted(maps.Keys(p.images)) {
		// What was captured is there for whoever asks Contents; it is no image of a registry.
		if img := p.images[tag]; img.Kind != store.KindDocuments {
			c.Images = append(c.Images, img)
		}
	}
	blobs, hosts := registryBlobs{}, map[string]bool{}
	for d, it := range p.items {
		if len(it.repos) == 0 {
			continue // a captured document
		}
		blobs[d] = it
		for _, r := range it.repos {
			host, _, _ := strings.Cut(r.Endpoint(), "/")
			hosts[host] = true
		}
		c.Records[d] = store.Record{
			Digest: d, Size: it.desc.Size, MediaType: it.desc.MediaType, State: store.StateComplete, Offset: it.desc.Size,
			Source: it.repos[0].Name(), Images: slices.Sorted(maps.Keys(it.tags)),
		}
	}
	s.Blobs, s.Name = blobs, strings.Join(slices.Sorted(maps.Keys(hosts)), ", ")
	return s
}

// registryBlobs are blobs that a plan found at registries; manifests are at hand.
type registryBlobs map[digest.Digest]*item

// Stat implements [Blobs]: the size is what the manifests say.
func (b registryBlobs) Stat(d digest.Digest) (int64, error) {
	if it, ok := b[d]; ok {
		return it.desc.Size, nil
	}
	return 0, fmt.Errorf("%s: %w", d, fs.ErrNotExist)
}

// Fetch implements [content.Fetcher].
func (b registryBlobs) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	it, ok := b[desc.Digest]
	switch {
	case !ok:
		return nil, fmt.Errorf("%s: %w", desc.Digest, fs.ErrNotExist)
	case it.data == nil:
		return it.fetch(ctx, offset)
	case offset < 0 || offset > int64(len(it.data)):
		return nil, fmt.Errorf("%s: %w: offset %d of %d bytes", desc.Digest, content.ErrSize, offset, len(it.data))
	}
	return io.NopCloser(bytes.NewReader(it.data[offset:])), nil
}

// fetch opens a blob at the first repository that has it.
func (it *item) fetch(ctx context.Context, offset int64) (io.ReadCloser, error) {
	// A captured document has no source: the drive held the only copy.
	var last error = fmt.Errorf("it was captured with a release, and only packing that release again restores it: %w", fs.ErrNotExist)
	if it.local != nil && len(it.repos) == 0 {
		return it.local.Fetch(ctx, it.desc, offset)
	}
	for _, r := range it.repos {
		rc, err := r.Fetch(ctx, it.desc, offset)
		if err == nil || !errors.Is(err, remote.ErrNotFound) {
			return rc, err
		}
		last = err
	}
	return nil, last
}

// feelRegistry tells what a registry says of one blob, that it has not got it or has another,
// from what says that nothing can be had there now.
func feelRegistry(err error) error {
	switch {
	case errors.Is(err, remote.ErrNotRegistry):
		return err
	case errors.Is(err, content.ErrDigest), errors.Is(err, content.ErrSize), errors.Is(err, remote.ErrNotFound):
		return nil
	}
	return err
}
