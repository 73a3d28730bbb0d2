package verify_test

import (
	"maps"
	"os"
	"strings"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

// The plan names the blobs that are larger than the parity. Every other one, deleted in turn,
// heals; a named one does not, and nothing is changed then.
func TestEveryBlobDeletedAsPlanned(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 3, LayerSize: 8 << 10, LargeLayer: 5 * mib})
	o := trip.NewOrigin(t, r)
	opts := o.Options(trip.Drive(t), r.Reference())
	opts.Parity = 2000
	var plan bundle.PlannedParity
	opts.Planned = func(res *bundle.PackResult) { plan = res.Plan.Parity }
	trip.Pack(t, opts)
	d := preserved(t, opts.Media)
	named := map[string]bool{}
	for _, b := range plan.Beyond {
		if named[b.Digest.Encoded()] = true; len(b.Images) == 0 {
			t.Errorf("%s: no image is named", b.Digest)
		}
	}
	if len(named) == 0 || len(named) == len(d.blobs) {
		t.Fatalf("%d of %d blobs are larger than the parity", len(named), len(d.blobs))
	}
	for name := range d.all {
		hex, ok := strings.CutPrefix(name, "blobs/sha256/")
		if !ok {
			continue
		}
		raw, err := os.ReadFile(at(d.media, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(at(d.media, name)); err != nil {
			t.Fatal(err)
		}
		if !named[hex] {
			d.heals("without " + name)
			continue
		}
		before := sums(t, d.media, "")
		report, err := mend(t, d.media, nil)
		if err != nil || report.Status != verify.StatusDamaged || !maps.Equal(before, sums(t, d.media, "")) {
			t.Errorf("%s, which is larger than the parity: %v %+v", name, err, report)
		}
		if err := os.WriteFile(at(d.media, name), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
