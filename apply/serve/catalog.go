package serve

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/content"
)

// ErrTaken says that a name stands for another image already.
var ErrTaken = errors.New("the name stands for another image")

// Catalog says what is served under which names. It is filled first and served then: it must
// not be changed once a [Handler] has it. The zero value is empty.
type Catalog struct{ repos map[string]*repository }

// repository is what is served under one name.
type repository struct {
	tags      map[string]digest.Digest
	manifests map[digest.Digest]ocispec.Descriptor
	blobs     map[digest.Digest]ocispec.Descriptor
	referrers map[digest.Digest][]ocispec.Descriptor // by their subject
}

// Add puts an image into a repository, "openshift-release-dev/ocp-release": its manifests, the
// root first, and the blobs that they name. With an empty tag it is there by digest alone. The
// error wraps [ErrTaken].
func (c *Catalog) Add(name, tag string, nodes []bundle.Node, blobs []ocispec.Descriptor) error {
	if len(nodes) == 0 {
		return nil
	}
	if c.repos == nil {
		c.repos = map[string]*repository{}
	}
	r := c.repos[name]
	if r == nil {
		r = &repository{
			tags: map[string]digest.Digest{}, manifests: map[digest.Digest]ocispec.Descriptor{},
			blobs: map[digest.Digest]ocispec.Descriptor{}, referrers: map[digest.Digest][]ocispec.Descriptor{},
		}
		c.repos[name] = r
	}
	root := nodes[0].Descriptor.Digest
	if have, ok := r.tags[tag]; ok && have != root {
		return fmt.Errorf("%s:%s: %w: %s, and %s", name, tag, ErrTaken, have, root)
	}
	if tag != "" {
		r.tags[tag] = root
	}
	for _, n := range nodes {
		r.add(n)
	}
	for _, d := range blobs {
		r.blobs[d.Digest] = d
	}
	return nil
}

func (r *repository) add(n bundle.Node) {
	d, m := n.Descriptor, n.Manifest
	if _, known := r.manifests[d.Digest]; known {
		return
	}
	r.manifests[d.Digest] = d
	if m.Subject == nil {
		return
	}
	// OCI distribution-spec, "Listing Referrers".
	ref := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: m.ArtifactType, Annotations: m.Annotations}
	if ref.ArtifactType == "" {
		ref.ArtifactType = m.Config.MediaType
	}
	r.referrers[m.Subject.Digest] = append(r.referrers[m.Subject.Digest], ref)
}

// Repositories are the names of the catalog, sorted.
func (c *Catalog) Repositories() []string { return slices.Sorted(maps.Keys(c.repos)) }

// Tags are those of a repository, sorted.
func (c *Catalog) Tags(name string) []string {
	if r := c.repos[name]; r != nil {
		return slices.Sorted(maps.Keys(r.tags))
	}
	return nil
}

// catalog lists the repositories, as distribution does.
func (h *Handler) catalog(w http.ResponseWriter, req *http.Request) error {
	page, err := paged(w, req, slices.Sorted(maps.Keys(h.repos)))
	if err != nil {
		return err
	}
	return writeJSON(w, req, "application/json", map[string][]string{"repositories": page})
}

// list lists the tags of a repository (OCI distribution-spec, "Listing Tags").
func (r *repository) list(w http.ResponseWriter, req *http.Request, name string) error {
	page, err := paged(w, req, slices.Sorted(maps.Keys(r.tags)))
	if err != nil {
		return err
	}
	return writeJSON(w, req, "application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{name, page})
}

// paged returns the part of sorted names that n and last ask for, and links to the next.
func paged(w http.ResponseWriter, req *http.Request, names []string) ([]string, error) {
	q := req.URL.Query()
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(names, last)
		if found {
			i++
		}
		names = names[i:]
	}
	page := append([]string{}, names...) // [] rather than null
	if !q.Has("n") {
		return page, nil
	}
	n, err := strconv.Atoi(q.Get("n"))
	if err != nil || n < 0 {
		return nil, &apiError{http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n is no number of entries"}
	}
	if n >= len(page) {
		return page, nil
	}
	if n > 0 {
		next := url.URL{Path: req.URL.Path, RawQuery: url.Values{"n": {strconv.Itoa(n)}, "last": {page[n-1]}}.Encode()}
		w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
	}
	return page[:n], nil
}

// referred lists the manifests whose subject is a digest.
func (r *repository) referred(w http.ResponseWriter, req *http.Request, reference string, p *Pull) error {
	subject := digest.Digest(reference)
	if content.CheckDigest(subject) != nil {
		return &apiError{http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("%q is no digest that is supported", reference)}
	}
	p.Digest = subject
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	wanted := req.URL.Query().Get("artifactType")
	if wanted != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	for _, d := range r.referrers[subject] {
		if wanted == "" || d.ArtifactType == wanted {
			idx.Manifests = append(idx.Manifests, d)
		}
	}
	return writeJSON(w, req, ocispec.MediaTypeImageIndex, idx)
}
