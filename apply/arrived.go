package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/remote"
)

// ErrNotArrived says that the registry lacks something that a release is made of.
var ErrNotArrived = errors.New("not everything is at the registry")

// PhaseAsk is the phase in which a registry is asked for every blob, as progress shows it.
const PhaseAsk = "ask the registry"

// ArrivedOptions say what [Arrived] looks for. All but Jobs and Progress must be set.
type ArrivedOptions struct {
	Client      *remote.Client
	Destination objects.Destination // as it is reached from here
	Release     objects.ReleaseInfo
	Jobs        int // questions at a time; 0 is 8
	Progress    bundle.ProgressFunc
}

// Arrived asks a registry for every manifest and every blob of a release. What the release
// is made of it learns from the release image that the registry itself serves under the
// release's digest, so that neither a drive nor a file is believed; Release must agree with
// that image. Manifests are read and hashed, of blobs it is asked whether they are there.
//
// Errors: [ErrNotArrived] for what is lacking, [objects.ErrInvalid] for a Release that says
// something else than its image, remote's and release's errors.
func Arrived(ctx context.Context, opts ArrivedOptions) error {
	a, err := newArrival(ctx, opts)
	if err != nil {
		return err
	}
	if err := a.agrees(opts.Release); err != nil {
		return err
	}
	if err := a.manifests(ctx); err != nil {
		return err
	}
	if err := a.ask(ctx); err != nil {
		return err
	}
	return a.lacks()
}

// arrival is one release at a registry.
type arrival struct {
	opts    ArrivedOptions
	repo    *remote.Repository
	payload *release.Payload

	mu      sync.Mutex
	blobs   map[digest.Digest]ocispec.Descriptor
	names   map[digest.Digest]string // an image that needs it, for messages
	lacking []string
}

// newArrival reads the release image.
func newArrival(ctx context.Context, opts ArrivedOptions) (*arrival, error) {
	if opts.Jobs <= 0 {
		opts.Jobs = 8
	}
	if opts.Progress == nil {
		opts.Progress = func(bundle.Event) {}
	}
	repo, err := opts.Client.Repository(opts.Destination.String())
	if err != nil {
		return nil, err
	}
	a := &arrival{opts: opts, repo: repo, blobs: map[digest.Digest]ocispec.Descriptor{}, names: map[digest.Digest]string{}}
	desc, _, err := repo.Manifest(ctx, opts.Release.Digest.String())
	if err == nil {
		a.payload, err = release.Read(ctx, repo, desc)
	}
	if isAbsent(err) {
		err = fmt.Errorf("%s: %w: release image %s: %v", opts.Destination, ErrNotArrived, opts.Release.Digest, err)
	}
	return a, err
}

// isAbsent reports whether a registry says that it has not got what it was asked for.
func isAbsent(err error) bool {
	return errors.Is(err, remote.ErrNotFound) && !errors.Is(err, remote.ErrNotRegistry)
}

// agrees compares what a drive or a file says of a release with the release image.
func (a *arrival) agrees(r objects.ReleaseInfo) error {
	p := a.payload
	switch {
	case p.Version != r.Version || p.Arch != r.Arch:
		return fmt.Errorf("release %s: %w: it is called %s for %s, and its image says %s for %s", r.Digest, objects.ErrInvalid, r.Version, r.Arch, p.Version, p.Arch)
	case !slices.Equal(sortedCopy(p.Previous), sortedCopy(r.Previous)):
		return fmt.Errorf("release %s: %w: its image can be reached from other versions than it is said to be", r.Digest, objects.ErrInvalid)
	}
	for _, s := range p.Repositories() {
		if !slices.Contains(r.Sources, s) {
			return fmt.Errorf("release %s: %w: its images come from %s too, which is not among the sources", r.Digest, objects.ErrInvalid, s)
		}
	}
	return nil
}

func sortedCopy(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	return out
}

// manifests reads every manifest, and notes the blobs that they name.
func (a *arrival) manifests(ctx context.Context) error {
	images := []release.Image{{Name: a.payload.Tag(), Digest: a.payload.Descriptor.Digest}}
	for _, img := range a.payload.Images {
		if !slices.ContainsFunc(images, func(i release.Image) bool { return i.Digest == img.Digest }) {
			images = append(images, img)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(a.opts.Jobs)
	for _, img := range images {
		g.Go(func() error { return a.image(gctx, img) })
	}
	return g.Wait()
}

func (a *arrival) image(ctx context.Context, img release.Image) error {
	desc, raw, err := a.repo.Manifest(ctx, img.Digest.String())
	if err != nil {
		return a.note(img.Name, "manifest", img.Digest, err)
	}
	return bundle.Walk(ctx, &root{a.repo, desc.Digest, raw}, desc,
		func(bundle.Node) error { return nil },
		func(d ocispec.Descriptor) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.blobs[d.Digest], a.names[d.Digest] = d, img.Name
			return nil
		},
		func(d ocispec.Descriptor, err error) error { return a.note(img.Name, "manifest", d.Digest, err) })
}

// root is a repository of which one manifest was read already.
type root struct {
	*remote.Repository
	digest digest.Digest
	raw    []byte
}

func (r *root) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if desc.Digest == r.digest && offset == 0 {
		return io.NopCloser(bytes.NewReader(r.raw)), nil
	}
	return r.Repository.Fetch(ctx, desc, offset)
}

// note keeps what is lacking; other errors it returns.
func (a *arrival) note(image, what string, d digest.Digest, err error) error {
	if err != nil && !isAbsent(err) {
		return fmt.Errorf("image %s: %w", image, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lacking = append(a.lacking, fmt.Sprintf("%s: %s %s", image, what, d))
	return nil
}

// ask asks for every blob, each once.
func (a *arrival) ask(ctx context.Context) error {
	ev := bundle.Event{Phase: PhaseAsk, TotalBlobs: len(a.blobs)}
	a.opts.Progress(ev)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(a.opts.Jobs)
	for d, desc := range a.blobs {
		g.Go(func() error {
			there, err := a.repo.Exists(gctx, desc)
			if err != nil {
				return err
			}
			if !there {
				if err := a.note(a.names[d], "blob", d, nil); err != nil {
					return err
				}
			}
			a.mu.Lock()
			ev.Blobs++
			e := ev
			a.mu.Unlock()
			a.opts.Progress(e)
			return nil
		})
	}
	return g.Wait()
}

// maxLacking bounds how many of what is lacking an error names.
const maxLacking = 10

func (a *arrival) lacks() error {
	if len(a.lacking) == 0 {
		return nil
	}
	slices.Sort(a.lacking)
	text := strings.Join(a.lacking[:min(len(a.lacking), maxLacking)], ", ")
	if more := len(a.lacking) - maxLacking; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("%s: %w: %s", a.opts.Destination, ErrNotArrived, text)
}

// unsigned names the images of the release whose sigstore signature the registry lacks and a
// cluster of that version demands: of the release image, and from 4.22 on of components too.
// Of a list of components only its images are signed.
func (a *arrival) unsigned(ctx context.Context) ([]string, error) {
	var out []string
	check := func(name string, ds ...digest.Digest) error {
		for _, d := range ds {
			switch _, err := a.repo.Resolve(ctx, release.SigstoreTag(d)); {
			case isAbsent(err):
				out = append(out, name)
				return nil
			case err != nil:
				return err
			}
		}
		return nil
	}
	ds := []digest.Digest{a.payload.Descriptor.Digest}
	for _, c := range a.payload.Children {
		ds = append(ds, c.Digest)
	}
	if err := check(a.payload.Tag(), ds...); err != nil {
		return nil, err
	}
	if !componentsSigned(a.payload.Version) {
		return out, nil
	}
	for _, img := range a.payload.Images {
		ds, err := a.runnable(ctx, img)
		if err != nil {
			return nil, err
		}
		if err := check(img.Name, ds...); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// runnable are the images that nodes run of a component: itself, or those of its list.
func (a *arrival) runnable(ctx context.Context, img release.Image) ([]digest.Digest, error) {
	desc, raw, err := a.repo.Manifest(ctx, img.Digest.String())
	if err != nil {
		return nil, err
	}
	var out []digest.Digest
	err = bundle.Walk(ctx, &root{a.repo, desc.Digest, raw}, desc,
		func(n bundle.Node) error {
			if len(n.Manifest.Manifests) == 0 {
				out = append(out, n.Descriptor.Digest)
			}
			return nil
		},
		func(ocispec.Descriptor) error { return nil },
		func(_ ocispec.Descriptor, err error) error { return err })
	return out, err
}

// componentsSigned reports whether clusters of a version demand sigstore signatures of every
// component, as they do from 4.22 on.
func componentsSigned(version string) bool {
	var major, minor int
	if n, err := fmt.Sscanf(version, "%d.%d.", &major, &minor); n < 2 && err != nil {
		return true // unknown: ask for more
	}
	return major > 4 || major == 4 && minor >= 22
}

// confirm asks the registry for all that was pushed, or was said to be there.
func (u *unpacker) confirm(ctx context.Context) error {
	checkAll := u.opts.CheckAll
	u.opts.CheckAll = true
	defer func() { u.opts.CheckAll = checkAll }()
	for _, img := range u.images {
		img.present = map[digest.Digest]bool{}
	}
	u.opts.Progress(bundle.Event{Phase: PhaseAsk})
	if err := u.compare(ctx); err != nil {
		return err
	}
	u.res.Held = u.held()
	a := &arrival{opts: ArrivedOptions{Destination: u.opts.Destination}}
	for _, img := range u.images {
		if !u.good(img) {
			continue // refused, which is said elsewhere
		}
		for _, n := range img.nodes {
			if d := n.Descriptor.Digest; !img.present[d] {
				a.note(img.record.Tag, "manifest", d, nil)
			}
		}
		for _, b := range img.blobs {
			if !img.present[b.Digest] {
				a.note(img.record.Tag, "blob", b.Digest, nil)
			}
		}
	}
	return a.lacks()
}
