package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/serve"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/parity"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
)

// ServeOptions say what [Serve] serves, and where. Media, Listener and Cache must be set.
type ServeOptions struct {
	Media      string
	Releases   []string // only these, "4.8.21" or "4.8.21-x86_64"; nil means all
	Repository string   // everything under this name as well, "ocp4/openshift4"; "" serves the original names alone

	Signatures  bundle.SignatureVerifier
	Policy      bundle.Policy
	StoreClient *remote.Client // asks Stores for releases whose drive carries no signature; nil asks nobody
	Stores      []string

	Listener net.Listener       // is closed
	Cache    string             // folder on the local disk for a copy of the index
	Ready    func(*ServeResult) // called once it is known what is served, before the first request; may be nil
	Pulled   func(serve.Pull)   // told of every request; calls run at the same time; may be nil
	Logger   *slog.Logger
}

// ServeResult is what [Serve] serves.
type ServeResult struct {
	Releases     []ServedRelease
	LeftOut      []string // tags of releases on the drive that were not asked for
	Repositories []string // names under which something is served
	Images       int
	Refused      []Refusal // what is on the drive and is not served
	Warnings     []string
	Healed       []string // of which blobs parity had to reconstruct anything since, in words
}

// ServedRelease is one release of a [ServeResult].
type ServedRelease struct {
	Tag       string
	Digest    string
	Path      string // its repository and digest, as they are asked for here
	Complete  bool   // every image of it is served
	Signature bundle.SignatureVerdict
}

// Serve answers as a read-only registry for what is sealed and signed on a drive, until ctx
// ends, which is no error. Nothing is written to the drive. What is missing, cut or damaged is
// reconstructed from the drive's parity when it is asked for. What is missing or cut and no parity
// brings back is not served, nor what names it; what turns out to be damaged while it is
// asked for, and cannot be reconstructed, is refused then. The error joins one error for each
// refusal, those of the beginning and those since; images of a lean drive that need what it
// presumes at a registry are not served, and that is an error only if nothing else is there.
//
// Errors are those of [Unpack] as far as they speak of the drive; [layout.ErrGone] ends the
// service.
func Serve(ctx context.Context, opts ServeOptions) (*ServeResult, error) {
	defer opts.Listener.Close()
	s := &server{opts: opts, res: &ServeResult{}, damaged: map[string]error{}}
	s.u = newUnpacker(UnpackOptions{
		Media: []string{opts.Media}, Releases: opts.Releases, Signatures: opts.Signatures, Policy: opts.Policy,
		StoreClient: opts.StoreClient, Stores: opts.Stores, Cache: opts.Cache, Logger: opts.Logger,
	})
	defer s.u.close()
	err := s.run(ctx)
	s.res.Healed = s.u.sources.healed()
	return s.res, errors.Join(append(s.u.errs, err)...)
}

// server is one run of Serve. What is served is chosen and judged as it is for unpacking.
type server struct {
	opts    ServeOptions
	u       *unpacker
	res     *ServeResult
	catalog serve.Catalog

	mu      sync.Mutex
	damaged map[string]error // by digest, found since the service began
}

func (s *server) run(ctx context.Context) error {
	u := s.u
	if err := u.open(ctx); err != nil {
		return err
	}
	err := u.choose(ctx)
	s.res.LeftOut = u.res.LeftOut
	if err != nil {
		return err
	}
	if err := s.fill(ctx); err != nil {
		return err
	}
	s.res.Warnings = u.res.Warnings
	refused := s.refuse()
	if s.res.Images == 0 {
		return errors.Join(refused...)
	}
	s.res.Repositories = s.catalog.Repositories()
	if s.opts.Ready != nil {
		s.opts.Ready(s.res)
	}
	// What a lean drive presumes at a registry is no fault of it, and was said at the beginning.
	refused = slices.DeleteFunc(refused, func(err error) bool { return errors.Is(err, bundle.ErrPresumed) })
	err = s.answer(ctx)
	for _, d := range slices.Sorted(maps.Keys(s.damaged)) {
		refused = append(refused, s.damaged[d])
	}
	return errors.Join(append(refused, err)...)
}

// fill reads the manifests of all that was chosen and puts what is whole into the catalog.
func (s *server) fill(ctx context.Context) error {
	u := s.u
	for _, img := range u.images {
		if err := s.walk(ctx, img); err != nil {
			return err
		}
	}
	u.dropForeignSignatures()
	documents, err := s.documents(ctx)
	if err != nil {
		return err
	}
	u.images = append(u.images, documents...)
	s.checkPresent(ctx)
	for _, img := range u.images {
		if !u.good(img) {
			continue
		}
		if err := s.add(img); err != nil {
			return err
		}
	}
	for _, r := range u.releases {
		served := ServedRelease{Tag: r.record.Tag, Digest: r.record.Descriptor.Digest.String(), Complete: u.complete(r.record.Tag), Signature: r.verdict}
		served.Path = path(r.record.Source) + "@" + served.Digest
		s.res.Releases = append(s.res.Releases, served)
	}
	return nil
}

// checkPresent finds the blobs and manifests that are missing or cut, in seconds, and that parity
// does not bring back: what is damaged besides is found out when it is asked for.
func (s *server) checkPresent(ctx context.Context) {
	if len(s.u.sources) == 0 {
		return // the drive was refused
	}
	src := s.u.sources[0]
	var lost map[digest.Digest]bool
	if src.Mended != nil {
		lost = src.Mended.Lost(ctx)
	}
	check := func(desc ocispec.Descriptor) {
		n, err := src.Blobs.Stat(desc.Digest)
		switch {
		case err == nil && n == desc.Size:
			return
		case lost[desc.Digest]:
			err = fmt.Errorf("%w: it is missing or cut, and %w", bundle.ErrDamaged, parity.ErrLost)
		case len(s.u.sources.healing(desc)) > 0:
			return
		case err == nil:
			err = fmt.Errorf("%w: %w: %d bytes, and it must have %d", bundle.ErrDamaged, content.ErrSize, n, desc.Size)
		case errors.Is(err, fs.ErrNotExist) && s.u.sources.presume(desc):
			err = fmt.Errorf("%w (%s)", bundle.ErrPresumed, strings.Join(src.Contents.PresumedAt(), ", "))
		case errors.Is(err, fs.ErrNotExist):
			err = fmt.Errorf("%w: it is not there", src.Absent())
		}
		s.u.spoil(desc.Digest, fmt.Errorf("%s: %s: %w", src.Name, desc.Digest, err))
	}
	for _, img := range s.u.images {
		for _, n := range img.nodes {
			check(n.Descriptor)
		}
		for _, d := range img.blobs {
			check(d)
		}
	}
}

func (s *server) walk(ctx context.Context, img *image) error {
	return bundle.Walk(ctx, verified{s.u.sources}, img.record.Descriptor,
		func(n bundle.Node) error { img.nodes = append(img.nodes, n); return nil },
		func(d ocispec.Descriptor) error { img.blobs = append(img.blobs, d); return nil },
		func(d ocispec.Descriptor, err error) error {
			img.err = errors.Join(img.err, err)
			s.u.spoil(d.Digest, err)
			return nil
		})
}

// documents are the artifacts with what was captured with the chosen releases. They refer to
// the release images, and the referrers API tells of them.
func (s *server) documents(ctx context.Context) ([]*image, error) {
	var out []*image
	for _, r := range s.u.releases {
		for _, img := range r.from.Contents.Images {
			if img.Kind != store.KindDocuments || img.Release != r.record.Tag {
				continue
			}
			img.Reference = r.record.Source + "@" + img.Descriptor.Digest.String()
			one := &image{record: img}
			if err := s.walk(ctx, one); err != nil {
				return nil, err
			}
			out = append(out, one)
		}
	}
	return out, nil
}

// add puts an image under the name that it has at its source, and under the one name of the
// user's choice, where it has the tag that unpack would give it.
func (s *server) add(img *image) error {
	rec := img.record
	ref, err := release.ParseImageReference(rec.Reference)
	if err != nil {
		return fmt.Errorf("image %s: %w: %w", rec.Tag, bundle.ErrDamaged, err)
	}
	if rec.Kind == store.KindAdditional && ref.Digest != "" && ref.Digest != rec.Descriptor.Digest {
		return fmt.Errorf("additional image %s: %w: the drive has %s under that name", rec.Tag, bundle.ErrDamaged, rec.Descriptor.Digest)
	}
	var here, under string // its tags
	unread := s.u.unread(rec.Release)
	switch rec.Kind {
	case store.KindAdditional:
		here = ref.Tag
	case store.KindRelease, store.KindSignature:
		if !unread {
			here, under = rec.Tag, rec.Tag
		}
	case store.KindComponent:
		if !unread {
			under = rec.Tag
		}
	}
	err = s.catalog.Add(path(ref.Repository), here, img.nodes, img.blobs)
	if err == nil && s.opts.Repository != "" {
		err = s.catalog.Add(s.opts.Repository, under, img.nodes, img.blobs)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", bundle.ErrConflict, err)
	}
	if rec.Kind != store.KindDocuments {
		s.res.Images++
	}
	return nil
}

// path is a repository without its host.
func path(repository string) string {
	_, p, _ := strings.Cut(repository, "/")
	return p
}

// refuse lists what is not served, with an error for each.
func (s *server) refuse() []error {
	u := s.u
	names := map[digest.Digest][]string{}
	for _, img := range u.images {
		names[img.record.Descriptor.Digest] = append(names[img.record.Descriptor.Digest], img.record.Tag)
		for _, d := range img.blobs {
			names[d.Digest] = append(names[d.Digest], img.record.Tag)
		}
	}
	var out []error
	for _, d := range slices.Sorted(maps.Keys(u.bad)) {
		s.res.Refused = append(s.res.Refused, Refusal{Digest: d.String(), Images: names[d], Err: u.bad[d]})
		out = append(out, fmt.Errorf("%s: not served: %w", content.Few(names[d]), u.bad[d]))
	}
	return out
}

// answer answers requests until ctx ends or the drive is gone.
func (s *server) answer(ctx context.Context) error {
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	h := serve.New(serve.Options{Source: s.u.sources[0].Blobs, Heal: s.heal, Catalog: &s.catalog, Pulled: func(p serve.Pull) {
		if err := s.feel(p); err != nil {
			gone(err)
		}
		if s.opts.Pulled != nil {
			s.opts.Pulled(p)
		}
	}})
	defer h.Close()
	err := serve.Run(ctx, s.opts.Listener, h, s.u.log)
	if cause := context.Cause(ctx); cause != nil && errors.Is(cause, errGone) {
		err = errors.Join(err, cause)
	}
	return err
}

// heal is what parity makes of the drive, where it covers a blob.
func (s *server) heal(desc ocispec.Descriptor) []serve.Healer {
	var out []serve.Healer
	for _, d := range s.u.sources {
		if d.Mended != nil && d.Mended.Covers(desc) {
			out = append(out, d.Mended)
		}
	}
	return out
}

// errGone marks the end of a service whose drive is gone.
var errGone = errors.New("the service has ended")

// feel notes what an answer says of the drive. The error says that it is gone.
func (s *server) feel(p serve.Pull) error {
	if p.Err == nil && (p.Method != http.MethodGet || p.Digest == "" || p.Bytes == 0) {
		return nil // nothing was read
	}
	if err := s.u.sources[0].Feel(p.Err); err != nil {
		return fmt.Errorf("%w: %s: %w", errGone, s.opts.Media, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case p.Err == nil && p.Healed:
		delete(s.damaged, p.Digest.String()) // an answer was cut when it was found, and the next was right
	case errors.Is(p.Err, content.ErrDigest) || errors.Is(p.Err, content.ErrSize) || errors.Is(p.Err, fs.ErrNotExist):
		what := bundle.ErrDamaged
		if errors.Is(p.Err, fs.ErrNotExist) {
			what = s.u.sources[0].Absent()
		}
		s.damaged[p.Digest.String()] = fmt.Errorf("%s: %w: %w", s.opts.Media, what, p.Err)
	}
	return nil
}
