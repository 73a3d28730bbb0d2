package signature

import (
	"bytes"
	"crypto"
	_ "crypto/md5"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pannier/verify/signature/sign"
)

func TestVerify(t *testing.T) {
	ring := trusting(t, keyB(), keyA())
	for _, version := range []int{3, 4} {
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			for _, bare := range []bool{false, true} {
				t.Run(fmt.Sprintf("v%d %s bare=%t", version, hash, bare), func(t *testing.T) {
					at := time.Unix(1700000000, 0)
					m := keyA().Message(payload, sign.Options{Version: version, Hash: hash, Uncompressed: bare, Created: at})
					s, err := ring.Verify(m, wanted)
					if err != nil {
						t.Fatal(err)
					}
					want := Signature{
						Digest: wanted, Reference: source + ":4.8.21-x86_64", Fingerprint: keyA().Fingerprint(),
						KeyName: "Signer A <a@example.com>", KeySource: "user.asc", Created: at, PacketVersion: version,
					}
					if *s != want {
						t.Errorf("got %+v, want %+v", *s, want)
					}
					if err := Inspect(m, wanted); err != nil {
						t.Errorf("Inspect: %v", err)
					}
				})
			}
		}
	}
}

// TestVerifyRefuses has a row for each way in which a message can be something else than
// one signature of the wanted digest by a trusted key.
func TestVerifyRefuses(t *testing.T) {
	p := keyA().Packets(payload, sign.Options{})
	p3 := keyA().Packets(payload, sign.Options{Version: 3})
	evil := keyA().Packets(sign.Payload(other, source+":4.8.22-x86_64"), sign.Options{})
	byB := keyB().Packets(payload, sign.Options{})
	body := func(packet []byte) []byte { // of a packet with a two-byte length
		return bytes.Clone(packet[3:])
	}
	change := func(b []byte, at int, to byte) []byte {
		b = bytes.Clone(b)
		b[at] = to
		return b
	}
	big := bytes.Repeat([]byte(" "), 70<<10)
	good := keyA().Message(payload, sign.Options{})

	for _, c := range []struct {
		name    string
		message []byte
		is      error
		says    string
	}{
		{"nothing", nil, ErrMalformed, "no binary OpenPGP message"},
		{"an error page", []byte("<html>404</html>"), ErrMalformed, "no binary OpenPGP message"},
		{"bare JSON", payload, ErrMalformed, "no binary OpenPGP message"},
		{"armor", []byte("-----BEGIN PGP MESSAGE-----\n\n"), ErrMalformed, "no binary OpenPGP message"},
		{"too large", keyA().Message(append(payload, big[:50<<10]...), sign.Options{Uncompressed: true}), ErrMalformed, "at most 51200"},
		{"inflates too far", keyA().Message(append(payload, big...), sign.Options{}), ErrMalformed, "more than 65536"},
		{"an unsigned literal", p.Literal, ErrMalformed, "packets [11]"},
		{"an unsigned literal, compressed", sign.Compress(p.Literal), ErrMalformed, "packets [11]"},
		{"no signature packet", join(p.OnePass, p.Literal), ErrMalformed, "packets [4 11]"},
		{"a detached signature", p.Signature, ErrMalformed, "packets [2]"},
		{"signature first, the old way", join(p.Signature, p.Literal), ErrMalformed, "packets [2 11]"},
		{"two one-pass packets", join(p.OnePass, p.OnePass, p.Literal, p.Signature), ErrMalformed, "packets [4 4 11 2]"},
		{"two literals", join(p.OnePass, p.Literal, evil.Literal, p.Signature), ErrMalformed, "packets [4 11 11 2]"},
		{"another literal first", join(evil.Literal, p.OnePass, p.Literal, p.Signature), ErrMalformed, "packets [11 4 11 2]"},
		{"two signatures", join(p.OnePass, p.Literal, p.Signature, p.Signature), ErrMalformed, "packets [4 11 2 2]"},
		{"a second message behind", join(p.OnePass, p.Literal, p.Signature, evil.OnePass, evil.Literal, evil.Signature), ErrMalformed, "packets"},
		{"a second compressed message behind", join(sign.Compress(p.OnePass, p.Literal, p.Signature)[:2], good[2:], good), ErrMalformed, "after the compressed data"},
		{"a marker packet between", join(p.OnePass, sign.Packet(10, []byte("PGP")), p.Literal, p.Signature), ErrMalformed, "packets [4 10 11 2]"},
		{"an unknown packet behind", join(p.OnePass, p.Literal, p.Signature, sign.Packet(15, nil)), ErrMalformed, "packets [4 11 2 15]"},
		{"bytes behind", join(p.OnePass, p.Literal, p.Signature, []byte{0}), ErrMalformed, "packet 4"},
		{"signature outside the compressed packet", join(sign.Packet(sign.TagCompressed, sign.Compress(p.OnePass, p.Literal)[1:]), p.Signature), ErrMalformed, "packets [8 2]"},
		{"compressed twice", sign.Compress(good), ErrMalformed, "packets [8]"},
		{"unknown compression", change(good, 1, 3), ErrMalformed, "compression algorithm 3"},
		{"truncated deflate", good[:len(good)-20], ErrMalformed, "compressed packet"},
		{"empty compressed packet", good[:1], ErrMalformed, "empty compressed"},
		{"nested one-pass", join(change(p.OnePass, 14, 0), p.Literal, p.Signature), ErrMalformed, "nested"},
		{"one-pass of a text signature", join(change(p.OnePass, 3, 1), p.Literal, p.Signature), ErrMalformed, "not over binary"},
		{"signature of text", join(p.OnePass, p.Literal, change(p.Signature, 4, 1)), ErrMalformed, "not over binary"},
		{"announced hash differs", join(change(p.OnePass, 4, 10), p.Literal, p.Signature), ErrMalformed, "not the announced one"},
		{"announced key differs", join(change(p.OnePass, 6, ^p.OnePass[6]), p.Literal, p.Signature), ErrMalformed, "announcement"},
		{"announced key differs, v3", join(change(p3.OnePass, 6, ^p3.OnePass[6]), p3.Literal, p3.Signature), ErrMalformed, "announcement"},
		{"announced key of another signer", join(byB.OnePass, p.Literal, p.Signature), ErrMalformed, "announcement"},
		{"anonymous", join(append(bytes.Clone(p.OnePass[:6]), 0, 0, 0, 0, 0, 0, 0, 0, 1), p.Literal, p.Signature), ErrMalformed, "anonymous"},
		{"signature packet of version 5", join(p.OnePass, p.Literal, change(p.Signature, 3, 5)), ErrMalformed, "version 5"},
		{"signature packet of version 2", join(p3.OnePass, p3.Literal, change(p3.Signature, 3, 2)), ErrMalformed, "version 2"},
		{"data within the signature packet", join(p.OnePass, p.Literal, sign.Packet(2, append(body(p.Signature), 0))), ErrMalformed, "data after its end"},
		{"data within the signature packet, v3", join(p3.OnePass, p3.Literal, sign.Packet(2, append(body(p3.Signature), 0))), ErrMalformed, "data after its end"},
		{"truncated signature packet", join(p.OnePass, p.Literal, sign.Packet(2, body(p.Signature)[:40])), ErrMalformed, "truncated"},
		{"literal cut short", join(p.OnePass, sign.Packet(sign.TagLiteral, []byte{'b', 20, 'x'}), p.Signature), ErrMalformed, "truncated literal"},
		{"MD5", keyA().Message(payload, sign.Options{Hash: crypto.MD5}), ErrMalformed, "hash algorithm 1"},
		{"SHA-1", keyA().Message(payload, sign.Options{Hash: crypto.SHA1}), ErrMalformed, "hash algorithm 2"},
		{"SHA-1 v3", keyA().Message(payload, sign.Options{Hash: crypto.SHA1, Version: 3}), ErrMalformed, "hash algorithm 2"},
		{"SHA-224", keyA().Message(payload, sign.Options{Hash: crypto.SHA224}), ErrMalformed, "hash algorithm 11"},
		{"the signature of another text", join(p.OnePass, evil.Literal, p.Signature), ErrUntrusted, "hash tag"},
		{"the signature of another text, v3", join(p3.OnePass, evil.Literal, p3.Signature), ErrUntrusted, "hash tag"},
		{"an unknown key", keyB().Message(payload, sign.Options{}), ErrUnknownKey, "neither pinned nor"},
		{"another digest", keyA().Message(sign.Payload(other, source+":4.8.21-x86_64"), sign.Options{}), ErrUntrusted, "it signs " + other.String()},
		{"a signature past its time", keyA().Message(payload, sign.Options{Created: time.Now().Add(-time.Minute), Lifetime: time.Second}), ErrUntrusted, "was to be used until"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := trusting(t, keyA()).Verify(c.message, wanted)
			if s != nil || !errors.Is(err, c.is) || !errors.Is(err, ErrUntrusted) {
				t.Fatalf("got %+v, error %v; want no signature and an error that is %q", s, err, c.is)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q does not say %q", err, c.says)
			}
			if c.is == ErrMalformed && Inspect(c.message, wanted) == nil {
				t.Error("Inspect takes it for a signature")
			}
		})
	}
}

// TestFlipEveryByte damages messages in every place: what is still accepted, because the
// place means nothing, must say exactly what was signed.
func TestFlipEveryByte(t *testing.T) {
	ring := trusting(t, keyA(), keyB())
	for _, version := range []int{3, 4} {
		for _, bare := range []bool{false, true} {
			t.Run(fmt.Sprintf("v%d bare=%t", version, bare), func(t *testing.T) {
				good := keyA().Message(payload, sign.Options{Version: version, Uncompressed: bare})
				for i := range good {
					for _, mask := range []byte{0x01, 0x80, 0xff} {
						bad := bytes.Clone(good)
						bad[i] ^= mask
						checkUnchanged(t, ring, bad, fmt.Sprintf("byte %d ^ %#x", i, mask))
					}
					checkUnchanged(t, ring, good[:i], fmt.Sprintf("cut to %d bytes", i))
					if s, _ := ring.Verify(good[:i], wanted); s != nil {
						t.Errorf("accepted when cut to %d bytes of %d", i, len(good))
					}
				}
			})
		}
	}
}

// checkUnchanged fails if m is accepted with another meaning than payload's.
func checkUnchanged(t *testing.T, ring *Keyring, m []byte, what string) {
	t.Helper()
	if _, err := ring.Verify(m, wanted); err != nil {
		return
	}
	parsed, err := parseMessage(m)
	if err != nil || !bytes.Equal(parsed.body, payload) {
		t.Errorf("%s: accepted, and it says %q", what, parsed.body)
	}
}

func TestCheckIdentity(t *testing.T) {
	const repo = source + ":"
	for _, c := range []struct {
		reference, version, arch string
		pinned, candidate        bool
		says                     string // "" if it passes
	}{
		{repo + "4.8.21-x86_64", "4.8.21", "x86_64", true, false, ""},
		{repo + "4.8.21-x86_64", "4.8.22", "x86_64", true, false, "not as 4.8.22-x86_64"},
		{repo + "4.8.21-x86_64", "4.8.21", "aarch64", true, false, "not as 4.8.21-aarch64"},
		{repo + "4.8.210-x86_64", "4.8.21", "x86_64", true, false, "not as"},
		{repo + "4.8.21-multi", "4.8.21", "multi", true, false, ""},
		{repo + "4.8.21-multi", "4.8.21", "x86_64", true, false, "not as"},
		{repo + "4.8.21-multi-x86_64", "4.8.21", "multi", true, false, "not as"},
		{repo + "4.8.21-x86_64@" + wanted.String(), "4.8.21", "x86_64", true, false, ""},
		{"registry:5000/a/b:4.8.21-x86_64", "4.8.21", "x86_64", false, false, ""},
		{"registry:5000/a/b", "4.8.21", "x86_64", false, false, ""},
		{"registry:5000/a/b", "4.8.21", "x86_64", true, false, "not as"},
		{"a/b@" + wanted.String(), "4.8.21", "x86_64", false, false, ""},
		{"a/b:4.8.21", "4.8.21", "x86_64", false, false, ""},
		{"a/b:4.8.21", "4.8.21", "x86_64", true, false, "not as"},
		{"a/b:latest", "4.8.21", "x86_64", false, false, "not as"},
		{repo + "-x86_64", "", "x86_64", false, false, "not known"},
		{repo + "4.21.0-rc.1-x86_64", "4.21.0-rc.1", "x86_64", true, true, ""},
		{repo + "4.21.0-ec.0-x86_64", "4.21.0-ec.0", "x86_64", true, true, ""},
		{repo + "4.21.0-fc.3-x86_64", "4.21.0-fc.3", "x86_64", true, true, ""},
		{repo + "4.21.0-x86_64", "4.21.0", "x86_64", true, true, "candidate releases only"},
		{repo + "4.21.0-0.nightly-2026-x86_64", "4.21.0-0.nightly-2026", "x86_64", true, true, "candidate releases only"},
		{repo + "4.21.0+rc.1-x86_64", "4.21.0+rc.1", "x86_64", true, true, "candidate releases only"},
	} {
		s := Signature{Reference: c.reference, KeyName: "K", pinned: c.pinned, CandidateKey: c.candidate}
		err := s.CheckIdentity(c.version, c.arch)
		if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s as %s-%s: %v, want an error with %q", c.reference, c.version, c.arch, err, c.says)
		}
	}
}

func TestCheckChildTag(t *testing.T) {
	for tag, ok := range map[string]bool{
		"4.15.0-multi": true, "4.15.0-multi-aarch64": true, "4.15.0-s390x": true, "4.15.1-s390x": false, "4.15.0-riscv": false, "4.15.0": false,
	} {
		s := Signature{Reference: source + ":" + tag, pinned: true}
		if _, err := s.checkChildTag("4.15.0"); (err == nil) != ok {
			t.Errorf("%s: %v", tag, err)
		}
	}
}

func TestAtLeast(t *testing.T) {
	for version, want := range map[string]bool{
		"4.20.9": false, "4.21.0": true, "4.21.0-rc.1": true, "4.8.21": false, "5.0.0": true, "3.99.0": false, "nonsense": true, "4.21": true,
	} {
		if got := atLeast(version, 4, 21); got != want {
			t.Errorf("atLeast(%q, 4, 21) = %t", version, got)
		}
	}
}
