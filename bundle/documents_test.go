package bundle

import (
	"errors"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/store"
)

func FuzzParseReleaseDocument(f *testing.F) {
	desc := content.Descriptor(ocispec.MediaTypeImageManifest, []byte("m"))
	raw, err := (&releaseDocument{
		Format: FormatVersion, Tag: "4.8.21-x86_64", Version: "4.8.21", Arch: "x86_64", Source: "quay.io/a/b", Descriptor: desc, Created: time.Unix(0, 0).UTC(),
		Images: []imageDocument{{Tag: "4.8.21-x86_64-etcd", Image: store.Image{Name: "etcd", Kind: store.KindComponent, Descriptor: desc}}},
	}).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"tag":"-","version":"","arch":""}`))
	f.Add([]byte(`{"tag":"a-b","version":"a","arch":"b","descriptor":{"digest":"sha256:../x"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rd, err := parseReleaseDocument(raw)
		if err != nil {
			if !errors.Is(err, content.ErrInvalid) {
				t.Errorf("%v", err)
			}
			return
		}
		if rd.Tag != rd.Version+"-"+rd.Arch || content.CheckDescriptor(rd.Descriptor) != nil {
			t.Errorf("%+v", rd)
		}
		again, err := rd.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseReleaseDocument(again); err != nil {
			t.Errorf("what was taken is refused when it is written again: %v", err)
		}
	})
}

func TestSignatureDocumentNames(t *testing.T) {
	child := content.Descriptor("", []byte("child")).Digest
	for name, want := range map[string]struct {
		child string
		ok    bool
	}{
		"signature-1": {"", true}, "signature-12": {"", true}, "signature-" + child.Encoded() + "-1": {child.String(), true},
		"release.json": {"", false}, "key-1": {"", false},
	} {
		if got, ok := isSignatureDocument(name); ok != want.ok || ok && got.String() != want.child {
			t.Errorf("%s: %q %v", name, got, ok)
		}
	}
	if _, ok := isSignatureDocument("signature-zz-1"); ok {
		t.Error("signature-zz-1 names a child")
	}
}
