package bundle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/store"
)

// RepairOptions are the options of [OpenRepair]. Media and Cache must be set.
type RepairOptions struct {
	Media string
	From  []RepairSource // asked in this order for what the drive itself cannot restore
	// Drop removes what a pack that was given up has left beside what the seal covers: blobs,
	// partial files and notes in the index. Without it they stay, for that pack to continue.
	Drop bool

	Cache    string                              // folder on the local disk for working copies of the index
	Program  string                              // name and version of the program, for the lock and for a new seal
	FS       func(dir string) (layout.FS, error) // opens the drive for writing; nil is layout.OpenFS. Tests put faults here
	Progress ProgressFunc                        // may be nil
	Logger   *slog.Logger                        // may be nil
}

// RepairSource has copies of what is damaged. Nothing that it says is believed: a blob is
// taken if its digest is right, a file if its digest is the sealed one.
type RepairSource struct {
	Name  string          // for messages
	Blobs content.Fetcher // has blobs
	Files FileReader      // has the small files of a copy of the same drive; may be nil
}

// FileReader reads small files by their slash path below a root, at most limit bytes.
type FileReader interface {
	ReadFile(name string, limit int64) ([]byte, error)
}

// Repair is a drive that is being repaired, locked until Close (docs/format.md, "Repair").
//
// It changes nothing that is right, and removes nothing that is damaged before what takes its
// place is on the drive, whole and synced: an interruption leaves the drive at least as good
// as it was, and a second repair goes on.
type Repair struct {
	opts   RepairOptions
	l      *layout.Layout
	log    *slog.Logger
	unlock func()
	broken bool // parity cannot be put right, and is made anew
}

// Healed is what [Repair.Heal] did.
type Healed struct {
	Blobs    int                     // that are right again
	Bytes    int64                   // of these
	Lost     map[digest.Digest]error // blobs that nobody has whole, and what the sources said
	Resealed bool                    // a new generation was published
	Warnings []string                // what the new generation is without
	Kept     string                  // why no new generation could be published although one is needed; "" otherwise
}

// OpenRepair opens the bundle at opts.Media for writing and locks it. Errors are those of
// [Open], [layout.ErrReadOnly] on a write-protected drive and [layout.ErrLocked].
func OpenRepair(opts RepairOptions) (*Repair, error) {
	if opts.Progress == nil {
		opts.Progress = func(Event) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	// What is no bundle is refused before the first write, with words that say why.
	l, err := openLayout(opts.Media)
	if err != nil {
		return nil, err
	}
	l.Close()
	if space, err := layout.StatSpace(opts.Media); err == nil && space.ReadOnly {
		return nil, fmt.Errorf("%s: %w", opts.Media, layout.ErrReadOnly)
	}
	r := &Repair{opts: opts, log: opts.Logger}
	if r.l, err = layout.Open(opts.Media, layout.Options{FS: opts.FS, Logger: opts.Logger, Damaged: true}); err != nil {
		return nil, err
	}
	if r.unlock, err = r.l.Lock(opts.Program); err != nil {
		r.l.Close()
		return nil, err
	}
	return r, nil
}

// Close unlocks the drive and lets go of it.
func (r *Repair) Close() error {
	r.unlock()
	return r.l.Close()
}

// Heal repairs what can be repaired. bad are the blobs that an audit has found missing or
// wrong; what else is wrong Heal finds out itself. What cannot be healed is in the result and
// no error; an error says that the work stopped: the drive's own, or ctx's.
func (r *Repair) Heal(ctx context.Context, bad []digest.Digest) (*Healed, error) {
	done := &Healed{Lost: map[digest.Digest]error{}}
	if err := r.l.MakeFolders(); err != nil {
		return done, err
	}
	b, err := r.read(ctx)
	if err != nil {
		return done, err
	}
	if g, raw, ok := b.sealCopy(); ok && !b.Blocked(sealName(g)) {
		if err := r.put(sealName(g), raw); err != nil {
			return done, err
		}
		if b, err = r.read(ctx); err != nil {
			return done, err
		}
	}
	if b.sealing() == neverSealed {
		return done, r.clean(ctx, b, nil)
	}
	if err := r.clearFolders(); err != nil {
		return done, err
	}
	walked, err := r.healBlobs(ctx, b, bad, done)
	if err != nil {
		return done, err
	}
	if walked == nil {
		done.Kept = "the layout index is lost"
		return done, nil
	}
	if b, err = r.read(ctx); err != nil { // with what could not be read before
		return done, err
	}
	if err := r.restoreFiles(ctx, b, walked); err != nil {
		return done, err
	}
	known, lost := b.Expected(walked), b.IndexProblem != nil
	if b, err = r.read(ctx); err != nil {
		return done, err
	}
	if lost && b.IndexProblem == nil { // it names what damage had hidden
		more, err := r.wrong(ctx, known, b.Expected(walked))
		if err != nil {
			return done, err
		}
		if walked, err = r.healBlobs(ctx, b, slices.AppendSeq(more, maps.Keys(done.Lost)), done); err != nil {
			return done, err
		}
	}
	if r.stale(b, walked) {
		if done.Kept = r.unfit(ctx, b, walked, done); done.Kept == "" {
			if done.Warnings, err = r.reissue(ctx, b, walked); err != nil {
				return done, err
			}
			done.Resealed = true
			if b, err = r.read(ctx); err != nil {
				return done, err
			}
		}
	}
	return done, r.clean(ctx, b, walked)
}

// read looks at the drive as [Open] does, through the layout that is locked.
func (r *Repair) read(ctx context.Context) (*Bundle, error) {
	b := &Bundle{Layout: r.l}
	return b, b.read(ctx, OpenOptions{Cache: r.opts.Cache, Logger: r.log})
}

// sealing says whether the drive ever came to a seal, as far as it tells.
type sealing int

const (
	neverSealed sealing = iota
	sealLost            // the seal is damaged; two copies of the layout index say what it covered
	sealStands
)

func (b *Bundle) sealing() sealing {
	if b.Seal != nil {
		return sealStands
	}
	for _, p := range b.SealProblems {
		kind, g, ok := Generation(p.Path)
		if !ok || kind != "seal" || b.Index == nil {
			continue
		}
		// An index.json that a pack has only begun to publish has no seal yet, damaged or not.
		raw, err := b.Layout.ReadFile(fileIndexJSON, maxIndexJSON)
		if err != nil {
			continue
		}
		if copied, err := b.Layout.ReadFile(layoutName(g), maxIndexJSON); err == nil && string(copied) == string(raw) {
			return sealLost
		}
	}
	return neverSealed
}

// Resealable reports whether the bundle has no valid seal only because that was damaged, and
// what it covered is known nevertheless: a repair can seal it again.
func (b *Bundle) Resealable() bool {
	_, _, copied := b.sealCopy()
	return b.Seal == nil && copied || b.sealing() == sealLost
}

// Expected are the blobs that must be there: those that the layout index reaches, as walked
// says, and those that the manifest index says, which knows what a damaged manifest hides.
// walked may be nil.
func (b *Bundle) Expected(walked *Contents) map[digest.Digest]store.Record {
	out := map[digest.Digest]store.Record{}
	if walked != nil {
		maps.Copy(out, walked.Records)
	}
	for d, r := range b.Contents.Records {
		if old, ok := out[d]; ok {
			r.Images = slices.Compact(slices.Sorted(slices.Values(slices.Concat(old.Images, r.Images))))
		}
		out[d] = r
	}
	for d := range b.Contents.Presumed { // which the list on the drive says too, unless that is damaged
		delete(out, d)
	}
	return out
}

// unfit says why what the layout index names cannot be sealed again; "" if it can.
func (r *Repair) unfit(ctx context.Context, b *Bundle, walked *Contents, done *Healed) string {
	if name := b.blockedFile(); name != "" {
		return fmt.Sprintf("a folder that is not empty stands where %s belongs; look what it holds, and take it away", name)
	}
	if n := len(done.Lost); n > 0 {
		return fmt.Sprintf("%s lost, and a new seal would promise them", content.Plural(n, "blob is", "blobs are"))
	}
	if broken := walked.Broken(); len(broken) > 0 {
		return fmt.Sprintf("what %s needs is not known: %v", broken[0].Descriptor.Digest, broken[0].Err)
	}
	for _, rel := range walked.Releases {
		if wrong := walked.CheckPayload(ctx, r.l, rel.Tag); len(wrong) > 0 {
			return fmt.Sprintf("release %s: %v", rel.Tag, wrong[0])
		}
	}
	for _, img := range walked.Images {
		if err := walked.CheckImage(img); err != nil {
			return fmt.Sprintf("image %s: %v", img.Tag, err)
		}
	}
	return ""
}

// clean removes what belongs to nobody: partial files of blobs that are there or that nobody
// wants, temporary files, and, where a seal says what the drive holds, blobs that nothing
// names and the files of earlier generations. A nil walked is of a bundle that was never
// sealed.
func (r *Repair) clean(ctx context.Context, b *Bundle, walked *Contents) error {
	if err := r.removeTemporary(); err != nil {
		return err
	}
	expected := b.Expected(walked)
	// Without an index it is not known what an unfinished pack wants.
	notes := b.IndexProblem == nil
	if b.Interrupted {
		notes = b.Pending != nil
	}
	if notes {
		if err := r.removePartials(b, expected); err != nil {
			return err
		}
	}
	if walked == nil || b.Seal == nil || len(walked.Broken()) > 0 || b.Interrupted {
		return ctx.Err()
	}
	if err := r.removeOrphans(b, expected); err != nil {
		return err
	}
	return r.removeOlder(b)
}

// removeTemporary removes what an interrupted [layout.Layout.ReplaceFile] leaves.
func (r *Repair) removeTemporary() error {
	names := []string{"oci-layout", fileIndexJSON, fileStart, fileSums}
	entries, err := r.l.List(dirObjects)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name, ".new"); ok && e.Mode.IsRegular() {
			names = append(names, dirObjects+"/"+name)
		}
	}
	names = slices.Concat(names, r.temporaryPrograms(dirClients, 2), r.temporaryPrograms(dirTools, 1))
	for _, name := range names {
		if err := r.l.RemoveFile(name + ".new"); err != nil && !errors.Is(err, layout.ErrUnsafe) {
			return err
		}
	}
	return nil
}

func (r *Repair) removePartials(b *Bundle, expected map[digest.Digest]store.Record) error {
	files, err := r.l.Partials()
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Digest == "" || !f.Regular {
			continue // not ours
		}
		if _, ok := b.Pending[f.Digest]; ok {
			continue
		}
		if rec, ok := expected[f.Digest]; ok {
			if size, err := r.l.Stat(f.Digest); err != nil || size != rec.Size {
				continue // a download, or a repair, that goes on
			}
		}
		if err := r.l.RemovePartial(f.Digest); err != nil {
			return err
		}
	}
	return nil
}

// removeOrphans removes the blobs that neither the seal nor the notes of a pack name.
func (r *Repair) removeOrphans(b *Bundle, expected map[digest.Digest]store.Record) error {
	files, err := r.l.Blobs()
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Digest == "" || !f.Regular {
			continue
		}
		_, needed := expected[f.Digest]
		_, noted := b.Pending[f.Digest]
		if needed || noted && !b.Leftovers {
			continue
		}
		if err := r.l.RemoveBlob(f.Digest); err != nil {
			return err
		}
	}
	return nil
}

// removeOlder removes the generations before the seal's: the last thing, since they say that
// there was something to remove.
func (r *Repair) removeOlder(b *Bundle) error {
	for _, kind := range [][2]string{{indexPrefix, indexSuffix}, {layoutPrefix, layoutSuffix}, {sealPrefix, sealSuffix}} {
		for _, g := range b.generations(kind[0], kind[1]) {
			if g >= b.Seal.Generation {
				continue
			}
			if err := r.l.RemoveFile(generationName(kind[0], g, kind[1])); err != nil {
				return err
			}
		}
	}
	return nil
}
