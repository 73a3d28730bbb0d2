package sample

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// RegistryOptions say how a registry is served. The zero value is an empty one in memory,
// over plain http.
type RegistryOptions struct {
	// Dir holds the repositories as OCI layouts in folders of their names; it is read and
	// written there. Empty means memory.
	Dir      string
	ReadOnly bool // refuse every push; Dir is not changed in any way
	Sparse   bool // accept manifests whose blobs are not there
	TLS      bool // https, with a certificate for 127.0.0.1 and localhost; see Registry.CA

	// Wrap puts something before the registry: authentication, faults, a log.
	Wrap func(http.Handler) http.Handler
}

// Registry is a registry inside the process, on a port of the loopback address.
type Registry struct {
	Host string // "127.0.0.1:40123"
	CA   []byte // PEM, with TLS: the certificate to trust

	olareg  *olareg.Server
	server  *http.Server
	running sync.WaitGroup // requests inside olareg

	mu    sync.Mutex
	large map[digest.Digest]*io.SectionReader
}

// Serve starts a registry that holds releases. Its repositories have the names of the
// releases' without host. Close must be called.
func Serve(opts RegistryOptions, releases ...*Release) (*Registry, error) {
	r := &Registry{large: map[digest.Digest]*io.SectionReader{}}
	sparse := opts.Sparse
	for _, rel := range releases {
		sparse = sparse || len(rel.Large) > 0 // those layers are not put into olareg
	}
	r.olareg = olareg.New(registryConfig(opts, sparse))
	if err := r.Load(releases...); err != nil {
		r.olareg.Close()
		return nil, err
	}
	var handler http.Handler = http.HandlerFunc(r.serve)
	if opts.Wrap != nil {
		handler = opts.Wrap(handler)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.olareg.Close()
		return nil, fmt.Errorf("registry: %w", err)
	}
	r.Host = listener.Addr().String()
	r.server = &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: silent()}
	if opts.TLS {
		if r.server.TLSConfig, r.CA, err = selfSigned(); err != nil {
			listener.Close()
			r.olareg.Close()
			return nil, fmt.Errorf("registry: %w", err)
		}
		go r.server.ServeTLS(listener, "", "")
	} else {
		go r.server.Serve(listener)
	}
	return r, nil
}

func registryConfig(opts RegistryOptions, sparse bool) config.Config {
	off := false
	c := config.Config{
		Storage: config.ConfigStorage{StoreType: config.StoreMem, ReadOnly: &opts.ReadOnly},
		API:     config.ConfigAPI{Manifest: config.ConfigAPIManifest{SparseImage: &sparse, SparseIndex: &opts.Sparse}},
	}
	if opts.Dir != "" {
		c.Storage.StoreType, c.Storage.RootDir = config.StoreDir, opts.Dir
	}
	// Nothing is ever collected: what was pushed by digest alone stays.
	c.Storage.GC = config.ConfigGC{
		Frequency: -1, GracePeriod: -1, RepoUploadMax: -1,
		Untagged: &off, EmptyRepo: &off, ReferrersDangling: &off, ReferrersWithSubj: &off,
	}
	return c
}

// URL returns the registry's address with scheme.
func (r *Registry) URL() string {
	if r.CA != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// Close ends the registry and every connection to it.
func (r *Registry) Close() error {
	err := r.server.Close()
	r.running.Wait() // olareg must not be closed under a request
	return errors.Join(err, r.olareg.Close())
}

// serve answers from olareg, and large layers by itself: olareg would hold them.
func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	r.running.Add(1)
	defer r.running.Done()
	if _, name, ok := strings.Cut(req.URL.Path, "/blobs/"); ok && (req.Method == http.MethodGet || req.Method == http.MethodHead) {
		r.mu.Lock()
		large := r.large[digest.Digest(name)]
		r.mu.Unlock()
		if large != nil {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Docker-Content-Digest", name)
			http.ServeContent(w, req, "", time.Time{}, io.NewSectionReader(large, 0, large.Size()))
			return
		}
	}
	r.olareg.ServeHTTP(w, req)
}

// Load adds releases. Those with large layers must be given to [Serve].
func (r *Registry) Load(releases ...*Release) error {
	for _, rel := range releases {
		r.mu.Lock()
		for d, l := range rel.Large {
			r.large[d] = l
		}
		r.mu.Unlock()
		for _, p := range rel.Images {
			repo := Path(p.Repository)
			err := rel.Walk(p.Descriptor, func(d ocispec.Descriptor) error { return r.load(rel, repo, d) })
			if err == nil && p.Tag != "" {
				err = r.putManifest(repo, p.Tag, p.Descriptor.MediaType, rel.Blobs[p.Descriptor.Digest])
			}
			if err != nil {
				return fmt.Errorf("load %s: %w", p.Repository, err)
			}
		}
	}
	return nil
}

func (r *Registry) load(rel *Release, repo string, d ocispec.Descriptor) error {
	if _, ok := rel.Large[d.Digest]; ok {
		return nil
	}
	data, ok := rel.Blobs[d.Digest]
	if !ok {
		return nil // left out by a test; olareg refuses manifests that need it unless sparse
	}
	if content.IsManifest(d.MediaType) {
		return r.putManifest(repo, d.Digest.String(), d.MediaType, data)
	}
	a := r.ask(http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+url.QueryEscape(d.Digest.String()), "application/octet-stream", data)
	return a.want(http.StatusCreated)
}

func (r *Registry) putManifest(repo, ref, mediaType string, raw []byte) error {
	return r.ask(http.MethodPut, "/v2/"+repo+"/manifests/"+ref, mediaType, raw).want(http.StatusCreated)
}

// Path returns the name of a repository inside its registry: what stands after the host.
func Path(repository string) string {
	_, path, _ := strings.Cut(repository, "/")
	return path
}

// Has reports whether repository (without host) holds d, as a blob or a manifest.
func (r *Registry) Has(repository string, d digest.Digest) bool {
	return r.ask(http.MethodHead, "/v2/"+repository+"/manifests/"+d.String(), "", nil).status == http.StatusOK ||
		r.ask(http.MethodHead, "/v2/"+repository+"/blobs/"+d.String(), "", nil).status == http.StatusOK
}

// Tags returns the tags of repository (without host), sorted.
func (r *Registry) Tags(repository string) ([]string, error) {
	a := r.ask(http.MethodGet, "/v2/"+repository+"/tags/list", "", nil)
	if err := a.want(http.StatusOK); err != nil {
		return nil, err
	}
	var list struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(a.body.Bytes(), &list); err != nil {
		return nil, fmt.Errorf("tags of %s: %w", repository, err)
	}
	return list.Tags, nil
}

// Manifest returns what repository (without host) holds under ref, a tag or a digest.
func (r *Registry) Manifest(repository, ref string) (ocispec.Descriptor, []byte, error) {
	a := r.ask(http.MethodGet, "/v2/"+repository+"/manifests/"+ref, "", nil)
	if err := a.want(http.StatusOK); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	raw := a.body.Bytes()
	return ocispec.Descriptor{MediaType: a.Header().Get("Content-Type"), Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw, nil
}

// Blob returns a blob of repository (without host).
func (r *Registry) Blob(repository string, d digest.Digest) ([]byte, error) {
	a := r.ask(http.MethodGet, "/v2/"+repository+"/blobs/"+d.String(), "", nil)
	return a.body.Bytes(), a.want(http.StatusOK)
}

// ask calls the registry without network and without what was wrapped around it.
func (r *Registry) ask(method, target, mediaType string, body []byte) *answer {
	a := &answer{header: http.Header{}, asked: method + " " + target}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		a.status = http.StatusBadRequest
		return a
	}
	req := &http.Request{
		Method: method, URL: u, Host: r.Host, Header: http.Header{}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), RemoteAddr: "127.0.0.1:1",
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	if method == http.MethodGet || method == http.MethodHead {
		req.Header["Accept"] = content.ManifestTypes
	}
	r.serve(a, req)
	return a
}

// answer is an [http.ResponseWriter] that keeps what it is given.
type answer struct {
	asked  string
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

func (a *answer) want(status int) error {
	if a.status != status {
		return fmt.Errorf("%s: status %d: %s", a.asked, a.status, strings.TrimSpace(a.body.String()))
	}
	return nil
}
