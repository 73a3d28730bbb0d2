package apply

import (
	"context"
	"errors"
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/apply/preflight"
	"pannier/bundle/remote"
)

// tryTarget finds out, before anything is read, whether the registry will take what is to
// come: hours of pushing are too long for learning that a project does not exist, or that the
// last step, putting the manifests, is refused. A repository that has all is not tried, and
// no kind of manifest that one holds already.
func (u *unpacker) tryTarget(ctx context.Context) error {
	var repos []*remote.Repository // in order, for messages
	types := map[*remote.Repository][]string{}
	for _, img := range u.images {
		for _, n := range img.nodes {
			if !img.present[n.Descriptor.Digest] && !slices.Contains(repos, img.repo) {
				repos = append(repos, img.repo)
			}
		}
		if slices.ContainsFunc(img.blobs, func(d ocispec.Descriptor) bool { return !img.present[d.Digest] }) && !slices.Contains(repos, img.repo) {
			repos = append(repos, img.repo)
		}
	}
	for _, img := range u.images {
		for _, n := range img.nodes {
			if !slices.Contains(types[img.repo], n.Descriptor.MediaType) && !u.holdsKind(img.repo, n.Descriptor.MediaType) {
				types[img.repo] = append(types[img.repo], n.Descriptor.MediaType)
			}
		}
	}
	var mu sync.Mutex
	refused := make([]error, len(repos))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * u.opts.Jobs)
	for i, repo := range repos {
		g.Go(func() error {
			err := preflight.Target(gctx, repo, types[repo])
			if !errors.As(err, new(*preflight.TargetError)) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			refused[i] = err // the others are asked all the same, so that one list has them all
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return errors.Join(refused...)
}

// holdsKind reports whether a repository has a manifest of this kind, image or list, already.
func (u *unpacker) holdsKind(repo *remote.Repository, mediaType string) bool {
	for _, img := range u.images {
		for _, n := range img.nodes {
			if img.repo == repo && img.present[n.Descriptor.Digest] && n.Descriptor.MediaType == mediaType {
				return true
			}
		}
	}
	return false
}
