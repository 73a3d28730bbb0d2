//go:build e2e && linux

package layout

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"pannier/bundle/content"
)

// TestReadBackThroughDriver needs a drive behind a FUSE driver, and its image to damage:
// LAYOUT_TEST_FUSE=<mounted folder>:<image file>. The end-to-end tests start it for exfat-fuse
// and ntfs-3g on loop devices (cmd/e2e).
// Negative control: with the file's pages alone dropped, the damage stays unseen there.
func TestReadBackThroughDriver(t *testing.T) {
	dir, image, ok := strings.Cut(os.Getenv("LAYOUT_TEST_FUSE"), ":")
	if !ok {
		t.Fatal("LAYOUT_TEST_FUSE is not set: make e2e sets it")
	}
	l, err := Create(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, desc := blob(3 << 20)
	in, err := l.Ingest(t.Context(), desc, from(b, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.RemoveBlob(desc.Digest)
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := l.DropCache(t.Context())
	if err != nil || m != CacheDevice {
		t.Fatalf("method %q, %v", m, err)
	}
	if err := l.ReadBack(t.Context(), desc, in.Slices, nil); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(raw, b[1<<20:1<<20+512])
	if at < 0 {
		t.Fatal("the blob did not get to the medium")
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{^b[1<<20]}, int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	r, _, err := l.open(BlobPath(desc.Digest), os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	dropFile(r)
	if _, err := hashFile(t.Context(), r, desc, nil); err != nil {
		t.Logf("control: already seen without the device: %v", err)
	}
	if err := l.ReadBack(t.Context(), desc, in.Slices, nil); !errors.Is(err, content.ErrDigest) {
		t.Errorf("damage on the medium: %v", err)
	}
}
