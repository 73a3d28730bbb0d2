package bundle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
)

// Limits on a sigstore image: what is read into memory of it.
const (
	maxSigstoreLayer  = 1 << 20
	maxSigstoreLayers = 64
)

// sigstoreFound is a sigstore image found beside the image that it signs.
type sigstoreFound struct {
	image SigstoreImage
	desc  ocispec.Descriptor
	repo  *remote.Repository
}

// findSigstore looks for the sigstore images of the release, its children and components.
func (p *packer) findSigstore(ctx context.Context, repo *remote.Repository, pr *plannedRelease) ([]*sigstoreFound, error) {
	type subject struct {
		repo string
		d    digest.Digest
	}
	subjects := []subject{{repo.Name(), pr.record.Descriptor.Digest}}
	for _, c := range pr.payload.Children {
		subjects = append(subjects, subject{repo.Name(), c.Digest})
	}
	for _, c := range pr.payload.Images {
		if s := (subject{c.Repository, c.Digest}); !slices.Contains(subjects, s) {
			subjects = append(subjects, s)
		}
	}
	found := make([]*sigstoreFound, len(subjects))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * p.opts.Jobs)
	for i, s := range subjects {
		g.Go(func() error {
			r, err := p.opts.Client.Repository(s.repo)
			if err != nil {
				return err
			}
			found[i], err = p.sigstore(gctx, r, s.d)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(f *sigstoreFound) bool { return f == nil }), nil
}

// sigstore looks for the sigstore image of d in repo; nil if there is none.
func (p *packer) sigstore(ctx context.Context, repo *remote.Repository, d digest.Digest) (*sigstoreFound, error) {
	desc, raw, err := repo.Manifest(ctx, release.SigstoreTag(d))
	if errors.Is(err, remote.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sigstore signature of %s: %w", d, err)
	}
	var img SigstoreImage
	err = again(func() (err error) {
		img, err = sigstoreImage(ctx, repo, desc, raw, repo.Name(), d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sigstore signature of %s: %w", d, err)
	}
	return &sigstoreFound{image: img, desc: desc, repo: repo}, nil
}

// collectSigstore plans a sigstore image under its own tag.
func (p *packer) collectSigstore(ctx context.Context, s *sigstoreFound, releaseTag string) error {
	tag := release.SigstoreTag(s.image.Subject)
	img := store.Image{
		Tag: tag, Kind: store.KindSignature, Release: releaseTag,
		Reference: s.repo.Name() + ":" + tag, Descriptor: plain(s.desc),
	}
	p.mu.Lock()
	p.replaced[tag] = true
	p.mu.Unlock()
	return p.collect(ctx, &rooted{Fetcher: s.repo, root: s.desc, raw: s.image.Manifest}, s.repo, img)
}

// sigstoreSubject returns the digest of what a tag of a sigstore image says that it signs; it
// is "" if the tag is none.
func sigstoreSubject(tag string) digest.Digest {
	hexes, prefixed := strings.CutPrefix(tag, "sha256-")
	hexes, suffixed := strings.CutSuffix(hexes, ".sig")
	d := digest.NewDigestFromEncoded(digest.SHA256, hexes)
	if !prefixed || !suffixed || content.CheckDigest(d) != nil {
		return ""
	}
	return d
}

// readSigstoreImage reads a sigstore image that was captured.
func readSigstoreImage(ctx context.Context, f content.Fetcher, img store.Image) (SigstoreImage, error) {
	subject := sigstoreSubject(img.Tag)
	if subject == "" {
		return SigstoreImage{}, fmt.Errorf("%w: %q is no tag of a sigstore image", content.ErrInvalid, img.Tag)
	}
	raw, err := content.ReadAll(ctx, f, img.Descriptor, content.MaxManifest)
	if err != nil {
		return SigstoreImage{}, err
	}
	return sigstoreImage(ctx, f, img.Descriptor, raw, strings.TrimSuffix(img.Reference, ":"+img.Tag), subject)
}

func sigstoreImage(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor, raw []byte, repo string, subject digest.Digest) (SigstoreImage, error) {
	out := SigstoreImage{Subject: subject, Repository: repo, Manifest: raw, Layers: map[digest.Digest][]byte{}}
	m, err := content.ParseManifest(desc.MediaType, raw)
	if err != nil {
		return out, err
	}
	if content.IsIndex(desc.MediaType) || len(m.Layers) > maxSigstoreLayers {
		return out, fmt.Errorf("%w: not a sigstore image", content.ErrInvalid)
	}
	for _, l := range m.Layers {
		if out.Layers[l.Digest], err = content.ReadAll(ctx, f, l, maxSigstoreLayer); err != nil {
			return out, err
		}
	}
	return out, nil
}
