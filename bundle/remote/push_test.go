package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pannier/bundle/content"
)

// meddle puts act in front of olareg; act returns true if it has answered.
func meddle(act func(n int, w http.ResponseWriter, r *http.Request) bool) (func(http.Handler) http.Handler, *recorder) {
	seen := &recorder{}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" && act(seen.add(r), w, r) {
				return
			}
			next.ServeHTTP(w, r)
		})
	}, seen
}

// counted wraps an opener and tells when a reader is used after PushBlob returned.
type counted struct {
	opened, open atomic.Int32
	over         atomic.Bool
}

func (c *counted) wrap(t *testing.T, open func(context.Context, int64) (io.ReadCloser, error)) func(context.Context, int64) (io.ReadCloser, error) {
	return func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		rc, err := open(ctx, offset)
		if err != nil {
			return nil, err
		}
		c.opened.Add(1)
		c.open.Add(1)
		return &countedReader{t, c, rc}, nil
	}
}

type countedReader struct {
	t *testing.T
	c *counted
	io.ReadCloser
}

func (r *countedReader) Read(p []byte) (int, error) {
	if r.c.over.Load() {
		r.t.Error("read after PushBlob returned")
	}
	return r.ReadCloser.Read(p)
}

func (r *countedReader) Close() error {
	r.c.open.Add(-1)
	return r.ReadCloser.Close()
}

func TestPushSurvives(t *testing.T) {
	put := func(r *http.Request) bool { return r.Method == http.MethodPut }
	patch := func(r *http.Request) bool { return r.Method == http.MethodPatch }
	times := func(k int, match func(*http.Request) bool, do func(w http.ResponseWriter, r *http.Request)) func(int, http.ResponseWriter, *http.Request) bool {
		var n atomic.Int32
		return func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if !match(r) || n.Add(1) > int32(k) {
				return false
			}
			do(w, r)
			return true
		}
	}
	status := func(code int) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
	}
	big := func(limit int64) func(int, http.ResponseWriter, *http.Request) bool {
		return func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if r.ContentLength > limit {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				io.WriteString(w, "<html>413</html>")
				return true
			}
			return false
		}
	}
	either := func(a, b func(int, http.ResponseWriter, *http.Request) bool) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, r *http.Request) bool { return a(n, w, r) || b(n, w, r) }
	}
	for name, act := range map[string]func(int, http.ResponseWriter, *http.Request) bool{
		"503 on the first three requests": times(3, func(*http.Request) bool { return true }, status(503)),
		"429 on POST":                     times(2, func(r *http.Request) bool { return r.Method == http.MethodPost }, status(429)),
		"500 on PUT, early":               times(2, put, status(500)),
		"cut in the middle of PUT": times(1, put, func(w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 700000)
			panic(http.ErrAbortHandler)
		}),
		"cut in the middle of every PUT": times(1000, func(r *http.Request) bool { return put(r) && r.ContentLength > 0 }, func(w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 700000)
			panic(http.ErrAbortHandler)
		}),
		"stall in PUT": times(1, put, func(w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 1000)
			time.Sleep(2 * time.Second) // a server that does not read does not notice that we leave
			panic(http.ErrAbortHandler)
		}),
		"upload unknown": times(2, put, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(404)
			io.WriteString(w, `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}`)
		}),
		"413 above 1 MB":         big(1 << 20),
		"413 above 300 kB":       big(300 << 10),
		"411":                    times(1000, func(r *http.Request) bool { return put(r) && r.ContentLength > 0 }, status(411)),
		"413, then 503 on PATCH": either(big(1<<20), times(3, patch, status(503))),
		"413, then cuts in PATCH": either(big(1<<20), times(3, patch, func(w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		})),
		"413, then 503 on the ending PUT": either(big(1<<20), times(2, func(r *http.Request) bool { return put(r) && r.ContentLength == 0 }, status(503))),
		"417":                             times(1, put, status(417)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrap, _ := meddle(act)
			s := olaregServer(t, wrap)
			r := newRepo(t, Options{StallAfter: 500 * time.Millisecond, GiveUpAfter: 20 * time.Second}, hostOf(s)+"/a/b")
			b, desc := randomBlob(3<<20 + 11)
			var c counted
			err := r.PushBlob(testContext(t), desc, c.wrap(t, opens(b, desc)))
			c.over.Store(true)
			if err != nil {
				t.Fatal(err)
			}
			if n := c.open.Load(); n != 0 {
				t.Errorf("%d readers left open", n)
			}
			got, err := content.ReadAll(testContext(t), r, desc, 4<<20)
			if err != nil || !bytes.Equal(got, b) {
				t.Errorf("at the registry: %v", err)
			}
		})
	}
}

// TestPushAnswerLost commits the blob and loses the answer: it is not sent again.
func TestPushAnswerLost(t *testing.T) {
	var puts atomic.Int32
	s := olaregServer(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				puts.Add(1)
				next.ServeHTTP(discardAnswer{http.Header{}}, r)
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	})
	r := newRepo(t, Options{}, hostOf(s)+"/a/b")
	b, desc := randomBlob(2 << 20)
	if err := r.PushBlob(testContext(t), desc, opens(b, desc)); err != nil || puts.Load() != 1 {
		t.Errorf("%d uploads, %v", puts.Load(), err)
	}
}

type discardAnswer struct{ h http.Header }

func (d discardAnswer) Header() http.Header         { return d.h }
func (d discardAnswer) Write(p []byte) (int, error) { return len(p), nil }
func (d discardAnswer) WriteHeader(int)             {}

// TestPushBadSourceNeverCommits uses sources that fail in every way.
func TestPushBadSourceNeverCommits(t *testing.T) {
	own := errors.New("the drive is gone")
	for _, size := range []int{1, 1000, 2<<20 + 5} {
		b, desc := randomBlob(size)
		flipped := bytes.Clone(b)
		flipped[size/2] ^= 1
		raw := func(rd io.Reader) func(context.Context, int64) (io.ReadCloser, error) {
			return func(context.Context, int64) (io.ReadCloser, error) { return io.NopCloser(rd), nil }
		}
		for name, row := range map[string]struct {
			open func(context.Context, int64) (io.ReadCloser, error)
			want error
		}{
			"flipped":       {opens(flipped, desc), content.ErrDigest},
			"short":         {opens(b[:size-1], desc), content.ErrSize},
			"long":          {opens(append(bytes.Clone(b), 0), desc), content.ErrSize},
			"short, plain":  {raw(bytes.NewReader(b[:size-1])), content.ErrSize},
			"long, plain":   {raw(bytes.NewReader(append(bytes.Clone(b), 0))), content.ErrSize},
			"fails":         {raw(io.MultiReader(bytes.NewReader(b[:size/2]), failing{own})), own},
			"fails at end":  {raw(io.MultiReader(bytes.NewReader(b), failing{own})), own},
			"does not open": {func(context.Context, int64) (io.ReadCloser, error) { return nil, own }, own},
		} {
			for _, chunked := range []bool{false, true} {
				s := olaregServer(t, nil)
				r := newRepo(t, Options{}, hostOf(s)+"/a/b")
				if chunked {
					r.host.setBodyLimit(256 << 10)
				}
				var c counted
				err := r.PushBlob(testContext(t), desc, c.wrap(t, row.open))
				if !errors.Is(err, row.want) {
					t.Errorf("%d bytes, %s: %v", size, name, err)
				}
				if n := c.opened.Load(); n > 1 || c.open.Load() != 0 {
					t.Errorf("%d bytes, %s: opened %d times, %d open", size, name, n, c.open.Load())
				}
				if ok, err := r.Exists(testContext(t), desc); ok || err != nil {
					t.Errorf("%d bytes, %s, chunked %v: committed (%v, %v)", size, name, chunked, ok, err)
				}
			}
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestPushRefusals(t *testing.T) {
	for name, row := range map[string]struct {
		status  int
		body    string
		want    error
		not     error
		message string
	}{
		"name unknown": {404, `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`, ErrRefused, ErrNotFound, "NAME_UNKNOWN"},
		"denied":       {403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`, ErrAuth, ErrRefused, "DENIED"},
		"denied, 400":  {400, `{"errors":[{"code":"DENIED"}]}`, ErrAuth, ErrRefused, "DENIED"},
		"quota":        {412, `{"errors":[{"code":"PRECONDITION","message":"will exceed the configured upper limit of \u001b[31m10 GiB"}]}`, ErrRefused, ErrAuth, "upper limit of [31m10 GiB"},
		"501":          {501, "", ErrRefused, ErrInterrupted, "501"},
		"505":          {505, "", ErrRefused, ErrInterrupted, "505"},
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(row.status)
			io.WriteString(w, row.body)
		})
		r := newRepo(t, Options{}, hostOf(s)+"/a/b")
		b, desc := randomBlob(10)
		err := r.PushBlob(testContext(t), desc, opens(b, desc))
		if !errors.Is(err, row.want) || errors.Is(err, row.not) || !strings.Contains(err.Error(), row.message) || !strings.Contains(err.Error(), hostOf(s)+"/a/b@"+desc.Digest.String()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUploadLocation follows Locations of all kinds, with their state.
func TestUploadLocation(t *testing.T) {
	for name, location := range map[string]func(host string) string{
		"absolute path":   func(string) string { return "/up/1?_state=a%2Bb" },
		"relative":        func(string) string { return "../../../../../up/1?_state=a%2Bb" },
		"absolute":        func(h string) string { return "http://" + h + "/up/1?_state=a%2Bb" },
		"of no scheme":    func(h string) string { return "//" + h + "/up/1?_state=a%2Bb" },
		"another scheme":  func(h string) string { return "https://" + h + "/up/1?_state=a%2Bb" },
		"without port":    func(h string) string { return "https://127.0.0.1/up/1?_state=a%2Bb" },
		"another machine": nil,
	} {
		b, desc := randomBlob(1000)
		var got, state, foreignAuth string
		receive := func(w http.ResponseWriter, r *http.Request) {
			raw, _ := io.ReadAll(r.Body)
			got, state = string(raw), r.URL.Query().Get("_state")+" "+r.URL.Query().Get("digest")
			w.WriteHeader(201)
		}
		other := serve(t, func(w http.ResponseWriter, r *http.Request) {
			foreignAuth = r.Header.Get("Authorization")
			receive(w, r)
		})
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" && r.Header.Get("Authorization") == "" {
				w.Header().Set("Www-Authenticate", "Basic realm=x")
				w.WriteHeader(401)
				return
			}
			switch r.Method {
			case http.MethodPost:
				w.Header().Set("Location", other.URL+"/up/1?_state=a%2Bb")
				if location != nil {
					w.Header().Set("Location", location(r.Host))
				}
				w.WriteHeader(202)
			case http.MethodPut:
				receive(w, r)
			}
		})
		r := newRepo(t, Options{AuthFiles: []string{authFileFor(t, hostOf(s), "u:p")}}, hostOf(s)+"/a/b")
		err := r.PushBlob(testContext(t), desc, opens(b, desc))
		if err != nil || got != string(b) || state != "a+b "+desc.Digest.String() || foreignAuth != "" {
			t.Errorf("%s: %v, %d bytes, state %q, Authorization elsewhere %q", name, err, len(got), state, foreignAuth)
		}
	}
}

// TestChunksResumeWhereTheRegistryIs takes half of every second chunk.
func TestChunksResumeWhereTheRegistryIs(t *testing.T) {
	b, desc := randomBlob(3 << 20)
	var mu sync.Mutex
	var have []byte
	n := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Location", "/up/"+strconv.Itoa(len(have)))
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(have)-1)))
		switch {
		case r.URL.Path == "/v2/":
		case r.Method == http.MethodPost:
			w.Header().Set("OCI-Chunk-Min-Length", strconv.Itoa(300<<10))
			w.WriteHeader(202)
		case r.Method == http.MethodGet:
			w.WriteHeader(204)
		case r.Method == http.MethodPatch:
			var from, to int
			fmt.Sscanf(r.Header.Get("Content-Range"), "%d-%d", &from, &to)
			if from != len(have) || int64(to-from+1) != r.ContentLength || r.URL.Path != "/up/"+strconv.Itoa(len(have)) {
				t.Errorf("chunk %d-%d of %d bytes at %s, the registry has %d", from, to, r.ContentLength, r.URL.Path, len(have))
				w.WriteHeader(416)
				return
			}
			if n++; n%2 == 0 {
				part := make([]byte, r.ContentLength/2)
				io.ReadFull(r.Body, part)
				have = append(have, part...)
				panic(http.ErrAbortHandler)
			}
			raw, _ := io.ReadAll(r.Body)
			have = append(have, raw...)
			w.Header().Set("Location", "/up/"+strconv.Itoa(len(have)))
			w.Header().Set("Range", fmt.Sprintf("0-%d", len(have)-1))
			w.WriteHeader(202)
		case r.Method == http.MethodPut:
			if r.ContentLength > 0 {
				w.WriteHeader(413)
				return
			}
			w.WriteHeader(201)
		default:
			w.WriteHeader(404)
		}
	})
	r := newRepo(t, Options{}, hostOf(s)+"/a/b")
	var c counted
	if err := r.PushBlob(testContext(t), desc, c.wrap(t, opens(b, desc))); err != nil || !bytes.Equal(have, b) {
		t.Errorf("%d bytes, %v", len(have), err)
	}
	if c.opened.Load() > 2 { // once in one piece, once in chunks
		t.Errorf("the source was opened %d times", c.opened.Load())
	}
}

func TestManifestOfImmutableTag(t *testing.T) {
	wrap, _ := meddle(func(n int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/fixed") && n > 12 {
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, `{"errors":[{"code":"TAG_IMMUTABLE","message":"no"}]}`)
			return true
		}
		return false
	})
	s := olaregServer(t, wrap)
	r := newRepo(t, Options{}, hostOf(s)+"/a/b")
	desc, raw, _ := pushImage(t, r, "fixed")
	for range 12 {
		r.Exists(testContext(t), desc)
	}
	if err := r.PushManifest(testContext(t), desc, raw, "fixed"); err != nil {
		t.Errorf("the tag points there already: %v", err)
	}
	other := append(bytes.Clone(raw), '\n')
	od := descOf(desc.MediaType, other)
	if err := r.PushManifest(testContext(t), od, other, "fixed"); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "TAG_IMMUTABLE") {
		t.Errorf("the tag points elsewhere: %v", err)
	}
	if err := r.PushManifest(testContext(t), od, raw, "x"); !errors.Is(err, content.ErrSize) {
		t.Errorf("other bytes than described: %v", err)
	}
}

func TestManifestRefusals(t *testing.T) {
	docker := descOf(content.MediaTypeDockerManifest, []byte("{}"))
	var status int
	var code, stored string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			w.WriteHeader(404)
			return
		}
		if stored != "" {
			w.Header().Set(digestHeader, stored)
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"errors":[{"code":%q}]}`, code)
	})
	r := newRepo(t, Options{}, hostOf(s)+"/a/b")
	status, code = 415, "MANIFEST_INVALID"
	if err := r.PushManifest(testContext(t), docker, []byte("{}"), "x"); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "docker2s2") {
		t.Error(err)
	}
	status, code, stored = 201, "", "sha256:"+strings.Repeat("0", 64)
	if err := r.PushManifest(testContext(t), docker, []byte("{}"), "x"); !errors.Is(err, content.ErrDigest) {
		t.Error(err)
	}
}

// A registry that reads a link which another client is writing says that the digest is
// wrong. That is over in a moment; one that keeps saying so is believed.
func TestManifestBesideAnotherWriter(t *testing.T) {
	desc := descOf(content.MediaTypeDockerManifest, []byte("{}"))
	for _, test := range []struct{ refusals, asked int }{{2, 3}, {100, 5}} {
		var asked atomic.Int32
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPut {
				w.WriteHeader(404)
				return
			}
			if int(asked.Add(1)) <= test.refusals {
				w.WriteHeader(400)
				io.WriteString(w, `{"errors":[{"code":"DIGEST_INVALID"}]}`)
				return
			}
			w.WriteHeader(201)
		})
		r := newRepo(t, Options{FirstPause: time.Millisecond, LongestPause: time.Millisecond}, hostOf(s)+"/a/b")
		err := r.PushManifest(testContext(t), desc, []byte("{}"), string(desc.Digest))
		if given := test.refusals > 5; given != errors.Is(err, ErrRefused) || given != (err != nil) {
			t.Errorf("refused %d times: %v", test.refusals, err)
		}
		if int(asked.Load()) != test.asked {
			t.Errorf("refused %d times: asked %d times, wanted %d", test.refusals, asked.Load(), test.asked)
		}
	}
}
