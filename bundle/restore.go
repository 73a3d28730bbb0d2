package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/parity"
	"pannier/store"
)

// restoreFiles puts the small files back that are not what was sealed, byte for byte, as far
// as their bytes can be had: from their copies, or made again. A file that a later pack has
// begun to replace is left to that pack, unless its leftovers are dropped.
func (r *Repair) restoreFiles(ctx context.Context, b *Bundle, walked *Contents) error {
	if b.Seal == nil {
		return nil
	}
	f := &files{b: b, walked: walked, from: r.opts.From}
	if !b.Interrupted || r.opts.Drop {
		f.sums()
	}
	for _, name := range f.sealed() {
		if b.Interrupted && !r.opts.Drop && name != layoutName(b.Seal.Generation) && name != indexName(b.Seal.Generation) {
			continue
		}
		want := f.want[name]
		if ofParity(name) || f.right(name, want) || b.Blocked(name) {
			continue
		}
		data, ok := f.bytes(name, want)
		if name == indexName(b.Seal.Generation) && !ok {
			var err error
			if data, ok, err = r.sameIndex(ctx, b, walked, want); err != nil {
				return err
			}
		}
		if !ok {
			continue
		}
		if err := r.put(name, data); err != nil {
			return err
		}
	}
	if err := r.copyBack(b); err != nil {
		return err
	}
	if err := r.restorePrograms(ctx, b, walked); err != nil {
		return err
	}
	return r.parityFiles(ctx, f.want)
}

// ofParity reports whether a file is parity itself, not a copy of a small file.
func ofParity(name string) bool {
	base, ok := strings.CutPrefix(name, parity.Folder+"/")
	return ok && !strings.HasPrefix(base, copiesPrefix)
}

// copyBack makes the copies of the seal and of SHA256SUMS anew, which nothing but the originals
// vouches for, on a drive that has copies.
func (r *Repair) copyBack(b *Bundle) error {
	g := b.Seal.Generation
	if _, copied := b.sums()[CopyName(g, indexName(g))]; !copied {
		return nil
	}
	for _, name := range []string{fileSums, sealName(g)} {
		raw, err := r.l.ReadFile(name, maxIndexDB)
		if err != nil || name == fileSums && b.Seal.Files[fileSums].Check(raw) != nil || b.Blocked(CopyName(g, name)) {
			continue
		}
		if err := r.clear(CopyName(g, name)); err != nil {
			return err
		}
		if err := r.l.ReplaceFile(CopyName(g, name), raw); err != nil {
			return err
		}
	}
	return nil
}

// sealCopy finds the copy of a seal that stands nowhere else any more, of a generation above
// the seal that counts. The copy is written once all is on the drive and has been read back: it
// is as good as the seal.
func (b *Bundle) sealCopy() (g uint64, raw []byte, ok bool) {
	entries, err := b.Layout.List(parity.Folder)
	if err != nil {
		return 0, nil, false
	}
	for _, e := range entries {
		num, found := strings.CutPrefix(e.Name, copiesPrefix)
		n, err := strconv.ParseUint(num, 10, 31)
		if !found || err != nil || n <= g || b.Seal != nil && n <= b.Seal.Generation {
			continue
		}
		data, err := b.Layout.ReadFile(CopyName(n, sealName(n)), maxSeal)
		if err != nil {
			continue
		}
		if s, err := ParseSeal(data); err == nil && s.Generation == n && b.hasLayoutIndex(s) {
			g, raw, ok = n, data, true
		}
	}
	return g, raw, ok
}

// put writes a small file in the place of a wrong one.
func (r *Repair) put(name string, data []byte) error {
	if err := r.clear(name); err != nil {
		return err
	}
	if _, _, ok := Generation(name); !ok {
		return r.l.ReplaceFile(name, data)
	}
	// Written in place, as ever: what is wrong there is of no use to anybody.
	if err := r.l.RemoveFile(name); err != nil {
		return err
	}
	return r.l.WriteFile(name, data)
}

// files knows which small files a seal covers, and where else their bytes can be had. It only
// reads.
type files struct {
	b      *Bundle
	walked *Contents
	from   []RepairSource
	want   map[string]digest.Digest // of each file of ours that is sealed; set by sums
}

// sealed lists the files of ours whose digests are known, those first that others are found by.
func (f *files) sealed() []string {
	if f.want == nil {
		f.want = map[string]digest.Digest{}
		for name, s := range f.b.Seal.Files {
			if f.ours(name) {
				f.want[name] = s.Digest
			}
		}
	}
	names := slices.Sorted(maps.Keys(f.want))
	slices.SortStableFunc(names, func(a, b string) int {
		rank := func(n string) int {
			if _, ok := f.b.Seal.Files[n]; ok {
				return 0
			}
			return 1
		}
		return rank(a) - rank(b)
	})
	return names
}

// ours reports whether name is one of the sealed bundle's small files: no other is written,
// whatever a drive says.
func (f *files) ours(name string) bool {
	g := f.b.Seal.Generation
	switch name {
	case ocispec.ImageLayoutFile, fileIndexJSON, fileStart, fileSums, layoutName(g), indexName(g):
		return true
	}
	if strings.HasPrefix(name, parity.Folder+"/") && fs.ValidPath(name) {
		return true
	}
	base, ok := strings.CutPrefix(name, dirObjects+"/")
	return ok && !strings.Contains(base, "/") && strings.HasSuffix(base, ".yaml") && fs.ValidPath(name)
}

// sums finds out the digests of all small files: SHA256SUMS has them, if it can be had.
func (f *files) sums() {
	f.sealed()
	want := f.want[fileSums]
	raw, err := f.b.Layout.ReadFile(fileSums, f.b.Seal.Files[fileSums].Size)
	if err != nil || digest.FromBytes(raw) != want {
		var ok bool
		if raw, ok = f.bytes(fileSums, want); !ok {
			return
		}
	}
	for line := range strings.Lines(string(raw)) {
		hexes, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if d := digest.NewDigestFromEncoded(digest.SHA256, hexes); content.CheckDigest(d) == nil && f.ours(name) {
			f.want[name] = d
		}
	}
}

func (f *files) right(name string, want digest.Digest) bool {
	raw, err := f.b.Layout.ReadFile(name, maxIndexDB)
	return err == nil && digest.FromBytes(raw) == want
}

// bytes returns the bytes of name that have the digest want, from wherever they can be had.
func (f *files) bytes(name string, want digest.Digest) ([]byte, bool) {
	for _, get := range []func() ([]byte, bool){
		func() ([]byte, bool) { return f.copied(name) },
		func() ([]byte, bool) { return f.again(name) },
		func() ([]byte, bool) { return f.sumsAgain(name, want) },
	} {
		if data, ok := get(); ok && digest.FromBytes(data) == want {
			return data, true
		}
	}
	for _, src := range f.from {
		if src.Files == nil {
			continue
		}
		if data, err := src.Files.ReadFile(name, maxIndexDB); err == nil && digest.FromBytes(data) == want {
			return data, true
		}
	}
	return nil, false
}

// copied reads the copy that the drive itself has of name.
func (f *files) copied(name string) ([]byte, bool) {
	g := f.b.Seal.Generation
	original, isCopy := strings.CutPrefix(name, copiesDir(g)+"/")
	other := original
	switch {
	case isCopy:
	case name == fileIndexJSON:
		other = layoutName(g)
	case name == layoutName(g):
		other = fileIndexJSON
	case Copied(g, name):
		other = CopyName(g, name)
	default:
		return nil, false
	}
	data, err := f.b.Layout.ReadFile(other, maxIndexDB)
	return data, err == nil
}

// again makes name from what else is on the drive, as pack does. A destination that not all
// releases were packed for is nowhere else: START-HERE.txt can come out another.
func (f *files) again(name string) ([]byte, bool) {
	switch name {
	case ocispec.ImageLayoutFile:
		return []byte(layoutMarker), true
	case fileStart:
		return []byte(startHere(ID(f.b.Index), f.b.Index, f.walked.Releases, f.walked.Destination(), toolsIn(f.want))), true
	}
	data, ok := f.objects()[name]
	return data, ok
}

// objects are the readable copies of what was captured, by path.
func (f *files) objects() map[string][]byte {
	p := &packer{base: f.walked}
	out := map[string][]byte{}
	for _, rel := range f.walked.Releases {
		objs, err := p.readable(rel)
		if err != nil {
			continue
		}
		for _, o := range objs {
			out[objectName(rel, o)] = o.YAML
		}
	}
	return out
}

// sumsAgain makes SHA256SUMS from the blobs that the layout names and the small files as they
// are, or as they would be made again.
func (f *files) sumsAgain(name string, want digest.Digest) ([]byte, bool) {
	if name != fileSums {
		return nil, false
	}
	sums := map[string]digest.Digest{}
	for d := range f.b.Expected(f.walked) {
		sums[layout.BlobPath(d)] = d
	}
	g := f.b.Seal.Generation
	for _, n := range []string{fileIndexJSON, layoutName(g), indexName(g)} {
		sums[n] = f.b.Seal.Files[n].Digest
	}
	others := append(slices.Sorted(maps.Keys(f.objects())), ocispec.ImageLayoutFile, fileStart)
	// Each of these may be damaged as well, and then made again.
	for damaged := -1; damaged <= len(others); damaged++ {
		for i, n := range others {
			raw, err := f.b.Layout.ReadFile(n, maxIndexDB)
			if err != nil || i == damaged || damaged == len(others) {
				raw, _ = f.again(n)
			}
			sums[n] = digest.FromBytes(raw)
		}
		if text := encodeSums(sums); digest.FromBytes(text) == want {
			return text, true
		}
	}
	return nil, false
}

// SumsAgain makes SHA256SUMS, which is damaged or missing, from what else is on the drive: byte
// for byte as it was sealed, or not at all. walked may be nil.
func (b *Bundle) SumsAgain(walked *Contents) ([]byte, bool) {
	if b.Seal == nil || walked == nil {
		return nil, false
	}
	f := &files{b: b, walked: walked}
	f.sealed()
	return f.bytes(fileSums, f.want[fileSums])
}

// Restorable reports whether the small file name, which is damaged or missing, can be put back
// byte for byte from what else is on the drive.
func (b *Bundle) Restorable(ctx context.Context, name string, walked *Contents) bool {
	if b.Seal == nil || walked == nil || b.Blocked(name) {
		return false
	}
	f := &files{b: b, walked: walked}
	f.sums()
	want, ok := f.want[name]
	if !ok || ctx.Err() != nil {
		return false
	}
	_, ok = f.bytes(name, want)
	return ok
}

// sameIndex makes the manifest index again from the layout, and reports whether it came out
// byte for byte as it was sealed: it depends on its entries alone, and all but the verdicts
// at pack time follow from the layout on a drive that was packed in one go.
func (r *Repair) sameIndex(ctx context.Context, b *Bundle, walked *Contents, want digest.Digest) ([]byte, bool, error) {
	if len(walked.Broken()) > 0 {
		return nil, false, nil
	}
	var sums map[digest.Digest]content.Slices
	for _, verdict := range []string{SignatureVerified, SignatureUnverified, SignatureMissing} {
		p := r.packer(b, walked)
		for i := range walked.Releases {
			walked.Releases[i].Signature = verdict
		}
		if err := p.newIndex(b.Seal); err != nil {
			if errors.Is(err, content.ErrInvalid) {
				return nil, false, nil // a layout that pack did not write
			}
			return nil, false, err
		}
		data, err := func() ([]byte, error) {
			defer os.RemoveAll(p.work)
			defer p.index.Close()
			if sums == nil {
				var err error
				if sums, err = r.sliceSums(ctx, walked.Records); err != nil {
					return nil, err
				}
			}
			if err := errors.Join(complete(p.index, sums), p.index.SetMeta(store.MetaInstance, b.Seal.Instance),
				p.index.SetMeta(store.MetaGeneration, fmt.Sprint(b.Seal.Generation))); err != nil {
				return nil, err
			}
			var buf bytes.Buffer
			_, err := p.index.WriteTo(&buf)
			return buf.Bytes(), err
		}()
		for i := range walked.Releases {
			walked.Releases[i].Signature = ""
		}
		if err != nil && !errors.Is(err, content.ErrInvalid) && !errors.Is(err, content.ErrDigest) && !errors.Is(err, content.ErrSize) {
			return nil, false, err
		}
		if err == nil && digest.FromBytes(data) == want {
			return data, true, nil
		}
		if err != nil || len(walked.Releases) == 0 {
			break
		}
	}
	return nil, false, nil
}

// sliceSums hashes every blob and returns the sums of its slices.
func (r *Repair) sliceSums(ctx context.Context, records map[digest.Digest]store.Record) (map[digest.Digest]content.Slices, error) {
	out := make(map[digest.Digest]content.Slices, len(records))
	ev := Event{Phase: PhaseAudit, TotalBlobs: len(records)}
	for _, rec := range records {
		ev.Total += rec.Size
	}
	for _, d := range slices.Sorted(maps.Keys(records)) {
		sums, err := r.l.Verify(ctx, ocispec.Descriptor{Digest: d, Size: records[d].Size}, func(n int64) {
			ev.Done += n
			r.opts.Progress(ev)
		})
		if err != nil {
			return nil, err
		}
		out[d] = sums
		ev.Blobs++
	}
	return out, nil
}

// complete records blobs with their slice sums; records that x has keep what they say.
func complete(x *store.Index, sums map[digest.Digest]content.Slices) error {
	var done []store.Completed
	for _, d := range slices.Sorted(maps.Keys(sums)) {
		rec, err := x.Record(d)
		if err != nil {
			return err
		}
		done = append(done, store.Completed{Record: rec, Slices: sums[d]})
	}
	return x.Complete(done...)
}
