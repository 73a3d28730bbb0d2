// Package serve is a read-only registry over a source: the pull part of the OCI
// distribution-spec, so that a host that has no registry yet can install from a drive.
//
// Invariants. Only what the [Catalog] names is served, under the names that it has there; no
// path is made from a request. Nothing is written anywhere, and every method that would is
// refused. No byte of a blob leaves before all of the blob has been hashed and found right,
// and none that has changed since: see proofs. Bytes and media types are those of the source,
// or of what heals it, which is proven like it.
package serve

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// Source is where manifests and blobs are read. What it returns is not trusted.
type Source interface {
	content.Fetcher
	// Stat returns the size of a blob, in bytes.
	Stat(d digest.Digest) (int64, error)
}

// Options are what a [Handler] is made of. Source and Catalog must be set.
type Options struct {
	Source  Source
	Catalog *Catalog
	// Heal lists what else may have a blob or manifest that is not right in Source, as parity
	// does, to be asked in that order. What they return is not trusted either. May be nil.
	Heal   func(ocispec.Descriptor) []Healer
	Pulled func(Pull) // told of every request once it has been answered; calls run at the same time; may be nil
}

// Healer has blobs of which the source has no right copy. Forget makes it reconstruct one again.
type Healer interface {
	content.Fetcher
	Forget(digest.Digest)
}

// Pull is one request that was answered, or was not. Its texts come from the client.
type Pull struct {
	Client     string // address and port
	Agent      string // what the client says that it is
	Method     string
	Path       string
	Repository string        // "" if the request names none that is served
	Reference  string        // the tag that was asked for, or ""
	Digest     digest.Digest // of what it stands for, or ""
	Status     int           // of the answer
	Bytes      int64         // of its body that were sent
	Healed     bool          // Source had no right copy, and one of Heal had
	Told       string        // what the client was told instead, of a request that was refused
	Err        error         // why it could not be answered well: the source's fault, or the client went away
}

// Handler answers the requests of the OCI distribution-spec that read.
type Handler struct {
	src    Source
	repos  map[string]*repository
	pulled func(Pull)
	proofs *proofs
	heal   func(ocispec.Descriptor) []Healer
}

// New makes a Handler. It must be closed once no request is under way any more.
func New(opts Options) *Handler {
	h := &Handler{src: opts.Source, repos: opts.Catalog.repos, pulled: opts.Pulled, heal: opts.Heal}
	if h.heal == nil {
		h.heal = func(ocispec.Descriptor) []Healer { return nil }
	}
	h.proofs = newProofs(opts.Source, h.heal)
	if h.pulled == nil {
		h.pulled = func(Pull) {}
	}
	return h
}

// Close ends what is being read from the source, and waits for it.
func (h *Handler) Close() { h.proofs.close() }

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	rec := &recorder{ResponseWriter: w}
	p := Pull{Client: req.RemoteAddr, Agent: req.UserAgent(), Method: req.Method, Path: req.URL.Path}
	defer func() {
		p.Status, p.Bytes = rec.status, rec.bytes
		h.pulled(p)
	}()
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	err := h.answer(rec, req, &p)
	if err == nil {
		return
	}
	a := answerTo(err)
	if a.status >= http.StatusInternalServerError {
		p.Err = err
	} else {
		p.Told = a.message
	}
	if rec.status != 0 {
		// Half of it is on its way: only a connection that ends early says that it is not all.
		panic(http.ErrAbortHandler)
	}
	a.write(rec, req)
}

// answer finds out what is asked for.
func (h *Handler) answer(w http.ResponseWriter, req *http.Request, p *Pull) error {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return &apiError{http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only"}
	}
	rest, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	switch {
	case !ok && req.URL.Path != "/v2":
		return &apiError{http.StatusNotFound, "NOT_FOUND", "only /v2/ is served here"}
	case rest == "":
		return writeJSON(w, req, "application/json", struct{}{})
	case rest == "_catalog":
		return h.catalog(w, req)
	}
	name, what, reference := split(rest)
	if what == "" {
		return &apiError{http.StatusNotFound, "NOT_FOUND", "the OCI distribution-spec has no such path"}
	}
	repo, ok := h.repos[name]
	if !ok {
		return &apiError{http.StatusNotFound, "NAME_UNKNOWN", fmt.Sprintf("no repository %q is served here", name)}
	}
	p.Repository = name
	switch what {
	case "tags":
		return repo.list(w, req, name)
	case "manifests":
		return h.manifest(w, req, repo, reference, p)
	case "blobs":
		return h.blob(w, req, repo, reference, p)
	}
	return repo.referred(w, req, reference, p)
}

// split takes NAME/tags/list, NAME/manifests/REFERENCE, NAME/blobs/DIGEST and
// NAME/referrers/DIGEST apart; what is "" for anything else. A name may have a path component
// of those words, a reference has no slash.
func split(rest string) (name, what, reference string) {
	last := strings.LastIndexByte(rest, '/')
	if last < 0 {
		return "", "", ""
	}
	rest, reference = rest[:last], rest[last+1:]
	last = strings.LastIndexByte(rest, '/')
	if last <= 0 {
		return "", "", ""
	}
	name, what = rest[:last], rest[last+1:]
	switch what {
	case "manifests", "blobs", "referrers":
		return name, what, reference
	case "tags":
		if reference == "list" {
			return name, what, ""
		}
	}
	return "", "", ""
}

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}
