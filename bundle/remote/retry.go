package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// errStall ends an attempt in which no byte came for too long; errSilent one at a host that
// has never answered anything.
var (
	errStall  = errors.New("nothing, or next to nothing, arrived for too long")
	errSilent = errors.New("it accepts connections and does not answer")
)

// patience decides, failure after failure of one call, whether and when to try again.
type patience struct {
	c      *Client
	giveUp time.Duration
	failed time.Time // the first failure since something moved
	last   time.Time // something moved
	tries  int       // failures since then
	auth   int       // of these, tokens refused
	bytes  int64     // that moved since then
}

func (c *Client) newPatience() *patience {
	now := time.Now()
	return &patience{c: c, giveUp: c.opts.GiveUpAfter, last: now}
}

// progress says that something moved.
func (p *patience) progress() {
	p.last, p.tries, p.auth, p.bytes = time.Now(), 0, 0, 0
}

// moved says that n bytes more have come. That is progress once they are leastBytes: a host
// that gives a byte at a time would keep a call for years.
func (p *patience) moved(n int) {
	if p.bytes += int64(n); p.bytes >= leastBytes {
		p.progress()
	}
}

// pause returns nil when it is time to try again, or the error to end the call with.
func (p *patience) pause(ctx context.Context, e *Error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !e.transient {
		return e
	}
	var d time.Duration
	h := p.c.host(e.Host)
	now := time.Now()
	if p.tries++; p.tries == 1 || p.failed.IsZero() {
		p.failed = now
	}
	if !h.hasAnswered() {
		spent := now.Sub(p.failed) + p.c.timing.dial // the first attempt took so long at most
		if p.tries >= 3 || spent >= p.c.timing.reach {
			e.kinds, e.transient = []error{ErrUnreachable}, false
			return e
		}
		// So that three attempts that each run into the dial's limit fit.
		d = min(p.c.opts.FirstPause*time.Duration(p.tries*2), max(0, p.c.timing.reach-spent-p.c.timing.dial*time.Duration(3-p.tries)))
	} else {
		idle := now.Sub(p.last)
		if e.maxTries > 0 && p.tries >= e.maxTries {
			e.transient = false
			if len(e.kinds) == 0 {
				e.kinds = []error{ErrRefused}
			}
			return e
		}
		if idle >= p.giveUp && p.tries >= 3 {
			e.kinds, e.transient = []error{ErrInterrupted}, false
			if e.Message == "" {
				e.Message = fmt.Sprintf("nothing moved for %s", idle.Round(time.Second))
			}
			return e
		}
		d = p.backoff()
		if e.soon {
			d = min(d, p.c.opts.FirstPause)
		}
		if e.retryAfter > 0 {
			d = min(e.retryAfter, p.c.timing.maxAsked)
		}
		if left := p.giveUp - idle; left > 0 {
			d = min(d, left)
		} else {
			d = min(d, p.c.opts.FirstPause)
		}
	}
	if f := p.c.opts.OnWait; f != nil {
		f(e.Host, e.why(), d)
	}
	p.c.log.Debug("waiting", "host", e.Host, "why", e.why(), "for", d.Round(time.Millisecond).String())
	return sleep(ctx, d)
}

// backoff grows twofold up to a limit, and is spread over half of its length so that
// parallel calls do not come back together.
func (p *patience) backoff() time.Duration {
	d := p.c.opts.FirstPause << min(p.tries-1, 16)
	if d <= 0 || d > p.c.opts.LongestPause {
		d = p.c.opts.LongestPause
	}
	return d/2 + rand.N(d/2+1)
}

// why is a short reason for a pause, for people.
func (e *Error) why() string {
	switch {
	case e.Status != 0:
		return strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.Status, http.StatusText(e.Status)))
	case e.Err != nil:
		return e.Err.Error()
	}
	return e.Message
}

// retryAfter reads that header: seconds, or a date (RFC 9110, 10.2.3). 0 is none.
func retryAfter(v string, now time.Time) time.Duration {
	if v == "" {
		return 0
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 32); err == nil {
		return max(0, time.Duration(n)*time.Second)
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

func isCertificate(err error) bool {
	var (
		v  *tls.CertificateVerificationError
		u  x509.UnknownAuthorityError
		h  x509.HostnameError
		ci x509.CertificateInvalidError
	)
	return errors.As(err, &v) || errors.As(err, &u) || errors.As(err, &h) || errors.As(err, &ci)
}

// classify turns what an attempt failed with into an Error: which host, proven permanent or
// not, which sentinel. cause is the attempt's own reason to end, if it had one.
func (c *Client) classify(err, cause error, h *host) *Error {
	e := &Error{Host: h.name}
	var ue *url.Error
	inHTTP := errors.As(err, &ue)
	if inHTTP {
		if u, perr := url.Parse(ue.URL); perr == nil && u.Host != "" {
			e.Host = strings.ToLower(u.Host)
		}
		err = ue.Err
	}
	e.Err = scrub(err)
	var (
		token    *errcode.ErrorResponse
		credErr  *credentialError
		confined *confinedError
		redirect *redirectError
		proxy    *proxyError
		syntax   *json.SyntaxError
	)
	switch {
	case errors.Is(cause, errSilent):
		e.kinds, e.Err = []error{ErrUnreachable}, errSilent
	case errors.Is(cause, errStall):
		e.transient, e.Err = true, errStall
	case errors.As(err, &token):
		c.classifyToken(e, token)
	case errors.As(err, &credErr):
		e.kinds, e.Err = []error{ErrAuth}, &scrubbed{text: clean(scrubText(credErr.err.Error())), err: credErr}
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		e.kinds, e.Err, e.Message = []error{ErrAuth}, nil, "it wants a user and a password"
	case errors.Is(err, errOddToken):
		e.kinds = []error{ErrAuth}
	case errors.As(err, &confined):
		e.kinds = []error{ErrConfined}
	case errors.As(err, &redirect):
		e.kinds, e.Err = []error{ErrRefused}, redirect
	case errors.As(err, &proxy):
		c.classifyProxy(e, proxy)
	case isCertificate(err):
		e.kinds = []error{ErrCertificate}
		e.transient, e.maxTries = c.host(e.Host).hasAnswered(), maxOdd
	case errors.Is(err, http.ErrSchemeMismatch):
		e.kinds, e.Err = []error{ErrPlainHTTP}, nil
		e.transient, e.maxTries = c.host(e.Host).hasAnswered(), maxOdd
	case inHTTP || isNetwork(err):
		e.transient = true
	case errors.As(err, &syntax):
		e.kinds, e.Err, e.Message = []error{ErrAuth}, nil, "the token server's answer is not JSON"
	default:
		// What is left are rules of the token exchange that were broken.
		e.kinds = []error{ErrAuth}
	}
	return e
}

// maxOdd is how often a host that has answered well may answer in a way that would be for
// good from any other: one machine of several behind a name that is set up wrongly.
const maxOdd = 4

// isNetwork reports whether err is of a kind that goes away by itself.
func isNetwork(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// classifyToken judges a token server's refusal.
func (c *Client) classifyToken(e *Error, t *errcode.ErrorResponse) {
	e.Host, e.Status, e.Err = strings.ToLower(t.URL.Host), t.StatusCode, nil
	e.Message = "from the token server"
	if len(t.Errors) > 0 {
		e.Code = clean(t.Errors[0].Code)
		e.Message += ": " + clean(scrubText(t.Errors[0].Message))
	}
	switch s := t.StatusCode; {
	case s == http.StatusTooManyRequests, s == http.StatusRequestTimeout, s >= 500 && s != http.StatusNotImplemented && s != http.StatusHTTPVersionNotSupported:
		e.transient = true
		if until := c.host(e.Host).quietUntil(); !until.IsZero() {
			e.retryAfter = max(0, time.Until(until))
		}
	case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusBadRequest, s == http.StatusProxyAuthRequired:
		e.kinds = []error{ErrAuth}
	default:
		e.kinds = []error{ErrRefused}
	}
}

// classifyProxy judges a proxy that opened no way.
func (c *Client) classifyProxy(e *Error, p *proxyError) {
	e.Err = p
	switch {
	case p.status == http.StatusProxyAuthRequired:
		e.kinds = []error{ErrAuth}
	case p.status >= 500 || p.status == http.StatusTooManyRequests:
		e.transient = true
	default:
		e.kinds = []error{ErrRefused}
	}
}

func (h *host) quietUntil() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.notBefore
}
