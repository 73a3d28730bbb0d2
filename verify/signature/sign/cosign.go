package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CosignKey is a throwaway key for sigstore signatures.
type CosignKey struct {
	private crypto.Signer
}

// NewRSA makes an RSA key of 2048 bits. Red Hat's release policy has RSA.
func NewRSA() (*CosignKey, error) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make an RSA key: %w", err)
	}
	return &CosignKey{k}, nil
}

// NewECDSA makes a P-256 key, which is what cosign makes by itself.
func NewECDSA() (*CosignKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make an ECDSA key: %w", err)
	}
	return &CosignKey{k}, nil
}

// Public returns the public key.
func (k *CosignKey) Public() crypto.PublicKey { return k.private.Public() }

// PEM returns the public key in the form that policies and key files hold.
func (k *CosignKey) PEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.private.Public())
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// SigImage is a cosign ".sig" image.
type SigImage struct {
	Tag        string // where it belongs, beside its subject: "sha256-<hex>.sig"
	Descriptor ocispec.Descriptor
	Manifest   []byte
	Config     []byte
	Layers     map[digest.Digest][]byte // the signed payloads
}

// Blobs returns the config and the layers by digest.
func (i *SigImage) Blobs() map[digest.Digest][]byte {
	out := maps.Clone(i.Layers)
	out[digest.FromBytes(i.Config)] = i.Config
	return out
}

// SigPayload returns the JSON that cosign signs for an image in a repository.
func SigPayload(subject digest.Digest, repository string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%s},"image":{"docker-manifest-digest":%s},`+
		`"type":"cosign container image signature"},"optional":null}`, quote(repository), quote(string(subject)))
}

// Sign returns the .sig image of subject, which lies in repository ("quay.io/a/b").
func (k *CosignKey) Sign(subject digest.Digest, repository string) (*SigImage, error) {
	return k.SignPayloads(subject, SigPayload(subject, repository))
}

// SignPayloads returns the .sig image at subject with these payloads, each signed.
func (k *CosignKey) SignPayloads(subject digest.Digest, payloads ...[]byte) (*SigImage, error) {
	i := &SigImage{Tag: strings.Replace(string(subject), ":", "-", 1) + ".sig", Layers: make(map[digest.Digest][]byte)}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	var diffIDs []string
	for _, p := range payloads {
		sum := sha256.Sum256(p)
		sig, err := k.private.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		d := digest.FromBytes(p)
		i.Layers[d] = p
		diffIDs = append(diffIDs, string(d))
		m.Layers = append(m.Layers, ocispec.Descriptor{
			MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Digest: d, Size: int64(len(p)),
			Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)},
		})
	}
	ids, _ := json.Marshal(diffIDs) // strings always can be
	i.Config = fmt.Appendf(nil, `{"architecture":"","created":"0001-01-01T00:00:00Z","os":"","rootfs":{"type":"layers","diff_ids":%s},"config":{}}`, ids)
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(i.Config), Size: int64(len(i.Config))}
	var err error
	if i.Manifest, err = json.Marshal(m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	i.Descriptor = ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(i.Manifest), Size: int64(len(i.Manifest))}
	return i, nil
}

// ImagePolicy returns a ClusterImagePolicy manifest as a release payload has it: images in
// scopes must be signed with the key given in PEM.
func ImagePolicy(name string, pemKey []byte, scopes ...string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: config.openshift.io/v1\nkind: ClusterImagePolicy\nmetadata:\n  name: %s\nspec:\n  scopes:\n", name)
	for _, s := range scopes {
		fmt.Fprintf(&b, "  - %s\n", s)
	}
	fmt.Fprintf(&b, "  policy:\n    rootOfTrust:\n      policyType: PublicKey\n      publicKey:\n        keyData: %s\n",
		base64.StdEncoding.EncodeToString(pemKey))
	return []byte(b.String())
}

// KeyConfigMap returns the cluster-update-keys manifest of a release payload: under each
// name, which should begin with "verifier-public-key-", an armored key.
func KeyConfigMap(keys map[string][]byte) []byte {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: release-verification\n  namespace: openshift-config-managed\n" +
		"  annotations:\n    release.openshift.io/verification-config-map: \"\"\ndata:\n")
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		fmt.Fprintf(&b, "  %s: |\n", name)
		for line := range strings.Lines(string(keys[name])) {
			fmt.Fprintf(&b, "    %s\n", strings.TrimRight(line, "\r\n"))
		}
	}
	return []byte(b.String())
}
