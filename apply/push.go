package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/remote"
	"pannier/store"
)

// wantedBlob is a blob and the repositories that it must be in.
type wantedBlob struct {
	desc    ocispec.Descriptor
	lacking []*remote.Repository // that do not have it
	having  []*remote.Repository

	document string // tag of the captured documents that it belongs to, if it is for no registry
}

// wanted lists the blobs of all images, each once, the largest first.
func (u *unpacker) wanted() []*wantedBlob {
	byDigest := map[digest.Digest]*wantedBlob{}
	var out []*wantedBlob
	for _, img := range u.images {
		for _, d := range img.blobs {
			b, ok := byDigest[d.Digest]
			if !ok {
				b = &wantedBlob{desc: d}
				byDigest[d.Digest] = b
				out = append(out, b)
			}
			list := &b.lacking
			if img.present[d.Digest] {
				list = &b.having
			}
			if !slices.Contains(*list, img.repo) {
				*list = append(*list, img.repo)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *wantedBlob) int { return int(max(-1, min(1, b.desc.Size-a.desc.Size))) })
	return out
}

// captured lists the blobs of the documents that were captured with the chosen releases. They
// stay on the drive, and are read and verified like everything else on it.
func (u *unpacker) captured() []*wantedBlob {
	var out []*wantedBlob
	seen := map[digest.Digest]bool{}
	for _, s := range u.releases {
		contents := s.from.Contents
		for _, img := range contents.Images {
			if img.Kind != store.KindDocuments || img.Release != s.record.Tag {
				continue
			}
			for d, r := range contents.Records {
				if slices.Contains(r.Images, img.Tag) && !seen[d] {
					seen[d] = true
					out = append(out, &wantedBlob{desc: ocispec.Descriptor{MediaType: r.MediaType, Digest: d, Size: r.Size}, document: img.Tag})
				}
			}
		}
	}
	return out
}

// push brings everything to the registry, what is named before what names it: blobs,
// manifests, lists, tags, and the tags of releases last.
func (u *unpacker) push(ctx context.Context) error {
	if dir := u.opts.ObjectsDir; dir != "" {
		// Better refused now than after hours of pushing.
		if err := tryFolder(dir); err != nil {
			return fmt.Errorf("%w, and nothing was pushed: %w", ErrObjectsDir, err)
		}
	}
	if err := u.pushBlobs(ctx); err != nil {
		return err
	}
	if err := u.pushManifests(ctx, content.IsImage); err != nil {
		return err
	}
	if err := u.pushManifests(ctx, content.IsIndex); err != nil {
		return err
	}
	if err := u.pushTags(ctx, func(img *image) bool { return img.record.Kind != store.KindRelease }); err != nil {
		return err
	}
	done := func(img *image) bool { return img.record.Kind == store.KindRelease && u.complete(img.record.Release) }
	if err := u.pushTags(ctx, done); err != nil {
		return err
	}
	return u.lookAgain(ctx, done)
}

// ErrObjectsDir says that the folder for the cluster objects cannot be written.
var ErrObjectsDir = errors.New("the folder for the cluster objects cannot be written")

// tryFolder makes a folder, if it is not there, and a file in it that it removes.
func tryFolder(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.CreateTemp(dir, ".pannier-")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// lookAgain reads the images named back from the registry, as a node will. Something that
// takes all that it is given, and keeps nothing, is found here and not on the day of the
// update.
func (u *unpacker) lookAgain(ctx context.Context, which func(*image) bool) error {
	for _, img := range u.images {
		if !which(img) {
			continue
		}
		d := img.record.Descriptor.Digest
		_, _, err := img.repo.Manifest(ctx, d.String())
		switch {
		case isAbsent(err):
			err = fmt.Errorf("%w: it took %s, and does not give it back: %v", ErrNotArrived, d, err)
		case errors.Is(err, content.ErrDigest):
			err = fmt.Errorf("%w: it took %s, and gives something else back: %w", ErrNotArrived, d, err)
		}
		if err != nil {
			return fmt.Errorf("%s: image %s: %w", img.repo.Name(), img.record.Tag, err)
		}
	}
	return nil
}

// pushBlobs reads every wanted blob once: pushed while it is hashed, or only hashed where the
// registry has it.
func (u *unpacker) pushBlobs(ctx context.Context) error {
	p := &blobPush{u: u, ev: bundle.Event{Phase: bundle.PhasePush}}
	todo := u.wanted()
	for _, b := range todo {
		p.ev.Total += b.desc.Size
		p.ev.TotalBlobs++
	}
	todo = append(todo, u.captured()...) // kilobytes, which are read and stay: progress leaves them out
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(u.opts.Jobs)
	for _, b := range todo {
		if u.isBad(b.desc.Digest) {
			continue
		}
		g.Go(func() error { return p.one(gctx, b) })
	}
	return g.Wait()
}

type blobPush struct {
	u  *unpacker
	mu sync.Mutex
	ev bundle.Event
}

func (p *blobPush) add(change func(*bundle.Event)) {
	p.mu.Lock()
	change(&p.ev)
	e := p.ev
	p.mu.Unlock()
	p.u.opts.Progress(e)
}

// one brings one blob to every repository that lacks it. An error is the registry's, or the
// context's; what is wrong with the blob is noted and no error here.
func (p *blobPush) one(ctx context.Context, b *wantedBlob) error {
	u := p.u
	if u.presumed[b.desc.Digest] {
		return p.presumed(ctx, b)
	}
	if len(b.lacking) == 0 && u.opts.MissingOnly {
		if b.document == "" {
			u.count(&u.res.Skipped, b.desc.Size)
		}
		p.reuse(b)
		return nil
	}
	if len(b.lacking) == 0 {
		err := u.readGood(ctx, b.desc, func(d *bundle.Source) error {
			return content.Verify(ctx, d.Blobs, b.desc)
		})
		if err == nil && !u.isBad(b.desc.Digest) {
			to := &u.res.Present
			if b.document != "" {
				to = &u.res.Documents
			}
			u.count(to, b.desc.Size)
			u.prove(b.desc.Digest)
			p.reuse(b)
		}
		return err
	}
	moved := false
	for _, repo := range b.lacking {
		if p.mount(ctx, b, repo, moved) {
			continue
		}
		moved = true
		err := u.readGood(ctx, b.desc, func(d *bundle.Source) error {
			return repo.PushBlob(ctx, b.desc, p.opener(d, b.desc))
		})
		if err != nil {
			return fmt.Errorf("blob %s: %w", b.desc.Digest, err)
		}
		if u.isBad(b.desc.Digest) {
			return nil
		}
		b.having = append(b.having, repo)
		if !u.opts.CheckAll {
			continue
		}
		if ok, err := u.holds(ctx, repo, b.desc); err != nil {
			return fmt.Errorf("blob %s: %w", b.desc.Digest, err)
		} else if !ok {
			return fmt.Errorf("%s: %w: it took blob %s, and gives something else back; a registry does not replace a damaged blob: have it deleted there, then run this again",
				repo.Name(), ErrNotArrived, b.desc.Digest)
		}
	}
	if !moved {
		u.count(&u.res.Mounted, b.desc.Size)
		p.reuse(b)
		return nil
	}
	u.count(&u.res.Pushed, b.desc.Size)
	u.prove(b.desc.Digest)
	p.add(func(e *bundle.Event) { e.Blobs++ })
	return nil
}

// reuse says that nothing of a blob need be moved.
func (p *blobPush) reuse(b *wantedBlob) {
	if b.document != "" {
		return
	}
	p.add(func(e *bundle.Event) { e.Reused += b.desc.Size; e.Blobs++ })
}

// mount asks the registry to take a blob over from a repository of its own, one that it is
// pushed to or one that it comes from. Until it was read once, and so verified, that is only
// done if reading is not asked for. A registry that will not says no more than that it must
// be sent.
func (p *blobPush) mount(ctx context.Context, b *wantedBlob, repo *remote.Repository, read bool) bool {
	if !read && !p.u.opts.MissingOnly {
		return false
	}
	from := ""
	if len(b.having) > 0 {
		from = b.having[0].Endpoint()
	} else if from = p.u.holder(b.desc.Digest, repo); from == "" {
		return false
	}
	ok, err := repo.Mount(ctx, b.desc, from)
	return err == nil && ok
}

// holder is a repository at the registry of repo that a source says holds a blob; "" if
// there is none.
func (u *unpacker) holder(d digest.Digest, repo *remote.Repository) string {
	host, _, _ := strings.Cut(repo.Endpoint(), "/")
	for _, s := range u.sources {
		for _, from := range s.Repositories(d) {
			if strings.HasPrefix(from, host+"/") {
				return from
			}
		}
	}
	return ""
}

// opener opens a blob at its source anew for every attempt to upload it, through the verifying
// reader: the last bytes are handed over only if all of them were right.
func (p *blobPush) opener(d *bundle.Source, desc ocispec.Descriptor) func(context.Context, int64) (io.ReadCloser, error) {
	return func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		rc, err := d.Blobs.Fetch(ctx, desc, 0)
		if err != nil {
			return nil, &sourceError{err}
		}
		r, err := content.NewReader(rc, desc)
		if err != nil {
			rc.Close()
			return nil, &sourceError{err}
		}
		m := &meter{r: r, c: rc, size: desc.Size, add: func(n int64) { p.add(func(e *bundle.Event) { e.Done += n }) }}
		if offset > 0 {
			// What the registry has of it already is hashed once more: the digest is of all.
			if _, err := io.CopyN(io.Discard, m, offset); err != nil {
				rc.Close()
				return nil, err
			}
		}
		return m, nil
	}
}

// sourceError is an error of the source, so that it is not taken for one of the registry.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// meter counts what is read, takes that back if it is closed before the end (the attempt is
// made again), and marks errors as the source's.
type meter struct {
	r       io.Reader
	c       io.Closer
	add     func(int64)
	n, size int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.add(int64(n))
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}

func (m *meter) Close() error {
	if m.n < m.size {
		m.add(-m.n)
		m.n = m.size
	}
	return m.c.Close()
}

// readTries is how often a blob is read that arrives from a registry with wrong bytes.
const readTries = 3

// readGood calls read with each source that has the blob until one copy is right. If none is,
// the blob is noted as bad. It returns errors of the registry, and of a source that is gone.
func (u *unpacker) readGood(ctx context.Context, desc ocispec.Descriptor, read func(*bundle.Source) error) error {
	last := fmt.Errorf("blob %s: %w: it is not there", desc.Digest, bundle.ErrDamaged)
	for _, d := range u.sources.holding(desc) {
		err := read(d)
		for try := 1; d.Registries && try < readTries && errors.Is(err, content.ErrDigest); try++ {
			err = read(d) // the bytes may have been changed on their way, and be right the next time
		}
		if err == nil {
			return d.Feel(nil)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var se *sourceError
		if !errors.As(err, &se) && errors.As(err, new(*remote.Error)) {
			return err
		}
		if gone := d.Feel(err); gone != nil {
			u.forgive()
			return fmt.Errorf("%s: %w", d.Name, gone)
		}
		if !d.Registries {
			err = fmt.Errorf("%w: %w", bundle.ErrDamaged, err)
		}
		last = fmt.Errorf("blob %s on %s: %w", desc.Digest, d.Name, err)
	}
	for _, d := range u.sources.healing(desc) {
		err := read(d)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.As(err, new(*sourceError)) && errors.As(err, new(*remote.Error)) {
			return err
		}
		last = fmt.Errorf("%w; %s: %w", last, d.Name, err)
	}
	u.spoil(desc.Digest, last)
	return nil
}

// forgive takes back what was said of blobs that could not be read when it turns out that the
// drive is gone: that says nothing of them.
func (u *unpacker) forgive() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for d, err := range u.bad {
		if errors.Is(err, syscall.EIO) {
			delete(u.bad, d)
		}
	}
}

func (u *unpacker) isBad(d digest.Digest) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bad[d] != nil
}

func (u *unpacker) count(t *bundle.Totals, size int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t.Blobs++
	t.Bytes += size
}

// prove notes what was read whole and was right.
func (u *unpacker) prove(d digest.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.res.Proven = append(u.res.Proven, d)
}

// proveManifests does so for the manifests, which were read before anything was pushed.
func (u *unpacker) proveManifests() {
	for _, img := range u.images {
		for _, n := range img.nodes {
			if !u.isBad(n.Descriptor.Digest) {
				u.prove(n.Descriptor.Digest)
			}
		}
	}
}

// pushManifests pushes, by digest, the manifests of one kind of every image of which nothing
// is bad.
func (u *unpacker) pushManifests(ctx context.Context, kind func(string) bool) error {
	type key struct {
		repo *remote.Repository
		d    digest.Digest
	}
	seen := map[key]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(u.opts.Jobs)
	for _, img := range u.images {
		if !u.good(img) {
			continue
		}
		nodes := slices.Clone(img.nodes)
		slices.Reverse(nodes) // lists within lists: inner ones first
		for _, n := range nodes {
			k := key{img.repo, n.Descriptor.Digest}
			if !kind(n.Descriptor.MediaType) || img.present[n.Descriptor.Digest] || seen[k] {
				continue
			}
			seen[k] = true
			push := func() error {
				if err := img.repo.PushManifest(gctx, n.Descriptor, n.Raw, n.Descriptor.Digest.String()); err != nil {
					return fmt.Errorf("image %s: %w", img.record.Tag, err)
				}
				return nil
			}
			if n.Depth > 0 && content.IsIndex(n.Descriptor.MediaType) {
				if err := push(); err != nil {
					return errors.Join(err, g.Wait())
				}
				continue
			}
			g.Go(push)
		}
	}
	return g.Wait()
}

// pushTags names the images at the registry. A tag that points right already is left alone,
// as registries with immutable tags demand.
func (u *unpacker) pushTags(ctx context.Context, which func(*image) bool) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(u.opts.Jobs)
	for _, img := range u.images {
		if img.tag == "" || img.tagged || !which(img) || !u.good(img) || u.unread(img.record.Release) {
			continue
		}
		g.Go(func() error {
			root := img.nodes[0]
			if img.present[root.Descriptor.Digest] {
				if have, err := img.repo.Resolve(gctx, img.tag); err == nil && have.Digest == root.Descriptor.Digest {
					return nil
				}
			}
			if err := img.repo.PushManifest(gctx, root.Descriptor, root.Raw, img.tag); err != nil {
				return fmt.Errorf("tag %s: %w", img.tag, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// unread reports whether nobody knows what a release is made of, since its image could not be
// read: its components are pushed under their digests, and get no names.
func (u *unpacker) unread(releaseTag string) bool {
	return slices.ContainsFunc(u.releases, func(s *selected) bool { return s.record.Tag == releaseTag && s.unread })
}

// complete reports whether nothing of a release is bad.
func (u *unpacker) complete(releaseTag string) bool {
	if u.unread(releaseTag) {
		return false
	}
	for _, img := range u.images {
		if img.record.Release == releaseTag && !u.good(img) {
			return false
		}
	}
	return true
}
