//go:build cluster

package main

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The commands of the tutorial that want a cluster are run as they stand, in their order, after
// the unpack that it tells of before; what every command of these tests needs is added.
func TestClusterTutorial(t *testing.T) {
	y := newYard(t, nil)
	y.run(0, "unpack", y.media, y.registry(), "--cluster-registry", nodesKnow, "--keyring", y.key, "--objects-dir", filepath.Join(y.home, "objects"))
	snapshot := make([]byte, 1024)
	copy(snapshot[16:], []byte{0xED, 0xDA, 0x0C, 0xED}) // bbolt's magic, as etcd's databases begin
	sum := sha256.Sum256(snapshot)
	if err := os.WriteFile(filepath.Join(y.home, "snapshot.db"), append(snapshot, sum[:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := fenced(t, "tutorial.md", "sh cluster")
	for _, line := range lines {
		words := strings.Fields(strings.NewReplacer("/media/usb/mirror", y.media, "registry.example:5000/ocp4/openshift4", "…").Replace(line))
		code := 0
		if words[1] == "preflight" { // nothing was said of a backup yet, and the first check of a site is seldom green
			code = 8
		}
		y.run(code, words[1:]...)
	}
	if len(lines) != 4 {
		t.Errorf("%d commands: %q", len(lines), lines)
	}
	y.done()
}
