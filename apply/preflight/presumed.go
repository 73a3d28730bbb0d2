package preflight

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/store"
)

// registryPresumed asks for every blob that the drive does not hold and presumes at the registry.
func registryPresumed(ctx context.Context, f *far) Check {
	if f.opts.Media == "" {
		return skip("no MEDIA was named")
	}
	b, err := f.bundle(ctx)
	if err != nil {
		return skipAfter("bundle-readable")
	}
	if len(b.Contents.Presumed) == 0 {
		return skip("the drive holds all that its images need")
	}
	if _, err := f.greet(ctx); err != nil {
		return skipAfter("registry-api")
	}
	var mu sync.Mutex
	var missing []string
	var bytes int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for d, r := range b.Contents.Presumed {
		g.Go(func() error {
			there, err := f.holdsBlob(gctx, b.Contents, d, r)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && !there {
				missing = append(missing, d.String())
				bytes += r.Size
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return warn(err, hostRemedy(err), "it could not be found out whether the registry holds what the drive presumes there: %v", err)
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		err := fmt.Errorf("%s, %s: %w: %s", counted(len(missing), "blob is not there", "blobs are not there"), content.SizeText(bytes), bundle.ErrPresumed, listed(missing))
		return fail(err, "name the repository that the drive was packed for (pannier inspect), bring an older drive that holds the rest along, or pack again with --have of a new inventory", "%v", err)
	}
	t := b.Contents.PresumedTotals()
	return pass("%s of %s that the drive presumes are there", counted(t.Blobs, "blob", "blobs"), content.SizeText(t.Bytes))
}

// holdsBlob reports whether a presumed blob is in every repository that its images go to.
func (f *far) holdsBlob(ctx context.Context, c *bundle.Contents, d digest.Digest, r store.Record) (bool, error) {
	var asked []string
	for _, img := range c.Images {
		if !slices.Contains(r.Images, img.Tag) {
			continue
		}
		name, err := bundle.RepositoryAt(img, f.opts.Destination, f.opts.Prefix)
		if err != nil {
			return false, err
		}
		if slices.Contains(asked, name) {
			continue
		}
		asked = append(asked, name)
		repo, err := f.opts.Client.Repository(name)
		if err != nil {
			return false, err
		}
		there, err := repo.Exists(ctx, ocispec.Descriptor{MediaType: r.MediaType, Digest: d, Size: r.Size})
		if err != nil || !there {
			return false, err
		}
	}
	return true, nil
}
