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

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// RegistryOptions say how a registry is served. The zero value is an empty one in memory,
// over plain http.
type RegistryOptions struct {
	Backend Backend // the registry itself; Close closes it. Nil means one in memory
	TLS     bool    // https, with a certificate for 127.0.0.1 and localhost; see Registry.CA

	// Wrap puts something before the registry: authentication, faults, a log.
	Wrap func(http.Handler) http.Handler
}

// Backend answers the requests of the OCI distribution-spec.
type Backend interface {
	http.Handler
	io.Closer
}

// inMemory is a registry that has nothing to close.
type inMemory struct{ http.Handler }

// Close implements [io.Closer].
func (inMemory) Close() error { return nil }

// Registry is a registry inside the process, on a port of the loopback address.
type Registry struct {
	Host string // "127.0.0.1:40123"
	CA   []byte // PEM, with TLS: the certificate to trust

	backend Backend
	server  *http.Server
	running sync.WaitGroup // requests inside the backend
}

// Serve starts a registry that holds releases. Its repositories have the names of the
// releases' without host. Close must be called.
func Serve(opts RegistryOptions, releases ...*Release) (_ *Registry, err error) {
	r := &Registry{backend: opts.Backend}
	if r.backend == nil {
		r.backend = inMemory{registry.New(registry.Logger(silent()))}
	}
	defer func() {
		if err != nil {
			r.backend.Close()
		}
	}()
	if err := r.Load(releases...); err != nil {
		return nil, err
	}
	var handler http.Handler = http.HandlerFunc(r.serve)
	if opts.Wrap != nil {
		handler = opts.Wrap(handler)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	r.Host = listener.Addr().String()
	r.server = &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: silent()}
	if opts.TLS {
		if r.server.TLSConfig, r.CA, err = selfSigned(); err != nil {
			listener.Close()
			return nil, fmt.Errorf("registry: %w", err)
		}
		go r.server.ServeTLS(listener, "", "")
	} else {
		go r.server.Serve(listener)
	}
	return r, nil
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
	r.running.Wait() // the backend must not be closed under a request
	return errors.Join(err, r.backend.Close())
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	r.running.Add(1)
	defer r.running.Done()
	r.backend.ServeHTTP(w, req)
}

// Load adds releases. Large layers are the backend's own matter.
func (r *Registry) Load(releases ...*Release) error {
	for _, rel := range releases {
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
		return nil // left out by a test; manifests that need it are refused
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
