package bundle_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/layout"
	"pannier/bundle/layout/baddrive"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/store"
	"pannier/verify"
)

// medium is a kind of drive whose power is cut.
type medium struct {
	name   string
	rules  baddrive.Rules
	syncfs bool // the file system has the call, as those in the kernel do
	how    []baddrive.Survival
	seeds  uint64 // for what survives by chance
}

var media = []medium{
	{"posix", baddrive.POSIX, false, []baddrive.Survival{baddrive.Lost, baddrive.Random, baddrive.NamesOnly, baddrive.Kept}, 3},
	{"posix with syncfs", baddrive.POSIX, true, []baddrive.Survival{baddrive.Lost, baddrive.Random, baddrive.NamesOnly}, 2},
	{"vfat", baddrive.FAT32, false, []baddrive.Survival{baddrive.Lost, baddrive.Random}, 2},
	{"vfat with syncfs", baddrive.FAT32, true, []baddrive.Survival{baddrive.Lost, baddrive.Random}, 2},
	{"exfat", baddrive.ExFAT, false, []baddrive.Survival{baddrive.Lost, baddrive.Random}, 2},
}

// opens is the option FS of a pack onto d. With syncfs the call reaches the drive: the kernel
// does not pass it on to a file system in user space.
func (m medium) opens(d *baddrive.Drive, weaken func(layout.FS) layout.FS) func(string) (layout.FS, error) {
	return func(dir string) (layout.FS, error) {
		f, err := layout.OpenFS(dir)
		if err != nil {
			return nil, err
		}
		if m.syncfs {
			f = syncingFS{f, d}
		}
		if weaken != nil {
			f = weaken(f)
		}
		return f, nil
	}
}

type syncingFS struct {
	layout.FS
	d *baddrive.Drive
}

func (f syncingFS) SyncFS() error { f.d.Sync(); return nil }

// found is a drive after a power cut.
type found struct {
	*baddrive.Drive
	at string // when, and what survived
}

// cuts is what there is to be found after cuts in one pack.
type cuts struct {
	n      int // calls of the pack that change the medium or make something durable
	drives []found
}

// packAndCut packs 4.8.22 onto a copy of d, which must succeed, and cuts the power before
// every call that changes the medium or makes something durable, and at the end. Cuts that
// leave the same are one.
func packAndCut(t *testing.T, l *lab, m medium, from *baddrive.Drive, weaken func(layout.FS) layout.FS) cuts {
	t.Helper()
	var out cuts
	var d *baddrive.Drive
	seen := map[string]bool{}
	cut := func(k int) {
		for _, how := range m.how {
			for seed := range max(1, m.seeds) {
				if seed > 0 && how != baddrive.Random {
					break
				}
				if c := d.Crash(how, seed); !seen[c.Print()] {
					seen[c.Print()] = true
					out.drives = append(out.drives, found{c, fmt.Sprintf("cut at call %d, %s (%d)", k, how, seed)})
				}
			}
		}
	}
	d = from.Crash(baddrive.Kept, 0)
	d.Set(func(o *baddrive.Options) { o.OnWrite = func(k int) { out.n = k; cut(k) } })
	opts := l.options(t, filepath.Join(d.Plug(), "drive"))
	opts.FS, opts.Jobs = m.opens(d, weaken), 2
	trip.Pack(t, opts)
	d.Pull()
	d.Set(func(o *baddrive.Options) { o.OnWrite = nil })
	cut(out.n + 1)
	return out
}

// reference is what packing without a cut comes to.
type reference struct {
	blobs   map[string]digest.Digest
	id      digest.Digest
	records map[digest.Digest]store.Record
}

func refer(t *testing.T, dir string) reference {
	t.Helper()
	b, err := bundle.Open(t.Context(), dir, bundle.OpenOptions{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() // not at the end of the test: the drive is pulled before
	if b.Seal == nil {
		t.Fatal("there is no seal")
	}
	ref := reference{blobs: blobs(t, dir), id: b.Seal.Bundle, records: map[digest.Digest]store.Record{}}
	for d, r := range b.Contents.Records {
		r.Sealed = min(r.Sealed, 1) // which generation it was depends on how often it was tried
		ref.records[d] = r
	}
	return ref
}

// recovery finds out what a rerun makes of drives.
type recovery struct {
	o      *trip.Origin
	m      medium
	want   reference
	sizes  map[string]int64 // of all blobs of the release that is being packed
	sealed []digest.Digest  // blobs of the release that the drive had before, nil if it was empty
	asked  func(d string) bool

	kept int // blobs that were whole and not fetched again
}

// recover returns what is wrong with a drive that was found and packed again.
func (r *recovery) recover(t *testing.T, c found) (problems []string) {
	t.Helper()
	wrong := func(format string, args ...any) {
		problems = append(problems, c.at+": "+fmt.Sprintf(format, args...))
	}
	dir := filepath.Join(c.Plug(), "drive")
	defer c.Pull()
	report, err := verify.Audit(t.Context(), verify.AuditOptions{Media: dir, Signatures: r.o.Verifier, Cache: t.TempDir()})
	switch {
	case err != nil && (r.sealed != nil || !errors.Is(err, bundle.ErrNotBundle)):
		wrong("audit: %v", err)
	case err == nil && report.Status != verify.StatusIncomplete && report.Status != verify.StatusComplete:
		wrong("audit: %s %+v", report.Status, report.Findings)
	}
	if r.sealed != nil {
		site := trip.NewSite(t)
		res, err := apply.Unpack(t.Context(), site.Options(dir))
		if err != nil && !errors.Is(err, bundle.ErrUnsealed) {
			wrong("unpack: %v", err)
		}
		for _, d := range r.sealed {
			if !site.Registry.Has(trip.Repository, d) {
				wrong("%s of the sealed release did not arrive: %+v", d, res.Releases)
				break
			}
		}
		site.Registry.Close()
	}
	had, partial := r.whole(t, dir), map[string]bool{}
	downloads, _ := filepath.Glob(filepath.Join(dir, "pannier", "partial", "*.download"))
	for _, name := range downloads {
		partial[strings.TrimSuffix(filepath.Base(name), ".download")] = true
	}
	r.o.Log.Take()
	opts := withTool(t, r.o.Options(dir, "4.8.22"))
	opts.FS, opts.Jobs = r.m.opens(c.Drive, nil), 2
	res, err := bundle.Pack(t.Context(), opts)
	if err != nil {
		wrong("again: %v", err)
		return problems
	}
	whole := int64(0)
	for d, times := range trip.Blobs(r.o.Log.Take()) {
		hex := strings.TrimPrefix(d, "sha256:")
		if r.asked(d) {
			times-- // the release image is read for the plan
		}
		if partial[hex] {
			times-- // that the tail does not fit what was there is seen at its end
		}
		if had[hex] && times > 0 || times > 1 {
			wrong("%s was whole (%v) and was fetched again, %d times", d, had[hex], times)
		}
	}
	for hex, size := range r.sizes {
		if had[hex] {
			whole += size
			r.kept++
		}
	}
	if !res.Unchanged && res.Moved > r.total()-whole-res.Resumed {
		wrong("%d bytes were moved, with %d of %d whole and %d resumed", res.Moved, whole, r.total(), res.Resumed)
	}
	r.same(t, dir, wrong)
	c.Pull()
	after := c.Crash(baddrive.Lost, 0)
	defer after.Pull()
	r.same(t, filepath.Join(after.Plug(), "drive"), func(format string, args ...any) {
		wrong("after a cut when the rerun was over: "+format, args...)
	})
	return problems
}

// same compares a drive with one that nothing happened to.
func (r *recovery) same(t *testing.T, dir string, wrong func(string, ...any)) {
	t.Helper()
	report, err := verify.Audit(t.Context(), verify.AuditOptions{Media: dir, Signatures: r.o.Verifier, Cache: t.TempDir()})
	if err != nil || report.Status != verify.StatusComplete || len(report.Findings) > 0 {
		wrong("audit: %v %+v", err, report.Findings)
		return
	}
	got := refer(t, dir)
	if !maps.Equal(got.blobs, r.want.blobs) {
		wrong("other blobs than without the cut")
	}
	if got.id != r.want.id {
		wrong("another bundle id")
	}
	if !reflect.DeepEqual(got.records, r.want.records) {
		wrong("other records: %+v", got.records)
	}
}

func (r *recovery) total() (n int64) {
	for _, size := range r.sizes {
		n += size
	}
	return n
}

// whole is the blobs that are on the drive as they must be.
func (r *recovery) whole(t *testing.T, dir string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	entries, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", e.Name()))
		if err != nil {
			continue
		}
		out[e.Name()] = digest.FromBytes(raw).Encoded() == e.Name()
	}
	return out
}

// lab has what a power cut needs: releases, a drive on which the first is sealed, and what a
// pack of the second comes to on an empty one and on that.
type lab struct {
	first, o *trip.Origin // of the release that is sealed; of the one that is packed then, where an image has moved
	r1, r2   *sample.Release
	sealed   []digest.Digest // blobs of r1
}

// tool is the image that moves, so that the seal is followed by removals.
const tool = "quay.io/extra/tool"

// options are those of the pack that is cut.
func (l *lab) options(t *testing.T, media string) bundle.PackOptions {
	t.Helper()
	return withTool(t, l.o.Options(media, "4.8.22"))
}

func withTool(t *testing.T, opts bundle.PackOptions) bundle.PackOptions {
	t.Helper()
	opts.Additional = []release.Reference{trip.Image(t, tool+":v1")}
	return opts
}

func newLab(t *testing.T) *lab {
	t.Helper()
	make := func(version string) *sample.Release {
		return trip.Make(t, sample.Options{Version: version, Components: 3, LayerSize: 12 << 10, LargeLayer: 600 << 10})
	}
	l := &lab{r1: make("4.8.21"), r2: make("4.8.22")}
	l.sealed = l.r1.Digests()
	for r, layer := range map[*sample.Release]string{l.r1: "old", l.r2: "new"} {
		if _, err := r.AddImage(tool, "v1", sample.Image{Layers: [][]byte{[]byte(layer)}}); err != nil {
			t.Fatal(err)
		}
	}
	l.first, l.o = trip.NewOrigin(t, l.r1), trip.NewOrigin(t, l.r2)
	return l
}

// scene returns a drive to pack onto and what recovers from cuts in that.
func (l *lab) scene(t *testing.T, m medium, sealed bool) (*baddrive.Drive, *recovery) {
	t.Helper()
	drive := baddrive.New(t, baddrive.Options{Rules: m.rules})
	r := &recovery{o: l.o, m: m, sizes: map[string]int64{}, asked: func(d string) bool { return ofRelease(t, l.r2, d) }}
	if sealed {
		r.sealed = l.sealed
		trip.Pack(t, withTool(t, l.first.Options(filepath.Join(drive.Plug(), "drive"), "4.8.21")))
		drive.Pull()
		drive.Sync()
	}
	d := drive.Crash(baddrive.Kept, 0)
	dir := filepath.Join(d.Plug(), "drive")
	had := map[string]bool{}
	if sealed {
		for hex := range blobs(t, dir) {
			had[hex] = true
		}
	}
	trip.Pack(t, l.options(t, dir))
	r.want = refer(t, dir)
	for d, rec := range r.want.records {
		if !had[d.Encoded()] {
			r.sizes[d.Encoded()] = rec.Size
		}
	}
	d.Pull()
	return drive, r
}

// A power cut before any call of a pack, whatever of the unsynced survives it: the audit
// never finds damage, what was sealed can be unpacked, and the same command again ends as if
// nothing had happened, without fetching what was there.
func TestPowerCutAnywhere(t *testing.T) {
	l := newLab(t)
	for _, m := range media {
		for _, sealed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, sealed %v", m.name, sealed), func(t *testing.T) {
				from, r := l.scene(t, m, sealed)
				c := packAndCut(t, l, m, from, nil)
				every := max(1, len(c.drives)/cutsPerMedium)
				if allFaults {
					every = 1
				}
				t.Logf("%d calls, %d different drives", c.n, len(c.drives))
				for i, d := range c.drives {
					if i%every != 0 && i != len(c.drives)-1 {
						continue
					}
					for _, p := range r.recover(t, d) {
						t.Error(p)
					}
					c.drives[i] = found{}
				}
				if r.kept == 0 {
					t.Error("nothing was ever there already")
				}
			})
		}
	}
}

// cutsPerMedium is how many drives of each kind are packed again in the quick tests.
const cutsPerMedium = 2

// Without the second sync, and without the sync of folders, a power cut costs what the drive
// says it has: the test above would see it.
func TestPowerCutControls(t *testing.T) {
	l := newLab(t)
	for name, tc := range map[string]struct {
		m      medium
		weaken func(layout.FS) layout.FS
	}{
		"second sync": {media[2], func(f layout.FS) layout.FS { return onceFS{f} }},
		"syncfs":      {media[3], func(f layout.FS) layout.FS { return idleFS{f} }},
		"folders":     {media[0], func(f layout.FS) layout.FS { return namelessFS{f} }},
	} {
		t.Run(name, func(t *testing.T) {
			from, r := l.scene(t, tc.m, false)
			c := packAndCut(t, l, tc.m, from, tc.weaken)
			last := c.drives[len(c.drives)-1] // after the pack was over, sealed and all
			problems := r.recover(t, last)
			for _, d := range c.drives {
				if len(problems) > 0 {
					t.Logf("%.200s", problems[0])
					return
				}
				problems = r.recover(t, d)
			}
			t.Error("nothing was lost")
		})
	}
}

// onceFS does not sync a blob a second time, under its own name.
type onceFS struct{ layout.FS }

func (f onceFS) OpenFile(name string, flag int, perm fs.FileMode) (layout.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err == nil && flag&syscall.O_ACCMODE == os.O_RDONLY && strings.HasPrefix(name, "blobs/") {
		return unsyncedFile{file}, nil
	}
	return file, err
}

type unsyncedFile struct{ layout.File }

func (unsyncedFile) Sync() error { return nil }

// idleFS has a syncfs that does nothing.
type idleFS struct{ layout.FS }

func (idleFS) SyncFS() error { return nil }

// namelessFS does not sync folders.
type namelessFS struct{ layout.FS }

func (namelessFS) SyncDir(string) error { return nil }
