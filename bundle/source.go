package bundle

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/parity"
)

// Blobs are the bytes of a [Source]: opened by their descriptor, from an offset on, and not
// verified.
type Blobs interface {
	content.Fetcher
	// Stat returns how many bytes a blob has there; the error wraps [fs.ErrNotExist] if there
	// is none.
	Stat(d digest.Digest) (int64, error)
}

// Source is a place that releases and images are taken from, opened: a drive, or
// registries. Whoever takes from it need not know which. Nothing in it is trusted but Judged.
type Source struct {
	Name     string // for messages: the folder of a drive, the hosts of registries
	Contents *Contents
	Blobs    Blobs

	// Refused says why nothing may be taken from it, as from a drive that is not sealed; nil
	// if something may. It wraps [ErrUnsealed] or [ErrDamaged].
	Refused error
	// Unfinished says what it lacks beside what may be taken from it; it wraps [ErrUnsealed],
	// or of a folder that oc wrote says what is wrong there.
	Unfinished error
	// Notes are for the person who takes from it.
	Notes []string
	// Registries says that it is registries: what is wrong there is no damage of a drive.
	Registries bool

	// Judged are the releases, by tag, whose image and signature were judged when the source
	// was opened, from the bytes that Contents were made of. Others are still to be judged.
	Judged map[string]SignatureVerdict

	// Mended has the blobs as parity reconstructs them, for those that are nowhere right; nil if
	// the place has no parity.
	Mended *Mended

	unsealed bool // nothing promised what it holds

	feel  func(error) error
	gone  func() error
	close func() error
}

// Close lets go of the source.
func (s *Source) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// Feel is told the outcome of reading each blob. It returns nil while that speaks of the blob
// alone, and an error once it says that the source itself is gone.
func (s *Source) Feel(err error) error {
	if s.feel == nil {
		return nil
	}
	return s.feel(err)
}

// Gone returns an error that wraps layout.ErrGone if nothing can be read from the source any
// more, so that what was found out about it last says nothing.
func (s *Source) Gone() error {
	if s.gone == nil {
		return nil
	}
	return s.gone()
}

// Absent is what it means that a blob is not there: [ErrDamaged] where a seal promised it,
// else [ErrIncomplete].
func (s *Source) Absent() error {
	if s.unsealed {
		return ErrIncomplete
	}
	return ErrDamaged
}

// Repositories lists the repositories that hold a blob, as they are really asked, so that
// their registry can be told to take it over by itself; nil where the source is no registry.
func (s *Source) Repositories(d digest.Digest) []string {
	b, ok := s.Blobs.(registryBlobs)
	if !ok || b[d] == nil {
		return nil
	}
	var out []string
	for _, r := range b[d].repos {
		out = append(out, r.Endpoint())
	}
	return out
}

// OpenSource opens what lies at media, a bundle or a folder that oc adm release mirror wrote,
// to take releases from it. It writes nothing there. Errors are those of [Open]; a drive that
// is not sealed is none, look at Refused.
func OpenSource(ctx context.Context, media string, opts OpenOptions) (*Source, error) {
	if IsDirectory(media) {
		d, err := OpenDirectory(ctx, media)
		if err != nil {
			return nil, err
		}
		return d.source(), nil
	}
	b, err := Open(ctx, media, opts)
	if err != nil {
		return nil, err
	}
	s := b.source(media)
	s.Mended = &Mended{layout: b.Layout, cache: opts.Cache, mended: map[digest.Digest]*parity.Mended{}}
	s.close = func() error { return errors.Join(s.Mended.close(), b.Close()) }
	return s, nil
}

// source is the bundle as a source, which judges its seal.
func (b *Bundle) source(media string) *Source {
	pulse := &layout.Pulse{}
	s := &Source{Name: media, Contents: b.Contents, Blobs: b.Layout, feel: pulse.Feel, gone: b.Layout.Gone, close: b.Close}
	switch {
	case b.Seal == nil && len(b.SealProblems) > 0:
		p := b.SealProblems[0]
		s.Refused = fmt.Errorf("%s: %s: %w: %w", media, p.Path, ErrDamaged, p.Err)
	case b.Seal == nil && b.Resealable():
		s.Refused = fmt.Errorf("%s: %w: the seal is lost, and what it covered is known; audit --repair puts it back", media, ErrUnsealed)
	case b.Seal == nil:
		s.Refused = fmt.Errorf("%s: %w: packing of %s has not finished", media, ErrUnsealed, b.Contents.Names())
	case b.Interrupted:
		s.Unfinished = fmt.Errorf("%s: %w: a later pack onto this drive has not finished; what was sealed before it is unpacked", media, ErrUnsealed)
	}
	if b.IndexProblem != nil && s.Refused == nil {
		s.Notes = append(s.Notes, fmt.Sprintf("%s: the index on the drive cannot be used (%v); the layout is read instead", media, b.IndexProblem))
	}
	return s
}
