package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// TestMessageForm compares the form, byte by byte where it is fixed, with what Red Hat's
// signatures look like. That they verify is for the tests of package signature.
func TestMessageForm(t *testing.T) {
	k, err := NewKey(KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if m := k.Message([]byte("{}"), Options{}); !bytes.HasPrefix(m, []byte{0xa3, 0x01}) {
		t.Errorf("a compressed message begins with % x", m[:2])
	}
	p := k.Packets([]byte("{}"), Options{Version: 3})
	if want := []byte{0x90, 13, 3, 0, 8, 1}; !bytes.HasPrefix(p.OnePass, want) {
		t.Errorf("one-pass packet % x, want prefix % x", p.OnePass, want)
	}
	// Its length varies: an integer may begin with zeros, which are not written.
	if want := []byte{3, 5, 0}; p.Signature[0] != 0x89 || !bytes.HasPrefix(p.Signature[3:], want) {
		t.Errorf("signature packet % x…, want 89, a length, then % x", p.Signature[:6], want)
	}
	if p := k.Packets([]byte("{}"), Options{}); p.Signature[3] != 4 {
		t.Errorf("version %d by default, want 4", p.Signature[3])
	}
	if got := k.Fingerprint(); len(got) != 40 || got != strings.ToUpper(got) {
		t.Errorf("fingerprint %q", got)
	}
	if again := k.With(KeyOptions{Revoked: true}); again.Fingerprint() != k.Fingerprint() {
		t.Error("With changes the fingerprint")
	}
}

// TestArmor checks the checksum against the example of RFC 4880's algorithm: the CRC-24 of
// nothing is its initial value, and of "123456789" is 21CF02.
func TestArmor(t *testing.T) {
	if got := crc24(nil); got != 0xb704ce {
		t.Errorf("CRC-24 of nothing: %06x", got)
	}
	if got := crc24([]byte("123456789")); got != 0x21cf02 {
		t.Errorf("CRC-24 of the check string: %06x", got)
	}
}

func TestCosignImage(t *testing.T) {
	subject := digest.FromString("subject")
	for _, c := range []struct {
		name string
		make func() (*CosignKey, error)
	}{{"RSA", NewRSA}, {"ECDSA", NewECDSA}} {
		t.Run(c.name, func(t *testing.T) {
			k, err := c.make()
			if err != nil {
				t.Fatal(err)
			}
			i, err := k.Sign(subject, "quay.io/a/b")
			if err != nil {
				t.Fatal(err)
			}
			if want := "sha256-" + subject.Encoded() + ".sig"; i.Tag != want {
				t.Errorf("tag %q, want %q", i.Tag, want)
			}
			m, err := content.ParseManifest(ocispec.MediaTypeImageManifest, i.Manifest)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range m.Children() {
				if b := i.Blobs()[d.Digest]; int64(len(b)) != d.Size || digest.FromBytes(b) != d.Digest {
					t.Errorf("blob %s of %d bytes is not as the manifest says", d.Digest, len(b))
				}
			}
			sig, err := base64.StdEncoding.DecodeString(m.Layers[0].Annotations["dev.cosignproject.cosign/signature"])
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(i.Layers[m.Layers[0].Digest])
			switch p := k.Public().(type) {
			case *rsa.PublicKey:
				err = rsa.VerifyPKCS1v15(p, crypto.SHA256, sum[:], sig)
			case *ecdsa.PublicKey:
				if !ecdsa.VerifyASN1(p, sum[:], sig) {
					t.Error("the ECDSA signature does not verify")
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPayloads(t *testing.T) {
	d := digest.FromString("x")
	for _, b := range [][]byte{Payload(d, "quay.io/a/b:1-x86_64"), SigPayload(d, "quay.io/a/b")} {
		if !json.Valid(b) || !bytes.Contains(b, []byte(d)) {
			t.Errorf("not the JSON that it should be: %s", b)
		}
	}
}
