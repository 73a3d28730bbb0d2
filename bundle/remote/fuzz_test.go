package remote

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// fit reports whether a text may be printed.
func fit(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) }

// FuzzHeaders hands one hostile value to all that read headers of answers.
func FuzzHeaders(f *testing.F) {
	for _, s := range []string{
		"bytes 5-9/10", "bytes 5-9/*", "bytes 9-5/10", "0-0", "bytes=0-99", "0-999999999999999999", "7", "Fri, 02 Jan 2026 03:05:05 GMT",
		`</v2/a/b/tags/list?last=b&n=2>; rel="next"`, `<%zz>; rel=next`, "/v2/a/b/blobs/uploads/1?_state=x", "https://u:p@h.example:99/x#f",
		"//other.example/x", "file:///etc/passwd", `Bearer realm="https://a.example/t"`, "application/json; charset=utf-8", "../../x",
	} {
		f.Add(s)
	}
	c, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	r, err := c.Repository("registry.example:5000/a/b")
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, v string) {
		if first, total, ok := parseContentRange(v); ok && (first < 0 || total < -1) {
			t.Errorf("Content-Range: %d of %d", first, total)
		}
		if have, ok := parseUploadRange(v); ok && have < 0 {
			t.Errorf("Range: %d", have)
		}
		if d := retryAfter(v, now); d < 0 {
			t.Errorf("Retry-After: %s", d)
		}
		if n := chunkMinimum(http.Header{"Oci-Chunk-Min-Length": {v}}); n < 0 || n > 16*maxChunk {
			t.Errorf("chunk of %d bytes", n)
		}
		if _, realm := challenge(v); !fit(realm) {
			t.Errorf("realm %q", realm)
		}
		mediaType(http.Header{"Content-Type": {v}})
		nextPage(v)
		u, e := r.location(http.Header{"Location": {v}}, &url.URL{Scheme: "https", Host: "registry.example:5000", Path: "/v2/a/b/blobs/uploads/"})
		switch {
		case e != nil && !fit(e.Error()):
			t.Errorf("Location: %q", e.Error())
		case e == nil && (u.Scheme != "https" || u.User != nil):
			t.Errorf("Location: %s", u)
		}
	})
}

// FuzzTokenAnswer hands hostile answers of token servers to what reads them.
func FuzzTokenAnswer(f *testing.F) {
	f.Add(200, []byte(`{"token":"t"}`))
	f.Add(200, []byte(`{"access_token":"a\r\nX-Evil: 1","expires_in":-1}`))
	f.Add(200, []byte(`{"token":`))
	f.Add(200, []byte(`<html>`))
	f.Add(401, []byte(`{"errors":[{"code":"UNAUTHORIZED","message":"no\u001b[2J"}]}`))
	f.Add(503, []byte(`{"details":"x"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 || status/100 == 3 {
			return
		}
		c, err := New(Options{GiveUpAfter: time.Nanosecond, FirstPause: 1, LongestPause: 1})
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Repository("registry.example/a/b")
		if err != nil {
			t.Fatal(err)
		}
		r.session.plain.Transport = stub(func(req *http.Request) (*http.Response, error) {
			h := c.host(req.URL.Host)
			h.mu.Lock()
			h.answered = true
			h.mu.Unlock()
			resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(body))), Request: req}
			if req.URL.Host == "registry.example" {
				resp.StatusCode, resp.Body = 401, http.NoBody
				resp.Header.Set("Www-Authenticate", `Bearer realm="https://token.example/t"`)
			} else if a := req.Header.Get("Authorization"); a != "" {
				t.Errorf("the token server was sent %q", a)
			}
			return resp, nil
		})
		if _, err := r.Resolve(t.Context(), "tag"); err == nil || !fit(err.Error()) {
			t.Errorf("%v", err)
		}
	})
}
