package apply_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release/sample"
)

// What oc wrote arrives as what was packed does: byte for byte, with its tags and objects.
func TestUnpackDirectory(t *testing.T) {
	r, next := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	o := trip.NewOrigin(t, r, next)
	packed := trip.Drive(t)
	o.Pack(packed, "4.8.21", "4.8.22")
	want := trip.NewSite(t).Unpack(packed)

	for name, dir := range map[string]string{
		"linux":   trip.OC(t, trip.OCOptions{}, r, next),
		"windows": trip.OC(t, trip.OCOptions{Windows: true}, r, next),
		"old":     trip.OC(t, trip.OCOptions{Old: true}, r, next),
	} {
		t.Run(name, func(t *testing.T) {
			before := trip.Tree(t, dir)
			site := trip.NewSite(t)
			res := site.Unpack(dir)
			if len(res.Releases) != 2 || !res.Releases[0].Complete || len(res.Objects) != len(want.Objects) {
				t.Errorf("%+v", res.Releases)
			}
			for _, rel := range []*sample.Release{r, next} {
				for _, img := range rel.Images {
					desc, raw, err := site.Registry.Manifest(trip.Repository, img.Descriptor.Digest.String())
					if err != nil || desc.MediaType != img.Descriptor.MediaType || digest.FromBytes(raw) != img.Descriptor.Digest {
						t.Errorf("%s: %v", img.Descriptor.Digest, err)
					}
				}
				for _, d := range rel.Digests() {
					if !site.Registry.Has(trip.Repository, d) {
						t.Errorf("%s did not arrive", d)
					}
				}
			}
			if tags, err := site.Registry.Tags(trip.Repository); err != nil || len(tags) != 8 {
				t.Errorf("%v %v", tags, err)
			}
			if !equalTrees(before, trip.Tree(t, dir)) {
				t.Error("the folder was changed")
			}
		})
	}
}

// A release of which something is bad or missing is not complete, and the outcome says which.
func TestUnpackDirectoryDamaged(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 3, LayerSize: 4 << 10})
	cli := r.Components[0].Digest
	m, err := content.ParseManifest(content.MediaTypeDockerManifest, r.Blobs[cli])
	if err != nil {
		t.Fatal(err)
	}
	layer := m.Layers[len(m.Layers)-1].Digest
	relink := func(dir, tag string, d digest.Digest) error {
		return errors.Join(os.Remove(trip.OCTag(dir, tag)), os.Symlink(d.String(), trip.OCTag(dir, tag)))
	}
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir string) error
		want   error
		not    error
	}{
		"layer flipped":     {func(t *testing.T, dir string) error { trip.Flip(t, trip.OCBlob(dir, layer), 9); return nil }, content.ErrDigest, nil},
		"manifest edited":   {func(t *testing.T, dir string) error { trip.Flip(t, trip.OCBlob(dir, cli), 9); return nil }, content.ErrDigest, nil},
		"component swapped": {func(_ *testing.T, dir string) error { return relink(dir, "4.8.21-x86_64-cli", r.Components[2].Digest) }, bundle.ErrDamaged, nil},
		"release swapped":   {func(_ *testing.T, dir string) error { return relink(dir, "4.8.21-x86_64", cli) }, bundle.ErrDamaged, nil},
		"download": {func(_ *testing.T, dir string) error {
			return os.Rename(trip.OCBlob(dir, layer), trip.OCBlob(dir, layer)+".download")
		}, bundle.ErrIncomplete, bundle.ErrDamaged},
		"release image missing": {func(_ *testing.T, dir string) error {
			return errors.Join(os.Remove(trip.OCBlob(dir, r.Descriptor.Digest)), os.Remove(trip.OCTag(dir, r.Descriptor.Digest.String())))
		}, bundle.ErrIncomplete, bundle.ErrDamaged},
		"manifest missing": {func(_ *testing.T, dir string) error {
			return errors.Join(os.Remove(trip.OCBlob(dir, cli)), os.Remove(trip.OCTag(dir, cli.String())))
		}, bundle.ErrIncomplete, bundle.ErrDamaged},
		"unsigned": {func(_ *testing.T, dir string) error { return os.RemoveAll(filepath.Join(dir, "config")) }, bundle.ErrSignature, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := trip.OC(t, trip.OCOptions{}, r)
			if err := test.damage(t, dir); err != nil {
				t.Fatal(err)
			}
			site := trip.NewSite(t)
			res, err := apply.Unpack(t.Context(), site.Options(dir))
			if !errors.Is(err, test.want) || test.not != nil && errors.Is(err, test.not) {
				t.Errorf("%v", err)
			}
			if len(res.Objects) > 0 || len(res.Releases) > 0 && res.Releases[0].Complete {
				t.Errorf("objects of a release that is not whole: %+v", res.Releases)
			}
			if tags, _ := site.Registry.Tags(trip.Repository); len(tags) > 2 {
				t.Errorf("tags were written: %v", tags)
			}
		})
	}
}

// And it is served, where it is not bad.
func TestServeDirectory(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	dir := trip.OC(t, trip.OCOptions{}, r)
	s := serveDrive(t, dir, func(o *apply.ServeOptions) { o.Repository = "all" })
	for _, img := range r.Images {
		s.ask("GET", "/v2/all/manifests/"+img.Descriptor.Digest.String()).wants(t, 200)
	}
	s.ask("GET", "/v2/"+releaseRepo+"/manifests/4.8.21-x86_64").wants(t, 200)
	if got := s.ask("GET", "/v2/"+releaseRepo+"/referrers/"+r.Descriptor.Digest.String()).wants(t, 200); len(got.body) == 0 {
		t.Error("no index of referrers")
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}
