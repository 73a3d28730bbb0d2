package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
)

// packer is one run of Pack.
type packer struct {
	opts PackOptions
	log  *slog.Logger
	have *Bundle // what stands on the drive; nil if nothing does

	// base is what the drive's layout index names and this run leaves as it is, or nil. Its
	// blobs are trusted, by record and size, only if a valid seal covers them.
	base    *Contents
	trusted bool
	kept    map[string]bool // tags of base that were asked for and need nothing

	mu       sync.Mutex // guards what follows while the plan is made
	repos    map[string]*remote.Repository
	items    map[digest.Digest]*item
	images   map[string]store.Image // planned in this run, by tag
	releases []*plannedRelease
	replaced map[string]bool // tags on the drive that this run plans anew
	warnings []string

	layout   *layout.Layout
	index    *store.Index
	work     string // folder of the index's working copy
	instance string
	written  uint64 // newest generation of any of our files on the drive
	orphans  []digest.Digest
}

// item is a blob that the plan wants.
type item struct {
	desc  ocispec.Descriptor
	data  []byte // manifests and documents, at hand since the plan was made
	repos []*remote.Repository
	tags  map[string]bool

	state itemState
}

type itemState int

const (
	stateAbsent itemState = iota // must be fetched
	stateThere                   // a file of the right size, not covered by a seal: must be hashed
	stateSealed                  // covered by the seal, right size: trusted
)

// plannedRelease is a release that this run captures.
type plannedRelease struct {
	record  store.Release
	payload *release.Payload
	verdict SignatureVerdict
	docs    []document
	asked   []string // stores and what they answered
}

func newPacker(opts PackOptions) (*packer, error) {
	if opts.Jobs <= 0 {
		opts.Jobs = 4
	}
	if opts.Stores == nil {
		opts.Stores = remote.DefaultSignatureStores
	}
	if opts.Progress == nil {
		opts.Progress = func(Event) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &packer{
		opts: opts, log: opts.Logger, repos: map[string]*remote.Repository{},
		items: map[digest.Digest]*item{}, images: map[string]store.Image{}, replaced: map[string]bool{}, kept: map[string]bool{},
	}, nil
}

// open looks at what stands at Media. A folder that is not there yet, an empty one, and one
// in which creation was interrupted are all a bundle that has not begun.
func (p *packer) open(ctx context.Context) error {
	media := p.opts.Media
	fi, err := os.Stat(media)
	if errors.Is(err, fs.ErrNotExist) {
		parent, perr := os.Stat(filepath.Dir(filepath.Clean(media)))
		if perr != nil || !parent.IsDir() {
			return fmt.Errorf("%s: %w: the folder above it does not exist; is the drive mounted?", media, ErrNotBundle)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if fi.IsDir() {
		begun, err := notBegun(media)
		if err != nil {
			return err
		}
		if begun {
			return nil
		}
	}
	p.have, err = Open(ctx, media, OpenOptions{Cache: p.opts.Cache, Logger: p.log})
	if err != nil {
		return err
	}
	if p.have.IndexProblem != nil && p.have.Index != nil {
		p.warn("the index on the drive cannot be used (%v); it is made again from the layout", p.have.IndexProblem)
	}
	return p.takeBase(ctx)
}

// takeBase finds out what the drive holds beside what is asked for. index.json without a
// valid seal is of a pack that was interrupted at its very end, or the seal was lost: what it
// names is kept, but every byte of it is hashed again.
func (p *packer) takeBase(ctx context.Context) error {
	if p.have.Seal != nil {
		p.base, p.trusted = p.have.Contents, true
		return nil
	}
	if p.have.Index == nil {
		return nil
	}
	base, err := ContentsFromLayout(ctx, p.have.Layout, p.have.Index)
	if err != nil {
		return err
	}
	if b := base.Broken(); len(b) > 0 {
		p.warn("there is no valid seal, and %s of %s cannot be read (%v): what the drive held is packed only as far as it is asked for now", b[0].Descriptor.Digest, b[0].Image, b[0].Err)
		return nil
	}
	for i, rel := range base.Releases {
		base.Releases[i].Signature = SignatureUnverified
		if known, ok := p.have.Contents.Release(rel.Tag); ok && known.Signature != "" {
			base.Releases[i].Signature = known.Signature
		}
	}
	p.base = base
	return nil
}

// distrust plans to hash, and if need be to fetch again, what no valid seal covers.
func (p *packer) distrust() error {
	if p.base == nil || p.trusted {
		return nil
	}
	for d, r := range p.base.Records {
		desc := ocispec.Descriptor{MediaType: r.MediaType, Digest: d, Size: r.Size}
		var repo *remote.Repository
		if r.Source != "" {
			var err error
			if repo, err = p.repository(r.Source); err != nil {
				return err
			}
		}
		for _, tag := range r.Images {
			if p.replaced[tag] {
				continue
			}
			if err := p.want(desc, nil, repo, tag); err != nil {
				return err
			}
		}
	}
	return nil
}

// notBegun reports whether nothing but what operating systems leave, or the first folders of
// an interrupted creation, stands in dir.
func notBegun(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if SystemFile(e.Name()) {
			continue
		}
		if e.Name() != dirOwn && e.Name() != "blobs" || !e.IsDir() {
			return false, nil
		}
	}
	if _, err := os.Stat(filepath.Join(dir, dirOwn)); err != nil {
		if _, err := os.Stat(filepath.Join(dir, "blobs")); err == nil {
			return false, nil // somebody else's blobs
		}
	}
	return true, nil
}

// SystemFile reports whether a name at the top of a drive is one that operating systems leave
// there by themselves (docs/format.md, "Files that are not ours").
func SystemFile(name string) bool {
	switch name {
	case "System Volume Information", "$RECYCLE.BIN", ".fseventsd", ".DS_Store", "lost+found", ".Spotlight-V100", ".Trashes", ".TemporaryItems":
		return true
	}
	return strings.HasPrefix(name, ".Trash-") || strings.HasPrefix(name, "._")
}

// repository returns the one client of a repository, which has its credentials.
func (p *packer) repository(name string) (*remote.Repository, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r, ok := p.repos[name]; ok {
		return r, nil
	}
	r, err := p.opts.Client.Repository(name)
	if err == nil {
		p.repos[name] = r
	}
	return r, err
}

func (p *packer) warn(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

// sealed returns the record of a blob that the drive's seal covers.
func (p *packer) sealed(d digest.Digest) (store.Record, bool) {
	if !p.trusted {
		return store.Record{}, false
	}
	r, ok := p.base.Records[d]
	return r, ok
}

// baseTag returns the digest that a tag has on the drive.
func (p *packer) baseTag(tag string) (digest.Digest, bool) {
	if p.base == nil {
		return "", false
	}
	for _, img := range p.base.Images {
		if img.Tag == tag {
			return img.Descriptor.Digest, true
		}
	}
	return "", false
}

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
	for d, it := range p.items {
		size, err := p.have.Layout.Stat(d)
		if errors.Is(err, fs.ErrNotExist) {
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
	plan := Plan{Free: -1}
	for _, it := range p.items {
		plan.add(it.desc, it.state != stateAbsent)
	}
	if p.base != nil {
		for d, r := range p.base.Records {
			if p.items[d] == nil && slices.ContainsFunc(r.Images, func(t string) bool { return p.kept[t] }) {
				plan.add(ocispec.Descriptor{MediaType: r.MediaType, Size: r.Size}, true)
			}
		}
	}
	tags := map[string]bool{}
	for tag, img := range p.images {
		if img.Kind != store.KindDocuments {
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
	if space, err := layout.StatSpace(p.opts.Media); err == nil {
		plan.Free, plan.Filesystem = space.Free, space.Filesystem
		plan.Missing = max(0, p.need()-space.Free)
	}
	if p.opts.Destination == nil {
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

// need is how many bytes the run will write, with what the index, the lists of sums and the
// rounding up to clusters take.
func (p *packer) need() int64 {
	const cluster = 32 << 10
	var n int64 = 4 << 20
	for _, it := range p.items {
		if it.state == stateAbsent {
			n += (it.desc.Size + cluster - 1) / cluster * cluster
			n += 1 << 10
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
		if img.Kind != store.KindDocuments && !p.replaced[img.Tag] {
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
			return fmt.Errorf("blob %s of %s has %d bytes; %s on %s holds files of at most %d: %w",
				d, strings.Join(slices.Sorted(maps.Keys(it.tags)), ", "), it.desc.Size, space.Filesystem, p.opts.Media, space.MaxFile, layout.ErrTooLarge)
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
		return fmt.Errorf("%s: %d bytes are needed and %d are free, %d too few: %w",
			p.opts.Media, p.need(), space.Free, plan.Missing, layout.ErrNoSpace)
	}
	if space.SameDeviceAsRoot {
		p.warn("%s lies on the same device as /: is the drive mounted there?", p.opts.Media)
	}
	return nil
}
