// Package graph reads the update graphs of OpenShift (Cincinnati, version 1) and finds the
// path from one version to another.
//
// Invariants: a path has only edges that the graph has, each to a newer version and none
// beyond the next minor one; an edge that is conditional anywhere is conditional here. Graphs
// are not signed: what they say of a digest is compared with the release, and which way they
// lead is advice.
package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/release"
)

// ErrGraph says that a file or an answer is no update graph, or that graphs contradict each
// other.
var ErrGraph = errors.New("invalid update graph")

// Limits on a graph. Those of stable channels have some hundred versions and some thousand
// edges, in a few MiB.
const (
	MaxGraph = 64 << 20 // bytes
	maxNodes = 50_000
	maxEdges = 2_000_000
)

// Node is a version in a graph.
type Node struct {
	Version string
	Digest  digest.Digest // of its release image

	v release.Version
}

// Edge is an update from one version to another. With Risks it is conditional: it is
// recommended only to clusters that none of them concerns.
type Edge struct {
	From, To string
	Risks    []objects.Risk
}

// Graph is the versions of one or several channels and the updates between them.
type Graph struct {
	nodes map[string]Node
	edges map[string]map[string]Edge // from, to
	// dropped are the edges that stand in several conditional groups: clusters ignore them.
	dropped map[pair]bool
}

type pair struct{ from, to string }

// answer is a graph as update services answer.
type answer struct {
	Nodes []struct {
		Version string `json:"version"`
		Payload string `json:"payload"`
	} `json:"nodes"`
	Edges            [][2]int `json:"edges"` // places in Nodes
	ConditionalEdges []struct {
		Edges []struct {
			From string `json:"from"`
			To   string `json:"to"`
		} `json:"edges"`
		Risks []objects.Risk `json:"risks"`
	} `json:"conditionalEdges"`
}

// Parse reads the graph of one channel. A version whose image is not named by digest, and
// edges to and from it, are left out: it cannot be packed. Errors wrap [ErrGraph].
func Parse(raw []byte) (*Graph, error) {
	if len(raw) > MaxGraph {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrGraph, len(raw), MaxGraph)
	}
	var a answer
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGraph, err)
	}
	if a.Nodes == nil || len(a.Nodes) > maxNodes || len(a.Edges) > maxEdges {
		return nil, fmt.Errorf("%w: %d versions, %d edges", ErrGraph, len(a.Nodes), len(a.Edges))
	}
	g := &Graph{nodes: map[string]Node{}, edges: map[string]map[string]Edge{}, dropped: map[pair]bool{}}
	for _, n := range a.Nodes {
		if node, ok := newNode(n.Version, n.Payload); ok {
			if other, twice := g.nodes[node.Version]; twice && other.Digest != node.Digest {
				return nil, fmt.Errorf("%w: version %s stands twice, as %s and as %s", ErrGraph, node.Version, other.Digest, node.Digest)
			}
			g.nodes[node.Version] = node
		}
	}
	for _, e := range a.Edges {
		if min(e[0], e[1]) < 0 || max(e[0], e[1]) >= len(a.Nodes) {
			return nil, fmt.Errorf("%w: an edge of versions %d and %d of %d", ErrGraph, e[0], e[1], len(a.Nodes))
		}
		g.put(Edge{From: a.Nodes[e[0]].Version, To: a.Nodes[e[1]].Version})
	}
	if err := g.conditions(&a); err != nil {
		return nil, err
	}
	return g, nil
}

// conditions adds the conditional edges. As clusters do, it takes an edge that is in both sets
// for conditional, and drops one that stands in several groups.
func (g *Graph) conditions(a *answer) error {
	groups := map[pair]int{}
	n := 0
	for i, group := range a.ConditionalEdges {
		if n += len(group.Edges); n > maxEdges {
			return fmt.Errorf("%w: %d conditional edges", ErrGraph, n)
		}
		risks := group.Risks
		if len(risks) == 0 {
			risks = []objects.Risk{{Name: "Unnamed", Message: "the graph does not say which risk"}}
		}
		if err := objects.CheckRisks(risks); err != nil {
			return fmt.Errorf("%w: %w", ErrGraph, err)
		}
		for _, e := range group.Edges {
			p := pair{e.From, e.To}
			if before, ok := groups[p]; ok && before != i {
				g.dropped[p] = true
			}
			groups[p] = i
			g.put(Edge{From: e.From, To: e.To, Risks: risks})
		}
	}
	g.drop()
	return nil
}

func (g *Graph) drop() {
	for p := range g.dropped {
		delete(g.edges[p.from], p.to)
	}
}

func newNode(version, image string) (Node, bool) {
	ref, err := release.ParseImageReference(image)
	if err != nil || ref.Digest == "" || content.CheckDigest(ref.Digest) != nil || !release.ValidVersion(version) {
		return Node{}, false
	}
	v, ok := release.ParseVersion(version)
	return Node{Version: version, Digest: ref.Digest, v: v}, ok
}

// put adds an edge between known versions. Risks of an edge that is there already are joined.
func (g *Graph) put(e Edge) {
	if _, ok := g.nodes[e.From]; !ok {
		return
	}
	if _, ok := g.nodes[e.To]; !ok {
		return
	}
	if g.edges[e.From] == nil {
		g.edges[e.From] = map[string]Edge{}
	}
	if before, ok := g.edges[e.From][e.To]; ok {
		e.Risks = joinRisks(before.Risks, e.Risks)
	}
	g.edges[e.From][e.To] = e
}

// joinRisks returns the risks of a and b, those of one name once.
func joinRisks(a, b []objects.Risk) []objects.Risk {
	out := slices.Clone(a)
	for _, r := range b {
		if !slices.ContainsFunc(out, func(o objects.Risk) bool { return o.Name == r.Name }) {
			out = append(out, r)
		}
	}
	return out
}

// Add adds the graph of another channel. An edge that clusters of either channel ignore is
// ignored. Errors wrap [ErrGraph] if the two give one version two digests.
func (g *Graph) Add(other *Graph) error {
	for version, n := range other.nodes {
		if have, ok := g.nodes[version]; ok && have.Digest != n.Digest {
			return fmt.Errorf("%w: version %s is %s in one channel and %s in another: are they of one architecture?", ErrGraph, version, have.Digest, n.Digest)
		}
		g.nodes[version] = n
	}
	for _, to := range other.edges {
		for _, e := range to {
			g.put(e)
		}
	}
	maps.Copy(g.dropped, other.dropped)
	g.drop()
	return nil
}

// Node returns a version of the graph.
func (g *Graph) Node(version string) (Node, bool) {
	n, ok := g.nodes[version]
	return n, ok
}

// Newest returns the newest version of the graph; ok is false if it has none.
func (g *Graph) Newest() (n Node, ok bool) {
	if all := g.sorted(); len(all) > 0 {
		return all[len(all)-1], true
	}
	return Node{}, false
}

// sorted are the versions, oldest first.
func (g *Graph) sorted() []Node {
	return slices.SortedFunc(maps.Values(g.nodes), func(a, b Node) int { return a.v.Compare(b.v) })
}
