//go:build e2e && linux

package e2e_test

import (
	"testing"

	"pannier/bundle/release/sample"
	"pannier/bundle/remote/faultproxy"
)

// The program meets faults in front of a distribution, each once for every thing that is asked
// for: it must not show them to anybody, and what arrives must be whole.
func TestTripThroughFaults(t *testing.T) {
	c := newCargo(t, sample.Options{LayerSize: 900 << 10})
	source := startDistribution(t, gate{})
	c.stock(t, source, nil)
	faults := map[string]faultproxy.Fault{}
	for _, f := range append(faultproxy.Downloads(), faultproxy.Uploads()...) {
		faults[f.Name] = f
	}
	for _, row := range []struct{ down, up string }{
		{"cut after n bytes", "413"},
		{"flipped bit", "413, then the upload is forgotten"},
		{"range ignored", "answer to put lost"},
		{"manifest: flipped bit", "put cut in the middle"},
		{"web page", "manifest put: 503"},
	} {
		t.Run(row.down+"; "+row.up, func(t *testing.T) {
			down, up := faults[row.down], faults[row.up]
			target := startDistribution(t, gate{})
			from := faultproxy.Start("http://"+source.host, faultproxy.Options{})
			t.Cleanup(from.Close)
			to := faultproxy.Start("http://"+target.host, faultproxy.Options{})
			t.Cleanup(to.Close)
			behind := *target
			behind.host = to.Host
			x := newTrip(t, c, from.Host, &behind)
			from.Inject(&down, faultproxy.Each)
			x.pack(t, 0)
			to.Inject(&up, faultproxy.Each)
			x.unpack(t, 0)
			if from.Fired() == 0 || to.Fired() == 0 {
				t.Errorf("met %d and %d times", from.Fired(), to.Fired())
			}
			from.Inject(nil, 0)
			to.Inject(nil, 0)
			x.whole(t)
			x.arrived(t)
		})
	}
}
