package trip

import (
	"net/http"
	"strings"
	"sync"
)

// Request is a request that reached a registry.
type Request struct {
	Method, Path string
}

// Blob returns the digest of the blob that r gets, "" for every other request.
func (r Request) Blob() string {
	if _, d, ok := strings.Cut(r.Path, "/blobs/"); ok && r.Method == http.MethodGet && !strings.HasPrefix(d, "uploads/") {
		return d
	}
	return ""
}

// Manifest returns the tag or digest of the manifest that r concerns, "" for other requests.
func (r Request) Manifest() string {
	_, ref, _ := strings.Cut(r.Path, "/manifests/")
	return ref
}

// Log stands before a registry: it writes down what is asked, and may answer itself.
type Log struct {
	mu       sync.Mutex
	requests []Request
	before   func(http.ResponseWriter, *http.Request) bool
}

// Wrap is for olareg.Options.
func (l *Log) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		if r.URL.Path != "/v2/" { // whether it asks for a password is no request for content
			l.requests = append(l.requests, Request{r.Method, r.URL.Path})
		}
		before := l.before
		l.mu.Unlock()
		if before != nil && before(w, r) {
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Take returns what was asked since the last call, in order.
func (l *Log) Take() []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.requests
	l.requests = nil
	return out
}

// Before has fn see every request first; it answers itself if it returns true. Nil ends it.
func (l *Log) Before(fn func(http.ResponseWriter, *http.Request) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before = fn
}

// Blobs counts the GETs of each blob among requests.
func Blobs(requests []Request) map[string]int {
	out := map[string]int{}
	for _, r := range requests {
		if d := r.Blob(); d != "" {
			out[d]++
		}
	}
	return out
}
