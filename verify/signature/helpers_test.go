package signature

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"pannier/verify/signature/sign"
)

// Keys are made once for all tests: each takes a tenth of a second.
var (
	keyA = sync.OnceValue(func() *sign.Key { return mustKey(sign.KeyOptions{Name: "Signer A <a@example.com>"}) })
	keyB = sync.OnceValue(func() *sign.Key { return mustKey(sign.KeyOptions{Name: "Signer B <b@example.com>"}) })
	// keyOld was made two years ago.
	keyOld = sync.OnceValue(func() *sign.Key { return mustKey(sign.KeyOptions{Created: time.Now().AddDate(-2, 0, 0)}) })

	cosignA = sync.OnceValue(func() *sign.CosignKey { return mustCosign(sign.NewRSA()) })
	cosignB = sync.OnceValue(func() *sign.CosignKey { return mustCosign(sign.NewECDSA()) })
)

func mustKey(o sign.KeyOptions) *sign.Key {
	k, err := sign.NewKey(o)
	if err != nil {
		panic(err)
	}
	return k
}

func mustCosign(k *sign.CosignKey, err error) *sign.CosignKey {
	if err != nil {
		panic(err)
	}
	return k
}

const source = "quay.io/openshift-release-dev/ocp-release"

var (
	wanted  = digest.FromString("the release")
	other   = digest.FromString("another release")
	payload = sign.Payload(wanted, source+":4.8.21-x86_64")
)

// trusting returns a ring in which the user trusts keys.
func trusting(t testing.TB, keys ...*sign.Key) *Keyring {
	t.Helper()
	ring := NewKeyring()
	for _, k := range keys {
		if err := ring.AddTrusted("user.asc", k.Public()); err != nil {
			t.Fatal(err)
		}
	}
	return ring
}

// pinning returns an empty ring for which k's fingerprint is pinned.
func pinning(k *sign.Key, p pin) *Keyring {
	ring := NewKeyring()
	ring.pinned = map[string]pin{k.Fingerprint(): p}
	return ring
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }
