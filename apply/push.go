package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle/content"
	"pannier/bundle/remote"
	"pannier/store"
)

// wantedBlob is a blob and the repositories that it must be in.
type wantedBlob struct {
	desc    ocispec.Descriptor
	lacking []*remote.Repository // that do not have it
	having  []*remote.Repository

	document string // tag of the captured documents that it belongs to, if it is for no registry
}

// wanted lists the blobs of all images, each once, the largest first.
func (u *unpacker) wanted() []*wantedBlob {
	byDigest := map[digest.Digest]*wantedBlob{}
	var out []*wantedBlob
	for _, img := range u.images {
		for _, d := range img.blobs {
			b, ok := byDigest[d.Digest]
			if !ok {
				b = &wantedBlob{desc: d}
				byDigest[d.Digest] = b
				out = append(out, b)
			}
			list := &b.lacking
			if img.present[d.Digest] {
				list = &b.having
			}
			if !slices.Contains(*list, img.repo) {
				*list = append(*list, img.repo)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *wantedBlob) int { return int(max(-1, min(1, b.desc.Size-a.desc.Size))) })
	return out
}

// captured lists the blobs of the documents that were captured with the chosen releases. They
// stay on the drive, and are read and verified like everything else on it.
func (u *unpacker) captured() []*wantedBlob {
	var out []*wantedBlob
	seen := map[digest.Digest]bool{}
	for _, s := range u.releases {
		contents := s.from.Contents
		for _, img := range contents.Images {
			if img.Kind != store.KindDocuments || img.Release != s.record.Tag {
				continue
			}
			for d, r := range contents.Records {
				if slices.Contains(r.Images, img.Tag) && !seen[d] {
					seen[d] = true
					out = append(out, &wantedBlob{desc: ocispec.Descriptor{MediaType: r.MediaType, Digest: d, Size: r.Size}, document: img.Tag})
				}
			}
		}
	}
	return out
}

// push brings everything to the registry, what is named before what names it: blobs,
// manifests, lists, tags, and the tags of releases last.
func (u *unpacker) push(ctx context.Context) error {
	if dir := u.opts.ObjectsDir; dir != "" {
		// Better refused now than after hours of pushing.
		if err := tryFolder(dir); err != nil {
			return fmt.Errorf("%w, and nothing was pushed: %w", ErrObjectsDir, err)
		}
	}
	if err := u.pushBlobs(ctx); err != nil {
		return err
	}
	if err := u.pushManifests(ctx, content.IsImage); err != nil {
		return err
	}
	if err := u.pushManifests(ctx, content.IsIndex); err != nil {
		return err
	}
	if err := u.pushTags(ctx, func(img *image) bool { return img.record.Kind != store.KindRelease }); err != nil {
		return err
	}
	done := func(img *image) bool { return img.record.Kind == store.KindRelease && u.complete(img.record.Release) }
	if err := u.pushTags(ctx, done); err != nil {
		return err
	}
	return u.lookAgain(ctx, done)
}

// ErrObjectsDir says that the folder for the cluster objects cannot be written.
var ErrObjectsDir = errors.New("the folder for the cluster objects cannot be written")

// tryFolder makes a folder, if it is not there, and a file in it that it removes.
func tryFolder(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.CreateTemp(dir, ".pannier-")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// lookAgain reads the images named back from the registry, as a node will. Something that
// takes all that it is given, and keeps nothing, is found here and not on the day of the
// update.
func (u *unpacker) lookAgain(ctx context.Context, which func(*image) bool) error {
	for _, img := range u.images {
		if !which(img) {
			continue
		}
		d := img.record.Descriptor.Digest
		_, _, err := img.repo.Manifest(ctx, d.String())
		switch {
		case isAbsent(err):
			err = fmt.Errorf("%w: it took %s, and does not give it back: %v", ErrNotArrived, d, err)
		case errors.Is(err, content.ErrDigest):
			err = fmt.Errorf("%w: it took %s, and gives something else back: %w", ErrNotArrived, d, err)
		}
		if err != nil {
			return fmt.Errorf("%s: image %s: %w", img.repo.Name(), img.record.Tag, err)
		}
	}
	return nil
}

// named reports whether an image gets its tag from pushTags whatever becomes of others. Its
// own manifest need not be pushed under its digest first: under a tag it is the same request.
func (u *unpacker) named(img *image) bool {
	return img.record.Kind != store.KindRelease && img.tag != "" && !u.unread(img.record.Release)
}

// pushManifests pushes, by digest, the manifests of one kind of every image of which nothing
// is bad, but for those that will be pushed by their tag.
func (u *unpacker) pushManifests(ctx context.Context, kind func(string) bool) error {
	type key struct {
		repo *remote.Repository
		d    digest.Digest
	}
	seen := map[key]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(u.opts.Jobs)
	for _, img := range u.images {
		if !u.good(img) {
			continue
		}
		nodes := slices.Clone(img.nodes)
		if u.named(img) {
			nodes = nodes[1:]
		}
		slices.Reverse(nodes) // lists within lists: inner ones first
		for _, n := range nodes {
			k := key{img.repo, n.Descriptor.Digest}
			if !kind(n.Descriptor.MediaType) || img.present[n.Descriptor.Digest] || seen[k] {
				continue
			}
			seen[k] = true
			push := func() error {
				if err := img.repo.PushManifest(gctx, n.Descriptor, n.Raw, n.Descriptor.Digest.String()); err != nil {
					return fmt.Errorf("image %s: %w", img.record.Tag, err)
				}
				return nil
			}
			if n.Depth > 0 && content.IsIndex(n.Descriptor.MediaType) {
				if err := push(); err != nil {
					return errors.Join(err, g.Wait())
				}
				continue
			}
			g.Go(push)
		}
	}
	return g.Wait()
}

// pushTags names the images at the registry. A tag that points right already is left alone,
// as registries with immutable tags demand.
func (u *unpacker) pushTags(ctx context.Context, which func(*image) bool) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(u.opts.Jobs)
	for _, img := range u.images {
		if img.tag == "" || img.tagged || !which(img) || !u.good(img) || u.unread(img.record.Release) {
			continue
		}
		g.Go(func() error {
			root := img.nodes[0]
			if img.present[root.Descriptor.Digest] {
				if have, err := img.repo.Resolve(gctx, img.tag); err == nil && have.Digest == root.Descriptor.Digest {
					return nil
				}
			}
			if err := img.repo.PushManifest(gctx, root.Descriptor, root.Raw, img.tag); err != nil {
				return fmt.Errorf("tag %s: %w", img.tag, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// unread reports whether nobody knows what a release is made of, since its image could not be
// read: its components are pushed under their digests, and get no names.
func (u *unpacker) unread(releaseTag string) bool {
	return slices.ContainsFunc(u.releases, func(s *selected) bool { return s.record.Tag == releaseTag && s.unread })
}

// complete reports whether nothing of a release is bad.
func (u *unpacker) complete(releaseTag string) bool {
	if u.unread(releaseTag) {
		return false
	}
	for _, img := range u.images {
		if img.record.Release == releaseTag && !u.good(img) {
			return false
		}
	}
	return true
}
