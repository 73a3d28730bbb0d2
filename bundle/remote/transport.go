package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
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

// hop sends one request of a session: the registry's, its token server's, or a redirect's.
type hop struct {
	c      *Client
	origin *host
	why    string // why the origin is asked: WhyRegistry, WhyStore or WhyDocument
}

// RoundTrip implements [http.RoundTripper].
func (t *hop) RoundTrip(req *http.Request) (*http.Response, error) {
	c := t.c
	h := c.host(req.URL.Host)
	self := h == t.origin
	why := t.why
	switch {
	case self:
	case req.Response != nil || t.why != WhyRegistry || req.Context().Value(uploadKey{}) != nil:
		why = WhyRedirect
	default:
		why = WhyToken
	}
	if c.opts.Confined && !self && isLocalName(h.name) && !t.origin.isLocal() {
		closeBody(req)
		return nil, &confinedError{host: h.name, why: why}
	}
	if strings.ContainsFunc(req.Header.Get("Authorization"), unicode.IsControl) {
		closeBody(req)
		return nil, errOddToken
	}
	original := req
	req = req.Clone(context.WithValue(req.Context(), originKey{}, origin{host: t.origin, self: self}))
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Del("Referer") // it would tell a host the signed address of another
	if err := c.note(req, why); err != nil {
		closeBody(req)
		return nil, err
	}
	round, err := h.acquire(req.Context())
	if err != nil {
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
	c.heard(h, resp, round)
	resp.Request = original
	resp.Body = &releasing{ReadCloser: resp.Body, release: sync.OnceFunc(h.release)}
	return resp, nil
}

// errOddToken is a token that would end the header that it is sent in.
var errOddToken = errors.New("the token that its token server gave cannot be sent: there are control characters in it")

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

// heard learns from an answer to a request that was sent in that round.
func (c *Client) heard(h *host, resp *http.Response, round int) {
	asked := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	// Object stores say 503, with the time to wait, where registries say 429.
	tooMany := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable && asked > 0
	h.mu.Lock()
	h.answered = true
	if tooMany && asked > 0 {
		h.notBefore = time.Now().Add(min(asked, c.timing.maxAsked))
	}
	h.mu.Unlock()
	switch {
	case tooMany:
		h.tooMany(round)
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
