package remote

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"oras.land/oras-go/v2/registry/remote/auth"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// authFileFor writes an auth file of pairs key, "user:password".
func authFileFor(t *testing.T, pairs ...string) string {
	t.Helper()
	var entries []string
	for i := 0; i+1 < len(pairs); i += 2 {
		entries = append(entries, fmt.Sprintf("%q:{%q:%q}", pairs[i], "auth", b64(pairs[i+1])))
	}
	return write(t, "auth.json", `{"auths":{`+strings.Join(entries, ",")+`}}`)
}

func TestCredentialLookup(t *testing.T) {
	file := write(t, "auth.json", `{"auths":{
		"quay.io": {"auth": "`+b64("host:h")+`"},
		"quay.io/a": {"auth": "`+b64("a:with:colons:")+`"},
		"quay.io/a/b": {"auth": "`+b64("ab:p")+`"},
		"https://legacy.example/v1/": {"auth": "`+b64("l:p")+`"},
		"https://index.docker.io/v1/": {"auth": "`+b64("hub:p")+`"},
		"Port.example:5000": {"username": "plain", "password": "words"},
		"token.example": {"auth": "`+b64("<token>:x")+`", "identitytoken": "refresh"},
		"registry.example": {"registrytoken": "access"},
		"empty.example": {},
		"unpadded.example": {"auth": "`+strings.TrimRight(b64("u:pp"), "=")+`"},
		"tls.example:443": {"auth": "`+b64("t:p")+`"},
		"both.example": {"auth": "`+b64("plain:p")+`"}, "https://both.example/v1/": {}
	}}`)
	second := authFileFor(t, "empty.example", "second:file", "quay.io/a/b/c", "never:asked")
	c, err := loadCredentials([]string{filepath.Join(t.TempDir(), "missing.json"), file, second}, false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		repo string
		want auth.Credential
	}{
		{"quay.io/x", auth.Credential{Username: "host", Password: "h"}},
		{"quay.io/a", auth.Credential{Username: "a", Password: "with:colons:"}},
		{"quay.io/ab", auth.Credential{Username: "host", Password: "h"}},
		{"quay.io/a/bc", auth.Credential{Username: "a", Password: "with:colons:"}},
		{"quay.io/a/b/c", auth.Credential{Username: "ab", Password: "p"}},
		{"legacy.example/v1", auth.Credential{Username: "l", Password: "p"}},
		{"registry-1.docker.io/library/x", auth.Credential{Username: "hub", Password: "p"}},
		{"docker.io/x/y", auth.Credential{Username: "hub", Password: "p"}},
		{"port.example:5000/x", auth.Credential{Username: "plain", Password: "words"}},
		{"port.example/x", auth.EmptyCredential},
		{"token.example/x", auth.Credential{Username: "<token>", RefreshToken: "refresh"}},
		{"registry.example/x", auth.Credential{AccessToken: "access"}},
		{"empty.example/x", auth.Credential{Username: "second", Password: "file"}},
		{"unpadded.example/x", auth.Credential{Username: "u", Password: "pp"}},
		{"tls.example/x", auth.Credential{Username: "t", Password: "p"}},
		{"both.example/x", auth.Credential{Username: "plain", Password: "p"}},
		{"unknown.example/x", auth.EmptyCredential},
	} {
		got, from, err := c.lookup(t.Context(), row.repo)
		if err != nil || got != row.want {
			t.Errorf("%s: %+v from %s, %v; want %+v", row.repo, got, from, err, row.want)
		}
	}
}

func TestAuthFilesThatAreNotRight(t *testing.T) {
	const secret = "hunter2hunter2"
	missing := filepath.Join(t.TempDir(), "missing.json")
	for name, row := range map[string]struct {
		file     string
		explicit bool
		ok       bool
	}{
		"missing, searched":    {missing, false, true},
		"missing, named":       {missing, true, false},
		"directory":            {t.TempDir(), false, false},
		"not JSON":             {write(t, "f", `{"auths": {"h": `+secret), false, false},
		"not base64":           {write(t, "f", `{"auths": {"h": {"auth": "`+secret+`!"}}}`), false, false},
		"no colon":             {write(t, "f", `{"auths": {"h": {"auth": "`+b64(secret)+`"}}}`), false, false},
		"number as auth":       {write(t, "f", `{"auths": {"h": {"auth": 12345678}}}`), false, false},
		"list as auths":        {write(t, "f", `{"auths": ["`+secret+`"]}`), false, false},
		"empty object":         {write(t, "f", `{}`), true, true},
		"unknown fields":       {write(t, "f", `{"currentContext":"x","psFormat":1,"auths":{}}`), true, true},
		"user and email alone": {write(t, "f", `{"auths": {"h": {"email":"a@b"}}}`), true, true},
	} {
		_, err := New(Options{AuthFiles: []string{row.file}, AuthExplicit: row.explicit})
		if (err == nil) != row.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (!strings.Contains(err.Error(), row.file) || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), b64(secret)) || strings.Contains(err.Error(), "12345678")) {
			t.Errorf("%s: the message does not name the file, or tells a secret: %v", name, err)
		}
	}
}

// installHelper puts docker-credential-<name> into PATH.
func installHelper(t *testing.T, name, script string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("SKIPPED: the helper is a shell script")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestCredentialHelper(t *testing.T) {
	installHelper(t, "test", `
test "$1" = get || exit 2
read server
case "$server" in
quay.io/a) echo '{"ServerURL":"quay.io/a","Username":"helped","Secret":"s3"}' ;;
tok.example) echo '{"Username":"<token>","Secret":"refresh"}' ;;
broken.example) echo 's3cret-on-stdout'; echo 's3cret-on-stderr' >&2; exit 1 ;;
long.example) yes 0123456789 | head -c 200000 ;;
*) echo 'credentials not found in native keychain'; exit 1 ;;
esac`)
	lookup := func(text, repo string) (auth.Credential, found, error) {
		c, err := loadCredentials([]string{write(t, "f", text)}, true, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return c.lookup(t.Context(), repo)
	}
	helpers := `{"auths":{"quay.io":{"auth":"` + b64("u:p") + `"}},"credHelpers":{"quay.io/a":"test","tok.example":"test","broken.example":"test","long.example":"test","quay.io/n":"test","evil.example":"../../bin/x","gone.example":"is-not-installed"}}`
	if cred, from, err := lookup(helpers, "quay.io/a/b"); err != nil || cred != (auth.Credential{Username: "helped", Password: "s3"}) || from.helper != "test" {
		t.Errorf("%v %v %v", cred, from, err)
	}
	if cred, _, err := lookup(helpers, "tok.example/b"); err != nil || cred.RefreshToken != "refresh" || cred.Username != "" {
		t.Errorf("%v %v", cred, err)
	}
	if cred, _, err := lookup(helpers, "quay.io/n/b"); err != nil || cred.Username != "u" {
		t.Errorf("nothing in the helper, the shorter key counts: %v %v", cred, err)
	}
	for _, repo := range []string{"broken.example/x", "long.example/x", "evil.example/x", "gone.example/x"} {
		if _, _, err := lookup(helpers, repo); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", repo, err)
		}
	}
	store := `{"auths":{"tok.example":{}},"credsStore":"test"}`
	if cred, _, err := lookup(store, "tok.example/x"); err != nil || cred.RefreshToken != "refresh" {
		t.Errorf("%v %v", cred, err)
	}
	if cred, _, err := lookup(store, "other.example/x"); err != nil || cred != auth.EmptyCredential {
		t.Errorf("%v %v", cred, err)
	}
	if cred, _, err := lookup(`{"credsStore":"is-not-installed"}`, "other.example/x"); err != nil || cred != auth.EmptyCredential {
		t.Errorf("%v %v", cred, err)
	}
}

// TestNoSecretAnywhere sends a wrong password and looks at everything that is said.
func TestNoSecretAnywhere(t *testing.T) {
	const secret = "hunter2hunter2"
	ts := newTokenServer(t, "me", "right")
	var log bytes.Buffer
	file := authFileFor(t, ts.addr, "me:"+secret)
	r := newRepo(t, Options{AuthFiles: []string{file}, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}, ts.addr+"/a/b")
	_, err := r.Resolve(testContext(t), "tag")
	if !errors.Is(err, ErrAuth) || !strings.Contains(err.Error(), file) {
		t.Errorf("the error should name the file: %v", err)
	}
	said := log.String() + err.Error() + fmt.Sprintf("%+v %#v", err, r.c.Contacts())
	for e := err; e != nil; e = errors.Unwrap(e) {
		said += e.Error()
	}
	if strings.Contains(said, secret) || strings.Contains(said, b64("me:"+secret)) {
		t.Errorf("the secret is in:\n%s", said)
	}
	if n := strings.Count(log.String(), "key="+ts.addr); n != 1 {
		t.Errorf("the credential's origin is said %d times, once is right:\n%s", n, log.String())
	}
}

func TestScrub(t *testing.T) {
	for in, want := range map[string]string{
		`Get "https://u:p@h.example/x?sig=1&y=2#z": EOF`: `Get "https://h.example/x": EOF`,
		"Authorization: Bearer abcdefghijkl":             "Authorization: Bearer …",
		"http://u@p@h/x":                                 "http://h/x",
		"plain":                                          "plain",
	} {
		if got := scrubText(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzAuthFile(f *testing.F) {
	f.Add([]byte(`{"auths":{"https://quay.io/v1/":{"auth":"dTpw"},"a/b":{"identitytoken":"x"}},"credHelpers":{"x":"y"},"credsStore":"z"}`), "quay.io/a/b")
	f.Add([]byte(`{"auths":{"":{"auth":"Og=="}}}`), "")
	f.Add([]byte(`{"auths":{"h":{"auth":"ff ff"}}}`), "h//")
	f.Fuzz(func(t *testing.T, raw []byte, repo string) {
		file, err := parseAuthFile(raw)
		if err != nil {
			return
		}
		clear(file.helpers)
		file.store, file.name = "", "f"
		c := &credentials{files: []authFile{*file}, log: slog.New(slog.DiscardHandler)}
		cred, from, err := c.lookup(context.Background(), repo)
		if err != nil {
			t.Fatal(err)
		}
		if (cred == auth.EmptyCredential) != (from.file == "") {
			t.Errorf("%+v from %+v", cred, from)
		}
		for k := range file.auths {
			if authKey(k) != k && !strings.Contains(k, "://") && !strings.HasSuffix(k, ":443") && !strings.Contains(k, ":443/") && !isDockerHub(strings.SplitN(k, "/", 2)[0]) {
				t.Errorf("key %q is not in its final form, that is %q", k, authKey(k))
			}
		}
	})
}
