package bundle

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/parity"
	"pannier/store"
)

// scratch is a file on the local disk for what is reconstructed, without a name where the
// system allows it: as much as parity can restore at most.
func (r *Repair) scratch() (*os.File, func(), error) {
	dir, err := workingFolder(r.opts.Cache)
	if err != nil {
		return nil, nil, &localError{err}
	}
	f, err := os.CreateTemp(dir, "slices-")
	if err != nil {
		os.RemoveAll(dir)
		return nil, nil, &localError{err}
	}
	return f, func() { f.Close(); os.RemoveAll(dir) }, nil
}

// mended are blobs reconstructed from parity; it is a [content.Fetcher].
type mended map[digest.Digest]*parity.Mended

// Fetch implements [content.Fetcher].
func (m mended) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	blob, ok := m[desc.Digest]
	if !ok || blob.Damage.Size != desc.Size {
		return nil, fmt.Errorf("%s: %w", desc.Digest, fs.ErrNotExist)
	}
	rc := blob.Open(ctx)
	if _, err := io.CopyN(io.Discard, rc, offset); err != nil {
		rc.Close()
		return nil, err
	}
	return rc, nil
}

// parityFiles puts the parity itself right: a map from its other copy, slices computed anew.
// Blobs are right by now as far as they can be. want are the sealed digests.
func (r *Repair) parityFiles(ctx context.Context, want map[string]digest.Digest) error {
	defer func() { r.broken = r.parityBroken(ctx, want) }()
	set, err := parity.Open(r.l)
	if err != nil {
		return nil // no folder that could be listed: what is missing there is found by its name
	}
	for _, g := range set.Generations {
		if err := r.parityMaps(g, want); err != nil {
			return err
		}
		bad, err := g.CheckParity(ctx)
		if err != nil {
			return err
		}
		if len(bad) > 0 {
			err = r.paritySlices(ctx, g, bad, want)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parityBroken reports whether parity that is sealed is not what it was.
func (r *Repair) parityBroken(ctx context.Context, want map[string]digest.Digest) bool {
	b := &Bundle{Layout: r.l}
	for name, d := range want {
		if !ofParity(name) {
			continue
		}
		if got, err := b.hashFile(ctx, name); err != nil || got != d {
			return true
		}
	}
	return false
}

// parityMaps makes the two copies of a map equal, where one has the sealed digest.
func (r *Repair) parityMaps(g *parity.Generation, want map[string]digest.Digest) error {
	names := g.MapFiles()
	for i, name := range names {
		if raw, err := r.l.ReadFile(name, parity.MaxMap); err == nil && digest.FromBytes(raw) == want[name] {
			continue
		}
		other, err := r.l.ReadFile(names[1-i], parity.MaxMap)
		if err != nil || digest.FromBytes(other) != want[name] || blocked(r.l, name) {
			continue
		}
		if err := r.clear(name); err != nil {
			return err
		}
		if err := r.l.ReplaceFile(name, other); err != nil {
			return err
		}
	}
	return nil
}

// paritySlices writes files of parity slices anew, with the slices bad computed again.
func (r *Repair) paritySlices(ctx context.Context, g *parity.Generation, bad []int, want map[string]digest.Digest) error {
	scratch, done, err := r.scratch()
	if err != nil {
		return err
	}
	defer done()
	places := map[string]map[int64]int64{} // file -> offset -> place in scratch
	var end int64
	_, err = g.RestoreParity(ctx, bad, func(name string, offset int64, data []byte) error {
		if places[name] == nil {
			places[name] = map[int64]int64{}
		}
		places[name][offset] = end
		_, err := scratch.WriteAt(data, end)
		end += int64(len(data))
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range g.Files() {
		restored := places[name]
		if len(restored) == 0 || blocked(r.l, name) {
			continue
		}
		if err := r.clear(name); err != nil {
			return err
		}
		err := r.l.ReplaceStream(name, func(w io.Writer) error {
			h := sha256.New()
			if err := r.compose(ctx, io.MultiWriter(w, h), name, g.FileSize(name), restored, scratch); err != nil {
				return err
			}
			if got := digest.NewDigest(digest.SHA256, h); got != want[name] {
				return fmt.Errorf("%s: %w: made again it is %s", name, content.ErrDigest, got)
			}
			return nil
		})
		if errors.Is(err, content.ErrDigest) {
			r.log.Info("a file of parity could not be made again", "file", name, "error", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compose writes a file of parity slices: those that were restored, and the others as they are.
func (r *Repair) compose(ctx context.Context, w io.Writer, name string, size int64, restored map[int64]int64, scratch io.ReaderAt) error {
	old, err := r.l.OpenFile(name)
	if err == nil {
		defer old.Close()
	}
	buf := make([]byte, content.SliceSize)
	for at := int64(0); at < size; at += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		place, ok := restored[at]
		switch {
		case ok:
			_, err = scratch.ReadAt(buf, place)
		case old == nil:
			err = fmt.Errorf("%s: %w: the slice at %d is lost", name, content.ErrDigest, at)
		default:
			if _, err = old.ReadAt(buf, at); err != nil {
				err = fmt.Errorf("%s: %w: at offset %d: %w", name, content.ErrDigest, at, err)
			}
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// Mendable says which of the blobs bad parity can reconstruct as the drive stands: where the
// damage lies in them is looked up, and the parity slices are read, but nothing is computed.
func (b *Bundle) Mendable(ctx context.Context, expected map[digest.Digest]store.Record, bad []digest.Digest) map[digest.Digest]bool {
	out := map[digest.Digest]bool{}
	if len(bad) == 0 {
		return out
	}
	set, err := parity.Open(b.Layout)
	if err != nil || len(set.Generations) == 0 {
		return out
	}
	var damage []parity.Damage
	for _, d := range bad {
		located, err := set.Locate(ctx, ocispec.Descriptor{Digest: d, Size: expected[d].Size}, nil)
		if err == nil && len(located.Slices) > 0 {
			damage = append(damage, located)
			out[d] = true
		}
	}
	var slices []parity.ParityDamage
	for _, g := range set.Generations {
		if wrong, err := g.CheckParity(ctx); err == nil && len(wrong) > 0 {
			slices = append(slices, parity.ParityDamage{Generation: g.Number, Slices: wrong})
		}
	}
	for _, lost := range set.Lost(damage, slices) {
		delete(out, lost.Digest)
	}
	return out
}
