// Package olareg serves sample releases from olareg, a registry that others wrote, inside the
// process: tests and measurements talk to it as to any registry that is not ours. The program
// itself must not import it (imports_test.go says why); what it needs is in package sample.
package olareg

import (
	"io"
	"net/http"
	"strings"
	"time"

	server "github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"

	"pannier/bundle/release/sample"
)

// Options say how a registry is served. The zero value is an empty one in memory, over plain
// http.
type Options struct {
	// Dir holds the repositories as OCI layouts in folders of their names; it is read and
	// written there. Empty means memory.
	Dir      string
	ReadOnly bool // refuse every push; Dir is not changed in any way
	TLS      bool // https, with a certificate for 127.0.0.1 and localhost; see sample.Registry.CA

	// Wrap puts something before the registry: authentication, faults, a log.
	Wrap func(http.Handler) http.Handler
}

// Serve starts an olareg that holds releases, the large layers of these included. Its
// repositories have the names of the releases' without host. Close must be called.
func Serve(opts Options, releases ...*sample.Release) (*sample.Registry, error) {
	b := &backend{large: map[digest.Digest]*io.SectionReader{}}
	for _, rel := range releases {
		for d, l := range rel.Large {
			b.large[d] = l
		}
	}
	b.Server = server.New(configuration(opts, len(b.large) > 0))
	return sample.Serve(sample.RegistryOptions{Backend: b, TLS: opts.TLS, Wrap: opts.Wrap}, releases...)
}

// configuration is olareg's. A sparse registry takes images whose layers are not there.
func configuration(opts Options, sparse bool) config.Config {
	off := false
	c := config.Config{
		Storage: config.ConfigStorage{StoreType: config.StoreMem, ReadOnly: &opts.ReadOnly},
		API:     config.ConfigAPI{Manifest: config.ConfigAPIManifest{SparseImage: &sparse, SparseIndex: &off}},
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

// backend is olareg, which would hold large layers in memory: they are served beside it.
type backend struct {
	*server.Server
	large map[digest.Digest]*io.SectionReader
}

// ServeHTTP implements [http.Handler].
func (b *backend) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if _, name, ok := strings.Cut(req.URL.Path, "/blobs/"); ok && (req.Method == http.MethodGet || req.Method == http.MethodHead) {
		if large := b.large[digest.Digest(name)]; large != nil {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Docker-Content-Digest", name)
			http.ServeContent(w, req, "", time.Time{}, io.NewSectionReader(large, 0, large.Size()))
			return
		}
	}
	b.Server.ServeHTTP(w, req)
}
