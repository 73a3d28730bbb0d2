package signature

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/bundle"
	"pannier/bundle/release"
	"pannier/verify/signature/sign"
)

const components = "quay.io/openshift-release-dev/ocp-v4.0-art-dev"

// aRelease is a release of some version with the given OpenPGP messages.
func aRelease(version, arch string, messages ...[]byte) bundle.SignedRelease {
	return bundle.SignedRelease{Digest: wanted, Version: version, Arch: arch, Source: source, Messages: messages}
}

func messageOf(k *sign.Key, version, arch string) []byte {
	return k.Message(sign.Payload(wanted, source+":"+version+"-"+arch), sign.Options{})
}

// checkVerdict compares what decides, and looks for sentences among problems and notes.
func checkVerdict(t *testing.T, got bundle.SignatureVerdict, status string, accepted int, problems, notes []string) {
	t.Helper()
	if got.Status != status || len(got.Accepted) != accepted || len(got.Problems) != len(problems) {
		t.Errorf("%s, %d accepted, want %s and %d; problems %q, want %d", got.Status, len(got.Accepted), status, accepted, got.Problems, len(problems))
	}
	for _, want := range problems {
		if !strings.Contains(strings.Join(got.Problems, "\n"), want) {
			t.Errorf("no problem says %q: %q", want, got.Problems)
		}
	}
	for _, want := range notes {
		if !strings.Contains(strings.Join(got.Notes, "\n"), want) {
			t.Errorf("no note says %q: %q", want, got.Notes)
		}
	}
}

func TestVerifyRelease(t *testing.T) {
	good := messageOf(keyA(), "4.8.21", "x86_64")
	for _, c := range []struct {
		name            string
		release         bundle.SignedRelease
		status          string
		accepted        int
		problems, notes []string
	}{
		{"signed", aRelease("4.8.21", "x86_64", good), "verified", 1, nil, nil},
		{"signed twice, the same", aRelease("4.8.21", "x86_64", good, good), "verified", 1, nil, nil},
		{"signed by two", aRelease("4.8.21", "x86_64", messageOf(keyB(), "4.8.21", "x86_64"), good), "verified", 2, []string{"signature 1: unknown key"}, nil},
		{"nothing", aRelease("4.8.21", "x86_64"), "missing", 0, nil, nil},
		{"an error page", aRelease("4.8.21", "x86_64", []byte("<html>")), "missing", 0, []string{"signature 1: malformed"}, nil},
		{"an error page first", aRelease("4.8.21", "x86_64", []byte("<html>"), good), "verified", 1, []string{"signature 1: malformed"}, nil},
		{"by somebody", aRelease("4.8.21", "x86_64", messageOf(keyB(), "4.8.21", "x86_64")), "unverified", 1, []string{"unknown key"}, nil},
		{"of another digest", aRelease("4.8.21", "x86_64", keyA().Message(sign.Payload(other, source+":4.8.21-x86_64"), sign.Options{})), "missing", 0, []string{"it signs"}, nil},
		{"of another digest, by somebody", aRelease("4.8.21", "x86_64", keyB().Message(sign.Payload(other, source+":4.8.21-x86_64"), sign.Options{})), "missing", 0, []string{"it signs"}, nil},
		{"of another version", aRelease("4.8.22", "x86_64", good), "unverified", 1, []string{"not as 4.8.22-x86_64"}, nil},
		{"of another architecture", aRelease("4.8.21", "s390x", good), "unverified", 1, []string{"not as 4.8.21-s390x"}, nil},
		{"from another repository", bundle.SignedRelease{Digest: wanted, Version: "4.8.21", Arch: "x86_64", Source: "mirror/x", Messages: [][]byte{good}},
			"verified", 1, nil, []string{"comes from mirror/x"}},
		{"in OKD's way", aRelease("4.8.21", "x86_64", keyA().Message(sign.Payload(wanted, source+":4.8.21"), sign.Options{})), "verified", 1, nil, []string{"names no architecture"}},
		{"too many", aRelease("4.8.21", "x86_64", distinct(70)...), "unverified", 64, append(repeatText("unknown key", 64), "6 signatures more"), nil},
		{"with a key of the payload's own", withKeys(aRelease("4.8.21", "x86_64", messageOf(keyB(), "4.8.21", "x86_64")), keyB().Public()), "unverified", 1,
			[]string{"it may be key " + keyB().Fingerprint() + " of the release's own key-0"}, nil},
		{"with nonsense for a key", withKeys(aRelease("4.8.21", "x86_64", good), []byte("nonsense")), "verified", 1, nil, []string{"release's own key-0: malformed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &Verifier{Keyring: trusting(t, keyA())}
			got, err := v.VerifyRelease(context.Background(), c.release)
			if err != nil {
				t.Fatal(err)
			}
			checkVerdict(t, got, c.status, c.accepted, c.problems, c.notes)
			if verified := c.status == "verified"; (got.Fingerprint == keyA().Fingerprint()) != verified || (got.KeySource == "user.asc") != verified {
				t.Errorf("key %q from %q", got.Fingerprint, got.KeySource)
			}
		})
	}
}

func repeatText(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func distinct(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		body := append(sign.Payload(wanted, source+":4.8.21-x86_64"), strings.Repeat(" ", i)...)
		out[i] = keyB().Message(body, sign.Options{})
	}
	return out
}

func withKeys(r bundle.SignedRelease, rings ...[]byte) bundle.SignedRelease {
	for i, data := range rings {
		r.Keys = append(r.Keys, release.File{Name: fmt.Sprintf("key-%d", i), Data: data})
	}
	return r
}

// TestKeySources: a pinned key is taken from a system file or from the payload itself.
func TestKeySources(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "RPM-GPG-KEY")
	if err := os.WriteFile(file, join(keyB().Public(), keyA().Public()), 0o644); err != nil {
		t.Fatal(err)
	}
	r := aRelease("4.8.21", "x86_64", messageOf(keyA(), "4.8.21", "x86_64"))
	for _, c := range []struct {
		name, source string
		files        []string
		release      bundle.SignedRelease
	}{
		{"system file", file, []string{filepath.Join(dir, "absent"), file}, r},
		{"payload", "the release's own key-0", nil, withKeys(r, keyA().Public())},
	} {
		v := &Verifier{Keyring: pinning(keyA(), pin{"Release Key", trustPinned}), SystemKeyFiles: c.files}
		got, err := v.VerifyRelease(context.Background(), c.release)
		if err != nil || got.Status != "verified" || got.Key != "Release Key" || got.KeySource != c.source {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
		if len(v.Keyring.keys) > 0 {
			t.Errorf("%s: the caller's ring has grown", c.name)
		}
	}
	beta := &Verifier{Keyring: pinning(keyA(), pin{"Beta Key", trustCandidate}), SystemKeyFiles: []string{file}}
	got, err := beta.VerifyRelease(context.Background(), r)
	if err != nil || got.Status != "unverified" || !strings.Contains(strings.Join(got.Problems, ""), "Beta Key") {
		t.Errorf("beta key, final version: %+v, %v", got, err)
	}
	got, err = beta.VerifyRelease(context.Background(), aRelease("4.8.0-rc.1", "x86_64", messageOf(keyA(), "4.8.0-rc.1", "x86_64")))
	if err != nil || got.Status != "verified" || !strings.Contains(strings.Join(got.Notes, ""), "Beta Key") {
		t.Errorf("beta key, candidate: %+v, %v", got, err)
	}
	unreadable := &Verifier{SystemKeyFiles: []string{dir}}
	if got, err := unreadable.VerifyRelease(context.Background(), r); err == nil {
		t.Errorf("a system key file that cannot be read: %+v", got)
	}
	// No ring and no files: still a verdict.
	got, err = (&Verifier{}).VerifyRelease(context.Background(), r)
	if err != nil || got.Status != "unverified" {
		t.Errorf("no keys: %+v, %v", got, err)
	}
}

func TestVerifyReleaseCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	v := &Verifier{Keyring: trusting(t, keyA())}
	got, err := v.VerifyRelease(ctx, aRelease("4.8.21", "x86_64", messageOf(keyA(), "4.8.21", "x86_64")))
	if !errors.Is(err, context.Canceled) || got.Status == "verified" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestVerifyMulti(t *testing.T) {
	childA, childB := digest.FromString("amd64"), digest.FromString("arm64")
	r := aRelease("4.15.0", "multi", messageOf(keyA(), "4.15.0", "multi"))
	r.Children = map[digest.Digest][][]byte{
		childA: {keyA().Message(sign.Payload(childA, source+":4.15.0-multi-x86_64"), sign.Options{})},
		childB: {keyA().Message(sign.Payload(childB, source+":4.14.0-aarch64"), sign.Options{})},
	}
	v := &Verifier{Keyring: trusting(t, keyA())}
	got, err := v.VerifyRelease(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	checkVerdict(t, got, "verified", 1, nil, []string{"1 of 2 images of the list", "of child " + childB.String()})

	// The signatures of children do not vouch for their list, nor does a child pass for it.
	r.Messages = r.Children[childA]
	if got, err = v.VerifyRelease(context.Background(), r); err != nil || got.Status != "missing" {
		t.Errorf("a child's signature for the list: %+v, %v", got, err)
	}
	r = aRelease("4.15.0", "x86_64", messageOf(keyA(), "4.15.0", "multi"))
	if got, err = v.VerifyRelease(context.Background(), r); err != nil || got.Status != "unverified" {
		t.Errorf("a multi release as a single one: %+v, %v", got, err)
	}
}

// sigstoreRelease is a release of a version, well signed with OpenPGP, whose payload has a
// policy with cosignA's key for scopes, and with two components.
func sigstoreRelease(t *testing.T, version, arch string, scopes ...string) bundle.SignedRelease {
	t.Helper()
	r := aRelease(version, arch, messageOf(keyA(), version, arch))
	r.Images = []release.Image{
		{Name: "etcd", Repository: components, Digest: digest.FromString("etcd")},
		{Name: "oc", Repository: components, Digest: digest.FromString("oc")},
		{Name: "oc-again", Repository: components, Digest: digest.FromString("oc")},
	}
	if len(scopes) > 0 {
		key, err := cosignA().PEM()
		if err != nil {
			t.Fatal(err)
		}
		r.Policies = []release.File{{Name: "policy.yaml", Data: sign.ImagePolicy("openshift", key, scopes...)}}
	}
	return r
}

func sig(k *sign.CosignKey, subject digest.Digest, repository string) bundle.SigstoreImage {
	i := mustImage(k.Sign(subject, repository))
	return bundle.SigstoreImage{Subject: subject, Repository: repository, Manifest: i.Manifest, Layers: i.Layers}
}

func TestSigstoreRule(t *testing.T) {
	own, stranger := cosignA(), cosignB()
	rel := sig(own, wanted, source)
	etcd, oc := sig(own, digest.FromString("etcd"), components), sig(own, digest.FromString("oc"), components)
	moved := rel // another image's signature, lying at our tag
	moved.Manifest, moved.Layers = etcd.Manifest, etcd.Layers
	all := []bundle.SigstoreImage{rel, etcd, oc}

	for _, c := range []struct {
		name, version, arch string
		scopes              []string
		images              []bundle.SigstoreImage
		user                *sign.CosignKey
		status              string
		problems, notes     []string
	}{
		{"4.20, no signature, no policy", "4.20.1", "x86_64", nil, nil, nil, "verified", nil, nil},
		{"4.20, no signature", "4.20.1", "x86_64", []string{source}, nil, nil, "verified", nil, []string{"from 4.21 on"}},
		{"4.20, wrong signature", "4.20.1", "x86_64", []string{source}, []bundle.SigstoreImage{sig(stranger, wanted, source)}, nil, "verified", []string{"not signed by the expected key"}, nil},
		{"4.20, good", "4.20.1", "x86_64", []string{source}, all[:1], nil, "verified", nil, []string{"valid sigstore signature"}},
		{"4.21, no policy", "4.21.0", "x86_64", nil, nil, nil, "verified", nil, []string{"no policy that asks for one"}},
		{"4.21, no policy, a signature", "4.21.0", "x86_64", nil, all, nil, "verified", nil, []string{"release image: its sigstore signature was not checked", "components etcd, oc: its"}},
		{"4.21, policy for others", "4.21.0", "x86_64", []string{"registry.redhat.io"}, nil, nil, "verified", nil, []string{"no policy that asks for one"}},
		{"4.21, good", "4.21.0", "x86_64", []string{source}, all[:1], nil, "verified", nil, nil},
		{"4.21, good, components absent", "4.21.0", "x86_64", []string{source, components}, all[:1], nil, "verified", nil, []string{"components etcd, oc without", "from 4.22 on"}},
		{"4.21, absent", "4.21.0", "x86_64", []string{source}, nil, nil, "unverified", []string{"refuses to run it"}, nil},
		{"4.21 candidate, absent", "4.21.0-rc.1", "x86_64", []string{source}, nil, nil, "unverified", []string{"refuses to run it"}, nil},
		{"4.21, whole registry in scope", "4.21.0", "x86_64", []string{"quay.io"}, nil, nil, "unverified", []string{"refuses to run it"}, []string{"components etcd, oc without"}},
		{"4.21, stranger's", "4.21.0", "x86_64", []string{source}, []bundle.SigstoreImage{sig(stranger, wanted, source)}, nil, "unverified", []string{"not signed by the expected key"}, nil},
		{"4.21, another image's", "4.21.0", "x86_64", []string{source}, []bundle.SigstoreImage{moved}, nil, "unverified", []string{"it signs"}, nil},
		{"4.21, another repository's", "4.21.0", "x86_64", []string{source}, []bundle.SigstoreImage{sig(own, wanted, "quay.io/x")}, nil, "unverified", []string{"it is for repository"}, nil},
		{"4.21, user's key", "4.21.0", "x86_64", []string{source}, []bundle.SigstoreImage{sig(stranger, wanted, source)}, stranger, "verified", nil, []string{"by the user's key"}},
		{"4.21, user's key, no policy", "4.21.0", "x86_64", nil, []bundle.SigstoreImage{sig(stranger, wanted, source)}, stranger, "verified", nil, []string{"valid sigstore"}},
		{"4.21, not the user's, no policy", "4.21.0", "x86_64", nil, all[:1], stranger, "verified", []string{"not signed by the expected key"}, nil},
		{"4.21, policy's, not the user's", "4.21.0", "x86_64", []string{source}, all[:1], stranger, "verified", nil, []string{"valid sigstore"}},
		{"4.22, good", "4.22.0", "x86_64", []string{source, components}, all, nil, "verified", nil, []string{"2 of 2 component"}},
		{"4.22, component absent", "4.22.0", "x86_64", []string{source, components}, all[:2], nil, "unverified", []string{"component oc without"}, nil},
		{"4.22, component wrong", "4.22.0", "x86_64", []string{source, components}, []bundle.SigstoreImage{rel, etcd, sig(stranger, oc.Subject, components)}, nil,
			"unverified", []string{"component oc: policy openshift: not signed"}, nil},
		{"4.22, components not in scope", "4.22.0", "x86_64", []string{source}, all[:1], nil, "verified", nil, nil},
		{"4.22 multi, lists without", "4.22.0", "multi", []string{source, components}, all[:1], nil, "verified", nil, []string{"as is usual"}},
		{"4.22 multi, list wrong", "4.22.0", "multi", []string{source, components}, []bundle.SigstoreImage{rel, sig(stranger, oc.Subject, components)}, nil,
			"unverified", []string{"component oc: policy"}, []string{"component etcd without"}},
		{"5.0, absent", "5.0.0", "x86_64", []string{source}, nil, nil, "unverified", []string{"refuses"}, nil},
		{"something else is signed, badly", "4.21.0", "x86_64", []string{source}, []bundle.SigstoreImage{rel, sig(stranger, other, source)}, nil, "verified", []string{"sigstore signature of " + other.String()}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := sigstoreRelease(t, c.version, c.arch, c.scopes...)
			r.Sigstore = c.images
			ring := trusting(t, keyA())
			if c.user != nil {
				pemKey, err := c.user.PEM()
				if err == nil {
					err = ring.AddTrusted("user.pem", pemKey)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			got, err := (&Verifier{Keyring: ring}).VerifyRelease(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			checkVerdict(t, got, c.status, 1, c.problems, c.notes)
		})
	}
}

// TestSigstoreNeedsOpenPGP: the policies of a payload that nobody vouches for decide nothing.
func TestSigstoreNeedsOpenPGP(t *testing.T) {
	r := sigstoreRelease(t, "4.21.0", "x86_64", source)
	r.Sigstore = []bundle.SigstoreImage{sig(cosignA(), wanted, source)}
	r.Messages = nil
	got, err := (&Verifier{Keyring: trusting(t, keyA())}).VerifyRelease(context.Background(), r)
	if err != nil || got.Status != "missing" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestSigstorePolicies(t *testing.T) {
	keyOf := func(k *sign.CosignKey) []byte {
		b, err := k.PEM()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one := sign.ImagePolicy("one", keyOf(cosignA()), source)
	two := sign.ImagePolicy("two", keyOf(cosignB()), source)
	byA, byB := sig(cosignA(), wanted, source), sig(cosignB(), wanted, source)
	for _, c := range []struct {
		name, version string
		policies      [][]byte
		images        []bundle.SigstoreImage
		status        string
		says          string
	}{
		{"both keys asked for, both there", "4.21.0", [][]byte{one, two}, []bundle.SigstoreImage{byA, byB}, "verified", ""},
		{"both keys asked for, one there", "4.21.0", [][]byte{one, two}, []bundle.SigstoreImage{byA}, "unverified", "policy two"},
		{"unreadable policy", "4.21.0", [][]byte{one, []byte("a: [")}, []bundle.SigstoreImage{byA}, "unverified", "policy-1"},
		{"unreadable policy, 4.20", "4.20.0", [][]byte{[]byte("a: [")}, nil, "verified", "policy-0"},
		{"a root of trust that cannot be checked", "4.21.0", [][]byte{[]byte(strings.Replace(string(one), "PublicKey", "PKI", 1))}, []bundle.SigstoreImage{byA}, "unverified", "cannot be checked"},
		{"an unknown rule for names", "4.21.0", [][]byte{append(one[:len(one):len(one)], "    signedIdentity: {matchPolicy: New}\n"...)}, []bundle.SigstoreImage{byA}, "unverified", "unknown rule"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := aRelease(c.version, "x86_64", messageOf(keyA(), c.version, "x86_64"))
			for i, p := range c.policies {
				r.Policies = append(r.Policies, release.File{Name: fmt.Sprintf("policy-%d", i), Data: p})
			}
			r.Sigstore = c.images
			got, err := (&Verifier{Keyring: trusting(t, keyA())}).VerifyRelease(context.Background(), r)
			if err != nil || got.Status != c.status || !strings.Contains(strings.Join(got.Problems, "\n"), c.says) {
				t.Errorf("%s, problems %q, %v; want %s saying %q", got.Status, got.Problems, err, c.status, c.says)
			}
		})
	}
}
