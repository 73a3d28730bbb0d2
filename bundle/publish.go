package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/store"
)

func (p *packer) snapshotTo(w io.Writer) error {
	_, err := p.index.WriteTo(w)
	return err
}

// publish writes the names and promises, in the order of docs/format.md ("Write order"):
// everything that they name is durable by now, and each is durable before the next. Until the
// new seal stands, the old one's layout copy and index are left alone.
func (p *packer) publish(ctx context.Context) (*Seal, error) {
	if err := p.settle(); err != nil {
		return nil, err
	}
	if err := p.writeClients(ctx); err != nil {
		return nil, err
	}
	if err := p.writeTools(ctx); err != nil {
		return nil, err
	}
	var err error
	if p.cover, err = p.planCover(ctx); err != nil { // now that it is known what nothing needs
		return nil, err
	}
	idx, g := p.layoutIndex(), p.written+1
	rb, files, err := p.readBack(ctx, g, ID(idx))
	if err != nil {
		return nil, err
	}
	p.parity = map[string]bool{}
	for name := range files {
		p.parity[path.Dir(name)] = true
	}
	p.opts.Progress(Event{Phase: PhaseFlush})

	if err := p.writeNames(g, idx); err != nil {
		return nil, err
	}
	small, err := p.writeCopies(g)
	if err != nil {
		return nil, err
	}
	seal, err := p.newSeal(g, idx, rb, files, small)
	if err != nil {
		return nil, err
	}
	if err := p.writeSeal(ctx, g, seal, small); err != nil {
		return nil, err
	}
	return seal, p.cleanUp(g)
}

// writeNames writes the small files that name what is on the drive, and that the seal covers.
func (p *packer) writeNames(g uint64, idx *ocispec.Index) error {
	raw, err := json.MarshalIndent(idx, "", "  ")
	if err != nil {
		return err
	}
	raw = append(raw, '\n')
	if err := p.layout.WriteFile(layoutName(g), raw); err != nil {
		return err
	}
	if err := p.markSealed(g); err != nil {
		return err
	}
	if err := p.writeSnapshot(); err != nil {
		return err
	}
	if err := p.layout.ReplaceFile(fileIndexJSON, raw); err != nil {
		return err
	}
	if err := p.writeObjects(); err != nil {
		return err
	}
	start := p.start
	if start == "" {
		start = startHere(ID(idx), idx, p.allReleases(), p.opts.Destination, toolsIn(p.clients))
	}
	return p.layout.ReplaceFile(fileStart, []byte(start))
}

// writeSeal seals what is flushed and read back, the small files here; the new generation
// counts as soon as its seal stands.
func (p *packer) writeSeal(ctx context.Context, g uint64, seal *Seal, small map[string]SealedFile) error {
	raw, err := seal.encode()
	if err != nil {
		return err
	}
	if err := p.layout.Flush(ctx); err != nil {
		return err
	}
	if err := p.checkWritten(ctx, small); err != nil {
		return err
	}
	if p.cover.any() {
		if err := p.layout.WriteFile(CopyName(g, sealName(g)), raw); err != nil {
			return err
		}
		if err := p.checkFile(CopyName(g, sealName(g)), sealedFile(raw)); err != nil {
			return err
		}
	}
	p.sealing = g
	if err := p.layout.WriteFile(sealName(g), raw); err != nil {
		return err
	}
	return p.checkFile(sealName(g), sealedFile(raw))
}

// layoutIndex is index.json as it will be: the entries that the seal covers and this run
// does not replace, and those that it planned, in an order that depends on nothing else.
func (p *packer) layoutIndex() *ocispec.Index {
	idx := &ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	images := maps.Clone(p.images)
	if p.base != nil {
		for _, img := range p.base.Images {
			if _, planned := images[img.Tag]; !planned && !p.replaced[img.Tag] {
				images[img.Tag] = img
			}
		}
	}
	releases := map[string]store.Release{}
	for _, r := range p.allReleases() {
		releases[r.Tag] = r
	}
	for _, tag := range slices.Sorted(maps.Keys(images)) {
		img := images[tag]
		d := img.Descriptor
		switch img.Kind {
		case store.KindDocuments:
			d.ArtifactType = ArtifactRelease
			d.Annotations = map[string]string{ocispec.AnnotationVersion: releases[img.Release].Version}
		case store.KindSupplement:
			d.ArtifactType = ArtifactSupplement
		case store.KindPresumes:
			d.ArtifactType = ArtifactPresumes
		default:
			d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
		}
		idx.Manifests = append(idx.Manifests, d)
	}
	return idx
}

// allReleases are the releases of the layout index that is being written.
func (p *packer) allReleases() []store.Release {
	var out []store.Release
	for _, pr := range p.releases {
		out = append(out, pr.record)
	}
	if p.base != nil {
		for _, r := range p.base.Releases {
			if !slices.ContainsFunc(out, func(o store.Release) bool { return o.Tag == r.Tag }) {
				out = append(out, r)
			}
		}
	}
	slices.SortFunc(out, func(a, b store.Release) int { return strings.Compare(a.Tag, b.Tag) })
	return out
}

// settle takes what this run replaced out of the index: images that are gone, and blobs that
// nothing needs any more, those of unfinished packs among them. Their files stay until the
// new seal stands.
func (p *packer) settle() error {
	var gone []string
	for tag := range p.replaced {
		if _, planned := p.images[tag]; !planned {
			gone = append(gone, tag)
		}
	}
	if err := p.index.DeleteImage(gone...); err != nil {
		return err
	}
	var keep []store.Record
	err := p.index.Records(func(r store.Record) error {
		if p.items[r.Digest] != nil || p.presumed[r.Digest] != nil {
			return nil
		}
		n := len(r.Images)
		r.Images = slices.DeleteFunc(r.Images, func(t string) bool {
			// What an image needs that was planned in this run is planned too; an unfinished
			// pack may have noted another form of it.
			_, planned := p.images[t]
			return planned || p.replaced[t]
		})
		switch {
		case len(r.Images) == 0:
			p.orphans = append(p.orphans, r.Digest)
		case len(r.Images) < n:
			keep = append(keep, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := p.index.Put(keep...); err != nil {
		return err
	}
	if err := p.index.Delete(p.orphans...); err != nil {
		return err
	}
	return p.findStrays()
}

// markSealed notes in the index which seal first covers the releases and blobs of this run.
// It counts only once that seal stands.
func (p *packer) markSealed(g uint64) error {
	var records []store.Record
	for _, d := range slices.Sorted(maps.Keys(p.items)) {
		r, err := p.index.Record(d)
		if err != nil {
			return err
		}
		if p.items[d].state != stateSealed || r.Sealed == 0 {
			r.Sealed = g
			records = append(records, r)
		}
	}
	if err := p.put(records); err != nil {
		return err
	}
	for _, pr := range p.releases {
		pr.record.Sealed = g
		if err := p.index.PutRelease(pr.record, nil); err != nil {
			return err
		}
	}
	return nil
}

// newSeal writes SHA256SUMS, with the files of parity whose digests are given, and makes the
// seal over it.
func (p *packer) newSeal(g uint64, idx *ocispec.Index, rb ReadBack, parity map[string]digest.Digest, small map[string]SealedFile) (*Seal, error) {
	seal := &Seal{
		Format: FormatVersion, Generation: g, Bundle: ID(idx), Instance: p.instance,
		Sealed: time.Now().UTC().Truncate(time.Second), Program: p.opts.Program,
		Files: map[string]SealedFile{}, ReadBack: rb,
	}
	seal.Totals.Images = len(idx.Manifests)
	seal.Totals.Releases = len(p.allReleases())
	sums := maps.Clone(parity)
	add := func(d digest.Digest, size int64) {
		sums[layout.BlobPath(d)] = d
		seal.Totals.Blobs++
		seal.Totals.Bytes += size
	}
	for d, size := range p.willSeal() {
		add(d, size)
	}
	files, err := p.smallFiles(g)
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		f, err := copyFile(p.layout.OpenFile, name, maxIndexDB, io.Discard)
		if err != nil {
			return nil, err
		}
		small[name] = f
		if name == fileIndexJSON || name == layoutName(g) || name == indexName(g) {
			seal.Files[name] = f
		}
	}
	for name, f := range small {
		sums[name] = f.Digest
	}
	maps.Copy(sums, p.clients)
	text := encodeSums(sums)
	seal.Files[fileSums] = sealedFile(text)
	small[fileSums] = seal.Files[fileSums]
	if p.cover.any() {
		small[CopyName(g, fileSums)] = seal.Files[fileSums]
		if err := p.layout.WriteFile(CopyName(g, fileSums), text); err != nil {
			return nil, err
		}
	}
	return seal, p.layout.ReplaceFile(fileSums, text)
}

// checkWritten reads the small files back past the cache, and what was written of clients and
// tools.
func (p *packer) checkWritten(ctx context.Context, small map[string]SealedFile) error {
	if _, err := p.layout.DropCache(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(small)) {
		if err := p.checkFile(name, small[name]); err != nil {
			return err
		}
	}
	return p.readClients(ctx)
}

// checkFile reads a file back past its cache.
func (p *packer) checkFile(name string, want SealedFile) error {
	found, err := copyFile(p.layout.OpenMedium, name, maxIndexDB, io.Discard)
	if err == nil {
		err = want.compare(found)
	}
	if err != nil {
		return fmt.Errorf("read back: %s: %w", name, err)
	}
	return nil
}

// cleanUp removes what the seal before g needed: blobs that nothing needs any more, then the
// files of earlier generations, which say until then that there is something to remove.
func (p *packer) cleanUp(g uint64) error {
	for _, d := range p.orphans {
		if err := errors.Join(p.layout.RemoveBlob(d), p.layout.RemovePartial(d)); err != nil {
			return err
		}
	}
	for d := range p.presumed { // it may have been begun before it was known to be there
		if err := p.layout.RemovePartial(d); err != nil {
			return err
		}
	}
	err := p.sweepParity(func(dir string) bool {
		return p.parity[dir] || dir == copiesDir(g) && p.cover.any()
	})
	if err == nil && len(p.orphans) > 0 {
		// Durable before the files that say that there is something to remove.
		err = p.layout.FlushNames()
	}
	if err != nil {
		return err
	}
	b := &Bundle{Layout: p.layout}
	for _, kind := range [][2]string{{indexPrefix, indexSuffix}, {layoutPrefix, layoutSuffix}, {sealPrefix, sealSuffix}} {
		for _, old := range b.generations(kind[0], kind[1]) {
			if old == g {
				continue
			}
			if err := p.layout.RemoveFile(generationName(kind[0], old, kind[1])); err != nil {
				return err
			}
		}
	}
	if b.unlisted != nil {
		return b.unlisted
	}
	return p.layout.FlushNames()
}

// findStrays finds the blobs that no record tells of: an interrupted cleaning up left them behind,
// and they can go, or the index that knew what they are for is lost. What is set aside may need
// these; if nothing is, nobody can ever tell whose they were.
func (p *packer) findStrays() error {
	if !p.unknown && (p.have == nil || !p.have.Leftovers) {
		return nil
	}
	files, err := p.layout.Blobs()
	if err != nil {
		return err
	}
	var lost Totals
	var keep []store.Record
	for _, f := range files {
		if f.Digest == "" || !f.Regular {
			continue
		}
		if _, err := p.index.Record(f.Digest); !errors.Is(err, store.ErrNotFound) || slices.Contains(p.orphans, f.Digest) {
			continue
		}
		if p.unknown && p.aside != nil && len(p.aside.Images) > 0 {
			keep = append(keep, store.Record{Digest: f.Digest, Size: f.Size, State: store.StateWanted, Images: []string{p.aside.Images[0].Tag}})
			continue
		}
		p.orphans = append(p.orphans, f.Digest)
		lost.Blobs++
		lost.Bytes += f.Size
	}
	if lost.Blobs > 0 && p.unknown {
		p.warn("%s (%s) that nothing on the drive names any more, removed: what belonged to them cannot be told", content.Plural(lost.Blobs, "blob", "blobs"), content.SizeText(lost.Bytes))
	}
	return p.index.Put(keep...)
}
