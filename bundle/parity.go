package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/parity"
	"pannier/store"
)

// PlannedParity is what a plan says of parity.
type PlannedParity struct {
	Share    parity.Share
	Blobs    int             // that get parity in this run
	Bytes    int64           // that it takes on the drive
	Strength parity.Strength // how much damage it heals
	Beyond   []LargerBlob    // larger than the parity: they cannot be healed if all of them is lost; the largest first
}

// LargerBlob is a blob that is larger than its parity.
type LargerBlob struct {
	Digest digest.Digest
	Size   int64
	Images []string // tags that need it, sorted
}

// cover is how the blobs of the next seal are covered by parity.
type cover struct {
	kept  map[string]digest.Digest // files of earlier generations that stay, as SHA256SUMS has them
	bare  []parity.Blob            // blobs that none of them covers, and that get parity now
	share parity.Share
}

// any reports whether the next seal has parity at all.
func (c *cover) any() bool { return len(c.kept)+len(c.bare) > 0 }

// willSeal lists the blobs that the next seal covers, with their sizes.
func (p *packer) willSeal() map[digest.Digest]int64 {
	out, gone := map[digest.Digest]int64{}, map[digest.Digest]bool{}
	for _, d := range p.orphans {
		gone[d] = true
	}
	for d, it := range p.items {
		out[d] = it.desc.Size
	}
	if p.base == nil {
		return out
	}
	for d, r := range p.base.Records {
		needed := slices.ContainsFunc(r.Images, func(t string) bool { return !p.replaced[t] })
		if p.index == nil && !needed {
			continue // for the plan; what nothing needs is known exactly once settle has looked
		}
		if _, planned := p.items[d]; !planned && !gone[d] {
			out[d] = r.Size
		}
	}
	return out
}

// planCover finds out which parity on the drive is of use still, and what is to be covered. A
// generation stays if every blob of it does: sealed parity is never changed, and it needs all
// of its blobs. Another is dropped, and what is left of its blobs is covered anew.
func (p *packer) planCover(ctx context.Context) (*cover, error) {
	c := &cover{kept: map[string]digest.Digest{}, share: p.opts.Parity}
	blobs := p.willSeal()
	if p.have != nil && p.have.Seal != nil {
		set, err := parity.Open(p.have.Layout)
		if err != nil {
			return nil, err
		}
		sums := p.have.sums()
		for _, g := range set.Generations {
			ok, err := p.keeps(ctx, set, g, sums, blobs)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			for _, name := range g.Files() {
				c.kept[name] = sums[name]
			}
			for _, b := range g.Blobs {
				delete(blobs, b.Digest)
			}
		}
	}
	if c.share > 0 {
		for _, d := range slices.Sorted(maps.Keys(blobs)) {
			c.bare = append(c.bare, parity.Blob{Digest: d, Size: blobs[d]})
		}
	}
	return c, nil
}

// keeps reports whether a generation of parity on the drive is whole, as far as a look tells,
// and covers nothing but blobs.
func (p *packer) keeps(ctx context.Context, set *parity.Set, g *parity.Generation, sums map[string]digest.Digest, blobs map[digest.Digest]int64) (bool, error) {
	if slices.ContainsFunc(set.Problems, func(q parity.Problem) bool { return path.Dir(q.Path) == parity.Dir(g.Number) }) || !g.SizesRight() {
		return false, nil
	}
	for _, b := range g.Blobs {
		if size, ok := blobs[b.Digest]; !ok || size != b.Size {
			return false, nil
		}
	}
	for _, name := range g.Files() {
		want, ok := sums[name]
		if !ok {
			return false, nil
		}
		if parity.IsMap(name) || p.opts.Verify {
			if got, err := p.have.hashFile(ctx, name); err != nil || got != want {
				return false, ctx.Err()
			}
		}
	}
	return true, nil
}

// hashFile returns the digest of a file that is no blob.
func (b *Bundle) hashFile(ctx context.Context, name string) (digest.Digest, error) {
	f, err := b.Layout.OpenFile(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := digest.SHA256.Digester()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		h.Hash().Write(buf[:n])
		if err == io.EOF {
			return h.Digest(), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// parityShare is the share of the newest parity on the drive, 0 if there is none: what is sealed
// anew keeps what it had.
func (b *Bundle) parityShare() parity.Share {
	set, err := parity.Open(b.Layout)
	if err != nil || len(set.Generations) == 0 {
		return 0
	}
	return min(set.Generations[0].Share, parity.MaxShare)
}

// plan says what the parity of this run takes and cannot heal.
func (c *cover) plan(p *packer) PlannedParity {
	out := PlannedParity{Share: c.share, Blobs: len(c.bare), Bytes: parity.Size(c.share, c.bare), Strength: parity.Plan(c.share, c.bare)}
	for _, b := range parity.Beyond(c.share, c.bare) {
		l := LargerBlob{Digest: b.Digest, Size: b.Size}
		if it := p.items[b.Digest]; it != nil {
			l.Images = slices.Sorted(maps.Keys(it.tags))
		} else {
			l.Images = slices.Sorted(slices.Values(p.base.Records[b.Digest].Images))
		}
		out.Beyond = append(out.Beyond, l)
	}
	return out
}

// writeParity reads the blobs of c.bare back and writes their parity as generation g.
func (p *packer) writeParity(ctx context.Context, c *cover, g uint64, bundle digest.Digest, progress func(int64)) (map[string]digest.Digest, error) {
	if err := p.layout.RemoveFolder(parity.Dir(g)); err != nil { // of a run that was interrupted
		return nil, err
	}
	if len(c.bare) == 0 {
		return nil, nil
	}
	for i, b := range c.bare {
		sums, err := p.index.Slices(b.Digest)
		if errors.Is(err, store.ErrNotFound) { // of an index that was made again
			sums, err = p.layout.Verify(ctx, b.Descriptor(), nil)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: slice sums: %w", b.Digest, err)
		}
		c.bare[i].Sums = sums
	}
	files, err := parity.Write(ctx, parity.WriteOptions{
		Layout: p.layout, Generation: g, Share: c.share, Bundle: bundle, Blobs: c.bare, Jobs: p.opts.Jobs, Progress: progress,
	})
	if errors.Is(err, content.ErrDigest) || errors.Is(err, content.ErrSize) {
		err = fmt.Errorf("%w (if it was sealed before, pack with --verify fetches it again)", err)
	}
	return files, err
}

// sweepParity removes the parity, and the copies of small files, that keep does not want.
// What has another name than parity has is left alone.
func (p *packer) sweepParity(keep func(dir string) bool) error {
	entries, err := p.layout.List(parity.Folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Err != nil {
			return e.Err
		}
		name := parity.Folder + "/" + e.Name
		num := strings.TrimPrefix(e.Name, copiesPrefix)
		if _, err := strconv.ParseUint(num, 10, 31); err != nil || !e.Mode.IsDir() || keep(name) {
			continue
		}
		if err := p.layout.RemoveFolder(name); err != nil {
			return err
		}
	}
	return nil
}

// sweepUnsealed removes the parity that an interrupted run has left, and that takes room: what
// the seal does not name. Without knowing what it names everything stays.
func (p *packer) sweepUnsealed() error {
	named := map[string]bool{}
	if p.have != nil && p.have.Seal != nil {
		sums := p.have.sums()
		if sums == nil {
			return nil
		}
		for name := range sums {
			named[path.Dir(name)] = true
		}
		named[copiesDir(p.have.Seal.Generation)] = true
	}
	return p.sweepParity(func(dir string) bool { return named[dir] })
}

const copiesPrefix = "copies-"

func copiesDir(g uint64) string {
	return parity.Folder + "/" + copiesPrefix + strconv.FormatUint(g, 10)
}

// CopyName returns where a sealed bundle with parity keeps a copy of the small file name:
// pannier/parity/copies-<g>/ and its own path (docs/format.md, "Copies of small files").
func CopyName(g uint64, name string) string { return copiesDir(g) + "/" + name }

// Copied reports whether name is one of the small files that have a copy: all but index.json,
// whose copy is layout-<g>.json, that one, and the parity itself.
func Copied(g uint64, name string) bool {
	switch name {
	case ocispec.ImageLayoutFile, fileStart, fileSums, indexName(g), sealName(g):
		return true
	}
	return strings.HasPrefix(name, dirObjects+"/") && strings.HasSuffix(name, ".yaml")
}

// writeCopies copies the small files that stand by now, if there is parity at all, and returns
// the copies.
func (p *packer) writeCopies(g uint64) (map[string]SealedFile, error) {
	out := map[string]SealedFile{}
	if !p.cover.any() {
		return out, nil
	}
	if err := p.layout.RemoveFolder(copiesDir(g)); err != nil {
		return nil, err
	}
	names, err := p.smallFiles(g)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !Copied(g, name) {
			continue
		}
		var f SealedFile
		err := p.layout.WriteStream(CopyName(g, name), func(w io.Writer) (err error) {
			f, err = copyFile(p.layout.OpenFile, name, maxIndexDB, w)
			return err
		})
		if err != nil {
			return nil, err
		}
		out[CopyName(g, name)] = f
	}
	return out, nil
}
