package bundle

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/parity"
	"pannier/store"
)

// packer is a run of pack that packs nothing: what it publishes is what the drive holds.
func (r *Repair) packer(b *Bundle, base *Contents) *packer {
	p := &packer{
		opts: PackOptions{
			Parity: b.parityShare(),
			Media:  r.opts.Media, Cache: r.opts.Cache, Program: r.opts.Program, Progress: r.opts.Progress, Jobs: 1,
		},
		log: r.log, have: b, base: base, trusted: b.Seal != nil, layout: r.l,
		items: map[digest.Digest]*item{}, images: map[string]store.Image{}, replaced: map[string]bool{},
		kept: map[string]bool{}, broken: map[string]error{},
	}
	return p
}

// stale reports whether the small files as they stand cannot be put right one by one, so that
// a new generation must be published.
func (r *Repair) stale(b *Bundle, walked *Contents) bool {
	if b.Seal == nil || len(b.SealProblems) > 0 {
		return true
	}
	if r.opts.Drop && (b.Interrupted || len(b.Pending) > 0) {
		return true
	}
	if b.IndexProblem != nil && !errors.Is(b.IndexProblem, store.ErrByteOrder) || len(walked.Broken()) == 0 && b.differs(walked) {
		return true
	}
	return r.broken || !b.Interrupted && !b.smallFilesSound()
}

// differs reports whether seal or manifest index say otherwise than the layout.
func (b *Bundle) differs(walked *Contents) bool {
	return len(b.Seal.Differences(b.Index, walked)) > 0 || b.IndexProblem == nil && len(b.Contents.Differences(walked)) > 0
}

// reissue publishes what the drive holds as a new generation, in the write order of pack: the
// old seal counts until the new one stands. Every blob is known to be right by now. What does
// not go over into it is in the warnings.
func (r *Repair) reissue(ctx context.Context, b *Bundle, walked *Contents) (warnings []string, err error) {
	base := walked
	if b.Seal != nil && b.IndexProblem == nil && !b.differs(walked) {
		base = b.Contents // which knows more
	}
	for i, rel := range base.Releases {
		if known, ok := b.Contents.Release(rel.Tag); ok && rel.Signature == "" {
			base.Releases[i].Signature = known.Signature
		}
		if base.Releases[i].Signature == "" {
			base.Releases[i].Signature = SignatureUnverified
		}
	}
	p := r.packer(b, base)
	if base != b.Contents {
		p.have.IndexProblem = errors.Join(b.IndexProblem, store.ErrCorrupt) // it is not begun with
	}
	p.dropped = r.opts.Drop
	if p.opts.Verify = r.broken; r.broken && p.opts.Parity == 0 { // not even a map is left
		p.opts.Parity = parity.DefaultShare
	}
	p.start, p.opts.Destination = r.start(b, walked), base.Destination()
	if err := p.openWorking(ctx); err != nil {
		return nil, err
	}
	defer func() {
		p.index.Close()
		os.RemoveAll(p.work)
	}()
	if err := r.fillIn(ctx, p); err != nil {
		return nil, err
	}
	if r.opts.Drop {
		if err := p.dropNotes(); err != nil {
			return nil, err
		}
	}
	_, err = p.publish(ctx)
	return p.warnings, err
}

// fillIn completes the working copy of the index: the sums of blobs that it has none of, and
// which seal covers what none did.
func (r *Repair) fillIn(ctx context.Context, p *packer) error {
	lacking := map[digest.Digest]store.Record{}
	for d, rec := range p.base.Records {
		if _, err := p.index.Slices(d); errors.Is(err, store.ErrNotFound) {
			lacking[d] = rec
		} else if err != nil {
			return err
		}
	}
	sums, err := r.sliceSums(ctx, lacking)
	if err != nil {
		return err
	}
	if err := complete(p.index, sums); err != nil || p.trusted {
		return err
	}
	for _, rel := range p.base.Releases {
		rel.Sealed = p.written + 1
		if err := p.index.PutRelease(rel, nil); err != nil {
			return err
		}
	}
	// No seal covers anything: all of it is read back, as at the first time.
	for d, rec := range p.base.Records {
		p.items[d] = &item{desc: content.Descriptor(rec.MediaType, nil), state: stateThere, tags: map[string]bool{}}
		p.items[d].desc.Digest, p.items[d].desc.Size = d, rec.Size
	}
	return nil
}

// start is START-HERE.txt if it is known to be right: it can say a destination that is nowhere
// else. Empty if it must be written anew.
func (r *Repair) start(b *Bundle, walked *Contents) string {
	if b.Seal == nil {
		return ""
	}
	f := &files{b: b, walked: walked, from: r.opts.From}
	f.sums()
	want, ok := f.want[fileStart]
	if !ok {
		return ""
	}
	if raw, err := r.l.ReadFile(fileStart, maxIndexJSON); err == nil && digest.FromBytes(raw) == want {
		return string(raw)
	}
	data, _ := f.bytes(fileStart, want)
	return string(data)
}

// dropNotes takes out of the working copy of the index what the layout index does not name:
// the notes of packs that were given up. Their blobs are removed once the new seal stands.
func (p *packer) dropNotes() error {
	counts := map[string]bool{}
	for _, img := range p.base.Images {
		counts[img.Tag] = true
	}
	var images, releases []string
	err := errors.Join(
		p.index.Images(func(img store.Image) error {
			if !counts[img.Tag] {
				images = append(images, img.Tag)
			}
			return nil
		}),
		p.index.Releases(func(rel store.Release) error {
			if !counts[rel.Tag] {
				releases = append(releases, rel.Tag)
			}
			return nil
		}))
	if err != nil {
		return err
	}
	var keep []store.Record
	var gone []digest.Digest
	err = p.index.Records(func(rec store.Record) error {
		known, ok := p.base.Records[rec.Digest]
		if !ok {
			known, ok = p.base.Presumed[rec.Digest]
		}
		switch {
		case !ok:
			gone = append(gone, rec.Digest)
		case !slices.Equal(known.Images, rec.Images):
			rec.Images = known.Images
			keep = append(keep, rec)
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.orphans = append(p.orphans, gone...)
	p.have.Leftovers = true // every blob without a record goes
	return errors.Join(p.index.DeleteImage(images...), p.index.DeleteRelease(releases...), p.index.Put(keep...), p.index.Delete(gone...))
}
