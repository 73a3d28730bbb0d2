package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
)

// Packet tags of RFC 4880, section 4.3, that key files have.
const (
	tagSecretKey    = 5
	tagPublicKey    = 6
	tagSecretSubkey = 7
	tagUserID       = 13
	tagPublicSubkey = 14
)

const (
	maxKeyFile    = 1 << 20 // bytes of a key file
	maxKeyPackets = 20000   // of a key file
	maxPEMKeys    = 100     // of a key file
)

// keyFile is what a file of public keys holds.
type keyFile struct {
	entities [][]packet         // OpenPGP: the packets of each primary key, not parsed yet
	pem      []crypto.PublicKey // PKIX
	problems []error            // parts that could not be read
}

var (
	beginMark   = []byte("-----BEGIN ")
	armorKey    = "PGP PUBLIC KEY BLOCK"
	pemKey      = "PUBLIC KEY"
	keyboxMagic = []byte("KBXf")
)

// parseKeyFile reads a file of public keys: binary OpenPGP packets, or text with armored and
// PEM blocks in any order and whatever text between them. Errors wrap [ErrMalformed].
func parseKeyFile(data []byte) (*keyFile, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrMalformed, len(data), maxKeyFile)
	}
	f := new(keyFile)
	if len(data) > 0 && data[0]&0x80 != 0 {
		return f, f.addPackets(data)
	}
	if len(data) > 12 && bytes.Equal(data[8:12], keyboxMagic) {
		return nil, fmt.Errorf("%w: a GnuPG keybox; export the key from it with gpg --export", ErrMalformed)
	}
	for _, block := range blocks(data) {
		kind, _, _ := strings.Cut(string(block[len(beginMark):]), "-----")
		var err error
		switch {
		case kind == armorKey:
			var raw []byte
			if raw, err = dearmor(block); err == nil {
				err = f.addPackets(raw)
			}
		case kind == pemKey:
			err = f.addPEM(block)
		case strings.Contains(kind, "PRIVATE KEY"):
			// Not to be read past: the user should know that it lies there.
			return nil, fmt.Errorf("%w: it holds a private key", ErrMalformed)
		default:
			err = fmt.Errorf("%w: a block of type %.40q", ErrMalformed, kind)
		}
		if err != nil {
			f.problems = append(f.problems, err)
		}
	}
	if len(f.entities) == 0 && len(f.pem) == 0 && len(f.problems) == 0 {
		return nil, fmt.Errorf("%w: neither OpenPGP nor PEM public keys", ErrMalformed)
	}
	return f, nil
}

// blocks cuts text before each line that begins a block; what stands before the first one
// is left out. Armor and PEM alike may be preceded by explanations, and Red Hat's key file on
// RHEL has several blocks.
func blocks(data []byte) [][]byte {
	var out [][]byte
	start := -1
	for at := 0; at < len(data); {
		line := data[at:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		}
		if bytes.HasPrefix(line, beginMark) {
			if start >= 0 {
				out = append(out, data[start:at])
			}
			start = at
		}
		at += len(line)
	}
	if start >= 0 {
		out = append(out, data[start:])
	}
	return out
}

func (f *keyFile) addPackets(data []byte) error {
	packets, err := splitPackets(data, maxKeyPackets)
	if err != nil {
		return err
	}
	if hasSecret(packets) {
		return fmt.Errorf("%w: it holds a private key", ErrMalformed)
	}
	entities := splitEntities(packets)
	if len(entities) == 0 {
		return fmt.Errorf("%w: OpenPGP packets without a public key", ErrMalformed)
	}
	f.entities = append(f.entities, entities...)
	return nil
}

func (f *keyFile) addPEM(block []byte) error {
	if len(f.pem) == maxPEMKeys {
		return fmt.Errorf("%w: more than %d PEM keys", ErrMalformed, maxPEMKeys)
	}
	key, err := parsePEM(block)
	if err != nil {
		return err
	}
	f.pem = append(f.pem, key)
	return nil
}

// parsePEM reads the first PEM block of data as a public key for sigstore signatures, RSA of
// at least 2048 bits or ECDSA.
func parsePEM(data []byte) (crypto.PublicKey, error) {
	b, _ := pem.Decode(data)
	if b == nil || b.Type != pemKey {
		return nil, fmt.Errorf("%w: not a PEM public key", ErrMalformed)
	}
	key, err := x509.ParsePKIXPublicKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: PEM public key: %w", ErrMalformed, err)
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minKeyBits {
			return nil, fmt.Errorf("%w: an RSA key of %d bits, at least %d are required", ErrMalformed, k.N.BitLen(), minKeyBits)
		}
		return k, nil
	case *ecdsa.PublicKey:
		return k, nil
	}
	return nil, fmt.Errorf("%w: a key of type %T; RSA and ECDSA are supported", ErrMalformed, key)
}

// fingerprintOf computes the fingerprint of a public key packet (RFC 4880, section 12.2)
// from its own bytes, so that keys nobody trusts need not be parsed. It returns "" for a
// packet of another version than 4.
func fingerprintOf(p packet) string {
	if len(p.body) < 6 || len(p.body) > 0xffff || p.body[0] != 4 {
		return ""
	}
	sum := sha1.Sum(append(binary.BigEndian.AppendUint16([]byte{0x99}, uint16(len(p.body))), p.body...))
	return fmt.Sprintf("%X", sum)
}

// keyID returns the key id that ends a fingerprint.
func keyID(fingerprint string) string { return fingerprint[len(fingerprint)-16:] }

// splitEntities groups the packets of a key file by primary key. Packets before the first
// one are left out.
func splitEntities(packets []packet) [][]packet {
	var out [][]packet
	for i, p := range packets {
		if p.tag == tagPublicKey {
			out = append(out, packets[i:i+1])
		} else if len(out) > 0 {
			last := len(out) - 1
			out[last] = packets[i-len(out[last]) : i+1]
		}
	}
	return out
}

func hasSecret(packets []packet) bool {
	return slices.ContainsFunc(packets, func(p packet) bool { return p.tag == tagSecretKey || p.tag == tagSecretSubkey })
}
