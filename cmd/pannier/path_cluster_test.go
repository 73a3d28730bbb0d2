//go:build cluster

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle/release/sample"
)

// TestClusterPath packs a path of two updates, and takes the cluster along it, one update after the
// other, by the same command from the drive and from a folder of objects.
func TestClusterPath(t *testing.T) {
	hop := trip.Make(t, sample.Options{Version: toVersion, Components: 3, Previous: []string{fromVersion}})
	last := trip.Make(t, sample.Options{Version: "4.17.2", Components: 3, Previous: []string{toVersion}})
	y := newYardPacked(t, []*sample.Release{hop, last}, func(y *yard) { packPath(y, hop, last) }, fromVersion, "v1.29.6", nil)

	// Who leaves a hop out by name is warned; without a name it is the first hop.
	y.run(0, "unpack", y.media, "…", "--apply", "--wait")
	dryRun := []string{"upgrade", y.media, "…", "--etcd-backup", "1h", "--dry-run"}
	out, errs := y.run(0, append(dryRun, "--release", last.Version)...)
	wants(t, flat(out+errs), "update-path: 4.17.2 does not name "+fromVersion)
	out, _ = y.run(0, dryRun...)
	wants(t, out, "would be asked for "+toVersion)
	wants(t, y.state(), "desired \n")

	dir := filepath.Join(y.home, "objects")
	_, errs = y.run(0, append(y.chain(), "--objects-dir", dir)...)
	wants(t, errs, "Cluster is at "+toVersion)
	y.at(hop, fromVersion)

	out, _ = y.run(0, "upgrade", dir, "…", "--etcd-backup", "1h", "--dry-run")
	wants(t, out, "which runs "+toVersion, "would be asked for 4.17.2")
	out, _ = y.run(0, "upgrade", dir, "…", "--etcd-backup", "1h", "--wait")
	wants(t, out, "Cluster is at 4.17.2")
	done := y.at(last, toVersion)

	// At the end of the path the same commands change nothing.
	_, errs = y.run(0, y.chain()...)
	wants(t, errs, "Cluster is already at 4.17.2")
	out, _ = y.run(0, "upgrade", y.media, "…", "--wait")
	wants(t, out, "Cluster is already at 4.17.2")
	if again := y.state(); again != done {
		t.Errorf("something changed:\n%s\n%s", done, again)
	}
}

// TestClusterPathBeside lists what there is to choose from where no packed update leads on.
func TestClusterPathBeside(t *testing.T) {
	hop := trip.Make(t, sample.Options{Version: toVersion, Components: 3, Previous: []string{fromVersion}})
	last := trip.Make(t, sample.Options{Version: "4.17.2", Components: 3, Previous: []string{toVersion}})
	y := newYardPacked(t, []*sample.Release{hop, last}, func(y *yard) { packPath(y, hop, last) }, "4.16.5", "v1.29.6", nil)
	_, errs := y.run(2, "upgrade", y.media, "…", "--etcd-backup", "1h")
	wants(t, flat(errs), "there are 2: 4.16.9-x86_64, 4.17.2-x86_64", "leads on from 4.16.5")
	wants(t, y.state(), "desired \n")
}

// packPath packs the updates fromVersion -> hop -> last by the command, with a graph of its own.
func packPath(y *yard, hop, last *sample.Release) {
	graph := filepath.Join(y.home, "graph.json")
	node := func(r *sample.Release) string {
		return fmt.Sprintf(`{"version": %q, "payload": "%s@%s"}`, r.Version, r.Repository, r.Descriptor.Digest)
	}
	text := fmt.Sprintf(`{"version": 1, "nodes": [{"version": %q, "payload": "quay.io/a/b@sha256:%s"}, %s, %s], "edges": [[0,1],[1,2]]}`,
		fromVersion, strings.Repeat("0", 64), node(hop), node(last))
	if err := os.WriteFile(graph, []byte(text), 0o644); err != nil {
		y.t.Fatal(err)
	}
	_, errs := y.run(0, "pack", last.Version, y.media, "--upgrade-from", fromVersion, "--graph", graph,
		"--registry-mirror", "quay.io="+y.origin.Registry.Host, "--signature-store", y.origin.Store, "--keyring", y.key)
	wants(y.t, errs, "path of updates: "+fromVersion+" -> "+hop.Version+" -> "+last.Version)
}

// at fails unless the cluster has completed r, coming from the version before.
func (y *yard) at(r *sample.Release, before string) string {
	y.t.Helper()
	s := y.state()
	image := nodesKnow + "@" + r.Descriptor.Digest.String()
	wants(y.t, s, "desired "+image, "history Completed "+image, "configmaps sha256-"+r.Descriptor.Digest.Encoded())
	if first, _, _ := strings.Cut(s[strings.Index(s, "history "):], "\n"); first != "history Completed "+image {
		y.t.Errorf("newest of the history after %s: %s", before, first)
	}
	return s
}
