package sign

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/big"
	"strings"
)

// Tags of the packets that this package writes (RFC 4880, section 4.3).
const (
	TagSignature  = 2
	TagOnePass    = 4
	TagPublicKey  = 6
	TagCompressed = 8
	TagLiteral    = 11
	TagUserID     = 13
	TagSubkey     = 14
)

// Packet returns one packet with an old-format header, as gpg writes it (RFC 4880, section
// 4.2.1). The tag must be below 16.
func Packet(tag byte, body []byte) []byte {
	head := 0x80 | tag<<2
	switch n := len(body); {
	case n < 1<<8:
		return append([]byte{head, byte(n)}, body...)
	case n < 1<<16:
		return append(binary.BigEndian.AppendUint16([]byte{head | 1}, uint16(n)), body...)
	default:
		return append(binary.BigEndian.AppendUint32([]byte{head | 2}, uint32(n)), body...)
	}
}

// Compress returns a compressed packet of indeterminate length with these packets, in raw
// deflate: the outer form of Red Hat's signatures, beginning a3 01.
func Compress(packets ...[]byte) []byte {
	var b bytes.Buffer
	b.Write([]byte{0x80 | TagCompressed<<2 | 3, 1})
	w, _ := flate.NewWriter(&b, flate.DefaultCompression) // fails for unknown levels only
	for _, p := range packets {
		_, _ = w.Write(p) // a bytes.Buffer takes everything
	}
	_ = w.Close()
	return b.Bytes()
}

// literal returns a literal packet in binary mode (RFC 4880, section 5.9).
func literal(name string, seconds uint32, body []byte) []byte {
	b := append([]byte{'b', byte(len(name))}, name...)
	return Packet(TagLiteral, append(binary.BigEndian.AppendUint32(b, seconds), body...))
}

// integer appends a multiprecision integer (RFC 4880, section 3.2).
func integer(b []byte, n *big.Int) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(n.BitLen())), n.Bytes()...)
}

// subpackets joins signature subpackets, each shorter than 192 bytes or in the five-byte
// form (RFC 4880, section 5.2.3.1), with their total length in front.
func subpackets(list ...[]byte) []byte {
	var b []byte
	for _, s := range list {
		if len(s) < 192 {
			b = append(b, byte(len(s)))
		} else {
			b = binary.BigEndian.AppendUint32(append(b, 255), uint32(len(s)))
		}
		b = append(b, s...)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func subpacket(kind byte, body ...byte) []byte { return append([]byte{kind}, body...) }

func subpacket32(kind byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, n)
}

// Armor returns packets as an ASCII-armored public key block (RFC 4880, section 6).
func Armor(packets []byte) []byte {
	var b strings.Builder
	b.WriteString("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n")
	text := base64.StdEncoding.EncodeToString(packets)
	for len(text) > 64 {
		b.WriteString(text[:64] + "\n")
		text = text[64:]
	}
	sum := crc24(packets)
	fmt.Fprintf(&b, "%s\n=%s\n-----END PGP PUBLIC KEY BLOCK-----\n", text,
		base64.StdEncoding.EncodeToString([]byte{byte(sum >> 16), byte(sum >> 8), byte(sum)}))
	return []byte(b.String())
}

func crc24(data []byte) uint32 {
	crc := uint32(0xb704ce)
	for _, c := range data {
		crc ^= uint32(c) << 16
		for range 8 {
			crc <<= 1
			if crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return crc & 0xffffff
}
