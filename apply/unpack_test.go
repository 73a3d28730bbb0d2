package apply_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/bundle/remote"
)

const (
	tool = "quay.io/extra/tool"
	list = "quay.io/extra/list"
)

// cargo is a drive with releases, sigstore images, and additional images by tag and digest.
type cargo struct {
	media    string
	origin   *trip.Origin
	releases []*sample.Release
	tool     digest.Digest
	list     ocispec.Descriptor
}

func load(t *testing.T, releases ...*sample.Release) *cargo {
	t.Helper()
	c := &cargo{media: trip.Drive(t), releases: releases}
	first := releases[0]
	one, err := first.AddImage(tool, "v1", sample.Image{})
	if err != nil {
		t.Fatal(err)
	}
	c.tool = one.Digest
	if c.list, err = first.AddList(list, "latest", true, "x86_64", "s390x"); err != nil {
		t.Fatal(err)
	}
	trip.AddSigstore(t, first, first.Repository, first.Descriptor.Digest)
	trip.AddSigstore(t, first, first.ComponentRepository, first.Components[0].Digest)
	c.origin = trip.NewOrigin(t, releases...)
	var refs []string
	for _, r := range releases {
		refs = append(refs, r.Reference())
	}
	opts := c.origin.Options(c.media, refs...)
	for _, name := range []string{tool + ":v1", list + "@" + c.list.Digest.String()} {
		opts.Additional = append(opts.Additional, trip.Image(t, name))
	}
	trip.Pack(t, opts)
	return c
}

// arrived fails unless everything below desc is in the repository, byte for byte.
func arrived(t *testing.T, site *trip.Site, repository string, r *sample.Release, desc ocispec.Descriptor) {
	t.Helper()
	err := r.Walk(desc, func(d ocispec.Descriptor) error {
		want := r.Blobs[d.Digest]
		var got []byte
		var err error
		if content.IsManifest(d.MediaType) {
			var have ocispec.Descriptor
			have, got, err = site.Registry.Manifest(repository, d.Digest.String())
			if err == nil && have.MediaType != d.MediaType {
				t.Errorf("%s arrived as %s, it is %s", d.Digest, have.MediaType, d.MediaType)
			}
		} else {
			got, err = site.Registry.Blob(repository, d.Digest)
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s %s: %d bytes of %d, %v", repository, d.Digest, len(got), len(want), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func tagged(t *testing.T, site *trip.Site, repository, tag string, want digest.Digest) {
	t.Helper()
	if got, _, err := site.Registry.Manifest(repository, tag); err != nil || got.Digest != want {
		t.Errorf("%s:%s is %s, want %s (%v)", repository, tag, got.Digest, want, err)
	}
}

func releaseArrived(t *testing.T, site *trip.Site, r *sample.Release) {
	t.Helper()
	tag := release.Tag(r.Version, r.Arch)
	tagged(t, site, trip.Repository, tag, r.Descriptor.Digest)
	arrived(t, site, trip.Repository, r, r.Descriptor)
	for _, c := range r.Components {
		tagged(t, site, trip.Repository, tag+"-"+c.Name, c.Digest)
		desc, _, err := site.Registry.Manifest(trip.Repository, c.Digest.String())
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		arrived(t, site, trip.Repository, r, desc)
	}
}

func TestUnpackEverything(t *testing.T) {
	for name, o := range map[string]sample.Options{
		"docker":    {Components: 4, SharedDigest: true},
		"multi oci": {Components: 3, Multi: true, Archs: []string{"x86_64", "s390x"}, OCI: true, Compression: "zstd"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := trip.Make(t, o)
			c := load(t, r)
			before := trip.Tree(t, c.media)
			site := trip.NewSite(t)
			res := site.Unpack(c.media)
			releaseArrived(t, site, r)
			tagged(t, site, trip.Repository, release.SigstoreTag(r.Descriptor.Digest), sigOf(r, r.Descriptor.Digest))
			tagged(t, site, trip.Repository, release.SigstoreTag(r.Components[0].Digest), sigOf(r, r.Components[0].Digest))
			tagged(t, site, "extra/tool", "v1", c.tool)
			arrived(t, site, "extra/list", r, c.list)
			if tags, err := site.Registry.Tags("extra/list"); err == nil && len(tags) > 0 {
				t.Errorf("what came by digest was tagged %v", tags)
			}
			if !maps.Equal(before, trip.Tree(t, c.media)) {
				t.Error("the drive changed")
			}
			inOrder(t, site.Log.Take(), r)
			if len(res.Releases) != 1 || !res.Releases[0].Complete || res.Releases[0].Signature.Status != bundle.SignatureVerified ||
				res.Releases[0].Image != site.Registry.Host+"/"+trip.Repository+"@"+r.Descriptor.Digest.String() {
				t.Errorf("%+v", res.Releases)
			}
			if len(res.Contacts) != 1 || res.Contacts[0].Host != site.Registry.Host || res.Contacts[0].Why != remote.WhyRegistry {
				t.Errorf("contacts: %+v", res.Contacts)
			}
			if res.Present.Blobs != 0 || res.Skipped.Blobs != 0 || res.Pushed.Blobs != int(res.Plan.Blobs.Transfer) || res.Pushed.Bytes != res.Plan.Bytes.Transfer {
				t.Errorf("planned %+v; pushed %+v, present %+v", res.Plan, res.Pushed, res.Present)
			}

			// Once more: everything is read, nothing is pushed.
			again := site.Unpack(c.media)
			for _, q := range site.Log.Take() {
				if q.Method != http.MethodHead && q.Method != http.MethodGet {
					t.Errorf("again: %v", q)
				}
			}
			if again.Pushed.Blobs != 0 || again.Present.Blobs != res.Pushed.Blobs || again.Present.Bytes != res.Pushed.Bytes || again.Plan.Blobs.Transfer != 0 {
				t.Errorf("again: %+v %+v", again.Pushed, again.Present)
			}
			opts := site.Options(c.media)
			opts.MissingOnly = true
			site.Log.Take()
			lazy, err := apply.Unpack(t.Context(), opts)
			for _, q := range site.Log.Take() {
				for _, c := range r.Components {
					if q.Method == http.MethodHead && q.Manifest() == c.Digest.String() {
						t.Errorf("%s was asked for by its digest, and by its tag", c.Name)
					}
				}
			}
			if err != nil || lazy.Skipped.Blobs != res.Pushed.Blobs || lazy.Present.Blobs+lazy.Pushed.Blobs != 0 {
				t.Errorf("missing only: %+v, %v", lazy, err)
			}
		})
	}
}

func sigOf(r *sample.Release, subject digest.Digest) digest.Digest {
	for _, p := range r.Images {
		if p.Tag == release.SigstoreTag(subject) {
			return p.Descriptor.Digest
		}
	}
	return ""
}

// trial reports whether a request puts a manifest that only asks whether its kind is taken: the
// registry does not keep it.
func trial(q trip.Request, r *sample.Release) bool {
	d := digest.Digest(q.Manifest())
	_, ours := r.Blobs[d]
	return q.Method == http.MethodPut && d.Validate() == nil && !ours
}

// inOrder fails unless blobs came before manifests, images before lists, these before tags,
// and the tag of the release last of all.
func inOrder(t *testing.T, requests []trip.Request, r *sample.Release) {
	t.Helper()
	rank := func(q trip.Request) int {
		ref := q.Manifest()
		switch {
		case strings.Contains(q.Path, "/blobs/"):
			return 1
		case ref == release.Tag(r.Version, r.Arch):
			return 5
		case !strings.HasPrefix(ref, "sha256:"):
			return 4
		case strings.Contains(string(r.Blobs[digest.Digest(ref)]), `"manifests"`):
			return 3
		}
		return 2
	}
	last, seen := 0, map[int]bool{}
	for _, q := range requests {
		if q.Method == http.MethodHead || q.Method == http.MethodGet || trial(q, r) {
			continue
		}
		n := rank(q)
		if n < last {
			t.Errorf("%v came after something that needs it or must come first", q)
		}
		last = max(last, n)
		seen[n] = true
	}
	if len(seen) != 5 {
		t.Errorf("kinds of requests seen: %v", seen)
	}
}

func TestUnpackDryRun(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	c := load(t, r)
	site := trip.NewSite(t)
	opts := site.Options(c.media)
	opts.DryRun = true
	opts.ObjectsDir = filepath.Join(t.TempDir(), "objects")
	plan, err := apply.Unpack(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range site.Log.Take() {
		if q.Method != http.MethodHead && q.Method != http.MethodGet {
			t.Errorf("dry run: %v", q)
		}
	}
	if _, err := os.Lstat(opts.ObjectsDir); err == nil {
		t.Error("the dry run wrote objects")
	}
	if plan.Pushed.Blobs+plan.Present.Blobs != 0 || len(plan.Plan.Objects) == 0 {
		t.Errorf("%+v", plan)
	}
	did := site.Unpack(c.media)
	blobs, manifests, tags := map[string]bool{}, map[string]bool{}, []string{}
	for _, q := range site.Log.Take() {
		switch ref := q.Manifest(); {
		case q.Method != http.MethodPut || trial(q, r):
		case ref == "":
			blobs[q.Path] = true
		case strings.HasPrefix(ref, "sha256:"):
			manifests[ref] = true
		default: // the manifest goes with it
			tags = append(tags, ref)
			resp, err := http.Head("http://" + site.Registry.Host + q.Path)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			manifests[resp.Header.Get("Docker-Content-Digest")] = true
		}
	}
	slices.Sort(tags)
	if int64(did.Pushed.Blobs) != plan.Plan.Blobs.Transfer || did.Pushed.Bytes != plan.Plan.Bytes.Transfer || len(manifests) != plan.Plan.Manifests || !slices.Equal(tags, plan.Plan.Tags) {
		t.Errorf("planned %+v; pushed %+v, %d manifests, tags %q", plan.Plan, did.Pushed, len(manifests), tags)
	}
}

// CheckAll finds a blob that the registry lost behind a manifest that it has.
func TestUnpackCheckAll(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	c := load(t, r)
	site := trip.NewSite(t)
	site.Unpack(c.media)
	lost := layerOf(t, r, r.Components[0].Digest)
	var pushed atomic.Int64
	site.Log.Before(func(w http.ResponseWriter, q *http.Request) bool {
		if strings.HasSuffix(q.URL.Path, "/blobs/"+lost.String()) && pushed.Load() == 0 {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		if q.Method == http.MethodPost || q.Method == http.MethodPut {
			pushed.Add(1)
		}
		return false
	})
	if res := site.Unpack(c.media); res.Pushed.Blobs != 0 {
		t.Errorf("without: pushed %+v", res.Pushed)
	}
	opts := site.Options(c.media)
	opts.CheckAll, opts.MissingOnly = true, true
	res, err := apply.Unpack(t.Context(), opts)
	if err != nil || res.Pushed.Blobs != 1 || pushed.Load() == 0 || res.Plan.Blobs.Transfer != 1 {
		t.Errorf("check all: %+v, %v", res.Pushed, err)
	}
}

// layerOf is a layer that only the image d of r has.
func layerOf(t *testing.T, r *sample.Release, d digest.Digest) digest.Digest {
	t.Helper()
	owners := map[digest.Digest]int{}
	var own []digest.Digest
	for _, p := range r.Images {
		err := r.Walk(p.Descriptor, func(x ocispec.Descriptor) error {
			if p.Descriptor.Digest == d && !content.IsManifest(x.MediaType) && x.MediaType != content.MediaTypeDockerConfig {
				own = append(own, x.Digest)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[digest.Digest]bool{}
		r.Walk(p.Descriptor, func(x ocispec.Descriptor) error {
			if !seen[x.Digest] && p.Descriptor.Digest != d {
				owners[x.Digest]++
			}
			seen[x.Digest] = true
			return nil
		})
	}
	for _, x := range own {
		if owners[x] == 0 {
			return x
		}
	}
	t.Fatalf("%s has no layer of its own", d)
	return ""
}

// A bad blob is not pushed, nor anything that names it; everything else is.
func TestUnpackBadBlob(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 4})
	c := load(t, r)
	comp := r.Components[2]
	layer := layerOf(t, r, comp.Digest)
	raw, err := os.ReadFile(trip.Blob(c.media, layer))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		bad    digest.Digest
		damage func(string) error
		err    error
	}{
		"flip":         {layer, func(p string) error { b := bytes.Clone(raw); b[len(b)-1] ^= 1; return os.WriteFile(p, b, 0o644) }, content.ErrDigest},
		"cut":          {layer, func(p string) error { return os.Truncate(p, 3) }, bundle.ErrDamaged},
		"gone":         {layer, os.Remove, bundle.ErrDamaged},
		"bad manifest": {comp.Digest, func(p string) error { trip.Flip(t, p, 5); return nil }, content.ErrDigest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, c.media)
			if err := tc.damage(trip.Blob(media, tc.bad)); err != nil {
				t.Fatal(err)
			}
			site := trip.NewSite(t)
			opts := site.Options(media)
			opts.ObjectsDir = filepath.Join(t.TempDir(), "objects")
			res, err := apply.Unpack(t.Context(), opts)
			if !errors.Is(err, tc.err) {
				t.Errorf("%v", err)
			}
			tag := "4.8.21-x86_64-" + comp.Name
			if len(res.Refused) != 1 || res.Refused[0].Digest != tc.bad.String() || !slices.Equal(res.Refused[0].Images, []string{tag}) {
				t.Errorf("refused: %+v", res.Refused)
			}
			if err == nil || !strings.Contains(err.Error(), tag) || !strings.Contains(err.Error(), tc.bad.String()) {
				t.Errorf("the error names neither image nor blob: %v", err)
			}
			if site.Registry.Has(trip.Repository, tc.bad) || site.Registry.Has(trip.Repository, comp.Digest) {
				t.Error("what is bad, or names it, was pushed")
			}
			for _, absent := range []string{tag, "4.8.21-x86_64"} {
				if _, _, err := site.Registry.Manifest(trip.Repository, absent); err == nil {
					t.Errorf("%s is there", absent)
				}
			}
			for _, other := range r.Components {
				if other.Digest != comp.Digest {
					tagged(t, site, trip.Repository, "4.8.21-x86_64-"+other.Name, other.Digest)
				}
			}
			tagged(t, site, "extra/tool", "v1", c.tool)
			if len(res.Releases) != 1 || res.Releases[0].Complete {
				t.Errorf("%+v", res.Releases)
			}
			for _, o := range res.Objects {
				if o.Kind == "ConfigMap" || o.Name == objects.ReleaseName {
					t.Errorf("%s %s was rendered for a release that is not whole", o.Kind, o.Name)
				}
			}
			if _, err := os.Stat(filepath.Join(opts.ObjectsDir, "release.json")); err == nil {
				t.Error("release.json was written for a release that is not whole")
			}

			// The other drive has a good copy.
			both := trip.NewSite(t)
			res, err = apply.Unpack(t.Context(), both.Options(media, c.media))
			if err != nil || len(res.Refused) != 0 || !res.Releases[0].Complete {
				t.Errorf("with a good copy: %v %+v", err, res.Refused)
			}
			releaseArrived(t, both, r)
		})
	}
}

func TestUnpackRefusesDrives(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	c := load(t, r)
	seals, err := filepath.Glob(filepath.Join(c.media, "pannier", "seal-*.json"))
	if err != nil || len(seals) != 1 {
		t.Fatal(seals, err)
	}
	seal := filepath.Base(seals[0])
	for name, tc := range map[string]struct {
		damage func(media string)
		opts   func(*apply.UnpackOptions)
		err    error
	}{
		"no seal":    {func(m string) { os.Remove(filepath.Join(m, "pannier", seal)) }, nil, bundle.ErrUnsealed},
		"half seal":  {func(m string) { os.Truncate(filepath.Join(m, "pannier", seal), 100) }, nil, bundle.ErrUnsealed},
		"bad seal":   {func(m string) { trip.Flip(t, filepath.Join(m, "pannier", seal), 40) }, nil, bundle.ErrDamaged},
		"wrong key":  {func(string) {}, func(o *apply.UnpackOptions) { o.Signatures = trip.Verifier(t, trip.Stranger()) }, bundle.ErrSignature},
		"no key":     {func(string) {}, func(o *apply.UnpackOptions) { o.Signatures = trip.Verifier(t) }, bundle.ErrSignature},
		"no release": {func(string) {}, func(o *apply.UnpackOptions) { o.Releases = []string{"4.9.9"} }, bundle.ErrNoRelease},
		"no bundle":  {func(m string) { os.RemoveAll(m); os.Mkdir(m, 0o755) }, nil, bundle.ErrNotBundle},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, c.media)
			tc.damage(media)
			site := trip.NewSite(t)
			opts := site.Options(media)
			if tc.opts != nil {
				tc.opts(&opts)
			}
			res, err := apply.Unpack(t.Context(), opts)
			if !errors.Is(err, tc.err) {
				t.Errorf("%v", err)
			}
			for _, q := range site.Log.Take() {
				if strings.Contains(q.Path, trip.Repository) && q.Method != http.MethodHead && q.Method != http.MethodGet {
					t.Errorf("%v", q)
				}
			}
			if len(res.Releases) != 0 || len(res.ReleaseJSON) != 0 {
				t.Errorf("%+v", res.Releases)
			}
		})
	}
}

func TestUnpackWithBadIndex(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	c := load(t, r)
	found, _ := filepath.Glob(filepath.Join(c.media, "pannier", "index-*.db"))
	trip.Flip(t, found[0], 5000)
	site := trip.NewSite(t)
	res := site.Unpack(c.media)
	releaseArrived(t, site, r)
	tagged(t, site, "extra/tool", "v1", c.tool)
	if len(res.Warnings) == 0 || !strings.Contains(res.Warnings[0], "index") || !res.Releases[0].Complete || len(res.Objects) == 0 {
		t.Errorf("%q %+v", res.Warnings, res.Releases)
	}
}

func TestUnpackOneRelease(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	c := load(t, r1, r2)
	site := trip.NewSite(t)
	opts := site.Options(c.media)
	opts.Releases, opts.Prefix = []string{"4.8.22"}, "mirrored/"
	res, err := apply.Unpack(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	releaseArrived(t, site, r2)
	shared := map[digest.Digest]bool{} // the signature of a component that both releases have
	for _, p := range r1.Images {
		if p.Tag == release.SigstoreTag(r2.Components[0].Digest) {
			r1.Walk(p.Descriptor, func(d ocispec.Descriptor) error { shared[d.Digest] = true; return nil })
		}
	}
	for _, d := range r1.Digests() {
		if shared[d] {
			continue
		}
		if _, shared := r2.Blobs[d]; !shared && site.Registry.Has(trip.Repository, d) {
			t.Errorf("%s of the other release was pushed", d)
		}
	}
	tagged(t, site, "mirrored/extra/tool", "v1", c.tool)
	if site.Registry.Has("extra/tool", c.tool) {
		t.Error("the additional image went to the path without prefix too")
	}
	if !slices.Equal(res.LeftOut, []string{"4.8.21-x86_64"}) {
		t.Errorf("left out: %v", res.LeftOut)
	}
	site.Unpack(c.media)
	releaseArrived(t, site, r1)
}

func TestUnpackObjects(t *testing.T) {
	for name, tc := range map[string]struct {
		previous []string
		version  string
		want     objects.Kind
		other    objects.Kind
	}{
		"from before 4.13": {[]string{"4.12.9"}, "4.13.1", objects.ICSP, objects.IDMS},
		"new":              {[]string{"4.13.9", "4.14.0"}, "4.14.1", objects.IDMS, objects.ICSP},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := trip.Make(t, sample.Options{Version: tc.version, Previous: tc.previous, Components: 3})
			c := load(t, r)
			site := trip.NewSite(t)
			opts := site.Options(c.media)
			opts.Cluster = &objects.Destination{Registry: "registry.site.example:5000", Repository: "ocp4/openshift4"}
			opts.ObjectsDir = filepath.Join(t.TempDir(), "objects")
			res, err := apply.Unpack(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			var kinds []string
			for _, o := range res.Objects {
				kinds = append(kinds, o.Kind+" "+o.Name)
				raw, err := os.ReadFile(filepath.Join(opts.ObjectsDir, o.FileName()))
				if err != nil || !bytes.Equal(raw, o.YAML) {
					t.Errorf("%s: %v", o.FileName(), err)
				}
				if strings.Contains(string(raw), site.Registry.Host) {
					t.Errorf("%s names the registry as it was pushed to:\n%s", o.FileName(), raw)
				}
			}
			if len(kinds) != 4 || !strings.HasPrefix(kinds[0], "ConfigMap ") || kinds[1] != string(tc.want)+" "+objects.ReleaseName ||
				kinds[2] != string(tc.want)+" "+objects.AdditionalName || kinds[3] != string(objects.ITMS)+" "+objects.AdditionalName {
				t.Errorf("objects: %q", kinds)
			}
			sigs, err := objects.ParseSignatureConfigMap(res.Objects[0].YAML)
			if err != nil || len(sigs[r.Descriptor.Digest]) != 1 {
				t.Errorf("signatures: %v, %v", sigs, err)
			}
			_, _, mirrors, err := objects.ParseMirrorSet(res.Objects[1].YAML)
			if err != nil || len(mirrors) != 2 {
				t.Fatalf("mirrors: %v, %v", mirrors, err)
			}
			for _, m := range mirrors {
				if m.Source != r.Repository && m.Source != r.ComponentRepository || !slices.Equal(m.Mirrors, []string{"registry.site.example:5000/ocp4/openshift4"}) {
					t.Errorf("mirror: %+v", m)
				}
			}
			other, err := os.ReadDir(filepath.Join(opts.ObjectsDir, "alternatives"))
			if err != nil || len(other) != 2 || len(res.Alternatives) != 2 || res.Alternatives[0].Kind != string(tc.other) {
				t.Errorf("alternatives: %v %v", other, err)
			}
			raw, err := os.ReadFile(filepath.Join(opts.ObjectsDir, "release.json"))
			if err != nil || !bytes.Equal(raw, res.ReleaseJSON) {
				t.Error(err)
			}
			infos, err := objects.ParseReleaseJSON(raw)
			if err != nil || len(infos) != 1 || infos[0].Digest != r.Descriptor.Digest || infos[0].Version != tc.version ||
				infos[0].Image != "registry.site.example:5000/ocp4/openshift4@"+r.Descriptor.Digest.String() || len(infos[0].Tags) != 1+len(r.Components) {
				t.Errorf("release.json: %+v, %v", infos, err)
			}
			if !strings.Contains(string(res.InstallConfig), "registry.site.example:5000/ocp4/openshift4") {
				t.Errorf("install config: %s", res.InstallConfig)
			}

			// Without a name for the nodes a loopback registry is warned about.
			if w := strings.Join(site.Unpack(c.media).Warnings, "\n"); !strings.Contains(w, site.Registry.Host) {
				t.Errorf("warnings: %s", w)
			}
		})
	}
}

// What was rendered for another destination when the drive was packed is not what counts, and
// that is said.
func TestUnpackToAnotherDestination(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	opts := o.Options(media, "4.8.21")
	opts.Destination = &objects.Destination{Registry: "planned.example", Repository: "mirror"}
	trip.Pack(t, opts)
	site := trip.NewSite(t)
	res := site.Unpack(media)
	if w := strings.Join(res.Warnings, "\n"); !strings.Contains(w, "planned.example/mirror") {
		t.Errorf("warnings: %s", w)
	}
	for _, obj := range res.Objects {
		if strings.Contains(string(obj.YAML), "planned.example") {
			t.Errorf("%s", obj.YAML)
		}
	}
}

// A registry with immutable tags that point right already is no error.
func TestUnpackImmutableTags(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	c := load(t, r)
	site := trip.NewSite(t)
	site.Unpack(c.media)
	site.Log.Before(func(w http.ResponseWriter, q *http.Request) bool {
		if ref := (trip.Request{Path: q.URL.Path}).Manifest(); q.Method == http.MethodPut && ref != "" && !strings.HasPrefix(ref, "sha256:") {
			w.WriteHeader(http.StatusConflict)
			return true
		}
		return false
	})
	if res := site.Unpack(c.media); !res.Releases[0].Complete {
		t.Errorf("%+v", res.Releases)
	}
}

// Interrupted anywhere, the same command again ends with everything there.
func TestUnpackInterrupted(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	c := load(t, r)
	site := trip.NewSite(t)
	site.Unpack(c.media)
	n := len(site.Log.Take())
	for i := 1; i <= n; i += 3 {
		site := trip.NewSite(t)
		ctx, cancel := context.WithCancel(t.Context())
		var count atomic.Int64
		site.Log.Before(func(_ http.ResponseWriter, q *http.Request) bool {
			if count.Add(1) < int64(i) {
				return false
			}
			cancel()
			<-q.Context().Done()
			return true
		})
		_, err := apply.Unpack(ctx, site.Options(c.media))
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("request %d of %d: %v", i, n, err)
		}
		site.Log.Before(nil)
		if _, _, err := site.Registry.Manifest(trip.Repository, "4.8.21-x86_64"); err == nil && i < n-5 {
			t.Errorf("request %d of %d: the release has its tag", i, n)
		}
		if res := site.Unpack(c.media); !res.Releases[0].Complete {
			t.Errorf("request %d: %+v", i, res.Releases)
		}
		releaseArrived(t, site, r)
	}
}

// With a repository for each component everything is in the one repository all the same, from
// which nodes pull, and no blob is sent twice.
func TestRepoPerComponent(t *testing.T) {
	t.Parallel()
	r := trip.Make(t, sample.Options{Components: 4})
	origin, site := trip.NewOrigin(t, r), trip.NewSite(t)
	media := trip.Drive(t)
	origin.Pack(media, r.Reference())
	opts := site.Options(media)
	opts.RepoPerComponent = true
	res, err := apply.Unpack(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	tag := release.Tag(r.Version, r.Arch)
	for _, c := range r.Components {
		own := trip.Repository + "/" + c.Name
		desc, _, err := site.Registry.Manifest(own, tag)
		if err != nil || desc.Digest != c.Digest {
			t.Errorf("%s:%s is %s, want %s (%v)", own, tag, desc.Digest, c.Digest, err)
			continue
		}
		arrived(t, site, own, r, desc)
		if err := pulled(t, res.Objects, c.Repository, c.Digest); err != nil {
			t.Errorf("pull %s: %v", c.Name, err)
		}
		if !slices.Contains(res.Plan.Tags, c.Name+":"+tag) {
			t.Errorf("%s is not in the plan: %q", c.Name, res.Plan.Tags)
		}
	}
	releaseArrived(t, site, r)
	uploads := 0
	for _, q := range site.Log.Take() {
		if q.Method == http.MethodPut && q.Manifest() == "" {
			uploads++
		}
	}
	if int64(uploads) != res.Plan.Blobs.Total || int64(res.Pushed.Blobs) != res.Plan.Blobs.Total {
		t.Errorf("%d blobs were sent, of %d; pushed %+v", uploads, res.Plan.Blobs.Total, res.Pushed)
	}
	if len(res.Infos) != 1 || len(res.Infos[0].Tags) != 1+len(r.Components) {
		t.Errorf("release.json: %+v", res.Infos)
	}

	// Without it nothing else is at the one repository, and the same objects come of it.
	plain := site.Unpack(media)
	if len(plain.Objects) != len(res.Objects) || plain.Pushed.Blobs != 0 {
		t.Errorf("%d objects, %d; pushed %+v", len(plain.Objects), len(res.Objects), plain.Pushed)
	}
	for i := range plain.Objects {
		if string(plain.Objects[i].YAML) != string(res.Objects[i].YAML) {
			t.Errorf("object %d differs:\n%s", i, res.Objects[i].YAML)
		}
	}
	// Again: nothing is lacking.
	opts.DryRun = true
	if res, err = apply.Unpack(t.Context(), opts); err != nil || res.Plan.Blobs.Transfer != 0 {
		t.Errorf("again: %+v, %v", res.Plan, err)
	}
}
