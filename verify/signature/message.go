package signature

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"crypto"
	_ "crypto/sha256" // makes the hashes available that messages name
	_ "crypto/sha512"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

const (
	maxMessage  = 50 << 10 // bytes of an OpenPGP message, as the cluster means to bound it
	maxInflated = 64 << 10 // bytes that its compressed packet may inflate to
	maxPackets  = 8        // of one level of a message; a good one has three
)

// Packet tags of RFC 4880, section 4.3, that a message may have.
const (
	tagSignature  = 2
	tagOnePass    = 4
	tagCompressed = 8
	tagLiteral    = 11
)

// sigBinary is the only accepted signature type: over the bytes of a document (RFC 4880,
// section 5.2.1). A text signature would leave line ends and blanks unsigned.
const sigBinary = 0

// hashes are the hash algorithms (RFC 4880, section 9.4) that are good enough. MD5, SHA-1
// and RIPEMD-160 are not.
var hashes = map[byte]crypto.Hash{8: crypto.SHA256, 9: crypto.SHA384, 10: crypto.SHA512}

// message is an OpenPGP message of the one accepted form: one-pass signature, literal,
// signature, together in a compressed packet or bare.
type message struct {
	body      []byte      // of the literal packet: what is signed
	keyID     uint64      // that signed it, as it says
	hash      crypto.Hash // by which
	version   int         // of the signature packet
	signature signaturePacket
}

// packet is a packet of a message: its tag and the bytes within it.
type packet struct {
	tag  byte
	body []byte
}

// parseMessage takes data apart. Everything is read here, to its end, before any signature
// is looked at: no part of a message can hide behind another. Errors wrap [ErrMalformed].
func parseMessage(data []byte) (*message, error) {
	if len(data) == 0 || data[0]&0x80 == 0 {
		return nil, fmt.Errorf("%w: %d bytes that are no binary OpenPGP message", ErrMalformed, len(data))
	}
	if len(data) > maxMessage {
		return nil, fmt.Errorf("%w: a message of %d bytes, at most %d are read", ErrMalformed, len(data), maxMessage)
	}
	packets, err := splitPackets(data, maxPackets)
	if err != nil {
		return nil, err
	}
	if len(packets) == 1 && packets[0].tag == tagCompressed {
		inner, err := inflate(packets[0].body)
		if err != nil {
			return nil, err
		}
		if packets, err = splitPackets(inner, maxPackets); err != nil {
			return nil, err
		}
	}
	if len(packets) != 3 || packets[0].tag != tagOnePass || packets[1].tag != tagLiteral || packets[2].tag != tagSignature {
		return nil, fmt.Errorf("%w: packets %v, not one one-pass signature, one literal and one signature", ErrMalformed, tags(packets))
	}
	m := new(message)
	if err := m.parseOnePass(packets[0].body); err != nil {
		return nil, err
	}
	if m.body, err = parseLiteral(packets[1].body); err != nil {
		return nil, err
	}
	if err := m.checkSignature(packets[2].body); err != nil {
		return nil, err
	}
	if m.signature, err = parseSignaturePacket(packets[2], m.keyID); err != nil {
		return nil, err
	}
	return m, nil
}

func tags(packets []packet) []byte {
	out := make([]byte, len(packets))
	for i, p := range packets {
		out[i] = p.tag
	}
	return out
}

// inflate returns what the body of a compressed packet holds: deflate or zlib, one stream,
// nothing after it.
func inflate(body []byte) ([]byte, error) {
	if len(body) == 0 {
		return nil, fmt.Errorf("%w: an empty compressed packet", ErrMalformed)
	}
	src := bytes.NewReader(body[1:]) // a ByteReader: the stream's end is known to the byte
	var r io.ReadCloser
	switch body[0] {
	case 1:
		r = flate.NewReader(src)
	case 2:
		var err error
		if r, err = zlib.NewReader(src); err != nil {
			return nil, fmt.Errorf("%w: compressed packet: %w", ErrMalformed, err)
		}
	default:
		return nil, fmt.Errorf("%w: compression algorithm %d", ErrMalformed, body[0])
	}
	defer r.Close()
	out, err := io.ReadAll(io.LimitReader(r, maxInflated+1))
	if err != nil {
		return nil, fmt.Errorf("%w: compressed packet: %w", ErrMalformed, err)
	}
	if len(out) > maxInflated {
		return nil, fmt.Errorf("%w: a compressed packet of more than %d bytes", ErrMalformed, maxInflated)
	}
	if src.Len() > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the compressed data", ErrMalformed, src.Len())
	}
	return out, nil
}

// parseOnePass reads RFC 4880, section 5.4.
func (m *message) parseOnePass(b []byte) error {
	if len(b) != 13 || b[0] != 3 || b[1] != sigBinary || b[12] == 0 {
		return fmt.Errorf("%w: a one-pass signature that is nested, or not over binary data", ErrMalformed)
	}
	hash, ok := hashes[b[2]]
	if !ok {
		return fmt.Errorf("%w: hash algorithm %d: SHA-256 or better is required", ErrMalformed, b[2])
	}
	m.hash, m.keyID = hash, binary.BigEndian.Uint64(b[4:])
	if m.keyID == 0 {
		return fmt.Errorf("%w: an anonymous signature", ErrMalformed)
	}
	return nil
}

// parseLiteral reads RFC 4880, section 5.9, and returns the data.
func parseLiteral(b []byte) ([]byte, error) {
	if len(b) < 2 || len(b) < 2+int(b[1])+4 {
		return nil, fmt.Errorf("%w: a truncated literal packet", ErrMalformed)
	}
	if b[0] != 'b' && b[0] != 't' && b[0] != 'u' {
		return nil, fmt.Errorf("%w: a literal packet of format %#x", ErrMalformed, b[0])
	}
	return b[2+int(b[1])+4:], nil
}

// checkSignature reads as much of RFC 4880, sections 5.2.2 and 5.2.3, as is needed to know
// that the packet has an accepted form and ends where its content does: the parser itself
// would pass over what is left.
func (m *message) checkSignature(b []byte) error {
	bad := fmt.Errorf("%w: a truncated signature packet, or one with data after its end", ErrMalformed)
	if len(b) < 6 {
		return bad
	}
	m.version = int(b[0])
	var kind, algorithm, hash byte
	var rest []byte
	switch m.version {
	case 3:
		if len(b) < 19 || b[1] != 5 {
			return bad
		}
		kind, algorithm, hash, rest = b[2], b[15], b[16], b[19:]
	case 4:
		kind, algorithm, hash, rest = b[1], b[2], b[3], b[4:]
		for range 2 { // hashed and unhashed subpackets
			if len(rest) < 2 || len(rest) < 2+int(binary.BigEndian.Uint16(rest)) {
				return bad
			}
			rest = rest[2+int(binary.BigEndian.Uint16(rest)):]
		}
		if len(rest) < 2 {
			return bad
		}
		rest = rest[2:]
	default:
		return fmt.Errorf("%w: a signature packet of version %d", ErrMalformed, m.version)
	}
	if kind != sigBinary {
		return fmt.Errorf("%w: a signature of type %#x, not over binary data", ErrMalformed, kind)
	}
	if hashes[hash] != m.hash {
		return fmt.Errorf("%w: the signature's hash algorithm %d is not the announced one", ErrMalformed, hash)
	}
	for range integers(algorithm) {
		if len(rest) < 2 {
			return bad
		}
		n := (int(binary.BigEndian.Uint16(rest)) + 7) / 8
		if len(rest) < 2+n {
			return bad
		}
		rest = rest[2+n:]
	}
	if len(rest) > 0 || integers(algorithm) == 0 {
		return bad
	}
	return nil
}

// integers returns how many integers a signature of a public key algorithm (RFC 4880,
// section 9.1) consists of; 0 for the algorithms that are not accepted.
func integers(algorithm byte) int {
	switch algorithm {
	case 1, 3: // RSA
		return 1
	case 19: // ECDSA
		return 2
	}
	return 0
}

// claims returns what m says if it is a container signature of want.
func (m *message) claims(want digest.Digest) (*claims, error) {
	c, err := parseClaims(m.body, typeAtomic)
	if err != nil {
		return nil, err
	}
	return c, c.names(want)
}
