package graph

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/release"
)

// draft is a graph about to be written as services write it.
type draft struct {
	Version     int              `json:"version"`
	Nodes       []map[string]any `json:"nodes"`
	Edges       [][2]int         `json:"edges"`
	Conditional []draftGroup     `json:"conditionalEdges"`
	places      map[string]int
}

type draftGroup struct {
	Edges []map[string]string `json:"edges"`
	Risks []map[string]any    `json:"risks"`
}

func newDraft(versions ...string) *draft {
	d := &draft{Version: 1, places: map[string]int{}, Edges: [][2]int{}}
	for _, v := range versions {
		d.places[v] = len(d.Nodes)
		d.Nodes = append(d.Nodes, map[string]any{"version": v, "payload": "quay.io/a/b@" + digest.FromString(v).String(), "metadata": map[string]string{"url": "https://errata.example/" + v}})
	}
	return d
}

func (d *draft) edge(from string, to ...string) *draft {
	for _, t := range to {
		d.Edges = append(d.Edges, [2]int{d.places[from], d.places[t]})
	}
	return d
}

func (d *draft) risky(from, to string, names ...string) *draft {
	g := draftGroup{Edges: []map[string]string{{"from": from, "to": to}}}
	for _, n := range names {
		g.Risks = append(g.Risks, map[string]any{"name": n, "message": n + " may happen", "url": "https://bugs.example/" + n,
			"matchingRules": []any{map[string]any{"type": "PromQL", "promql": map[string]string{"promql": "a\n or b"}}}})
	}
	d.Conditional = append(d.Conditional, g)
	return d
}

func (d *draft) raw(t testing.TB) []byte {
	t.Helper()
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (d *draft) parse(t testing.TB) *Graph {
	t.Helper()
	g, err := Parse(d.raw(t))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func versionsOf(edges []Edge) string {
	var out []string
	for _, e := range edges {
		mark := ""
		if len(e.Risks) > 0 {
			mark = "?"
		}
		out = append(out, mark+e.To)
	}
	return strings.Join(out, " ")
}

func TestPath(t *testing.T) {
	for name, row := range map[string]struct {
		d        *draft
		from, to string
		want     string
	}{
		"direct":             {newDraft("4.8.1", "4.8.2").edge("4.8.1", "4.8.2"), "4.8.1", "4.8.2", "4.8.2"},
		"newest in between":  {newDraft("4.8.1", "4.8.9", "4.8.10", "4.8.21").edge("4.8.1", "4.8.9", "4.8.10").edge("4.8.9", "4.8.21").edge("4.8.10", "4.8.21"), "4.8.1", "4.8.21", "4.8.10 4.8.21"},
		"shortest":           {newDraft("4.8.1", "4.8.2", "4.8.3").edge("4.8.1", "4.8.2", "4.8.3").edge("4.8.2", "4.8.3"), "4.8.1", "4.8.3", "4.8.3"},
		"latest z, then on":  {newDraft("4.7.0", "4.7.37", "4.8.2", "4.8.21").edge("4.7.0", "4.7.37", "4.8.2").edge("4.7.37", "4.8.21").edge("4.8.2", "4.8.21"), "4.7.0", "4.8.21", "4.7.37 4.8.21"},
		"but no hop for it":  {newDraft("4.7.0", "4.7.37", "4.8.21").edge("4.7.0", "4.7.37", "4.8.21").edge("4.7.37", "4.8.21"), "4.7.0", "4.8.21", "4.8.21"},
		"later departure":    {newDraft("4.7.0", "4.7.5", "4.7.9", "4.7.8", "4.8.1").edge("4.7.0", "4.7.8", "4.7.5").edge("4.7.8", "4.7.9").edge("4.7.5", "4.7.9").edge("4.7.9", "4.8.1"), "4.7.0", "4.8.1", "4.7.8 4.7.9 4.8.1"},
		"around a risk":      {newDraft("4.8.1", "4.8.2", "4.8.3").risky("4.8.1", "4.8.3", "R").edge("4.8.1", "4.8.2").edge("4.8.2", "4.8.3"), "4.8.1", "4.8.3", "4.8.2 4.8.3"},
		"conditional wins":   {newDraft("4.8.1", "4.8.2", "4.8.3").risky("4.8.1", "4.8.3", "R").edge("4.8.1", "4.8.2", "4.8.3").edge("4.8.2", "4.8.3"), "4.8.1", "4.8.3", "4.8.2 4.8.3"},
		"risk if it must be": {newDraft("4.8.1", "4.8.3").risky("4.8.1", "4.8.3", "R"), "4.8.1", "4.8.3", "?4.8.3"},
		"fewest risks":       {newDraft("4.8.1", "4.8.2", "4.8.3").risky("4.8.1", "4.8.3", "R", "S").risky("4.8.1", "4.8.2", "R").edge("4.8.2", "4.8.3"), "4.8.1", "4.8.3", "?4.8.2 4.8.3"},
		"group without risk": {newDraft("4.8.1", "4.8.3").risky("4.8.1", "4.8.3"), "4.8.1", "4.8.3", "?4.8.3"},
		"in two groups":      {newDraft("4.8.1", "4.8.2", "4.8.3").risky("4.8.1", "4.8.3", "R").risky("4.8.1", "4.8.3", "S").edge("4.8.1", "4.8.3"), "4.8.1", "4.8.3", "!4.8.1 to 4.8.3 stands in several conditional groups"},
		"over a minor":       {newDraft("4.7.0", "4.9.1").edge("4.7.0", "4.9.1"), "4.7.0", "4.9.1", "!4.7.0 to 4.9.1 leaves out a minor version"},
		"to a major":         {newDraft("4.22.0", "5.0.1").edge("4.22.0", "5.0.1"), "4.22.0", "5.0.1", "5.0.1"},
		"candidates":         {newDraft("4.12.0-rc.2", "4.12.0-rc.10", "4.12.0").edge("4.12.0-rc.2", "4.12.0-rc.10").edge("4.12.0-rc.10", "4.12.0"), "4.12.0-rc.2", "4.12.0", "4.12.0-rc.10 4.12.0"},
		"backwards":          {newDraft("4.8.1", "4.8.2").edge("4.8.2", "4.8.1"), "4.8.2", "4.8.1", "!not newer"},
		"itself":             {newDraft("4.8.1").edge("4.8.1", "4.8.1"), "4.8.1", "4.8.1", "!not newer"},
		"a gap":              {newDraft("4.7.0", "4.7.9", "4.8.1", "4.8.2", "4.8.3", "4.8.9").edge("4.7.0", "4.7.9", "4.8.1").edge("4.8.2", "4.8.9").edge("4.8.3", "4.8.9"), "4.7.0", "4.8.9", "!4.7.0 leads no further than to 4.7.9, 4.8.1; to 4.8.9 lead versions from 4.8.2 to 4.8.3"},
		"nothing at all":     {newDraft("4.8.1", "4.8.2"), "4.8.1", "4.8.2", "!4.8.1 leads nowhere; nothing leads to 4.8.2"},
		"unknown":            {newDraft("4.8.1"), "4.8.1", "4.8.2", "!4.8.2: not in the update graph"},
	} {
		edges, err := row.d.parse(t).Path(row.from, row.to)
		if want, bad := strings.CutPrefix(row.want, "!"); bad {
			if !errors.Is(err, ErrNoPath) && !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		} else if got := versionsOf(edges); err != nil || got != want {
			t.Errorf("%s: %s (%v), want %s", name, got, err, want)
		}
	}
}

// brute is the rule of Path in other words: every path there is, the first by every criterion.
func brute(g *Graph, from, to string) []Edge {
	var best []Edge
	key := func(path []Edge) (risks int, departures, through []release.Version) {
		for _, e := range path {
			risks += len(e.Risks)
			a, b := g.nodes[e.From].v, g.nodes[e.To].v
			if a.Minor != b.Minor || a.Major != b.Major {
				departures = append(departures, a)
			}
			through = append(through, b)
		}
		return
	}
	better := func(a, b []Edge) bool {
		ra, da, ta := key(a)
		rb, db, tb := key(b)
		if ra != rb || len(a) != len(b) {
			return cmp.Or(cmp.Compare(ra, rb), cmp.Compare(len(a), len(b))) < 0
		}
		if c := slices.CompareFunc(da, db, release.Version.Compare); c != 0 {
			return c > 0
		}
		return slices.CompareFunc(ta, tb, release.Version.Compare) > 0
	}
	var walk func(at string, path []Edge)
	walk = func(at string, path []Edge) {
		if at == to {
			if best == nil || better(path, best) {
				best = slices.Clone(path)
			}
			return
		}
		for _, e := range g.edges[at] {
			a, b := g.nodes[at].v, g.nodes[e.To].v
			if b.Compare(a) > 0 && b.Compare(g.nodes[to].v) <= 0 && b.Major == a.Major && b.Minor-a.Minor <= 1 {
				walk(e.To, append(path, e))
			}
		}
	}
	walk(from, nil)
	return best
}

func TestPathAgainstEveryPath(t *testing.T) {
	found, risky := 0, 0
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 1))
		var versions []string
		for minor := 7; minor <= 9; minor++ {
			for z := range 2 + r.IntN(3) {
				versions = append(versions, fmt.Sprintf("4.%d.%d", minor, z*(1+r.IntN(7))*7+z))
			}
		}
		slices.Sort(versions)
		versions = slices.Compact(versions)
		r.Shuffle(len(versions), func(i, j int) { versions[i], versions[j] = versions[j], versions[i] })
		d := newDraft(versions...)
		for _, a := range versions {
			for _, b := range versions { // backwards, and to itself, too
				switch r.IntN(10) {
				case 0, 1, 2:
					d.edge(a, b)
				case 3:
					d.risky(a, b, "R")
				case 4:
					d.risky(a, b, "R", "S").edge(a, b)
				case 5:
					if r.IntN(3) == 0 {
						d.risky(a, b, "R").risky(a, b, "S")
					}
				}
			}
		}
		g := d.parse(t)
		from, to := versions[r.IntN(len(versions))], versions[r.IntN(len(versions))]
		got, err := g.Path(from, to)
		want := brute(g, from, to)
		if versionsOf(got) != versionsOf(want) || (err == nil) != (len(want) > 0) {
			t.Fatalf("seed %d: %s to %s: %q (%v), and %q is better", seed, from, to, versionsOf(got), err, versionsOf(want))
		}
		if len(want) > 1 {
			found++
		}
		if strings.Contains(versionsOf(want), "?") {
			risky++
		}
	}
	if found < 100 || risky < 20 {
		t.Errorf("only %d paths of several updates, %d with risks: the test shows little", found, risky)
	}
}

// stable makes the graph of a channel as large as real ones: every z updates to every later one
// of its minor version, and to those of the next that came out after it.
func stable(minor, patches int) *draft {
	var versions []string
	for _, m := range []int{minor - 1, minor} {
		for z := range patches {
			versions = append(versions, fmt.Sprintf("4.%d.%d", m, z))
		}
	}
	d := newDraft(versions...)
	for i, a := range versions {
		for j, b := range versions {
			if j > i && (i >= patches || j < patches || j-patches > i+10) {
				d.edge(a, b)
			}
		}
	}
	return d
}

// A path over several minor versions needs the graphs of several channels.
func TestPathOverChannels(t *testing.T) {
	g := stable(12, 60).parse(t)
	if _, err := g.Path("4.10.0", "4.12.59"); !errors.Is(err, ErrUnknown) {
		t.Errorf("in one channel: %v", err)
	}
	if err := g.Add(stable(11, 60).parse(t)); err != nil {
		t.Fatal(err)
	}
	// From 4.10.0 to the last 4.10 that may leave for the last 4.11 that may leave for 4.12.59.
	if edges, err := g.Path("4.10.0", "4.12.59"); err != nil || versionsOf(edges) != "4.11.48 4.12.59" {
		t.Errorf("%s, %v", versionsOf(edges), err)
	}
	if n, ok := g.Newest(); !ok || n.Version != "4.12.59" || n.Digest != digest.FromString("4.12.59") {
		t.Errorf("newest %+v", n)
	}
	other := newDraft("4.11.5")
	other.Nodes[0]["payload"] = "quay.io/a/b@" + digest.FromString("of another architecture").String()
	if err := g.Add(other.parse(t)); !errors.Is(err, ErrGraph) {
		t.Errorf("two digests of one version: %v", err)
	}
}

// What one channel says of an edge counts in the others too.
func TestAddJoinsConditions(t *testing.T) {
	v := []string{"4.8.1", "4.8.2"}
	for name, row := range map[string]struct {
		a, b *draft
		want string
	}{
		"the same twice":  {newDraft(v...).risky("4.8.1", "4.8.2", "R"), newDraft(v...).risky("4.8.1", "4.8.2", "R"), "R"},
		"two risks":       {newDraft(v...).risky("4.8.1", "4.8.2", "R"), newDraft(v...).risky("4.8.1", "4.8.2", "S"), "R S"},
		"plain, then one": {newDraft(v...).edge("4.8.1", "4.8.2"), newDraft(v...).risky("4.8.1", "4.8.2", "R"), "R"},
		"one, then plain": {newDraft(v...).risky("4.8.1", "4.8.2", "R"), newDraft(v...).edge("4.8.1", "4.8.2"), "R"},
		"ignored in one":  {newDraft(v...).risky("4.8.1", "4.8.2", "R").risky("4.8.1", "4.8.2", "S"), newDraft(v...).edge("4.8.1", "4.8.2"), "!"},
		"in the other":    {newDraft(v...).edge("4.8.1", "4.8.2"), newDraft(v...).risky("4.8.1", "4.8.2", "R").risky("4.8.1", "4.8.2", "S"), "!"},
	} {
		g := row.a.parse(t)
		if err := g.Add(row.b.parse(t)); err != nil {
			t.Fatal(err)
		}
		edges, err := g.Path("4.8.1", "4.8.2")
		if (row.want == "!") != (err != nil) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		var names []string
		for _, r := range edges[0].Risks {
			names = append(names, r.Name)
		}
		if strings.Join(names, " ") != row.want {
			t.Errorf("%s: %v", name, names)
		}
	}
}

func TestChannels(t *testing.T) {
	for _, row := range []struct{ channel, from, want string }{
		{"stable-4.8", "4.7.0", "stable-4.8"},
		{"stable-4.8", "4.8.3", "stable-4.8"},
		{"fast-4.12", "4.9.3", "fast-4.12 fast-4.11 fast-4.10"},
		{"eus-4.12", "4.8.3", "eus-4.12 eus-4.10"},
		{"stable-5.0", "4.22.1", "stable-5.0"},
		{"stable-4.8", "4.9.1", "stable-4.8"},
	} {
		if got := strings.Join(Channels(row.channel, row.from), " "); got != row.want {
			t.Errorf("%s from %s: %s, want %s", row.channel, row.from, got, row.want)
		}
	}
	if DefaultChannel("4.20.5") != "stable-4.20" || DefaultChannel("4.21.0-rc.1") != "candidate-4.21" || DefaultChannel("x") != "" {
		t.Error("default channels")
	}
	if !ValidChannel("stable-4.20") || !ValidChannel("eus-4.12") || ValidChannel("4.20") || ValidChannel("stable-4.20&x=y") || ValidChannel("stable-4") {
		t.Error("names of channels")
	}
	if q, err := Query("https://osus.example/graph?x=y", "stable-4.8", "x86_64"); err != nil || q != "https://osus.example/graph?arch=amd64&channel=stable-4.8&x=y" {
		t.Error(q, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":           ``,
		"a list":            `[]`,
		"another document":  `{"releases":[]}`,
		"an edge to nobody": `{"nodes":[],"edges":[[0,1]]}`,
		"a negative edge":   `{"nodes":[{"version":"4.8.1","payload":"x"}],"edges":[[0,-1]]}`,
		"an edge of three":  `{"nodes":[],"edges":[["a","b","c"]]}`,
		"nameless risk":     `{"nodes":[],"conditionalEdges":[{"edges":[],"risks":[{"message":"m"}]}]}`,
		"two digests": `{"nodes":[{"version":"4.8.1","payload":"quay.io/a/b@sha256:` + strings.Repeat("1", 64) + `"},
			{"version":"4.8.1","payload":"quay.io/a/b@sha256:` + strings.Repeat("2", 64) + `"}]}`,
	} {
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrGraph) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What cannot be packed is left out.
	g, err := Parse([]byte(`{"nodes":[{"version":"4.8.1","payload":"quay.io/a/b:latest"},{"version":"../x","payload":"quay.io/a/b@sha256:` + strings.Repeat("1", 64) + `"}],"edges":[[0,1]]}`))
	if err != nil || len(g.nodes)+len(g.edges) > 0 {
		t.Errorf("%v, %+v", err, g)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(newDraft("4.7.0", "4.7.9", "4.8.1").edge("4.7.0", "4.7.9").risky("4.7.9", "4.8.1", "R").raw(f))
	f.Add([]byte(`{"nodes":[],"edges":[[0,0]]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		g, err := Parse(raw)
		if err != nil {
			if !errors.Is(err, ErrGraph) {
				t.Error(err)
			}
			return
		}
		all := g.sorted()
		if len(all) < 2 || len(all) > 7 || all[0].v.Major != all[len(all)-1].v.Major {
			return
		}
		edges, err := g.Path(all[0].Version, all[len(all)-1].Version)
		if err == nil && versionsOf(edges) != versionsOf(brute(g, all[0].Version, all[len(all)-1].Version)) {
			t.Errorf("%s is not the best path", versionsOf(edges))
		}
	})
}
