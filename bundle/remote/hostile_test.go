package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

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

// TestBearerStaysAtItsHost lets a registry, its token server and its uploads name a subdomain,
// to which Go would hand the Authorization header, and another host.
func TestBearerStaysAtItsHost(t *testing.T) {
	b, desc := randomBlob(1000)
	for _, to := range []string{"cdn01.quay.test", "quay.test:8080", "other.test"} {
		var leaked []string
		other := serve(t, func(w http.ResponseWriter, r *http.Request) {
			for _, k := range []string{"Authorization", "Cookie", "Referer"} {
				if v := r.Header.Get(k); v != "" && r.URL.Path != "/odd" {
					leaked = append(leaked, r.Method+" "+r.URL.Path+" "+k+" "+v)
				}
			}
			switch {
			case r.URL.Path == "/token":
				io.WriteString(w, `{"token":"elsewhere"}`)
			case r.Method == http.MethodPut:
				io.Copy(io.Discard, r.Body)
				w.WriteHeader(http.StatusCreated)
			default:
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
			}
		})
		moveToken := false
		reg := serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/v2/":
			case r.URL.Path == "/token" && moveToken:
				http.Redirect(w, r, "http://"+to+"/token", http.StatusTemporaryRedirect)
			case r.URL.Path == "/token":
				io.WriteString(w, `{"token":"hush"}`)
			case r.Header.Get("Authorization") != "Bearer hush":
				w.Header().Set("Www-Authenticate", `Bearer realm="http://quay.test/token"`)
				w.WriteHeader(401)
			case r.Method == http.MethodPost:
				w.Header().Set("Location", "http://"+to+"/upload")
				w.WriteHeader(http.StatusAccepted)
			default:
				http.Redirect(w, r, "http://"+to+"/blob", http.StatusFound)
			}
		})
		p := newProxy(t, map[string]string{"quay.test": hostOf(reg), to: hostOf(other)})
		opts := Options{Insecure: true, Proxy: p.use(), AuthFiles: []string{authFileFor(t, "quay.test", "me:p")}}
		r := newRepo(t, opts, "quay.test/a/b")
		if got, err := content.ReadAll(testContext(t), r, desc, 10000); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: %v", to, err)
		}
		if err := r.PushBlob(testContext(t), desc, opens(b, desc)); err != nil {
			t.Errorf("%s: push: %v", to, err)
		}
		moveToken = true
		if _, err := newRepo(t, opts, "quay.test/a/b").Resolve(testContext(t), "tag"); !errors.Is(err, ErrAuth) && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: the token server is moved: %v", to, err)
		}
		if len(leaked) > 0 {
			t.Errorf("%s: leaked %q", to, leaked)
		}
	}
}

// TestHostileAnswers bounds what a registry can make us read, wait for or believe.
func TestHostileAnswers(t *testing.T) {
	flood := func(w http.ResponseWriter, r *http.Request) {
		for n := 0; n < 1<<30 && r.Context().Err() == nil; n += 1 << 16 {
			w.Write(make([]byte, 1<<16))
		}
	}
	var s *httptest.Server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		repo, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
		switch {
		case r.URL.Path == "/v2/":
		case r.URL.Path == "/token/odd":
			io.WriteString(w, `{"token":"a\r\nX-Evil: 1"}`)
		case strings.HasPrefix(r.URL.Path, "/token/"):
			io.WriteString(w, `{"token":"`)
			flood(w, r)
		case repo == "odd" || repo == "long":
			w.Header().Set("Www-Authenticate", `Bearer realm="`+s.URL+`/token/`+repo+`"`)
			w.WriteHeader(401)
		case repo == "year":
			w.Header().Set("Retry-After", "31536000")
			w.WriteHeader(503)
		case repo == "error":
			w.WriteHeader(400)
			flood(w, r)
		case repo == "tags":
			w.Header().Set("Link", fmt.Sprintf(`</v2/tags/a/tags/list?last=%d>; rel="next"`, time.Now().UnixNano()))
			io.WriteString(w, `{"tags":["a"]}`)
		case repo == "page":
			flood(w, r)
		case repo == "header":
			for n := range 1000 {
				w.Header().Set(fmt.Sprintf("X-%d", n), strings.Repeat("x", 1000))
			}
		}
	})
	for repo, want := range map[string]error{"odd": ErrAuth, "long": ErrAuth, "year": ErrInterrupted, "error": ErrRefused,
		"tags": ErrRefused, "page": ErrRefused, "header": ErrInterrupted} {
		t.Run(repo, func(t *testing.T) {
			t.Parallel()
			r := newRepo(t, Options{GiveUpAfter: 300 * time.Millisecond, StallAfter: 5 * time.Second}, hostOf(s)+"/"+repo+"/a")
			if _, err := r.Tags(testContext(t)); !errors.Is(err, want) || len(err.Error()) > 1000 {
				t.Errorf("%v", err)
			}
		})
	}
}
