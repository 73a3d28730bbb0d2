package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"

	"pannier/bundle/content"
)

// tokenServer is olareg behind Bearer tokens that last for so many requests.
type tokenServer struct {
	addr, user, password string

	mu     sync.Mutex
	uses   int            // requests that a token is good for; 0 is no limit
	left   map[string]int // by token
	issued int
	scopes []string // asked for
	deny   bool
}

func newTokenServer(t *testing.T, user, password string) *tokenServer {
	ts := &tokenServer{user: user, password: password, left: map[string]int{}}
	reg := olareg.New(config.Config{Storage: config.ConfigStorage{StoreType: config.StoreMem}})
	t.Cleanup(func() { reg.Close() })
	var s *httptest.Server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			ts.token(w, r)
			return
		}
		if !ts.admit(r) {
			scope := ""
			if p := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/"); len(p) > 3 {
				scope = `,scope="repository:` + p[0] + "/" + p[1] + `:pull"`
			}
			w.Header().Set("Www-Authenticate", `Bearer realm="`+s.URL+`/token",service="test"`+scope)
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
			return
		}
		reg.ServeHTTP(w, r)
	})
	ts.addr = hostOf(s)
	return ts
}

func (ts *tokenServer) token(w http.ResponseWriter, r *http.Request) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	u, p, ok := r.BasicAuth()
	if ok && (u != ts.user || p != ts.password) || ts.deny {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"details":"incorrect username or password"}`)
		return
	}
	ts.issued++
	ts.scopes = append(ts.scopes, r.URL.Query()["scope"]...)
	tok := fmt.Sprintf("token-%d", ts.issued)
	ts.left[tok] = ts.uses
	json.NewEncoder(w).Encode(map[string]any{"token": tok, "expires_in": 60})
}

func (ts *tokenServer) admit(r *http.Request) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	tok := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	n, ok := ts.left[tok]
	if !ok || ts.uses > 0 && n == 0 {
		return false
	}
	ts.left[tok] = n - 1
	return true
}

func TestBearer(t *testing.T) {
	ts := newTokenServer(t, "me", "pa:ss")
	r := newRepo(t, Options{AuthFiles: []string{authFileFor(t, ts.addr, "me:pa:ss")}}, ts.addr+"/ocp4/openshift4")
	exercise(t, r)
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.issued > 8 {
		t.Errorf("%d tokens for a few calls: they are not kept", ts.issued)
	}
	want := map[string]bool{"repository:ocp4/openshift4:pull": true, "repository:ocp4/openshift4:pull,push": true}
	for _, s := range ts.scopes {
		delete(want, s)
	}
	if len(want) > 0 {
		t.Errorf("never asked for: %v (but for %v)", want, ts.scopes)
	}
}

func TestTokensExpire(t *testing.T) {
	for _, uses := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(uses), func(t *testing.T) {
			ts := newTokenServer(t, "me", "p")
			ts.uses = uses
			r := newRepo(t, Options{AuthFiles: []string{authFileFor(t, ts.addr, "me:p")}}, ts.addr+"/ocp4/openshift4")
			exercise(t, r)
			// In parallel, a token that somebody just got is used up by the others.
			var wg sync.WaitGroup
			for i := range 2 * uses {
				wg.Go(func() {
					b, d := randomBlob(2<<20 + i)
					if err := r.PushBlob(testContext(t), d, opens(b, d)); err != nil {
						t.Error(err)
					}
					if got, err := content.ReadAll(testContext(t), r, d, 4<<20); err != nil || !bytes.Equal(got, b) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestWrongPassword(t *testing.T) {
	ts := newTokenServer(t, "me", "right")
	r := newRepo(t, Options{AuthFiles: []string{authFileFor(t, ts.addr, "me:wrong")}}, ts.addr+"/a/b")
	start := time.Now()
	for what, err := range map[string]error{
		"resolve": second(r.Resolve(testContext(t), "x")),
		"push":    r.CheckPush(testContext(t)),
	} {
		var e *Error
		if !errors.Is(err, ErrAuth) || !errors.As(err, &e) || e.Status != 401 || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("a wrong password was tried for %s", d)
	}
}

func second[A, B any](_ A, b B) B { return b }

func TestBasic(t *testing.T) {
	tries := 0
	var mu sync.Mutex
	s := olaregServer(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, _ := r.BasicAuth(); u != "me" || p != "p" {
				mu.Lock()
				tries++
				mu.Unlock()
				w.Header().Set("Www-Authenticate", `Basic realm="x"`)
				w.WriteHeader(401)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	exercise(t, newRepo(t, Options{AuthFiles: []string{authFileFor(t, hostOf(s), "me:p")}}, hostOf(s)+"/a/b"))
	if _, err := newRepo(t, Options{}, hostOf(s)+"/a/b").Resolve(testContext(t), "x"); !errors.Is(err, ErrAuth) || !strings.Contains(err.Error(), "no auth file") {
		t.Errorf("anonymous: %v", err)
	}
	// A pull secret out of memory, as the cluster's is, is asked before any file.
	secret, err := os.ReadFile(authFileFor(t, hostOf(s), "me:p"))
	if err != nil {
		t.Fatal(err)
	}
	exercise(t, newRepo(t, Options{AuthData: secret, AuthFiles: []string{authFileFor(t, hostOf(s), "me:wrong")}}, hostOf(s)+"/c/d"))
	if _, err := New(Options{AuthData: []byte(`{"auths":`)}); err == nil || strings.Contains(err.Error(), "auths") {
		t.Errorf("malformed secret: %v", err)
	}
	mu.Lock()
	tries = 0
	mu.Unlock()
	if _, err := newRepo(t, Options{AuthFiles: []string{authFileFor(t, hostOf(s), "me:wrong")}}, hostOf(s)+"/a/b").Resolve(testContext(t), "x"); !errors.Is(err, ErrAuth) {
		t.Errorf("wrong: %v", err)
	}
	if tries > 3 { // the probe, without and with the password
		t.Errorf("a wrong password was sent in %d requests: accounts get locked", tries)
	}
}

func TestPathScopedCredentials(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		u, _, _ := r.BasicAuth()
		if u == "" {
			w.Header().Set("Www-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return
		}
		w.Header().Set("Content-Type", content.MediaTypeDockerManifest)
		fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"annotations":{"user":%q}}`, content.MediaTypeDockerManifest, u)
	})
	h := hostOf(s)
	c := newClient(t, Options{AuthFiles: []string{authFileFor(t, h, "host:p", h+"/a", "a:p", h+"/a/b", "ab:p")},
		Mirrors: []Mirror{{From: "quay.io", To: h + "/a"}, {From: "quay.io/deep/er", To: h + "/x"}}})
	for name, user := range map[string]string{h + "/x": "host", h + "/a/x": "a", h + "/a/b": "ab", h + "/a/b/c": "ab", h + "/a/bc": "a",
		"quay.io/b/c": "ab", "quay.io/c": "a", "quay.io/deep/er/y": "host", "quay.io/deep/ery": "a"} {
		r, err := c.Repository(name)
		if err != nil {
			t.Fatal(err)
		}
		_, raw, err := r.Manifest(testContext(t), "tag")
		if err != nil || !strings.Contains(string(raw), `"`+user+`"`) {
			t.Errorf("%s: %s %v, want user %s", name, raw, err, user)
		}
		if r.Name() != name {
			t.Errorf("%s is called %s", name, r.Name())
		}
	}
	r, _ := c.Repository("quay.io/deep/er/y")
	if r.Endpoint() != h+"/x/y" {
		t.Errorf("endpoint %s", r.Endpoint())
	}
}

func TestIdentityToken(t *testing.T) {
	var form string
	var s *httptest.Server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			r.ParseForm()
			form = r.Method + " " + r.Form.Get("grant_type") + " " + r.Form.Get("refresh_token")
			io.WriteString(w, `{"access_token":"good"}`)
		case r.Header.Get("Authorization") != "Bearer good" && r.URL.Path != "/v2/":
			w.Header().Set("Www-Authenticate", `Bearer realm="`+s.URL+`/token"`)
			w.WriteHeader(401)
		default:
			w.WriteHeader(404)
		}
	})
	file := write(t, "auth.json", `{"auths":{"`+hostOf(s)+`":{"auth":"`+b64("00000000-0000-0000-0000-000000000000:")+`","identitytoken":"re-fresh"}}}`)
	_, err := newRepo(t, Options{AuthFiles: []string{file}}, hostOf(s)+"/a/b").Resolve(testContext(t), "x")
	if !errors.Is(err, ErrNotFound) || form != "POST refresh_token re-fresh" {
		t.Errorf("%q, %v", form, err)
	}
}

// FuzzChallenge hands hostile WWW-Authenticate headers to what reads them.
func FuzzChallenge(f *testing.F) {
	for _, s := range []string{`Bearer realm="https://h.example/token",service="s",scope="repository:a/b:pull"`, `Basic realm="x"`, `Bearer realm="file:///etc/passwd"`,
		`bearer realm=http://h.example`, `Bearer realm="http://169.254.169.254/latest"`, `Bearer realm="\`, `Negotiate abc`, ``, `Bearer realm="https://u:p@h.example/?x=y"`, `Bearer ,,,=`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		c, err := New(Options{Confined: true, GiveUpAfter: time.Millisecond, FirstPause: 1})
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
			resp := &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {header}}, Body: http.NoBody, Request: req}
			if req.URL.Host != "registry.example" {
				resp.StatusCode = 404
				if req.Header.Get("Authorization") != "" && req.URL.User == nil {
					t.Errorf("a credential out of nothing for %s", req.URL.Host)
				}
			}
			return resp, nil
		})
		if _, err := r.Resolve(t.Context(), "tag"); err == nil {
			t.Error("resolved")
		}
	})
}

type stub func(*http.Request) (*http.Response, error)

func (s stub) RoundTrip(r *http.Request) (*http.Response, error) { return s(r) }
