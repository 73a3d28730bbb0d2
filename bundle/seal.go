package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// Seal is the mark that pack finished (docs/format.md, "Seal"). It is written after
// everything that it promises is durable and has been read back.
type Seal struct {
	Format     int                   `json:"format"`
	Generation uint64                `json:"generation"`
	Bundle     digest.Digest         `json:"bundle"`   // bundle id
	Instance   string                `json:"instance"` // random name of this drive's bundle
	Sealed     time.Time             `json:"sealed"`
	Program    string                `json:"program"`
	Totals     SealTotals            `json:"totals"`
	Files      map[string]SealedFile `json:"files"`
	ReadBack   ReadBack              `json:"readBack"`
	Checksum   digest.Digest         `json:"checksum"` // of the file itself, see sealChecksum
}

// SealTotals counts what a seal covers.
type SealTotals struct {
	Releases int   `json:"releases"`
	Images   int   `json:"images"` // entries of the layout index
	Blobs    int   `json:"blobs"`  // manifests among them
	Bytes    int64 `json:"bytes"`
}

// ReadBack says how far the drive was read back before the seal, and how the page cache was
// passed.
type ReadBack struct {
	Method string `json:"method"`
	Blobs  int    `json:"blobs"`
	Bytes  int64  `json:"bytes"`
}

const (
	sealPrefix, sealSuffix     = "seal-", ".json"
	layoutPrefix, layoutSuffix = "layout-", ".json"
	indexPrefix, indexSuffix   = "index-", ".db"

	maxSeal = 1 << 20 // bytes of a seal that are read

	// maxGeneration leaves room below the 31 bits that a generation may have: a file with an
	// absurd number, planted on the drive, must not push ours out of them.
	maxGeneration = 1 << 30
)

func sealName(g uint64) string   { return generationName(sealPrefix, g, sealSuffix) }
func layoutName(g uint64) string { return generationName(layoutPrefix, g, layoutSuffix) }
func indexName(g uint64) string  { return generationName(indexPrefix, g, indexSuffix) }

func generationName(prefix string, g uint64, suffix string) string {
	return dirOwn + "/" + prefix + strconv.FormatUint(g, 10) + suffix
}

// Generation returns the kind ("seal", "layout" or "index") and the generation of a file of
// ours by its name below the root, and whether it is one.
func Generation(name string) (kind string, g uint64, ok bool) {
	base, found := strings.CutPrefix(name, dirOwn+"/")
	if !found {
		return "", 0, false
	}
	for _, k := range [][2]string{{sealPrefix, sealSuffix}, {layoutPrefix, layoutSuffix}, {indexPrefix, indexSuffix}} {
		num, p := strings.CutPrefix(base, k[0])
		num, s := strings.CutSuffix(num, k[1])
		if !p || !s {
			continue
		}
		g, err := strconv.ParseUint(num, 10, 31)
		if err != nil || strconv.FormatUint(g, 10) != num {
			return "", 0, false
		}
		return strings.TrimSuffix(k[0], "-"), g, true
	}
	return "", 0, false
}

// generations lists the generations of one kind of file on the drive, newest first.
func (b *Bundle) generations(prefix, suffix string) []uint64 {
	entries, err := b.Layout.List(dirOwn)
	if err != nil {
		b.unlisted = err // a folder that cannot be read is not an empty one
		return nil
	}
	var out []uint64
	for _, e := range entries {
		if kind, g, ok := Generation(dirOwn + "/" + e.Name); ok && kind+"-" == prefix {
			out = append(out, g)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i] > out[j] })
	return out
}

// findSeal takes the newest seal that is valid together with what it names. A newer format
// version is an error; a seal that is not valid is noted and an older one tried.
func (b *Bundle) findSeal() error {
	var second *Seal // valid but for its index
	torn := uint64(0)
	for _, g := range b.generations(sealPrefix, sealSuffix) {
		s, err := b.readSeal(g)
		if errors.Is(err, ErrVersion) {
			return err
		}
		if errors.Is(err, ErrUnsealed) {
			torn = max(torn, g)
			continue
		}
		if err != nil {
			b.SealProblems = append(b.SealProblems, FileProblem{sealName(g), err})
			continue
		}
		if !b.hasLayoutIndex(s) {
			if second == nil {
				second = s
			}
			continue
		}
		sealed := s.Files[indexName(g)]
		if found, err := copyFile(b.Layout.OpenFile, indexName(g), min(sealed.Size, maxIndexDB), io.Discard); err != nil || sealed.compare(found) != nil {
			if second == nil || !b.hasLayoutIndex(second) {
				second = s
			}
			continue
		}
		b.Seal = s
		break
	}
	if b.Seal == nil {
		b.Seal = second
	}
	if b.Seal != nil {
		b.Interrupted = torn > b.Seal.Generation
		others := append(b.generations(layoutPrefix, layoutSuffix), b.generations(indexPrefix, indexSuffix)...)
		for _, g := range append(others, b.olderSeals()...) {
			b.Interrupted = b.Interrupted || g > b.Seal.Generation
			b.Leftovers = b.Leftovers || g < b.Seal.Generation
		}
	}
	return b.unlisted
}

// olderSeals are the generations of the seals before the one that counts.
func (b *Bundle) olderSeals() []uint64 {
	return slices.DeleteFunc(b.generations(sealPrefix, sealSuffix), func(g uint64) bool { return g >= b.Seal.Generation })
}

func (b *Bundle) hasLayoutIndex(s *Seal) bool {
	for _, name := range []string{fileIndexJSON, layoutName(s.Generation)} {
		if raw, err := b.Layout.ReadFile(name, min(s.Files[fileIndexJSON].Size, maxIndexJSON)); err == nil && s.Files[fileIndexJSON].Check(raw) == nil {
			return true
		}
	}
	return false
}

func (b *Bundle) readSeal(g uint64) (*Seal, error) {
	raw, err := b.Layout.ReadFile(sealName(g), maxSeal)
	if err != nil {
		return nil, err
	}
	s, err := ParseSeal(raw)
	if err != nil {
		return nil, err
	}
	if s.Generation != g {
		return nil, fmt.Errorf("%w: a seal of generation %d under this name", ErrDamaged, s.Generation)
	}
	return s, nil
}

// ParseSeal reads a seal and checks its checksum. Errors are [ErrVersion] for a sound seal of
// a newer format, [ErrUnsealed] for one whose writing was cut off (it ends early, or in zeros
// where data never arrived), and wrap [ErrDamaged] otherwise.
func ParseSeal(raw []byte) (*Seal, error) {
	if len(raw) > maxSeal {
		return nil, fmt.Errorf("%w: a seal of %d bytes", ErrDamaged, len(raw))
	}
	var s Seal
	dec := json.NewDecoder(bytes.NewReader(raw))
	if text := bytes.TrimRight(raw, "\x00"); len(text) == 0 || !json.Valid(text) && endsEarly(text) {
		return nil, fmt.Errorf("%w: the seal was begun and not finished", ErrUnsealed)
	}
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("%w: seal: %w", ErrDamaged, err)
	}
	if got := sealChecksum(raw, s.Checksum); got != s.Checksum {
		return nil, fmt.Errorf("%w: seal: its checksum does not match", ErrDamaged)
	}
	if s.Format > FormatVersion {
		return nil, fmt.Errorf("the seal is of format %d, this program knows %d: %w", s.Format, FormatVersion, ErrVersion)
	}
	if s.Format < 1 {
		return nil, fmt.Errorf("%w: seal of format %d", ErrDamaged, s.Format)
	}
	for _, name := range []string{fileIndexJSON, fileSums, layoutName(s.Generation), indexName(s.Generation)} {
		if err := content.CheckDigest(s.Files[name].Digest); err != nil {
			return nil, fmt.Errorf("%w: seal: %s: %w", ErrDamaged, name, err)
		}
	}
	return &s, nil
}

// endsEarly reports whether raw is the beginning of a JSON value and no more.
func endsEarly(raw []byte) bool {
	var skip json.RawMessage
	err := json.NewDecoder(bytes.NewReader(raw)).Decode(&skip)
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// encode returns the bytes of the seal, with its checksum.
func (s *Seal) encode() ([]byte, error) {
	s.Checksum = digest.NewDigestFromEncoded(digest.SHA256, strings.Repeat("0", 64))
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, err
	}
	raw = append(raw, '\n')
	sum := sealChecksum(raw, s.Checksum)
	out := bytes.Replace(raw, []byte(s.Checksum), []byte(sum), 1)
	s.Checksum = sum
	return out, nil
}

// sealChecksum is the SHA-256 of the seal's bytes in which the 64 hex digits of its own
// checksum, at their last occurrence, are replaced by zeros.
func sealChecksum(raw []byte, own digest.Digest) digest.Digest {
	zero := slices.Clone(raw)
	if content.CheckDigest(own) == nil {
		hexes := []byte(own.Encoded())
		if i := bytes.LastIndex(zero, hexes); i >= 0 {
			for k := range hexes {
				zero[i+k] = '0'
			}
		}
	}
	return digest.FromBytes(zero)
}

// Differences says, in a sentence each, where the seal says otherwise than the layout index
// that it covers and what that names.
func (s *Seal) Differences(idx *ocispec.Index, walked *Contents) []string {
	var out []string
	if id := ID(idx); id != s.Bundle {
		out = append(out, fmt.Sprintf("it is of bundle %s, and this is bundle %s", s.Bundle, id))
	}
	have := SealTotals{Releases: len(walked.Releases), Images: len(idx.Manifests), Blobs: len(walked.Records)}
	for _, r := range walked.Records {
		have.Bytes += r.Size
	}
	if len(walked.Broken()) == 0 && have != s.Totals {
		out = append(out, fmt.Sprintf("it covers %+v, and there are %+v", s.Totals, have))
	}
	return out
}

// ID is the bundle id of a layout index: the SHA-256 over its entries, each as
// "digest size mediaType name" and a line feed, sorted bytewise. Everything else in the
// bundle follows from these by digests, so two drives with the same contents have the same id
// whoever packed them (docs/format.md, "Bundle id").
func ID(idx *ocispec.Index) digest.Digest {
	lines := make([]string, 0, len(idx.Manifests))
	for _, d := range idx.Manifests {
		lines = append(lines, fmt.Sprintf("%s %d %s %s\n", d.Digest, d.Size, d.MediaType, d.Annotations[ocispec.AnnotationRefName]))
	}
	slices.Sort(lines)
	h := sha256.New()
	for _, l := range slices.Compact(lines) {
		h.Write([]byte(l))
	}
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.Sum(nil)))
}
