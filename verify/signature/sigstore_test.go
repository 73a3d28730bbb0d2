package signature

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/verify/signature/sign"
)

func mustImage(i *sign.SigImage, err error) *sign.SigImage {
	if err != nil {
		panic(err)
	}
	return i
}

func TestVerifySigstore(t *testing.T) {
	rsaKey, ecKey := cosignA(), cosignB()
	keys := []crypto.PublicKey{rsaKey.Public(), ecKey.Public()}
	onlyEC := keys[1:]
	good := mustImage(rsaKey.Sign(wanted, source))
	layer := good.Layers[digest.FromBytes(sign.SigPayload(wanted, source))]
	otherDigest := mustImage(rsaKey.Sign(other, source))
	wrongType := []byte(strings.Replace(string(sign.SigPayload(wanted, source)), "cosign container image", "atomic container", 1))
	annotated := []byte(strings.Replace(string(sign.SigPayload(wanted, source)), "null", `{"creator":"me","x":{"y":1}}`, 1))
	edit := func(m []byte, from, to string) []byte {
		if !strings.Contains(string(m), from) {
			t.Fatalf("%s has no %q", m, from)
		}
		return []byte(strings.Replace(string(m), from, to, 1))
	}
	bytesOf := func(i *sign.SigImage) map[digest.Digest][]byte { return i.Layers }

	for _, c := range []struct {
		name      string
		manifest  []byte
		layers    map[digest.Digest][]byte
		reference string
		keys      []crypto.PublicKey
		says      string
	}{
		{"RSA", good.Manifest, good.Layers, source, keys, ""},
		{"ECDSA", mustImage(ecKey.Sign(wanted, source)).Manifest, good.Layers, source, keys, ""},
		{"named by tag and digest", good.Manifest, good.Layers, source + ":4.21.0-x86_64@" + wanted.String(), keys, ""},
		{"signer's annotations", mustImage(rsaKey.SignPayloads(wanted, annotated)).Manifest, map[digest.Digest][]byte{digest.FromBytes(annotated): annotated}, source, keys, ""},
		{"second layer is ours", mustImage(rsaKey.SignPayloads(wanted, sign.SigPayload(other, source), layer)).Manifest,
			map[digest.Digest][]byte{digest.FromBytes(layer): layer, digest.FromBytes(sign.SigPayload(other, source)): sign.SigPayload(other, source)}, source, keys, ""},
		{"without mediaType", edit(good.Manifest, `"mediaType":"application/vnd.oci.image.manifest.v1+json",`, ""), good.Layers, source, keys, ""},

		{"no keys", good.Manifest, good.Layers, source, nil, "no key"},
		{"another key", good.Manifest, good.Layers, source, onlyEC, "not signed by the expected key"},
		{"another digest", otherDigest.Manifest, bytesOf(otherDigest), source, keys, "it signs " + other.String()},
		{"another repository", good.Manifest, good.Layers, "quay.io/openshift-release-dev/ocp-releases", keys, "it is for repository"},
		{"longer repository", good.Manifest, good.Layers, source + "/x", keys, "it is for repository"},
		{"OpenPGP's type", mustImage(rsaKey.SignPayloads(wanted, wrongType)).Manifest, map[digest.Digest][]byte{digest.FromBytes(wrongType): wrongType}, source, keys, "its type"},
		{"payload missing", good.Manifest, nil, source, keys, "missing"},
		{"payload changed", good.Manifest, map[digest.Digest][]byte{digest.FromBytes(layer): append([]byte(" "), layer...)}, source, keys, "the bytes are others"},
		{"layer of another type", edit(good.Manifest, "simplesigning.v1", "other.v1"), good.Layers, source, keys, "no layer is a signature"},
		{"no annotation", edit(good.Manifest, "dev.cosignproject.cosign/signature", "x"), good.Layers, source, keys, "no signature beside it"},
		{"annotation of nonsense", edit(good.Manifest, `cosign/signature":"`, `cosign/signature":"!`), good.Layers, source, keys, "signature: illegal base64"},
		{"empty signature", edit(good.Manifest, `cosign/signature":"`, `cosign/signature":"AAAA","x":"`), good.Layers, source, keys, "not signed by the expected key"},
		{"not JSON", []byte("<html>"), nil, source, keys, "manifest"},
		{"empty", nil, nil, source, keys, "manifest"},
		{"a list", []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`), nil, source, keys, "a list"},
		{"too many layers", mustImage(rsaKey.SignPayloads(wanted, repeat(layer, maxSigLayers+1)...)).Manifest, good.Layers, source, keys, "layers"},
		{"too large", []byte(strings.Repeat(" ", maxSigManifest+1)), nil, source, keys, "bytes"},
		{"unsupported key", good.Manifest, good.Layers, source, []crypto.PublicKey{"key"}, "a key of type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := VerifySigstore(c.manifest, c.layers, wanted, c.reference, c.keys)
			if c.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want ErrUntrusted saying %q", err, c.says)
			}
		})
	}
}

func repeat(b []byte, n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = b
	}
	return out
}

func TestPolicyKeys(t *testing.T) {
	key, err := cosignA().PEM()
	if err != nil {
		t.Fatal(err)
	}
	good := string(sign.ImagePolicy("openshift", key, source, "quay.io/other"))
	change := func(from, to string) string { return strings.Replace(good, from, to, 1) }
	for _, c := range []struct {
		name, text string
		count      int
		says       string
	}{
		{"good", good, 1, ""},
		{"two documents and another kind", "---\n" + good + "---\nkind: ConfigMap\napiVersion: v1\n---\n" + good, 2, ""},
		{"JSON", fmt.Sprintf(`{"apiVersion":"config.openshift.io/v1alpha1","kind":"ClusterImagePolicy","metadata":{"name":"x"},"spec":{"scopes":["a"],"policy":{"rootOfTrust":`+
			`{"policyType":"PublicKey","publicKey":{"keyData":%q}}}}}`, base64.StdEncoding.EncodeToString(key)), 1, ""},
		{"other root of trust", change("policyType: PublicKey", "policyType: FulcioCAWithRekor"), 1, ""},
		{"empty", "", 0, ""},
		{"namespaced kind", change("ClusterImagePolicy", "ImagePolicy"), 0, ""},
		{"other group", change("config.openshift.io", "example.com"), 0, ""},

		{"no YAML", "a: [", 0, "malformed"},
		{"no scopes", change("  scopes:\n  - "+source+"\n  - quay.io/other\n", ""), 0, "no scopes"},
		{"no key", change("keyData:", "other:"), 0, "not a PEM public key"},
		{"key not base64", change("keyData: ", "keyData: '!'#"), 0, "malformed"},
		{"key no PEM", change("keyData: ", "keyData: AAAA #"), 0, "not a PEM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := PolicyKeys([]byte(c.text))
			if c.says != "" {
				if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v, want ErrMalformed saying %q", err, c.says)
				}
				return
			}
			if err != nil || len(got) != c.count {
				t.Fatalf("%d policies, %v; want %d", len(got), err, c.count)
			}
			for _, p := range got {
				if (p.Key == nil) != (p.Type != "PublicKey") {
					t.Errorf("policy %+v", p)
				}
			}
		})
	}
}

func TestPoliciesFor(t *testing.T) {
	policies := []PolicyKey{
		{Name: "wild", Scopes: []string{"*.io"}},
		{Name: "host", Scopes: []string{"quay.io"}},
		{Name: "path", Scopes: []string{"x.y", "quay.io/openshift-release-dev"}},
		{Name: "repo", Scopes: []string{"quay.io/openshift-release-dev/ocp-release"}},
		{Name: "repo2", Scopes: []string{"quay.io/openshift-release-dev/ocp-release"}},
		{Name: "image", Scopes: []string{"quay.io/openshift-release-dev/ocp-release@" + other.String()}},
		{Name: "empty", Scopes: []string{""}},
	}
	for _, c := range []struct {
		repository string
		d          digest.Digest
		want       string
	}{
		{source, wanted, "repo repo2"},
		{source, other, "image"},
		{source + "s", wanted, "path"},
		{"quay.io/openshift-release-development/x", wanted, "host"},
		{"quay.io", wanted, "host"},
		{"docker.io/x", wanted, "wild"},
		{"quay.iox/a", wanted, ""},
		{"", wanted, ""},
	} {
		var names []string
		for _, p := range policiesFor(policies, c.repository, c.d) {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: policies %q, want %q", c.repository, got, c.want)
		}
	}
}

func TestSignedRepository(t *testing.T) {
	for _, c := range []struct {
		match identityMatch
		want  string
	}{
		{identityMatch{}, source},
		{identityMatch{MatchPolicy: "MatchRepository"}, source},
		{identityMatch{MatchPolicy: "Else"}, ""},
		{match("ExactRepository", "a/b:tag", "", ""), "a/b"},
		{match("RemapIdentity", "", "quay.io/openshift-release-dev", "mirror/x"), "mirror/x/ocp-release"},
		{match("RemapIdentity", "", "quay.io/openshift", "mirror/x"), source},
	} {
		p := PolicyKey{match: c.match}
		if got := p.signedRepository(source); got != c.want {
			t.Errorf("%+v: %q, want %q", c.match, got, c.want)
		}
	}
}

func match(policy, repository, prefix, signedPrefix string) identityMatch {
	m := identityMatch{MatchPolicy: policy}
	m.ExactRepository.Repository = repository
	m.RemapIdentity.Prefix, m.RemapIdentity.SignedPrefix = prefix, signedPrefix
	return m
}
