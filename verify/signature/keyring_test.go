package signature

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"pannier/verify/signature/sign"
)

func TestAddTrustedForms(t *testing.T) {
	pemKey, err := cosignA().PEM()
	if err != nil {
		t.Fatal(err)
	}
	private := []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	weak := mustKey(sign.KeyOptions{Bits: 1024})
	for _, c := range []struct {
		name           string
		data           []byte
		pgp, pem, skip int
		says           string
	}{
		{"armored", keyA().Public(), 1, 0, 0, ""},
		{"binary", keyA().Binary(), 1, 0, 0, ""},
		{"two keys in one block", sign.Armor(join(keyA().Binary(), keyB().Binary())), 2, 0, 0, ""},
		{"two blocks with text", join([]byte("pub 4096R\n\n"), keyA().Public(), []byte("\nthe other one:\n"), keyB().Public()), 2, 0, 0, ""},
		{"windows line ends", bytes.ReplaceAll(keyA().Public(), []byte("\n"), []byte("\r\n")), 1, 0, 0, ""},
		{"PEM", pemKey, 0, 1, 0, ""},
		{"PEM and armor", join(pemKey, keyA().Public()), 1, 1, 0, ""},
		{"one good, one too short", join(weak.Binary(), keyA().Binary()), 1, 0, 1, ""},
		{"a damaged block beside a good one", join(bytes.Replace(keyB().Public(), []byte("\n=B"), []byte("\n="), 1)[:200], []byte("\n"), keyA().Public()), 1, 0, 1, ""},
		{"with other packets around", join(sign.Packet(12, []byte{1}), keyA().Binary(), sign.Packet(12, []byte{1})), 1, 0, 0, ""},

		{"empty", nil, 0, 0, 0, "neither OpenPGP nor PEM"},
		{"text", []byte("no key"), 0, 0, 0, "neither OpenPGP nor PEM"},
		{"too short a key", weak.Public(), 0, 0, 0, "1024 bits"},
		{"a private key", join(keyA().Public(), private), 0, 0, 0, "private key"},
		{"a private OpenPGP key", sign.Packet(5, keyA().Binary()[3:]), 0, 0, 0, "private key"},
		{"an armored private key", []byte("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nAAAA\n"), 0, 0, 0, "private key"},
		{"a certificate", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0, 0, 0, "CERTIFICATE"},
		{"a keybox", append(bytes.Repeat([]byte{0}, 8), "KBXf and more of it"...), 0, 0, 0, "gpg --export"},
		{"too large", bytes.Repeat([]byte("x"), 2<<20), 0, 0, 0, "at most"},
		{"a message", keyA().Message(payload, sign.Options{}), 0, 0, 0, "without a public key"},
		{"a key without name", keyA().Binary()[:3+len(keyA().Binary()[3:])/3], 0, 0, 0, "malformed"},
		{"damaged armor", bytes.Replace(keyA().Public(), []byte("A"), []byte("B"), 5), 0, 0, 0, "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ring := NewKeyring()
			err := ring.AddTrusted("file", c.data)
			if c.says != "" {
				if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v, want ErrMalformed saying %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(ring.keys) != c.pgp || len(ring.sigstore) != c.pem || len(ring.skipped) != c.skip {
				t.Errorf("%d OpenPGP and %d PEM keys, skipped %q; want %d, %d and %d", len(ring.keys), len(ring.sigstore), ring.skipped, c.pgp, c.pem, c.skip)
			}
		})
	}
}

func TestCandidates(t *testing.T) {
	message := keyA().Message(payload, sign.Options{Version: 3})
	foreign := keyB().Message(payload, sign.Options{})

	t.Run("pinned", func(t *testing.T) {
		ring := pinning(keyA(), pin{"Release Key", trustPinned})
		if err := ring.AddCandidate("somewhere", join(keyB().Binary(), keyA().Binary())); err != nil {
			t.Fatal(err)
		}
		s, err := ring.Verify(message, wanted)
		if err != nil {
			t.Fatal(err)
		}
		if s.KeyName != "Release Key" || s.KeySource != "somewhere" || s.CandidateKey {
			t.Errorf("got %+v", s)
		}
		_, err = ring.Verify(foreign, wanted)
		if !errors.Is(err, ErrUnknownKey) || !strings.Contains(err.Error(), keyB().Fingerprint()+" of somewhere") {
			t.Errorf("a key that travels with a pinned one: %v", err)
		}
	})
	t.Run("not pinned", func(t *testing.T) {
		ring := NewKeyring()
		if err := ring.AddCandidate("somewhere", keyA().Public()); err != nil {
			t.Fatal(err)
		}
		if _, err := ring.Verify(message, wanted); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("pinned and not found", func(t *testing.T) {
		_, err := pinning(keyA(), pin{"Release Key", trustPinned}).Verify(message, wanted)
		if !errors.Is(err, ErrUnknownKey) || !strings.Contains(err.Error(), "Release Key") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("beta key", func(t *testing.T) {
		ring := pinning(keyA(), pin{"Beta Key", trustCandidate})
		if err := ring.AddCandidate("somewhere", keyA().Public()); err != nil {
			t.Fatal(err)
		}
		s, err := ring.Verify(message, wanted)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CheckIdentity("4.8.21", "x86_64"); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "Beta Key") {
			t.Errorf("the beta key for a final version: %v", err)
		}
		// The user's own word is worth more than our table.
		if err := ring.AddTrusted("user.asc", keyA().Public()); err != nil {
			t.Fatal(err)
		}
		if s, err = ring.Verify(message, wanted); err != nil || s.CheckIdentity("4.8.21", "x86_64") != nil {
			t.Errorf("the beta key, named by the user: %+v, %v", s, err)
		}
	})
}

// TestSubkeys: a pinned key vouches for itself alone; a key of the user's also for the
// subkeys that it has bound.
func TestSubkeys(t *testing.T) {
	bySub := keyB().Message(payload, sign.Options{})
	bound := keyA().With(sign.KeyOptions{Subkeys: []sign.Subkey{{Key: keyB()}}})
	foreign := keyA().With(sign.KeyOptions{Subkeys: []sign.Subkey{{Key: keyB(), BoundBy: keyB()}}})
	revoked := keyA().With(sign.KeyOptions{Subkeys: []sign.Subkey{{Key: keyB(), Revoked: true}}})

	ring := NewKeyring()
	if err := ring.AddTrusted("f", bound.Public()); err != nil {
		t.Fatal(err)
	}
	if s, err := ring.Verify(bySub, wanted); err != nil || s.Fingerprint != keyA().Fingerprint() {
		t.Errorf("a bound subkey: %+v, %v", s, err)
	}
	ring = NewKeyring()
	if err := ring.AddTrusted("f", foreign.Public()); !errors.Is(err, ErrMalformed) {
		t.Errorf("a key with a subkey that it has not bound: %v", err)
	}
	if _, err := ring.Verify(bySub, wanted); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("a subkey that the primary key has not bound: %v", err)
	}
	ring = NewKeyring()
	if err := ring.AddTrusted("f", revoked.Public()); err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Verify(bySub, wanted); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("a revoked subkey: %v", err)
	}
	for name, k := range map[string]*sign.Key{"foreign": foreign, "bound": bound} {
		ring := pinning(keyA(), pin{"Release Key", trustPinned})
		if err := ring.AddCandidate("somewhere", k.Public()); err != nil {
			t.Errorf("a pinned key with a %s subkey is lost: %v", name, err)
		}
		if _, err := ring.Verify(bySub, wanted); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("%s subkey of a pinned key: %v", name, err)
		}
		if _, err := ring.Verify(keyA().Message(payload, sign.Options{}), wanted); err != nil {
			t.Errorf("the pinned key beside a %s subkey: %v", name, err)
		}
	}
}

func TestRevokedAndExpired(t *testing.T) {
	day := 24 * time.Hour
	year := keyOld().With(sign.KeyOptions{Lifetime: 365 * day}) // expired a year ago
	early := keyOld().Message(payload, sign.Options{Created: time.Now().AddDate(-1, -6, 0)})
	late := keyOld().Message(payload, sign.Options{Created: time.Now().AddDate(0, -6, 0)})

	ring := trusting(t, year)
	if s, err := ring.Verify(early, wanted); err != nil || !s.KeyExpired {
		t.Errorf("signed before the key expired: %+v, %v", s, err)
	}
	if s, err := ring.Verify(late, wanted); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "after its key had expired") {
		t.Errorf("signed after the key expired: %+v, %v", s, err)
	}
	// Another copy of the key, with a later date, settles it.
	if err := ring.AddTrusted("newer.asc", keyOld().Public()); err != nil {
		t.Fatal(err)
	}
	for _, m := range [][]byte{early, late} {
		if s, err := ring.Verify(m, wanted); err != nil || s.KeyExpired || s.KeySource != "newer.asc" {
			t.Errorf("with a newer copy of the key: %+v, %v", s, err)
		}
	}
	// A revocation counts wherever it was read, also beside a copy without it.
	if err := ring.AddTrusted("revoked.asc", keyOld().With(sign.KeyOptions{Revoked: true}).Public()); err != nil {
		t.Fatal(err)
	}
	if s, err := ring.Verify(early, wanted); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "is revoked, says revoked.asc") {
		t.Errorf("revoked: %+v, %v", s, err)
	}
}

// TestKeyIDCollision gives two keys the same 64-bit id, as somebody with patience could:
// each signature is credited to the key that made it, whichever comes first.
func TestKeyIDCollision(t *testing.T) {
	for _, order := range [][]*sign.Key{{keyA(), keyB()}, {keyB(), keyA()}} {
		ring := trusting(t, order...)
		for i := range ring.keys {
			ring.keys[i].id = keyA().ID()
		}
		s, err := ring.Verify(keyA().Message(payload, sign.Options{}), wanted)
		if err != nil || s.Fingerprint != keyA().Fingerprint() {
			t.Errorf("got %+v, %v", s, err)
		}
	}
	// A stranger's key under the id of a trusted one gains nothing by it.
	ring := trusting(t, keyA())
	ring.keys[0].id = keyB().ID()
	if s, err := ring.Verify(keyB().Message(payload, sign.Options{}), wanted); s != nil || !errors.Is(err, ErrUntrusted) {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestPinnedFingerprints guards the two constants that everything hangs on.
func TestPinnedFingerprints(t *testing.T) {
	want := map[string]trust{
		"567E347AD0044ADE55BA8A5F199E2F91FD431D51": trustPinned,
		"B08B659EE86AF623BC90E8DB938A80CAF21541EB": trustCandidate,
	}
	if len(pinned) != len(want) {
		t.Errorf("%d keys are pinned", len(pinned))
	}
	for f, tr := range want {
		if pinned[f].trust != tr || pinned[f].name == "" {
			t.Errorf("%s is pinned as %+v", f, pinned[f])
		}
	}
}
