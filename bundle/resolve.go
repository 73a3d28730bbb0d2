package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// resolve makes the plan: it asks for every release and additional image, reads the payloads,
// checks the signatures, and collects what the images need.
func (p *packer) resolve(ctx context.Context) error {
	if err := p.readTexts(ctx); err != nil {
		return err
	}
	if err := p.findPath(ctx); err != nil {
		return err
	}
	for _, ref := range p.opts.Releases {
		if err := p.resolveRelease(ctx, ref); errors.Is(err, ErrSignature) {
			return err // which names the release by itself
		} else if err != nil {
			return fmt.Errorf("release %s: %w%s", ref, err, mirrorHint(ref, err))
		}
	}
	if p.adoptsAll() {
		if err := p.resolveAdopted(ctx); err != nil {
			return err
		}
	}
	if err := p.unusedTexts(); err != nil {
		return err
	}
	for _, ref := range p.opts.Additional {
		if err := p.resolveAdditional(ctx, ref); err != nil {
			return fmt.Errorf("image %s: %w", ref, err)
		}
	}
	for _, li := range p.opts.Local {
		if err := p.resolveLocal(ctx, li); err != nil {
			return fmt.Errorf("image %s: %w", li.Reference, err)
		}
	}
	if err := p.mendBase(ctx); err != nil {
		return err
	}
	if err := p.conflicts(); err != nil {
		return err
	}
	p.tellBroken()
	return p.distrust()
}

// mirrorHint says what may help where a release was found, but not the host by which it names
// its images: whoever has copied a release to a registry of his own has its images there too.
func mirrorHint(ref release.Reference, err error) string {
	var e *remote.Error
	host, _, _ := strings.Cut(ref.Repository, "/")
	if !errors.Is(err, remote.ErrUnreachable) || !errors.As(err, &e) || strings.HasPrefix(e.Repository, host+"/") {
		return ""
	}
	return fmt.Sprintf(" (the release names its images by another registry than it is in; if they are there too, add --registry-mirror %s=%s)", e.Repository, ref.Repository)
}

// resolveRelease plans one release. One that the seal covers costs one request, to see that
// the tag still names it.
func (p *packer) resolveRelease(ctx context.Context, ref release.Reference) error {
	repo, err := p.opts.Client.Repository(ref.Repository)
	if err != nil {
		return err
	}
	want := ref.Tag
	if ref.Digest != "" {
		want = ref.Digest.String()
	}
	known, err := p.sealedRelease(ctx, repo, ref, want)
	if err != nil || known {
		return err
	}
	p.opts.Progress(Event{Phase: PhasePlan, Item: ref.String()})
	desc, raw, err := repo.Manifest(ctx, want)
	if err != nil {
		return err
	}
	src := &rooted{Fetcher: repo, root: desc, raw: raw}
	var payload *release.Payload
	err = again(func() (err error) {
		payload, err = release.Read(ctx, src, desc)
		return err
	})
	if err != nil {
		return err
	}
	if err := checkWanted(ref, payload); err != nil {
		return err
	}
	tag := release.Tag(payload.Version, payload.Arch)
	if err := p.checkGraph(tag, desc.Digest); err != nil {
		return err
	}
	if d, ok := p.baseTag(tag); ok && d != desc.Digest {
		return fmt.Errorf("%w: %s is %s on the drive, and now %s", ErrConflict, tag, d, desc.Digest)
	}
	for _, r := range p.releases {
		if r.record.Tag == tag {
			if r.record.Descriptor.Digest != desc.Digest {
				return fmt.Errorf("%w: %s is asked for as %s and as %s", ErrConflict, tag, r.record.Descriptor.Digest, desc.Digest)
			}
			return nil
		}
	}
	pr := &plannedRelease{
		payload: payload,
		record: store.Release{
			Tag: tag, Version: payload.Version, Arch: payload.Arch, Source: repo.Name(),
			Descriptor: plain(desc), Created: payload.Created, Previous: payload.Previous,
		},
	}
	sigs, err := p.checkSignatures(ctx, repo, pr)
	if err != nil {
		return err
	}
	if err := p.captureText(ctx, repo, pr); err != nil {
		return err
	}
	if err := p.captureUpdates(pr); err != nil {
		return err
	}
	p.replaceRelease(tag)
	if err := p.collectRelease(ctx, src, repo, pr, raw, sigs); err != nil {
		return err
	}
	if err := p.capture(pr); err != nil {
		return err
	}
	p.releases = append(p.releases, pr)
	p.ask(tag)
	return nil
}

// ask notes that a release was asked for, whether it is planned or kept.
func (p *packer) ask(tag string) {
	if !slices.Contains(p.asked, tag) {
		p.asked = append(p.asked, tag)
	}
}

// sealedRelease reports whether the drive's seal covers what ref names, which then is kept.
func (p *packer) sealedRelease(ctx context.Context, repo *remote.Repository, ref release.Reference, want string) (bool, error) {
	if !p.trusted || p.opts.Refresh {
		return false, nil
	}
	for _, rel := range p.base.Releases {
		if rel.Source != repo.Name() || ref.Version != "" && (rel.Version != ref.Version || rel.Arch != ref.Arch) {
			continue
		}
		if ref.Digest != "" {
			if ref.Digest != rel.Descriptor.Digest {
				continue
			}
		} else if desc, err := repo.Resolve(ctx, want); err != nil {
			return false, err
		} else if desc.Digest != rel.Descriptor.Digest {
			continue
		}
		if !p.rendered(rel) {
			return false, nil
		}
		if err := p.checkGraph(rel.Tag, rel.Descriptor.Digest); err != nil {
			return false, err
		}
		if !p.keepsText(rel) || !p.keepsUpdates(rel) {
			return false, nil
		}
		return p.keep(ctx, rel.Tag), nil
	}
	return false, nil
}

// keep leaves a sealed release as it is, if the drive holds what its release image says, and
// every blob that its images need with its size; otherwise it reports false, and the release,
// which was asked for either way, is planned anew.
func (p *packer) keep(ctx context.Context, releaseTag string) bool {
	p.ask(releaseTag) // what is asked for with it may need more than is there
	if wrong := p.base.CheckPayload(ctx, p.have.Layout, releaseTag); len(wrong) > 0 {
		p.warn("%v; the release is packed anew", wrong[0])
		return false
	}
	tags := map[string]bool{}
	for _, img := range p.base.Images {
		tags[img.Tag] = img.Release == releaseTag
		if err := p.broken[img.Tag]; err != nil && tags[img.Tag] {
			p.warn("image %s: %v; the release is packed anew", img.Tag, err)
			return false
		}
	}
	for d, r := range p.base.Records {
		if !slices.ContainsFunc(r.Images, func(t string) bool { return tags[t] }) {
			continue
		}
		if size, err := p.have.Layout.Stat(d); err != nil || size != r.Size {
			p.warn("%s on the drive is not as it was sealed; it is fetched again", d)
			return false
		}
	}
	if p.lacksPresumed(tags) {
		p.warn("%s on the drive needs blobs that were presumed at %s, and is not said to be there now; they are fetched", releaseTag, strings.Join(p.base.PresumedAt(), ", "))
		return false
	}
	for tag, own := range tags {
		p.kept[tag] = p.kept[tag] || own
	}
	return true
}

// checkWanted compares what was asked for with what the payload says of itself.
func checkWanted(ref release.Reference, payload *release.Payload) error {
	if ref.Version != "" && ref.Version != payload.Version {
		return fmt.Errorf("%w: it says that it is version %s", release.ErrPayload, payload.Version)
	}
	if ref.Version != "" && ref.Arch != "" && ref.Arch != payload.Arch {
		return fmt.Errorf("%w: it says that it is for %s", release.ErrPayload, payload.Arch)
	}
	return nil
}

// replaceRelease notes that everything of a release on the drive is planned anew.
func (p *packer) replaceRelease(tag string) {
	if p.base == nil {
		return
	}
	for _, img := range p.base.Images {
		if img.Release == tag {
			p.replaced[img.Tag] = true
		}
	}
}

// collectRelease plans the release image, its components and their sigstore images.
func (p *packer) collectRelease(ctx context.Context, src content.Fetcher, repo *remote.Repository, pr *plannedRelease, raw []byte, sigs []*sigstoreFound) error {
	rec := pr.record
	root := store.Image{Tag: rec.Tag, Kind: store.KindRelease, Release: rec.Tag, Reference: rec.Source + "@" + rec.Descriptor.Digest.String(), Descriptor: rec.Descriptor}
	if err := p.collect(ctx, src, repo, root); err != nil {
		return fmt.Errorf("release image: %w", err)
	}
	for _, s := range sigs {
		if err := p.collectSigstore(ctx, s, rec.Tag); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * p.opts.Jobs)
	for _, c := range pr.payload.Images {
		g.Go(func() error {
			if err := p.collectComponent(gctx, rec, c); err != nil {
				return fmt.Errorf("component %s (%s@%s): %w", c.Name, c.Repository, c.Digest, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (p *packer) collectComponent(ctx context.Context, rec store.Release, c release.Image) error {
	repo, err := p.opts.Client.Repository(c.Repository)
	if err != nil {
		return err
	}
	desc, raw, err := p.manifest(ctx, repo, c.Digest)
	if err != nil {
		return err
	}
	img := store.Image{
		Tag: release.ComponentTag(rec.Version, rec.Arch, c.Name), Name: c.Name, Kind: store.KindComponent, Release: rec.Tag,
		Reference: c.Repository + "@" + c.Digest.String(), Descriptor: plain(desc),
	}
	if err := p.collect(ctx, &rooted{Fetcher: repo, root: desc, raw: raw}, repo, img); err != nil {
		return err
	}
	if !content.IsIndex(desc.MediaType) {
		return nil
	}
	m, err := content.ParseManifest(desc.MediaType, raw)
	if err != nil {
		return err
	}
	for _, child := range m.Manifests {
		found, err := p.sigstore(ctx, repo, child.Digest)
		if err != nil {
			return err
		}
		if found != nil {
			if err := p.collectSigstore(ctx, found, rec.Tag); err != nil {
				return err
			}
		}
	}
	return nil
}

// manifest gets a manifest by digest, from the drive if that has it whole.
func (p *packer) manifest(ctx context.Context, repo *remote.Repository, d digest.Digest) (ocispec.Descriptor, []byte, error) {
	if p.have != nil {
		if desc, raw, err := storedManifest(ctx, p.have.Contents, p.have.Layout, d); err == nil {
			return desc, raw, nil
		}
	}
	if p.adopt != nil {
		if desc, raw, err := storedManifest(ctx, p.adopt.Contents, p.adopt.Blobs, d); err == nil {
			return desc, raw, nil
		}
	}
	return repo.Manifest(ctx, d.String())
}

// storedManifest reads a manifest that has a record.
func storedManifest(ctx context.Context, c *Contents, f content.Fetcher, d digest.Digest) (ocispec.Descriptor, []byte, error) {
	r, ok := c.Records[d]
	if !ok || !content.IsManifest(r.MediaType) {
		return ocispec.Descriptor{}, nil, store.ErrNotFound
	}
	desc := ocispec.Descriptor{MediaType: r.MediaType, Digest: d, Size: r.Size}
	raw, err := content.ReadAll(ctx, f, desc, content.MaxManifest)
	if err == nil {
		_, err = content.ParseManifest(desc.MediaType, raw) // the record may lie about its type
	}
	return desc, raw, err
}

// collect plans an image: every manifest and blob that it needs. Manifests are read now, for
// they say what else there is, and kept until they are written.
func (p *packer) collect(ctx context.Context, f content.Fetcher, repo *remote.Repository, img store.Image) error {
	var bytes int64
	add := func(d ocispec.Descriptor, data []byte) error {
		bytes += d.Size
		return p.want(d, data, repo, img.Tag)
	}
	err := Walk(ctx, f, img.Descriptor,
		func(n Node) error { return add(n.Descriptor, n.Raw) },
		func(d ocispec.Descriptor) error { return add(d, nil) },
		func(_ ocispec.Descriptor, err error) error { return err })
	if err != nil {
		return err
	}
	img.Bytes = bytes
	p.mu.Lock()
	defer p.mu.Unlock()
	p.images[img.Tag] = img
	return nil
}

// rooted is a Fetcher that has the root manifest at hand, so that it is asked for once.
type rooted struct {
	content.Fetcher
	root ocispec.Descriptor
	raw  []byte
}

func (r *rooted) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if desc.Digest == r.root.Digest && offset <= int64(len(r.raw)) {
		return io.NopCloser(bytes.NewReader(r.raw[offset:])), nil
	}
	return r.Fetcher.Fetch(ctx, desc, offset)
}
