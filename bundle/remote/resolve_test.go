package remote

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

func TestManifestIsJudged(t *testing.T) {
	const dm = content.MediaTypeDockerManifest
	body := `{"schemaVersion":2,"mediaType":"` + dm + `"}`
	right := digest.FromString(body)
	other := digest.FromString("other")
	for name, row := range map[string]struct {
		ref, ct, body string
		told          digest.Digest
		want          error
		mediaType     string
	}{
		"tag":                          {"t", dm, body, right, nil, dm},
		"tag, digest not told":         {"t", dm, body, "", nil, dm},
		"tag, another digest told":     {"t", dm, body, other, content.ErrDigest, ""},
		"tag, sha512 told":             {"t", dm, body, digest.SHA512.FromString(body), nil, dm},
		"digest":                       {right.String(), dm, body, "", nil, dm},
		"digest, wrong body":           {right.String(), dm, body + " ", right, content.ErrDigest, ""},
		"type with parameter":          {"t", dm + "; charset=utf-8", body, right, nil, dm},
		"vague type":                   {"t", "application/json", body, right, nil, dm},
		"type differs from the body's": {"t", ocispec.MediaTypeImageManifest, body, right, content.ErrInvalid, ""},
		"unknown type":                 {"t", "application/vnd.example+json", body, right, content.ErrInvalid, ""},
		"no type of its own":           {"t", ocispec.MediaTypeImageIndex, `{"schemaVersion":2}`, "", nil, ocispec.MediaTypeImageIndex},
		"schema 1":                     {"t", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1}`, "", content.ErrInvalid, ""},
		"schema 1 as something else":   {"t", dm, `{"schemaVersion":1}`, "", content.ErrInvalid, ""},
		"web page":                     {"t", "text/html; charset=utf-8", "<html>login</html>", "", ErrNotRegistry, ""},
		"web page without type":        {"t", "application/json", " \n<!DOCTYPE html>", "", ErrNotRegistry, ""},
		"not JSON":                     {"t", dm, "hello", "", content.ErrInvalid, ""},
		"too large":                    {"t", dm, strings.Repeat(" ", content.MaxManifest+1), "", ErrRefused, ""},
		"bad reference":                {"a/../b", dm, body, "", nil, "-"},
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", row.ct)
			if row.told != "" {
				w.Header().Set(digestHeader, row.told.String())
			}
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			io.WriteString(w, row.body)
		})
		r := newRepo(t, Options{}, hostOf(s)+"/a/b")
		desc, raw, err := r.Manifest(testContext(t), row.ref)
		viaHead, herr := r.Resolve(testContext(t), row.ref)
		switch {
		case row.mediaType == "-":
			if err == nil {
				t.Errorf("%s: taken", name)
			}
		case row.want != nil:
			if !errors.Is(err, row.want) || !errors.Is(herr, row.want) || !errors.Is(err, ErrRefused) {
				t.Errorf("%s: %v, %v", name, err, herr)
			}
		case err != nil || string(raw) != row.body || desc.MediaType != row.mediaType || desc.Digest != digest.FromString(row.body) || viaHead.Digest != desc.Digest:
			t.Errorf("%s: %+v %v, %+v %v", name, desc, err, viaHead, herr)
		}
	}
}

func TestWebPages(t *testing.T) {
	for _, status := range []int{200, 404, 400, 403} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			io.WriteString(w, "<html><body>Welcome to nginx!</body></html>")
		})
		r := newRepo(t, Options{}, hostOf(s)+"/a/b")
		_, desc := randomBlob(10)
		for what, err := range map[string]error{
			"resolve":  second(r.Resolve(testContext(t), "x")),
			"manifest": third(r.Manifest(testContext(t), "x")),
			"fetch":    second(r.Fetch(testContext(t), desc, 0)),
			"tags":     second(r.Tags(testContext(t))),
		} {
			want := ErrNotRegistry
			if status == 403 {
				want = ErrAuth
			}
			if !errors.Is(err, want) || strings.Contains(err.Error(), "<html>") {
				t.Errorf("%d, %s: %v", status, what, err)
			}
		}
	}
}

func third[A, B, C any](_ A, _ B, c C) C { return c }

func TestExistsBehindSignedAddresses(t *testing.T) {
	b, desc := randomBlob(500)
	cdn := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(403) // signed for GET
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(b)))
	})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			http.Redirect(w, r, cdn.URL, http.StatusTemporaryRedirect)
		}
	})
	r := newRepo(t, Options{}, hostOf(s)+"/a/b")
	if ok, err := r.Exists(testContext(t), desc); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	desc.Size++
	if ok, err := r.Exists(testContext(t), desc); ok || err != nil {
		t.Errorf("of another size: %v, %v", ok, err)
	}
}

func TestTagPages(t *testing.T) {
	var endless bool
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch last := r.URL.Query().Get("last"); {
		case endless:
			w.Header().Set("Link", `<`+r.URL.String()+`>; rel="next"`)
			io.WriteString(w, `{"tags":["a"]}`)
		case last == "":
			w.Header().Set("Link", `</v2/evil/place/tags/list?last=b&n=2>; rel="next"`)
			io.WriteString(w, `{"tags":["a","b","not a tag\u001b"]}`)
		case r.URL.Path != "/v2/a/b/tags/list":
			t.Errorf("asked %s", r.URL.Path)
		default:
			io.WriteString(w, `{"name":"x","tags":["c"]}`)
		}
	})
	r := newRepo(t, Options{}, hostOf(s)+"/a/b")
	if tags, err := r.Tags(testContext(t)); err != nil || fmt.Sprint(tags) != "[a b c]" {
		t.Errorf("%v, %v", tags, err)
	}
	endless = true
	if _, err := r.Tags(testContext(t)); !errors.Is(err, ErrRefused) {
		t.Errorf("a list without end: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-3": 0, "x": 0, "Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2025 03:05:05 GMT": 0, "99999999999999": 0,
	} {
		if got := retryAfter(v, now); got != want {
			t.Errorf("%q: %s, want %s", v, got, want)
		}
	}
	n := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		if n++; n == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
			return
		}
		w.WriteHeader(404)
	})
	start := time.Now()
	_, err := newRepo(t, Options{}, hostOf(s)+"/a/b").Resolve(testContext(t), "x")
	if d := time.Since(start); !errors.Is(err, ErrNotFound) || d < 900*time.Millisecond {
		t.Errorf("after %s: %v", d, err)
	}
}

func TestLimiter(t *testing.T) {
	var l limiter
	for range 8 {
		l.acquire(t.Context())
	}
	for range 8 {
		l.tooMany(0)
	}
	if l.limit != 4 {
		t.Errorf("limit %d after 429 with 8 under way", l.limit)
	}
	if l.tooMany(1); l.limit != 2 {
		t.Errorf("limit %d after 429 again", l.limit)
	}
	for range 8 {
		l.release()
	}
	for range 4000 {
		l.fine()
	}
	if l.limit != 0 {
		t.Errorf("limit %d after long peace", l.limit)
	}
}

func FuzzErrorBody(f *testing.F) {
	f.Add("application/json", []byte(`{"errors":[{"code":"DENIED","message":"no\u001b[31m","detail":{"a":1}}]}`))
	f.Add("text/html", []byte("<html>"))
	f.Add("", []byte(`{"errors":[{"code":5}]}`))
	f.Add("", []byte(`{"details":"x","error":"https://u:p@h/?sig=1"}`))
	f.Fuzz(func(t *testing.T, ct string, body []byte) {
		code, message := parseErrorBody(ct, body)
		for _, s := range []string{code, message} {
			if len(s) > maxMessage || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
				t.Errorf("%q", s)
			}
		}
	})
}
