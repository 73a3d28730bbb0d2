package bundle

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// smallFiles lists the files of the sealed bundle that are no blobs.
func (p *packer) smallFiles(g uint64) ([]string, error) {
	out := []string{ocispec.ImageLayoutFile, fileIndexJSON, fileStart, layoutName(g), indexName(g)}
	entries, err := p.layout.List(dirObjects)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
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
	raw, err := b.Layout.ReadFile(fileSums, b.Seal.Files[fileSums].Size)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(raw)) {
		hexes, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if strings.HasPrefix(name, "blobs/") {
			continue
		}
		data, err := b.Layout.ReadFile(name, maxIndexDB)
		if err != nil || digest.FromBytes(data).Encoded() != hexes {
			return false
		}
	}
	return true
}

// encodeSums is SHA256SUMS: what sha256sum -c reads, sorted by path.
func encodeSums(sums map[string]digest.Digest) []byte {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&b, "%s  %s\n", sums[name].Encoded(), name)
	}
	return []byte(b.String())
}
