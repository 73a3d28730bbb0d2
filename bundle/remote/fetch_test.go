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
	"testing"
	"time"

	"pannier/bundle/content"
)

// blobServer serves b; act may misbehave for the n-th request of the blob (from 1) and
// returns true if it has answered. The rest is served properly, with Range.
func blobServer(t *testing.T, b []byte, act func(n int, w http.ResponseWriter, r *http.Request) bool) (addr string, seen *recorder) {
	t.Helper()
	seen = &recorder{}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			w.WriteHeader(http.StatusOK)
			return
		}
		if act != nil && act(seen.add(r), w, r) {
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	})
	return hostOf(s), seen
}

// cut writes part of an answer that promises total bytes and breaks the connection.
func cut(w http.ResponseWriter, status int, header http.Header, part []byte, total int) {
	for k, v := range header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", strconv.Itoa(total))
	w.WriteHeader(status)
	w.Write(part)
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func rangeStart(r *http.Request) int {
	var n int
	fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &n)
	return n
}

func TestFetchSurvives(t *testing.T) {
	b, desc := randomBlob(1 << 20)
	size := len(b)
	partial := func(w http.ResponseWriter, from, to, total int, body []byte) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, total))
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(body)
	}
	first := func(act func(w http.ResponseWriter, r *http.Request)) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 1 {
				return false
			}
			act(w, r)
			return true
		}
	}
	status := func(code int, header ...string) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 3 {
				return false
			}
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			io.WriteString(w, "<html>busy</html>")
			return true
		}
	}
	rows := map[string]struct {
		offset   int64
		requests int // at most
		act      func(n int, w http.ResponseWriter, r *http.Request) bool
	}{
		"nothing wrong": {requests: 1},
		"cut in ten places": {requests: 11, act: func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 10 {
				return false
			}
			from := rangeStart(r)
			to := n * size / 11
			h := http.Header{"Content-Range": {fmt.Sprintf("bytes %d-%d/%d", from, size-1, size)}}
			code := http.StatusPartialContent
			if n == 1 {
				h, code = nil, http.StatusOK
			}
			cut(w, code, h, b[from:to], size-from)
			return true
		}},
		"cut before the first byte": {requests: 2, act: first(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })},
		"stall": {requests: 2, act: first(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(size))
			w.Write(b[:400000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})},
		"stall before the header": {requests: 2, act: first(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })},
		"Range ignored": {requests: 3, offset: 1000, act: func(n int, w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			if n == 1 {
				cut(w, 200, nil, b[:500000], size)
			}
			return false
		}},
		"another range": {requests: 3, offset: 1000, act: first(func(w http.ResponseWriter, r *http.Request) {
			partial(w, 2000, size-1, size, b[2000:])
		})},
		"range begins too early": {requests: 1, offset: 1000, act: first(func(w http.ResponseWriter, r *http.Request) {
			partial(w, 500, size-1, size, b[500:])
		})},
		"range without Content-Range": {requests: 2, offset: 1000, act: first(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			w.Write(b)
		})},
		"range of something else": {requests: 2, offset: 1000, act: first(func(w http.ResponseWriter, r *http.Request) {
			partial(w, 1000, size, size+1, append(b[1000:], 'x'))
		})},
		"416 for no reason": {requests: 2, offset: 1000, act: first(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(416) })},
		"Content-Length too small": {requests: 2, act: first(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "700000")
			w.Write(b[:700000])
		})},
		"Content-Length too large": {requests: 1, act: first(func(w http.ResponseWriter, r *http.Request) { cut(w, 200, nil, b, size+1000) })},
		"no Content-Length, short": {requests: 2, act: first(func(w http.ResponseWriter, r *http.Request) {
			w.Write(b[:300000])
			w.(http.Flusher).Flush()
		})},
		"408": {requests: 4, act: status(408)},
		"429": {requests: 4, act: status(429)},
		"500": {requests: 4, act: status(500)},
		"502": {requests: 4, act: status(502)},
		"503": {requests: 4, act: status(503, "Retry-After", "0")},
		"504": {requests: 4, act: status(504)},
		"520": {requests: 4, act: status(520)},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, seen := blobServer(t, b, row.act)
			r := newRepo(t, Options{StallAfter: 300 * time.Millisecond}, addr+"/a/b")
			rc, err := r.Fetch(testContext(t), desc, row.offset)
			if err != nil {
				t.Fatal(err)
			}
			defer rc.Close()
			got, err := io.ReadAll(rc)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, b[row.offset:]) {
				t.Errorf("%d bytes, not the %d that should come", len(got), size-int(row.offset))
			}
			if n := len(seen.all()); n > row.requests {
				t.Errorf("%d requests, at most %d expected", n, row.requests)
			}
		})
	}
}

func TestFetchSurplusIsDropped(t *testing.T) {
	b, desc := randomBlob(5000)
	for name, act := range map[string]func(int, http.ResponseWriter, *http.Request) bool{
		"with Content-Length": nil,
		"without end": func(_ int, w http.ResponseWriter, r *http.Request) bool {
			w.Write(b)
			for r.Context().Err() == nil {
				w.Write(b)
			}
			return true
		},
	} {
		addr, seen := blobServer(t, append(bytes.Clone(b), make([]byte, 9000)...), act)
		r := newRepo(t, Options{}, addr+"/a/b")
		if got, err := content.ReadAll(testContext(t), r, desc, 1<<20); err != nil || !bytes.Equal(got, b) || len(seen.all()) > 1 {
			t.Errorf("%s: %v after %d requests", name, err, len(seen.all()))
		}
		desc := desc
		desc.Size--
		if _, err := content.ReadAll(testContext(t), r, desc, 1<<20); !errors.Is(err, content.ErrDigest) {
			t.Errorf("%s: of another size: %v", name, err)
		}
	}
}

// drip sends b a byte at a time, for ever.
func drip(w http.ResponseWriter, r *http.Request, b []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	for i := range b {
		if r.Context().Err() != nil {
			return
		}
		w.Write(b[i : i+1])
		w.(http.Flusher).Flush()
		time.Sleep(5 * time.Millisecond)
	}
}

func TestFetchLeavesDrips(t *testing.T) {
	b, desc := randomBlob(100_000)
	addr, _ := blobServer(t, b, func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 1 {
			drip(w, r, b)
		}
		return n == 1
	})
	r := newRepo(t, Options{StallAfter: 200 * time.Millisecond}, addr+"/a/b")
	if got, err := content.ReadAll(testContext(t), r, desc, 1<<20); err != nil || !bytes.Equal(got, b) {
		t.Error(err)
	}
}

func TestFetchShorterThanItShould(t *testing.T) {
	b, desc := randomBlob(5000)
	addr, seen := blobServer(t, b[:4000], nil)
	r := newRepo(t, Options{}, addr+"/a/b")
	rc, err := r.Fetch(testContext(t), desc, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	got, err := io.ReadAll(rc)
	if len(got) != 4000 || !errors.Is(err, content.ErrSize) || !errors.Is(err, ErrRefused) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n := len(seen.all()); n > 8 {
		t.Errorf("%d requests for something that is not there", n)
	}
}

func TestFetchGivesUp(t *testing.T) {
	b, desc := randomBlob(1 << 20)
	var waits sync.Map
	opts := Options{GiveUpAfter: 400 * time.Millisecond, StallAfter: 5 * time.Second, OnWait: func(host, why string, d time.Duration) { waits.Store(host+" "+why, d) }}
	t.Run("503 for ever", func(t *testing.T) {
		addr, _ := blobServer(t, b, func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 {
				cut(w, 200, nil, b[:1000], len(b))
			}
			w.WriteHeader(503)
			return true
		})
		rc, err := newRepo(t, opts, addr+"/a/b").Fetch(testContext(t), desc, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rc)
		var e *Error
		if !errors.Is(err, ErrInterrupted) || !errors.As(err, &e) || e.Status != 503 || len(got) != 1000 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if _, ok := waits.Load(addr + " HTTP 503 Service Unavailable"); !ok {
			t.Error("nobody was told of the wait")
		}
	})
	for name, act := range map[string]func(from int, w http.ResponseWriter, r *http.Request){
		"drips": func(from int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
			w.WriteHeader(http.StatusPartialContent)
			drip(w, r, b[from:])
		},
		"a byte an answer": func(from int, w http.ResponseWriter, r *http.Request) {
			h := http.Header{"Content-Range": {fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b))}}
			cut(w, http.StatusPartialContent, h, b[from:from+1], len(b)-from)
		},
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := blobServer(t, b, func(n int, w http.ResponseWriter, r *http.Request) bool {
				act(rangeStart(r), w, r)
				return true
			})
			opts := opts
			opts.StallAfter = 100 * time.Millisecond
			rc, err := newRepo(t, opts, addr+"/a/b").Fetch(testContext(t), desc, 7)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(rc)
			if !errors.Is(err, ErrInterrupted) || len(got) == 0 || !bytes.HasPrefix(b[7:], got) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				cut(w, 200, nil, b[:1000], len(b))
			}
		})
		rc, err := newRepo(t, opts, hostOf(s)+"/a/b").Fetch(testContext(t), desc, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.Listener.Close()
		s.CloseClientConnections()
		_, err = io.ReadAll(rc)
		if !errors.Is(err, ErrInterrupted) || errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
	})
}

func TestFetchRedirectExpires(t *testing.T) {
	b, desc := randomBlob(1 << 20)
	var mu sync.Mutex
	signed := 0
	var cdnAuth []string
	cdn := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		cdnAuth = append(cdnAuth, r.Header.Get("Authorization")+r.Header.Get("Referer"))
		if r.URL.Query().Get("signature") != strconv.Itoa(signed) {
			w.WriteHeader(403)
			io.WriteString(w, `<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>`)
			return
		}
		if signed == 1 {
			signed = 2 // the address is spent
			cut(w, 200, nil, b[:600000], len(b))
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	})
	asked := 0
	reg := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return
		}
		if u, p, _ := r.BasicAuth(); u != "me" || p != "se:cret" {
			w.Header().Set("Www-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		asked++
		if signed == 0 {
			signed = 1
		}
		sig := signed
		if asked == 2 {
			sig = 1 // a registry that caches hands out the old one once more
		}
		http.Redirect(w, r, fmt.Sprintf("%s/b?signature=%d", cdn.URL, sig), http.StatusTemporaryRedirect)
	})
	addr := hostOf(reg)
	r := newRepo(t, Options{AuthFiles: []string{authFileFor(t, addr, "me:se:cret")}}, addr+"/a/b")
	got, err := content.ReadAll(testContext(t), r, desc, 2<<20)
	if err != nil || !bytes.Equal(got, b) {
		t.Fatal(err)
	}
	for _, a := range cdnAuth {
		if a != "" {
			t.Errorf("the other host was sent %q", a)
		}
	}
	want := []Contact{{Host: addr, Why: WhyRegistry}, {Host: hostOf(cdn), Why: WhyRedirect}}
	if want[0].Host > want[1].Host {
		want[0], want[1] = want[1], want[0]
	}
	if got := r.c.Contacts(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("contacts %v, want %v", got, want)
	}
}

func TestFetchCloseEndsRead(t *testing.T) {
	b, desc := randomBlob(1 << 20)
	addr, _ := blobServer(t, b, func(n int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.Write(b[:10])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	})
	rc, err := newRepo(t, Options{}, addr+"/a/b").Fetch(testContext(t), desc, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := io.ReadAll(rc); done <- err }()
	time.Sleep(50 * time.Millisecond)
	rc.Close()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) && !errors.Is(err, errClosed) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Read goes on after Close")
	}
}

func TestCancelled(t *testing.T) {
	b, desc := randomBlob(1000)
	addr, _ := blobServer(t, b, func(n int, w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := newRepo(t, Options{}, addr+"/a/b").Fetch(ctx, desc, 0)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrInterrupted) {
		t.Error(err)
	}
}
