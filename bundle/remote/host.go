package remote

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// host is what is known of one host:port.
type host struct {
	name string // as in addresses, with a port if one was named

	mu        sync.Mutex
	answered  bool      // it has given an HTTP answer
	served    bool      // it has given content, as a registry does
	local     bool      // it was found at a loopback or link-local address
	scheme    string    // "" until it is known
	notBefore time.Time // it asked to be left alone until then
	maxBody   int64     // the longest request body that passes, 0 if no limit is known

	limiter
	probing sync.Mutex // serialises the question which scheme it speaks
}

func (c *Client) host(name string) *host {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hostLocked(name)
}

func (c *Client) hostLocked(name string) *host {
	name = strings.ToLower(name)
	h := c.hosts[name]
	if h == nil {
		h = &host{name: name, local: isLocalName(name)}
		c.hosts[name] = h
	}
	return h
}

func (h *host) hasAnswered() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.answered
}

func (h *host) hasServed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.served
}

func (h *host) serves() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.served = true
}

func (h *host) isLocal() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.local
}

func (h *host) bodyLimit() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.maxBody
}

func (h *host) setBodyLimit(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.maxBody = n
}

// insecure reports whether plain http and unverified TLS were allowed for the host.
func (c *Client) insecure(name string) bool {
	if !c.opts.Insecure {
		return false
	}
	if len(c.opts.InsecureHosts) == 0 {
		return true
	}
	for _, h := range c.opts.InsecureHosts {
		if strings.EqualFold(h, name) || strings.EqualFold(h, hostname(name)) {
			return true
		}
	}
	return false
}

// plainAllowed reports whether plain http may be spoken with the host.
func (c *Client) plainAllowed(name string) bool { return c.insecure(name) || isLoopbackName(name) }

// hostname strips the port, and the brackets of an IPv6 address.
func hostname(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return strings.Trim(hostport, "[]")
}

// isLoopbackName reports whether a host is this machine by its name alone.
func isLoopbackName(hostport string) bool {
	h := strings.ToLower(strings.TrimSuffix(hostname(hostport), "."))
	if h == "localhost" || strings.HasSuffix(h, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(h)
	return err == nil && a.Unmap().IsLoopback()
}

// isLocalName reports whether a host, by its name or literal address alone, is one of those
// that [Options].Confined is about.
func isLocalName(hostport string) bool {
	if isLoopbackName(hostport) {
		return true
	}
	a, err := netip.ParseAddr(hostname(hostport))
	return err == nil && isLocalAddr(a)
}

// localPrefixes are loopback, link-local, unspecified and cloud metadata addresses.
var localPrefixes = auth.DefaultBlockedRealmPrefixes()

// isLocalAddr looks through the IPv6 forms that stand for an IPv4 address.
func isLocalAddr(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		b := a.As16()
		switch {
		case strings.HasPrefix(string(b[:]), "\x00\x64\xff\x9b\x00\x00\x00\x00\x00\x00\x00\x00"): // NAT64
			a = netip.AddrFrom4([4]byte(b[12:16]))
		case b[0] == 0x20 && b[1] == 0x02: // 6to4
			a = netip.AddrFrom4([4]byte(b[2:6]))
		}
	}
	for _, p := range localPrefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// base returns "https://host" or "http://host". A host with which plain http is allowed is
// asked once which it speaks, TLS first.
func (c *Client) base(ctx context.Context, h *host) (string, error) {
	if !c.plainAllowed(h.name) {
		return "https://" + h.name, nil
	}
	h.probing.Lock()
	defer h.probing.Unlock()
	h.mu.Lock()
	scheme := h.scheme
	h.mu.Unlock()
	if scheme == "" {
		var err error
		if scheme, err = c.probe(ctx, h); err != nil {
			return "", err
		}
		h.mu.Lock()
		h.scheme = scheme
		h.mu.Unlock()
	}
	return scheme + "://" + h.name, nil
}

// probe finds out whether the host speaks TLS. The error is that of the TLS attempt.
func (c *Client) probe(ctx context.Context, h *host) (string, error) {
	_, tlsErr := c.ping(ctx, h, "https://"+h.name+"/v2/")
	if tlsErr == nil {
		return "https", nil
	}
	var slow net.Error
	if isCertificate(tlsErr) || ctx.Err() != nil || errors.As(tlsErr, &slow) && slow.Timeout() {
		return "", tlsErr
	}
	answered := h.hasAnswered()
	status, err := c.ping(ctx, h, "http://"+h.name+"/v2/")
	if err != nil {
		if errors.Is(tlsErr, http.ErrSchemeMismatch) {
			return "", err
		}
		return "", tlsErr
	}
	if status == http.StatusBadRequest && !errors.Is(tlsErr, http.ErrSchemeMismatch) {
		// That is how a TLS server answers plain http: TLS failed for another reason. What
		// it says to a question that nobody would ask it is no answer.
		h.mu.Lock()
		h.answered = answered
		h.mu.Unlock()
		return "", tlsErr
	}
	return "http", nil
}

// ping asks url once, without credentials, within the time for one connection and answer.
func (c *Client) ping(ctx context.Context, h *host, url string) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timing.dial)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := (&http.Client{
		Transport:     &hop{c: c, origin: h, why: WhyRegistry},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}).Do(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

// limiter bounds the requests under way to a host once it has said that there are too many.
// Its zero value does not limit.
type limiter struct {
	lmu      sync.Mutex
	limit    int // 0 is none
	inFlight int
	good     int // answers since the limit last moved
	round    int // how often the limit was lowered
	free     chan struct{}
}

// limitPatience is how long a request waits for its turn. It is then sent all the same: a
// caller may hold one stream open while it waits for another of the same host.
const limitPatience = 10 * time.Second

// acquire returns the round in which the request is sent, for tooMany.
func (l *limiter) acquire(ctx context.Context) (round int, err error) {
	deadline := time.Now().Add(limitPatience)
	for {
		l.lmu.Lock()
		left := time.Until(deadline)
		if l.limit == 0 || l.inFlight < l.limit || left <= 0 {
			l.inFlight++
			round = l.round
			l.lmu.Unlock()
			return round, nil
		}
		if l.free == nil {
			l.free = make(chan struct{})
		}
		free := l.free
		l.lmu.Unlock()
		t := time.NewTimer(left)
		select {
		case <-ctx.Done():
			t.Stop()
			return 0, ctx.Err()
		case <-free:
		case <-t.C:
		}
		t.Stop()
	}
}

func (l *limiter) release() {
	l.lmu.Lock()
	defer l.lmu.Unlock()
	l.inFlight--
	l.wake()
}

func (l *limiter) wake() {
	if l.free != nil {
		close(l.free)
		l.free = nil
	}
}

// tooMany halves the limit, once for all requests that were under way in a round; fine raises
// it again, slowly, until there is none.
func (l *limiter) tooMany(round int) {
	l.lmu.Lock()
	defer l.lmu.Unlock()
	l.good = 0
	if round != l.round {
		return
	}
	l.round++
	n := l.inFlight
	if l.limit > 0 {
		n = min(n, l.limit)
	}
	l.limit = max(1, n/2)
}

func (l *limiter) fine() {
	l.lmu.Lock()
	defer l.lmu.Unlock()
	if l.limit == 0 {
		return
	}
	if l.good++; l.good < 4*l.limit {
		return
	}
	l.good = 0
	if l.limit++; l.limit > 32 {
		l.limit = 0
	}
	l.wake()
}
