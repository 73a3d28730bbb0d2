//go:build e2e && linux

package e2e_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	tokenService = "e2e-registry"
	tokenIssuer  = "e2e-tokens"

	// distribution accepts a token for this long after it expired, against skewed clocks.
	tokenLeeway = 60 * time.Second
)

// tokenServer hands out bearer tokens as the token authentication of distribution wants
// them: RS256, the certificate in the header. Each user may do what the server was told for
// each repository, and nothing else; a request that exceeds it gets a token for less, as
// real servers answer.
type tokenServer struct {
	*httptest.Server
	life  time.Duration // how long the registry really accepts a token
	users map[string]tokenUser
	key   *rsa.PrivateKey
	cert  []byte // DER

	mu     sync.Mutex
	issued []issue
}

// tokenUser has a password and, for each repository, the actions that are allowed.
type tokenUser struct {
	password string
	access   map[string]string // repository -> "pull" or "pull,push"
}

// issue is one token that was handed out.
type issue struct {
	user    string   // "" for nobody in particular
	granted []string // "repository:pull"
}

type tokenAccess struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

func startTokenServer(t *testing.T, life time.Duration, users map[string]tokenUser) *tokenServer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: tokenIssuer},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	s := &tokenServer{life: life, users: users, key: key}
	if s.cert, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *tokenServer) realm() string { return s.URL + "/token" }

// bundle is what the registry trusts.
func (s *tokenServer) bundle() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert})
}

func (s *tokenServer) serve(w http.ResponseWriter, r *http.Request) {
	name, password, given := r.BasicAuth()
	account, known := s.users[name]
	if given && (!known || account.password != password) {
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"wrong user or password"}]}`, http.StatusUnauthorized)
		return
	}
	if r.URL.Path != "/token" || r.URL.Query().Get("service") != tokenService {
		http.Error(w, "this is the token server of "+tokenService, http.StatusBadRequest)
		return
	}
	var access []tokenAccess
	for _, scopes := range r.URL.Query()["scope"] {
		for scope := range strings.FieldsSeq(scopes) {
			if a, ok := account.grant(scope); ok {
				access = append(access, a)
			}
		}
	}
	s.record(name, access)
	// expires_in is the usual lie of a server whose clock is not ours: the client learns that
	// a token is over when the registry refuses it.
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"token": s.token(name, access, s.life), "expires_in": 300})
}

// grant cuts a scope, "repository:NAME:pull,push", down to what the user may do.
func (u tokenUser) grant(scope string) (tokenAccess, bool) {
	parts := strings.SplitN(scope, ":", 3)
	if len(parts) != 3 || parts[0] != "repository" {
		return tokenAccess{}, false
	}
	a := tokenAccess{Type: parts[0], Name: parts[1], Actions: []string{}}
	allowed := strings.Split(u.access[parts[1]], ",")
	for action := range strings.SplitSeq(parts[2], ",") {
		if slices.Contains(allowed, action) {
			a.Actions = append(a.Actions, action)
		}
	}
	return a, len(a.Actions) > 0
}

func (s *tokenServer) record(user string, access []tokenAccess) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := issue{user: user}
	for _, a := range access {
		for _, action := range a.Actions {
			i.granted = append(i.granted, a.Name+":"+action)
		}
	}
	s.issued = append(s.issued, i)
}

// count is how many tokens a user got that were good for something.
func (s *tokenServer) count(user string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, i := range s.issued {
		if i.user == user && len(i.granted) > 0 {
			n++
		}
	}
	return n
}

// login lets the test itself in, past the server's rules.
func (s *tokenServer) login(r *http.Request, repository string) {
	access := []tokenAccess{{Type: "repository", Name: repository, Actions: []string{"pull", "push"}}}
	r.Header.Set("Authorization", "Bearer "+s.token("e2e", access, time.Hour))
}

// token makes a token that the registry accepts for life from now.
func (s *tokenServer) token(subject string, access []tokenAccess, life time.Duration) string {
	now := time.Now()
	if access == nil {
		access = []tokenAccess{}
	}
	header := map[string]any{"typ": "JWT", "alg": "RS256", "x5c": []string{base64.StdEncoding.EncodeToString(s.cert)}}
	claims := map[string]any{
		"iss": tokenIssuer, "sub": subject, "aud": tokenService,
		// Rounded up: the claim counts in seconds.
		"exp": now.Add(life - tokenLeeway + time.Second - 1).Unix(), "nbf": now.Add(-2 * tokenLeeway).Unix(), "iat": now.Add(-2 * tokenLeeway).Unix(),
		"jti": fmt.Sprint(now.UnixNano()), "access": access,
	}
	var parts []string
	for _, part := range []any{header, claims} {
		raw, err := json.Marshal(part)
		if err != nil {
			panic(err) // maps of strings
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(raw))
	}
	signed := strings.Join(parts, ".")
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err) // a 2048 bit key signs a SHA-256
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}
