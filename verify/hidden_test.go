package verify_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

// However the list of sums is damaged, it hides no damage to what it lists: the copy of it is as
// good. Where that is gone too, the audit says how much it knows nothing of.
func TestDamagedListHidesNothing(t *testing.T) {
	_, clean := programs(t)
	hidden := []string{toolPath, "START-HERE.txt", "oci-layout", name(t, clean, "pannier/objects/*.yaml"), ocPath}
	list := func(media string) string { return at(media, "SHA256SUMS") }
	for name, hurt := range map[string]func(media string) error{
		"whole":   func(string) error { return nil },
		"removed": func(m string) error { return os.Remove(list(m)) },
		"flipped": func(m string) error { trip.Flip(t, list(m), 10); return nil },
		"edited to agree": func(m string) error {
			raw, err := os.ReadFile(list(m))
			if err != nil {
				return err
			}
			was, now := sums(t, clean, toolPath)[toolPath], sums(t, m, toolPath)[toolPath]
			return os.WriteFile(list(m), []byte(strings.Replace(string(raw), was.Encoded(), now.Encoded(), 1)), 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, clean)
			for _, file := range hidden {
				rewrite(t, at(media, file), []byte("evil"))
			}
			if err := hurt(media); err != nil {
				t.Fatal(err)
			}
			report := trip.Audit(t, media)
			for _, file := range hidden {
				if f := about(report, file); len(f) != 1 || f[0].Kind != verify.KindCorrupt {
					t.Errorf("%s: %+v", file, f)
				}
			}
			if report.Uncompared != 0 {
				t.Errorf("%d files are said not to be compared", report.Uncompared)
			}
			if name == "whole" {
				return
			}
			// Without a copy nothing says how they should be.
			if err := os.Remove(at(media, copyOf(t, media, "SHA256SUMS"))); err != nil {
				t.Fatal(err)
			}
			report = trip.Audit(t, media)
			if n := len(files(t, media)); report.Uncompared < len(hidden) || report.Uncompared > n {
				t.Errorf("%d of %d files are said not to be compared", report.Uncompared, n)
			}
			if !strings.Contains(strings.Join(report.Notes, "\n"), "could not be compared") {
				t.Errorf("%q", report.Notes)
			}
			// A program that nothing vouches for is not sealed anew, and a repair says so.
			report, err := mend(t, media, nil)
			if err != nil || !strings.Contains(strings.Join(report.Notes, "\n"), toolPath+" goes from the drive") {
				t.Errorf("%v, notes %q", err, report.Notes)
			}
			if _, err := os.Stat(at(media, toolPath)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the program is still there: %v", err)
			}
		})
	}
}

// copyOf is the path of the copy of a small file on a drive.
func copyOf(t *testing.T, media, file string) string {
	t.Helper()
	_, g, ok := bundle.Generation(name(t, media, "pannier/seal-*.json"))
	if !ok {
		t.Fatal("no seal")
	}
	return bundle.CopyName(g, file)
}

// What is no file in a blob's own place is replaced by a repair, and nobody is told to remove it
// after; a folder that holds something is taken away by a person first.
func TestRepairInTheBlobsPlace(t *testing.T) {
	d := pickle(t, 500, sample.Options{Components: 3, LayerSize: 64})
	blob := d.blobs[len(d.blobs)-1].Digest
	path := "blobs/sha256/" + blob.Encoded()
	for name, stand := range map[string]func(place string) error{
		"a link":       func(p string) error { return os.Symlink("/etc/passwd", p) },
		"empty folder": func(p string) error { return os.Mkdir(p, 0o755) },
		"full folder":  func(p string) error { return errors.Join(os.Mkdir(p, 0o755), os.WriteFile(p+"/mine", nil, 0o644)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, d.media)
			replace(t, at(media, path), stand)
			full := name == "full folder"
			found := about(trip.Audit(t, media), path)
			if len(found) != 1 || found[0].Healable == full || found[0].Blocked != full || found[0].Freed != full || found[0].ByHand() {
				t.Fatalf("%+v", found)
			}
			report, err := mend(t, media, nil)
			if err != nil || full != (report.Status == verify.StatusDamaged) {
				t.Fatalf("%v %+v", err, report)
			}
			if full {
				if list, _ := report.Refetch(); len(list.Blobs) > 0 {
					t.Errorf("said to be beyond the drive: %+v", list)
				}
				if err := os.RemoveAll(at(media, path)); err != nil {
					t.Fatal(err)
				}
				if report, err = mend(t, media, nil); err != nil || report.Status != verify.StatusComplete {
					t.Fatalf("%v %+v", err, report)
				}
			}
			trip.Whole(t, media)
		})
	}
}
