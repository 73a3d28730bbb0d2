// Package sign makes what package signature checks, with throwaway keys, for the demo and for
// tests: OpenPGP keys and container signatures of packet versions 3 and 4, cosign ".sig"
// images, and the manifests that carry keys in a release.
//
// It uses the standard library only and writes every packet by hand. So it can write version
// 3, which Go's libraries cannot, and shares no code, and no misunderstanding, with the
// checker. It must never sign anything that matters: keys are neither stored nor protected.
package sign

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"math/big"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Signature types and public key algorithm that are written (RFC 4880, sections 5.2.1, 9.1).
const (
	kindBinary       = 0x00
	kindPositiveCert = 0x13
	kindBinding      = 0x18
	kindCrossBinding = 0x19
	kindRevocation   = 0x20

	algorithmRSA = 1
)

// Key is a throwaway OpenPGP key: RSA, 2048 bits.
type Key struct {
	private *rsa.PrivateKey
	options KeyOptions
	packet  []byte // body of the public key packet
}

// KeyOptions describe a key. The zero value works.
type KeyOptions struct {
	Name     string        // user id; default "pannier throwaway key <demo@example.com>"
	Created  time.Time     // default: an hour ago
	Lifetime time.Duration // whole seconds; 0 is for ever
	Bits     int           // default 2048
	Revoked  bool          // the exported key carries its own revocation
	Subkeys  []Subkey      // exported with the key
}

// Subkey is a key exported below another one.
type Subkey struct {
	Key     *Key
	BoundBy *Key // who signs the binding; nil: the primary key, as it should be
	Revoked bool
}

// NewKey makes a key. It takes a fraction of a second.
func NewKey(o KeyOptions) (*Key, error) {
	if o.Name == "" {
		o.Name = "pannier throwaway key <demo@example.com>"
	}
	if o.Created.IsZero() {
		o.Created = time.Now().Add(-time.Hour)
	}
	if o.Bits == 0 {
		o.Bits = 2048
	}
	private, err := rsa.GenerateKey(rand.Reader, o.Bits)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return newKey(private, o), nil
}

func newKey(private *rsa.PrivateKey, o KeyOptions) *Key {
	k := &Key{private: private, options: o}
	k.packet = binary.BigEndian.AppendUint32([]byte{4}, uint32(o.Created.Unix()))
	k.packet = append(k.packet, algorithmRSA)
	k.packet = integer(k.packet, private.N)
	k.packet = integer(k.packet, big.NewInt(int64(private.E)))
	return k
}

// With returns the same key material under other options; Created stays, as it is part of
// the fingerprint.
func (k *Key) With(o KeyOptions) *Key {
	o.Created = k.options.Created
	if o.Name == "" {
		o.Name = k.options.Name
	}
	return newKey(k.private, o)
}

// Fingerprint returns 40 upper-case hex digits.
func (k *Key) Fingerprint() string { return fmt.Sprintf("%X", k.fingerprint()) }

func (k *Key) fingerprint() [sha1.Size]byte { return sha1.Sum(k.prefixed()) }

// ID returns the key id: the last 64 bits of the fingerprint.
func (k *Key) ID() uint64 {
	f := k.fingerprint()
	return binary.BigEndian.Uint64(f[12:])
}

// prefixed returns the key as it is hashed (RFC 4880, section 5.2.4).
func (k *Key) prefixed() []byte {
	return append(binary.BigEndian.AppendUint16([]byte{0x99}, uint16(len(k.packet))), k.packet...)
}

// Public returns the public key, armored.
func (k *Key) Public() []byte { return Armor(k.Binary()) }

// Binary returns the public key as packets.
func (k *Key) Binary() []byte {
	now := k.options.Created
	out := Packet(TagPublicKey, k.packet)
	if k.options.Revoked {
		out = append(out, k.signature(kindRevocation, crypto.SHA256, now, nil, k.prefixed())...)
	}
	out = append(out, Packet(TagUserID, []byte(k.options.Name))...)
	hashed := [][]byte{subpacket(27, 0x03)} // may certify and sign
	if k.options.Lifetime > 0 {
		hashed = append(hashed, subpacket32(9, uint32(k.options.Lifetime/time.Second)))
	}
	name := binary.BigEndian.AppendUint32([]byte{0xb4}, uint32(len(k.options.Name)))
	out = append(out, k.signature(kindPositiveCert, crypto.SHA256, now, hashed, k.prefixed(), name, []byte(k.options.Name))...)
	for _, s := range k.options.Subkeys {
		out = append(out, k.subkey(s)...)
	}
	return out
}

func (k *Key) subkey(s Subkey) []byte {
	binder := s.BoundBy
	if binder == nil {
		binder = k
	}
	now := s.Key.options.Created
	out := Packet(TagSubkey, s.Key.packet)
	cross := s.Key.signatureBody(kindCrossBinding, crypto.SHA256, now, nil, k.prefixed(), s.Key.prefixed())
	hashed := [][]byte{subpacket(27, 0x02), subpacket(32, cross...)}
	out = append(out, binder.signature(kindBinding, crypto.SHA256, now, hashed, k.prefixed(), s.Key.prefixed())...)
	if s.Revoked {
		out = append(out, k.signature(0x28, crypto.SHA256, now, nil, k.prefixed(), s.Key.prefixed())...)
	}
	return out
}

// signature returns a version 4 signature packet over parts.
func (k *Key) signature(kind byte, h crypto.Hash, t time.Time, hashed [][]byte, parts ...[]byte) []byte {
	return Packet(TagSignature, k.signatureBody(kind, h, t, hashed, parts...))
}

// signatureBody is RFC 4880, section 5.2.3, with the issuer unhashed, as gpg has it.
func (k *Key) signatureBody(kind byte, h crypto.Hash, t time.Time, hashed [][]byte, parts ...[]byte) []byte {
	body := []byte{4, kind, algorithmRSA, hashID(h)}
	body = append(body, subpackets(append([][]byte{subpacket32(2, uint32(t.Unix()))}, hashed...)...)...)
	trailer := binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(body)))
	w := h.New()
	for _, p := range append(parts, body, trailer) {
		w.Write(p)
	}
	body = append(body, subpackets(binary.BigEndian.AppendUint64([]byte{16}, k.ID()))...)
	return k.finish(body, h, w)
}

// signatureV3Body is RFC 4880, section 5.2.2: what Red Hat's signing service wrote until
// 2022.
func (k *Key) signatureV3Body(kind byte, h crypto.Hash, t time.Time, data []byte) []byte {
	hashed := binary.BigEndian.AppendUint32([]byte{kind}, uint32(t.Unix()))
	w := h.New()
	w.Write(data)
	w.Write(hashed)
	body := append([]byte{3, byte(len(hashed))}, hashed...)
	body = binary.BigEndian.AppendUint64(body, k.ID())
	return k.finish(append(body, algorithmRSA, hashID(h)), h, w)
}

func (k *Key) finish(body []byte, h crypto.Hash, w hash.Hash) []byte {
	sum := w.Sum(nil)
	sig, err := rsa.SignPKCS1v15(nil, k.private, h, sum)
	if err != nil {
		sig = []byte{0} // a key too short for the hash: the signature is not valid
	}
	return integer(append(body, sum[0], sum[1]), new(big.Int).SetBytes(sig))
}

func hashID(h crypto.Hash) byte {
	return map[crypto.Hash]byte{crypto.MD5: 1, crypto.SHA1: 2, crypto.SHA256: 8, crypto.SHA384: 9, crypto.SHA512: 10, crypto.SHA224: 11}[h]
}

// Options describe an OpenPGP message. The zero value is what Red Hat makes today: version
// 4, SHA-256, compressed, binary.
type Options struct {
	Version      int           // of the signature packet: 3 or 4; 0 is 4
	Hash         crypto.Hash   // default SHA-256
	Created      time.Time     // default: now
	Lifetime     time.Duration // of the signature, version 4 only; 0 is for ever
	Uncompressed bool
}

// Message returns body signed by k.
func (k *Key) Message(body []byte, o Options) []byte {
	p := k.Packets(body, o)
	if o.Uncompressed {
		return slices.Concat(p.OnePass, p.Literal, p.Signature)
	}
	return Compress(p.OnePass, p.Literal, p.Signature)
}

// Parts are the packets of a message, with their headers.
type Parts struct {
	OnePass, Literal, Signature []byte
}

// Packets returns the packets of a message one by one, for those who put them together in
// another way.
func (k *Key) Packets(body []byte, o Options) Parts {
	if o.Hash == 0 {
		o.Hash = crypto.SHA256
	}
	if o.Created.IsZero() {
		o.Created = time.Now()
	}
	onePass := binary.BigEndian.AppendUint64([]byte{3, kindBinary, hashID(o.Hash), algorithmRSA}, k.ID())
	p := Parts{
		OnePass: Packet(TagOnePass, append(onePass, 1)),
		Literal: literal("_rpmsig-req-demo.bin", uint32(o.Created.Unix()), body),
	}
	if o.Version == 3 {
		p.Signature = Packet(TagSignature, k.signatureV3Body(kindBinary, o.Hash, o.Created, body))
		return p
	}
	var hashed [][]byte
	if o.Lifetime > 0 {
		hashed = append(hashed, subpacket32(3, uint32(o.Lifetime/time.Second)))
	}
	p.Signature = k.signature(kindBinary, o.Hash, o.Created, hashed, body)
	return p
}

// Payload returns the JSON of an atomic container signature of d under reference
// ("quay.io/openshift-release-dev/ocp-release:4.8.21-x86_64"), spaced as Red Hat's is.
func Payload(d digest.Digest, reference string) []byte {
	return fmt.Appendf(nil, `{"critical": {"type": "atomic container signature", "image": {"docker-manifest-digest": %s}, `+
		`"identity": {"docker-reference": %s}}, "optional": {"creator": "pannier demo"}}`, quote(string(d)), quote(reference))
}

func quote(s string) []byte {
	b, _ := json.Marshal(s) // a string always can be
	return b
}
