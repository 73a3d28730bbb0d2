//go:build e2e && linux

package e2e_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// front stands before a distribution and behaves like quay.io: blobs are not served but
// redirected, by addresses that expire, to a host that stores them and that refuses requests
// bearing somebody else's Authorization.
type front struct {
	host  string // what the client calls the registry
	store string // host that holds the blobs
	slow  time.Duration
	cut   int // so many blob bodies are cut in the middle

	mu        sync.Mutex
	signed    map[string]string // nonce -> blob
	redirects int
	served    int
	ranges    int // requests that continued in the middle
	cuts      int
	refused   int      // 401 that ended a token's life
	forwarded []string // Authorization that arrived at the store: must stay empty
	root      string
	overdue   int // requests for an address that was used up
	perBlob   map[string]int
}

var blobPath = regexp.MustCompile(`^/v2/.+/blobs/sha256:([0-9a-f]{64})$`)

// startFront redirects blobs of d to a listener on another loopback address.
func startFront(t *testing.T, d *distribution, slow time.Duration, cut int) *front {
	t.Helper()
	f := &front{slow: slow, cut: cut, signed: map[string]string{}, perBlob: map[string]int{}, root: d.root}

	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	store := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(f.serveBlob), ErrorLog: log.New(io.Discard, "", 0)}}
	store.Start()
	t.Cleanup(store.Close)
	f.store = ln.Addr().String()

	upstream := &url.URL{Scheme: "http", Host: d.host}
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(upstream); r.Out.Host = r.In.Host },
		ErrorLog: log.New(io.Discard, "", 0), // clients that hang up are part of the play
		ModifyResponse: func(resp *http.Response) error {
			f.observe(resp)
			return nil
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m := blobPath.FindStringSubmatch(r.URL.Path); m != nil && r.Method == http.MethodGet && f.allowed(d.host, r) {
			time.Sleep(f.slow)
			http.Redirect(w, r, "http://"+f.store+"/"+m[1]+"?signature="+f.sign(m[1]), http.StatusTemporaryRedirect)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f.host = strings.TrimPrefix(server.URL, "http://")
	return f
}

// observe counts the requests that were refused although they bore a token: it had expired.
func (f *front) observe(resp *http.Response) {
	if resp.StatusCode == http.StatusUnauthorized && strings.HasPrefix(resp.Request.Header.Get("Authorization"), "Bearer ") {
		f.mu.Lock()
		f.refused++
		f.mu.Unlock()
	}
}

// allowed asks the registry itself whether the client may have the blob.
func (f *front) allowed(host string, r *http.Request) bool {
	head, err := http.NewRequestWithContext(r.Context(), http.MethodHead, "http://"+host+r.URL.Path, nil)
	if err != nil {
		return false
	}
	head.Header.Set("Authorization", r.Header.Get("Authorization"))
	resp, err := http.DefaultTransport.RoundTrip(head)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (f *front) sign(blob string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.redirects++
	nonce := fmt.Sprint(f.redirects)
	f.signed[nonce] = blob
	return nonce
}

// serveBlob is the store: http.ServeContent, so ranges work, but for the addresses that
// expired and the connections that break.
func (f *front) serveBlob(w http.ResponseWriter, r *http.Request) {
	blob, nonce := strings.TrimPrefix(r.URL.Path, "/"), r.URL.Query().Get("signature")
	f.mu.Lock()
	if a := r.Header.Get("Authorization"); a != "" {
		f.forwarded = append(f.forwarded, strings.Fields(a)[0]+" …")
		f.mu.Unlock()
		http.Error(w, "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>", http.StatusBadRequest)
		return
	}
	if f.signed[nonce] != blob {
		f.overdue++
		f.mu.Unlock()
		http.Error(w, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", http.StatusForbidden)
		return
	}
	if r.Header.Get("Range") != "" {
		f.ranges++
	}
	f.served++
	f.perBlob[blob]++
	f.mu.Unlock()

	file, err := os.Open(filepath.Join(f.root, "docker/registry/v2/blobs/sha256", blob[:2], blob, "data"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if info.Size() > cutAbove && f.takeCut(nonce) {
		w.Header().Set("Content-Length", fmt.Sprint(info.Size()))
		io.CopyN(w, file, info.Size()/2)
		http.NewResponseController(w).Flush()
		time.Sleep(50 * time.Millisecond) // what was sent shall arrive
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, r, "", time.Time{}, file)
}

// cutAbove is the size of blobs that is worth cutting: more than one buffer of the client.
const cutAbove = 600 << 10

// takeCut says whether this body is to be cut; the address it came by is then used up, as
// happens on a slow line: only the registry gives a new one.
func (f *front) takeCut(nonce string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cuts >= f.cut {
		return false
	}
	f.cuts++
	delete(f.signed, nonce)
	return true
}

// count is how many blobs the store served.
func (f *front) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.served
}
