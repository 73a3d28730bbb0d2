package apply_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/parity"
	"pannier/bundle/release/sample"
)

// A blob of which no copy is right is reconstructed from parity on the way to the registry; the
// report says so, and the drive stays as it is.
func TestUnpackMends(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 4, LayerSize: 2<<20 + 5})
	o := trip.NewOrigin(t, r)
	sealed := trip.Drive(t)
	opts := o.Options(sealed, r.Reference())
	opts.Parity = 5000
	trip.Pack(t, opts)
	comp := r.Components[2]
	layer := layerOf(t, r, comp.Digest)
	for name, tc := range map[string]struct {
		bad    digest.Digest
		damage func(string) error
	}{
		"flip":           {layer, func(p string) error { trip.Flip(t, p, 1); return nil }},
		"cut":            {layer, func(p string) error { return os.Truncate(p, 1<<20+7) }},
		"gone":           {layer, os.Remove},
		"manifest":       {comp.Digest, func(p string) error { trip.Flip(t, p, 5); return nil }},
		"manifest, gone": {comp.Digest, os.Remove},
		"release image":  {r.Descriptor.Digest, os.Remove},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, sealed)
			if err := tc.damage(trip.Blob(media, tc.bad)); err != nil {
				t.Fatal(err)
			}
			before := trip.Tree(t, media)
			site := trip.NewSite(t)
			opts := site.Options(media)
			res, err := apply.Unpack(t.Context(), opts)
			if err != nil || len(res.Refused) > 0 || len(res.Releases) != 1 || !res.Releases[0].Complete {
				t.Fatalf("%v: %+v", err, res.Refused)
			}
			releaseArrived(t, site, r)
			if !slices.ContainsFunc(res.Warnings, func(w string) bool { return strings.Contains(w, "reconstructed from its parity") }) {
				t.Errorf("the report does not say it: %q", res.Warnings)
			}
			if !maps.Equal(before, trip.Tree(t, media)) {
				t.Error("the drive has changed")
			}
			if left, _ := filepath.Glob(filepath.Join(opts.Cache, "*")); len(left) > 0 {
				t.Errorf("left in the cache: %q", left)
			}

			// With the parity damaged as well nothing is made up.
			slices1, err := filepath.Glob(filepath.Join(media, "pannier", "parity", "*", "slices-1.bin"))
			if err != nil || len(slices1) != 1 {
				t.Fatal(slices1, err)
			}
			if err := os.Truncate(slices1[0], 0); err != nil {
				t.Fatal(err)
			}
			_, res, err = hostile(t, media)
			if !errors.Is(err, bundle.ErrDamaged) && !errors.Is(err, parity.ErrLost) || len(res.Refused) == 0 && len(res.Releases) > 0 && res.Releases[0].Complete {
				t.Errorf("without parity: %v, %+v", err, res)
			}
		})
	}
}
