//go:build e2e && linux

package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// distribution is a running docker-registry of Debian's: the reference implementation, 2.8.
type distribution struct {
	host string // 127.0.0.1:port
	root string // where it stores
	ca   string // file with its certificate authority; "" means plain http
	log  *lockedBuffer
	stop func()
}

// gate says who may enter a registry. The zero value lets everybody in.
type gate struct {
	htpasswd map[string]string // user -> password
	tokens   *tokenServer
	tls      bool
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

func startDistribution(t *testing.T, g gate) *distribution {
	t.Helper()
	exe := need(t, "docker-registry", "apt-get install docker-registry")
	dir := t.TempDir()
	d := &distribution{root: filepath.Join(dir, "storage"), log: &lockedBuffer{}}

	var config strings.Builder
	fmt.Fprintf(&config, "version: 0.1\nlog: {level: info}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\n", d.root)
	fmt.Fprintf(&config, "http:\n  addr: 127.0.0.1:0\n  secret: e2e\n")
	if g.tls {
		d.ca = filepath.Join(dir, "ca.pem")
		certificate(t, d.ca, filepath.Join(dir, "key.pem"))
		fmt.Fprintf(&config, "  tls: {certificate: %s, key: %s}\n", d.ca, filepath.Join(dir, "key.pem"))
	}
	switch {
	case g.htpasswd != nil:
		file := filepath.Join(dir, "htpasswd")
		htpasswd(t, file, g.htpasswd)
		fmt.Fprintf(&config, "auth:\n  htpasswd: {realm: e2e, path: %s}\n", file)
	case g.tokens != nil:
		bundle := filepath.Join(dir, "tokens.pem")
		write(t, bundle, g.tokens.bundle())
		fmt.Fprintf(&config, "auth:\n  token: {realm: %q, service: %s, issuer: %s, rootcertbundle: %s}\n",
			g.tokens.realm(), tokenService, tokenIssuer, bundle)
	}
	file := filepath.Join(dir, "config.yml")
	write(t, file, []byte(config.String()))

	cmd := exec.Command(exe, "serve", file)
	cmd.Stdout, cmd.Stderr = d.log, d.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.stop = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(d.stop)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if m := listening.FindStringSubmatch(d.log.String()); m != nil {
			d.host = m[1]
			return d
		}
		if time.Now().After(deadline) {
			t.Fatalf("docker-registry did not come up:\n%s", d.log)
		}
	}
}

// htpasswd writes a password file with apache's tool, bcrypt as distribution wants it.
func htpasswd(t *testing.T, file string, users map[string]string) {
	t.Helper()
	exe := need(t, "htpasswd", "apt-get install apache2-utils")
	var all []byte
	for name, password := range users {
		out, err := exec.Command(exe, "-nbB", "-C", "4", name, password).Output()
		if err != nil {
			t.Fatal(err)
		}
		all = append(append(all, bytes.TrimSpace(out)...), '\n')
	}
	write(t, file, all)
}

// certificate writes a self-signed certificate for 127.0.0.1, its own authority, and its key.
func certificate(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e registry"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// authFile writes a pull secret: key (host, or host/path) -> "user:password".
func authFile(t *testing.T, keys map[string]string) string {
	t.Helper()
	auths := map[string]any{}
	for key, login := range keys {
		auths[key] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(login))}
	}
	raw, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "auth.json")
	write(t, file, raw)
	return file
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// pusher fills a registry by the distribution specification's plainest calls, apart from the
// code under test.
type pusher struct {
	host   string
	login  func(r *http.Request, repository string) // adds Authorization; may be nil
	source func(digest string) []byte
}

// image pushes a manifest and what it names into a repository, children first, under its
// digest and, if it has one, its tag.
func (p pusher) image(t *testing.T, repository, digest, mediaType, tag string) {
	t.Helper()
	raw := p.source(digest)
	var m struct {
		Config    *struct{ Digest string }
		Layers    []struct{ Digest string }
		Manifests []struct{ Digest, MediaType string }
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatalf("manifest %s: %v", digest, err)
	}
	for _, child := range m.Manifests {
		p.image(t, repository, child.Digest, child.MediaType, "")
	}
	if m.Config != nil {
		p.blob(t, repository, m.Config.Digest)
	}
	for _, layer := range m.Layers {
		p.blob(t, repository, layer.Digest)
	}
	for _, reference := range []string{digest, tag} {
		if reference != "" {
			p.do(t, "PUT", "http://"+p.host+"/v2/"+repository+"/manifests/"+reference, repository, mediaType, raw, http.StatusCreated)
		}
	}
}

func (p pusher) blob(t *testing.T, repository, digest string) {
	t.Helper()
	blobs := "http://" + p.host + "/v2/" + repository + "/blobs/"
	if p.do(t, "HEAD", blobs+digest, repository, "", nil, 0).StatusCode == http.StatusOK {
		return
	}
	location := p.do(t, "POST", blobs+"uploads/", repository, "", nil, http.StatusAccepted).Header.Get("Location")
	p.do(t, "PUT", location+"&digest="+digest, repository, "application/octet-stream", p.source(digest), http.StatusCreated)
}

// do makes one request; a status that is not wanted ends the test, 0 wants any.
func (p pusher) do(t *testing.T, method, url, repository, mediaType string, body []byte, want int) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if mediaType != "" {
		r.Header.Set("Content-Type", mediaType)
		r.Header.Set("Accept", mediaType)
	}
	if p.login != nil {
		p.login(r, repository)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if want != 0 && resp.StatusCode != want {
		text := new(bytes.Buffer)
		text.ReadFrom(resp.Body)
		t.Fatalf("%s %s: %s, want %d\n%s", method, url, resp.Status, want, text)
	}
	return resp
}

// lockedBuffer is a log that is read while a process writes it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
