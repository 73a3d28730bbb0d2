package olareg_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"

	"pannier/bundle/release/sample"
	"pannier/bundle/release/sample/olareg"
)

const components = "openshift-release-dev/ocp-v4.0-art-dev"

func makeRelease(t *testing.T, o sample.Options) *sample.Release {
	t.Helper()
	r, err := sample.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestServeLargeLayers(t *testing.T) {
	r := makeRelease(t, sample.Options{Multi: true, LargeLayer: 200_000})
	reg, err := olareg.Serve(olareg.Options{}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	if len(r.Large) == 0 {
		t.Fatal("no large layer")
	}
	for d, l := range r.Large {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, reg.URL()+"/v2/"+components+"/blobs/"+d.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", "bytes=100000-")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusPartialContent || int64(len(got)) != l.Size()-100000 {
			t.Errorf("status %d, %d bytes, %v", resp.StatusCode, len(got), err)
		}
		if !reg.Has(components, d) {
			t.Errorf("%s is not there", d)
		}
	}
}

func TestServeDirReadOnlyAndTLS(t *testing.T) {
	dir := t.TempDir()
	r := makeRelease(t, sample.Options{Components: 3})
	reg, err := olareg.Serve(olareg.Options{Dir: dir}, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.Close(); err != nil {
		t.Fatal(err)
	}
	reg, err = olareg.Serve(olareg.Options{Dir: dir, ReadOnly: true, TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(reg.CA) {
		t.Fatal("no certificate")
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	do := func(method, path string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, reg.URL()+path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	resp := do(http.MethodHead, "/v2/openshift-release-dev/ocp-release/manifests/4.8.21-x86_64")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Docker-Content-Digest") != r.Descriptor.Digest.String() {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	if resp := do(http.MethodPost, "/v2/a/b/blobs/uploads/"); resp.StatusCode < 400 {
		t.Errorf("a read-only registry answers %s to a push", resp.Status)
	}
	for _, c := range r.Components {
		if !reg.Has(components, c.Digest) {
			t.Errorf("%s is not there", c.Name)
		}
	}
}
