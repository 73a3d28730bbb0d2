package custody_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/verify/custody"
)

func descriptors(names ...string) []ocispec.Descriptor {
	var out []ocispec.Descriptor
	for _, n := range names {
		out = append(out, content.Descriptor("x", []byte(n)))
	}
	return out
}

func sampleReceipt() *custody.Receipt {
	return &custody.Receipt{
		Kind: custody.KindReceipt, Format: 1, Time: time.Unix(1e9, 0).UTC(), Program: "pannier devel", Registry: "registry.example:5000/ocp4/openshift4",
		Cluster:      &custody.ReceiptCluster{Version: "4.8.21"},
		Bundles:      []custody.ReceiptBundle{{Bundle: digest.FromString("bundle").String(), Generation: 3}},
		Releases:     []custody.ReceiptRelease{{Release: "4.8.21-x86_64", Digest: digest.FromString("release"), Complete: true}},
		Repositories: []custody.Held{custody.HeldOf("registry.example:5000/ocp4/openshift4", descriptors("m"), descriptors("a", "bc", "a"))},
	}
}

func TestReceipt(t *testing.T) {
	key, line := edKey(t)
	for _, k := range []*custody.Key{nil, key} {
		raw, err := sampleReceipt().Encode(k)
		if err != nil {
			t.Fatal(err)
		}
		r, signer, err := custody.ParseReceipt(raw)
		if err != nil {
			t.Fatal(err)
		}
		if (signer != nil) != (k != nil) || signer != nil && signer.Fingerprint != key.Fingerprint() {
			t.Errorf("signed by %+v", signer)
		}
		if text := r.CountText(); text != "2 blobs + 1 manifest, 4 B" {
			t.Error(text)
		}
		h := r.Holdings()
		if h.Registry.String() != r.Registry || h.Blobs[r.Registry][digest.FromString("bc")] != 2 || len(h.Blobs[r.Registry]) != 2 {
			t.Errorf("%+v", h)
		}
		again, err := r.Encode(nil)
		if first, _, _ := bytes.Cut(raw, []byte("\n")); err != nil || !bytes.Equal(bytes.TrimSuffix(again, []byte("\n")), first) {
			t.Errorf("it comes out another: %s (%v)", again, err)
		}
	}

	// Whose key it is a file of signers says, for receipts as for logs.
	raw, err := sampleReceipt().Encode(key)
	if err != nil {
		t.Fatal(err)
	}
	_, signer, err := custody.ParseReceipt(raw)
	if err != nil {
		t.Fatal(err)
	}
	for options, want := range map[string]bool{"": true, `namespaces="pannier-receipt" `: true, `namespaces="pannier-custody" `: false} {
		trusted, err := custody.ParseSigners([]byte("officer@example.com " + options + line))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := trusted.Name(signer, time.Now()); ok != want {
			t.Errorf("%q: trusted %v", options, ok)
		}
	}
}

func TestReceiptIsRefused(t *testing.T) {
	key, _ := edKey(t)
	good, err := sampleReceipt().Encode(key)
	if err != nil {
		t.Fatal(err)
	}
	line, signature, _ := strings.Cut(string(good), "\n")
	signature = "\n" + signature
	d := func(s string) string { return digest.FromString(s).String() }
	a, bc := d("a"), d("bc")
	first, second := min(a, bc), max(a, bc)
	for name, c := range map[string]struct {
		raw  string
		want error
	}{
		"a digit changed":         {strings.Replace(line, a+" 1", a+" 2", 1) + signature, custody.ErrSignature},
		"a signature cut":         {string(good[:len(good)-40]), content.ErrInvalid},
		"another signature":       {line + strings.Replace(signature, "U1NIU0lH", "U1NIU0lI", 1), custody.ErrSignature},
		"an empty signature":      {line + "\n{}\n", custody.ErrSignature},
		"three lines":             {string(good) + "{}\n", content.ErrInvalid},
		"no line feed":            {line, content.ErrInvalid},
		"nothing":                 {"", content.ErrInvalid},
		"no JSON":                 {"x\n", content.ErrInvalid},
		"two values":              {line + "{}" + "\n", content.ErrInvalid},
		"another kind":            {strings.Replace(line, "pannier-receipt", "pannier-recipe", 1) + "\n", content.ErrInvalid},
		"a newer format":          {strings.Replace(line, `"format":1`, `"format":2,"repositories":7`, 1) + "\n", bundle.ErrVersion},
		"no format":               {strings.Replace(line, `"format":1`, `"format":0`, 1) + "\n", content.ErrInvalid},
		"no registry":             {strings.Replace(line, `"registry":"registry.example:5000/ocp4/openshift4"`, `"registry":"x"`, 1) + "\n", content.ErrInvalid},
		"a repository that isn't": {strings.Replace(line, `"repository":"registry`, `"repository":"../`, 1) + "\n", content.ErrInvalid},
		"a digest that is none":   {strings.Replace(line, a, "sha256:12", 1) + "\n", content.ErrInvalid},
		"another algorithm":       {strings.Replace(line, a, "sha512:"+strings.Repeat("0", 128), 1) + "\n", content.ErrInvalid},
		"a size below nothing":    {strings.Replace(line, a+" 1", a+" -1", 1) + "\n", content.ErrInvalid},
		"a size of many digits":   {strings.Replace(line, a+" 1", a+" 01", 1) + "\n", content.ErrInvalid},
		"a huge size":             {strings.Replace(line, a+" 1", a+" 9000000000000000000", 1) + "\n", content.ErrInvalid},
		"no size":                 {strings.Replace(line, a+" 1", a, 1) + "\n", content.ErrInvalid},
		"out of order":            {strings.Replace(strings.Replace(strings.Replace(line, first, "X", 1), second, first, 1), "X", second, 1) + "\n", content.ErrInvalid},
		"an escape":               {strings.Replace(line, "pannier devel", `pannier \u001b[2J`, 1) + "\n", content.ErrInvalid},
		"too long":                {strings.Repeat(" ", custody.MaxReceipt) + "\n", content.ErrInvalid},
	} {
		if _, _, err := custody.ParseReceipt([]byte(c.raw)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}

	// What is signed for a custody log is no receipt.
	other, err := key.Sign(custody.Namespace, []byte(line+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := custody.ParseReceipt([]byte(line + "\n" + `{"signature":"` + strings.ReplaceAll(string(other), "\n", `\n`) + `"}`)); !errors.Is(err, custody.ErrSignature) {
		t.Errorf("another namespace: %v", err)
	}
	// Nor is anything written that could not be read again.
	bad := sampleReceipt()
	bad.Registry = "x"
	if _, err := bad.Encode(nil); !errors.Is(err, content.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func FuzzParseReceipt(f *testing.F) {
	key, _ := edKey(f)
	for _, k := range []*custody.Key{nil, key} {
		raw, err := sampleReceipt().Encode(k)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"kind":"pannier-inventory","format":1,"registry":"a/b","repositories":[{"repository":"a/b","blobs":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0"]}]}` + "\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, _, err := custody.ParseReceipt(raw)
		if err != nil {
			return
		}
		out, err := r.Encode(nil)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, _, err := custody.ParseReceipt(out); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		r.Holdings()
	})
}

// The log beside a drive names lines of the drive's own log: who has it sees when that was
// changed since, also if its chain was made whole again.
func TestBeside(t *testing.T) {
	key, line := edKey(t)
	trusted, err := custody.ParseSigners([]byte("officer@example.com " + line))
	if err != nil {
		t.Fatal(err)
	}
	drive := custody.Parse([]byte(`{"event":"packed"}` + "\n"))
	name := filepath.Join(t.TempDir(), "log")
	if raw, err := custody.ReadBeside(name); err != nil || len(raw) > 0 {
		t.Fatalf("%q, %v", raw, err)
	}
	for _, event := range []string{custody.Audited, custody.Unpacked} {
		if err := custody.AppendBeside(name, key, custody.Entry{Event: event, Instance: "one", Drive: drive.Last()}); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := custody.ReadBeside(name)
	if err != nil {
		t.Fatal(err)
	}
	if s := custody.LookBeside(raw, "one", drive, trusted, time.Now()); len(s.Problems) > 0 || !s.Trusted || s.Lines != 4 {
		t.Errorf("%+v", s)
	}
	longer := custody.Parse([]byte(`{"event":"packed"}` + "\n" + `{"previous":"` + drive.Last().String() + `","event":"repaired"}` + "\n"))
	if s := custody.LookBeside(raw, "one", longer, trusted, time.Now()); len(s.Problems) > 0 {
		t.Errorf("the drive's log went on: %v", s.Problems)
	}
	other := custody.Parse([]byte(`{"event":"sealed"}` + "\n"))
	if s := custody.LookBeside(raw, "one", other, trusted, time.Now()); len(s.Problems) != 2 || s.Trusted {
		t.Errorf("another log on the drive: %+v", s)
	}
	if s := custody.LookBeside(raw, "another", other, trusted, time.Now()); len(s.Problems) > 0 {
		t.Errorf("another drive: %v", s.Problems)
	}
	if s := custody.LookBeside(bytes.Replace(raw, []byte("audited"), []byte("trusted"), 1), "one", drive, trusted, time.Now()); len(s.Problems) == 0 || s.Trusted {
		t.Errorf("changed: %+v", s)
	}

	if err := os.WriteFile(name, make([]byte, 16<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := custody.AppendBeside(name, nil, custody.Entry{Event: custody.Audited}); !errors.Is(err, custody.ErrFull) {
		t.Errorf("%v", err)
	}
}
