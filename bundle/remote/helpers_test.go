package remote

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// hurry shortens a client's pauses.
func hurry(c *Client) *Client {
	c.opts.FirstPause = 5 * time.Millisecond
	c.opts.LongestPause = 50 * time.Millisecond
	return c
}

func newClient(t *testing.T, opts Options) *Client {
	t.Helper()
	c, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.verified.CloseIdleConnections()
		c.unverified.CloseIdleConnections()
	})
	return hurry(c)
}

func newRepo(t *testing.T, opts Options, name string) *Repository {
	t.Helper()
	r, err := newClient(t, opts).Repository(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// olaregServer is a registry in memory, seen through wrap.
func olaregServer(t *testing.T, wrap func(http.Handler) http.Handler) *httptest.Server {
	t.Helper()
	yes := true
	reg := olareg.New(config.Config{Storage: config.ConfigStorage{StoreType: config.StoreMem}, API: config.ConfigAPI{DeleteEnabled: &yes}})
	var h http.Handler = reg
	if wrap != nil {
		h = wrap(reg)
	}
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		reg.Close()
	})
	return s
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func hostOf(s *httptest.Server) string {
	_, h, _ := strings.Cut(s.URL, "://")
	return h
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// randomBlob is size bytes that are the same for the same size.
func randomBlob(size int) ([]byte, ocispec.Descriptor) {
	b := make([]byte, size)
	src := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)})
	src.Read(b)
	return b, descOf("application/octet-stream", b)
}

func descOf(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// opens returns an opener of b through a verifying reader.
func opens(b []byte, desc ocispec.Descriptor) func(context.Context, int64) (io.ReadCloser, error) {
	return func(context.Context, int64) (io.ReadCloser, error) {
		r, err := content.NewReader(bytes.NewReader(b), desc)
		return io.NopCloser(r), err
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// recorder keeps the requests that a handler saw.
type recorder struct {
	mu   sync.Mutex
	reqs []*http.Request
}

func (r *recorder) add(req *http.Request) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reqs = append(r.reqs, req)
	return len(r.reqs)
}

func (r *recorder) all() []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*http.Request(nil), r.reqs...)
}

// image pushes a small image and returns the descriptor of its manifest, and its layer.
func pushImage(t *testing.T, r *Repository, tag string) (manifest ocispec.Descriptor, raw []byte, layer []byte) {
	t.Helper()
	ctx := testContext(t)
	conf := []byte(`{"architecture":"amd64","os":"linux"}`)
	cd := descOf(content.MediaTypeDockerConfig, conf)
	layer, ld := randomBlob(100000)
	ld.MediaType = content.MediaTypeDockerLayer
	for _, b := range []struct {
		b []byte
		d ocispec.Descriptor
	}{{conf, cd}, {layer, ld}} {
		if err := r.PushBlob(ctx, b.d, opens(b.b, b.d)); err != nil {
			t.Fatal(err)
		}
	}
	raw = []byte(`{"schemaVersion":2,"mediaType":"` + content.MediaTypeDockerManifest + `","config":{"mediaType":"` + cd.MediaType +
		`","digest":"` + cd.Digest.String() + `","size":37},"layers":[{"mediaType":"` + ld.MediaType + `","digest":"` + ld.Digest.String() + `","size":100000}]}`)
	manifest = descOf(content.MediaTypeDockerManifest, raw)
	if err := r.PushManifest(ctx, manifest, raw, tag); err != nil {
		t.Fatal(err)
	}
	return manifest, raw, layer
}
