// Package signature decides whether a release is signed by somebody trusted. It reads
// OpenPGP container signatures (packets of version 3, which Red Hat made until 2022, and of
// version 4), sigstore ".sig" images, and the keys for both.
//
// Invariants: trust comes from the user, who names a key file, or from a fingerprint that is
// pinned here; never from what travels with a release. Keys are told apart by fingerprints
// computed from key material, never by names or key ids. A message is read whole, its
// signature checked, then its type, then the digest that it names; what is missing, twice
// there, or not understood is refused. Everything read is bounded.
package signature

import (
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// sentinel is an error that is a kind of another one.
type sentinel struct {
	text   string
	parent error
}

func (s *sentinel) Error() string { return s.text }
func (s *sentinel) Unwrap() error { return s.parent }

// ErrUntrusted says that something is not signed by anybody trusted.
var ErrUntrusted error = &sentinel{text: "not trusted"}

// ErrMalformed says that something is no signature, no key or no policy at all. It is an
// [ErrUntrusted] too.
var ErrMalformed error = &sentinel{text: "malformed", parent: ErrUntrusted}

// ErrUnknownKey says that a well-formed message is signed with a key that is not trusted, so
// that nothing can be said about it. It is an [ErrUntrusted] too.
var ErrUnknownKey error = &sentinel{text: "unknown key", parent: ErrUntrusted}

// Signature is a message whose signature a trusted key made. What it says is the signer's
// word; whether it speaks of the wanted release is for [Signature.CheckIdentity].
type Signature struct {
	Digest        digest.Digest // of the release image
	Reference     string        // docker-reference: the name that the signer knew it by
	Fingerprint   string        // of the primary key, 40 upper-case hex digits
	KeyName       string        // for people
	KeySource     string        // where the key was read from
	Created       time.Time     // when the signature says that it was made
	PacketVersion int           // of the signature packet: 3 or 4
	KeyExpired    bool          // the key has expired since; the signature is older than that
	CandidateKey  bool          // the key is trusted for candidate releases only
	pinned        bool          // the key is trusted for its fingerprint, not because the user named it
}

// CheckIdentity returns an error wrapping [ErrUntrusted] unless the signature speaks of this
// version and architecture (x86_64, aarch64, ppc64le, s390x or multi): the tag of its
// docker-reference is VERSION-ARCH. If the user named the key, a reference without tag, or
// with the bare version as releases of OKD and of CI have it, passes too. It also refuses Red
// Hat's beta key for a version that is no candidate.
func (s *Signature) CheckIdentity(version, arch string) error {
	if _, err := s.checkTag(version, arch); err != nil {
		return err
	}
	return s.checkCandidate(version)
}

func (s *Signature) checkCandidate(version string) error {
	if s.CandidateKey && !isCandidate(version) {
		return fmt.Errorf("%w: signed with the %s (%s), which vouches for candidate releases only, and %q is none",
			ErrUntrusted, s.KeyName, s.Fingerprint, version)
	}
	return nil
}

// Verify returns what message says if it is an OpenPGP container signature of want that one
// of the ring's trusted keys made. Errors wrap [ErrUntrusted]; among them [ErrMalformed] for
// what is no such message at all, and [ErrUnknownKey] for one that is, as far as can be told
// without its key. Armor is refused: signature stores and clusters hold binary messages.
func (k *Keyring) Verify(message []byte, want digest.Digest) (*Signature, error) {
	m, err := parseMessage(message)
	if err != nil {
		return nil, err
	}
	s, err := k.check(m)
	if err != nil {
		return nil, err
	}
	c, err := m.claims(want)
	if err != nil {
		return nil, err
	}
	s.Digest, s.Reference = c.Digest, c.Reference
	return s, nil
}

// Inspect returns an error wrapping [ErrMalformed] or [ErrUntrusted] unless message has the
// form of an OpenPGP container signature of want. It says nothing about who made it: use it
// to tell signatures from error pages, and [Keyring.Verify] to trust one.
func Inspect(message []byte, want digest.Digest) error {
	m, err := parseMessage(message)
	if err != nil {
		return err
	}
	_, err = m.claims(want)
	return err
}
