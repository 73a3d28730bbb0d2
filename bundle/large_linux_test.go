//go:build faults

package bundle_test

import (
	"crypto/sha256"
	"encoding/json"
	"io"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/trip"
	"pannier/bundle/layout/baddrive"
	"pannier/verify"
)

// emptiness is a source of nothing else.
type emptiness struct{}

func (emptiness) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// A blob of 40 GB is packed, read back, given parity and audited in no more memory than a small
// one. It is of zeros, which the drive keeps in none.
func TestFortyGigabytes(t *testing.T) {
	const size, repository = 40_000_000_000, "quay.io/sample/large"
	began := time.Now()
	lap := func(what string) {
		t.Logf("%s: %.1f s", what, time.Since(began).Seconds())
		began = time.Now()
	}
	r := trip.Small(t, "4.8.21")
	blob := io.NewSectionReader(emptiness{}, 0, size)
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(emptiness{}, 0, size)); err != nil {
		t.Fatal(err)
	}
	lap("hash of the blob, by itself")
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.NewDigest(digest.SHA256, h), Size: size}
	r.Large[layer.Digest] = blob
	config := []byte("{}")
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}
	m.SchemaVersion = 2
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r.AddManifest(repository, "v1", m.MediaType, raw, config)

	o := trip.NewOrigin(t, r)
	drive := baddrive.New(t, baddrive.Options{})
	media := drive.Plug()
	kib := packKiB(t, o, media, repository+":v1")
	lap("pack")
	t.Logf("%d KiB at most", kib)
	if kib > 150_000_000/1024 {
		t.Errorf("%d KiB were held", kib)
	}
	for _, f := range trip.Audit(t, media).Findings {
		if f.Kind != verify.KindUntrusted { // the child knows no key
			t.Errorf("audit: %+v", f)
		}
	}
	lap("audit")
}
