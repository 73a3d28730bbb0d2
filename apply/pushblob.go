package apply

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/remote"
)

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
	return bundle.BothEnds(ctx, u.opts.Jobs, todo, func(ctx context.Context, b *wantedBlob) error {
		if u.isBad(b.desc.Digest) {
			return nil
		}
		return p.one(ctx, b)
	})
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
