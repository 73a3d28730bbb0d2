package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/layout"
	"pannier/bundle/parity"
)

// smallFiles lists the files of the sealed bundle that are no blobs.
func (p *packer) smallFiles(g uint64) ([]string, error) {
	out := []string{ocispec.ImageLayoutFile, fileIndexJSON, fileStart, layoutName(g), indexName(g)}
	entries, err := p.layout.List(dirObjects)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Err != nil { // a seal without it would call it a stranger for ever
			return nil, e.Err
		}
		if e.Mode.IsRegular() && strings.HasSuffix(e.Name, ".yaml") {
			out = append(out, dirObjects+"/"+e.Name)
		}
	}
	return out, nil
}

// smallFilesSound reports whether every file that the seal covers and that is no blob is as it
// was sealed.
func (b *Bundle) smallFilesSound() bool {
	for name, f := range b.Seal.Files {
		if raw, err := b.Layout.ReadFile(name, f.Size); err != nil || f.Check(raw) != nil {
			return false
		}
	}
	sums := b.sums()
	if sums == nil {
		return false
	}
	for name, want := range sums {
		// Of parity, planCover says whether it is of use.
		if strings.HasPrefix(name, "blobs/") || strings.HasPrefix(name, parity.Folder+"/") && !strings.HasPrefix(name, copiesDir(b.Seal.Generation)) {
			continue
		}
		if strings.HasPrefix(name, dirClients+"/") || strings.HasPrefix(name, dirTools+"/") {
			// Large, and like blobs only looked for: audit hashes them.
			f, err := b.Layout.OpenFile(name)
			if err != nil {
				return false
			}
			f.Close()
			continue
		}
		data, err := b.Layout.ReadFile(name, maxIndexDB)
		if err != nil || digest.FromBytes(data) != want {
			return false
		}
	}
	if _, copied := sums[CopyName(b.Seal.Generation, indexName(b.Seal.Generation))]; !copied {
		return true
	}
	for _, name := range []string{fileSums, sealName(b.Seal.Generation)} {
		one, err := b.Layout.ReadFile(name, maxIndexDB)
		other, cerr := b.Layout.ReadFile(CopyName(b.Seal.Generation, name), maxIndexDB)
		if err != nil || cerr != nil || !bytes.Equal(one, other) {
			return false
		}
	}
	return true
}

// sums reads SHA256SUMS, or its copy; nil if neither is what the seal names.
func (b *Bundle) sums() map[string]digest.Digest {
	for _, name := range []string{fileSums, CopyName(b.Seal.Generation, fileSums)} {
		raw, err := b.Layout.ReadFile(name, b.Seal.Files[fileSums].Size)
		if err != nil || b.Seal.Files[fileSums].Check(raw) != nil {
			continue
		}
		out := map[string]digest.Digest{}
		for line := range strings.Lines(string(raw)) {
			hexes, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
			out[name] = digest.NewDigestFromEncoded(digest.SHA256, hexes)
		}
		return out
	}
	return nil
}

// encodeSums is SHA256SUMS: what sha256sum -c reads, sorted by path.
func encodeSums(sums map[string]digest.Digest) []byte {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&b, "%s  %s\n", sums[name].Encoded(), name)
	}
	return []byte(b.String())
}

// isSealed reports whether a file has the digest that a seal promises. One that cannot be read
// has not; the error is ctx's or says that the drive is gone.
func isSealed(ctx context.Context, l *layout.Layout, name string, want digest.Digest) (bool, error) {
	f, err := l.OpenFile(name)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	got, err := digest.SHA256.FromReader(&contextReader{ctx, f})
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err = l.Diagnose(err); errors.Is(err, layout.ErrGone) {
		return false, err
	}
	return err == nil && got == want, nil
}
