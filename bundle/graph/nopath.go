package graph

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"pannier/bundle/release"
)

// NoPathError says what stands between two versions. It is [ErrNoPath].
type NoPathError struct {
	From, To  string
	Older     bool     // To is not newer than From
	Reachable []string // the newest version of each minor one that From leads to, oldest first
	Into      []string // the oldest and the newest version that lead to To, if there are any
	Dropped   []Edge   // edges in between that clusters ignore, as they stand in several conditional groups
	Skipping  []Edge   // edges in between that leave out a minor version
}

// Is makes errors.Is(err, ErrNoPath) true.
func (e *NoPathError) Is(target error) bool { return target == ErrNoPath }

func (e *NoPathError) Error() string {
	text := fmt.Sprintf("%v from %s to %s", ErrNoPath, e.From, e.To)
	if e.Older {
		return text + ", which is not newer"
	}
	if len(e.Reachable) == 0 {
		text += fmt.Sprintf(": %s leads nowhere", e.From)
	} else {
		text += fmt.Sprintf(": %s leads no further than to %s", e.From, strings.Join(e.Reachable, ", "))
	}
	if len(e.Into) == 0 {
		text += fmt.Sprintf("; nothing leads to %s", e.To)
	} else {
		text += fmt.Sprintf("; to %s lead versions from %s", e.To, strings.Join(slices.Compact(e.Into), " to "))
	}
	return text + blocked(e.Dropped, "stands in several conditional groups, so that clusters ignore it") +
		blocked(e.Skipping, "leaves out a minor version")
}

func blocked(edges []Edge, why string) string {
	var text string
	for i, e := range edges {
		if i == 5 {
			return text + fmt.Sprintf("; and so do %d more", len(edges)-i)
		}
		text += fmt.Sprintf("; %s to %s %s", e.From, e.To, why)
	}
	return text
}

// explain says why there is no path; best has a way from every version that leads to it.
func (g *Graph) explain(from, to string, best map[string]*way) error {
	e := &NoPathError{From: from, To: to}
	if g.nodes[to].v.Compare(g.nodes[from].v) <= 0 {
		e.Older = true
		return e
	}
	reached := map[string]bool{from: true}
	var last release.Version
	for _, n := range g.sorted() { // oldest first: whatever leads to n has been seen
		if best[n.Version] != nil && n.Version != to {
			e.Into = append(e.Into[:min(1, len(e.Into))], n.Version)
		}
		if !reached[n.Version] {
			continue
		}
		for _, edge := range g.edges[n.Version] {
			w := g.nodes[edge.To].v
			switch {
			case forward(n.v, w):
				reached[edge.To] = true
			case best[edge.To] != nil && w.Compare(n.v) > 0:
				e.Skipping = append(e.Skipping, edge)
			}
		}
		if n.Version == from {
			continue
		}
		if len(e.Reachable) > 0 && last.SameMinor(n.v) {
			e.Reachable = e.Reachable[:len(e.Reachable)-1]
		}
		e.Reachable, last = append(e.Reachable, n.Version), n.v
	}
	for p := range g.dropped {
		if reached[p.from] && best[p.to] != nil {
			e.Dropped = append(e.Dropped, Edge{From: p.from, To: p.to})
		}
	}
	for _, edges := range [][]Edge{e.Dropped, e.Skipping} {
		slices.SortFunc(edges, func(a, b Edge) int {
			return cmp.Or(g.nodes[a.From].v.Compare(g.nodes[b.From].v), g.nodes[a.To].v.Compare(g.nodes[b.To].v))
		})
	}
	return e
}
