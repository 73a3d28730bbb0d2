// Package faultproxy stands between a client and a registry, for tests, and misbehaves: once,
// once for everything that is asked for, or for ever. The registry behind it is a real one;
// what a fault does is its own affair, and every other request passes. It can also want
// bearer tokens and keep blobs at another host, as quay.io does, and it notes what reached
// whom, so that a test can tell what was fetched twice and which secret went astray.
package faultproxy

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options say how a [Proxy] serves. The zero value is plain http, and nothing else.
type Options struct {
	TLS      bool // https, with a certificate for 127.0.0.1; see Proxy.CA
	Tokens   bool // bearer tokens are wanted; anybody who is Credential gets one
	Redirect bool // blobs are at another host, by addresses that can expire
}

// Credential is who gets tokens, "user:password".
const Credential = "kermit:hush-hush"

// How often a [Fault] happens.
type How int

const (
	Once   How = iota // to the first request that it is for
	Each              // to the first request of each kind for each thing
	Always            // to every request that it is for
)

// Fault is a way to misbehave.
type Fault struct {
	Name    string
	Options Options                  // that it needs
	On      func(*http.Request) bool // which requests it is for
	Do      func(*Exchange)          // answers, or does not
	Shake   func(*Proxy) error       // instead: refuses a TLS handshake by an error
}

// maxAnswer bounds, in bytes, an answer of the registry that passes a fault.
const maxAnswer = 64 << 20

// Proxy is such a proxy. It must be closed.
type Proxy struct {
	Host  string // "127.0.0.1:40123", the registry for clients
	Store string // host:port of the blobs, if they are redirected
	CA    []byte // PEM, with TLS: the certificate to trust

	upstream string
	opts     Options
	front    *httptest.Server
	store    *httptest.Server
	closed   chan struct{}

	mu     sync.Mutex
	fault  *Fault
	how    How
	met    map[string]int
	fired  int
	log    []Request
	nonces int
	valid  map[string]bool // tokens, and signatures of addresses
	astray []string
}

// Request is one that arrived.
type Request struct {
	Method, Path, Query, Range string
	Store                      bool // at the store of blobs
}

// Start serves what stands behind upstream, "http://127.0.0.1:5000".
func Start(upstream string, opts Options) *Proxy {
	p := &Proxy{upstream: upstream, opts: opts, closed: make(chan struct{}), met: map[string]int{}, valid: map[string]bool{}}
	p.front = p.serve(p.serveFront)
	p.Host = strings.SplitN(p.front.URL, "://", 2)[1]
	if opts.TLS {
		p.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.front.Certificate().Raw})
	}
	if opts.Redirect {
		p.store = p.serve(p.serveStore)
		p.Store = strings.SplitN(p.store.URL, "://", 2)[1]
	}
	return p
}

func (p *Proxy) serve(h http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if !p.opts.TLS {
		s.Start()
		return s
	}
	s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.fault == nil || p.fault.Shake == nil || p.how == Once && p.fired > 0 {
			return nil, nil
		}
		p.fired++
		return nil, p.fault.Shake(p) // the server sends an alert
	}}
	s.Config.SetKeepAlivesEnabled(false) // so that there is a handshake for every request
	s.StartTLS()
	return s
}

// Close ends it and every connection to it.
func (p *Proxy) Close() {
	close(p.closed)
	for _, s := range []*httptest.Server{p.front, p.store} {
		if s != nil {
			s.CloseClientConnections()
			s.Close()
		}
	}
}

// Inject has f happen from now on; nil ends it. Counts and log begin anew.
func (p *Proxy) Inject(f *Fault, how How) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.how, p.fired, p.met, p.log = f, how, 0, map[string]int{}, nil
}

// Fired is how often the fault has happened: a test of one that never did proves nothing.
func (p *Proxy) Fired() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fired
}

// Take returns what was asked since the last call or [Proxy.Inject].
func (p *Proxy) Take() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.log
	p.log = nil
	return out
}

// Astray lists the credentials that reached the store of blobs: there must be none.
func (p *Proxy) Astray() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.astray
}

// Expire makes the token and the address worthless by which the request came.
func (x *Exchange) Expire() {
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	delete(x.p.valid, x.R.URL.Query().Get("signature"))
	delete(x.p.valid, strings.TrimPrefix(x.R.Header.Get("Authorization"), "Bearer "))
}

// grant makes a token, or the signature of an address.
func (p *Proxy) grant() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nonces++
	n := fmt.Sprintf("secret-%d", p.nonces)
	p.valid[n] = true
	return n
}

func (p *Proxy) isValid(n string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.valid[n]
}

func (p *Proxy) base() string { return p.front.URL }

func (p *Proxy) serveFront(w http.ResponseWriter, r *http.Request) {
	x := &Exchange{W: w, R: r, p: p}
	switch {
	case r.URL.Path == "/token":
		if u, pw, _ := r.BasicAuth(); u+":"+pw != Credential {
			x.Say(http.StatusUnauthorized, "UNAUTHORIZED", "who are you")
			return
		}
		if x.meets() {
			return
		}
		fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, p.grant())
		return
	case p.opts.Tokens && !p.isValid(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")):
		w.Header().Set("Www-Authenticate", `Bearer realm="`+p.base()+`/token",service="test"`)
		x.Say(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	p.note(r, false)
	if p.opts.Redirect && IsBlob(r) {
		http.Redirect(w, r, p.store.URL+r.URL.Path+"?signature="+p.grant(), http.StatusTemporaryRedirect)
		return
	}
	if !x.meets() {
		x.Send(x.Ask())
	}
}

func (p *Proxy) serveStore(w http.ResponseWriter, r *http.Request) {
	x := &Exchange{W: w, R: r, p: p}
	for _, k := range []string{"Authorization", "Cookie", "Referer"} {
		if v := r.Header.Get(k); v != "" {
			p.mu.Lock()
			p.astray = append(p.astray, k+": "+v)
			p.mu.Unlock()
		}
	}
	p.note(r, true)
	if r.Method == http.MethodGet && !p.isValid(r.URL.Query().Get("signature")) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`)
		return
	}
	if !x.meets() {
		x.Send(x.Ask())
	}
}

func (p *Proxy) note(r *http.Request, store bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, Request{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Range"), store})
}

// Exchange is a request that a fault answers.
type Exchange struct {
	W http.ResponseWriter
	R *http.Request
	N int // how often the fault met this kind of request for this thing before
	p *Proxy
}

// meets has the fault answer, if it is for the request.
func (x *Exchange) meets() bool {
	p := x.p
	p.mu.Lock()
	f := p.fault
	if f == nil || f.Do == nil || !f.On(x.R) {
		p.mu.Unlock()
		return false
	}
	key := x.R.Method + " " + x.R.URL.Path + " " + strconv.FormatBool(x.R.Header.Get("Range") != "")
	x.N = p.met[key]
	if p.how == Once && p.fired > 0 || p.how == Each && x.N > 0 {
		p.mu.Unlock()
		return false
	}
	p.met[key]++
	p.fired++
	p.mu.Unlock()
	f.Do(x)
	return true
}

// Answer is one of the registry, whole.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Ask passes the request on to the registry.
func (x *Exchange) Ask() Answer {
	u := *x.R.URL
	target := x.p.upstream + u.RequestURI()
	body, err := io.ReadAll(io.LimitReader(x.R.Body, maxAnswer))
	if err != nil {
		x.Abort() // the client left
	}
	req, err := http.NewRequestWithContext(x.R.Context(), x.R.Method, target, bytes.NewReader(body))
	if err != nil {
		x.Abort()
	}
	for k, v := range x.R.Header {
		if k != "Authorization" && k != "Connection" && k != "Expect" {
			req.Header[k] = v
		}
	}
	resp, err := plain.RoundTrip(req)
	if err != nil {
		x.Abort()
	}
	defer resp.Body.Close()
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	if a.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		x.Abort()
	}
	if l, err := url.Parse(a.Header.Get("Location")); err == nil && l.IsAbs() {
		l.Scheme, l.Host = "", ""
		a.Header.Set("Location", l.String()) // the registry does not know us
	}
	return a
}

var plain = &http.Transport{DisableCompression: true}

// Send answers with a.
func (x *Exchange) Send(a Answer) {
	for k, v := range a.Header {
		x.W.Header()[k] = v
	}
	if x.R.Method != http.MethodHead {
		x.W.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	x.W.WriteHeader(a.Status)
	x.W.Write(a.Body)
}

// Part answers with the header of a and so many bytes of it, and leaves the rest to come.
func (x *Exchange) Part(a Answer, n int) {
	for k, v := range a.Header {
		x.W.Header()[k] = v
	}
	x.W.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
	x.W.WriteHeader(a.Status)
	x.W.Write(a.Body[:min(n, len(a.Body))])
	x.Flush()
}

// Flush sends what was written.
func (x *Exchange) Flush() { http.NewResponseController(x.W).Flush() }

// Say answers with an error as registries write them.
func (x *Exchange) Say(status int, code, message string) {
	x.W.Header().Set("Content-Type", "application/json")
	x.W.WriteHeader(status)
	if code != "" {
		type e struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		}
		json.NewEncoder(x.W).Encode(map[string][]e{"errors": {{code, message}}})
	}
}

// Page answers with a web page.
func (x *Exchange) Page(status int) {
	x.W.Header().Set("Content-Type", "text/html; charset=utf-8")
	x.W.WriteHeader(status)
	io.WriteString(x.W, "<!DOCTYPE html><html><body>Please log in</body></html>")
}

// Abort breaks the connection.
func (x *Exchange) Abort() { panic(http.ErrAbortHandler) }

// Reset breaks the connection with a RST, which also loses what was just sent.
func (x *Exchange) Reset() {
	conn, _, err := http.NewResponseController(x.W).Hijack()
	if err != nil {
		x.Abort()
	}
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
	conn.Close()
}

// Stall answers nothing until the client has left, or the proxy is closed.
func (x *Exchange) Stall() {
	select {
	case <-x.R.Context().Done():
	case <-x.p.closed:
	case <-time.After(5 * time.Second): // who does not read does not see that the client left
	}
	x.Abort() // without it, 200
}

// Left reports whether the client has left.
func (x *Exchange) Left() bool {
	select {
	case <-x.p.closed:
		return true
	default:
		return x.R.Context().Err() != nil
	}
}

// IsBlob is for [Fault.On]: the download of a blob.
func IsBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:")
}

// IsManifest is for [Fault.On]: the download of a manifest.
func IsManifest(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/")
}

// IsUpload is for [Fault.On]: any part of the upload of a blob.
func IsUpload(r *http.Request) bool {
	return strings.Contains(r.URL.Path, "/blobs/uploads/") && r.Method != http.MethodDelete
}

// Any is for [Fault.On]: every request.
func Any(*http.Request) bool { return true }

// errRefused is a handshake that is refused.
var errRefused = errors.New("not today")
