package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/remote"
	"pannier/store"
)

// want adds a blob that the image tag needs to the plan.
func (p *packer) want(desc ocispec.Descriptor, data []byte, repo *remote.Repository, tag string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	it, ok := p.items[desc.Digest]
	if !ok {
		it = &item{desc: plain(desc), data: data, tags: map[string]bool{}}
		p.items[desc.Digest] = it
	}
	if it.desc.Size != desc.Size {
		return fmt.Errorf("%s: %w: one manifest says %d bytes, another %d", desc.Digest, content.ErrInvalid, it.desc.Size, desc.Size)
	}
	if it.data == nil {
		it.data = data
	}
	if repo != nil && !slices.Contains(it.repos, repo) {
		it.repos = append(it.repos, repo)
	}
	it.tags[tag] = true
	return nil
}

// classify finds out which of the wanted blobs are there. Nothing is hashed here: what no
// seal covers is hashed when its turn comes.
func (p *packer) classify() error {
	if p.have == nil {
		return nil
	}
	partials, err := p.have.Layout.Partials()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	begun := map[digest.Digest]int64{}
	for _, f := range partials {
		begun[f.Digest] = f.Size
	}
	for d, it := range p.items {
		size, err := p.have.Layout.Stat(d)
		if errors.Is(err, fs.ErrNotExist) {
			if n := begun[d]; n <= it.desc.Size { // a longer one is started over
				it.begun = n
			}
			continue
		}
		if err != nil {
			return err
		}
		if size != it.desc.Size {
			continue
		}
		it.state = stateThere
		if _, ok := p.sealed(d); ok {
			it.state = stateSealed
		}
	}
	return nil
}

// plan sums up what is to be done.
func (p *packer) plan() (Plan, error) {
	plan := Plan{Free: -1, Path: p.path.edges}
	for _, it := range p.items {
		plan.add(it.desc, it.state != stateAbsent)
		if it.begun > 0 && !content.IsManifest(it.desc.MediaType) {
			plan.Begun++
			plan.Resumed += it.begun
			plan.Bytes.Present += it.begun
			plan.Bytes.Transfer -= it.begun
		}
	}
	plan.Presumed = p.presumedTotals
	if p.base != nil {
		for d, r := range p.base.Records {
			if p.items[d] == nil && slices.ContainsFunc(r.Images, func(t string) bool { return p.kept[t] }) {
				plan.add(ocispec.Descriptor{MediaType: r.MediaType, Size: r.Size}, true)
			}
		}
	}
	tags := map[string]bool{}
	for tag, img := range p.images {
		if !untagged(img.Kind) {
			tags[tag] = true
		}
	}
	for _, tag := range p.keptTags() {
		tags[tag] = true
	}
	plan.Tags = slices.Sorted(maps.Keys(tags))
	for _, c := range p.opts.Client.Contacts() {
		plan.Hosts = append(plan.Hosts, c.Host)
	}
	slices.Sort(plan.Hosts)
	plan.Hosts = slices.Compact(plan.Hosts)
	plan.Parity = p.cover.plan(p)
	p.programs = p.clientsNeed() + p.toolsNeed()
	plan.Need = p.need(plan)
	if space, err := layout.StatSpace(p.opts.Media); err == nil {
		plan.Free, plan.Filesystem = space.Free, space.Filesystem
		if space.Free >= 0 {
			plan.Missing = max(0, plan.Need-space.Free)
		}
		if p.sameDisk = space.SameDeviceAsRoot; p.sameDisk {
			p.warn("%s lies on the same device as /: is the drive mounted there?", p.opts.Media)
		}
	}
	if p.opts.Destination == nil || p.recalled {
		return plan, nil
	}
	seen := map[string]bool{}
	for _, rel := range p.allReleases() {
		sources, err := p.sourcesOf(rel)
		if err != nil {
			return plan, err
		}
		obj, err := p.render(rel, sources)
		if err != nil {
			return plan, err
		}
		if !seen[string(obj.YAML)] {
			seen[string(obj.YAML)] = true
			plan.Objects = append(plan.Objects, obj)
		}
	}
	return plan, nil
}

// add counts one blob or manifest.
func (plan *Plan) add(desc ocispec.Descriptor, present bool) {
	if content.IsManifest(desc.MediaType) {
		plan.Manifests++
		return
	}
	count := func(c *Count, n int64) {
		c.Total += n
		if present {
			c.Present += n
		} else {
			c.Transfer += n
		}
	}
	count(&plan.Blobs, 1)
	count(&plan.Bytes, desc.Size)
}

// sourcesOf are the repositories of a release, planned now or sealed before.
func (p *packer) sourcesOf(rel store.Release) ([]string, error) {
	for _, pr := range p.releases {
		if pr.record.Tag == rel.Tag {
			return payloadSources(rel.Source, pr.payload), nil
		}
	}
	return p.base.Sources(rel.Tag)
}

// need is how many bytes the run will write, with what parity, the index, the lists of sums,
// copies of both, and the rounding up to clusters take.
func (p *packer) need(plan Plan) int64 {
	const cluster = 32 << 10
	n := 4<<20 + plan.Parity.Bytes + p.programs
	for _, it := range p.items {
		if it.state == stateAbsent {
			n += (it.desc.Size - it.begun + cluster - 1) / cluster * cluster
			n += 2 << 10
		}
	}
	return n
}

// keptTags are the tags that the seal covers and that this run leaves as they are.
func (p *packer) keptTags() []string {
	var out []string
	if p.base == nil {
		return nil
	}
	for _, img := range p.base.Images {
		if !untagged(img.Kind) && !p.replaced[img.Tag] {
			out = append(out, img.Tag)
		}
	}
	return out
}

// checkSpace compares the plan with the drive before the first byte is written.
func (p *packer) checkSpace(plan Plan) error {
	space, err := layout.StatSpace(p.opts.Media)
	if err != nil {
		return fmt.Errorf("%s: %w", p.opts.Media, err)
	}
	if space.ReadOnly {
		return fmt.Errorf("%s: %w", p.opts.Media, layout.ErrReadOnly)
	}
	names := 0
	for d, it := range p.items {
		if space.MaxFile > 0 && it.desc.Size > space.MaxFile {
			return fmt.Errorf("blob %s of %s has %s; %s on %s holds files of at most %d bytes: %w",
				d, someTags(it.tags), content.SizeText(it.desc.Size), space.Filesystem, p.opts.Media, space.MaxFile, layout.ErrTooLarge)
		}
		if it.state == stateAbsent {
			names++
		}
	}
	if p.have != nil {
		if blobs, err := p.have.Layout.Blobs(); err == nil {
			names += len(blobs)
		}
	}
	if space.MaxNames > 0 && names > space.MaxNames {
		return fmt.Errorf("%d blobs in one folder; %s on %s holds about %d names: %w",
			names, space.Filesystem, p.opts.Media, space.MaxNames, layout.ErrTooLarge)
	}
	if plan.Missing > 0 {
		return fmt.Errorf("%s: %s are needed (with parity, the index and rounding up to clusters) and %s are free: %w",
			p.opts.Media, content.SizeText(plan.Need), content.SizeText(space.Free), layout.ErrNoSpace)
	}
	return nil
}
