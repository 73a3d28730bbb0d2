package signature

import (
	"crypto"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// trust says why a key's signatures count.
type trust int

const (
	trustPinned    trust = iota + 1 // its fingerprint is pinned here
	trustCandidate                  // likewise, for candidate releases only
	trustUser                       // the user named its file
)

// pin is a key that is trusted wherever it comes from.
type pin struct {
	name  string
	trust trust
}

// pinned are the fingerprints of Red Hat's keys in use for releases. Neither key has
// subkeys, and none would be accepted.
var pinned = map[string]pin{
	"567E347AD0044ADE55BA8A5F199E2F91FD431D51": {"Red Hat release key 2", trustPinned},
	"B08B659EE86AF623BC90E8DB938A80CAF21541EB": {"Red Hat beta key 2", trustCandidate},
}

// Keyring holds the keys whose signatures are trusted, OpenPGP's and sigstore's. It is not
// safe for use while keys are added.
type Keyring struct {
	keys     []publicKey
	revoked  map[string]string // fingerprint of a revoked primary key: where that was read
	strange  map[string]string // key id of a candidate that nothing vouches for: what and where it is
	sigstore []sigstoreKey
	skipped  []string       // keys in the user's files that cannot be used, and why
	pinned   map[string]pin // as the package's; replaced by tests
}

// sigstoreKey is a public key of the user's for sigstore signatures.
type sigstoreKey struct {
	key    crypto.PublicKey
	source string
}

// NewKeyring returns an empty ring.
func NewKeyring() *Keyring {
	return &Keyring{revoked: make(map[string]string), strange: make(map[string]string), pinned: pinned}
}

// AddTrusted adds every key of a file that the user named, source, as trusted for whatever it
// signs: OpenPGP public keys, armored (also several blocks in one file) or binary, and PEM
// public keys (RSA or ECDSA) for sigstore signatures. It returns an error wrapping
// [ErrMalformed] if the file has no key that can be used, or holds private ones.
func (k *Keyring) AddTrusted(source string, data []byte) error {
	f, err := parseKeyFile(data)
	if err != nil {
		return fmt.Errorf("key file %s: %w", source, err)
	}
	var problems []error
	added := 0
	for _, key := range f.pem {
		k.sigstore = append(k.sigstore, sigstoreKey{key, source})
		added++
	}
	for _, packets := range f.entities {
		n, err := k.addEntity(source, packets, trustUser, "")
		if added += n; err != nil {
			problems = append(problems, fmt.Errorf("key %s: %w", orUnknown(fingerprintOf(packets[0])), err))
		}
	}
	problems = append(problems, f.problems...)
	if added == 0 && len(problems) == 0 {
		return fmt.Errorf("key file %s: %w: no public key in it", source, ErrMalformed)
	}
	if added == 0 {
		return fmt.Errorf("key file %s: %w", source, problems[0])
	}
	for _, p := range problems {
		k.skipped = append(k.skipped, fmt.Sprintf("key file %s: %v", source, p))
	}
	return nil
}

// AddCandidate adds those OpenPGP keys of a file found somewhere, source, whose fingerprints
// are pinned: Red Hat's release key, and its beta key, which vouches for candidate releases
// only. The others are remembered for error messages and never parsed. It returns an error
// wrapping [ErrMalformed] for what is no key file, or for a pinned key that is damaged.
func (k *Keyring) AddCandidate(source string, data []byte) error {
	f, err := parseKeyFile(data)
	if err != nil {
		return fmt.Errorf("keys of %s: %w", source, err)
	}
	err = nil
	for _, packets := range f.entities {
		fingerprint := fingerprintOf(packets[0])
		p, ok := k.pinned[fingerprint]
		switch {
		case fingerprint == "":
		case !ok:
			k.strange[keyID(fingerprint)] = fmt.Sprintf("key %s of %s", fingerprint, source)
		default:
			if _, e := k.addEntity(source, packets, p.trust, p.name); e != nil && err == nil {
				err = fmt.Errorf("keys of %s: %s: %w", source, p.name, e)
			}
		}
	}
	return err
}

func orUnknown(fingerprint string) string {
	if fingerprint == "" {
		return "of an unsupported version"
	}
	return fingerprint
}

// addEntity adds the keys of one primary key and returns how many there were. A pinned key
// is the very key that its fingerprint names, without subkeys.
func (k *Keyring) addEntity(source string, packets []packet, t trust, name string) (int, error) {
	if fingerprintOf(packets[0]) == "" {
		return 0, fmt.Errorf("%w: only keys of version 4 are supported", ErrMalformed)
	}
	e, err := readEntity(packets, t == trustUser)
	if err != nil {
		return 0, err
	}
	fingerprint := fingerprintOf(packets[0])
	if len(e.Revocations) > 0 {
		k.revoked[fingerprint] = source
	}
	keys, err := signingKeys(e)
	if err != nil {
		return 0, err
	}
	for _, key := range keys {
		key.source, key.trust = source, t
		if name != "" {
			key.name = name
		}
		k.keys = append(k.keys, key)
	}
	return len(keys), nil
}

// clone returns a ring that can be added to without changing k. A nil ring is empty.
func (k *Keyring) clone() *Keyring {
	if k == nil {
		return NewKeyring()
	}
	return &Keyring{
		keys: slices.Clone(k.keys), revoked: maps.Clone(k.revoked), strange: maps.Clone(k.strange),
		sigstore: slices.Clone(k.sigstore), skipped: slices.Clone(k.skipped), pinned: k.pinned,
	}
}

// check verifies the signature of m with whichever key of the ring made it. Key ids are a
// hint that several keys can share, and one key may have been read from several files, with
// another date of expiry: each is tried. The user's trust goes before the pinned one.
func (k *Keyring) check(m *message) (*Signature, error) {
	now := time.Now()
	var found *Signature
	var problem error
	for _, key := range slices.Backward(slices.SortedStableFunc(slices.Values(k.keys), func(a, b publicKey) int { return int(a.trust - b.trust) })) {
		if key.id != m.keyID {
			continue
		}
		created, err := key.verify(m, now)
		if err == nil && k.revoked[key.primary] != "" {
			err = fmt.Errorf("%w: key %s is revoked, says %s", ErrUntrusted, key.primary, k.revoked[key.primary])
		}
		if err != nil {
			problem = err
			continue
		}
		s := &Signature{
			Fingerprint: key.primary, KeyName: key.name, KeySource: key.source, Created: created, PacketVersion: m.version,
			KeyExpired: !key.expires.IsZero() && now.After(key.expires), CandidateKey: key.trust == trustCandidate,
			pinned: key.trust != trustUser,
		}
		if found == nil || found.KeyExpired && !s.KeyExpired && found.CandidateKey == s.CandidateKey {
			found = s
		}
	}
	if found != nil {
		return found, nil
	}
	if problem != nil {
		return nil, problem
	}
	id := fmt.Sprintf("%016X", m.keyID)
	if where := k.strange[id]; where != "" {
		return nil, fmt.Errorf("%w %s: it may be %s, which is neither pinned nor among the key files that were named", ErrUnknownKey, id, where)
	}
	return nil, fmt.Errorf("%w %s: it is neither pinned nor among the key files that were named%s", ErrUnknownKey, id, k.pinnedButAbsent(id))
}

// pinnedButAbsent says so if a key is trusted but was found nowhere.
func (k *Keyring) pinnedButAbsent(id string) string {
	for fingerprint, p := range k.pinned {
		if strings.HasSuffix(fingerprint, id) {
			return fmt.Sprintf("; %s (%s) is trusted, but the key itself was not found anywhere", p.name, fingerprint)
		}
	}
	return ""
}
