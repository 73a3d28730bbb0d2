package custody_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/ssh"

	"pannier/bundle/layout"
	"pannier/verify/custody"
)

// drive is an empty image layout.
func drive(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "drive")
	l, err := layout.Create(dir, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func logFile(dir string) string { return filepath.Join(dir, filepath.FromSlash(custody.LogName)) }

func readLog(t *testing.T, dir string) *custody.Log {
	t.Helper()
	raw, err := os.ReadFile(logFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	return custody.Parse(raw)
}

func look(t *testing.T, dir string, trusted *custody.Signers) *custody.State {
	t.Helper()
	l, err := layout.Open(dir, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return custody.Look(l, trusted, time.Now())
}

func record(t *testing.T, dir string, key *custody.Key, events ...string) {
	t.Helper()
	for _, e := range events {
		if err := custody.Append(dir, "test", key, custody.Entry{Event: e, Time: time.Unix(1e9, 0).UTC(), Detail: "a <b> & c"}); err != nil {
			t.Fatal(err)
		}
	}
}

// newKey returns a key and its line in a file of trusted signers.
func newKey(t testing.TB, private any) (*custody.Key, string) {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := custody.ParseKey(pem.EncodeToMemory(block))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

func edKey(t testing.TB) (*custody.Key, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newKey(t, private)
}

func signers(t *testing.T, lines ...string) *custody.Signers {
	t.Helper()
	s, err := custody.ParseSigners([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Whatever is changed in the log before its last line, the chain tells.
func TestChain(t *testing.T) {
	dir := drive(t)
	record(t, dir, nil, custody.Packed, custody.Sealed, custody.Repaired)
	raw, err := os.ReadFile(logFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	if l := custody.Parse(raw); len(l.Lines) != 3 || len(l.Problems) > 0 {
		t.Fatalf("%d lines, problems %q", len(l.Lines), l.Problems)
	}
	last := bytes.LastIndexByte(raw[:len(raw)-1], '\n') + 1
	for i := range last {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if len(custody.Parse(bad).Problems) == 0 {
			t.Errorf("byte %d changed, and nobody notices: %s", i, bad[:last])
		}
	}
	lines := bytes.SplitAfter(raw, []byte{'\n'})
	for name, bad := range map[string][]byte{
		"first removed":  bytes.Join(lines[1:], nil),
		"middle removed": bytes.Join([][]byte{lines[0], lines[2]}, nil),
		"doubled":        bytes.Join([][]byte{lines[0], lines[0], lines[1], lines[2]}, nil),
		"swapped":        bytes.Join([][]byte{lines[1], lines[0], lines[2]}, nil),
		"cut":            raw[:len(raw)-1],
	} {
		if len(custody.Parse(bad).Problems) == 0 {
			t.Errorf("%s: nobody notices", name)
		}
	}
}

// A line that an interruption cut short stays, told of, and the chain goes on over it.
func TestTornLine(t *testing.T) {
	dir := drive(t)
	record(t, dir, nil, custody.Packed, custody.Sealed)
	raw, _ := os.ReadFile(logFile(dir))
	if err := os.WriteFile(logFile(dir), raw[:len(raw)-20], 0o644); err != nil {
		t.Fatal(err)
	}
	record(t, dir, nil, custody.Repaired)
	l := readLog(t, dir)
	if len(l.Lines) != 3 || len(l.Problems) != 1 || !strings.Contains(l.Problems[0], "line 2 cannot be read") || l.Lines[2].Event != custody.Repaired {
		t.Fatalf("%d lines, problems %q", len(l.Lines), l.Problems)
	}
	if want := digest.FromBytes(append(bytes.Clone(raw[bytes.IndexByte(raw, '\n')+1:len(raw)-20]), '\n')); l.Lines[2].Previous != want {
		t.Errorf("the line after the torn one names %s, not %s", l.Lines[2].Previous, want)
	}
}

func TestSigned(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ed, edLine := edKey(t)
	rs, rsLine := newKey(t, rsaKey)
	_, stranger := edKey(t)
	for name, c := range map[string]struct {
		key  *custody.Key
		line string
	}{"ed25519": {ed, edLine}, "rsa": {rs, rsLine}} {
		t.Run(name, func(t *testing.T) {
			dir := drive(t)
			record(t, dir, c.key, custody.Packed, custody.Sealed)
			s := look(t, dir, signers(t, `officer@example.com namespaces="pannier-*" `+c.line))
			if !s.Trusted || s.Lines != 4 || len(s.Problems) > 0 || !strings.Contains(s.Vouched, "officer@example.com signed it") {
				t.Fatalf("%+v", s)
			}
			for why, line := range map[string]string{
				"a key of somebody else": "officer " + stranger,
				"another namespace":      `officer namespaces="git" ` + c.line,
				"too early":              `officer valid-after="29990101Z" ` + c.line,
				"too late":               `officer valid-before="20200101Z" ` + c.line,
			} {
				if s := look(t, dir, signers(t, line)); s.Trusted || !strings.Contains(s.Vouched, "names nobody with that key") {
					t.Errorf("%s: %+v", why, s)
				}
			}
			// What comes after the signature is nobody's word.
			record(t, dir, nil, custody.Repaired)
			if s := look(t, dir, signers(t, "officer "+c.line)); s.Trusted || !strings.Contains(s.Vouched, "but for the last 1 line") {
				t.Errorf("an unsigned line at the end: %+v", s)
			}
			raw, _ := os.ReadFile(logFile(dir))
			if err := os.WriteFile(logFile(dir), bytes.Replace(raw, []byte("a \\u003cb"), []byte("A \\u003cb"), 1), 0o644); err != nil {
				t.Fatal(err)
			}
			if s := look(t, dir, signers(t, "officer "+c.line)); len(s.Problems) < 2 || !strings.Contains(strings.Join(s.Problems, "\n"), "is no signature of the line before it") {
				t.Errorf("a signed line that was changed: %q", s.Problems)
			}
		})
	}
}

func TestSignersRefused(t *testing.T) {
	_, line := edKey(t)
	for _, bad := range []string{"officer", line, "officer cert-authority " + line, `officer valid-after="soon" ` + line, "officer " + line[:40], `"officer ` + line} {
		if s, err := custody.ParseSigners([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, s)
		}
	}
	if _, err := custody.ParseSigners([]byte("# nobody\n\n\"a, b\" " + line + "\n")); err != nil {
		t.Error(err)
	}
}

func TestAttach(t *testing.T) {
	dir := drive(t)
	key, line := edKey(t)
	a := custody.Attachment{Data: []byte("nothing found\n"), Name: `..\..\C:\Scan Log ünï.TXT`, As: "ClamAV 1.4"}
	f, err := custody.Attach(dir, "test", key, a, custody.Entry{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(f.Path, "-scan-log--n-.txt") || filepath.Dir(f.Path) != custody.Folder {
		t.Errorf("it is at %s", f.Path)
	}
	// Half of it, from an attach that was interrupted, is in the way of nobody.
	file := filepath.Join(dir, filepath.FromSlash(f.Path))
	if err := os.WriteFile(file, a.Data[:3], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := custody.Attach(dir, "test", key, a, custody.Entry{}); err != nil {
		t.Fatal(err)
	}
	trusted := signers(t, "officer "+line)
	if s := look(t, dir, trusted); !s.Trusted || len(s.Problems) > 0 || len(s.Attached) != 1 || !s.Attached[0].Whole {
		t.Fatalf("%+v", s)
	}
	if err := os.WriteFile(file, []byte("nothing FOUND\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "stray"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if s := look(t, dir, trusted); len(s.Problems) != 1 || s.Attached[0].Whole || len(s.Unlisted) != 1 {
		t.Errorf("a changed file and a stray one: %+v", s)
	}
	for _, bad := range []custody.Attachment{{As: "x"}, {Data: []byte("x")}, {Data: []byte("x"), As: "a\nb"}, {Data: []byte("x"), As: strings.Repeat("a", 201)}, {Data: make([]byte, custody.MaxAttachment+1), As: "x"}} {
		if _, err := custody.Attach(dir, "test", nil, bad, custody.Entry{}); err == nil {
			t.Errorf("%d bytes as %q were attached", len(bad.Data), bad.As)
		}
	}
}

// A log leads nowhere: only what an attach can have made is looked at.
func TestAttachedElsewhere(t *testing.T) {
	dir := drive(t)
	d := digest.FromString("")
	for _, path := range []string{"oci-layout", "../secret", custody.Folder + "/../../oci-layout", custody.Folder + "/x", "/etc/passwd"} {
		e := custody.Entry{Event: custody.Attached, File: &custody.File{Path: path, Digest: d, As: "x"}}
		if err := custody.Append(dir, "test", nil, e); err != nil {
			t.Fatal(err)
		}
	}
	if s := look(t, dir, nil); len(s.Problems) != 5 || len(s.Attached) != 0 {
		t.Errorf("%+v", s)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"event":"packed"}` + "\n" + `{"previous":"sha256:00","event":"signed","signature":"x"}` + "\n" + `{"event":"attached","file":{}}`))
	f.Add([]byte("\n\n{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l := custody.Parse(raw)
		n := 0
		for _, line := range l.Lines {
			n = max(n, line.Number)
		}
		if n != len(l.Lines) {
			t.Fatal("lines are not counted")
		}
		_, _ = l.Last(), l.Attached()
	})
}

func FuzzSignature(f *testing.F) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		f.Fatal(err)
	}
	key, err := custody.ParseKey(pem.EncodeToMemory(block))
	if err != nil {
		f.Fatal(err)
	}
	message := []byte("a message\n")
	sig, err := key.Sign(custody.Namespace, message)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(message, sig)
	f.Add(message, []byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQ==\n-----END SSH SIGNATURE-----\n"))
	f.Fuzz(func(t *testing.T, m, s []byte) {
		who, err := custody.VerifySignature(custody.Namespace, m, s)
		if err == nil && who.Fingerprint == key.Fingerprint() && !bytes.Equal(m, message) {
			t.Fatalf("%q passes for signed", m)
		}
	})
}

func FuzzSigners(f *testing.F) {
	f.Add([]byte("a ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPqPMFbUXDrBUBpBvxCyHfcRHEDzAnFQyKNTTXIdkYpS\n"))
	f.Add([]byte(`"a b" namespaces="x",valid-after="20200101" ssh-ed25519 AAAA`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if s, err := custody.ParseSigners(raw); err == nil {
			s.Name(nil, time.Now())
		}
	})
}
