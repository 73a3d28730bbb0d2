package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// digestHeader is where registries tell the digest of what they serve or have stored.
const digestHeader = "Docker-Content-Digest"

var tagGrammar = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// parseReference tells a digest from a tag; want is "" for a tag.
func parseReference(ref string) (want digest.Digest, err error) {
	if strings.Contains(ref, ":") {
		return digest.Digest(ref), content.CheckDigest(digest.Digest(ref))
	}
	if !tagGrammar.MatchString(ref) {
		return "", fmt.Errorf("reference %q: neither a tag nor a digest", clean(ref))
	}
	return "", nil
}

// manifestAccept asks for every kind of manifest: asked for lists alone, quay converts.
func manifestAccept() http.Header {
	return http.Header{"Accept": []string{strings.Join(content.ManifestTypes, ", ")}}
}

// Resolve returns the descriptor of the manifest that ref, a tag or a digest, stands for. It
// is one HEAD request; where that does not tell digest, size and media type, the manifest is
// read. A digest that is only told, not computed, is proven when the manifest is fetched.
func (r *Repository) Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	want, err := parseReference(ref)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	q := &call{op: "resolve", ref: ref, method: http.MethodHead, path: "manifests/" + ref, header: manifestAccept(),
		ok: []int{http.StatusOK, http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusBadRequest}}
	a, err := r.do(ctx, q)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{
		MediaType: mediaType(a.header),
		Digest:    digest.Digest(a.header.Get(digestHeader)),
		Size:      a.length,
	}
	if want != "" && desc.Digest == "" {
		desc.Digest = want
	}
	if a.status != http.StatusOK || !content.IsManifest(desc.MediaType) || desc.Size <= 0 || content.CheckDigest(desc.Digest) != nil || want != "" && desc.Digest != want {
		desc, _, err = r.Manifest(ctx, ref)
		return desc, err
	}
	return desc, nil
}

// Manifest reads the manifest that ref, a tag or a digest, stands for. The bytes are proven:
// by the digest if ref is one, else by the digest that the registry tells with them (an
// error wrapping [content.ErrDigest] if it is another). Its media type is one of
// [content.ManifestTypes], and the one that it says itself.
func (r *Repository) Manifest(ctx context.Context, ref string) (ocispec.Descriptor, []byte, error) {
	want, err := parseReference(ref)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	q := &call{op: "fetch manifest", ref: ref, method: http.MethodGet, path: "manifests/" + ref, header: manifestAccept(),
		ok: []int{http.StatusOK}, limit: content.MaxManifest}
	p := r.c.newPatience()
	for {
		a, e := r.once(ctx, q, p)
		switch {
		case e != nil:
		case isHTML(a.header.Get("Content-Type"), a.body):
			e = r.webPage(r.host.name, a.status)
		default:
			var desc ocispec.Descriptor
			if desc, e = checkManifest(a, want); e == nil {
				r.host.serves()
				return desc, a.body, nil
			}
			e.Host = r.host.name
		}
		if err := p.pause(ctx, e); err != nil {
			return ocispec.Descriptor{}, nil, r.named(err, q)
		}
	}
}

// webPage is the error of an answer that is a web page. From a registry that served before it
// may be a passing one: of a proxy that wants a login, of somebody who does maintenance.
func (r *Repository) webPage(from string, status int) *Error {
	return &Error{Host: from, Status: status, kinds: []error{ErrNotRegistry}, transient: r.host.hasServed(), maxTries: maxOdd}
}

// checkManifest judges the answer to a request for a manifest. Bytes that do not hash to
// what they should may have been changed on their way: that is tried again, a few times.
func checkManifest(a *answer, want digest.Digest) (ocispec.Descriptor, *Error) {
	got := digest.FromBytes(a.body)
	desc := ocispec.Descriptor{MediaType: mediaType(a.header), Digest: got, Size: int64(len(a.body))}
	told := want
	if told == "" {
		told = digest.Digest(a.header.Get(digestHeader))
		if told != "" && content.CheckDigest(told) != nil {
			told = "" // of another algorithm: it proves nothing
		}
	}
	var body struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
	}
	bad := json.Unmarshal(a.body, &body)
	refuse := func(err error) (ocispec.Descriptor, *Error) {
		return ocispec.Descriptor{}, &Error{kinds: []error{ErrRefused}, Err: err}
	}
	switch {
	case body.SchemaVersion == 1 || strings.Contains(desc.MediaType, "docker.distribution.manifest.v1+"):
		return refuse(fmt.Errorf("%w: a manifest of schema version 1, which registries make by conversion and whose digest is another", content.ErrInvalid))
	case told != "" && told != got:
		_, e := refuse(fmt.Errorf("%s: %w: the bytes hash to %s", told, content.ErrDigest, got))
		e.transient, e.maxTries = true, 3
		return ocispec.Descriptor{}, e
	case bad != nil:
		return refuse(fmt.Errorf("%w: the answer is not JSON", content.ErrInvalid))
	case !content.IsManifest(desc.MediaType) && content.IsManifest(body.MediaType) && isVague(desc.MediaType):
		desc.MediaType = body.MediaType
	case !content.IsManifest(desc.MediaType):
		return refuse(fmt.Errorf("%w: media type %q is no manifest that is understood", content.ErrInvalid, clean(desc.MediaType)))
	}
	if body.MediaType != "" && body.MediaType != desc.MediaType {
		return refuse(fmt.Errorf("%w: served as %q, says itself that it is %q", content.ErrInvalid, desc.MediaType, clean(body.MediaType)))
	}
	return desc, nil
}

// isVague reports whether a Content-Type says nothing, as from plain file servers.
func isVague(mt string) bool {
	switch mt {
	case "", "application/json", "application/octet-stream", "text/plain":
		return true
	}
	return false
}

func mediaType(h http.Header) string {
	mt, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return mt
}

// Exists asks whether the registry has what desc names, in this repository. It is believed if
// it tells digest and size; one that does not tell the digest is asked for more: a manifest is
// read, and of a blob the beginning. Something of another size does not count.
func (r *Repository) Exists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if err := content.CheckDescriptor(desc); err != nil {
		return false, err
	}
	q := &call{op: "look for blob", ref: desc.Digest.String(), method: http.MethodHead, path: "blobs/" + desc.Digest.String(),
		ok: []int{http.StatusOK}, unread: true}
	if content.IsManifest(desc.MediaType) {
		q.op, q.path, q.header = "look for manifest", "manifests/"+desc.Digest.String(), manifestAccept()
	}
	a, err := r.do(ctx, q)
	var e *Error
	if errors.As(err, &e) && (e.Status == http.StatusMethodNotAllowed || e.Host != r.host.name && errors.Is(err, ErrRefused)) {
		// Addresses that are signed for GET refuse HEAD.
		return r.look(ctx, desc, q)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case isHTML(a.header.Get("Content-Type"), nil):
		return false, r.named(&Error{Status: a.status, kinds: []error{ErrNotRegistry}}, q)
	}
	told := a.header.Get("Docker-Content-Digest")
	switch {
	case told != "" && told != desc.Digest.String():
		return false, nil
	case a.length == desc.Size && told != "":
		return true, nil
	case a.length > 0 && a.length != desc.Size:
		return false, nil
	}
	// A 200 without the digest says little: things that are no registry answer so to everything.
	return r.look(ctx, desc, q)
}

// look is Exists by GET, of a manifest in full, of a blob its first byte.
func (r *Repository) look(ctx context.Context, desc ocispec.Descriptor, q *call) (bool, error) {
	if content.IsManifest(desc.MediaType) {
		have, _, err := r.Manifest(ctx, desc.Digest.String())
		if errors.Is(err, ErrNotFound) || errors.Is(err, content.ErrDigest) {
			return false, nil
		}
		return err == nil && have.Size == desc.Size, err
	}
	q.method, q.ok = http.MethodGet, []int{http.StatusOK, http.StatusPartialContent}
	if desc.Size > 0 {
		q.header = http.Header{"Range": []string{"bytes=0-0"}}
	}
	a, err := r.do(ctx, q)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case isHTML(a.header.Get("Content-Type"), nil):
		return false, r.named(&Error{Status: a.status, kinds: []error{ErrNotRegistry}}, q)
	}
	size := a.length
	if a.status == http.StatusPartialContent {
		if _, total, ok := parseContentRange(a.header.Get("Content-Range")); ok {
			size = total
		}
	}
	return size == desc.Size, nil
}

const (
	maxTagPage  = 8 << 20 // bytes of one page of a tag list
	maxTagPages = 10_000
	maxTags     = 1 << 20
)

var nextLink = regexp.MustCompile(`<([^>]*)>\s*;[^,]*\brel="?next\b`)

// Tags lists the repository's tags, in the registry's order. Of a registry's link to the
// next page only the query is used.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	q := &call{op: "list tags", method: http.MethodGet, path: "tags/list", ok: []int{http.StatusOK}, limit: maxTagPage,
		query: url.Values{"n": {"1000"}}}
	var tags []string
	seen := map[string]bool{}
	for pages := 1; ; pages++ {
		a, err := r.do(ctx, q)
		if err != nil {
			return nil, err
		}
		if isHTML(a.header.Get("Content-Type"), a.body) {
			return nil, r.named(&Error{Status: a.status, kinds: []error{ErrNotRegistry}}, q)
		}
		var page struct{ Tags []string }
		if err := json.Unmarshal(a.body, &page); err != nil {
			return nil, r.named(&Error{kinds: []error{ErrRefused}, Message: "its list of tags is not JSON"}, q)
		}
		before := len(tags)
		for _, t := range page.Tags {
			if tagGrammar.MatchString(t) && !seen[t] {
				seen[t] = true
				tags = append(tags, t)
			}
		}
		next, more := nextPage(a.header.Get("Link"))
		if !more || len(page.Tags) == 0 {
			return tags, nil
		}
		if next == nil || len(tags) == before || len(tags) > maxTags || pages > maxTagPages {
			return nil, r.named(&Error{kinds: []error{ErrRefused}, Message: "its list of tags does not end"}, q)
		}
		q.query = next
	}
}

// nextPage reads the query of a link to the next page (RFC 8288); nil if it cannot be read.
func nextPage(link string) (query url.Values, more bool) {
	m := nextLink.FindStringSubmatch(link)
	if m == nil {
		return nil, false
	}
	u, err := url.Parse(m[1])
	if err != nil {
		return nil, true
	}
	return u.Query(), true
}
