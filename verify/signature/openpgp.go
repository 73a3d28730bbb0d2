package signature

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	//lint:ignore SA1019 Red Hat's signatures until 2022 are V3 packets, which its successor cannot read; the cluster itself uses this package.
	"golang.org/x/crypto/openpgp"
	//lint:ignore SA1019 as above
	"golang.org/x/crypto/openpgp/armor"
	//lint:ignore SA1019 as above
	pgp "golang.org/x/crypto/openpgp/packet"
)

// minKeyBits is the size below which an RSA key is refused.
const minKeyBits = 2048

// publicKey is one OpenPGP key that may have signed a message: a primary key or a subkey
// that it bound for signing.
type publicKey struct {
	primary string    // fingerprint of the primary key
	id      uint64    // key id of this key; several keys may share one
	name    string    // for people
	source  string    // where it was read from
	expires time.Time // zero if never
	trust   trust
	key     *pgp.PublicKey
}

// splitPackets cuts data into at most limit packets. It allocates no more than data's size
// for their bodies. Errors wrap [ErrMalformed].
func splitPackets(data []byte, limit int) ([]packet, error) {
	var out []packet
	r := pgp.NewOpaqueReader(bytes.NewReader(data))
	for {
		p, err := r.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: packet %d: %w", ErrMalformed, len(out)+1, err)
		}
		if len(out) == limit {
			return nil, fmt.Errorf("%w: more than %d packets", ErrMalformed, limit)
		}
		out = append(out, packet{tag: p.Tag, body: p.Contents})
	}
}

func (p packet) opaque() *pgp.OpaquePacket { return &pgp.OpaquePacket{Tag: p.tag, Contents: p.body} }

// dearmor returns the packets of one armored public key block.
func dearmor(block []byte) ([]byte, error) {
	b, err := armor.Decode(bytes.NewReader(block))
	if err != nil {
		return nil, fmt.Errorf("%w: armor: %w", ErrMalformed, err)
	}
	data, err := io.ReadAll(b.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: armor: %w", ErrMalformed, err)
	}
	return data, nil
}

// readEntity parses the packets of one primary key with what belongs to it: names with self
// signatures, revocations and, if asked for, subkeys with their bindings; all of which it
// checks.
func readEntity(packets []packet, subkeys bool) (*openpgp.Entity, error) {
	var b bytes.Buffer
	for _, p := range readable(packets, subkeys) {
		if err := p.opaque().Serialize(&b); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	e, err := openpgp.ReadEntity(pgp.NewReader(&b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	// The packet's bytes and what was understood of them must be the same key.
	if got := fmt.Sprintf("%X", e.PrimaryKey.Fingerprint[:]); got != fingerprintOf(packets[0]) {
		return nil, fmt.Errorf("%w: the key packet has data after its end", ErrMalformed)
	}
	return e, nil
}

// readable keeps what takes part in our decision: the key, its names, and subkeys if they
// are asked for, each with the signatures after it. Of those it leaves out what the parser
// does not know and would refuse the whole key for: subkeys and other people's
// certifications in newer algorithms. What could be a revocation stays, and so fails closed.
func readable(packets []packet, subkeys bool) []packet {
	var out []packet
	skip := false
	for _, p := range packets {
		switch p.tag {
		case tagSignature:
			if skip || isCertification(p.body) && !isVersion4(p) {
				continue
			}
		case tagPublicSubkey:
			_, err := p.opaque().Parse()
			if skip = !subkeys || err != nil; skip {
				continue
			}
		default:
			if skip = p.tag != tagPublicKey && p.tag != tagUserID; skip {
				continue
			}
		}
		out = append(out, p)
	}
	return out
}

// isVersion4 reports whether p is a signature of version 4 that the parser knows.
func isVersion4(p packet) bool {
	v, err := p.opaque().Parse()
	_, ok := v.(*pgp.Signature)
	return err == nil && ok
}

// isCertification reports whether a signature packet certifies a user id (RFC 4880, section
// 5.2.1, 0x10 to 0x13).
func isCertification(b []byte) bool {
	if len(b) < 3 {
		return false
	}
	kind := b[1]
	if b[0] < 4 {
		kind = b[2]
	}
	return kind >= 0x10 && kind <= 0x13
}

// signingKeys returns the keys of e that may sign: the primary key, and those subkeys that it
// bound for signing and did not revoke. The error says why there is none.
func signingKeys(e *openpgp.Entity) ([]publicKey, error) {
	fingerprint := fmt.Sprintf("%X", e.PrimaryKey.Fingerprint[:])
	name, self := selfSignature(e)
	expires := expiry(e.PrimaryKey, self)
	var out []publicKey
	err := usable(e.PrimaryKey)
	if err == nil && self.FlagsValid && !self.FlagSign {
		err = fmt.Errorf("%w: the key is not meant for signing", ErrMalformed)
	}
	if err == nil {
		out = append(out, publicKey{primary: fingerprint, id: e.PrimaryKey.KeyId, name: name, expires: expires, key: e.PrimaryKey})
	}
	for _, s := range e.Subkeys {
		// A signing subkey must say so: only then has the parser asked for its consent.
		if s.Sig.SigType != pgp.SigTypeSubkeyBinding || !s.Sig.FlagsValid || !s.Sig.FlagSign || usable(s.PublicKey) != nil {
			continue
		}
		k := publicKey{primary: fingerprint, id: s.PublicKey.KeyId, name: name, expires: expiry(s.PublicKey, s.Sig), key: s.PublicKey}
		if !expires.IsZero() && (k.expires.IsZero() || expires.Before(k.expires)) {
			k.expires = expires
		}
		out = append(out, k)
	}
	if len(out) > 0 {
		return out, nil
	}
	return nil, err
}

// usable returns an error for keys whose signatures are not accepted.
func usable(key *pgp.PublicKey) error {
	switch key.PubKeyAlgo {
	case pgp.PubKeyAlgoRSA, pgp.PubKeyAlgoRSASignOnly:
		if bits, err := key.BitLength(); err != nil || bits < minKeyBits {
			return fmt.Errorf("%w: an RSA key of %d bits, at least %d are required", ErrMalformed, bits, minKeyBits)
		}
		return nil
	case pgp.PubKeyAlgoECDSA:
		return nil
	}
	return fmt.Errorf("%w: a key of algorithm %d; RSA and ECDSA are supported", ErrMalformed, key.PubKeyAlgo)
}

// selfSignature returns the newest self-signature of e and the name that it vouches for.
func selfSignature(e *openpgp.Entity) (string, *pgp.Signature) {
	var name string
	var self *pgp.Signature
	for n, id := range e.Identities {
		s := id.SelfSignature
		if self == nil || s.CreationTime.After(self.CreationTime) || s.CreationTime.Equal(self.CreationTime) && n < name {
			name, self = n, s
		}
	}
	return printable(name), self
}

// printable removes what could move a terminal's cursor, and cuts what is too long to show.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 120 {
		return string(r[:120]) + "…"
	}
	return s
}

func expiry(key *pgp.PublicKey, sig *pgp.Signature) time.Time {
	if sig.KeyLifetimeSecs == nil || *sig.KeyLifetimeSecs == 0 {
		return time.Time{}
	}
	return key.CreationTime.Add(time.Duration(*sig.KeyLifetimeSecs) * time.Second)
}

// signaturePacket is a parsed signature packet of version 3 or 4; one of the two is nil.
type signaturePacket struct {
	v3 *pgp.SignatureV3
	v4 *pgp.Signature
}

// parseSignaturePacket parses p, which must not name another key than id.
func parseSignaturePacket(p packet, id uint64) (signaturePacket, error) {
	v, err := p.opaque().Parse()
	if err != nil {
		return signaturePacket{}, fmt.Errorf("%w: signature packet: %w", ErrMalformed, err)
	}
	var s signaturePacket
	issuer := id
	switch v := v.(type) {
	case *pgp.SignatureV3:
		s.v3, issuer = v, v.IssuerKeyId
	case *pgp.Signature:
		s.v4 = v
		if v.IssuerKeyId != nil {
			issuer = *v.IssuerKeyId
		}
	default:
		return s, fmt.Errorf("%w: a signature packet that is a %T", ErrMalformed, v)
	}
	if issuer != id {
		return s, fmt.Errorf("%w: the signature names key %016X, its announcement %016X", ErrMalformed, issuer, id)
	}
	return s, nil
}

// verify checks the signature of m with k and returns when it was made.
func (k *publicKey) verify(m *message, now time.Time) (time.Time, error) {
	h := m.hash.New()
	h.Write(m.body)
	var created, until time.Time
	var err error
	if s := m.signature.v3; s != nil {
		created, err = s.CreationTime, k.key.VerifySignatureV3(h, s)
	} else {
		s := m.signature.v4
		created, err = s.CreationTime, k.key.VerifySignature(h, s)
		if s.SigLifetimeSecs != nil && *s.SigLifetimeSecs != 0 {
			until = created.Add(time.Duration(*s.SigLifetimeSecs) * time.Second)
		}
	}
	switch {
	case err != nil:
	case !until.IsZero() && now.After(until):
		err = fmt.Errorf("the signature was to be used until %s", until.UTC().Format(time.DateTime))
	case !k.expires.IsZero() && created.After(k.expires):
		err = fmt.Errorf("signed on %s, after its key had expired on %s", day(created), day(k.expires))
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: key %s: %w", ErrUntrusted, k.primary, err)
	}
	return created, nil
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
