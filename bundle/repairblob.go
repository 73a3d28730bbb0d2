package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/parity"
	"pannier/bundle/remote"
	"pannier/store"
)

// sourceError is a failure of whoever was asked for a blob, which says nothing of the drive.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// healBlobs brings the blobs named bad into order, and those that come to light when a
// manifest is readable again. It returns what the layout says then; nil if it has no index.
func (r *Repair) healBlobs(ctx context.Context, b *Bundle, bad []digest.Digest, done *Healed) (*Contents, error) {
	if b.Index == nil {
		return nil, nil
	}
	walked, err := ContentsFromLayout(ctx, r.l, b.Index)
	if err != nil {
		return nil, err
	}
	h := &healer{r: r, b: b, done: done, sources: r.sources(b), dead: map[int]error{}}
	known := b.Expected(walked)
	todo := slices.DeleteFunc(slices.Clone(bad), func(d digest.Digest) bool { _, ok := known[d]; return !ok })
	for len(todo) > 0 {
		before := done.Blobs
		if err := h.heal(ctx, known, todo); err != nil {
			return nil, err
		}
		if done.Blobs == before {
			break
		}
		if walked, err = ContentsFromLayout(ctx, r.l, b.Index); err != nil {
			return nil, err
		}
		now := b.Expected(walked)
		if todo, err = r.wrong(ctx, known, now); err != nil {
			return nil, err
		}
		known = now
	}
	return walked, r.l.Flush(ctx)
}

// wrong hashes the blobs that now are known of and were not before, and names the bad ones.
func (r *Repair) wrong(ctx context.Context, before, now map[digest.Digest]store.Record) ([]digest.Digest, error) {
	var out []digest.Digest
	for _, d := range slices.Sorted(maps.Keys(now)) {
		if _, ok := before[d]; ok {
			continue
		}
		if _, err := r.l.Verify(ctx, ocispec.Descriptor{Digest: d, Size: now[d].Size}, nil); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			out = append(out, d)
		}
	}
	return out, nil
}

// healer heals blobs one after the other: the drive is read and written at once, and sticks
// do that badly.
type healer struct {
	r       *Repair
	b       *Bundle
	done    *Healed
	sources []RepairSource
	dead    map[int]error // sources that cannot be reached at all
	parity  *parity.Set
	ev      Event
}

// sources are those of the options after what the drive itself still has.
func (r *Repair) sources(b *Bundle) []RepairSource {
	own := []RepairSource{
		{Name: "the manifest index", Blobs: carried(b.Contents.carried())},
		{Name: "parity", Blobs: mended{}},
	}
	return append(own, r.opts.From...)
}

// mend reconstructs what parity can of the blobs todo: every group is read once for all of
// them. done lets go of it.
func (h *healer) mend(ctx context.Context, known map[digest.Digest]store.Record, todo []digest.Digest) (done func(), err error) {
	done = func() {}
	if h.parity == nil {
		if h.parity, err = parity.Open(h.r.l); err != nil || len(h.parity.Generations) == 0 {
			h.parity = &parity.Set{}
		}
	}
	var descs []ocispec.Descriptor
	for _, d := range todo {
		if desc := (ocispec.Descriptor{Digest: d, Size: known[d].Size}); h.covered(desc) {
			descs = append(descs, desc)
		}
	}
	if len(descs) == 0 {
		return done, nil
	}
	scratch, done, err := h.r.scratch()
	if err != nil {
		return func() {}, err
	}
	blobs, err := h.parity.MendAll(ctx, descs, scratch)
	if err != nil {
		done()
		return func() {}, err
	}
	h.sources[1].Blobs = mended(blobs)
	return done, nil
}

func (h *healer) covered(desc ocispec.Descriptor) bool {
	_, ok := h.parity.Blob(desc)
	return ok
}

// heal heals the blobs todo, small ones first: manifests tell what else is needed.
func (h *healer) heal(ctx context.Context, known map[digest.Digest]store.Record, todo []digest.Digest) error {
	slices.SortFunc(todo, func(x, y digest.Digest) int {
		if a, b := known[x].Size, known[y].Size; a != b {
			return int(max(-1, min(1, a-b)))
		}
		return bytes.Compare([]byte(x), []byte(y))
	})
	done, err := h.mend(ctx, known, todo)
	if err != nil {
		return err
	}
	defer done()
	h.ev = Event{Phase: PhaseRepair, TotalBlobs: len(todo)}
	for _, d := range todo {
		h.ev.Total += known[d].Size
	}
	for _, d := range slices.Compact(todo) {
		rec := known[d]
		err := h.one(ctx, ocispec.Descriptor{MediaType: rec.MediaType, Digest: d, Size: rec.Size})
		if err == nil {
			delete(h.done.Lost, d)
			h.done.Blobs++
			h.done.Bytes += rec.Size
			h.ev.Blobs++
			h.r.opts.Progress(h.ev)
			continue
		}
		var theirs *sourceError
		if ctx.Err() != nil || !errors.As(err, &theirs) {
			return err
		}
		h.done.Lost[d] = theirs.err
	}
	return nil
}

// one takes one blob from the first source that has it right. The damaged one stays until its
// successor is complete and synced. If nobody has it the error is a [*sourceError] and the
// drive is as it was.
func (h *healer) one(ctx context.Context, desc ocispec.Descriptor) error {
	l := h.r.l
	if _, err := l.Verify(ctx, desc, nil); err == nil || ctx.Err() != nil {
		return err
	}
	for _, name := range []string{layout.BlobPath(desc.Digest), layout.PartialPath(desc.Digest)} {
		if err := h.r.clear(name); err != nil {
			return &sourceError{err} // a folder of that name
		}
	}
	began := h.partial(desc.Digest)
	var said []error
	if began {
		// An interrupted repair leaves the whole blob as a partial file.
		if err := h.ingest(ctx, desc, RepairSource{Name: "the partial file", Blobs: carried(nil)}); !isSource(err) {
			return err
		}
	}
	for i, src := range h.sources {
		if err := h.dead[i]; err != nil {
			said = append(said, err)
			continue
		}
		err := h.ingest(ctx, desc, src)
		if !isSource(err) {
			return err
		}
		if errors.Is(err, remote.ErrUnreachable) || errors.Is(err, remote.ErrAuth) {
			h.dead[i] = err // nor will it be for the next blob
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, remote.ErrNotFound) || i > 1 {
			said = append(said, err)
		}
	}
	if len(said) == 0 { // so no other source was named
		why := parity.ErrNotCovered
		if h.covered(desc) {
			why = parity.ErrLost
		}
		said = append(said, fmt.Errorf("%w, and no other source was named", why))
	}
	if !began {
		if err := l.RemovePartial(desc.Digest); err != nil {
			return err
		}
	}
	return &sourceError{errors.Join(said...)}
}

func isSource(err error) bool { return errors.As(err, new(*sourceError)) }

func (h *healer) partial(d digest.Digest) bool {
	f, err := h.r.l.OpenFile(layout.PartialPath(d))
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// ingest takes a blob from src. What is wrong with the source is a [*sourceError].
func (h *healer) ingest(ctx context.Context, desc ocispec.Descriptor, src RepairSource) error {
	fail := func(err error) error { return &sourceError{fmt.Errorf("%s: %w", src.Name, err)} }
	// Whether it has the blob is asked first, so that nothing is begun on the drive in vain.
	probe := !h.partial(desc.Digest)
	if probe {
		rc, err := src.Blobs.Fetch(ctx, desc, 0)
		if err != nil {
			return fail(err)
		}
		rc.Close()
	}
	done := h.ev.Done
	_, err := h.r.l.Ingest(ctx, desc, func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		rc, err := src.Blobs.Fetch(ctx, desc, offset)
		if err != nil {
			return nil, fail(err)
		}
		return &sourceReader{rc, fail}, nil
	}, func(n int64) {
		h.ev.Done += n
		h.r.opts.Progress(h.ev)
	})
	switch {
	case err == nil || isSource(err) || ctx.Err() != nil:
	case errors.Is(err, content.ErrDigest) || errors.Is(err, content.ErrSize):
		err = fail(err)
	}
	if err != nil {
		h.ev.Done = done
		return err
	}
	// It gets its name at once, so that the damaged one makes room: a drive may be full.
	return h.r.l.Flush(ctx)
}

// sourceReader says of read errors that they are the source's.
type sourceReader struct {
	io.ReadCloser
	fail func(error) error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = s.fail(err)
	}
	return n, err
}

// carried are blobs that are at hand; it is a [content.Fetcher].
type carried map[digest.Digest][]byte

// Fetch implements [content.Fetcher].
func (c carried) Fetch(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	data, ok := c[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("%s: %w", desc.Digest, fs.ErrNotExist)
	}
	if offset > int64(len(data)) {
		return nil, fmt.Errorf("%s: %w: offset %d of %d bytes", desc.Digest, content.ErrSize, offset, len(data))
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), nil
}

// carried are the blobs that the manifest index holds a second time, or that follow from it:
// captured documents, the manifests that name them, and their config.
func (c *Contents) carried() map[digest.Digest][]byte {
	out := map[digest.Digest][]byte{emptyConfig.Digest: emptyConfigData}
	for _, rel := range c.Releases {
		var docs []document
		for _, d := range rel.Documents {
			data, ok := c.Document(rel.Tag, d.Name)
			if !ok {
				break
			}
			out[d.Digest] = data
			docs = append(docs, document{d.Name, d.MediaType, data})
		}
		if len(docs) < len(rel.Documents) {
			continue
		}
		sortDocuments(docs)
		if desc, raw, err := documentsManifest(rel, docs); err == nil {
			out[desc.Digest] = raw
		}
	}
	return out
}

// Carries reports whether the drive holds the blob d a second time, in its manifest index.
func (b *Bundle) Carries(d digest.Digest) bool {
	data, ok := b.Contents.carried()[d]
	return ok && digest.FromBytes(data) == d
}
