package remote

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// Something that is no registry and answers 200 to all that it is asked has nothing, whatever
// it leaves out or makes up beside that.
func TestExistsNeedsProof(t *testing.T) {
	raw := []byte(`{"schemaVersion":2,"config":{"digest":"` + digest.FromString("c").String() + `","size":1},"layers":[]}`)
	manifest := content.Descriptor(ocispec.MediaTypeImageManifest, raw)
	blob := content.Descriptor("application/octet-stream", raw)
	other := digest.FromString("other").String()
	serveIt := func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
		if q.Method == http.MethodGet {
			w.Write(raw)
		}
	}
	for name, tc := range map[string]struct {
		answer         http.HandlerFunc
		manifest, blob bool
	}{
		"bare 200":  {func(http.ResponseWriter, *http.Request) {}, false, false},
		"some text": {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok")) }, false, false},
		"a web page": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Write([]byte("<html>"))
		}, false, false},
		"right length, wrong bytes": {func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
			if q.Method == http.MethodGet {
				w.Write([]byte(strings.Repeat("x", len(raw))))
			}
		}, false, true}, // all bytes of a blob are proven when it is pushed or pulled
		"digest of another": {func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set(digestHeader, other)
			serveIt(w, q)
		}, false, false},
		"right digest, wrong length": {func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set(digestHeader, manifest.Digest.String())
			w.Header().Set("Content-Length", "7")
			if q.Method == http.MethodGet {
				w.Write([]byte("1234567"))
			}
		}, false, false},
		"digest not told": {serveIt, true, true},
		"a registry": {func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set(digestHeader, manifest.Digest.String())
			serveIt(w, q)
		}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, q *http.Request) {
				if q.URL.Path != "/v2/" {
					tc.answer(w, q)
				}
			})
			r := newRepo(t, Options{}, hostOf(s)+"/a/b")
			if ok, err := r.Exists(testContext(t), manifest); ok != tc.manifest || ok && err != nil {
				t.Errorf("manifest: %v, %v", ok, err)
			}
			if ok, err := r.Exists(testContext(t), blob); ok != tc.blob || ok && err != nil {
				t.Errorf("blob: %v, %v", ok, err)
			}
		})
	}
}
