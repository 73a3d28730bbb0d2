//go:build e2e && linux

package e2e_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/verify/signature/sign"
)

const (
	quay           = "quay.io"
	releasePath    = "openshift-release-dev/ocp-release"
	componentsPath = "openshift-release-dev/ocp-v4.0-art-dev"
	extraPath      = "extra/tool"
)

// cargo is a release that was never published, signed by a key that nobody else has, with an
// image of another kind beside it.
type cargo struct {
	*sample.Release
	tag     string // of the release in its repository
	extra   ocispec.Descriptor
	sigs    map[digest.Digest]ocispec.Descriptor // sigstore signature images by subject
	keyring string                               // file
	store   string                               // folder laid out as a signature store
}

func newCargo(t *testing.T, o sample.Options) *cargo {
	t.Helper()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cosign, err := sign.NewRSA()
	fail(err)
	pem, err := cosign.PEM()
	fail(err)
	o.ImagePolicy = sign.ImagePolicy("openshift", pem, quay+"/"+releasePath)
	if o.LargeLayer == 0 {
		o.LargeLayer = 3 << 20
	}
	r, err := sample.Make(o)
	fail(err)

	c := &cargo{Release: r, tag: release.Tag(r.Version, r.Arch), sigs: map[digest.Digest]ocispec.Descriptor{}}
	c.extra, err = r.AddList(quay+"/"+extraPath, "v1", true, "x86_64", "s390x")
	fail(err)
	subjects := map[digest.Digest]string{r.Descriptor.Digest: r.Repository, r.Components[0].Digest: r.ComponentRepository}
	for subject, repository := range subjects {
		s, err := cosign.Sign(subject, repository)
		fail(err)
		var blobs [][]byte
		for _, b := range s.Blobs() {
			blobs = append(blobs, b)
		}
		c.sigs[subject] = r.AddManifest(repository, s.Tag, s.Descriptor.MediaType, s.Manifest, blobs...)
	}

	key, err := sign.NewKey(sign.KeyOptions{})
	fail(err)
	dir := t.TempDir()
	c.keyring, c.store = filepath.Join(dir, "release-key.asc"), filepath.Join(dir, "signatures")
	write(t, c.keyring, key.Public())
	folder := filepath.Join(c.store, "sha256="+r.Descriptor.Digest.Encoded())
	fail(os.MkdirAll(folder, 0o755))
	write(t, filepath.Join(folder, "signature-1"), key.Message(sign.Payload(r.Descriptor.Digest, r.Reference()), sign.Options{}))
	return c
}

// bytes is one blob or manifest.
func (c *cargo) bytes(t *testing.T, d string) []byte {
	t.Helper()
	r, err := c.Fetch(t.Context(), ocispec.Descriptor{Digest: digest.Digest(d)}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// stock puts the cargo into a registry, by the plainest means.
func (c *cargo) stock(t *testing.T, d *distribution, login func(*http.Request, string)) {
	t.Helper()
	p := pusher{host: d.host, login: login, source: func(d string) []byte { return c.bytes(t, d) }}
	for _, i := range c.Images {
		p.image(t, strings.TrimPrefix(i.Repository, quay+"/"), i.Descriptor.Digest.String(), i.Descriptor.MediaType, i.Tag)
	}
}
