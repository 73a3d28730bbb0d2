package verify

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/parity"
	"pannier/verify/custody"
)

const (
	sumsName = "SHA256SUMS"
	maxSums  = 1 << 30 // bytes of a file named by the seal that are read
	maxDepth = 8       // folders within folders that are looked into
)

// files checks the files that are no blobs against SHA256SUMS, which the seal vouches for,
// and reports those that do not belong.
func (a *audit) files(ctx context.Context) error {
	sums := a.sums()
	found := map[string]bool{}
	if err := a.list(ctx, ".", 0, func(name string, mode fs.FileMode) { a.file(ctx, name, mode, sums, found) }); err != nil {
		return err
	}
	a.copies(sums)
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		if !found[name] && !a.reported(name) && !a.indexTold(name) && !strings.HasPrefix(name, "blobs/") {
			a.find(Finding{Kind: KindMissing, Path: name, Detail: "the seal covers it and it is not there"})
		}
	}
	a.tools(sums)
	if n := a.report.Uncompared; n > 0 {
		a.note("neither SHA256SUMS nor its copy is as it was sealed: nothing says how the other files should be, and %s could not be compared", content.Plural(n, "file", "files"))
	}
	return a.clients(ctx, sums)
}

// tools judges the programs on the drive, for which nobody vouches but whoever packed it.
func (a *audit) tools(sums map[string]digest.Digest) {
	n, wrong := bundle.CheckTools(sums)
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		if !a.reported(name) {
			a.find(Finding{Kind: KindCorrupt, Path: name, Detail: wrong[name].Error()})
		}
	}
	changed, gone := 0, 0
	for _, f := range a.report.Findings {
		switch {
		case f.Tool() && f.Kind == KindMissing:
			gone++
		case f.Tool():
			changed++
		}
	}
	platforms := content.Plural(n, "platform", "platforms")
	switch {
	case n == 0:
	case changed > 0:
		a.note("pannier itself is on the drive, for %s, and NOT as it was sealed%s: do not run it", platforms, ofThem(changed, n))
	case gone > 0:
		a.note("pannier itself was sealed onto the drive, for %s, and is not there any more%s", platforms, ofThem(gone, n))
	default:
		a.note("pannier itself is on the drive, for %s, as it was sealed; that it is genuine nobody on the drive can say: compare its SHA-256 with what the sender says another way", platforms)
	}
}

// ofThem says for how many of n something holds, if not for all.
func ofThem(some, n int) string {
	if some == n {
		return ""
	}
	return fmt.Sprintf(" for %d of them", some)
}

// clients compares the clients on the drive with those in the signed releases.
func (a *audit) clients(ctx context.Context, sums map[string]digest.Digest) error {
	const folder = "pannier/clients/"
	strays := map[string]digest.Digest{}
	for name, d := range sums {
		if strings.HasPrefix(name, folder) {
			strays[name] = d
		}
	}
	for _, rel := range a.b.Contents.Releases {
		own := len(strays)
		maps.DeleteFunc(strays, func(name string, _ digest.Digest) bool { return strings.HasPrefix(name, folder+rel.Tag+"/") })
		if own == len(strays) {
			continue
		}
		wrong, err := a.b.Contents.CheckClients(ctx, a.l, rel.Tag, sums)
		if err != nil {
			return err
		}
		maps.Copy(a.unlike, wrong)
		for _, name := range slices.Sorted(maps.Keys(wrong)) {
			if !a.reported(name) {
				a.find(Finding{Kind: KindCorrupt, Path: name, Images: []string{rel.Tag}, Detail: wrong[name].Error()})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(strays)) {
		if !a.reported(name) {
			a.find(Finding{Kind: KindCorrupt, Path: name, Detail: "it is no client of a release on the drive"})
		}
	}
	return ctx.Err()
}

// sums reads SHA256SUMS, or where that is damaged its copy: damage to the list must not hide
// damage to what it lists; without a copy it may be made again as it was. It returns nil if there is no seal to vouch for it, or if neither is
// what the seal says.
func (a *audit) sums() map[string]digest.Digest {
	if a.b.Seal == nil {
		return nil
	}
	for name, f := range a.b.Seal.Files {
		if a.indexTold(name) {
			continue // reported as what it is, a bad index
		}
		raw, err := a.l.ReadFile(name, min(f.Size, maxSums))
		if err == nil {
			err = f.Check(raw)
		}
		switch {
		case err == nil:
		case a.b.Interrupted && name != a.b.IndexPath():
			a.find(Finding{Kind: KindPartial, Path: name, Detail: "a pack that has not finished has begun to replace it"})
		case errors.Is(err, fs.ErrNotExist):
			a.find(Finding{Kind: KindMissing, Path: name, Detail: "the seal names it and it is not there"})
		default:
			a.find(Finding{Kind: KindCorrupt, Path: name, Detail: err.Error()})
		}
	}
	sealed := a.b.Seal.Files[sumsName]
	names := []string{sumsName, bundle.CopyName(a.b.Seal.Generation, sumsName)}
	if a.b.Interrupted { // the list in the root may be the next one, and so may be what it is about
		names = names[:1]
	}
	for _, name := range names {
		raw, err := a.l.ReadFile(name, min(sealed.Size, maxSums))
		if err != nil || sealed.Check(raw) != nil {
			continue
		}
		return a.parseSealed(name, raw)
	}
	if raw, ok := a.b.SumsAgain(a.walked); ok && !a.b.Interrupted {
		return a.parseSealed(sumsName, raw)
	}
	return nil
}

func (a *audit) parseSealed(name string, raw []byte) map[string]digest.Digest {
	sums, err := parseSums(raw)
	if err != nil {
		a.find(Finding{Kind: KindCorrupt, Path: name, Detail: err.Error()})
		return nil
	}
	return sums
}

// parseSums reads lines as sha256sum writes them.
func parseSums(raw []byte) (map[string]digest.Digest, error) {
	sums := map[string]digest.Digest{}
	sc := bufio.NewScanner(bytes.NewReader(raw))
	for sc.Scan() {
		hexes, name, ok := strings.Cut(sc.Text(), "  ")
		d := digest.NewDigestFromEncoded(digest.SHA256, hexes)
		if !ok || content.CheckDigest(d) != nil || name == "" {
			return nil, fmt.Errorf("line %d is no sum and name", len(sums)+1)
		}
		sums[name] = d
	}
	return sums, sc.Err()
}

// list calls fn for every file on the drive but the blobs and partial downloads, which have
// been looked at. Folders that operating systems make are noted and left alone.
func (a *audit) list(ctx context.Context, dir string, depth int, fn func(string, fs.FileMode)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := a.l.List(dir)
	if err != nil {
		a.find(Finding{Kind: KindCorrupt, Path: dir, Detail: err.Error()})
		return nil
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name)
		switch {
		case e.Err != nil:
			a.find(Finding{Kind: KindCorrupt, Path: name, Detail: e.Err.Error()})
		case a.dropping(name):
		case name == "blobs/sha256" || name == "pannier/partial":
		case e.Mode.IsDir() && !ours(name):
			a.foreign(name + "/")
		case e.Mode.IsDir() && depth < maxDepth:
			if err := a.list(ctx, name, depth+1, fn); err != nil {
				return err
			}
		default:
			fn(name, e.Mode)
		}
	}
	return nil
}

// dropping reports whether name is one that operating systems leave on drives, and notes it.
func (a *audit) dropping(name string) bool {
	if !bundle.SystemFile(path.Base(name)) {
		return false
	}
	a.note("%s was left there by an operating system", name)
	return true
}

// ours reports whether a folder is one of the format's.
func ours(dir string) bool {
	switch dir {
	case "blobs", "pannier", "pannier/objects", "pannier/parity", "pannier/bin", "pannier/clients", custody.Folder:
		return true
	}
	return strings.HasPrefix(dir, "pannier/parity/") || inPrograms(dir)
}

// inPrograms reports whether a path is where clients and tools lie.
func inPrograms(name string) bool {
	return strings.HasPrefix(name, "pannier/clients/") || strings.HasPrefix(name, "pannier/bin/")
}

// foreign reports a file or folder that the format does not know: a finding where only ours
// may stand, a note elsewhere.
func (a *audit) foreign(name string) {
	if strings.HasPrefix(name, "blobs/") || strings.HasPrefix(name, "pannier/") {
		a.find(Finding{Kind: KindExtra, Path: strings.TrimSuffix(name, "/"), Detail: "it does not belong to the bundle"})
		return
	}
	a.note("%s does not belong to the bundle", name)
}

// file judges one file that is no blob.
func (a *audit) file(ctx context.Context, name string, mode fs.FileMode, sums map[string]digest.Digest, found map[string]bool) {
	if want, ok := sums[name]; ok {
		found[name] = true
		if a.reported(name) || a.indexTold(name) {
			return
		}
		got, err := a.hash(ctx, name)
		switch {
		case err != nil:
			a.find(Finding{Kind: KindCorrupt, Path: name, Detail: err.Error()})
		case got == want:
		case a.b.Interrupted:
			a.find(Finding{Kind: KindPartial, Path: name, Detail: "a pack that has not finished has begun to replace it"})
		default:
			a.find(Finding{Kind: KindCorrupt, Path: name, Detail: fmt.Sprintf("its bytes are not those that were sealed (%s)", want)})
		}
		return
	}
	if !mode.IsRegular() {
		a.find(Finding{Kind: KindExtra, Path: name, Detail: "it is a link or a special file"})
		return
	}
	if sums == nil && a.compares(name) {
		a.report.Uncompared++
	}
	switch name {
	case ocispec.ImageLayoutFile, ocispec.ImageIndexFile, "START-HERE.txt", sumsName, "pannier/lock", custody.LogName:
		return
	}
	if kind, g, ok := bundle.Generation(name); ok {
		a.generation(name, kind, g)
		return
	}
	if (strings.HasPrefix(name, "pannier/objects/") || inPrograms(name) || strings.HasPrefix(name, parity.Folder+"/")) && (sums == nil || a.unfinished()) {
		return
	}
	if a.copied(name) || path.Dir(name) == custody.Folder {
		return // attached: see custody
	}
	a.foreign(name)
}

// compares reports whether a file on a sealed drive is one that nothing but SHA256SUMS vouches
// for.
func (a *audit) compares(name string) bool {
	if a.b.Seal == nil {
		return false
	}
	if _, named := a.b.Seal.Files[name]; named {
		return false
	}
	if name == bundle.CopyName(a.b.Seal.Generation, sumsName) || name == bundle.CopyName(a.b.Seal.Generation, a.b.SealPath()) {
		return false
	}
	return name == ocispec.ImageLayoutFile || name == "START-HERE.txt" || strings.HasPrefix(name, "pannier/objects/") ||
		inPrograms(name) || strings.HasPrefix(name, parity.Folder+"/")
}

// copies reports the copies of SHA256SUMS and of the seal that are not there, on a drive that
// has copies: nothing names these two.
func (a *audit) copies(sums map[string]digest.Digest) {
	if a.b.Seal == nil {
		return
	}
	g := a.b.Seal.Generation
	if _, copied := sums[bundle.CopyName(g, a.b.IndexPath())]; !copied {
		return
	}
	for _, original := range []string{sumsName, a.b.SealPath()} {
		f, err := a.l.OpenFile(bundle.CopyName(g, original))
		if err == nil {
			f.Close()
		} else if errors.Is(err, fs.ErrNotExist) {
			a.find(Finding{Kind: KindMissing, Path: bundle.CopyName(g, original), Detail: "the copy of " + original + " is not there"})
		}
	}
}

// copied judges the copies of SHA256SUMS and of the seal, which nothing else can vouch for, and
// reports whether name is one of them.
func (a *audit) copied(name string) bool {
	if a.b.Seal == nil {
		return false
	}
	for _, original := range []string{sumsName, a.b.SealPath()} {
		if name != bundle.CopyName(a.b.Seal.Generation, original) {
			continue
		}
		raw, err := a.l.ReadFile(name, maxSums)
		if original == sumsName && err == nil {
			err = a.b.Seal.Files[sumsName].Check(raw)
		} else if err == nil {
			var s *bundle.Seal
			if s, err = bundle.ParseSeal(raw); err == nil && s.Checksum != a.b.Seal.Checksum {
				err = fmt.Errorf("it is another seal: %w", bundle.ErrDamaged)
			}
		}
		if err != nil {
			a.find(Finding{Kind: KindCorrupt, Path: name, Detail: "this copy of " + original + " is damaged: " + err.Error()})
		}
		return true
	}
	return false
}

// generation judges a file of a generation: the seal's own, one that an interrupted pack has
// written after it, or one that should have been removed.
func (a *audit) generation(name, kind string, g uint64) {
	if a.b.Seal == nil || g == a.b.Seal.Generation || a.reported(name) {
		return
	}
	if g > a.b.Seal.Generation {
		return // reported once, as an interrupted pack
	}
	a.find(Finding{Kind: KindPartial, Path: name, Detail: kind + " of an earlier generation, left behind when a pack was interrupted; the same pack command removes it"})
}

func (a *audit) reported(name string) bool {
	return slices.ContainsFunc(a.report.Findings, func(f Finding) bool { return f.Path == name })
}

// indexTold reports whether a file is the manifest index, and compareIndex tells what is wrong with it.
func (a *audit) indexTold(name string) bool {
	return name == a.b.IndexPath() && a.b.IndexProblem != nil
}

// hash is the digest of a file that is no blob.
func (a *audit) hash(ctx context.Context, name string) (digest.Digest, error) {
	f, err := a.l.OpenFile(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if f.Size() > maxSums && !inPrograms(name) {
		return "", fmt.Errorf("%w: %d bytes, more than any such file has", content.ErrSize, f.Size())
	}
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
