package remote

import (
	"errors"
	"net/http"
	"testing"

	"pannier/bundle/release/sample/olareg"
)

func TestChallenge(t *testing.T) {
	for _, row := range []struct{ header, scheme, realm string }{
		{"", "", ""},
		{"Negotiate", "", ""},
		{`Basic realm="x"`, "basic", ""},
		{`Bearer realm="https://auth.example:8443/token?a=b",service="s"`, "bearer", "auth.example:8443"},
		{`bearer service="s",realm="https://user:pw@auth.example/t"`, "bearer", "auth.example"},
		{`Bearer realm="://"`, "bearer", ""},
		{`Bearer`, "bearer", ""},
	} {
		if scheme, realm := challenge(row.header); scheme != row.scheme || realm != row.realm {
			t.Errorf("%q: %q, %q", row.header, scheme, realm)
		}
	}
}

func TestPing(t *testing.T) {
	s, err := olareg.Serve(olareg.Options{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g, err := newRepo(t, Options{Insecure: true}, s.Host+"/a/b").Ping(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if g.Scheme != "https" || g.Verified || len(g.Certificates) == 0 || g.Status != http.StatusOK || g.Date.IsZero() || g.Asked.IsZero() {
		t.Errorf("%+v", g)
	}
	if _, err := newRepo(t, Options{}, s.Host+"/a/b").Ping(testContext(t)); !errors.Is(err, ErrCertificate) {
		t.Errorf("not verified: %v", err)
	}
}
