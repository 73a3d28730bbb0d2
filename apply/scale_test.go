package apply_test

import (
	"encoding/json"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/trip"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
)

// A release of hundreds of components and a list of 200 images make the whole trip, with no
// more requests for each than a small one has (2,000 components: docs/performance.md, "Scale").
func TestManyImages(t *testing.T) {
	const components, children = 300, 200
	r := trip.Make(t, sample.Options{Components: components, LayerSize: 200})
	const repository = "quay.io/sample/list"
	list := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	list.SchemaVersion = 2
	for i := range children {
		d, err := r.AddImage(repository, "", sample.Image{OCI: true, Layers: [][]byte{{byte(i)}}})
		if err != nil {
			t.Fatal(err)
		}
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
		list.Manifests = append(list.Manifests, d)
	}
	raw, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	r.AddManifest(repository, "all", list.MediaType, raw)
	o, media, s := trip.NewOrigin(t, r), trip.Drive(t), trip.NewSite(t)
	opts := o.Options(media, r.Version)
	opts.Additional = []release.Reference{trip.Image(t, repository+":all")}
	res := trip.Pack(t, opts)
	if res.Blobs < len(r.Blobs) {
		t.Errorf("%d blobs on the drive, %d at the registry", res.Blobs, len(r.Blobs))
	}
	if n := len(o.Log.Take()); n > 2*res.Blobs {
		t.Errorf("%d requests for %d blobs", n, res.Blobs)
	}
	trip.Whole(t, media)
	s.Unpack(media)
	if n := len(s.Log.Take()); n > 4*res.Blobs {
		t.Errorf("%d requests to push %d blobs", n, res.Blobs)
	}
	for _, d := range r.Digests() {
		if !s.Registry.Has(trip.Repository, d) && !s.Registry.Has("sample/list", d) && !s.Registry.Has(trip.Repository+"/list", d) {
			t.Errorf("%s is not at the site", d)
			break
		}
	}
}
