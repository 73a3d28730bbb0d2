//go:build e2e && linux

package e2e_test

import (
	"bytes"
	"path/filepath"
	"sync"
	"testing"

	"pannier/bundle/release/sample"
)

// Several unpacks of one drive to one registry at once, as when a Job is started again while
// the old pod still runs, or several sites share a registry: none disturbs another.
func TestUnpacksSideBySide(t *testing.T) {
	c := newCargo(t, sample.Options{})
	source, target := startDistribution(t, gate{}), startDistribution(t, gate{})
	c.stock(t, source, nil)
	x := newTrip(t, c, source.host, target)
	x.pack(t, 0)
	x.media = readOnly(t, x.media)
	exe := mustProgram(t)
	const unpacks = 5
	var wg sync.WaitGroup
	said, failed := make([]bytes.Buffer, unpacks), make([]error, unpacks)
	for i := range unpacks {
		u := newUser(t) // a pod has a home of its own
		wg.Go(func() {
			cmd := u.command(t.Context(), exe, "unpack", x.media, x.to(), "--keyring", x.keyring, "--objects-dir", filepath.Join(u.home, "objects"))
			cmd.Stdout, cmd.Stderr = &said[i], &said[i]
			failed[i] = cmd.Run()
		})
	}
	wg.Wait()
	for i, err := range failed {
		if err != nil {
			t.Errorf("unpack %d: %v\n%s", i, err, said[i].String())
		}
	}
	x.arrived(t)
	x.unpack(t, 0, "--check-all")
}
