package remote

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
)

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
			return &redirectError{fmt.Sprintf("a redirect of %s to %s would make it %s", first.Method, clean(req.URL.Host), req.Method)}
		case req.URL.Scheme != "https" && req.URL.Scheme != "http":
			return &redirectError{fmt.Sprintf("a redirect to an address of scheme %q", clean(req.URL.Scheme))}
		case req.URL.Scheme == "http" && via[len(via)-1].URL.Scheme == "https" && !c.plainAllowed(req.URL.Host):
			return &redirectError{fmt.Sprintf("a redirect from https to plain http at %s", clean(req.URL.Host))}
		}
		return nil
	}
}
