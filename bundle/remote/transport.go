package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// makeTransports builds the two transports, with and without verification of certificates.
//
// Both speak HTTP/1.1 only: blobs in parallel go over connections of their own, so that one
// that is reset or slow does not take the others with it.
func (c *Client) makeTransports() error {
	roots, err := loadRoots(c.opts.CAFiles)
	if err != nil {
		return err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{
		Timeout:        c.timing.dial,
		KeepAlive:      15 * time.Second,
		ControlContext: c.controlDial,
	}
	c.verified = &http.Transport{
		Proxy: c.proxy,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return c.dial(ctx, dialer, network, addr)
		},
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    2 * c.timing.dial,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        60 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		WriteBufferSize:        64 << 10,
		ReadBufferSize:         64 << 10,
		DisableCompression:     true,
		Protocols:              protocols,
		OnProxyConnectResponse: onProxyConnect,
	}
	c.unverified = c.verified.Clone()
	c.unverified.TLSClientConfig.InsecureSkipVerify = true
	return nil
}

// loadRoots adds the certificates of files to the system's.
func loadRoots(files []string) (*x509.CertPool, error) {
	if len(files) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, name := range files {
		pem, err := readBounded(name, 8<<20)
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authority: %s: no PEM certificate in it", name)
		}
	}
	return pool, nil
}

func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return raw, nil
}

// proxyError is a proxy that did not open a way to the host.
type proxyError struct {
	proxy  string
	status int
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("proxy %s answers HTTP %d %s", e.proxy, e.status, http.StatusText(e.status))
}

func onProxyConnect(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{proxy: proxy.Host, status: resp.StatusCode}
}

// proxy asks the user's function and remembers the answer, so that dialling a proxy on this
// machine is not taken for a way around [Options].Confined.
func (c *Client) proxy(req *http.Request) (*url.URL, error) {
	if c.opts.Proxy == nil {
		return nil, nil
	}
	u, err := c.opts.Proxy(req)
	if err != nil || u == nil {
		return nil, err
	}
	c.mu.Lock()
	c.proxies[dialAddr(u)] = true
	c.mu.Unlock()
	return u, nil
}

// dialAddr is the host:port that the transport dials for u.
func dialAddr(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// originKey marks a context with the registry on whose behalf a connection is made, and
// whether it is to that registry itself.
type originKey struct{}

type origin struct {
	host *host
	self bool // the connection is to the host itself, not to one that it named
}

// dial notes where a registry was found.
func (c *Client) dial(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	conn, err := d.DialContext(context.WithValue(ctx, addrKey{}, addr), network, addr)
	if err != nil {
		return nil, err
	}
	if o, ok := ctx.Value(originKey{}).(origin); ok && o.self && !c.isProxy(addr) {
		if a, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil && isLocalAddr(a.Addr()) {
			o.host.mu.Lock()
			o.host.local = true
			o.host.mu.Unlock()
		}
	}
	return conn, nil
}

type addrKey struct{}

func (c *Client) isProxy(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proxies[strings.ToLower(addr)]
}

// confinedError is a host that a registry named and that is not asked.
type confinedError struct{ host, why string }

func (e *confinedError) Error() string {
	return fmt.Sprintf("%s (%s) is at a loopback, link-local or metadata address, and the registry is not", e.host, e.why)
}

// controlDial judges the address that a name was resolved to, just before it is connected.
func (c *Client) controlDial(ctx context.Context, _, address string, _ syscall.RawConn) error {
	o, ok := ctx.Value(originKey{}).(origin)
	if !c.opts.Confined || !ok || o.self || o.host.isLocal() {
		return nil
	}
	name, _ := ctx.Value(addrKey{}).(string)
	if c.isProxy(name) {
		return nil
	}
	a, err := netip.ParseAddrPort(address)
	if err != nil || isLocalAddr(a.Addr()) {
		return &confinedError{host: name, why: address}
	}
	return nil
}

// hop sends one request of a session: the registry's, its token server's, or a redirect's.
type hop struct {
	c      *Client
	origin *host
	why    string // why the origin is asked: WhyRegistry or WhyStore
}

// RoundTrip implements [http.RoundTripper].
func (t *hop) RoundTrip(req *http.Request) (*http.Response, error) {
	c := t.c
	h := c.host(req.URL.Host)
	self := h == t.origin
	why := t.why
	switch {
	case self:
	case req.Response != nil || t.why == WhyStore || req.Context().Value(uploadKey{}) != nil:
		why = WhyRedirect
	default:
		why = WhyToken
	}
	if c.opts.Confined && !self && isLocalName(h.name) && !t.origin.isLocal() {
		closeBody(req)
		return nil, &confinedError{host: h.name, why: why}
	}
	original := req
	req = req.Clone(context.WithValue(req.Context(), originKey{}, origin{host: t.origin, self: self}))
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Del("Referer") // it would tell a host the signed address of another
	if err := c.note(req, why); err != nil {
		closeBody(req)
		return nil, err
	}
	if err := h.acquire(req.Context()); err != nil {
		closeBody(req)
		return nil, err
	}
	transport := c.verified
	if c.insecure(h.name) {
		transport = c.unverified
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		h.release()
		return nil, err
	}
	c.heard(h, resp)
	resp.Request = original
	resp.Body = &releasing{ReadCloser: resp.Body, release: sync.OnceFunc(h.release)}
	return resp, nil
}

// closeBody keeps the promise of a RoundTripper to close the body even if it fails.
func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// note records the contact.
func (c *Client) note(req *http.Request, why string) error {
	contact := Contact{Host: strings.ToLower(req.URL.Host), Why: why}
	p, err := c.proxy(req)
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	if p != nil {
		contact.Proxy = p.Host
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.contacts[contact] = true
	return nil
}

// heard learns from an answer.
func (c *Client) heard(h *host, resp *http.Response) {
	h.mu.Lock()
	h.answered = true
	if resp.StatusCode == http.StatusTooManyRequests {
		if d := retryAfter(resp.Header.Get("Retry-After"), time.Now()); d > 0 {
			h.notBefore = time.Now().Add(min(d, c.timing.maxAsked))
		}
	}
	h.mu.Unlock()
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		h.tooMany()
	case resp.StatusCode < 500:
		h.fine()
	}
}

// releasing gives back the host's slot when a body has been read or closed.
type releasing struct {
	io.ReadCloser
	release func()
}

func (r *releasing) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil {
		r.release()
	}
	return n, err
}

func (r *releasing) Close() error {
	err := r.ReadCloser.Close()
	r.release()
	return err
}

// redirectError is a redirect that is not followed.
type redirectError struct{ text string }

func (e *redirectError) Error() string { return e.text }

// maxRedirects is how many redirects one request may take.
const maxRedirects = 10

// checkRedirect returns the policy for redirects of requests to the origin. Authorization
// goes to the origin's own host and port only: Go would hand it to subdomains as well.
func (c *Client) checkRedirect(o *host) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if !strings.EqualFold(req.URL.Host, o.name) || req.URL.Scheme != via[0].URL.Scheme {
			for _, k := range []string{"Authorization", "Cookie", "Www-Authenticate", "Proxy-Authorization"} {
				req.Header.Del(k)
			}
		}
		req.URL.User = nil // nor credentials of its own making
		first := via[0]
		switch {
		case len(via) > maxRedirects:
			return &redirectError{fmt.Sprintf("more than %d redirects", maxRedirects)}
		case req.Method != first.Method:
			return &redirectError{fmt.Sprintf("a redirect of %s to %s would make it %s", first.Method, req.URL.Host, req.Method)}
		case req.URL.Scheme != "https" && req.URL.Scheme != "http":
			return &redirectError{fmt.Sprintf("a redirect to an address of scheme %q", clean(req.URL.Scheme))}
		case req.URL.Scheme == "http" && via[len(via)-1].URL.Scheme == "https" && !c.plainAllowed(req.URL.Host):
			return &redirectError{fmt.Sprintf("a redirect from https to plain http at %s", req.URL.Host)}
		}
		return nil
	}
}
