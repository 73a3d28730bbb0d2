package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/store"
)

// adoptError says that a blob that is taken over is bad, and that nobody else may be asked for
// it.
type adoptError struct {
	releases []string // tags of those that need it
	err      error
}

func (e *adoptError) Error() string { return e.err.Error() }
func (e *adoptError) Unwrap() error { return e.err }

// openAdopted opens what is taken over.
func (p *packer) openAdopted(ctx context.Context) error {
	if p.opts.Adopt == "" {
		return nil
	}
	src, err := OpenSource(ctx, p.opts.Adopt, OpenOptions{Cache: p.opts.Cache, Logger: p.log})
	if err != nil {
		return err
	}
	p.adopt = src
	for _, n := range src.Notes {
		p.warn("%s", n)
	}
	if src.Refused != nil && !p.adoptsAll() {
		p.warn("%v; what is whole of it is used all the same", src.Refused)
		return nil
	}
	if src.Unfinished != nil && !p.adoptsAll() {
		p.warn("%v", src.Unfinished)
		return nil
	}
	p.adoptProblem = src.Unfinished
	return src.Refused
}

// adoptsAll reports whether no release was asked for by name: then those that are taken over
// are all that there is, and no network is needed for them.
func (p *packer) adoptsAll() bool { return p.opts.Adopt != "" && len(p.opts.Releases) == 0 }

// resolveAdopted plans the releases that are taken over, from there alone. One that is not
// whole or not signed is left out; why, is told in the end.
func (p *packer) resolveAdopted(ctx context.Context) error {
	for _, rel := range p.adopt.Contents.Releases {
		if p.leftOut[rel.Tag] != nil {
			p.dropAdopted(rel.Tag)
			continue
		}
		err := p.adoptRelease(ctx, rel)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return &adoptError{[]string{rel.Tag}, fmt.Errorf("release %s of %s: %w", rel.Tag, p.adopt.Name, err)}
		}
	}
	return nil
}

// dropAdopted takes back what an attempt to take a release over has left on the drive.
func (p *packer) dropAdopted(tag string) {
	if _, sealed := p.baseTag(tag); sealed {
		return
	}
	p.replaced[documentsTag(tag)] = true
	for _, img := range p.adopt.Contents.Images {
		if _, sealed := p.baseTag(img.Tag); img.Release == tag && !sealed {
			p.replaced[img.Tag] = true
		}
	}
}

func (p *packer) adoptRelease(ctx context.Context, rel store.Release) error {
	if d, ok := p.baseTag(rel.Tag); ok {
		if d != rel.Descriptor.Digest {
			return fmt.Errorf("%w: %s is %s on the drive, and %s in %s", ErrConflict, rel.Tag, d, rel.Descriptor.Digest, p.adopt.Name)
		}
		if p.trusted && !p.opts.Refresh && p.rendered(rel) && p.keepsText(rel) && p.keep(ctx, rel.Tag) {
			return nil
		}
	}
	p.opts.Progress(Event{Phase: PhasePlan, Item: rel.Tag})
	if wrong := p.adopt.Contents.CheckPayload(ctx, p.adopt.Blobs, rel.Tag); len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	if err := p.adoptable(rel.Tag); err != nil {
		return err
	}
	payload, err := release.Read(ctx, p.adopt.Blobs, rel.Descriptor)
	if err != nil {
		return err
	}
	pr := &plannedRelease{payload: payload, record: store.Release{
		Tag: rel.Tag, Version: rel.Version, Arch: rel.Arch, Source: rel.Source,
		Descriptor: plain(rel.Descriptor), Created: payload.Created, Previous: payload.Previous,
	}}
	signed, err := p.adopt.Contents.Signed(ctx, p.adopt.Blobs, rel.Tag)
	if err != nil {
		return err
	}
	if len(p.opts.Stores) > 0 {
		messages, _, err := p.messages(ctx, signed.Digest, &pr.asked)
		if err != nil {
			return err
		}
		signed.Messages = append(signed.Messages, messages...)
	}
	if err := p.judge(ctx, pr, signed); err != nil {
		return err
	}
	if ref, err := release.ParseImageReference(pr.verdict.Reference); err == nil && pr.verdict.Status == SignatureVerified {
		pr.record.Source = ref.Repository // the folder does not say it; who signed it does
	}
	if err := p.captureText(ctx, nil, pr); err != nil {
		return err
	}
	p.replaceRelease(rel.Tag)
	for _, img := range p.adopt.Contents.Images {
		if img.Release != rel.Tag || img.Kind == store.KindDocuments {
			continue
		}
		if img.Kind == store.KindRelease {
			img.Reference = pr.record.Source + "@" + img.Descriptor.Digest.String()
		}
		if img.Kind == store.KindSignature {
			p.replaced[img.Tag] = true
		}
		if err := p.collect(ctx, p.adopt.Blobs, nil, img); err != nil {
			return fmt.Errorf("image %s: %w", img.Tag, err)
		}
		p.nameSource(img)
	}
	if err := p.capture(pr); err != nil {
		return err
	}
	p.ask(rel.Tag)
	p.releases = append(p.releases, pr)
	return nil
}

// nameSource notes where the blobs of an image come from that nobody is asked for now: a later
// pack may have to ask.
func (p *packer) nameSource(img store.Image) {
	ref, err := release.ParseImageReference(img.Reference)
	if err != nil {
		return
	}
	for _, it := range p.items {
		if it.tags[img.Tag] && it.source == "" {
			it.source = ref.Repository
		}
	}
}

// adoptable looks whether all that a release needs is there, with its size: what is not, is
// better known before hours of copying.
func (p *packer) adoptable(tag string) error {
	own := map[string]bool{}
	for _, img := range p.adopt.Contents.Images {
		own[img.Tag] = img.Release == tag
	}
	for _, m := range p.adopt.Contents.Broken() {
		if own[m.Image] {
			return fmt.Errorf("image %s: manifest %s: %w: %w", m.Image, m.Descriptor.Digest, p.meaning(m.Err), m.Err)
		}
	}
	for d, r := range p.adopt.Contents.Records {
		if !slices.ContainsFunc(r.Images, func(t string) bool { return own[t] }) {
			continue
		}
		switch n, err := p.adopt.Blobs.Stat(d); {
		case err != nil:
			return fmt.Errorf("%s: blob %s: %w: %w", r.Images[0], d, p.meaning(err), err)
		case n != r.Size:
			return fmt.Errorf("%s: blob %s: %w: %d bytes, and it must have %d", r.Images[0], d, content.ErrSize, n, r.Size)
		}
	}
	return nil
}

// meaning is what an error of reading what is taken over stands for.
func (p *packer) meaning(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return p.adopt.Absent()
	}
	return ErrDamaged
}

// adopted brings a blob into place from what is taken over, if that has it. It reports false
// where the blob must be fetched: there is none, or it is bad and somebody else may be asked.
func (t *transfer) adopted(ctx context.Context, it *item) (content.Slices, bool, error) {
	src := t.p.adopt
	if src == nil {
		return nil, false, nil
	}
	if n, err := src.Blobs.Stat(it.desc.Digest); err != nil || n != it.desc.Size {
		return nil, false, nil
	}
	var read error // what went wrong there, and not on the drive
	c := t.counter(it, &t.adoptedBytes)
	got, err := t.p.layout.Ingest(ctx, it.desc, func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		rc, err := src.Blobs.Fetch(ctx, it.desc, offset)
		if err != nil {
			read = err
			return nil, err
		}
		return &adoptReader{rc, &read}, nil
	}, c.add)
	if err == nil {
		c.done(got)
		return got.Slices, true, src.Feel(nil)
	}
	if ctx.Err() != nil {
		return nil, false, err
	}
	if read == nil && !errors.Is(err, content.ErrDigest) && !errors.Is(err, content.ErrSize) {
		return nil, false, err // of the drive that is written
	}
	if gone := src.Feel(read); gone != nil {
		return nil, false, fmt.Errorf("%s: %w", src.Name, gone)
	}
	err = fmt.Errorf("%s: %s in %s: %w: %w", someTags(it.tags), it.desc.Digest, src.Name, ErrDamaged, err)
	if len(it.repos) == 0 {
		return nil, false, &adoptError{t.p.releasesOf(it), err}
	}
	t.p.warn("%v; it is fetched", err)
	return nil, false, nil
}

// adoptReader notes errors of what is taken over, to tell them from those of the drive.
type adoptReader struct {
	io.ReadCloser
	err *error
}

func (r *adoptReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		*r.err = err
	}
	return n, err
}

// releasesOf are the releases that need a blob.
func (p *packer) releasesOf(it *item) []string {
	set := map[string]bool{}
	for tag := range it.tags {
		if img, ok := p.images[tag]; ok && img.Release != "" {
			set[img.Release] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}
