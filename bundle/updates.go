package bundle

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/graph"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
)

// UpdateOptions say which path of updates is packed. The zero value packs the releases that
// are named and asks for no graph.
type UpdateOptions struct {
	From    string   // version that the cluster runs; with it every release on the way is packed
	Channel string   // whose graph is asked, "stable-4.20"; without a named release its newest is meant
	Graphs  []string // files or addresses of update services, together; nil is the public service
	// Defaults say where the release is that Channel names by its version alone.
	Defaults release.Defaults
}

// updatePath is what the update graph says of the releases of a run.
type updatePath struct {
	edges   []graph.Edge
	digests map[string]digest.Digest  // by release tag
	updates map[string]objects.Update // by tag of the release that it leads to
}

// findPath asks for the graph, if there is need of one, and names the releases of the path.
func (p *packer) findPath(ctx context.Context) error {
	u := p.opts.Updates
	if u.From == "" && u.Channel == "" {
		return nil
	}
	ref, err := p.wantedOfPath()
	if err != nil {
		return err
	}
	channel := u.Channel
	if channel == "" {
		channel = graph.DefaultChannel(ref.Version)
	}
	g, err := p.graph(ctx, graph.Channels(channel, u.From), ref.Arch)
	if err != nil {
		return err
	}
	if ref.Version == "" {
		newest, ok := g.Newest()
		if !ok {
			return fmt.Errorf("channel %s for %s: %w: it has no version", channel, ref.Arch, graph.ErrUnknown)
		}
		ref.Version = newest.Version
	}
	p.path.digests, p.path.updates = map[string]digest.Digest{}, map[string]objects.Update{}
	versions := []string{ref.Version}
	if u.From != "" {
		if p.path.edges, err = g.Path(u.From, ref.Version); err != nil {
			return fmt.Errorf("channel %s for %s: %w", channel, ref.Arch, err)
		}
		versions = nil
		for _, e := range p.path.edges {
			versions = append(versions, e.To)
			p.path.updates[release.Tag(e.To, ref.Arch)] = objects.Update{From: e.From, Risks: e.Risks}
		}
	}
	p.opts.Releases = nil
	for _, v := range versions {
		n, _ := g.Node(v)
		tag := release.Tag(v, ref.Arch)
		p.path.digests[tag] = n.Digest
		p.opts.Releases = append(p.opts.Releases, release.Reference{Repository: ref.Repository, Tag: tag, Version: v, Arch: ref.Arch})
	}
	return nil
}

// wantedOfPath is the release that a path leads to. Its version is "" if the channel is to say
// it.
func (p *packer) wantedOfPath() (release.Reference, error) {
	switch n := len(p.opts.Releases); {
	case n == 0:
		d := p.opts.Updates.Defaults
		ref := release.Reference{Repository: d.Repository}
		if ref.Repository == "" {
			ref.Repository = release.DefaultRepository
		}
		if d.Arch == "" {
			d.Arch = release.DefaultArch
		}
		var err error
		ref.Arch, err = release.NormalizeArch(d.Arch)
		return ref, err
	case n > 1 || p.opts.Releases[0].Version == "" || p.opts.Releases[0].Arch == "":
		return release.Reference{}, fmt.Errorf("%w: a path leads to one release, named by its version", release.ErrReference)
	}
	return p.opts.Releases[0], nil
}

// graph joins the graphs of channels.
func (p *packer) graph(ctx context.Context, channels []string, arch string) (*graph.Graph, error) {
	sources := p.opts.Updates.Graphs
	if sources == nil {
		sources = []string{graph.DefaultURL}
	}
	var all *graph.Graph
	for _, source := range sources {
		names := []string{source}
		if remote.IsAddress(source) {
			names = nil
			for _, c := range channels {
				address, err := graph.Query(source, c, arch)
				if err != nil {
					return nil, err
				}
				names = append(names, address)
			}
		}
		for _, name := range names {
			p.opts.Progress(Event{Phase: PhasePlan, Item: "update graph"})
			raw, err := p.opts.Client.Document(ctx, name, remote.DocumentOptions{What: "update graph", Limit: graph.MaxGraph, Accept: "application/json"})
			if err != nil {
				return nil, err
			}
			g, err := graph.Parse(raw)
			if err == nil && all != nil {
				err = all.Add(g)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if all == nil {
				all = g
			}
		}
	}
	if all == nil {
		return nil, errors.New("no update graph is named")
	}
	return all, nil
}

// checkGraph compares a release with what the update graph says of it.
func (p *packer) checkGraph(tag string, d digest.Digest) error {
	if want, ok := p.path.digests[tag]; ok && want != d {
		return fmt.Errorf("%w: it says %s, and the release is %s", ErrGraphDisagrees, want, d)
	}
	return nil
}

// captureUpdates keeps the planned update to a release beside those that the drive has.
func (p *packer) captureUpdates(pr *plannedRelease) error {
	var updates []objects.Update
	if p.base != nil {
		updates, _ = p.base.Updates(pr.record.Tag) // what cannot be read is planned anew
	}
	if u, ok := p.path.updates[pr.record.Tag]; ok {
		updates = append(slices.DeleteFunc(updates, func(o objects.Update) bool { return o.From == u.From }), u)
	}
	if len(updates) == 0 {
		return nil
	}
	raw, err := objects.EncodeUpdates(updates)
	if err != nil {
		return err
	}
	pr.docs = append(pr.docs, document{DocumentUpdates, mediaTypeJSON, raw})
	return nil
}

// keepsUpdates reports whether a sealed release may stay as it is: whether the drive records
// the planned update to it.
func (p *packer) keepsUpdates(rel store.Release) bool {
	want, ok := p.path.updates[rel.Tag]
	if !ok {
		return true
	}
	have, err := p.base.Updates(rel.Tag)
	return err == nil && slices.ContainsFunc(have, func(u objects.Update) bool {
		return u.From == want.From && (len(u.Risks)+len(want.Risks) == 0 || reflect.DeepEqual(u.Risks, want.Risks))
	})
}

// Updates returns the recorded updates to a release: how it stands in the paths that were
// packed. There may be none.
func (c *Contents) Updates(tag string) ([]objects.Update, error) {
	raw, ok := c.Document(tag, DocumentUpdates)
	if !ok {
		return nil, nil
	}
	updates, err := objects.ParseUpdates(raw)
	if err != nil {
		return nil, fmt.Errorf("document %s: %w", DocumentUpdates, err)
	}
	return updates, nil
}
