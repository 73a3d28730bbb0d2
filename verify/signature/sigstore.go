package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// Names that cosign gives to what it writes.
const (
	mediaTypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	annotationSignature    = "dev.cosignproject.cosign/signature"
)

const (
	maxSigLayers   = 64       // signatures in one .sig image that are looked at
	maxSigPayload  = 64 << 10 // bytes of a signed payload
	maxSigManifest = 1 << 20  // bytes of a .sig image's manifest
	maxSigText     = 16 << 10 // bytes of a signature in base64; RSA-4096 needs 684
)

// VerifySigstore returns nil if manifest, of a cosign ".sig" image with these layers, has a
// signature of want that one of keys (RSA or ECDSA, with SHA-256) made, and whose
// docker-reference names the repository of the reference given ("quay.io/a/b", with or
// without tag or digest). Errors wrap [ErrUntrusted], and [ErrMalformed] for what is no such
// image. Transparency logs and certificates are not looked at.
func VerifySigstore(manifest []byte, layers map[digest.Digest][]byte, want digest.Digest, reference string, keys []crypto.PublicKey) error {
	repository, _, _ := splitReference(reference)
	signatures, err := parseSigstore(manifest, layers)
	if err != nil {
		return err
	}
	var problem error
	for _, s := range signatures {
		for _, key := range keys {
			err := s.verify(key, want, repository)
			if err == nil {
				return nil
			}
			problem = worse(problem, err)
		}
	}
	if problem == nil {
		problem = fmt.Errorf("%w: no key to check it with", ErrUntrusted)
	}
	return problem
}

// errOtherKey says that a signature is not by the key that it was tried with.
var errOtherKey error = &sentinel{text: "not signed by the expected key", parent: ErrUntrusted}

// worse keeps the error that tells more: anything before that a key was another one.
func worse(a, b error) error {
	if a == nil || errors.Is(a, errOtherKey) {
		return b
	}
	return a
}

// sigstoreSignature is one layer of a .sig image.
type sigstoreSignature struct {
	payload   []byte
	signature []byte
}

// parseSigstore reads a .sig image. Layers of other types are passed over.
func parseSigstore(manifest []byte, layers map[digest.Digest][]byte) ([]sigstoreSignature, error) {
	if len(manifest) > maxSigManifest {
		return nil, fmt.Errorf("sigstore manifest: %w: %d bytes", ErrMalformed, len(manifest))
	}
	var head struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(manifest, &head); err != nil {
		return nil, fmt.Errorf("sigstore manifest: %w: %w", ErrMalformed, err)
	}
	if head.MediaType == "" {
		head.MediaType = ocispec.MediaTypeImageManifest
	}
	m, err := content.ParseManifest(head.MediaType, manifest)
	if err != nil {
		return nil, fmt.Errorf("sigstore manifest: %w: %w", ErrMalformed, err)
	}
	if !content.IsImage(head.MediaType) || len(m.Layers) > maxSigLayers {
		return nil, fmt.Errorf("sigstore manifest: %w: a list, or one with %d layers", ErrMalformed, len(m.Layers))
	}
	var out []sigstoreSignature
	for _, l := range m.Layers {
		if l.MediaType != mediaTypeSimpleSigning {
			continue
		}
		s, err := parseSigstoreLayer(l, layers[l.Digest])
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("sigstore manifest: %w: no layer is a signature", ErrMalformed)
	}
	return out, nil
}

func parseSigstoreLayer(l ocispec.Descriptor, payload []byte) (sigstoreSignature, error) {
	if payload == nil || len(payload) > maxSigPayload {
		return sigstoreSignature{}, fmt.Errorf("sigstore payload %s: %w: missing, or too large", l.Digest, ErrMalformed)
	}
	if int64(len(payload)) != l.Size || digest.FromBytes(payload) != l.Digest {
		return sigstoreSignature{}, fmt.Errorf("sigstore payload %s: %w: the bytes are others", l.Digest, ErrMalformed)
	}
	encoded := l.Annotations[annotationSignature]
	if encoded == "" || len(encoded) > maxSigText {
		return sigstoreSignature{}, fmt.Errorf("sigstore payload %s: %w: no signature beside it", l.Digest, ErrMalformed)
	}
	sig, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return sigstoreSignature{}, fmt.Errorf("sigstore payload %s: %w: signature: %w", l.Digest, ErrMalformed, err)
	}
	return sigstoreSignature{payload: payload, signature: sig}, nil
}

// verify checks the signature first and then what it says.
func (s sigstoreSignature) verify(key crypto.PublicKey, want digest.Digest, repository string) error {
	sum := sha256.Sum256(s.payload)
	switch k := key.(type) {
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], s.signature) != nil {
			return errOtherKey
		}
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(k, sum[:], s.signature) {
			return errOtherKey
		}
	default:
		return fmt.Errorf("%w: a key of type %T", ErrUntrusted, key)
	}
	c, err := parseClaims(s.payload, typeCosign)
	if err != nil {
		return err
	}
	if err := c.names(want); err != nil {
		return err
	}
	if named, _, _ := splitReference(c.Reference); named != repository {
		return fmt.Errorf("%w: it is for repository %q, not %q", ErrUntrusted, named, repository)
	}
	return nil
}
