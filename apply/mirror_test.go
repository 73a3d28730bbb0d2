package apply_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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

// pulled pulls an image by its name at the source, as a node does that has the mirror sets in
// list and reaches nothing but mirrors, and reads every byte of it.
func pulled(t *testing.T, list []objects.Object, repository string, d digest.Digest) error {
	t.Helper()
	client, err := remote.New(remote.Options{GiveUpAfter: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	last := fmt.Errorf("no mirror of %s", repository)
	for _, o := range list {
		if o.Kind == "ConfigMap" {
			continue
		}
		_, _, mirrors, err := objects.ParseMirrorSet(o.YAML)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mirrors {
			rest, ok := strings.CutPrefix(repository, m.Source)
			if !ok || rest != "" && !strings.HasPrefix(rest, "/") {
				continue
			}
			for _, to := range m.Mirrors {
				if last = pull(t.Context(), client, to+rest, d); last == nil {
					return nil
				}
			}
		}
	}
	return last
}

func pull(ctx context.Context, client *remote.Client, repository string, d digest.Digest) error {
	repo, err := client.Repository(repository)
	if err != nil {
		return err
	}
	desc, _, err := repo.Manifest(ctx, d.String())
	if err != nil {
		return err
	}
	return bundle.Walk(ctx, repo, desc,
		func(bundle.Node) error { return nil },
		func(b ocispec.Descriptor) error { return content.Verify(ctx, repo, b) },
		func(_ ocispec.Descriptor, err error) error { return err })
}

// reads counts the bytes of blobs that are asked for, but for those of what is read before a
// release's signature is judged.
func reads(requests []trip.Request, r *sample.Release) map[string]int {
	blobs := trip.Blobs(requests)
	for _, p := range r.Images {
		if p.Descriptor.Digest == r.Descriptor.Digest || strings.HasSuffix(p.Tag, ".sig") {
			r.Walk(p.Descriptor, func(d ocispec.Descriptor) error { delete(blobs, d.Digest.String()); return nil })
		}
	}
	return blobs
}

func TestMirrorEverything(t *testing.T) {
	for name, o := range map[string]sample.Options{
		"docker":    {Components: 4, SharedDigest: true},
		"multi oci": {Components: 3, Multi: true, Archs: []string{"x86_64", "s390x"}, OCI: true, Compression: "zstd"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := trip.Make(t, o)
			c := load(t, r)
			c.origin.Log.Take()
			site := trip.NewSite(t)
			from := c.origin.Mirror(r.Reference())
			for _, name := range []string{tool + ":v1", list + "@" + c.list.Digest.String()} {
				from.Additional = append(from.Additional, trip.Image(t, name))
			}
			res, err := apply.Mirror(t.Context(), from, site.Options())
			if err != nil {
				t.Fatal(err)
			}
			releaseArrived(t, site, r)
			tagged(t, site, trip.Repository, release.SigstoreTag(r.Components[0].Digest), sigOf(r, r.Components[0].Digest))
			tagged(t, site, "extra/tool", "v1", c.tool)
			arrived(t, site, "extra/list", r, c.list)
			inOrder(t, site.Log.Take(), r)
			for d, n := range reads(c.origin.Log.Take(), r) {
				if n != 1 {
					t.Errorf("%s was read %d times", d, n)
				}
			}
			if res.Pushed.Blobs != int(res.Plan.Blobs.Transfer) || res.Pushed.Bytes != res.Plan.Bytes.Transfer || res.Plan.Blobs.Present != 0 {
				t.Errorf("planned %+v; pushed %+v", res.Plan, res.Pushed)
			}
			if !slices.Contains(res.Plan.Hosts, c.origin.Registry.Host) || !slices.Contains(res.Plan.Hosts, site.Registry.Host) || len(res.Contacts) != 2 {
				t.Errorf("hosts %v, contacts %v", res.Plan.Hosts, res.Contacts)
			}
			for _, img := range append(r.Components, release.Image{Repository: r.Repository, Digest: r.Descriptor.Digest}) {
				if err := pulled(t, res.Objects, img.Repository, img.Digest); err != nil {
					t.Errorf("pull %s@%s: %v", img.Repository, img.Digest, err)
				}
			}
			site.Log.Take()

			// The drive gives the cluster the same.
			want := trip.NewSite(t).Unpack(c.media)
			for i, o := range res.Objects {
				if here := strings.ReplaceAll(string(o.YAML), site.Registry.Host, ""); i >= len(want.Objects) || here != strings.ReplaceAll(string(want.Objects[i].YAML), want.Plan.Hosts[0], "") {
					t.Errorf("object %d is\n%s", i, o.YAML)
				}
			}

			// Once more: nothing is transferred.
			again, err := apply.Mirror(t.Context(), from, site.Options())
			if err != nil {
				t.Fatal(err)
			}
			if blobs := reads(c.origin.Log.Take(), r); len(blobs) != 0 {
				t.Errorf("again: read %v", blobs)
			}
			for _, q := range site.Log.Take() {
				if q.Method != http.MethodHead && q.Manifest() == "" {
					t.Errorf("again: %v", q)
				}
				if q.Method != http.MethodHead && q.Method != http.MethodGet {
					t.Errorf("again: %v", q)
				}
			}
			if again.Pushed.Blobs != 0 || again.Skipped.Blobs != res.Pushed.Blobs || !again.Releases[0].Complete {
				t.Errorf("again: %+v", again)
			}
		})
	}
}

// What nobody trusted has signed is not read beyond the release image, and nothing is pushed.
func TestMirrorSignatureFirst(t *testing.T) {
	t.Parallel()
	r := trip.Small(t, "4.8.21")
	origin := trip.NewOrigin(t, r)
	origin.Sign(trip.Stranger(), r)
	site := trip.NewSite(t)
	_, err := apply.Mirror(t.Context(), origin.Mirror(r.Reference()), site.Options())
	if !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("%v", err)
	}
	for _, q := range origin.Log.Take() {
		if strings.Contains(q.Path, "ocp-v4.0-art-dev") && !strings.HasSuffix(q.Path, ".sig") {
			t.Errorf("asked for %v", q)
		}
	}
	if q := site.Log.Take(); len(q) > 0 {
		t.Errorf("the destination was asked: %v", q)
	}
	from := origin.Mirror(r.Reference())
	from.Policy = bundle.PolicyWarn
	res, err := apply.Mirror(t.Context(), from, site.Options())
	said := 0
	for _, w := range res.Warnings {
		if strings.Contains(w, "signature unverified") {
			said++
		}
	}
	if err != nil || said != 1 {
		t.Errorf("warn: %q, %v", res.Warnings, err)
	}
	releaseArrived(t, site, r)
}

// A wrong byte at the source is noticed as it passes: what it is in is not at the destination
// then, everything else is, and once the source is mended only that is read.
func TestMirrorWrongByte(t *testing.T) {
	t.Parallel()
	r := trip.Make(t, sample.Options{Components: 4})
	origin, site := trip.NewOrigin(t, r), trip.NewSite(t)
	comp := r.Components[2]
	layer := layerOf(t, r, comp.Digest)
	origin.Log.Before(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.HasSuffix(q.URL.Path, "/blobs/"+layer.String()) {
			return false
		}
		data := slices.Clone(r.Blobs[layer])
		data[len(data)-1] ^= 4
		w.Write(data)
		return true
	})
	res, err := apply.Mirror(t.Context(), origin.Mirror(r.Reference()), site.Options())
	if !errors.Is(err, content.ErrDigest) || len(res.Refused) != 1 || res.Refused[0].Digest != layer.String() || res.Releases[0].Complete || len(res.Objects) > 0 {
		t.Errorf("%v: %+v", err, res)
	}
	if site.Registry.Has(trip.Repository, layer) || site.Registry.Has(trip.Repository, comp.Digest) {
		t.Error("what is wrong arrived")
	}
	if !site.Registry.Has(trip.Repository, r.Components[1].Digest) {
		t.Error("what is right did not arrive")
	}
	if _, _, err := site.Registry.Manifest(trip.Repository, release.Tag(r.Version, r.Arch)); err == nil {
		t.Error("the release has its tag")
	}
	origin.Log.Before(nil)
	origin.Log.Take()
	if res, err = apply.Mirror(t.Context(), origin.Mirror(r.Reference()), site.Options()); err != nil || !res.Releases[0].Complete {
		t.Errorf("mended: %v", err)
	}
	if got := reads(origin.Log.Take(), r); len(got) != 1 || got[layer.String()] != 1 {
		t.Errorf("read again: %v", got)
	}
	releaseArrived(t, site, r)
}

// A source that stops in the middle of a blob, or breaks off, is asked for the rest, and the
// upload goes on: the destination does not notice.
func TestMirrorResumesAtSource(t *testing.T) {
	for _, how := range []string{"cut", "stall"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := trip.Make(t, sample.Options{Components: 3, LayerSize: 600 << 10, Compression: "none"})
			origin, site := trip.NewOrigin(t, r), trip.NewSite(t)
			layer := layerOf(t, r, r.Components[0].Digest)
			var mu sync.Mutex
			var ranges []string
			origin.Log.Before(func(w http.ResponseWriter, q *http.Request) bool {
				if q.Method != http.MethodGet || !strings.HasSuffix(q.URL.Path, "/blobs/"+layer.String()) {
					return false
				}
				mu.Lock()
				ranges = append(ranges, q.Header.Get("Range"))
				first := len(ranges) == 1
				mu.Unlock()
				if !first {
					return false
				}
				data := r.Blobs[layer]
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				w.Write(data[:len(data)/2])
				w.(http.Flusher).Flush()
				if how == "cut" {
					panic(http.ErrAbortHandler)
				}
				<-q.Context().Done()
				return true
			})
			from := origin.Mirror(r.Reference())
			var err error
			if from.Client, err = remote.New(remote.Options{
				Mirrors: []remote.Mirror{{From: "quay.io", To: origin.Registry.Host}}, StallAfter: time.Second, GiveUpAfter: time.Minute,
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := apply.Mirror(t.Context(), from, site.Options()); err != nil {
				t.Fatal(err)
			}
			half := fmt.Sprintf("bytes=%d-", len(r.Blobs[layer])/2)
			if len(ranges) != 2 || ranges[0] != "" || ranges[1] != half {
				t.Errorf("asked for %q, want all and then %s", ranges, half)
			}
			begun, blobs := 0, 0
			for _, q := range site.Log.Take() {
				if q.Method == http.MethodPost {
					begun++
				}
				if q.Method == http.MethodPut && q.Manifest() == "" {
					blobs++
				}
			}
			if begun != blobs+1 { // the first only asks whether it may
				t.Errorf("%d uploads were begun, for %d blobs", begun, blobs)
			}
			releaseArrived(t, site, r)
		})
	}
}

// A source that is gone for good ends it, with everything kept; nothing is said of the blobs.
func TestMirrorSourceGone(t *testing.T) {
	t.Parallel()
	r := trip.Make(t, sample.Options{Components: 6})
	origin, site := trip.NewOrigin(t, r), trip.NewSite(t)
	var mu sync.Mutex
	blobs := 0
	origin.Log.Before(func(w http.ResponseWriter, q *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if q.Method == http.MethodGet && strings.Contains(q.URL.Path, "art-dev/blobs/") {
			blobs++
		}
		if blobs > 4 {
			panic(http.ErrAbortHandler)
		}
		return false
	})
	from := origin.Mirror(r.Reference())
	var err error
	if from.Client, err = remote.New(remote.Options{
		Mirrors: []remote.Mirror{{From: "quay.io", To: origin.Registry.Host}}, GiveUpAfter: 2 * time.Second,
	}); err != nil {
		t.Fatal(err)
	}
	res, err := apply.Mirror(t.Context(), from, site.Options())
	if !errors.Is(err, remote.ErrInterrupted) || errors.Is(err, bundle.ErrDamaged) || len(res.Refused) > 0 {
		t.Errorf("%v: %+v", err, res.Refused)
	}
	had := map[string]bool{}
	for _, d := range r.Digests() {
		had[d.String()] = site.Registry.Has(trip.Repository, d)
	}
	origin.Log.Before(nil)
	origin.Log.Take()
	if _, err = apply.Mirror(t.Context(), origin.Mirror(r.Reference()), site.Options()); err != nil {
		t.Fatal(err)
	}
	for d := range reads(origin.Log.Take(), r) {
		if had[d] {
			t.Errorf("%s was there, and was read again", d)
		}
	}
	releaseArrived(t, site, r)
}

// Where source and destination are one registry, it takes the blobs over by itself.
func TestMirrorMounts(t *testing.T) {
	t.Parallel()
	r := trip.Make(t, sample.Options{Components: 4})
	origin := trip.NewOrigin(t, r)
	site := trip.NewSite(t)
	site.Registry, site.Log = origin.Registry, origin.Log
	origin.Log.Take()
	res, err := apply.Mirror(t.Context(), origin.Mirror(r.Reference()), site.Options())
	if err != nil {
		t.Fatal(err)
	}
	requests := origin.Log.Take()
	if blobs := reads(requests, r); len(blobs) != 0 {
		t.Errorf("read %v", blobs)
	}
	if res.Mounted.Blobs != int(res.Plan.Blobs.Transfer) || res.Mounted.Bytes != res.Plan.Bytes.Transfer || res.Pushed.Blobs != 0 {
		t.Errorf("planned %+v; mounted %+v, pushed %+v", res.Plan.Blobs, res.Mounted, res.Pushed)
	}
	releaseArrived(t, site, r)
}

// Each side gets its own password and not the other's.
func TestMirrorCredentials(t *testing.T) {
	t.Parallel()
	r := trip.Small(t, "4.8.21")
	origin, site := trip.NewOrigin(t, r), trip.NewSite(t)
	wants := func(log *trip.Log, name, password string, other string) {
		log.Before(func(w http.ResponseWriter, q *http.Request) bool {
			raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(q.Header.Get("Authorization"), "Basic "))
			if strings.Contains(string(raw), other) {
				t.Errorf("%s was given %s", name, raw)
			}
			if string(raw) == "user:"+password {
				return false
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
	}
	wants(origin.Log, "the source", "of-source", "of-target")
	wants(site.Log, "the destination", "of-target", "of-source")
	auth := func(password string) string { return base64.StdEncoding.EncodeToString([]byte("user:" + password)) }
	secret := fmt.Appendf(nil, `{"auths":{%q:{"auth":%q},%q:{"auth":%q}}}`, origin.Registry.Host, auth("of-source"), site.Registry.Host, auth("of-target"))
	from, opts := origin.Mirror(r.Reference()), site.Options()
	var err error
	if from.Client, err = remote.New(remote.Options{AuthData: secret, Mirrors: []remote.Mirror{{From: "quay.io", To: origin.Registry.Host}}}); err != nil {
		t.Fatal(err)
	}
	if opts.Client, err = remote.New(remote.Options{AuthData: secret}); err != nil {
		t.Fatal(err)
	}
	if _, err := apply.Mirror(t.Context(), from, opts); err != nil {
		t.Fatal(err)
	}
	releaseArrived(t, site, r)
}

// A dry run asks both sides and changes neither.
func TestMirrorDryRun(t *testing.T) {
	t.Parallel()
	r := trip.Small(t, "4.8.21")
	origin, site := trip.NewOrigin(t, r), trip.NewSite(t)
	opts := site.Options()
	opts.DryRun = true
	res, err := apply.Mirror(t.Context(), origin.Mirror(r.Reference()), opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range site.Log.Take() {
		if q.Method != http.MethodHead && q.Method != http.MethodGet {
			t.Errorf("dry run: %v", q)
		}
	}
	if blobs := reads(origin.Log.Take(), r); len(blobs) != 0 || len(res.Plan.Objects) == 0 || res.Plan.Blobs.Transfer == 0 {
		t.Errorf("read %v, planned %+v", blobs, res.Plan)
	}
}
