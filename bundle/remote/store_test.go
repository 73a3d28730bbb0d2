package remote

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestSignatures(t *testing.T) {
	d := digest.FromString("release")
	sig := func(n byte) []byte { return append([]byte{0xa3, 0x01}, bytes.Repeat([]byte{n}, 700)...) }
	at := func(files map[string][]byte, missing int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			n := strings.TrimPrefix(r.URL.Path, "/store/sha256="+d.Encoded()+"/signature-")
			if b, ok := files[n]; ok {
				w.Write(b)
				return
			}
			w.WriteHeader(missing)
			io.WriteString(w, "<html>gone</html>")
		}
	}
	many := map[string][]byte{}
	for n := byte('1'); n <= '9'; n++ {
		many[string(n)] = sig(n)
	}
	many["10"] = sig('x')
	for name, row := range map[string]struct {
		h      http.HandlerFunc
		status string
		fails  bool
	}{
		"two":                 {at(map[string][]byte{"1": sig(1), "2": sig(2)}, 404), "found 2", false},
		"none":                {at(nil, 404), "404", false},
		"nine at most":        {at(many, 404), "found 9", false},
		"empty, then one":     {at(map[string][]byte{"1": {}, "2": sig(2)}, 404), "found 1", false},
		"page with 200":       {at(nil, 200), "not a signature", false},
		"one, then pages":     {at(map[string][]byte{"1": sig(1)}, 200), "found 1", false},
		"XML":                 {at(map[string][]byte{"1": []byte(`<?xml version="1.0"?>`)}, 404), "not a signature", false},
		"text":                {at(map[string][]byte{"1": []byte("hello")}, 404), "not a signature", false},
		"byte order mark":     {at(map[string][]byte{"1": []byte("\xef\xbb\xbf<html>")}, 404), "not a signature", false},
		"too large":           {at(map[string][]byte{"1": append(sig(1), make([]byte, maxSignature)...)}, 404), "not a signature", false},
		"largest":             {at(map[string][]byte{"1": append(sig(1), make([]byte, maxSignature-702)...)}, 404), "found 1", false},
		"403":                 {at(nil, 403), "error", true},
		"403 between":         {at(map[string][]byte{"2": sig(2)}, 403), "found 1", true},
		"busy, then answered": {busy(2, at(map[string][]byte{"1": sig(1)}, 404)), "found 1", false},
	} {
		s := serve(t, row.h)
		c := newClient(t, Options{})
		a, err := c.Signatures(testContext(t), strings.Replace(s.URL, "http://", "http://user:s3cret@", 1)+"/store", d)
		if err != nil || !strings.HasPrefix(a.Status, row.status) || (a.Err != nil) != row.fails {
			t.Errorf("%s: %q, %v, %v", name, a.Status, a.Err, err)
		}
		if strings.Contains(a.Store+a.URL+a.Status, "s3cret") {
			t.Errorf("%s: tells the password", name)
		}
		if got := c.Contacts(); len(got) != 1 || got[0].Why != WhyStore {
			t.Errorf("%s: contacts %v", name, got)
		}
	}
}

func busy(n int, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if n--; n >= 0 {
			w.WriteHeader(503)
			return
		}
		h(w, r)
	}
}

func TestSignatureDirectory(t *testing.T) {
	d := digest.FromString("release")
	root := t.TempDir()
	dir := filepath.Join(root, "sha256="+d.Encoded())
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Options{})
	ask := func(store string) SignatureAnswer {
		a, err := c.Signatures(testContext(t), store, d)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask(root); a.Status != "404" || a.Err != nil {
		t.Errorf("%+v", a)
	}
	for _, n := range []string{"1", "2"} {
		if err := os.WriteFile(filepath.Join(dir, "signature-"+n), []byte("\xa3\x01"+n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, store := range []string{root, "file://" + root} {
		if a := ask(store); a.Status != "found 2" || string(a.Messages[1]) != "\xa3\x012" {
			t.Errorf("%s: %+v", store, a)
		}
	}
	if a := ask(filepath.Join(root, "nowhere")); a.Err == nil || !strings.HasPrefix(a.Status, "error") {
		t.Errorf("a store that is not there: %+v", a)
	}
	for _, bad := range []string{"", "ftp://h.example/x"} {
		if _, err := c.Signatures(testContext(t), bad, d); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := c.Signatures(testContext(t), root, "sha256:../../x"); err == nil {
		t.Error("a digest that is none was taken")
	}
	if len(c.Contacts()) != 0 {
		t.Errorf("contacts %v", c.Contacts())
	}
	if a := ask("http://127.0.0.1:1/x"); !errors.Is(a.Err, ErrUnreachable) {
		t.Errorf("%+v", a)
	}
}
