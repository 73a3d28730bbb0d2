package parity

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"pannier/bundle/content"
	"pannier/bundle/layout"
)

// Folder is where parity stands on the drive, a slash path (docs/format.md, "Parity").
const Folder = "pannier/parity"

// Dir returns the folder of a generation's parity, a slash path.
func Dir(generation uint64) string { return Folder + "/" + strconv.FormatUint(generation, 10) }

func mapName(generation uint64, copy int) string {
	return fmt.Sprintf("%s/map-%d.bin", Dir(generation), copy)
}

func slicesName(generation uint64, file int) string {
	return fmt.Sprintf("%s/slices-%d.bin", Dir(generation), file+1)
}

// WriteOptions says what [Write] makes. Layout, Generation, Share and Bundle must be set.
type WriteOptions struct {
	Layout     *layout.Layout
	Generation uint64
	Share      Share
	Bundle     digest.Digest // bundle id of the seal that is being made
	Blobs      []Blob        // what is to be covered
	Jobs       int           // parallel readers; 0 means 4

	// Progress is told the bytes of blobs that were read and compared, by increments. It may
	// be nil.
	Progress func(n int64)

	most int // slots of a group; 0 means as many as there may be. Tests make small groups
}

// Size returns how many bytes [Write] will write, for a plan. Sums of the blobs need not be
// known.
func Size(share Share, blobs []Blob) int64 {
	m := newMap(digest.FromString(""), share, order(blobs), maxData)
	if m == nil || share == 0 {
		return 0
	}
	return m.size() + 2*m.mapSize()
}

// Strength is what parity heals: Heals slices of 1 MiB that are damaged in each group, in one
// blob or in several, of at most Slices that the group has. There are Groups of them.
type Strength struct{ Heals, Slices, Groups int }

// Plan returns the strength of what [Write] will write for blobs; the zero value if that is nothing.
func Plan(share Share, blobs []Blob) Strength {
	m := newMap(digest.FromString(""), share, order(blobs), maxData)
	if m == nil || share == 0 {
		return Strength{}
	}
	return Strength{Heals: m.parity, Slices: m.data, Groups: m.groups}
}

// Beyond returns those of blobs that are larger than the parity that [Write] will write: lost as
// a whole, they could not be reconstructed. The largest is first.
func Beyond(share Share, blobs []Blob) []Blob {
	m := newMap(digest.FromString(""), share, order(blobs), maxData)
	if m == nil || share == 0 {
		return nil
	}
	n, _ := slices.BinarySearchFunc(m.Blobs, int64(m.groups*m.parity), func(b Blob, most int64) int {
		return cmp.Compare(most, content.SliceCount(b.Size)) // descending by size
	})
	return m.Blobs[:n]
}

// order sorts blobs as they stand in the row: the largest first, then by digest. Pack writes
// the largest first as well, so that what lies together on the drive is spread over groups.
func order(blobs []Blob) []Blob {
	return slices.SortedFunc(slices.Values(blobs), func(a, b Blob) int {
		if a.Size != b.Size {
			return int(max(-1, min(1, b.Size-a.Size)))
		}
		return bytes.Compare([]byte(a.Digest), []byte(b.Digest))
	})
}

// Write reads every blob once from the medium, compares each slice with its sum, and writes the
// parity of all of them; then it reads the parity back. Everything is durable when it returns.
// What was written to the blobs must have been flushed before. It returns the digests of the
// files, by name; none if the blobs hold no byte.
//
// A slice that is not what was written is an error that wraps [content.ErrDigest] and says
// where; errors of the drive are those of package layout.
func Write(ctx context.Context, opts WriteOptions) (map[string]digest.Digest, error) {
	m := newMap(opts.Bundle, opts.Share, order(opts.Blobs), cmp.Or(opts.most, maxData))
	if m == nil || opts.Share == 0 {
		return nil, nil
	}
	for _, b := range m.Blobs {
		if want := content.SliceCount(b.Size) * content.SumSize; int64(len(b.Sums)) != want {
			return nil, fmt.Errorf("blob %s: %w: %d bytes of slice sums, %d expected", b.Digest, content.ErrInvalid, len(b.Sums), want)
		}
	}
	if size := m.mapSize(); size > MaxMap {
		return nil, fmt.Errorf("the parity map would have %d bytes: %w", size, layout.ErrTooLarge)
	}
	if err := drop(ctx, opts.Layout, m.Blobs); err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	c, err := newCodec(m.geometry)
	if err != nil {
		return nil, err
	}
	w := &writer{opts: opts, m: m, c: c}
	return w.run(ctx)
}

// drop drops the blobs from the cache; that of one waits for processors, not for the drive.
func drop(ctx context.Context, l *layout.Layout, blobs []Blob) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, b := range blobs {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return l.DropBlob(b.Descriptor())
		})
	}
	return g.Wait()
}

type writer struct {
	opts  WriteOptions
	m     *Map
	c     *codec
	slice content.Slicer
}

// run writes in an order that keeps the two copies of the map apart on the drive: the place of
// the first is taken before the parity slices, the second comes after them.
func (w *writer) run(ctx context.Context) (map[string]digest.Digest, error) {
	l, g := w.opts.Layout, w.opts.Generation
	files := map[string]digest.Digest{}
	err := l.WriteStream(mapName(g, 1), func(f io.Writer) error {
		_, err := io.CopyN(f, zeroReader{}, w.m.mapSize())
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range w.m.files() {
		h := sha256.New()
		err := l.WriteStream(slicesName(g, i), func(f io.Writer) error {
			return w.encode(ctx, i, io.MultiWriter(f, h, &w.slice))
		})
		if err != nil {
			return nil, err
		}
		files[slicesName(g, i)] = digest.NewDigest(digest.SHA256, h)
	}
	w.m.Parity = w.slice.Slices()
	raw, err := w.m.encode()
	if err != nil {
		return nil, err
	}
	if err := l.OverwriteFile(mapName(g, 1), raw); err != nil {
		return nil, err
	}
	if err := l.WriteFile(mapName(g, 2), raw); err != nil {
		return nil, err
	}
	files[mapName(g, 1)], files[mapName(g, 2)] = digest.FromBytes(raw), digest.FromBytes(raw)
	if err := l.Flush(ctx); err != nil {
		return nil, err
	}
	return files, w.readBack(ctx, raw)
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// readBack compares what the drive returns with what was written.
func (w *writer) readBack(ctx context.Context, rawMap []byte) error {
	l, g := w.opts.Layout, w.opts.Generation
	if _, err := l.DropCache(ctx); err != nil {
		return err
	}
	for _, name := range []string{mapName(g, 1), mapName(g, 2)} {
		raw, err := l.ReadFile(name, int64(len(rawMap)))
		if err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		if !bytes.Equal(raw, rawMap) {
			return fmt.Errorf("read back: %s: %w", name, content.ErrDigest)
		}
	}
	bad, err := (&Generation{Map: w.m, Number: g, layout: l}).CheckParity(ctx)
	if err == nil && len(bad) > 0 {
		if err := l.Gone(); err != nil { // a slice that cannot be read counts as bad
			return err
		}
		file, offset := w.m.parityAt(bad[0]/w.m.parity, bad[0]%w.m.parity)
		err = fmt.Errorf("read back: %s: at offset %d: %w", slicesName(g, file), offset, content.ErrDigest)
	}
	return err
}

// Rows returns how many parity slices a group has: as many of its slices can be lost.
func (g *Generation) Rows() int { return g.parity }

// Group returns the group that slice n of a blob belongs to, counted from 0, and whether the
// blob is covered.
func (g *Generation) Group(blob digest.Digest, n int64) (int, bool) {
	k, ok := g.index[blob]
	if !ok || n < 0 || n >= content.SliceCount(g.Blobs[k].Size) {
		return 0, false
	}
	return g.row(k, n) % g.groups, true
}

// MapFiles returns the names of the two copies of a generation's map.
func (g *Generation) MapFiles() [2]string {
	return [2]string{mapName(g.Number, 1), mapName(g.Number, 2)}
}

// FileSize returns the size that a file of parity slices must have; 0 for names of others.
func (g *Generation) FileSize(name string) int64 {
	for i := range g.Map.files() {
		if slicesName(g.Number, i) == name {
			from, to := g.held(i)
			return int64(to-from) * int64(g.parity) * sliceSize
		}
	}
	return 0
}

// Files returns the names of the files of a generation's parity, sorted.
func (g *Generation) Files() []string {
	out := map[string]bool{mapName(g.Number, 1): true, mapName(g.Number, 2): true}
	for i := range g.Map.files() {
		out[slicesName(g.Number, i)] = true
	}
	return slices.Sorted(maps.Keys(out))
}

// IsMap reports whether a file of those that [Generation.Files] lists is a map.
func IsMap(name string) bool { return strings.HasPrefix(path.Base(name), "map-") }
