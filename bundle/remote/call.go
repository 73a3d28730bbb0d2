package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// call is one request to a registry, as often as it takes.
type call struct {
	op, ref string // for errors
	method  string
	path    string // below /v2/<name>/
	query   url.Values
	upload  *url.URL // instead of path: a Location that the registry gave
	root    bool     // instead of path: /v2/ itself
	nobody  bool     // no credential is sent
	header  http.Header
	body    []byte
	ok      []int    // statuses that are answers; others become errors
	limit   int64    // bytes of the body that are read, more is an error
	unread  bool     // the body is not read at all
	push    bool     // something is to be written
	patient bool     // the answer may take as long as GiveUpAfter: a registry hashes first
	again   string   // a code of a refusal that is worth a few tries more
	scopes  []string // beside the repository's own
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	length int64 // Content-Length, -1 unknown
	body   []byte
	url    *url.URL // that was asked, before redirects
}

// errorLimit bounds, in bytes, what is read of an error's body.
const errorLimit = 64 << 10

// do makes the call until it is answered.
func (r *Repository) do(ctx context.Context, q *call) (*answer, error) {
	p := r.c.newPatience()
	for {
		a, e := r.once(ctx, q, p)
		if e == nil {
			return a, nil
		}
		if err := p.pause(ctx, e); err != nil {
			return nil, r.named(err, q)
		}
	}
}

// named completes an Error with what was asked; other errors get it as a text.
func (r *Repository) named(err error, q *call) error {
	e, ok := err.(*Error)
	if !ok {
		return fmt.Errorf("%s %s: %w", q.op, r.name, err)
	}
	if e.Op != "" {
		return e // it has its name already
	}
	e.Op, e.Repository, e.Reference = q.op, r.name, q.ref
	if r.mirrored {
		e.Endpoint = r.Endpoint()
	}
	if e.Host == "" {
		e.Host = r.host.name
	}
	var own *credentialError
	if errors.Is(e, ErrAuth) && e.Status != http.StatusProxyAuthRequired && !errors.As(e, &own) {
		e.Message = strings.TrimPrefix(e.Message+"; "+r.session.advice(), "; ")
	}
	return e
}

// once makes one attempt.
func (r *Repository) once(ctx context.Context, q *call, p *patience) (*answer, *Error) {
	x, e := r.send(ctx, q, nil, p)
	if e != nil {
		return nil, e
	}
	defer x.close()
	a := &answer{status: x.resp.StatusCode, header: x.resp.Header, length: x.resp.ContentLength, url: x.url}
	if q.unread {
		return a, nil
	}
	body, err := x.readAll(q.limit)
	if err != nil {
		return nil, x.failure(err)
	}
	a.body = body
	return a, nil
}

// uploadKey marks the context of requests to an upload's Location.
type uploadKey struct{}

// send makes one attempt up to the answer's header, and returns answers of the statuses in
// q.ok only. body, if not nil, is sent instead of q.body.
func (r *Repository) send(ctx context.Context, q *call, body *uploadBody, p *patience) (*exchange, *Error) {
	if err := r.c.gate(ctx, r.host); err != nil {
		return nil, &Error{Err: err}
	}
	w := newWatch(ctx, r.c.opts.StallAfter)
	if q.patient {
		w.after = max(w.after, r.c.opts.GiveUpAfter)
	}
	target, err := r.target(w.ctx, q)
	if err != nil {
		w.end()
		return nil, r.c.classify(err, nil, r.host)
	}
	req, err := r.request(w.ctx, q, target, body)
	if err != nil {
		w.end()
		return nil, &Error{Host: r.host.name, kinds: []error{ErrRefused}, Err: scrub(err)}
	}
	if body != nil {
		body.use(w)
	}
	stop := r.c.watchSilence(w, r.host, target)
	w.arm()
	resp, err := r.doer(q, target).Do(req)
	stop()
	w.disarm()
	if err != nil {
		e := r.c.classify(err, w.cause(), r.host)
		w.end()
		return nil, e
	}
	x := &exchange{c: r.c, h: r.host, resp: resp, watch: w, url: target}
	for _, s := range q.ok {
		if s == resp.StatusCode {
			if !q.root { // /v2/ says nothing of what is allowed in a repository
				r.session.served(q.push).Store(true)
			}
			return x, nil
		}
	}
	e := r.refusal(x, q, p)
	x.close()
	return nil, e
}

// refusal makes the Error of an answer with another status than was hoped for.
func (r *Repository) refusal(x *exchange, q *call, p *patience) *Error {
	raw, _ := io.ReadAll(io.LimitReader(x, errorLimit)) // what can be had of an explanation
	e := statusError(x.resp, raw, x.from() != r.host.name, q.push)
	if e.Status == http.StatusUnauthorized && x.from() == r.host.name && p != nil && p.auth < maxRefused &&
		r.session.served(q.push).Load() && strings.HasPrefix(strings.ToLower(x.resp.Header.Get("Www-Authenticate")), "bearer") {
		// Tokens were accepted before, and this one was got a moment ago: it was used up
		// or expired in between.
		p.auth++
		e.transient, e.maxTries, e.soon = true, maxRefused+1, true
	}
	if q.again != "" && e.Code == q.again {
		e.transient, e.maxTries = true, 5
	}
	return e
}

// maxRefused is how many fresh tokens may be refused in a row once one was accepted. Where many
// calls share a token that lasts for few, each may find it used up several times.
const maxRefused = 8

// doer is who sends a request: with the repository's credential only to its registry.
func (r *Repository) doer(q *call, target *url.URL) interface {
	Do(*http.Request) (*http.Response, error)
} {
	if !q.nobody && strings.EqualFold(target.Host, r.host.name) {
		return r.session.auth
	}
	return r.session.plain
}

// target is the address to ask.
func (r *Repository) target(ctx context.Context, q *call) (*url.URL, error) {
	if q.upload != nil {
		return q.upload, nil
	}
	base, err := r.c.base(ctx, r.host)
	if err != nil {
		return nil, err
	}
	if q.root {
		return url.Parse(base + "/v2/")
	}
	u, err := url.Parse(base + "/v2/" + r.path + "/" + q.path)
	if err != nil {
		return nil, err
	}
	u.RawQuery = q.query.Encode()
	return u, nil
}

func (r *Repository) request(ctx context.Context, q *call, target *url.URL, body *uploadBody) (*http.Request, error) {
	actions := []string{auth.ActionPull}
	if q.push {
		actions = append(actions, auth.ActionPush)
	}
	scopes := append([]string{auth.ScopeRepository(r.path, actions...)}, q.scopes...)
	ctx = auth.WithScopesForHost(ctx, target.Host, scopes...)
	if q.upload != nil {
		ctx = context.WithValue(ctx, uploadKey{}, true)
	}
	var rd io.Reader
	if q.body != nil {
		rd = bytes.NewReader(q.body)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, target.String(), rd)
	if err != nil {
		return nil, err
	}
	for k, v := range q.header {
		req.Header[k] = v
	}
	if body != nil {
		return req, body.attach(req)
	}
	if req.Body == nil && (q.method == http.MethodPost || q.method == http.MethodPut || q.method == http.MethodPatch) {
		req.Body = http.NoBody // says Content-Length: 0, which some proxies insist on
	}
	return req, nil
}

// gate waits until a host that asked to be left alone may be asked again.
func (c *Client) gate(ctx context.Context, h *host) error {
	d := time.Until(h.quietUntil())
	if d <= 0 {
		return nil
	}
	d += rand.N(d/8 + 1) // those who wait do not come back together
	if c.opts.OnWait != nil {
		c.opts.OnWait(h.name, "it asked for a pause", d)
	}
	return sleep(ctx, d)
}
