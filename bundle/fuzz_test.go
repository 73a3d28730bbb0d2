package bundle_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
)

func FuzzParseSeal(f *testing.F) {
	files := map[string]any{}
	for _, name := range []string{"index.json", "SHA256SUMS", "pannier/layout-1.json", "pannier/index-1.db"} {
		files[name] = map[string]any{"digest": content.Descriptor("", []byte(name)).Digest, "size": 1}
	}
	for _, format := range []int{-1, 0, 1, 2} {
		f.Add(withChecksum(f, map[string]any{"format": format, "generation": 1, "files": files}))
	}
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte("{"))
	f.Add(make([]byte, 300))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := bundle.ParseSeal(raw)
		switch {
		case err == nil && s.Format != bundle.FormatVersion:
			t.Errorf("format %d was taken", s.Format)
		case err != nil && !errors.Is(err, bundle.ErrDamaged) && !errors.Is(err, bundle.ErrVersion) && !errors.Is(err, bundle.ErrUnsealed):
			t.Errorf("%v", err)
		}
		if err == nil && len(raw) > 0 {
			if _, err := bundle.ParseSeal(append([]byte(" "), raw...)); err == nil {
				t.Error("another file passes as the same seal")
			}
		}
	})
}

// FuzzOpen opens a drive whose index.json, seal gone, is anything.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + zeros + `","size":2,"artifactType":"application/vnd.pannier.release.v1+json"}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:` + zeros + `","size":9999999999,"annotations":{"org.opencontainers.image.ref.name":"../../etc"}}]}`))
	f.Add([]byte(`[`))
	media := filepath.Join(f.TempDir(), "drive")
	for _, dir := range []string{"blobs/sha256", "pannier/partial"} {
		if err := os.MkdirAll(filepath.Join(media, filepath.FromSlash(dir)), 0o755); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(media, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		f.Fatal(err)
	}
	cache := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(filepath.Join(media, "index.json"), raw, 0o644); err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Open(t.Context(), media, bundle.OpenOptions{Cache: cache})
		if err != nil {
			return
		}
		defer b.Close()
		if b.Contents == nil || b.Seal != nil {
			t.Errorf("%+v", b)
		}
		if b.Index != nil && !json.Valid(raw) {
			t.Error("an index.json that is no JSON was taken")
		}
		if r := trip.Audit(t, media); r.Status == "complete" {
			t.Errorf("a drive without seal is %s", r.Status)
		}
	})
}
