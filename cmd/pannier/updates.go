package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/bundle"
	"pannier/bundle/graph"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/remote"
)

// updateGraphFlags say which path of updates is packed.
type updateGraphFlags struct {
	from    string
	channel string
	graphs  cli.StringSlice
}

func (f *updateGraphFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "upgrade-from", Destination: &f.from,
			Usage: "`VERSION` that the cluster runs: pack every release on the path of updates from there to RELEASE, or to the newest of --channel"},
		&cli.StringFlag{Name: "channel", Destination: &f.channel,
			Usage: "`CHANNEL` whose update graph is asked, as stable-4.20 (default: stable-4.N of RELEASE); without RELEASE its newest release is meant"},
		&cli.StringSliceFlag{Name: "graph", Destination: &f.graphs,
			Usage: "`SOURCE` of the update graph, a file or the address of a service, instead of the public one; repeatable: several are joined"},
	}
}

// options checks what was given against the releases that are named.
func (f *updateGraphFlags) options(s *session, releases []release.Reference, d release.Defaults) (bundle.UpdateOptions, error) {
	out := bundle.UpdateOptions{From: f.from, Channel: f.channel, Defaults: d}
	switch {
	case f.channel != "" && !graph.ValidChannel(f.channel):
		return out, usagef(s.command, "--channel is the name of a channel, as stable-4.20 or eus-4.18, not %q", f.channel)
	case f.from != "" && !release.ValidVersion(f.from):
		return out, usagef(s.command, "--upgrade-from is the version that the cluster runs, as 4.8.21, not %q", f.from)
	case f.from == "" && f.channel != "" && len(releases) > 0:
		return out, usagef(s.command, "--channel without RELEASE means its newest release; with RELEASE it goes with --upgrade-from VERSION")
	case f.from == "" && f.channel == "" && len(f.graphs.Value()) > 0:
		return out, usagef(s.command, "--graph goes with --upgrade-from or --channel: without them no graph is asked")
	case f.from != "" && len(releases) == 0 && f.channel == "":
		return out, usagef(s.command, "--upgrade-from needs a RELEASE to go to, or a --channel whose newest is meant")
	case f.from != "" && len(releases) > 1:
		return out, usagef(s.command, "--upgrade-from leads to one RELEASE, and %d are named; pack the others onto the same drive with another command", len(releases))
	case f.from != "" && len(releases) == 1 && releases[0].Version == "":
		return out, usagef(s.command, "with --upgrade-from the RELEASE is named by its version, as 4.8.21, so that the update graph can be asked")
	}
	for _, name := range f.graphs.Value() {
		if !remote.IsAddress(name) {
			name = s.env.expandHome(name)
			if err := s.env.checkNamed("--graph", name); err != nil {
				return out, usagef(s.command, "%v", err)
			}
		}
		out.Graphs = append(out.Graphs, name)
	}
	return out, nil
}

// pathText renders a path of updates, with what stands against them, in lines; "" if there is
// none.
func pathText(path []graph.Edge) string {
	if len(path) == 0 {
		return ""
	}
	text := "path of updates: " + printable(path[0].From)
	for _, e := range path {
		text += " -> " + printable(e.To)
	}
	for _, e := range path {
		for _, r := range e.Risks {
			text += fmt.Sprintf("\n  %s -> %s is conditional: %s", printable(e.From), printable(e.To), riskText(r))
		}
	}
	return text + "\n"
}

// riskText renders a risk, and how a cluster finds out whether it is concerned.
func riskText(r objects.Risk) string {
	text := r.Name
	if r.Message != "" {
		text += ": " + strings.Join(strings.Fields(r.Message), " ")
	}
	if r.URL != "" {
		text += " (" + r.URL + ")"
	}
	for _, q := range r.Queries() {
		text += "; concerns clusters where this query gives 1: " + q
	}
	return printable(text)
}

// updateDocument is one update of a path in the JSON of a dry run.
type updateDocument struct {
	From  string         `json:"from"`
	To    string         `json:"to"`
	Risks []objects.Risk `json:"risks,omitempty"`
}

func pathDocument(path []graph.Edge) []updateDocument {
	var out []updateDocument
	for _, e := range path {
		out = append(out, updateDocument(e))
	}
	return out
}
