package bundle_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/graph"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

// updateGraph is a graph of releases as services write it. Edges are written "4.7.1 4.7.2";
// behind a third word, the name of a risk, they are conditional.
func updateGraph(t *testing.T, digests map[string]digest.Digest, edges ...string) string {
	t.Helper()
	type object = map[string]any
	nodes, plain, conditional := []object{}, [][2]int{}, []object{}
	at := map[string]int{}
	for v, d := range digests {
		at[v] = len(nodes)
		nodes = append(nodes, object{"version": v, "payload": release.DefaultRepository + "@" + d.String(), "metadata": object{}})
	}
	for _, e := range edges {
		words := strings.Fields(e)
		if len(words) == 2 {
			plain = append(plain, [2]int{at[words[0]], at[words[1]]})
			continue
		}
		conditional = append(conditional, object{
			"edges": []object{{"from": words[0], "to": words[1]}},
			"risks": []object{{"name": words[2], "message": words[2] + " may happen", "url": "https://bugs.example/1", "matchingRules": []object{{"type": "PromQL", "promql": object{"promql": "up == 1"}}}}},
		})
	}
	raw, err := json.Marshal(object{"version": 1, "nodes": nodes, "edges": plain, "conditionalEdges": conditional})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func digestsOf(releases ...*sample.Release) map[string]digest.Digest {
	out := map[string]digest.Digest{"4.7.0": digest.FromString("a version that nobody packs")}
	for _, r := range releases {
		out[r.Version] = r.Descriptor.Digest
	}
	return out
}

func TestPackPath(t *testing.T) {
	var all []*sample.Release
	for _, v := range []string{"4.7.37", "4.8.21", "4.8.22", "4.9.1"} {
		all = append(all, trip.Small(t, v))
	}
	o := trip.NewOrigin(t, all...)
	digests := digestsOf(all...)
	graphs := map[string]string{
		"stable-4.8": updateGraph(t, digests, "4.7.0 4.7.37", "4.7.37 4.8.21", "4.8.21 4.8.22"),
		"stable-4.9": updateGraph(t, digests, "4.8.21 4.8.22", "4.8.22 4.9.1 Slow"),
	}
	var asked []string
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked = append(asked, req.URL.RawQuery+" "+req.Header.Get("Accept"))
		fmt.Fprint(w, graphs[req.URL.Query().Get("channel")])
	}))
	t.Cleanup(service.Close)
	options := func(media, to, from string) bundle.PackOptions {
		opts := o.Options(media)
		if to != "" {
			opts = o.Options(media, to)
		}
		opts.Updates = bundle.UpdateOptions{From: from, Graphs: []string{service.URL}}
		return opts
	}
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)

	// Every hop, from the graphs of both channels, with its own signature; nothing in a dry run.
	opts := options(media, "4.9.1", "4.7.0")
	opts.DryRun = true
	if res := trip.Pack(t, opts); pathOf(res) != "4.7.37 4.8.21 4.8.22 ?4.9.1" {
		t.Errorf("path in a dry run: %s", pathOf(res))
	}
	res := trip.Pack(t, options(media, "4.9.1", "4.7.0"))
	if pathOf(res) != "4.7.37 4.8.21 4.8.22 ?4.9.1" || len(res.Releases) != 4 {
		t.Fatalf("path %s, %d releases", pathOf(res), len(res.Releases))
	}
	for _, r := range res.Releases {
		if r.Signature.Status != bundle.SignatureVerified {
			t.Errorf("%s: %s", r.Tag, r.Signature.Status)
		}
	}
	for _, a := range asked {
		if a != "arch=amd64&channel=stable-4.9 application/json" && a != "arch=amd64&channel=stable-4.8 application/json" {
			t.Errorf("asked for %s", a)
		}
	}

	// The risks are on the drive, and nothing is written for the same path again.
	in, err := verify.Inspect(t.Context(), verify.InspectOptions{Media: media, Cache: t.TempDir(), Signatures: o.Verifier})
	if err != nil {
		t.Fatal(err)
	}
	last := in.Releases[slices.IndexFunc(in.Releases, func(r verify.InspectedRelease) bool { return r.Version == "4.9.1" })]
	if len(last.Updates) != 1 || last.Updates[0].From != "4.8.22" || last.Updates[0].Risks[0].Name != "Slow" || last.Updates[0].Risks[0].Queries()[0] != "up == 1" {
		t.Errorf("updates to 4.9.1: %+v", last.Updates)
	}
	if res := trip.Pack(t, options(media, "4.9.1", "4.7.0")); !res.Unchanged {
		t.Error("the same path was packed again")
	}

	// Another path adds to what is recorded, and a release packed by itself takes nothing away.
	graphs["stable-4.8"] = updateGraph(t, digests, "4.7.0 4.8.21")
	trip.Pack(t, options(media, "4.8.21", "4.7.0"))
	again := o.Options(media, "4.8.21")
	again.Refresh = true
	trip.Pack(t, again)
	if got, err := open(t, media).Contents.Updates("4.8.21-x86_64"); err != nil || len(got) != 2 || got[0].From != "4.7.0" || got[1].From != "4.7.37" {
		t.Errorf("updates to 4.8.21: %+v, %v", got, err)
	}

	// A channel by itself is its newest release.
	opts = options(trip.Drive(t), "", "")
	opts.Updates.Channel = "stable-4.9"
	if res := trip.Pack(t, opts); len(res.Releases) != 1 || res.Releases[0].Tag != "4.9.1-x86_64" || len(res.Plan.Path) != 0 {
		t.Errorf("newest of a channel: %+v", res.Releases)
	}
	opts = options(trip.Drive(t), "", "4.8.22")
	opts.Updates.Channel = "stable-4.9"
	if res := trip.Pack(t, opts); pathOf(res) != "?4.9.1" {
		t.Errorf("to the newest of a channel: %s", pathOf(res))
	}
}

func pathOf(r *bundle.PackResult) string {
	var out []string
	for _, e := range r.Plan.Path {
		mark := ""
		if len(e.Risks) > 0 {
			mark = "?"
		}
		out = append(out, mark+e.To)
	}
	return strings.Join(out, " ")
}

func TestPackPathRefusals(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	sealed := trip.Drive(t)
	o.Pack(sealed, "4.8.21")
	dir := t.TempDir()
	file := func(name, text string) string {
		write(t, filepath.Join(dir, name), text)
		return filepath.Join(dir, name)
	}
	good := file("good", updateGraph(t, digestsOf(r), "4.7.0 4.8.21"))
	other := digestsOf(r)
	other["4.8.21"] = digest.FromString("another image")
	wrong := file("wrong", updateGraph(t, other, "4.7.0 4.8.21"))
	for name, row := range map[string]struct {
		media    string
		from, to string
		graphs   []string
		want     error
	}{
		"good":                   {"", "4.7.0", "4.8.21", []string{good}, nil},
		"another digest":         {"", "4.7.0", "4.8.21", []string{wrong}, bundle.ErrGraphDisagrees},
		"another, of a sealed":   {sealed, "4.7.0", "4.8.21", []string{wrong}, bundle.ErrGraphDisagrees},
		"two that contradict":    {"", "4.7.0", "4.8.21", []string{good, wrong}, graph.ErrGraph},
		"from a stranger":        {"", "4.6.0", "4.8.21", []string{good}, graph.ErrUnknown},
		"to a stranger":          {"", "4.7.0", "4.8.99", []string{good}, graph.ErrUnknown},
		"no path":                {"", "4.7.0", "4.8.21", []string{file("none", updateGraph(t, digestsOf(r)))}, graph.ErrNoPath},
		"no graph":               {"", "4.7.0", "4.8.21", []string{file("junk", "{}")}, graph.ErrGraph},
		"a release without name": {"", "4.7.0", release.DefaultRepository + "@" + r.Descriptor.Digest.String(), []string{good}, release.ErrReference},
	} {
		t.Run(name, func(t *testing.T) {
			if row.media == "" {
				row.media = trip.Drive(t)
			}
			opts := o.Options(row.media, row.to)
			opts.Updates = bundle.UpdateOptions{From: row.from, Graphs: row.graphs}
			if _, err := bundle.Pack(t.Context(), opts); !errors.Is(err, row.want) {
				t.Errorf("%v, want %v", err, row.want)
			}
		})
	}
}
