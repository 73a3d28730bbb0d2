package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
)

// sources are the opened sources as one: a blob is taken from the first that has it.
type sources []*bundle.Source

// image is one image that is to be at the registry.
type image struct {
	record store.Image
	repo   *remote.Repository
	tag    string // to be written there; "" if it came by digest alone
	own    bool   // repo is the component's own, beside the one that nodes pull from

	nodes   []bundle.Node // manifests, parents first
	blobs   []ocispec.Descriptor
	err     error // why it cannot be pushed: a manifest that could not be read
	present map[digest.Digest]bool
	tagged  bool // the registry's tag was seen to point to the right manifest
}

// Fetch opens a blob at the first source that has one of its size.
func (s sources) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	last := fmt.Errorf("%s: %w: it is not there", desc.Digest, s.absent())
	for _, d := range s.holding(desc) {
		rc, err := d.Blobs.Fetch(ctx, desc, offset)
		if err == nil {
			return rc, nil
		}
		last = err
	}
	return nil, last
}

// absent is what it means that none of them has a blob.
func (s sources) absent() error {
	for _, d := range s {
		if err := d.Absent(); !errors.Is(err, bundle.ErrIncomplete) {
			return err
		}
	}
	return bundle.ErrIncomplete
}

// holding lists the sources that have the blob with its size, or else all that have it.
func (s sources) holding(desc ocispec.Descriptor) []*bundle.Source {
	var right, other []*bundle.Source
	for _, d := range s {
		switch n, err := d.Blobs.Stat(desc.Digest); {
		case err != nil:
		case n == desc.Size:
			right = append(right, d)
		default:
			other = append(other, d)
		}
	}
	if len(right) > 0 {
		return right
	}
	return other
}

// readAll reads a manifest from the first source whose copy hashes right.
func (s sources) readAll(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	last := fmt.Errorf("%s: %w: it is not there", desc.Digest, s.absent())
	for _, d := range s.holding(desc) {
		raw, err := content.ReadAll(ctx, d.Blobs, desc, content.MaxManifest)
		if err == nil {
			return raw, nil
		}
		last = fmt.Errorf("%s: %w", d.Name, err)
	}
	for _, d := range s.healing(desc) {
		raw, err := content.ReadAll(ctx, d.Blobs, desc, content.MaxManifest)
		if err == nil {
			return raw, nil
		}
		last = fmt.Errorf("%w; %s: %w", last, d.Name, err)
	}
	return nil, last
}

// healing lists what parity makes of the sources that cover the blob, to be asked when no
// copy of it is right.
func (s sources) healing(desc ocispec.Descriptor) []*bundle.Source {
	var out []*bundle.Source
	for _, d := range s {
		if d.Mended != nil && d.Mended.Covers(desc) {
			out = append(out, &bundle.Source{Name: "the parity of " + d.Name, Blobs: d.Mended})
		}
	}
	return out
}

// healed says of which blobs parity had to reconstruct anything, in words for a report.
func (s sources) healed() []string {
	var out []string
	for _, d := range s {
		if d.Mended == nil {
			continue
		}
		if blobs, bytes := d.Mended.Totals(); blobs > 0 {
			out = append(out, fmt.Sprintf("%s: %s reconstructed from its parity, %d bytes of them; the drive itself is as damaged as before: pannier audit --repair heals it",
				d.Name, content.Plural(blobs, "damaged blob was", "damaged blobs were"), bytes))
		}
	}
	return out
}

// verified is the sources as a Fetcher of manifests that have been checked, so that a walk
// takes each from a source whose copy is good.
type verified struct{ sources }

func (v verified) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if desc.Size > content.MaxManifest {
		return v.sources.Fetch(ctx, desc, offset)
	}
	raw, err := v.readAll(ctx, desc)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(strings.NewReader(string(raw[min(offset, int64(len(raw))):]))), nil
}

// selectImages lists the images of the chosen releases, each from the source that was judged
// for it, and all additional ones. What another source calls an image of a release is not
// looked at.
func (u *unpacker) selectImages() {
	seen := map[string]bool{}
	add := func(img store.Image, own bool) {
		name := img.Tag
		if img.Kind == store.KindAdditional {
			// Drives may name different images so: that is found when it is known where each goes.
			name += "@" + img.Descriptor.Digest.String()
		}
		if own {
			name = "/" + name
		}
		if !seen[name] {
			seen[name] = true
			u.images = append(u.images, &image{record: img, own: own, present: map[digest.Digest]bool{}})
		}
	}
	for _, s := range u.releases {
		for _, img := range s.from.Contents.Images {
			switch img.Kind {
			case store.KindRelease, store.KindComponent:
				if img.Release == s.record.Tag {
					add(img, false)
				}
				if img.Release == s.record.Tag && img.Kind == store.KindComponent && u.opts.RepoPerComponent {
					add(img, true)
				}
			case store.KindSignature:
				// It may belong to several releases; those of what is left out are sorted
				// out once it is known which manifests are pushed.
				add(img, false)
			}
		}
	}
	for _, d := range u.sources {
		for _, img := range d.Contents.Images {
			if img.Kind == store.KindAdditional {
				add(img, false)
			}
		}
	}
}

// conflicts refuses two images that would have one name at the registry: which of them had it
// in the end would be chance.
func (u *unpacker) conflicts() error {
	type place struct{ repo, tag string }
	taken := map[place]*image{}
	for _, img := range u.images {
		at := place{img.repo.Name(), img.tag}
		other, ok := taken[at]
		if img.tag == "" || !ok {
			taken[at] = img
			continue
		}
		if other.record.Descriptor.Digest != img.record.Descriptor.Digest {
			return fmt.Errorf("%w: %s and %s would both be %s:%s; --additional-prefix keeps additional images apart",
				bundle.ErrConflict, other.record.Tag, img.record.Tag, at.repo, at.tag)
		}
	}
	return nil
}

// walk reads the manifests of every selected image from the sources.
func (u *unpacker) walk(ctx context.Context) error {
	for _, img := range u.images {
		if err := u.target(img); err != nil {
			return err
		}
		err := bundle.Walk(ctx, verified{u.sources}, img.record.Descriptor,
			func(n bundle.Node) error { img.nodes = append(img.nodes, n); return nil },
			func(d ocispec.Descriptor) error { img.blobs = append(img.blobs, d); return nil },
			func(d ocispec.Descriptor, err error) error {
				img.err = errors.Join(img.err, err)
				u.spoil(d.Digest, err)
				return nil
			})
		if err != nil {
			return err
		}
	}
	u.dropForeignSignatures()
	return u.conflicts()
}

// dropForeignSignatures leaves out the sigstore images of what is not pushed.
func (u *unpacker) dropForeignSignatures() {
	pushed := map[string]bool{}
	for _, img := range u.images {
		for _, n := range img.nodes {
			pushed[release.SigstoreTag(n.Descriptor.Digest)] = true
		}
	}
	u.images = slices.DeleteFunc(u.images, func(img *image) bool {
		return img.record.Kind == store.KindSignature && !pushed[img.record.Tag]
	})
}

// target finds out where an image goes: release images, components and their sigstore images
// to the destination's one repository, additional ones to the path that they came from. That
// one repository has every component even where each has one of its own as well: a mirror set
// maps the repository that all of them are named by as a whole, and a node that asks there for
// a digest must find any of them.
func (u *unpacker) target(img *image) error {
	name := u.opts.Destination.String()
	img.tag = img.record.Tag
	if img.own {
		name += "/" + img.record.Name
		img.tag = img.record.Release
	}
	if img.record.Kind == store.KindAdditional {
		ref, err := release.ParseImageReference(img.record.Tag)
		if err != nil {
			return fmt.Errorf("additional image: %w: %w", bundle.ErrDamaged, err)
		}
		if ref.Digest != "" && ref.Digest != img.record.Descriptor.Digest {
			return fmt.Errorf("additional image %s: %w: the drive has %s under that name", img.record.Tag, bundle.ErrDamaged, img.record.Descriptor.Digest)
		}
		img.tag = ref.Tag
		name = u.opts.Destination.Additional(u.opts.Prefix, ref.Repository)
	}
	var err error
	img.repo, err = u.opts.Client.Repository(name)
	return err
}

// spoil notes that a blob or manifest may not be pushed.
func (u *unpacker) spoil(d digest.Digest, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bad[d] == nil {
		u.bad[d] = err
	}
}

// good reports whether nothing that an image needs is bad.
func (u *unpacker) good(img *image) bool {
	if img.err != nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, n := range img.nodes {
		if u.bad[n.Descriptor.Digest] != nil {
			return false
		}
	}
	return !slices.ContainsFunc(img.blobs, func(d ocispec.Descriptor) bool { return u.bad[d.Digest] != nil })
}
