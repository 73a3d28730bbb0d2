package bundle_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"pannier/store"
	"pannier/verify"
	"pannier/verify/signature/sign"
)

var (
	packetOptions  = sign.Options{Created: time.Unix(1_700_000_000, 0)}
	packetOptions3 = sign.Options{Created: time.Unix(1_600_000_000, 0), Version: 3}
	errNoSpace     = error(syscall.ENOSPC)
)

func signedAs(d digest.Digest, reference string) []byte { return sign.Payload(d, reference) }

// byTag makes every reference of image-references one by tag.
func byTag(b []byte) []byte {
	return regexp.MustCompile(`@sha256:[0-9a-f]{64}`).ReplaceAll(b, []byte(":latest"))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// sealOf finds the one seal on a drive.
func sealOf(t *testing.T, media string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(media, "pannier", "seal-*.json"))
	if err != nil || len(found) != 1 {
		t.Fatalf("seals: %v, %v", found, err)
	}
	return found[0]
}

// reseal changes a seal and gives it a right checksum, as docs/format.md says and sharing no
// code with the program.
func reseal(t *testing.T, media string, change func(map[string]any)) {
	t.Helper()
	path := sealOf(t, media)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	change(s)
	write(t, path, string(withChecksum(t, s)))
}

func withChecksum(t testing.TB, s map[string]any) []byte {
	zero := "sha256:" + strings.Repeat("0", 64)
	s["checksum"] = zero
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(raw, []byte(zero), []byte(digest.FromBytes(raw).String()), 1)
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

type (
	storeImage = store.Image
	finding    = verify.Finding
)

func testContext() context.Context { return context.Background() }
