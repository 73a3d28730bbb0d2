package apply_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply"
	"pannier/apply/serve"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release/sample"
)

const (
	releaseRepo   = "openshift-release-dev/ocp-release"
	componentRepo = "openshift-release-dev/ocp-v4.0-art-dev"
)

// service is a drive that is being served.
type service struct {
	tb    testing.TB
	base  string
	ready *apply.ServeResult

	stop context.CancelFunc
	done chan error

	mu    sync.Mutex
	pulls []serve.Pull
}

// serveDrive serves media until the test is over, or stopped.
func serveDrive(tb testing.TB, media string, change func(*apply.ServeOptions)) *service {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(tb.Context())
	s := &service{tb: tb, base: "http://" + l.Addr().String(), stop: stop, done: make(chan error, 1)}
	ready := make(chan *apply.ServeResult, 1)
	opts := apply.ServeOptions{
		Media: media, Signatures: trip.Verifier(tb, trip.Key()), Listener: l, Cache: tb.TempDir(),
		Ready: func(r *apply.ServeResult) { ready <- r },
		Pulled: func(p serve.Pull) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.pulls = append(s.pulls, p)
		},
	}
	if change != nil {
		change(&opts)
	}
	go func() {
		_, err := apply.Serve(ctx, opts)
		s.done <- err
	}()
	tb.Cleanup(func() { s.end() })
	select {
	case s.ready = <-ready:
	case err := <-s.done:
		s.done <- err
	}
	return s
}

// end stops the service and returns what came of it.
func (s *service) end() error {
	s.stop()
	err := <-s.done
	s.done <- err
	return err
}

type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // of reading the body
}

func (s *service) ask(method, path string, headers ...string) answer {
	s.tb.Helper()
	req, err := http.NewRequest(method, s.base+path, nil)
	if err != nil {
		s.tb.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{err: err} // cut before the head
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	a.body, a.err = io.ReadAll(resp.Body)
	return a
}

// wants fails unless the answer is a whole one of this status.
func (a answer) wants(tb testing.TB, status int) answer {
	tb.Helper()
	if a.err != nil || a.status != status {
		tb.Fatalf("status %d (%v) %s, want %d", a.status, a.err, a.body, status)
	}
	return a
}

// wantsError fails unless the answer is an error of the distribution-spec.
func (a answer) wantsError(tb testing.TB, status int, code string) {
	tb.Helper()
	a.wants(tb, status)
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(a.body, &doc); err != nil || len(doc.Errors) != 1 || doc.Errors[0].Code != code || doc.Errors[0].Message == "" {
		tb.Errorf("%s: want the error code %s", a.body, code)
	}
}

// layerFile returns the largest layer of a component, and where it lies.
func layerFile(tb testing.TB, media string, r *sample.Release, name string) (ocispec.Descriptor, string) {
	tb.Helper()
	for _, c := range r.Components {
		if c.Name != name {
			continue
		}
		m, err := content.ParseManifest(content.MediaTypeDockerManifest, r.Blobs[c.Digest])
		if err != nil {
			tb.Fatal(err)
		}
		d := slices.MaxFunc(m.Layers, func(a, b ocispec.Descriptor) int { return int(a.Size - b.Size) })
		return d, trip.Blob(media, d.Digest)
	}
	tb.Fatalf("no component %s", name)
	return ocispec.Descriptor{}, ""
}

// Everything of a release can be pulled under its original names and under one of the user's
// choice, byte for byte; the drive stays as it was.
func TestServe(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	trip.AddSigstore(t, r, r.Repository, r.Descriptor.Digest)
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	o.Pack(media, "4.8.21")
	before := trip.Tree(t, media)
	s := serveDrive(t, media, func(o *apply.ServeOptions) { o.Repository = trip.Repository })

	if a := s.ask("GET", "/v2/").wants(t, 200); a.header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Error(a.header)
	}
	for _, img := range r.Images {
		_, path, _ := strings.Cut(img.Repository, "/")
		for _, repo := range []string{path, trip.Repository} {
			d := img.Descriptor.Digest
			got := s.ask("GET", "/v2/"+repo+"/manifests/"+d.String()).wants(t, 200)
			if !bytes.Equal(got.body, r.Blobs[d]) || got.header.Get("Content-Type") != img.Descriptor.MediaType ||
				got.header.Get("Docker-Content-Digest") != d.String() || got.header.Get("Etag") != `"`+d.String()+`"` {
				t.Errorf("%s@%s: %v", repo, d, got.header)
			}
			m, err := content.ParseManifest(img.Descriptor.MediaType, got.body)
			if err != nil {
				t.Fatal(err)
			}
			for _, child := range m.Children() {
				path := "/v2/" + repo + "/blobs/" + child.Digest.String()
				if h := s.ask("HEAD", path).wants(t, 200); h.header.Get("Content-Length") != "" && len(h.body) != 0 {
					t.Error(h)
				}
				b := s.ask("GET", path).wants(t, 200)
				if digest.FromBytes(b.body) != child.Digest || b.header.Get("Content-Type") != "application/octet-stream" {
					t.Errorf("%s: %v", path, b.header)
				}
			}
		}
	}
	tags := func(repo string) string { return string(s.ask("GET", "/v2/"+repo+"/tags/list").wants(t, 200).body) }
	sig := "sha256-" + r.Descriptor.Digest.Encoded() + ".sig"
	if got := tags(releaseRepo); got != `{"name":"`+releaseRepo+`","tags":["4.8.21-x86_64","`+sig+`"]}` {
		t.Error(got)
	}
	if got := tags(componentRepo); got != `{"name":"`+componentRepo+`","tags":[]}` {
		t.Error(got)
	}
	if got := tags(trip.Repository); !strings.Contains(got, `"4.8.21-x86_64-cli"`) || !strings.Contains(got, sig) {
		t.Error(got)
	}
	if got := string(s.ask("GET", "/v2/_catalog").wants(t, 200).body); got != `{"repositories":["`+trip.Repository+`","`+releaseRepo+`","`+componentRepo+`"]}` {
		t.Error(got)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if after := trip.Tree(t, media); !equalTrees(before, after) {
		t.Error("the drive was changed")
	}
	if p := s.pulls[len(s.pulls)-1]; p.Client == "" || p.Agent == "" || p.Status != 200 || p.Path != "/v2/_catalog" {
		t.Errorf("%+v", p)
	}
}

func equalTrees(a, b map[string]trip.State) bool {
	if len(a) != len(b) {
		return false
	}
	for name, x := range a {
		if y, ok := b[name]; !ok || x != y {
			return false
		}
	}
	return true
}

// What the distribution-spec says of the details: parts, conditions, pages, referrers, errors.
func TestServeDetails(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	o.Pack(media, "4.8.21")
	s := serveDrive(t, media, func(o *apply.ServeOptions) { o.Repository = "all" })
	layer, file := layerFile(t, media, r, "cli")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blob := "/v2/" + componentRepo + "/blobs/" + layer.Digest.String()

	part := s.ask("GET", blob, "Range", "bytes=10-19").wants(t, 206)
	if !bytes.Equal(part.body, data[10:20]) || !strings.HasPrefix(part.header.Get("Content-Range"), "bytes 10-19/") {
		t.Error(part)
	}
	if rest := s.ask("GET", blob, "Range", "bytes=20-").wants(t, 206); !bytes.Equal(rest.body, data[20:]) {
		t.Error(rest)
	}
	if end := s.ask("GET", blob, "Range", "bytes=-5").wants(t, 206); !bytes.Equal(end.body, data[len(data)-5:]) {
		t.Error(end)
	}
	s.ask("GET", blob, "Range", "bytes=999999999-").wants(t, 416)
	s.ask("GET", blob, "If-None-Match", `"`+layer.Digest.String()+`"`).wants(t, 304)

	first := s.ask("GET", "/v2/all/tags/list?n=2").wants(t, 200)
	if got := string(first.body); got != `{"name":"all","tags":["4.8.21-x86_64","4.8.21-x86_64-cli"]}` {
		t.Error(got)
	}
	link := first.header.Get("Link")
	if link != `</v2/all/tags/list?last=4.8.21-x86_64-cli&n=2>; rel="next"` {
		t.Fatal(link)
	}
	next, _, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	last := s.ask("GET", next).wants(t, 200)
	if got := string(last.body); got != `{"name":"all","tags":["4.8.21-x86_64-cluster-version-operator","4.8.21-x86_64-etcd"]}` || last.header.Get("Link") != "" {
		t.Error(got, last.header)
	}
	if got := string(s.ask("GET", "/v2/all/tags/list?n=0").wants(t, 200).body); got != `{"name":"all","tags":[]}` {
		t.Error(got)
	}
	if got := string(s.ask("GET", "/v2/all/tags/list?last=4.8.21-x86_64-d").wants(t, 200).body); got != `{"name":"all","tags":["4.8.21-x86_64-etcd"]}` {
		t.Error(got)
	}
	s.ask("GET", "/v2/all/tags/list?n=x").wantsError(t, 400, "PAGINATION_NUMBER_INVALID")

	// What was captured with the release refers to its image.
	path := "/v2/" + releaseRepo + "/referrers/" + r.Descriptor.Digest.String()
	ref := s.ask("GET", path).wants(t, 200)
	var idx ocispec.Index
	if err := json.Unmarshal(ref.body, &idx); err != nil || len(idx.Manifests) != 1 || idx.Manifests[0].ArtifactType != bundle.ArtifactRelease {
		t.Fatalf("%s", ref.body)
	}
	s.ask("GET", "/v2/"+releaseRepo+"/manifests/"+idx.Manifests[0].Digest.String()).wants(t, 200)
	if got := s.ask("GET", path+"?artifactType=x").wants(t, 200); got.header.Get("Oci-Filters-Applied") != "artifactType" || !bytes.Contains(got.body, []byte(`"manifests":[]`)) {
		t.Errorf("%v %s", got.header, got.body)
	}
	s.ask("GET", "/v2/"+releaseRepo+"/referrers/sha256:xx").wantsError(t, 400, "DIGEST_INVALID")

	other := digest.FromString("other").String()
	s.ask("GET", "/v2/nobody/tags/list").wantsError(t, 404, "NAME_UNKNOWN")
	s.ask("GET", "/v2/all/manifests/4.8.22-x86_64").wantsError(t, 404, "MANIFEST_UNKNOWN")
	s.ask("GET", "/v2/all/manifests/"+other).wantsError(t, 404, "MANIFEST_UNKNOWN")
	s.ask("GET", "/v2/all/blobs/"+other).wantsError(t, 404, "BLOB_UNKNOWN")
	s.ask("GET", "/v2/all/blobs/latest").wantsError(t, 400, "DIGEST_INVALID")
	s.ask("GET", "/v2/all/blobs/sha256:..%2F..%2Findex.json").wants(t, 404)
	s.ask("GET", "/v2/all/../../etc/passwd").wants(t, 404)
	s.ask("GET", "/").wants(t, 404)
	// A blob of one repository is not in another.
	s.ask("GET", "/v2/"+releaseRepo+"/blobs/"+layer.Digest.String()).wantsError(t, 404, "BLOB_UNKNOWN")
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		a := s.ask(method, "/v2/all/blobs/uploads/")
		a.wantsError(t, 405, "UNSUPPORTED")
		if a.header.Get("Allow") != "GET, HEAD" {
			t.Error(a.header)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.pulls, func(p serve.Pull) bool { return p.Status == 206 })
	if p := s.pulls[i]; p.Bytes != 10 || p.Digest != layer.Digest || p.Repository != componentRepo || p.Err != nil {
		t.Errorf("%+v", p)
	}
}

// A blob is proven before its first byte leaves, whole or in part; what is damaged later is
// found although nothing tells of it; and that is what comes of it in the end.
func TestServeDamaged(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 3, LayerSize: 1 << 10, LargeLayer: 5 << 20})
	o := trip.NewOrigin(t, r)
	whole := trip.Drive(t)
	o.Pack(whole, "4.8.21")
	large, _ := layerFile(t, whole, r, "cli")
	blob := "/v2/" + componentRepo + "/blobs/" + large.Digest.String()
	small, _ := layerFile(t, whole, r, "etcd")
	other := "/v2/" + componentRepo + "/blobs/" + small.Digest.String()

	refused := func(s *service, t *testing.T, wanted error) {
		t.Helper()
		s.ask("GET", blob).wantsError(t, 500, "UNKNOWN")
		s.ask("GET", blob, "Range", "bytes=0-9").wantsError(t, 500, "UNKNOWN")
		s.ask("HEAD", blob).wants(t, 500)
		s.ask("GET", other).wants(t, 200)
		if err := s.end(); !errors.Is(err, bundle.ErrDamaged) || !errors.Is(err, wanted) || !strings.Contains(err.Error(), large.Digest.String()) {
			t.Error(err)
		}
	}
	t.Run("before", func(t *testing.T) {
		media := trip.Copy(t, whole)
		trip.Flip(t, trip.Blob(media, large.Digest), large.Size-1)
		refused(serveDrive(t, media, nil), t, content.ErrDigest)
	})
	t.Run("cut since", func(t *testing.T) {
		media := trip.Copy(t, whole)
		s := serveDrive(t, media, nil)
		if err := os.Truncate(trip.Blob(media, large.Digest), large.Size-1); err != nil {
			t.Fatal(err)
		}
		refused(s, t, content.ErrSize)
	})
	t.Run("after", func(t *testing.T) {
		media := trip.Copy(t, whole)
		file := trip.Blob(media, large.Digest)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := serveDrive(t, media, nil)
		s.ask("GET", blob).wants(t, 200)
		at := int64(3<<20 + 7)
		fi, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		trip.Flip(t, file, at)
		if err := os.Chtimes(file, fi.ModTime(), fi.ModTime()); err != nil {
			t.Fatal(err)
		}
		// What is not damaged goes out still; of what is, not one byte.
		if got := s.ask("GET", blob, "Range", "bytes=0-99").wants(t, 206); !bytes.Equal(got.body, data[:100]) {
			t.Error("other bytes")
		}
		got := s.ask("GET", blob)
		if got.err == nil || int64(len(got.body)) > at || !bytes.Equal(got.body, data[:len(got.body)]) {
			t.Errorf("%d bytes, %v", len(got.body), got.err)
		}
		refused(s, t, content.ErrDigest)
	})
	t.Run("missing", func(t *testing.T) {
		media := trip.Copy(t, whole)
		if err := os.Remove(trip.Blob(media, large.Digest)); err != nil {
			t.Fatal(err)
		}
		s := serveDrive(t, media, func(o *apply.ServeOptions) { o.Repository = "all" })
		if rel := s.ready.Releases[0]; rel.Complete || len(s.ready.Refused) != 1 {
			t.Errorf("%+v", s.ready)
		}
		s.ask("GET", "/v2/all/manifests/4.8.21-x86_64-cli").wantsError(t, 404, "MANIFEST_UNKNOWN")
		s.ask("GET", "/v2/all/manifests/4.8.21-x86_64-etcd").wants(t, 200)
		if err := s.end(); !errors.Is(err, bundle.ErrDamaged) {
			t.Error(err)
		}
	})
}

// A blob that is missing is no fault where parity brings it back. Where it cannot, because more of
// its group is gone than it heals, its images are left out from the beginning.
func TestServeBeyondParity(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 3, LayerSize: 1 << 10, LargeLayer: 3 << 20})
	o := trip.NewOrigin(t, r)
	opts := o.Options(trip.Drive(t), r.Reference())
	opts.Parity = 500
	trip.Pack(t, opts)
	large, _ := layerFile(t, opts.Media, r, "cli")
	small, _ := layerFile(t, opts.Media, r, "etcd")
	parities, err := filepath.Glob(filepath.Join(opts.Media, "pannier", "parity", "*", "slices-1.bin"))
	if err != nil || len(parities) != 1 {
		t.Fatal(parities, err)
	}
	for _, tc := range []struct {
		name string
		hurt func(media string) error
		left string // out
	}{
		{"a small one", func(m string) error { return os.Remove(trip.Blob(m, small.Digest)) }, ""},
		{"the largest", func(m string) error { return os.Remove(trip.Blob(m, large.Digest)) }, "cli"},
		{"the largest cut by one slice", func(m string) error { return os.Truncate(trip.Blob(m, large.Digest), large.Size-1) }, ""},
		{"the largest cut by two", func(m string) error { return os.Truncate(trip.Blob(m, large.Digest), 1<<20) }, "cli"},
		{"a small one and parity", func(m string) error {
			rel, err := filepath.Rel(opts.Media, parities[0])
			return errors.Join(err, os.Remove(trip.Blob(m, small.Digest)), os.Remove(filepath.Join(m, rel)))
		}, "etcd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, opts.Media)
			if err := tc.hurt(media); err != nil {
				t.Fatal(err)
			}
			s := serveDrive(t, media, func(o *apply.ServeOptions) { o.Repository = "all" })
			if rel := s.ready.Releases[0]; rel.Complete != (tc.left == "") || (len(s.ready.Refused) == 0) != (tc.left == "") {
				t.Errorf("%+v", s.ready)
			}
			for _, name := range []string{"cli", "etcd"} {
				path, status := "/v2/all/manifests/4.8.21-x86_64-"+name, 200
				if name == tc.left {
					status = 404
				}
				s.ask("GET", path).wants(t, status)
			}
			if err := s.end(); errors.Is(err, bundle.ErrDamaged) != (tc.left != "") {
				t.Error(err)
			}
		})
	}
}

// Only what is sealed and signed is served.
func TestServeUntrusted(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	next := trip.Small(t, "4.8.22")
	o := trip.NewOrigin(t, r, next)
	o.Sign(trip.Stranger(), next)
	media := trip.Drive(t)
	opts := o.Options(media, "4.8.21", "4.8.22")
	opts.Policy = bundle.PolicyWarn
	trip.Pack(t, opts)

	s := serveDrive(t, media, nil)
	s.ask("GET", "/v2/"+releaseRepo+"/manifests/4.8.21-x86_64").wants(t, 200)
	s.ask("GET", "/v2/"+releaseRepo+"/manifests/4.8.22-x86_64").wantsError(t, 404, "MANIFEST_UNKNOWN")
	s.ask("GET", "/v2/"+releaseRepo+"/manifests/"+next.Descriptor.Digest.String()).wantsError(t, 404, "MANIFEST_UNKNOWN")
	if err := s.end(); !errors.Is(err, bundle.ErrSignature) {
		t.Error(err)
	}
	s = serveDrive(t, media, func(o *apply.ServeOptions) { o.Policy = bundle.PolicyWarn })
	s.ask("GET", "/v2/"+releaseRepo+"/manifests/4.8.22-x86_64").wants(t, 200)
	if err := s.end(); err != nil || len(s.ready.Warnings) == 0 {
		t.Error(err, s.ready.Warnings)
	}
	s = serveDrive(t, media, func(o *apply.ServeOptions) { o.Releases = []string{"4.8.22"} })
	if err := s.end(); s.ready != nil || !errors.Is(err, bundle.ErrSignature) {
		t.Error(err)
	}
	s = serveDrive(t, media, func(o *apply.ServeOptions) { o.Releases = []string{"4.8.21"} })
	if err := s.end(); err != nil || len(s.ready.LeftOut) != 1 {
		t.Error(err)
	}
	seals, err := filepath.Glob(filepath.Join(media, "pannier", "seal-*"))
	if err != nil || len(seals) != 1 {
		t.Fatal(seals, err)
	}
	if err := os.Remove(seals[0]); err != nil {
		t.Fatal(err)
	}
	s = serveDrive(t, media, nil)
	if err := s.end(); s.ready != nil || !errors.Is(err, bundle.ErrUnsealed) {
		t.Error(err)
	}
}
