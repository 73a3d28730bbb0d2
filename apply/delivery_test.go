package apply_test

import (
	"errors"
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
	"pannier/bundle/layout"
	"pannier/bundle/objects"
)

// deliver are the options that read from for the site, without the site.
func deliver(site *trip.Site, from string) apply.DeliveryOptions {
	o := site.Options(from)
	return apply.DeliveryOptions{From: from, Destination: o.Destination, Signatures: o.Signatures, Cache: o.Cache}
}

func texts(all []objects.Object) []string {
	var out []string
	for _, o := range all {
		out = append(out, o.Kind+" "+o.Name+"\n"+string(o.YAML))
	}
	return out
}

// What apply reads from a drive, and from the folder that unpack wrote of it, is what unpack
// rendered.
func TestDeliveryIsWhatUnpackRendered(t *testing.T) {
	one, two := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	c := load(t, one, two)
	site := trip.NewSite(t)
	opts := site.Options(c.media)
	opts.ObjectsDir = filepath.Join(t.TempDir(), "objects")
	want, err := apply.Unpack(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{c.media, opts.ObjectsDir} {
		d, err := apply.ReadDelivery(t.Context(), deliver(site, from))
		if err != nil {
			t.Fatal(err)
		}
		got, rendered := texts(d.Objects), texts(want.Objects)
		slices.Sort(got)
		slices.Sort(rendered)
		if !slices.Equal(got, rendered) {
			t.Errorf("%s: %v\nunpack rendered %v", from, got, rendered)
		}
		if raw, err := objects.ReleaseJSON(d.Releases...); err != nil || string(raw) != string(want.ReleaseJSON) {
			t.Errorf("%s: %s\nunpack wrote %s", from, raw, want.ReleaseJSON)
		}
		if d.Media != (from == c.media) || len(d.Alternatives) != len(want.Alternatives) {
			t.Errorf("%s: media %v, %d alternatives", from, d.Media, len(d.Alternatives))
		}
		var several *apply.SeveralError
		if _, err := d.Candidate(); !errors.As(err, &several) || len(several.Releases) != 2 {
			t.Errorf("%s: %v", from, err)
		}

		chosen := deliver(site, from)
		chosen.Releases = []string{"4.8.22"}
		d, err = apply.ReadDelivery(t.Context(), chosen)
		if err != nil {
			t.Fatal(err)
		}
		maps := 0
		for _, o := range d.Objects {
			if o.Kind == "ConfigMap" {
				maps++
			}
		}
		if r, err := d.Candidate(); err != nil || r.Version != "4.8.22" || maps != 1 || !slices.Equal(d.LeftOut, []string{"4.8.21-x86_64"}) {
			t.Errorf("%s: %+v, %v, %d ConfigMaps, left out %v", from, r, err, maps, d.LeftOut)
		}
		chosen.Releases = []string{"4.9.1"}
		if _, err := apply.ReadDelivery(t.Context(), chosen); !errors.Is(err, bundle.ErrNoRelease) {
			t.Errorf("%s: %v", from, err)
		}
	}

	// Chosen otherwise, the earlier form does not stay beside the new one.
	opts.MirrorSet = objects.IDMS
	if want.Objects[len(want.Objects)-1].Kind == string(objects.IDMS) {
		opts.MirrorSet = objects.ICSP
	}
	if _, err := apply.Unpack(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	d, err := apply.ReadDelivery(t.Context(), deliver(site, opts.ObjectsDir))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, o := range d.Objects {
		if o.Kind != string(objects.ITMS) && names[o.Name] {
			t.Errorf("%s stands there in two forms", o.Name)
		}
		names[o.Name] = true
	}
}

// A folder that cannot be what unpack wrote for this registry is refused.
func TestDeliveryFolderRefused(t *testing.T) {
	c := load(t, trip.Small(t, "4.8.21"))
	site := trip.NewSite(t)
	for name, tc := range map[string]struct {
		spoil func(dir string, o *apply.DeliveryOptions) error
		want  error
	}{
		"for another registry": {func(_ string, o *apply.DeliveryOptions) error {
			o.Cluster = &objects.Destination{Registry: "other.example", Repository: "a/b"}
			return nil
		}, apply.ErrElsewhere},
		"release.json cut": {func(dir string, _ *apply.DeliveryOptions) error {
			return os.Truncate(filepath.Join(dir, "release.json"), 20)
		}, objects.ErrInvalid},
		"no object": {func(dir string, _ *apply.DeliveryOptions) error {
			return os.WriteFile(filepath.Join(dir, "x.yaml"), []byte("a: b\n"), 0o644)
		}, objects.ErrInvalid},
		"a link": {func(dir string, _ *apply.DeliveryOptions) error {
			return os.Symlink("/etc/hostname", filepath.Join(dir, "x.yaml"))
		}, layout.ErrUnsafe},
		"a ConfigMap that holds no signature": {func(dir string, _ *apply.DeliveryOptions) error {
			return os.WriteFile(filepath.Join(dir, "x.yaml"), []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"), 0o644)
		}, objects.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			opts := site.Options(c.media)
			opts.ObjectsDir = filepath.Join(t.TempDir(), "objects")
			if _, err := apply.Unpack(t.Context(), opts); err != nil {
				t.Fatal(err)
			}
			o := deliver(site, opts.ObjectsDir)
			if err := tc.spoil(opts.ObjectsDir, &o); err != nil {
				t.Fatal(err)
			}
			if _, err := apply.ReadDelivery(t.Context(), o); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

// Whatever one thing a registry has lost, it is found and named; asking writes nothing.
func TestArrived(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	c := load(t, r)
	site := trip.NewSite(t)
	res := site.Unpack(c.media)
	site.Log.Take()
	opts := site.Options(c.media)
	ask := apply.ArrivedOptions{Client: opts.Client, Destination: opts.Destination, Release: res.Infos[0]}
	if err := apply.Arrived(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	for _, q := range site.Log.Take() {
		if q.Method != http.MethodGet && q.Method != http.MethodHead {
			t.Errorf("%s %s", q.Method, q.Path)
		}
	}
	parts := map[string]bool{}
	for _, d := range append([]digest.Digest{r.Descriptor.Digest}, r.Components[0].Digest, r.Components[1].Digest, r.Components[2].Digest) {
		desc, _, err := site.Registry.Manifest(trip.Repository, d.String())
		if err == nil {
			err = r.Walk(desc, func(part ocispec.Descriptor) error { parts[part.Digest.String()] = true; return nil })
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(parts) < 10 {
		t.Fatalf("a release of %d parts proves little", len(parts))
	}
	for lost := range parts {
		site.Log.Before(func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.HasSuffix(req.URL.Path, lost) {
				return false
			}
			http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}`, http.StatusNotFound)
			return true
		})
		err := apply.Arrived(t.Context(), ask)
		if !errors.Is(err, apply.ErrNotArrived) || !strings.Contains(err.Error(), lost) && !strings.Contains(err.Error(), r.Descriptor.Digest.String()) {
			t.Errorf("%s is lost: %v", lost, err)
		}
	}
	site.Log.Before(nil)

	for name, change := range map[string]func(*objects.ReleaseInfo){
		"version":  func(i *objects.ReleaseInfo) { i.Version = "4.8.99" },
		"arch":     func(i *objects.ReleaseInfo) { i.Arch = "s390x" },
		"previous": func(i *objects.ReleaseInfo) { i.Previous = []string{"4.7.1"} },
		"sources":  func(i *objects.ReleaseInfo) { i.Sources = i.Sources[:0] },
	} {
		lied := ask
		change(&lied.Release)
		if err := apply.Arrived(t.Context(), lied); !errors.Is(err, objects.ErrInvalid) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// A registry that forgets what it has just accepted is found out before anything goes on.
func TestUnpackConfirms(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	c := load(t, r)
	site := trip.NewSite(t)
	opts := site.Options(c.media)
	opts.Confirm = true
	if _, err := apply.Unpack(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	var lost string
	for _, d := range r.Digests() {
		if len(r.Blobs[d]) > len(r.Blobs[r.Descriptor.Digest]) {
			lost = d.String()
		}
	}
	pushed := false
	opts = site.Options(c.media)
	opts.Confirm = true
	opts.Planned = func(*apply.UnpackResult) { pushed = true }
	site.Log.Before(func(w http.ResponseWriter, req *http.Request) bool {
		if !pushed || req.Method != http.MethodHead || !strings.HasSuffix(req.URL.Path, lost) {
			return false
		}
		http.Error(w, "", http.StatusNotFound)
		return true
	})
	if _, err := apply.Unpack(t.Context(), opts); !errors.Is(err, apply.ErrNotArrived) || !strings.Contains(err.Error(), lost) {
		t.Errorf("%v", err)
	}
	opts.OneRelease = true
	if _, err := apply.Unpack(t.Context(), opts); errors.As(err, new(*apply.SeveralError)) {
		t.Errorf("one release is one: %v", err)
	}
}
