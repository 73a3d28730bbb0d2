package serve_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/serve"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release/sample"
)

// source is a sample release, with faults.
type source struct {
	*sample.Release
	opened atomic.Int64             // how often a layer was opened
	fail   atomic.Pointer[error]    // of every reading, if set
	hold   atomic.Pointer[chan int] // readings wait until it is closed, if set
}

func (s *source) Stat(d digest.Digest) (int64, error) {
	if l, ok := s.Large[d]; ok {
		return l.Size(), nil
	}
	return int64(len(s.Blobs[d])), nil
}

func (s *source) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	s.opened.Add(1)
	if hold := s.hold.Load(); hold != nil {
		select {
		case <-*hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := s.fail.Load(); err != nil {
		return nil, *err
	}
	return s.Release.Fetch(ctx, desc, offset)
}

// serveSample serves one image with a large layer, and returns the layer's address.
func serveSample(t *testing.T, change ...func(*serve.Options)) (*source, *serve.Handler, string) {
	t.Helper()
	r, err := sample.Make(sample.Options{Components: 2, LargeLayer: 3 << 20})
	if err != nil {
		t.Fatal(err)
	}
	src := &source{Release: r}
	var catalog serve.Catalog
	var layer ocispec.Descriptor
	for _, img := range r.Images {
		var nodes []bundle.Node
		var blobs []ocispec.Descriptor
		err := bundle.Walk(t.Context(), r, img.Descriptor,
			func(n bundle.Node) error { nodes = append(nodes, n); return nil },
			func(d ocispec.Descriptor) error {
				if _, ok := r.Large[d.Digest]; ok {
					layer = d
				}
				blobs = append(blobs, d)
				return nil
			},
			func(_ ocispec.Descriptor, err error) error { return err })
		if err == nil {
			err = catalog.Add("a/b", img.Tag, nodes, blobs)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	opts := serve.Options{Source: src, Catalog: &catalog}
	for _, f := range change {
		f(&opts)
	}
	h := serve.New(opts)
	web := httptest.NewServer(h)
	t.Cleanup(func() { web.Close(); h.Close() })
	return src, h, web.URL + "/v2/a/b/blobs/" + layer.Digest.String()
}

func get(t *testing.T, ctx context.Context, url string) (int, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// failing has every blob right when it is proven, and damaged when it is read again.
type failing struct {
	*source
	opened, forgotten int
}

func (f *failing) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if f.opened++; f.opened%2 == 0 {
		return nil, content.ErrDigest
	}
	return f.Release.Fetch(ctx, desc, offset)
}

func (f *failing) Forget(digest.Digest) { f.forgotten++ }

// A blob that is damaged as often as it is reconstructed is given up, and the answer says why.
func TestHealedInVain(t *testing.T) {
	f := &failing{}
	var last atomic.Value
	src, _, url := serveSample(t, func(o *serve.Options) {
		o.Heal = func(ocispec.Descriptor) []serve.Healer { return []serve.Healer{f} }
		o.Pulled = func(p serve.Pull) { last.Store(fmt.Sprint(p.Err)) }
	})
	f.source = src
	damaged := fmt.Errorf("%w", content.ErrDigest)
	src.fail.Store(&damaged)
	for range 10 {
		get(t, t.Context(), url)
	}
	if f.opened != 10 || f.forgotten != 5 || !strings.Contains(last.Load().(string), "the drive is failing") {
		t.Errorf("opened %d times, forgotten %d times: %v", f.opened, f.forgotten, last.Load())
	}
}

// However many ask for a blob at once, it is read once to be proven, and once for each; and a
// client that leaves does not end that.
func TestProofIsShared(t *testing.T) {
	src, _, url := serveSample(t)
	hold := make(chan int)
	src.hold.Store(&hold)

	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { _, _, err := get(t, ctx, url); gone <- err }()
	for src.opened.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	const clients = 8
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			status, body, err := get(t, t.Context(), url)
			if err != nil || status != 200 || !strings.HasSuffix(url, digest.FromBytes(body).String()) {
				t.Errorf("%d, %d bytes, %v", status, len(body), err)
			}
		})
	}
	close(hold)
	wg.Wait()
	if n := src.opened.Load(); n != clients+1 {
		t.Errorf("opened %d times, want one for the proof and %d", n, clients)
	}
}

// That a drive cannot be read says nothing of what is on it: it is tried again.
func TestDriveUnplugged(t *testing.T) {
	src, _, url := serveSample(t)
	var unplugged error = &fs.PathError{Op: "open", Path: "/media/secret", Err: syscall.ENODEV}
	src.fail.Store(&unplugged)
	status, body, err := get(t, t.Context(), url)
	if status != 503 || err != nil || !strings.Contains(string(body), "UNAVAILABLE") || strings.Contains(string(body), "secret") {
		t.Errorf("%d %s %v", status, body, err)
	}
	src.fail.Store(nil)
	if status, _, err := get(t, t.Context(), url); status != 200 || err != nil {
		t.Errorf("%d %v", status, err)
	}
	// One that is proven is begun, and cut; the client asks again by itself where it can.
	src.fail.Store(&unplugged)
	if status, body, err := get(t, t.Context(), url); err == nil && status != 503 {
		t.Errorf("%d, %d bytes", status, len(body))
	}
}

// Closing ends what is being proven.
func TestCloseEndsProofs(t *testing.T) {
	src, h, url := serveSample(t)
	hold := make(chan int)
	src.hold.Store(&hold)
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { get(t, ctx, url); close(done) }()
	for src.opened.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	leave()
	<-done
	h.Close() // would wait for ever
}

// A service that ends lets those finish that are under way.
func TestRunEndsGracefully(t *testing.T) {
	src, h, url := serveSample(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve.Run(ctx, l, h, slog.New(slog.DiscardHandler)) }()
	hold := make(chan int)
	src.hold.Store(&hold)
	_, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	got := make(chan error, 1)
	go func() {
		status, body, err := get(t, t.Context(), "http://"+l.Addr().String()+"/"+path)
		if err == nil && (status != 200 || len(body) < 3<<20) {
			err = fmt.Errorf("status %d, %d bytes", status, len(body))
		}
		got <- err
	}()
	for src.opened.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	for { // until nobody else is let in
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			break
		}
		c.Close()
	}
	close(hold)
	if err := errors.Join(<-got, <-ended); err != nil {
		t.Error(err)
	}
}

// Whoever trusts a self-made certificate reaches the names that it was made for, and no other.
func TestSelfMadeCertificate(t *testing.T) {
	names := append(serve.Names(&net.TCPAddr{IP: net.IPv4zero}), "mirror.example")
	cert, err := serve.SelfMade(time.Now(), names...)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(serve.PEM(cert)) {
		t.Fatal("no PEM")
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{"localhost": true, "127.0.0.1": true, "mirror.example": true, "quay.io": false} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool}); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f := serve.Fingerprint(cert); len(f) != 32*3-1 || strings.ToUpper(f) != f {
		t.Error(f)
	}
	_, h, url := serveSample(t)
	web := httptest.NewUnstartedServer(h)
	web.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	web.StartTLS()
	defer web.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	resp, err := client.Get(web.URL + url[strings.Index(url, "/v2/"):])
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
}

// FuzzRequest: no path makes the handler fail, or answer with what is not in the catalog.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{"/v2/", "/v2/a/b/tags/list?n=1", "/v2/a/b/manifests/x", "/v2/a/b/blobs/sha256:" + strings.Repeat("0", 64), "/v2//manifests/", "/v2/_catalog?last=a", "/v2/a/b/referrers/sha256:x", "/../v2"} {
		f.Add(seed)
	}
	h := serve.New(serve.Options{Source: &source{Release: &sample.Release{}}, Catalog: &serve.Catalog{}})
	f.Cleanup(h.Close)
	f.Fuzz(func(t *testing.T, target string) {
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != 200 && w.Code != 404 && w.Code != 400 {
			t.Errorf("%d", w.Code)
		}
	})
}
