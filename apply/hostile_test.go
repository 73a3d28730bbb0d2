package apply_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/store"
)

const tag21 = "4.8.21-x86_64"

// hostile unpacks media into a new site, and returns what came of it.
func hostile(t *testing.T, media ...string) (*trip.Site, *apply.UnpackResult, error) {
	t.Helper()
	site := trip.NewSite(t)
	res, err := apply.Unpack(t.Context(), site.Options(media...))
	return site, res, err
}

// untagged fails if the destination has one of the tags.
func untagged(t *testing.T, site *trip.Site, tags ...string) {
	t.Helper()
	have, err := site.Registry.Tags(trip.Repository)
	if err != nil {
		return // no repository, no tags
	}
	for _, tag := range tags {
		if slices.Contains(have, tag) {
			t.Errorf("%s was tagged", tag)
		}
	}
}

// Drives that were changed and sealed again by somebody else.
func TestUnpackResealed(t *testing.T) {
	type edit = trip.Edit
	r := trip.Small(t, "4.8.21")
	etcd := tag21 + "-" + r.Components[0].Name
	sealed := trip.Drive(t)
	trip.NewOrigin(t, r).Pack(sealed, r.Reference())
	mediaType := func(mt string) func(*edit) {
		return func(e *edit) { e.Put(etcd, func(i *store.Image) { i.Descriptor.MediaType = mt }) }
	}
	extra := func(name, kind string) func(*edit) {
		return func(e *edit) {
			e.Put(name, func(i *store.Image) {
				*i = store.Image{Kind: kind, Release: tag21, Name: "x", Reference: "quay.io/a/b:" + name, Descriptor: e.Foreign(name)}
			})
		}
	}
	additional := func(name, text string) func(*edit) {
		return func(e *edit) {
			e.Put(name, func(i *store.Image) {
				*i = store.Image{Kind: store.KindAdditional, Reference: name, Descriptor: e.Foreign(text)}
			})
		}
	}
	source := func(s string) func(*edit) {
		return func(e *edit) {
			e.Releases[0].Source = s
			e.Put(tag21, func(i *store.Image) { i.Reference = s + "@" + i.Descriptor.Digest.String() })
			sources := []string{s, r.ComponentRepository}
			slices.Sort(sources)
			e.Documents[tag21]["mirror-sources.json"], _ = json.Marshal(map[string]any{"sources": sources, "previous": e.Releases[0].Previous})
		}
	}
	document := func(name, text string) func(*edit) {
		return func(e *edit) { e.Documents[tag21][name] = []byte(text) }
	}
	for name, tc := range map[string]struct {
		change func(*edit)
		err    error
		pushed bool // the rest may be pushed
	}{
		"component is no manifest":    {mediaType("application/octet-stream"), nil, true},
		"component has no media type": {mediaType(""), nil, true},
		"component is called a list":  {mediaType(ocispec.MediaTypeImageIndex), nil, true},
		"release is no manifest":      {func(e *edit) { e.Put(tag21, func(i *store.Image) { i.Descriptor.MediaType = "" }) }, nil, true},
		"second release image":        {extra("4.9.99-x86_64", store.KindRelease), bundle.ErrDamaged, false},
		"release image called latest": {extra("latest", store.KindRelease), bundle.ErrDamaged, false},
		"second component":            {extra(tag21+"-x", store.KindComponent), bundle.ErrDamaged, false},
		"image called latest":         {additional("latest", "x"), bundle.ErrDamaged, false},
		"image of another digest":     {additional("quay.io/a/b@"+digest.FromString("x").String(), "x"), bundle.ErrDamaged, false},
		"swapped component":           {func(e *edit) { e.Put(etcd, func(i *store.Image) { i.Descriptor = e.Foreign("x") }) }, bundle.ErrDamaged, false},
		"junk references":             {document("image-references.json", "{}"), bundle.ErrDamaged, false},
		"junk metadata":               {document("release-metadata.json", "{}"), bundle.ErrDamaged, false},
		"a key of somebody":           {document("key-1", "x"), bundle.ErrDamaged, false},
		"a policy of somebody":        {document("image-policy-1", "x"), bundle.ErrDamaged, false},
		"source of all":               {source("*.com"), bundle.ErrDamaged, false},
		"source is a host":            {source("quay.io"), bundle.ErrDamaged, false},
		"more mirror sources":         {document("mirror-sources.json", `{"sources":["*.com"]}`), bundle.ErrDamaged, false},
		"two images of one name":      {func(e *edit) { additional("quay.io/a/b:c", "x")(e); additional("docker.io/a/b:c", "y")(e) }, bundle.ErrConflict, false},
		"image called as the release": {additional("quay.io/"+trip.Repository+":"+tag21, "x"), bundle.ErrConflict, false},
		"image called as a component": {additional("quay.io/"+trip.Repository+":"+etcd, "x"), bundle.ErrConflict, false},
		"index.json is no JSON":       {func(e *edit) { e.Raw = func([]byte) []byte { return []byte("[]") } }, bundle.ErrDamaged, false},
		"two entries of a name": {func(e *edit) {
			e.Index = func(i *ocispec.Index) { i.Manifests = append(i.Manifests, named(e.Foreign("x"), etcd)) }
		}, bundle.ErrDamaged, false},
		"two entries of a name, no db": {func(e *edit) {
			e.NoIndex = true
			e.Index = func(i *ocispec.Index) { i.Manifests = append(i.Manifests, named(e.Foreign("x"), etcd)) }
		}, bundle.ErrDamaged, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, sealed)
			trip.Reseal(t, media, tc.change)
			site, res, err := hostile(t, media)
			if err == nil || tc.err != nil && !errors.Is(err, tc.err) {
				t.Errorf("%v", err)
			}
			untagged(t, site, tag21, etcd, "4.9.99-x86_64", "latest", tag21+"-x")
			for _, rel := range res.Releases {
				if rel.Complete {
					t.Errorf("%+v", rel)
				}
			}
			if len(res.ReleaseJSON) != 0 && strings.Contains(string(res.ReleaseJSON), tag21) {
				t.Errorf("%s", res.ReleaseJSON)
			}
			for _, q := range site.Log.Take() {
				if q.Method == http.MethodPut && !tc.pushed {
					t.Errorf("%v", q)
				}
			}
		})
	}
}

func named(d ocispec.Descriptor, name string) ocispec.Descriptor {
	d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	return d
}

// What a second drive calls a part of a release that it does not hold is never looked at.
func TestUnpackSecondDriveClaims(t *testing.T) {
	one, two := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	o := trip.NewOrigin(t, one, two)
	good, bad := trip.Drive(t), trip.Drive(t)
	o.Pack(good, one.Reference())
	o.Pack(bad, two.Reference())
	var foreign digest.Digest
	trip.Reseal(t, bad, func(e *trip.Edit) {
		e.Put(tag21+"-"+one.Components[0].Name, func(i *store.Image) {
			*i = store.Image{Kind: store.KindComponent, Release: tag21, Name: one.Components[0].Name, Reference: "quay.io/a/b@sha256:", Descriptor: e.Foreign("x")}
			foreign = i.Descriptor.Digest
		})
		e.Put(tag21+"-more", func(i *store.Image) {
			*i = store.Image{Kind: store.KindComponent, Release: tag21, Name: "more", Reference: "quay.io/a/b@sha256:", Descriptor: e.Foreign("x")}
		})
	})
	for _, media := range [][]string{{good, bad}, {bad, good}} {
		site, _, _ := hostile(t, media...)
		releaseArrived(t, site, one)
		untagged(t, site, tag21+"-more")
		if site.Registry.Has(trip.Repository, foreign) {
			t.Error("the image of the second drive was pushed")
		}
	}
}

// Two drives with different images of one name: neither is pushed by chance.
func TestUnpackDrivesDisagree(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	one := trip.Drive(t)
	o.Pack(one, r.Reference())
	two := trip.Copy(t, one)
	for i, media := range []string{one, two} {
		trip.Reseal(t, media, func(e *trip.Edit) {
			e.Put("quay.io/a/b:c", func(img *store.Image) {
				*img = store.Image{Kind: store.KindAdditional, Reference: "quay.io/a/b:c", Descriptor: e.Foreign(string(rune('0' + i)))}
			})
		})
	}
	if _, _, err := hostile(t, one, two); !errors.Is(err, bundle.ErrConflict) {
		t.Errorf("%v", err)
	}
	site, _, err := hostile(t, one)
	if err != nil {
		t.Error(err)
	}
	if tags, err := site.Registry.Tags("a/b"); err != nil || !slices.Contains(tags, "c") {
		t.Errorf("%v %v", tags, err)
	}
}

// Components of a release whose image cannot be read get no names: nobody knows whether they
// are its components.
func TestUnpackUnreadRelease(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	media := trip.Drive(t)
	trip.NewOrigin(t, r).Pack(media, r.Reference())
	etcd := tag21 + "-" + r.Components[0].Name
	raw, err := os.ReadFile(trip.Blob(media, r.Descriptor.Digest))
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	trip.Reseal(t, media, func(e *trip.Edit) {
		e.Put(etcd, func(i *store.Image) { i.Descriptor = e.Foreign("x") })
		e.Remove = append(e.Remove, m.Layers[len(m.Layers)-1].Digest)
	})
	if a := trip.Audit(t, media); a.Status != "damaged" {
		t.Errorf("audit: %s", a.Status)
	}
	site, res, err := hostile(t, media)
	if !errors.Is(err, bundle.ErrDamaged) || len(res.Releases) == 1 && res.Releases[0].Complete {
		t.Errorf("%v %+v", err, res.Releases)
	}
	untagged(t, site, tag21, etcd, tag21+"-"+r.Components[1].Name)
}

// The mirror set names the repository that was signed, whatever a drive says that the release
// was packed from.
func TestUnpackSourceIsTheSignedOne(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	media := trip.Drive(t)
	trip.NewOrigin(t, r).Pack(media, r.Reference())
	const other = "evil.example.com/openshift/release"
	trip.Reseal(t, media, func(e *trip.Edit) {
		e.Releases[0].Source = other
		e.Put(tag21, func(i *store.Image) { i.Reference = other + "@" + i.Descriptor.Digest.String() })
		sources := []string{other, r.ComponentRepository}
		slices.Sort(sources)
		e.Documents[tag21]["mirror-sources.json"], _ = json.Marshal(map[string]any{"sources": sources, "previous": e.Releases[0].Previous})
	})
	_, res, err := hostile(t, media)
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, o := range append(res.Objects, res.Alternatives...) {
		if strings.Contains(string(o.YAML), "evil.example.com") {
			t.Errorf("%s", o.YAML)
		}
		seen = seen || o.Kind != "ConfigMap" && strings.Contains(string(o.YAML), r.Repository)
	}
	if !seen || !slices.ContainsFunc(res.Warnings, func(w string) bool { return strings.Contains(w, other) }) {
		t.Errorf("%v %q", seen, res.Warnings)
	}
}

// A registry that takes everything and keeps nothing: unpack does not say that it is done.
func TestUnpackIntoNothing(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	media := trip.Drive(t)
	trip.NewOrigin(t, r).Pack(media, r.Reference())
	agree := func(w http.ResponseWriter, q *http.Request) {
		io.Copy(io.Discard, q.Body)
		w.WriteHeader(http.StatusOK)
	}
	forget := func(w http.ResponseWriter, q *http.Request) {
		if _, d, ok := strings.Cut(q.URL.Path, "/manifests/"); ok {
			body, _ := io.ReadAll(q.Body)
			if !strings.HasPrefix(d, "sha256:") {
				d = digest.FromBytes(body).String()
			}
			w.Header().Set("Docker-Content-Digest", d)
		} else {
			io.Copy(io.Discard, q.Body)
			w.Header().Set("Docker-Content-Digest", q.URL.Query().Get("digest"))
		}
		w.WriteHeader(http.StatusCreated)
	}
	post := func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Location", q.URL.Path+"1")
		w.WriteHeader(http.StatusAccepted)
	}
	missing := func(w http.ResponseWriter, q *http.Request) { w.WriteHeader(http.StatusNotFound) }
	for name, answer := range map[string]map[string]http.HandlerFunc{
		"all are 200":         {"HEAD": agree, "GET": agree, "PUT": agree, "POST": agree},
		"puts are 201":        {"HEAD": missing, "GET": missing, "PUT": forget, "POST": post},
		"puts are 201, empty": {"HEAD": missing, "GET": agree, "PUT": forget, "POST": post},
	} {
		for _, confirm := range []bool{false, true} {
			site := trip.NewSite(t)
			site.Log.Before(func(w http.ResponseWriter, q *http.Request) bool {
				if q.URL.Path == "/v2/" || answer[q.Method] == nil {
					return false
				}
				answer[q.Method](w, q)
				return true
			})
			opts := site.Options(media)
			opts.Confirm = confirm
			res, err := apply.Unpack(t.Context(), opts)
			if err == nil {
				t.Errorf("%s: no error", name)
			}
			if strings.HasPrefix(name, "puts") && !errors.Is(err, apply.ErrNotArrived) {
				t.Errorf("%s: %v", name, err)
			}
			if len(res.ReleaseJSON) > 0 || len(res.Releases) == 1 && res.Releases[0].Complete {
				t.Errorf("%s: %+v", name, res.Releases)
			}
		}
	}
}

// The look at the end is one request for each release.
func TestUnpackLooksOnce(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	media := trip.Drive(t)
	trip.NewOrigin(t, r).Pack(media, r.Reference())
	site := trip.NewSite(t)
	site.Unpack(media)
	var gets []string
	for _, q := range site.Log.Take() {
		if q.Method == http.MethodGet {
			gets = append(gets, q.Manifest())
		}
	}
	if !slices.Equal(gets, []string{r.Descriptor.Digest.String()}) {
		t.Errorf("%q", gets)
	}
}

// Packing with a destination refuses what unpacking there would.
func TestPackForAPlaceOfItsOwn(t *testing.T) {
	r := trip.Make(t, sample.Options{Version: "4.8.21", Components: 3, LayerSize: 64})
	if _, err := r.AddImage("quay.io/"+trip.Repository, tag21, sample.Image{}); err != nil {
		t.Fatal(err)
	}
	media := trip.Drive(t)
	o := trip.NewOrigin(t, r)
	opts := o.Options(media, r.Reference())
	opts.Additional = []release.Reference{trip.Image(t, "quay.io/"+trip.Repository+":"+tag21)}
	opts.Destination = &objects.Destination{Registry: "registry.example.com:5000", Repository: trip.Repository}
	if _, err := bundle.Pack(t.Context(), opts); !errors.Is(err, bundle.ErrConflict) {
		t.Errorf("%v", err)
	}
	opts.Prefix = "extra"
	trip.Pack(t, opts)
	trip.Whole(t, media)
}

// A cache folder that cannot be written to is no damage of the drive.
func TestUnpackCacheUnusable(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	media := trip.Drive(t)
	trip.NewOrigin(t, r).Pack(media, r.Reference())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	site := trip.NewSite(t)
	opts := site.Options(media)
	opts.Cache = filepath.Join(file, "cache")
	_, err := apply.Unpack(t.Context(), opts)
	if err == nil || errors.Is(err, bundle.ErrDamaged) || errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%v", err)
	}
}
