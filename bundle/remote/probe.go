package remote

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"pannier/bundle/content"
)

// Greeting is what a registry says of itself when it is asked for nothing but /v2/
// (distribution-spec, "Endpoints", end-1).
type Greeting struct {
	Scheme       string              // "https" or "http"
	Verified     bool                // the certificate was verified; false over http and where Insecure allows it
	Certificates []*x509.Certificate // as presented, the registry's own first; nil over http
	Status       int                 // 200, or 401 if it wants a credential
	Challenge    string              // "bearer" or "basic": what kind; "" if none
	Realm        string              // host of the token server, for bearer
	Server       string              // the Server header
	Flavour      Flavour             // the product, where it says so
	Date         time.Time           // by the registry's clock, to the second; zero if it does not tell
	Asked        time.Time           // by our clock: halfway between the question and the answer
}

// Ping asks the repository's registry for /v2/, without credentials. An answer that no
// registry gives is an error, as is none.
func (r *Repository) Ping(ctx context.Context) (*Greeting, error) {
	q := &call{op: "ask registry of", method: http.MethodGet, root: true, nobody: true, ok: []int{http.StatusOK, http.StatusUnauthorized}}
	p := r.c.newPatience()
	for {
		g, e := r.greet(ctx, q)
		if e == nil {
			return g, nil
		}
		if err := p.pause(ctx, e); err != nil {
			return nil, r.named(err, q)
		}
	}
}

func (r *Repository) greet(ctx context.Context, q *call) (*Greeting, *Error) {
	asked := time.Now()
	x, e := r.send(ctx, q, nil, nil)
	if e != nil {
		return nil, e
	}
	defer x.close()
	took := time.Since(asked)
	body, _ := io.ReadAll(io.LimitReader(x, errorLimit)) // only to tell a web page
	h := x.resp.Header
	g := &Greeting{
		Scheme: x.url.Scheme, Status: x.resp.StatusCode, Server: clean(h.Get("Server")), Flavour: flavourOf(r.host.name, h),
		Asked: asked.Add(took / 2), Verified: x.url.Scheme == "https" && !r.c.insecure(r.host.name),
	}
	if tls := x.resp.TLS; tls != nil {
		g.Certificates = tls.PeerCertificates
	}
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		g.Date = t
	}
	g.Challenge, g.Realm = challenge(h.Get("Www-Authenticate"))
	if g.Challenge == "" && isHTML(h.Get("Content-Type"), body) {
		return nil, &Error{Status: g.Status, kinds: []error{ErrNotRegistry}}
	}
	return g, nil
}

// challenge reads as much of a WWW-Authenticate header as people want to know.
func challenge(header string) (scheme, realm string) {
	scheme, params, _ := strings.Cut(header, " ")
	scheme = strings.ToLower(scheme)
	if scheme != "bearer" && scheme != "basic" {
		return "", ""
	}
	if scheme == "bearer" {
		_, rest, _ := strings.Cut(params, `realm="`)
		address, _, _ := strings.Cut(rest, `"`)
		if u, err := url.Parse(address); err == nil {
			realm = clean(u.Host)
		}
	}
	return scheme, realm
}

// Authenticate asks for /v2/ with the repository's credential and tells whether a credential
// was wanted at all. A nil error does not say what that credential may do.
func (r *Repository) Authenticate(ctx context.Context) error {
	q := &call{op: "log in to registry of", method: http.MethodGet, root: true, ok: []int{http.StatusOK}}
	p := r.c.newPatience()
	for {
		x, e := r.send(ctx, q, nil, p)
		if e == nil {
			x.close()
			return nil
		}
		if err := p.pause(ctx, e); err != nil {
			return r.named(err, q)
		}
	}
}

// Credential says in words which credential serves the repository, never the secret. Errors
// are those of reading it.
func (r *Repository) Credential(ctx context.Context) (text string, found bool, err error) {
	cred, err := r.session.credential(ctx)
	if err != nil {
		return "", false, &Error{Op: "look up credential for", Host: r.host.name, Repository: r.name, kinds: []error{ErrAuth}, Err: scrub(err)}
	}
	return r.session.advice(), cred != auth.EmptyCredential, nil
}

// Referrers reports whether the registry answers the referrers API (OCI distribution-spec 1.1,
// "Listing Referrers"). Older ones do not, and say so in many ways: what is no list is a no.
// Errors are those of a registry that cannot be reached or does not let this account read.
func (r *Repository) Referrers(ctx context.Context) (bool, error) {
	nothing := digest.FromBytes(nil).String() // has no referrers, and need not be there
	q := &call{op: "list referrers in", ref: nothing, method: http.MethodGet, path: "referrers/" + nothing,
		header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}}, ok: []int{http.StatusOK}, limit: content.MaxManifest}
	a, err := r.do(ctx, q)
	switch {
	case err == nil:
		mediaType, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
		return mediaType == ocispec.MediaTypeImageIndex, nil
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrRefused):
		return false, nil
	}
	return false, err
}

// DeleteManifest asks the registry to remove the manifest d. Many do not allow it. That it is
// not there is no error.
func (r *Repository) DeleteManifest(ctx context.Context, d digest.Digest) error {
	return r.remove(ctx, "delete manifest", "manifests/", d)
}

// DeleteBlob asks the registry to remove the blob d from this repository. Many do not allow
// it. That it is not there is no error.
func (r *Repository) DeleteBlob(ctx context.Context, d digest.Digest) error {
	return r.remove(ctx, "delete blob", "blobs/", d)
}

func (r *Repository) remove(ctx context.Context, op, path string, d digest.Digest) error {
	if err := content.CheckDigest(d); err != nil {
		return err
	}
	q := &call{op: op, ref: d.String(), method: http.MethodDelete, path: path + d.String(),
		scopes: []string{auth.ScopeRepository(r.path, auth.ActionDelete)},
		ok:     []int{http.StatusAccepted, http.StatusOK, http.StatusNoContent}, limit: errorLimit}
	_, err := r.do(ctx, q)
	if errors.Is(err, ErrNotFound) && !errors.Is(err, ErrNotRegistry) {
		return nil
	}
	return err
}
