package bundle

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/layout"
	"pannier/store"
)

// begin makes the drive ready for writing: the layout, the lock, and the working copy of the
// index with the plan in it. The returned function undoes the lock and removes the copy.
func (p *packer) begin(ctx context.Context) (func(), error) {
	var err error
	// A drive that was opened is a bundle, whatever its oci-layout says by now.
	opts := layout.Options{FS: p.opts.FS, Logger: p.log, Damaged: p.have != nil}
	if p.layout, err = layout.Create(p.opts.Media, opts); err != nil {
		return nil, err
	}
	unlock, err := p.layout.Lock(p.opts.Program)
	if err != nil {
		p.layout.Close()
		return nil, err
	}
	if err := p.openWorking(ctx); err != nil {
		unlock()
		p.layout.Close()
		return nil, err
	}
	end := func() {
		if err := p.index.Close(); err != nil {
			p.log.Warn("closing the working copy of the index", "err", err)
		}
		os.RemoveAll(p.work)
		unlock()
		p.layout.Close()
	}
	if err := p.sweepUnsealed(); err != nil {
		end()
		return nil, err
	}
	// The plan goes to the drive before the first blob: whatever a crash leaves there, the
	// index says what it was for.
	if err := errors.Join(p.writePlan(), p.publishSnapshot()); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// openWorking makes the working copy of the index on the local disk. It begins with what the
// seal covers, from the seal's own generation of the index or from the layout; what packs
// that did not finish have noted since is put beside that and changes nothing of it. It is
// never resumed from an earlier working copy.
func (p *packer) openWorking(ctx context.Context) error {
	drive := &Bundle{Layout: p.layout}
	if err := drive.findSeal(); err != nil {
		return err
	}
	before := uint64(0)
	if p.have != nil {
		before = p.have.newest()
		if p.have.unlisted != nil { // the drive fails, and nobody else has written
			return p.have.unlisted
		}
	}
	p.written = drive.newest()
	if drive.unlisted != nil {
		return drive.unlisted
	}
	if p.written != before {
		return fmt.Errorf("%s: %w: it has written here since this one looked; run it again", p.opts.Media, layout.ErrLocked)
	}
	if p.have != nil {
		drive.Seal = p.have.Seal
	}
	later, cleanup, err := p.laterIndex(drive)
	if err != nil {
		return err
	}
	defer cleanup()
	if !p.seed(drive.Seal) {
		if err := p.newIndex(drive.Seal); err != nil {
			return err
		}
	}
	err = p.nameInstance(drive.Seal, later)
	if err == nil && !p.dropped {
		err = p.takeNotes(later)
	}
	if err != nil {
		p.index.Close()
		os.RemoveAll(p.work)
	}
	return err
}

// laterIndex opens the newest sound generation of the index that is newer than the seal; nil
// if there is none.
func (p *packer) laterIndex(drive *Bundle) (*store.Index, func(), error) {
	for _, g := range drive.generations(indexPrefix, indexSuffix) {
		if drive.Seal != nil && g <= drive.Seal.Generation {
			break
		}
		x, cleanup, err := drive.openIndexCopy(g, p.opts.Cache)
		switch {
		case err == nil:
			return x, cleanup, nil
		case errors.Is(err, store.ErrVersion):
			return nil, nil, fmt.Errorf("%s: %w", indexName(g), ErrVersion)
		}
		p.log.Warn("a generation of the index is passed over", "index", indexName(g), "err", err)
	}
	return nil, func() {}, nil
}

// seed copies the index that the seal names, and reports whether there is a sound one.
func (p *packer) seed(seal *Seal) bool {
	if !p.trusted || p.have.IndexProblem != nil {
		return false
	}
	path, err := copyIndex(p.layout, seal, seal.Generation, p.opts.Cache)
	if err == nil {
		if p.index, err = store.Open(path); err == nil {
			p.work = filepath.Dir(path)
			return true
		}
		os.RemoveAll(filepath.Dir(path))
	}
	p.log.Warn("the sealed index is made again from the layout", "err", err)
	return false
}

// takeNotes adds what an unfinished pack has noted in later, which may be nil, and what is set
// aside.
func (p *packer) takeNotes(later *store.Index) error {
	if later != nil {
		c, err := contentsFromStore(later, nil)
		if err != nil {
			p.log.Warn("the notes of an unfinished pack are passed over", "err", err)
		} else if err := p.takeOver(c); err != nil {
			return err
		}
	}
	if p.aside == nil {
		return nil
	}
	return p.takeOver(p.aside)
}

// takeOver adds contents that the next seal does not cover. Of images that the drive has already
// it takes nothing: a blob that was fetched for another form of one of those is left with no
// image that needs it, until the next seal.
func (p *packer) takeOver(c *Contents) error {
	known := map[string]bool{}
	if p.base != nil {
		for _, img := range p.base.Images {
			known[img.Tag] = true
		}
	}
	var images []store.Image
	for _, img := range c.Images {
		if !known[img.Tag] {
			images = append(images, img)
		}
	}
	if err := p.index.PutImages(images...); err != nil {
		return err
	}
	for _, rel := range c.Releases {
		if known[rel.Tag] {
			continue
		}
		docs := map[string][]byte{}
		for _, d := range rel.Documents {
			docs[d.Name], _ = c.Document(rel.Tag, d.Name)
		}
		if rel.Sealed = 0; rel.Signature == "" {
			rel.Signature = SignatureUnverified
		}
		if err := p.index.PutRelease(rel, docs); err != nil {
			return err
		}
	}
	var records []store.Record
	for _, d := range slices.Sorted(maps.Keys(c.Records)) {
		r := c.Records[d]
		r.Sealed = 0
		r.Images = slices.DeleteFunc(slices.Clone(r.Images), func(t string) bool { return known[t] })
		old, err := p.index.Record(d)
		if err == nil {
			old.Images = slices.Compact(slices.Sorted(slices.Values(slices.Concat(old.Images, r.Images))))
			r = old
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		records = append(records, r)
	}
	return p.index.Put(records...)
}

// newIndex makes an index from what the seal covers, or an empty one.
func (p *packer) newIndex(seal *Seal) error {
	dir, err := workingFolder(p.opts.Cache)
	if err != nil {
		return &localError{err}
	}
	x, err := store.Create(filepath.Join(dir, "index.db"))
	if err != nil {
		os.RemoveAll(dir)
		return err
	}
	p.index, p.work = x, dir
	if p.base == nil {
		return nil
	}
	var sealed uint64
	if p.trusted {
		sealed = seal.Generation
	}
	if err := p.base.fill(x, sealed); err != nil {
		x.Close()
		os.RemoveAll(dir)
		return err
	}
	return nil
}

// fill writes contents that were walked in the layout into an index.
func (c *Contents) fill(x *store.Index, sealed uint64) error {
	if err := x.PutImages(c.Images...); err != nil {
		return err
	}
	for _, rel := range c.Releases {
		rel.Sealed = sealed
		if rel.Signature == "" {
			rel.Signature = SignatureUnverified
		}
		docs := map[string][]byte{}
		for _, d := range rel.Documents {
			docs[d.Name], _ = c.Document(rel.Tag, d.Name)
		}
		if err := x.PutRelease(rel, docs); err != nil {
			return err
		}
	}
	records := slices.Collect(maps.Values(c.Presumed))
	for _, r := range c.Records {
		r.Sealed = sealed
		records = append(records, r)
	}
	return x.Put(records...)
}

// nameInstance takes the drive's random name from the seal, or from the index of a pack that
// never came to one, or makes one.
func (p *packer) nameInstance(seal *Seal, later *store.Index) error {
	if seal != nil {
		p.instance = seal.Instance
	} else if later != nil {
		name, err := later.Meta(store.MetaInstance)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		p.instance = name
	}
	if p.instance == "" {
		var b [16]byte
		rand.Read(b[:])
		p.instance = hex.EncodeToString(b[:])
	}
	return p.index.SetMeta(store.MetaInstance, p.instance)
}

// newest is the newest generation of any of our files on the drive.
func (b *Bundle) newest() uint64 {
	var n uint64
	for _, list := range [][]uint64{
		b.generations(sealPrefix, sealSuffix), b.generations(layoutPrefix, layoutSuffix), b.generations(indexPrefix, indexSuffix),
	} {
		if len(list) > 0 {
			n = max(n, list[0])
		}
	}
	return n
}

// writePlan puts the plan into the index before the first transfer: what is wanted, and for
// whom, can then be read from a drive whose pack never finished.
func (p *packer) writePlan() error {
	images := make([]store.Image, 0, len(p.images))
	for _, tag := range slices.Sorted(maps.Keys(p.images)) {
		images = append(images, p.images[tag])
	}
	if err := p.index.PutImages(images...); err != nil {
		return err
	}
	for _, pr := range p.releases {
		docs := map[string][]byte{}
		for _, d := range pr.docs {
			docs[d.name] = d.data
		}
		if err := p.index.PutRelease(pr.record, docs); err != nil {
			return err
		}
	}
	files, err := p.layout.Partials()
	if err != nil {
		return err
	}
	partial := map[digest.Digest]int64{}
	for _, f := range files {
		partial[f.Digest] = f.Size
	}
	var records []store.Record
	for _, d := range slices.Sorted(maps.Keys(p.items)) {
		it := p.items[d]
		r := p.recordOf(it)
		if it.state == stateSealed {
			old, err := p.index.Record(d)
			if err != nil {
				return err
			}
			r.State, r.Offset, r.Sealed, r.Source = old.State, old.Offset, old.Sealed, old.Source
		} else if n := partial[d]; n > 0 && n <= r.Size {
			r.State, r.Offset = store.StatePartial, n
		}
		records = append(records, r)
	}
	return errors.Join(p.put(records), p.putPresumed())
}

// put writes records, some thousands in a transaction: bbolt holds all that one changes. A
// working copy of which a part is missing is never read.
func (p *packer) put(records []store.Record) error {
	for some := range slices.Chunk(records, 4096) {
		if err := p.index.Put(some...); err != nil {
			return err
		}
	}
	return nil
}

// indexSize is the size of the working copy, in bytes.
func (p *packer) indexSize() int64 {
	fi, err := os.Stat(filepath.Join(p.work, "index.db"))
	if err != nil {
		return 0
	}
	return fi.Size()
}

// publishSnapshot writes a consistent snapshot of the index to the drive, as a new
// generation, and removes the one before it unless the seal names that.
func (p *packer) publishSnapshot() error {
	before := p.written
	if err := p.writeSnapshot(); err != nil {
		return err
	}
	if p.have != nil && p.have.Seal != nil && p.have.Seal.Generation == before || before == 0 || before == p.sealing {
		return nil
	}
	return p.layout.RemoveFile(indexName(before))
}

// writeSnapshot writes the next generation of the index.
func (p *packer) writeSnapshot() error {
	if p.written++; p.written > maxGeneration {
		return fmt.Errorf("%w: a file of generation %d stands on the drive, which no pack has written", ErrDamaged, p.written-1)
	}
	if err := p.index.SetMeta(store.MetaGeneration, strconv.FormatUint(p.written, 10)); err != nil {
		return err
	}
	return p.layout.WriteStream(indexName(p.written), p.snapshotTo)
}
