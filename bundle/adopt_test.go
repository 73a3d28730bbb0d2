package bundle_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release/sample"
)

// layerOfCLI is a layer that no other component of a sample release has.
func layerOfCLI(t *testing.T, r *sample.Release) digest.Digest {
	t.Helper()
	for _, c := range r.Components {
		if c.Name == "cli" {
			m, err := content.ParseManifest(content.MediaTypeDockerManifest, r.Blobs[c.Digest])
			if err != nil {
				t.Fatal(err)
			}
			return m.Layers[len(m.Layers)-1].Digest
		}
	}
	t.Fatal("no cli")
	return ""
}

// What oc wrote becomes a bundle that is the same as one that was packed, and nobody is asked.
func TestPackAdopts(t *testing.T) {
	r, next := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	o := trip.NewOrigin(t, r, next)
	old := trip.OC(t, trip.OCOptions{}, r, next)
	before := trip.Tree(t, old)
	media := trip.Drive(t)
	opts := o.Options(media)
	opts.Adopt, opts.Stores = old, nil
	res := trip.Pack(t, opts)
	if asked := o.Log.Take(); len(asked) > 0 || res.Adopted == 0 || res.Moved != 0 {
		t.Errorf("asked for %v, %d bytes adopted", asked, res.Adopted)
	}
	if report := trip.Whole(t, media); len(report.Releases) != 2 {
		t.Errorf("%+v", report.Releases)
	}
	packed := trip.Drive(t)
	if want := o.Pack(packed, "4.8.21", "4.8.22"); want.BundleID != res.BundleID {
		t.Errorf("another bundle: %s, packed %s", res.BundleID, want.BundleID)
	}
	for path, s := range trip.Tree(t, old) {
		if before[path] != s {
			t.Errorf("%s was changed", path)
		}
	}
	if res := trip.Pack(t, opts); !res.Unchanged {
		t.Errorf("the second run: %+v", res)
	}
}

// With a release named, what is missing or bad is fetched, and no more.
func TestPackAdoptsAndFetches(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 3, LayerSize: 20 << 10})
	layer := layerOfCLI(t, r)
	size := int64(len(r.Blobs[layer]))
	for name, damage := range map[string]func(t *testing.T, path string) error{
		"flipped":  func(t *testing.T, path string) error { trip.Flip(t, path, 7); return nil },
		"missing":  func(_ *testing.T, path string) error { return os.Remove(path) },
		"download": func(_ *testing.T, path string) error { return os.Rename(path, path+".download") },
		"cut":      func(_ *testing.T, path string) error { return os.Truncate(path, 10) },
	} {
		t.Run(name, func(t *testing.T) {
			o := trip.NewOrigin(t, r)
			old := trip.OC(t, trip.OCOptions{}, r)
			if err := damage(t, trip.OCBlob(old, layer)); err != nil {
				t.Fatal(err)
			}
			media := trip.Drive(t)
			opts := o.Options(media, "4.8.21")
			opts.Adopt = old
			res := trip.Pack(t, opts)
			trip.Whole(t, media)
			// The release image's payload is read where it is named: two blobs more.
			if asked := trip.Blobs(o.Log.Take()); asked[layer.String()] != 1 || len(asked) != 3 {
				t.Errorf("asked for %v", asked)
			}
			if res.Adopted < size {
				t.Errorf("%d bytes adopted", res.Adopted)
			}
		})
	}
}

// Without a release named, what is not whole or not signed is left out; the rest is sealed.
func TestPackAdoptsWhatIsGood(t *testing.T) {
	r, next := trip.Make(t, sample.Options{Components: 3, LayerSize: 20 << 10}), trip.Make(t, sample.Options{Version: "4.8.22", Components: 3, LayerSize: 20 << 10, Seed: 5})
	layer := layerOfCLI(t, r)
	for name, test := range map[string]struct {
		damage func(t *testing.T, old string) error
		want   error
	}{
		"flipped": {func(t *testing.T, old string) error { trip.Flip(t, trip.OCBlob(old, layer), 7); return nil }, content.ErrDigest},
		"cut":     {func(_ *testing.T, old string) error { return os.Truncate(trip.OCBlob(old, layer), 10) }, content.ErrSize},
		"missing": {func(_ *testing.T, old string) error { return os.Remove(trip.OCBlob(old, layer)) }, bundle.ErrIncomplete},
		"unsigned": {func(_ *testing.T, old string) error {
			return os.Remove(filepath.Join(old, "config", "signature-sha256-"+r.Descriptor.Digest.Encoded()[:16]+".json"))
		}, bundle.ErrSignature},
		"tag swapped": {func(_ *testing.T, old string) error {
			return errors.Join(os.Remove(trip.OCTag(old, "4.8.21-x86_64-cli")), os.Symlink(r.Components[1].Digest.String(), trip.OCTag(old, "4.8.21-x86_64-cli")))
		}, bundle.ErrDamaged},
		"release image flipped": {func(t *testing.T, old string) error {
			trip.Flip(t, trip.OCBlob(old, r.Descriptor.Digest), 7)
			return nil
		}, bundle.ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			o := trip.NewOrigin(t, r, next)
			old := trip.OC(t, trip.OCOptions{}, r, next)
			if err := test.damage(t, old); err != nil {
				t.Fatal(err)
			}
			media := trip.Drive(t)
			opts := o.Options(media)
			opts.Adopt, opts.Stores = old, nil
			res, err := bundle.Pack(t.Context(), opts)
			if !errors.Is(err, test.want) || res == nil || !res.Sealed || len(o.Log.Take()) > 0 {
				t.Fatalf("%v, %+v", err, res)
			}
			if report := trip.Whole(t, media); len(report.Releases) != 1 || report.Releases[0].Version != "4.8.22" {
				t.Errorf("%+v", report.Releases)
			}
			// The one that was left out is fetched as far as it is missing.
			opts = o.Options(media, "4.8.21")
			opts.Adopt = old
			trip.Pack(t, opts)
			if report := trip.Whole(t, media); len(report.Releases) != 2 {
				t.Errorf("%+v", report.Releases)
			}
		})
	}
}

// Nothing good is nothing sealed, and a folder that oc wrote is never packed onto.
func TestPackAdoptsNothing(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	old := trip.OC(t, trip.OCOptions{Unsigned: true}, r)
	media := trip.Drive(t)
	opts := o.Options(media)
	opts.Adopt, opts.Stores = old, nil
	if res, err := bundle.Pack(t.Context(), opts); !errors.Is(err, bundle.ErrSignature) || res.Sealed {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(media); err == nil {
		t.Error("the drive was begun")
	}
	opts.Stores = []string{o.Store} // a folder: still no network
	trip.Pack(t, opts)
	trip.Whole(t, media)

	before := trip.Tree(t, old)
	var tree *bundle.DirectoryError
	if _, err := bundle.Pack(t.Context(), o.Options(old, "4.8.21")); !errors.As(err, &tree) || !errors.Is(err, bundle.ErrNotBundle) {
		t.Error(err)
	}
	if len(trip.Tree(t, old)) != len(before) {
		t.Error("something was written there")
	}
	opts = o.Options(trip.Drive(t))
	opts.Adopt = filepath.Dir(old)
	if _, err := bundle.Pack(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "did you mean "+old) {
		t.Error(err)
	}
}
