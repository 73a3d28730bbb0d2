package bundle

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/store"
)

// presume leaves out of the plan what the other side holds, and plans the list of that. What
// the drive presumed before stays presumed for as long as an image needs it that this run
// leaves alone.
func (p *packer) presume() error {
	p.presumed = map[digest.Digest]*item{}
	images := p.imagesByTag()
	whole := p.carriedTags(images)
	registries := map[string]bool{}
	for d, it := range p.items {
		if it.state != stateAbsent || it.data != nil || content.IsManifest(it.desc.MediaType) {
			continue
		}
		held := true
		for tag := range it.tags {
			img, ok := images[tag]
			held = held && ok && !whole[tag] && p.held(d, it.desc.Size, img)
		}
		if held {
			p.presumed[d] = it
			delete(p.items, d)
		} else if _, presumed := p.adoptPresumed(d); presumed && len(it.repos) == 0 {
			return fmt.Errorf("%s: blob %s: %w of %s; name the releases to fetch it", someTags(it.tags), d, ErrPresumed, p.opts.Adopt)
		}
	}
	if len(p.presumed) > 0 || p.keepsPresumed() {
		for _, h := range p.opts.Have {
			registries[h.Registry.String()] = true
		}
	}
	list := p.presumedList()
	if p.base != nil && len(list) > len(p.presumed) {
		for _, r := range p.base.PresumedAt() {
			registries[r] = true
		}
	}
	if err := p.planPresumed(list, slices.Sorted(maps.Keys(registries))); err != nil {
		return err
	}
	return p.classify() // what was just planned
}

// imagesByTag are the images of the next seal, and those of the drive that it leaves out.
func (p *packer) imagesByTag() map[string]store.Image {
	images := map[string]store.Image{}
	if p.base != nil {
		for _, img := range p.base.Images {
			images[img.Tag] = img
		}
	}
	maps.Copy(images, p.images)
	return images
}

// carriedTags are the images that are carried whole: some by their kind, and those that clients
// are taken out of.
func (p *packer) carriedTags(images map[string]store.Image) map[string]bool {
	whole := map[string]bool{}
	for tag, img := range images {
		whole[tag] = carriedWhole(img.Kind)
	}
	for _, rel := range p.allReleases() {
		for _, c := range p.wantedClients(rel) {
			if img, ok := p.componentOf(rel.Tag, c.Component); ok {
				whole[img.Tag] = true
			}
		}
	}
	return whole
}

func (p *packer) adoptPresumed(d digest.Digest) (store.Record, bool) {
	if p.adopt == nil {
		return store.Record{}, false
	}
	r, ok := p.adopt.Contents.Presumed[d]
	return r, ok
}

// presumedList are the blobs that the next seal presumes.
func (p *packer) presumedList() []Sized {
	var list []Sized
	for d, it := range p.presumed {
		list = append(list, Sized{d, it.desc.Size})
	}
	if p.base != nil {
		for d, r := range p.base.Presumed {
			if p.items[d] == nil && slices.ContainsFunc(r.Images, func(t string) bool { return !p.replaced[t] }) {
				list = append(list, Sized{d, r.Size})
			}
		}
	}
	return SortSized(list)
}

// planPresumed plans the artifact with the list, in the place of the one that the drive has.
func (p *packer) planPresumed(list []Sized, registries []string) error {
	tag := ""
	var plan func() error
	if len(list) > 0 {
		doc := &presumedDocument{Format: FormatVersion, Registries: registries, Blobs: list}
		desc, raw, layer, data, err := doc.manifest()
		if err != nil {
			return err
		}
		if len(registries) > maxPresumedRegistries {
			return fmt.Errorf("blobs are presumed at %d registries; a bundle can name %d", len(registries), maxPresumedRegistries)
		}
		tag = presumesTag(desc)
		p.presumedTotals = Totals{Blobs: len(list)}
		for _, b := range list {
			p.presumedTotals.Bytes += b.Size
		}
		plan = func() error {
			p.images[tag] = doc.image(desc, desc.Size+layer.Size+emptyConfig.Size)
			return errors.Join(p.want(desc, raw, nil, tag), p.want(layer, data, nil, tag), p.want(emptyConfig, emptyConfigData, nil, tag))
		}
	}
	if p.base != nil {
		for _, img := range p.base.Images {
			switch {
			case img.Kind != store.KindPresumes:
			case img.Tag == tag && p.trusted:
				p.kept[tag] = true
				plan = nil
			case img.Tag != tag:
				p.replaced[img.Tag] = true
			}
		}
	}
	// Without a valid seal all that the drive holds is planned, the old list too.
	for d, it := range p.items {
		maps.DeleteFunc(it.tags, func(t string, _ bool) bool { return p.replaced[t] && strings.HasPrefix(t, "presumes-") })
		if len(it.tags) == 0 {
			delete(p.items, d)
		}
	}
	if plan == nil {
		return nil
	}
	return plan()
}

// lacksPresumed reports whether images of the drive need presumed blobs that the other side is
// not said to hold now, or that must be carried now.
func (p *packer) lacksPresumed(tags map[string]bool) bool {
	images := p.imagesByTag()
	whole := p.carriedTags(images)
	for d, r := range p.base.Presumed {
		for _, t := range r.Images {
			if tags[t] && (whole[t] || !p.held(d, r.Size, images[t])) {
				return true
			}
		}
	}
	return false
}

// keepsPresumed reports whether images that are kept need what the drive presumes: then the other
// side is said to hold that now too.
func (p *packer) keepsPresumed() bool {
	if p.base == nil {
		return false
	}
	for _, r := range p.base.Presumed {
		if slices.ContainsFunc(r.Images, func(t string) bool { return p.kept[t] }) {
			return true
		}
	}
	return false
}

// putPresumed records what this run presumes.
func (p *packer) putPresumed() error {
	records := make([]store.Record, 0, len(p.presumed))
	for _, d := range slices.Sorted(maps.Keys(p.presumed)) {
		r := p.recordOf(p.presumed[d])
		r.State = store.StatePresumed
		records = append(records, r)
	}
	return p.index.Put(records...)
}

// held reports whether the other side has a blob in the repository that an image goes to: each
// registry that holdings are of must, by one of those that are of it.
func (p *packer) held(d digest.Digest, size int64, img store.Image) bool {
	by := map[objects.Destination]bool{}
	for _, h := range p.opts.Have {
		where, err := RepositoryAt(img, h.Registry, p.opts.Prefix)
		if err != nil {
			return false
		}
		n, ok := h.Blobs[where][d]
		by[h.Registry] = by[h.Registry] || ok && n == size
	}
	for _, ok := range by {
		if !ok {
			return false
		}
	}
	return len(by) > 0
}
