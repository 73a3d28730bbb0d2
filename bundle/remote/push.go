package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// PushBlob uploads desc, in one piece where the registry, and all between, let it pass, else
// in chunks (distribution-spec, "Pushing blobs"). Every attempt opens its source anew, from
// offset 0. open's reader decides over the bytes: if it fails, which a verifying reader does
// before it hands out the last ones, nothing is committed and its error is returned as it
// is. When PushBlob returns, no reader is in use.
func (r *Repository) PushBlob(ctx context.Context, desc ocispec.Descriptor, open func(ctx context.Context, offset int64) (io.ReadCloser, error)) error {
	if err := content.CheckDescriptor(desc); err != nil {
		return err
	}
	u := &upload{r: r, desc: desc, open: open, p: r.c.newPatience()}
	for {
		err := u.attempt(ctx)
		var e *Error
		var source *sourceError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &source):
			return source.err
		case ctx.Err() != nil || !errors.As(err, &e):
			return r.named(err, u.call())
		}
		if err := u.p.pause(ctx, e); err != nil {
			return r.named(err, u.call())
		}
		if u.whole {
			// All was sent, and only the answer was lost: it may be there.
			if ok, err := r.Exists(ctx, desc); err == nil && ok {
				return nil
			}
			u.whole = false
			u.cut(e)
		}
	}
}

// upload is one PushBlob.
type upload struct {
	r    *Repository
	desc ocispec.Descriptor
	open opener
	p    *patience

	chunks   int64 // > 0: in chunks of so many bytes
	noChunks bool  // the registry takes none
	cuts     int   // uploads in one piece that broke in the middle
	most     int64 // bytes ever sent of one
	whole    bool  // the last attempt sent everything
}

func (u *upload) call() *call { return &call{op: "push blob", ref: u.desc.Digest.String()} }

// attempt makes one upload from the start. Errors of the source are a *sourceError.
func (u *upload) attempt(ctx context.Context) error {
	location, least, err := u.r.begin(ctx, "push blob", u.desc.Digest.String())
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.transient = false // begin has had its own patience
		}
		return err
	}
	if limit := u.r.host.bodyLimit(); u.chunks == 0 && limit > 0 && u.desc.Size > limit && !u.noChunks {
		u.chunks = limit
	}
	if u.chunks > 0 {
		return u.chunked(ctx, location, least)
	}
	return u.single(ctx, location)
}

// single sends the blob as the body of one PUT.
func (u *upload) single(ctx context.Context, location *url.URL) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body := &uploadBody{ctx: ctx, desc: u.desc, open: u.open, commit: u.r.c.opts.GiveUpAfter}
	q := u.call()
	q.method, q.upload, q.push = http.MethodPut, withDigest(location, u.desc.Digest), true
	q.ok, q.limit = []int{http.StatusCreated, http.StatusNoContent, http.StatusOK}, errorLimit
	x, e := u.r.send(ctx, q, body, u.p)
	if x != nil {
		e = u.committed(x)
		x.close()
	}
	// An answer may have come before all was read: the source is ours again only now.
	if err := body.finish(cancel); err != nil && (e != nil || body.sent() < u.desc.Size) {
		u.r.abandon(ctx, location)
		return &sourceError{err}
	}
	if e == nil {
		return nil
	}
	return u.judge(e, body.sent())
}

// reached says how far an upload came. Only what was never reached before is progress: an
// upload that breaks at the same place every time is given up.
func (u *upload) reached(n int64) {
	if n > u.most {
		u.most = n
		u.p.progress()
	}
}

// judge decides how to go on after an upload in one piece failed.
func (u *upload) judge(e *Error, sent int64) *Error {
	u.whole = sent == u.desc.Size && u.desc.Size > 0
	u.reached(sent)
	switch {
	case e.Status == http.StatusRequestEntityTooLarge && !u.noChunks:
		u.chunks = u.half()
		u.r.host.setBodyLimit(u.chunks)
		e.transient = true
		u.p.progress()
	case (e.Status == http.StatusLengthRequired || e.Status == http.StatusMethodNotAllowed) && !u.noChunks:
		u.chunks = maxChunk
		e.transient = true
	case e.Status == http.StatusExpectationFailed:
		e.transient, e.maxTries = true, 3
	case lostUpload(e):
		e.transient, e.maxTries = true, 5
	case sent > 0 && !u.whole:
		u.cut(e)
	}
	return e
}

// cut notes an upload in one piece that broke without an answer: after the second, chunks are
// tried, which can go on from where they break.
func (u *upload) cut(e *Error) {
	if e.Status != 0 || u.chunks > 0 || u.noChunks {
		return
	}
	if u.cuts++; u.cuts >= 2 {
		u.chunks = u.half()
	}
}

// half is the size of chunks to begin with.
func (u *upload) half() int64 { return min(maxChunk, max(minChunk, u.desc.Size/2)) }

// lostUpload reports whether the registry has forgotten the upload, or got other bytes than
// were sent: both go away with a new one, or never.
func lostUpload(e *Error) bool {
	switch e.Code {
	case "BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "DIGEST_INVALID", "SIZE_INVALID":
		return true
	}
	return e.Status == http.StatusNotFound && e.Code == "" || e.Status == http.StatusRequestedRangeNotSatisfiable || e.Status == http.StatusBadRequest && e.Code == ""
}

// committed checks the answer to the PUT that ends an upload.
func (u *upload) committed(x *exchange) *Error {
	got := digest.Digest(x.resp.Header.Get(digestHeader))
	if got != "" && content.CheckDigest(got) == nil && got != u.desc.Digest {
		return &Error{Host: x.from(), Status: x.resp.StatusCode, kinds: []error{ErrRefused},
			Err: fmt.Errorf("%w: the registry says that it stored %s", content.ErrDigest, got)}
	}
	return nil
}

// begin starts an upload and returns where it goes, and the least size of a chunk.
func (r *Repository) begin(ctx context.Context, op, ref string) (*url.URL, int64, error) {
	q := &call{op: op, ref: ref, method: http.MethodPost, path: "blobs/uploads/", push: true,
		ok: []int{http.StatusAccepted}, limit: errorLimit}
	a, err := r.do(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	location, e := r.location(a.header, a.url)
	if e != nil {
		return nil, 0, r.named(e, q)
	}
	return location, chunkMinimum(a.header), nil
}

// location reads the address at which an upload goes on; it keeps whatever state it has.
func (r *Repository) location(h http.Header, asked *url.URL) (*url.URL, *Error) {
	raw := h.Get("Location")
	u, err := url.Parse(raw)
	if err != nil || raw == "" {
		return nil, &Error{kinds: []error{ErrRefused}, Message: "it names no Location for the upload"}
	}
	u = asked.ResolveReference(u)
	u.User, u.Fragment = nil, ""
	if strings.EqualFold(u.Hostname(), hostname(r.host.name)) && u.Scheme != asked.Scheme && (u.Port() == "" || u.Port() == asked.Port()) {
		// A registry behind a proxy that ends TLS believes that it speaks plain http, or
		// that it has no port: it means the address it was asked at.
		u.Scheme, u.Host = asked.Scheme, asked.Host
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, &Error{kinds: []error{ErrRefused}, Message: fmt.Sprintf("its Location for the upload is of scheme %q", clean(u.Scheme))}
	case u.Scheme == "http" && asked.Scheme == "https" && !r.c.plainAllowed(u.Host):
		return nil, &Error{kinds: []error{ErrRefused}, Message: "its Location for the upload leaves TLS, at " + clean(u.Host)}
	}
	return u, nil
}

// withDigest adds the digest to an upload's address.
func withDigest(u *url.URL, d digest.Digest) *url.URL {
	c := *u
	if c.RawQuery != "" {
		c.RawQuery += "&"
	}
	c.RawQuery += "digest=" + url.QueryEscape(d.String())
	return &c
}

// abandon tells the registry that an upload will not be finished. That is a courtesy: it
// removes abandoned uploads by itself some day.
func (r *Repository) abandon(ctx context.Context, location *url.URL) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.c.timing.dial)
	defer cancel()
	q := &call{op: "cancel upload", method: http.MethodDelete, upload: location, push: true,
		ok: []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted}}
	if x, _ := r.send(ctx, q, nil, nil); x != nil {
		x.close()
	}
}

// CheckPush finds out whether the repository may be written to: it begins an upload and
// cancels it.
func (r *Repository) CheckPush(ctx context.Context) error {
	location, _, err := r.begin(ctx, "check push to", "")
	if err != nil {
		return err
	}
	r.abandon(ctx, location)
	return nil
}

// Mount asks the registry to take desc over from its repository from ("a/b", or with the
// host in front). It returns false if the registry does not, which costs nothing.
func (r *Repository) Mount(ctx context.Context, desc ocispec.Descriptor, from string) (bool, error) {
	if err := content.CheckDescriptor(desc); err != nil {
		return false, err
	}
	from = strings.TrimPrefix(from, r.host.name+"/")
	if !pathGrammar.MatchString(from) {
		return false, fmt.Errorf("mount from %q: not a repository of %s", clean(from), r.host.name)
	}
	q := &call{op: "mount blob", ref: desc.Digest.String(), method: http.MethodPost, path: "blobs/uploads/", push: true,
		query:  url.Values{"mount": {desc.Digest.String()}, "from": {from}},
		scopes: []string{"repository:" + from + ":pull"},
		ok:     []int{http.StatusCreated, http.StatusAccepted, http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed},
		limit:  errorLimit}
	a, err := r.do(ctx, q)
	if err != nil {
		return false, err
	}
	if a.status == http.StatusAccepted {
		if location, e := r.location(a.header, a.url); e == nil {
			r.abandon(ctx, location)
		}
	}
	return a.status == http.StatusCreated, nil
}

// PushManifest puts the manifest raw, byte for byte, under ref, a tag or desc's digest. What
// it names must be there already. A registry that refuses to move a tag which already points
// to desc is no error.
func (r *Repository) PushManifest(ctx context.Context, desc ocispec.Descriptor, raw []byte, ref string) error {
	want, err := parseReference(ref)
	if err != nil {
		return err
	}
	if err := content.CheckDescriptor(desc); err != nil {
		return err
	}
	switch {
	case int64(len(raw)) != desc.Size:
		return fmt.Errorf("push manifest %s: %w: %d bytes of %d", desc.Digest, content.ErrSize, len(raw), desc.Size)
	case digest.FromBytes(raw) != desc.Digest || want != "" && want != desc.Digest:
		return fmt.Errorf("push manifest %s as %s: %w: the bytes hash to %s", desc.Digest, ref, content.ErrDigest, digest.FromBytes(raw))
	}
	// The digest is right, as was just seen. Distribution says the contrary where another client
	// is writing the link of a blob that the manifest names, at this very moment: it reads a
	// file that is half written.
	q := &call{op: "push manifest", ref: ref, method: http.MethodPut, path: "manifests/" + ref, push: true, patient: true, again: "DIGEST_INVALID", body: bytes.Clone(raw),
		header: http.Header{"Content-Type": []string{desc.MediaType}},
		ok:     []int{http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent}, limit: errorLimit}
	a, err := r.do(ctx, q)
	if err != nil {
		return r.explainManifest(ctx, desc, ref, want == "", err)
	}
	got := digest.Digest(a.header.Get(digestHeader))
	if got != "" && content.CheckDigest(got) == nil && got != desc.Digest {
		return r.named(&Error{Status: a.status, kinds: []error{ErrRefused},
			Err: fmt.Errorf("%w: the registry stored it as %s: it converts manifests", content.ErrDigest, got)}, q)
	}
	return nil
}

// explainManifest looks at a refusal: a tag that may not be moved but points right is none,
// and a registry that does not take Docker's manifests is told apart.
func (r *Repository) explainManifest(ctx context.Context, desc ocispec.Descriptor, ref string, isTag bool, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Status < 400 || e.Status >= 500 {
		return err
	}
	if isTag && e.Status != http.StatusUnauthorized {
		if have, rerr := r.Resolve(ctx, ref); rerr == nil && have.Digest == desc.Digest {
			return nil
		}
	}
	docker := desc.MediaType == content.MediaTypeDockerManifest || desc.MediaType == content.MediaTypeDockerList
	if docker && (e.Status == http.StatusUnsupportedMediaType || e.Code == "MANIFEST_INVALID") {
		e.Message = strings.TrimPrefix(e.Message+`; the registry does not take Docker schema 2 manifests, and they cannot be converted without changing their digest (zot: set "http": {"compat": ["docker2s2"]})`, "; ")
	}
	return e
}
