package verify_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/layout"
	"pannier/bundle/release/sample"
	"pannier/store"
	"pannier/verify"
	"pannier/verify/signature/sign"
)

// mend is a repair with what a test wants otherwise.
func mend(t *testing.T, media string, change func(*verify.RepairOptions)) (*verify.Report, error) {
	t.Helper()
	opts := verify.RepairOptions{
		Audit:  verify.AuditOptions{Media: media, Signatures: trip.Verifier(t, trip.Key()), Cache: t.TempDir()},
		Repair: bundle.RepairOptions{Program: "test"},
	}
	if change != nil {
		change(&opts)
	}
	return verify.Repair(t.Context(), opts)
}

// from is another drive as a source.
func from(t *testing.T, media string) bundle.RepairSource {
	t.Helper()
	l, err := layout.Open(media, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return bundle.RepairSource{Name: media, Blobs: l, Files: l}
}

// sums are the digests of the files below a folder of a drive.
func sums(t *testing.T, media, dir string) map[string]digest.Digest {
	t.Helper()
	out := map[string]digest.Digest{}
	for _, name := range files(t, media) {
		if !strings.HasPrefix(name, dir) {
			continue
		}
		raw, err := os.ReadFile(at(media, name))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = digest.FromBytes(raw)
	}
	return out
}

func bundleID(t *testing.T, media string) string {
	t.Helper()
	b, err := bundle.Open(t.Context(), media, bundle.OpenOptions{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Seal == nil {
		return ""
	}
	return b.Seal.Bundle.String()
}

// name finds the one file that a pattern matches, by its slash path.
func name(t *testing.T, media, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(at(media, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v %v", pattern, found, err)
	}
	rel, err := filepath.Rel(media, found[0])
	if err != nil {
		t.Fatal(err)
	}
	return filepath.ToSlash(rel)
}

// Each kind of damage to each small file, and what does not belong: audit says that it can be
// healed, repair heals it with nothing but the drive, and the audit is clean after.
func TestRepairSmallFiles(t *testing.T) {
	media, _ := small(t)
	blobs, id := sums(t, media, "blobs/"), bundleID(t, media)
	all := sums(t, media, "")
	stray := digest.FromString("stray").Encoded()
	for _, pattern := range []string{
		"index.json", "oci-layout", "SHA256SUMS", "START-HERE.txt", "pannier/layout-*.json", "pannier/index-*.db", "pannier/seal-*.json", "pannier/objects/*.yaml",
	} {
		file := name(t, media, pattern)
		for what, damage := range map[string]func(path string) error{
			"flipped": func(path string) error { trip.Flip(t, path, 20); return nil },
			"cut":     func(path string) error { return os.Truncate(path, 100) },
			"deleted": os.Remove,
			"foreign": func(path string) error { return os.WriteFile(path, []byte("{\"schemaVersion\": 2}\n"), 0o644) },
			"a link":  func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/hosts", path)) },
		} {
			if strings.Contains(file, "seal-") && what != "flipped" && what != "foreign" {
				continue // that no seal was ever written looks the same
			}
			t.Run(what+" "+file, func(t *testing.T) {
				t.Parallel()
				media := trip.Copy(t, media)
				if err := damage(at(media, file)); err != nil {
					t.Fatal(err)
				}
				before := trip.Audit(t, media)
				for _, f := range before.Findings {
					if !f.Healable && f.Kind != verify.KindUnsealed {
						t.Errorf("not healable: %+v", f)
					}
				}
				report, err := mend(t, media, nil)
				if err != nil || report.Status != verify.StatusComplete || len(report.Findings) == 0 {
					t.Fatalf("%v %+v", err, report)
				}
				for _, f := range report.Findings {
					if !f.Repaired {
						t.Errorf("%+v", f)
					}
				}
				trip.Whole(t, media)
				if !maps.Equal(sums(t, media, "blobs/"), blobs) || bundleID(t, media) != id {
					t.Error("another bundle than before")
				}
				resealed := slices.ContainsFunc(report.Notes, func(n string) bool { return strings.Contains(n, "new generation") })
				if !resealed && !maps.Equal(sums(t, media, ""), all) {
					t.Error("put back, and not byte for byte")
				}
				if resealed && !strings.Contains(file, "seal-") {
					t.Errorf("%s could be put back, and was published anew", file)
				}
			})
		}
	}
	for what, damage := range map[string]func(media string) error{
		"an orphan":      func(m string) error { return os.WriteFile(at(m, "blobs/sha256/"+stray), []byte("stray"), 0o644) },
		"a wrong orphan": func(m string) error { return os.WriteFile(at(m, "blobs/sha256/"+stray), []byte("other"), 0o644) },
		"a stale partial file": func(m string) error {
			return os.WriteFile(at(m, "pannier/partial/"+stray+".download"), []byte("s"), 0o644)
		},
		"a seal of nobody": func(m string) error {
			return os.WriteFile(at(m, "pannier/seal-77.json"), []byte(`{"format":1}`), 0o644)
		},
		"an older index": func(m string) error { return os.WriteFile(at(m, "pannier/index-1.db"), []byte("x"), 0o644) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, media)
			if err := damage(media); err != nil {
				t.Fatal(err)
			}
			if r := trip.Audit(t, media); len(r.Findings) != 1 || !r.Findings[0].Healable {
				t.Fatalf("%+v", r.Findings)
			}
			if r, err := mend(t, media, nil); err != nil || r.Status != verify.StatusComplete {
				t.Fatalf("%v %+v", err, r)
			}
			trip.Whole(t, media)
			if !maps.Equal(sums(t, media, "blobs/"), blobs) || bundleID(t, media) != id {
				t.Error("another bundle than before")
			}
		})
	}
	// What is not ours stays.
	for _, foreign := range []string{"blobs/sha256/notes.txt", "pannier/notes.txt", "notes.txt"} {
		media := trip.Copy(t, media)
		if err := os.WriteFile(at(media, foreign), []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := mend(t, media, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(at(media, foreign)); err != nil {
			t.Error(err)
		}
	}
}

// Every blob, damaged in turn in each way, is healed from another drive; captured documents
// from the drive itself; and without a source nothing changes.
func TestRepairEveryBlob(t *testing.T) {
	media, _ := small(t)
	other := from(t, trip.Copy(t, media))
	all := sums(t, media, "")
	own := 0
	for i, file := range slices.Sorted(maps.Keys(sums(t, media, "blobs/"))) {
		path := at(media, file)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		switch i % 4 {
		case 0:
			trip.Flip(t, path, int64(len(raw)/2))
		case 1:
			err = os.Truncate(path, int64(len(raw)/2))
		case 2:
			err = os.Remove(path)
		case 3:
			err = os.WriteFile(path, make([]byte, len(raw)), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		before := trip.Audit(t, media)
		damaged := sums(t, media, "")
		report, err := mend(t, media, nil)
		if err != nil {
			t.Fatal(err)
		}
		if found := about(before, file); len(found) != 1 || found[0].Healable != (report.Status == verify.StatusComplete) {
			t.Errorf("%s: said %+v, and it became %s", file, found, report.Status)
		}
		if report.Status == verify.StatusComplete {
			own++
		} else {
			if !maps.Equal(sums(t, media, ""), damaged) {
				t.Errorf("%s: what could not be healed was changed", file)
			}
			if found := about(report, file); len(found) != 1 || !strings.Contains(found[0].Detail, "not healed") {
				t.Errorf("%s: %+v", file, report.Findings)
			}
			if report, err = mend(t, media, func(o *verify.RepairOptions) { o.Repair.From = []bundle.RepairSource{other} }); err != nil || report.Status != verify.StatusComplete {
				t.Fatalf("%s: %v %+v", file, err, report)
			}
		}
		if !maps.Equal(sums(t, media, ""), all) {
			t.Fatalf("%s: healed, and the drive is another", file)
		}
	}
	if own < 5 {
		t.Errorf("only %d blobs were healed without another drive", own)
	}
	trip.Whole(t, media)
}

// A repair that is cut off at any call that changes something leaves no more damage than
// there was, and the next one goes on to the end.
func TestRepairCutAnywhere(t *testing.T) {
	clean, r := packed(t, sample.Options{Components: 3, LayerSize: 2 << 10})
	other := from(t, trip.Copy(t, clean))
	all := sums(t, clean, "")
	media := trip.Copy(t, clean)
	layers := r.Digests()
	trip.Flip(t, trip.Blob(media, layers[0]), 3)
	if err := errors.Join(os.Remove(trip.Blob(media, layers[1])), os.Remove(at(media, "SHA256SUMS")), os.Remove(at(media, "index.json")),
		os.WriteFile(at(media, name(t, media, "pannier/index-*.db")), []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	kinds := func(r *verify.Report) map[string]bool {
		out := map[string]bool{}
		for _, f := range r.Findings {
			if !f.Repaired && f.Kind != verify.KindPartial {
				out[f.Path] = true
			}
		}
		return out
	}
	for _, reseal := range []bool{false, true} {
		start := trip.Copy(t, media)
		if reseal { // the destination that it names is nowhere else: a new generation
			if err := os.WriteFile(at(start, "pannier/seal-99.json"), []byte(`{"format": 1}`), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		had := kinds(trip.Audit(t, start))
		counter := &trip.Cut{}
		run := func(media string, cut *trip.Cut) (*verify.Report, error) {
			return mend(t, media, func(o *verify.RepairOptions) {
				o.Repair.From = []bundle.RepairSource{other}
				o.Repair.FS = cut.FS
			})
		}
		reference := trip.Copy(t, start)
		if report, err := run(reference, counter); err != nil || report.Status != verify.StatusComplete {
			t.Fatalf("%v %+v", err, report)
		}
		n := counter.Calls()
		if n < 15 {
			t.Fatalf("only %d calls", n)
		}
		t.Logf("%d calls", n)
		for k := 1; k <= n && !t.Failed(); k++ {
			media := trip.Copy(t, start)
			cut := &trip.Cut{At: k}
			_, err := run(media, cut)
			if err == nil && !strings.HasSuffix(cut.Call, "pannier/lock") {
				t.Errorf("call %d, %s: no error", k, cut.Call)
			}
			for path := range kinds(trip.Audit(t, media)) {
				if !had[path] && !(reseal && strings.HasPrefix(path, "pannier")) {
					t.Errorf("call %d, %s: %s is damaged, and was not before", k, cut.Call, path)
				}
			}
			if bundleID(t, media) == "" {
				t.Errorf("call %d, %s: the seal is gone", k, cut.Call)
			}
			report, err := run(media, &trip.Cut{})
			if err != nil || report.Status != verify.StatusComplete {
				t.Errorf("call %d, %s: again: %v %+v", k, cut.Call, err, report)
				continue
			}
			trip.Whole(t, media)
			if !reseal && !maps.Equal(sums(t, media, ""), all) || !maps.Equal(sums(t, media, "blobs/"), sums(t, clean, "blobs/")) {
				t.Errorf("call %d, %s: another bundle", k, cut.Call)
			}
		}
	}
}

// What a pack that was given up has left stays until it is told to go; then the sealed
// releases are whole, and nothing else is there.
func TestRepairDropsUnfinished(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Make(t, sample.Options{Version: "4.8.22", Components: 4, LayerSize: 1 << 10, Seed: 9})
	o := trip.NewOrigin(t, r1, r2)
	sealed := trip.Drive(t)
	o.Pack(sealed, "4.8.21")
	blobs, id := sums(t, sealed, "blobs/"), bundleID(t, sealed)
	counter := &trip.Cut{}
	opts := o.Options(trip.Copy(t, sealed), "4.8.22")
	opts.FS, opts.Jobs = counter.FS, 1
	trip.Pack(t, opts)
	n, dropped := counter.Calls(), 0
	for k := 3; k <= n; k += 1 + n/12 {
		media := trip.Copy(t, sealed)
		opts := o.Options(media, "4.8.22")
		opts.FS, opts.Jobs = (&trip.Cut{At: k}).FS, 1
		if _, err := bundle.Pack(t.Context(), opts); err == nil {
			continue
		}
		if bundleID(t, media) != id {
			continue // cut after the seal
		}
		before := trip.Audit(t, media)
		if before.Status == verify.StatusComplete {
			continue // nothing was begun
		}
		dropped++
		had := sums(t, media, "blobs/")
		report, err := mend(t, media, nil)
		if err != nil || report.Status != verify.StatusIncomplete {
			t.Fatalf("call %d: without the flag: %v %+v", k, err, report)
		}
		if !slices.ContainsFunc(report.Notes, func(n string) bool { return strings.Contains(n, "--drop-unfinished removes them") }) {
			t.Errorf("call %d: %q", k, report.Notes)
		}
		if !maps.Equal(sums(t, media, "blobs/"), had) {
			t.Fatalf("call %d: an unfinished pack lost blobs", k)
		}
		again := trip.Copy(t, media) // and can still be finished
		report, err = mend(t, media, func(o *verify.RepairOptions) { o.Repair.Drop = true })
		if err != nil || report.Status != verify.StatusComplete {
			t.Fatalf("call %d: %v %+v", k, err, report)
		}
		trip.Whole(t, media)
		if !maps.Equal(sums(t, media, "blobs/"), blobs) || bundleID(t, media) != id {
			t.Errorf("call %d: another bundle than before the pack", k)
		}
		o.Pack(again, "4.8.22")
		trip.Whole(t, again)
	}
	if dropped < 4 {
		t.Errorf("only %d packs were dropped", dropped)
	}

	// Given up for another: the notes are in the sealed index by then.
	media := trip.Copy(t, sealed)
	opts = o.Options(media, "4.8.22")
	opts.FS, opts.Jobs = (&trip.Cut{At: n / 2}).FS, 1
	if _, err := bundle.Pack(t.Context(), opts); err == nil {
		t.Fatal("it was not cut")
	}
	opts = o.Options(media, "4.8.21")
	opts.Refresh = true
	o.PutSignature(r1.Descriptor.Digest, trip.Key().Message(sign.Payload(r1.Descriptor.Digest, r1.Reference()), sign.Options{Created: time.Unix(1_710_000_000, 0)}))
	trip.Pack(t, opts)
	if r := trip.Audit(t, media); r.Status != verify.StatusIncomplete {
		t.Fatalf("%s %+v", r.Status, r.Findings)
	}
	report, err := mend(t, media, func(o *verify.RepairOptions) { o.Repair.Drop = true })
	if err != nil || report.Status != verify.StatusComplete {
		t.Fatalf("%v %+v", err, report)
	}
	trip.Whole(t, media)
}

// Of a bundle that never came to a seal only stale files go.
func TestRepairNeverSealed(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	opts := o.Options(media, "4.8.21")
	opts.FS, opts.Jobs = (&trip.Cut{At: 60}).FS, 1
	if _, err := bundle.Pack(t.Context(), opts); err == nil {
		t.Fatal("it was not cut")
	}
	if err := os.Remove(at(media, "pannier/lock")); err != nil { // which the repair takes and removes
		t.Fatal(err)
	}
	before := sums(t, media, "")
	stale := "pannier/partial/" + digest.FromString("stray").Encoded() + ".download"
	if err := os.WriteFile(at(media, stale), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	report, err := mend(t, media, func(o *verify.RepairOptions) { o.Repair.Drop = true })
	if err != nil || report.Status != verify.StatusIncomplete {
		t.Fatalf("%v %+v", err, report)
	}
	if after := sums(t, media, ""); !maps.Equal(before, after) {
		t.Errorf("progress was touched: %v, was %v", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
	}
	o.Pack(media, "4.8.21")
	trip.Whole(t, media)
}

func TestRepairRefused(t *testing.T) {
	media, _ := small(t)
	if err := os.Remove(at(media, "START-HERE.txt")); err != nil {
		t.Fatal(err)
	}
	before := sums(t, media, "")
	// The first of two at once has the drive.
	first, err := bundle.OpenRepair(bundle.RepairOptions{Media: media, Cache: t.TempDir(), Program: "the first"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mend(t, media, nil); !errors.Is(err, layout.ErrLocked) || !strings.Contains(err.Error(), "the first") {
		t.Errorf("%v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := mend(t, media, func(o *verify.RepairOptions) {
		o.Repair.FS = func(dir string) (layout.FS, error) {
			f, err := layout.OpenFS(dir)
			return protected{f}, err
		}
	}); !errors.Is(err, layout.ErrReadOnly) {
		t.Errorf("write-protected: %v", err)
	}
	if !maps.Equal(sums(t, media, ""), before) {
		t.Error("a repair that was refused wrote")
	}
	if _, err := mend(t, t.TempDir(), nil); !errors.Is(err, bundle.ErrNotBundle) {
		t.Errorf("%v", err)
	}
}

// protected is a drive with its switch on.
type protected struct{ layout.FS }

func (p protected) OpenFile(name string, flag int, perm os.FileMode) (layout.File, error) {
	if flag&(os.O_CREATE|os.O_WRONLY|os.O_RDWR) != 0 {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EROFS}
	}
	return p.FS.OpenFile(name, flag, perm)
}

// Drives that an enemy made are repaired to nothing worse than they are: what is outside stays,
// what nobody vouches for is not sealed.
func TestRepairHostile(t *testing.T) {
	media, r := small(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := r.Components[0].Digest
	for what, tc := range map[string]struct {
		damage func(media string) error
		whole  bool
	}{
		"a link for a blob": {func(m string) error {
			return errors.Join(os.Remove(trip.Blob(m, d)), os.Symlink(outside, trip.Blob(m, d)))
		}, true},
		"a folder for a blob": {func(m string) error {
			return errors.Join(os.Remove(trip.Blob(m, d)), os.Mkdir(trip.Blob(m, d), 0o755))
		}, true},
		"a pipe for the sums": {func(m string) error { return errors.Join(os.Remove(at(m, "SHA256SUMS")), mkfifo(at(m, "SHA256SUMS"))) }, true},
		"links for temporary files": {func(m string) error {
			return errors.Join(os.Remove(at(m, "index.json")), os.Symlink(outside, at(m, "index.json.new")))
		}, true},
		"a link for a partial file": {func(m string) error {
			return errors.Join(os.Remove(trip.Blob(m, d)), os.Symlink(outside, at(m, "pannier/partial/"+d.Encoded()+".download")))
		}, true},
		"a link for the folder of objects": {func(m string) error {
			return errors.Join(os.RemoveAll(at(m, "pannier/objects")), os.Symlink(filepath.Dir(outside), at(m, "pannier/objects")))
		}, true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			other := from(t, trip.Copy(t, media))
			media := trip.Copy(t, media)
			if err := tc.damage(media); err != nil {
				t.Skip(err)
			}
			report, err := mend(t, media, func(o *verify.RepairOptions) { o.Repair.From = []bundle.RepairSource{other} })
			if tc.whole != (err == nil && report.Status == verify.StatusComplete) {
				t.Errorf("%v %+v", err, report)
			}
			if raw, err := os.ReadFile(outside); err != nil || string(raw) != "mine" {
				t.Errorf("outside: %q %v", raw, err)
			}
		})
	}
}

// A source that lies is no source.
func TestRepairFromALiar(t *testing.T) {
	media, r := small(t)
	d := r.Components[0].Digest
	liar := trip.Copy(t, media)
	trip.Flip(t, trip.Blob(liar, d), 1)
	trip.Flip(t, trip.Blob(media, d), 2)
	damaged := sums(t, media, "")
	report, err := mend(t, media, func(o *verify.RepairOptions) { o.Repair.From = []bundle.RepairSource{from(t, liar)} })
	if err != nil || report.Status != verify.StatusDamaged || !maps.Equal(sums(t, media, ""), damaged) {
		t.Errorf("a source that lies: %v %+v", err, report)
	}
}

// A release that is not what its image says, sealed by somebody who could, is not sealed again.
func TestRepairSealsNoLies(t *testing.T) {
	media, _ := small(t)
	trip.Reseal(t, media, func(e *trip.Edit) {
		e.Put("4.8.21-x86_64-etcd", func(img *store.Image) { img.Name = "kubelet" })
	})
	if err := os.Remove(at(media, "START-HERE.txt")); err != nil {
		t.Fatal(err)
	}
	id := bundleID(t, media)
	report, err := mend(t, media, nil)
	if err != nil || report.Status != verify.StatusDamaged || bundleID(t, media) != id ||
		slices.ContainsFunc(report.Notes, func(n string) bool { return strings.Contains(n, "new generation") }) {
		t.Errorf("%v %+v", err, report)
	}
}
