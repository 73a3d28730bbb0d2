package signature

import (
	"bytes"
	"crypto"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/verify/signature/sign"
)

// The seeds of the fuzz targets are files, signed once by keys that were then thrown away:
// fuzzing runs in several processes, which must agree on the keys.
var update = flag.Bool("update", false, "make the files of testdata anew, with new keys")

// messageSeeds are the forms of a message that testdata has.
var messageSeeds = map[string]sign.Options{
	"v3.sig": {Version: 3}, "v4.sig": {}, "v3-bare.sig": {Version: 3, Uncompressed: true}, "v4-bare.sig": {Uncompressed: true},
	"v4-sha512.sig": {Hash: crypto.SHA512},
}

func seed(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// seedRing trusts the signer of testdata.
func seedRing(t testing.TB) *Keyring {
	t.Helper()
	ring := NewKeyring()
	if err := ring.AddTrusted("signer.asc", seed(t, "signer.asc")); err != nil {
		t.Fatal(err)
	}
	return ring
}

// TestSeeds: what was once signed verifies for ever.
func TestSeeds(t *testing.T) {
	if *update {
		writeSeeds(t)
	}
	ring := seedRing(t)
	for name := range messageSeeds {
		s, err := ring.Verify(seed(t, name), wanted)
		if err != nil || s.CheckIdentity("4.8.21", "x86_64") != nil {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	for _, kind := range []string{"rsa", "ecdsa"} {
		key, err := parsePEM(seed(t, kind+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		layer := seed(t, kind+"-payload.json")
		layers := map[digest.Digest][]byte{digest.FromBytes(layer): layer}
		if err := VerifySigstore(seed(t, kind+"-manifest.json"), layers, wanted, source, []crypto.PublicKey{key}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func writeSeeds(t *testing.T) {
	files := map[string][]byte{"signer.asc": keyA().Public()}
	for name, o := range messageSeeds {
		files[name] = keyA().Message(payload, o)
	}
	for kind, k := range map[string]*sign.CosignKey{"rsa": cosignA(), "ecdsa": cosignB()} {
		i := mustImage(k.Sign(wanted, source))
		var err error
		if files[kind+".pem"], err = k.PEM(); err != nil {
			t.Fatal(err)
		}
		files[kind+"-manifest.json"], files[kind+"-payload.json"] = i.Manifest, sign.SigPayload(wanted, source)
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join("testdata", name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzVerify: whatever is accepted says what was signed, to the byte.
func FuzzVerify(f *testing.F) {
	for name := range messageSeeds {
		f.Add(seed(f, name))
	}
	f.Add([]byte("<html>"))
	ring := seedRing(f)
	f.Fuzz(func(t *testing.T, message []byte) {
		s, err := ring.Verify(message, wanted)
		if (s == nil) == (err == nil) {
			t.Fatalf("signature %+v with error %v", s, err)
		}
		if err != nil {
			return
		}
		m, err := parseMessage(message)
		if err != nil || !bytes.Equal(m.body, payload) {
			t.Errorf("accepted another text: %v", err)
		}
	})
}

// FuzzClaims: what is understood is understood alike by Go's own decoder, which is what the
// cluster uses.
func FuzzClaims(f *testing.F) {
	f.Add(payload)
	f.Add([]byte(`{"critical":{"type":"atomic container signature","image":{"docker-manifest-digest":"x"},"identity":{}},"critical":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseClaims(text, typeAtomic)
		if err != nil {
			return
		}
		var v struct {
			Critical struct {
				Type  string
				Image struct {
					Digest string `json:"docker-manifest-digest"`
				}
				Identity struct {
					Reference string `json:"docker-reference"`
				}
			}
			Optional struct {
				Creator   string
				Timestamp int64
			}
		}
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&v); err != nil || v.Critical.Type != typeAtomic || v.Critical.Image.Digest != c.Digest.String() || v.Critical.Identity.Reference != c.Reference {
			t.Errorf("understood %q as %+v; the cluster: %+v, %v", text, c, v, err)
		}
	})
}

// FuzzKeyFile: no candidate is trusted that is not pinned, whatever it is wrapped in.
func FuzzKeyFile(f *testing.F) {
	ring := seedRing(f)
	fingerprint, id := ring.keys[0].primary, ring.keys[0].id
	f.Add(seed(f, "signer.asc"))
	f.Add(join(seed(f, "signer.asc"), seed(f, "rsa.pem"), seed(f, "ecdsa.pem")))
	raw, err := dearmor(seed(f, "signer.asc"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(join(raw, sign.Packet(sign.TagSubkey, raw[3:272]), raw[300:]))
	f.Fuzz(func(t *testing.T, data []byte) {
		ring := NewKeyring()
		ring.pinned = map[string]pin{fingerprint: {"Pinned", trustPinned}}
		_ = ring.AddCandidate("fuzz", data)
		for _, k := range ring.keys {
			if k.primary != fingerprint || k.id != id {
				t.Errorf("trusts %s", k.primary)
			}
		}
		if len(ring.sigstore) > 0 {
			t.Error("trusts a PEM key")
		}
		_ = NewKeyring().AddTrusted("fuzz", data)
	})
}

// FuzzPolicyKeys: a policy that is understood has scopes, and a key if it is of our kind.
func FuzzPolicyKeys(f *testing.F) {
	good := sign.ImagePolicy("openshift", seed(f, "ecdsa.pem"), source)
	f.Add(good)
	f.Add(join([]byte("---\n"), good, []byte("---\n"), good))
	f.Add([]byte(`{"kind":"ClusterImagePolicy"}`))
	f.Add([]byte("a: &a [*a, *a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := PolicyKeys(data)
		if err != nil {
			return
		}
		for _, k := range keys {
			if len(k.Scopes) == 0 || (k.Key == nil) != (k.Type != "PublicKey") {
				t.Errorf("%+v", k)
			}
			policiesFor([]PolicyKey{k}, source, wanted)
		}
	})
}

// FuzzSigstore: only what was signed for this image is accepted, in any wrapping.
func FuzzSigstore(f *testing.F) {
	var keys []crypto.PublicKey
	for _, kind := range []string{"rsa", "ecdsa"} {
		key, err := parsePEM(seed(f, kind+".pem"))
		if err != nil {
			f.Fatal(err)
		}
		keys = append(keys, key)
		f.Add(seed(f, kind+"-manifest.json"), seed(f, kind+"-payload.json"))
	}
	signed := sign.SigPayload(wanted, source)
	f.Fuzz(func(t *testing.T, manifest, layer []byte) {
		layers := map[digest.Digest][]byte{digest.FromBytes(layer): layer}
		if VerifySigstore(manifest, layers, wanted, source, keys) == nil && !bytes.Equal(layer, signed) {
			t.Errorf("accepted %q", layer)
		}
	})
}
