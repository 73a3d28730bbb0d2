package bundle

import (
	"context"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/release"
	"pannier/store"
)

// SignedRelease is what a signature check is given: a release, and everything found that
// may vouch for it. Nothing in it is trusted.
type SignedRelease struct {
	Digest  digest.Digest // of the release image: a manifest or a manifest list
	Version string
	Arch    string
	Source  string // repository it was asked for in, "quay.io/openshift-release-dev/ocp-release"

	Messages [][]byte                   // OpenPGP messages found for Digest
	Children map[digest.Digest][][]byte // and for each child of a list: best effort
	Keys     []release.File             // key rings found inside the payload: candidates only
	Policies []release.File             // ClusterImagePolicy manifests found inside the payload
	Sigstore []SigstoreImage            // sigstore signatures found beside the images
	Images   []release.Image            // the components, so that one without sigstore signature is noticed
}

// SigstoreImage is a cosign ".sig" image as found beside the image that it signs.
type SigstoreImage struct {
	Subject    digest.Digest            // the image that it is said to sign
	Repository string                   // where Subject lives, under its own name
	Manifest   []byte                   // the .sig image's manifest
	Layers     map[digest.Digest][]byte // its layers: signed payloads
}

// States of a release's signature, as reports and JSON name them.
const (
	SignatureVerified   = store.SignatureVerified   // a trusted key signed exactly this digest
	SignatureUnverified = store.SignatureUnverified // there are signatures, none of a trusted key
	SignatureMissing    = store.SignatureMissing    // there is none
)

// SignatureVerdict is the outcome of a signature check.
type SignatureVerdict struct {
	Status      string                     // SignatureVerified, SignatureUnverified or SignatureMissing
	Key         string                     // name of the key that signed, for people
	Fingerprint string                     // of that key, 40 upper-case hex digits
	KeySource   string                     // the file or manifest that the key was read from
	Reference   string                     // docker-reference that the signature names
	Accepted    [][]byte                   // the messages that are signatures of this digest, without duplicates
	Children    map[digest.Digest][][]byte // the same for the children of a list
	Problems    []string                   // why each other message, or the release, was not accepted
	Notes       []string                   // what a person should know although it decides nothing
}

// SignatureVerifier judges whether a release is signed by somebody trusted. It returns a
// verdict always, and an error only if it could not look. verify/signature has the one
// implementation; it is declared here because Pack needs it before it fetches components.
type SignatureVerifier interface {
	VerifyRelease(ctx context.Context, r SignedRelease) (SignatureVerdict, error)
}
