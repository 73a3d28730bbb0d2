package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/remote"
	"pannier/store"
)

// checkSizes finds what is missing or cut, in seconds, before anything is read.
func (u *unpacker) checkSizes() {
	for _, img := range u.images {
		for _, d := range img.blobs {
			u.checkSize(d)
		}
	}
}

func (u *unpacker) checkSize(desc ocispec.Descriptor) {
	if u.presumed[desc.Digest] {
		return
	}
	var sizes []string
	meaning := u.sources.absent()
	for _, d := range u.sources {
		n, err := d.Blobs.Stat(desc.Digest)
		if err == nil && n == desc.Size {
			return
		}
		if err == nil {
			err = fmt.Errorf("%w: %d bytes, and it must have %d", content.ErrSize, n, desc.Size)
			meaning = bundle.ErrDamaged
		} else if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("it is not there")
		}
		sizes = append(sizes, fmt.Sprintf("%s: %v", d.Name, err))
	}
	if len(u.sources.healing(desc)) > 0 {
		return // whether it can be reconstructed turns out when its turn comes
	}
	if u.sources.presume(desc) {
		u.presumed[desc.Digest] = true
		return
	}
	u.spoil(desc.Digest, fmt.Errorf("blob %s: %w: %s", desc.Digest, meaning, strings.Join(sizes, "; ")))
}

// compare asks the registry what it has. A manifest that it has stands for its children,
// unless every blob is to be asked for.
func (u *unpacker) compare(ctx context.Context) error {
	if err := u.askTags(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * u.opts.Jobs)
	for _, img := range u.images {
		for i, n := range img.nodes {
			if i == 0 && img.tagged {
				img.present[n.Descriptor.Digest] = true
				continue
			}
			g.Go(func() error {
				ok, err := img.repo.Exists(gctx, n.Descriptor)
				if err != nil {
					return err
				}
				u.mu.Lock()
				img.present[n.Descriptor.Digest] = ok
				u.mu.Unlock()
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	type question struct {
		repo *remote.Repository
		d    digest.Digest
	}
	answers := map[question]bool{}
	var ask []*image
	for _, img := range u.images {
		// Of what is presumed nothing stands in.
		presumes := slices.ContainsFunc(img.blobs, func(d ocispec.Descriptor) bool { return u.presumed[d.Digest] })
		if !u.opts.CheckAll && !presumes && len(img.nodes) > 0 && !slices.ContainsFunc(img.nodes, func(n bundle.Node) bool { return !img.present[n.Descriptor.Digest] }) {
			for _, d := range img.blobs {
				answers[question{img.repo, d.Digest}] = true
			}
			continue
		}
		ask = append(ask, img)
	}
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(2 * u.opts.Jobs)
	for _, img := range ask {
		for _, d := range img.blobs {
			q := question{img.repo, d.Digest}
			u.mu.Lock()
			_, asked := answers[q]
			if !asked {
				answers[q] = false
			}
			u.mu.Unlock()
			if asked {
				continue
			}
			g.Go(func() error {
				ok, err := u.holds(gctx, img.repo, d)
				if err != nil {
					return err
				}
				u.mu.Lock()
				answers[q] = ok
				u.mu.Unlock()
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, img := range u.images {
		for _, d := range img.blobs {
			img.present[d.Digest] = answers[question{img.repo, d.Digest}]
		}
	}
	return nil
}

// askTags asks for images by their tags: where that points to the right manifest, it is there,
// and need not be asked for by its digest too. It is tried where a release was pushed whole
// before, which its own tag says, that is written last; elsewhere it would be one question more.
func (u *unpacker) askTags(ctx context.Context) error {
	if u.opts.CheckAll {
		return nil
	}
	ask := func(ctx context.Context, img *image) error {
		if img.tag == "" || len(img.nodes) == 0 {
			return nil
		}
		root := img.nodes[0].Descriptor
		have, err := img.repo.Resolve(ctx, img.tag)
		if err != nil && !isAbsent(err) && !errors.Is(err, remote.ErrRefused) {
			return err
		}
		img.tagged = err == nil && have.Digest == root.Digest && have.Size == root.Size
		return nil
	}
	whole := map[string]bool{}
	for _, img := range u.images {
		if img.record.Kind != store.KindRelease {
			continue
		}
		if err := ask(ctx, img); err != nil {
			return err
		}
		whole[img.record.Release] = img.tagged
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * u.opts.Jobs)
	for _, img := range u.images {
		if img.record.Kind != store.KindRelease && whole[img.record.Release] {
			g.Go(func() error { return ask(gctx, img) })
		}
	}
	return g.Wait()
}

// plan sums up what is to be done.
func (u *unpacker) plan() {
	plan := bundle.Plan{Free: -1}
	seen := map[digest.Digest]bool{}
	for _, img := range u.images {
		for _, n := range img.nodes {
			if !seen[n.Descriptor.Digest] {
				seen[n.Descriptor.Digest] = true
				plan.Manifests++
			}
		}
		switch {
		case img.own:
			plan.Tags = append(plan.Tags, img.record.Name+":"+img.tag)
		case img.tag != "":
			plan.Tags = append(plan.Tags, img.tag)
		}
	}
	for _, b := range u.wanted() {
		there := len(b.lacking) == 0
		for _, c := range []struct {
			count *bundle.Count
			n     int64
		}{{&plan.Blobs, 1}, {&plan.Bytes, b.desc.Size}} {
			c.count.Total += c.n
			if there {
				c.count.Present += c.n
			} else {
				c.count.Transfer += c.n
			}
		}
	}
	slices.Sort(plan.Tags)
	plan.Hosts = append([]string{u.opts.Destination.Registry}, u.hosts...)
	slices.Sort(plan.Hosts)
	plan.Hosts = slices.Compact(plan.Hosts)
	u.res.Plan = plan
}

// refusals are the errors of what could not be pushed, a list of them in the result.
func (u *unpacker) refusals() []error {
	var out []error
	names := map[digest.Digest][]string{}
	for _, img := range u.images {
		if img.own {
			continue // it is named once
		}
		ds := []digest.Digest{img.record.Descriptor.Digest}
		for _, n := range img.nodes {
			ds = append(ds, n.Descriptor.Digest)
			for _, c := range n.Manifest.Children() {
				ds = append(ds, c.Digest)
			}
		}
		slices.Sort(ds)
		for _, d := range slices.Compact(ds) {
			names[d] = append(names[d], img.record.Tag)
		}
	}
	documents := map[digest.Digest]bool{}
	for _, b := range u.captured() {
		documents[b.desc.Digest] = len(names[b.desc.Digest]) == 0
		names[b.desc.Digest] = append(names[b.desc.Digest], b.document)
	}
	bad := make([]digest.Digest, 0, len(u.bad))
	for d := range u.bad {
		bad = append(bad, d)
	}
	slices.Sort(bad)
	u.res.Refused = nil
	for _, d := range bad {
		u.res.Refused = append(u.res.Refused, Refusal{Digest: d.String(), Images: names[d], Err: u.bad[d]})
		if documents[d] {
			out = append(out, fmt.Errorf("%s: %w", content.Few(names[d]), u.bad[d]))
			continue
		}
		out = append(out, fmt.Errorf("%s: not pushed: %w", content.Few(names[d]), u.bad[d]))
	}
	return out
}
