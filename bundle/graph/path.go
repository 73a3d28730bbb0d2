package graph

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"pannier/bundle/release"
)

var (
	// ErrUnknown says that a version is not in the graph.
	ErrUnknown = errors.New("not in the update graph")
	// ErrNoPath says that no updates lead from one version to another; see [NoPathError].
	ErrNoPath = errors.New("no path of updates")
)

// way is the best path found from a version to the wanted one.
type way struct {
	risks int
	edges []Edge // from the version on
}

// Path returns the updates that lead from one version to another. Of all paths it is the one
// with the fewest risks, so an unconditional one if there is any; of those the shortest; of
// those the one that leaves each minor version from its newest patch release, and then the one
// through the newest versions. Errors are [ErrUnknown] and [*NoPathError].
func (g *Graph) Path(from, to string) ([]Edge, error) {
	for _, v := range []string{from, to} {
		if _, ok := g.nodes[v]; !ok {
			return nil, fmt.Errorf("%s: %w", v, ErrUnknown)
		}
	}
	target := g.nodes[to].v
	best := map[string]*way{to: {}}
	// Edges lead to newer versions, so that all that a version leads to is known before it is
	// its turn.
	all := g.sorted()
	slices.Reverse(all)
	for _, n := range all {
		if n.v.Compare(target) >= 0 {
			continue
		}
		for _, e := range g.edges[n.Version] {
			rest := best[e.To]
			if rest == nil || !forward(n.v, g.nodes[e.To].v) {
				continue
			}
			w := &way{risks: rest.risks + len(e.Risks), edges: append([]Edge{e}, rest.edges...)}
			if have := best[n.Version]; have == nil || g.compare(w, have) < 0 {
				best[n.Version] = w
			}
		}
	}
	if w := best[from]; w != nil && len(w.edges) > 0 {
		return w.edges, nil
	}
	return nil, g.explain(from, to, best)
}

// forward reports whether an update from v to w is one that clusters take: to something newer,
// and at most into the next minor version.
func forward(v, w release.Version) bool {
	return w.Compare(v) > 0 &&
		(w.Major == v.Major && w.Minor <= v.Minor+1 || w.Major == v.Major+1 && w.Minor == 0)
}

// compare is less than 0 if a is the better of two paths between the same versions. The same
// edges in front of both keep the order, so that the best parts make the best whole.
func (g *Graph) compare(a, b *way) int {
	newer := func(v, w release.Version) int { return w.Compare(v) }
	return cmp.Or(
		cmp.Compare(a.risks, b.risks),
		cmp.Compare(len(a.edges), len(b.edges)),
		slices.CompareFunc(g.departures(a), g.departures(b), newer),
		slices.CompareFunc(g.through(a), g.through(b), newer))
}

// departures are the versions from which a path leaves a minor version.
func (g *Graph) departures(w *way) []release.Version {
	var out []release.Version
	for _, e := range w.edges {
		if v := g.nodes[e.From].v; !v.SameMinor(g.nodes[e.To].v) {
			out = append(out, v)
		}
	}
	return out
}

// through are the versions that a path leads through.
func (g *Graph) through(w *way) []release.Version {
	out := make([]release.Version, len(w.edges))
	for i, e := range w.edges {
		out[i] = g.nodes[e.To].v
	}
	return out
}
