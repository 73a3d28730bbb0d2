package verify_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

// A damaged folder entry makes a file look like a folder. An empty one gives way to the file; one
// that holds something is left alone, said to be beyond healing, and keeps nothing else from
// being healed.
func TestRepairFolderInTheWay(t *testing.T) {
	d := pickle(t, 500, sample.Options{Components: 3, LayerSize: 64})
	media, all := d.media, d.all
	lone := "blobs/sha256/" + d.blobs[len(d.blobs)-1].Digest.Encoded()
	other := name(t, media, "pannier/objects/*.yaml")
	for _, pattern := range []string{
		"index.json", "oci-layout", "SHA256SUMS", "START-HERE.txt", "pannier/layout-*.json", "pannier/index-*.db", "pannier/seal-*.json",
		"pannier/objects/*.yaml", "pannier/parity/*/map-1.bin", "pannier/parity/*/slices-1.bin", lone,
	} {
		file := name(t, media, pattern)
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			empty := trip.Copy(t, media)
			if err := errors.Join(os.Remove(at(empty, file)), os.Mkdir(at(empty, file), 0o755)); err != nil {
				t.Fatal(err)
			}
			if report, err := mend(t, empty, nil); err != nil || report.Status != verify.StatusComplete {
				t.Fatalf("an empty folder: %v %+v", err, report)
			}
			trip.Whole(t, empty)
			if got := sums(t, empty, ""); !strings.Contains(file, "seal-") && !maps.Equal(got, all) {
				t.Error("put back, and not byte for byte")
			}

			if strings.HasPrefix(file, "pannier/parity/") || file == other {
				return // parity is made anew, folder and all
			}
			full := trip.Copy(t, media)
			if err := errors.Join(os.Remove(at(full, file)), os.Mkdir(at(full, file), 0o755), os.WriteFile(at(full, file+"/mine"), nil, 0o644)); err != nil {
				t.Fatal(err)
			}
			trip.Flip(t, at(full, other), 20)
			for _, f := range trip.Audit(t, full).Findings {
				if f.Path == file && f.Healable {
					t.Errorf("said to be healable: %+v", f)
				}
			}
			report, err := mend(t, full, nil)
			if err != nil || report.Status == verify.StatusComplete {
				t.Fatalf("a full folder: %v %+v", err, report)
			}
			if _, err := os.Stat(at(full, file+"/mine")); err != nil {
				t.Error(err)
			}
			if f := about(report, other); file != "SHA256SUMS" && !strings.Contains(file, "seal-") && (len(f) != 1 || !f[0].Repaired) {
				t.Errorf("the other damage was not healed: %+v", report.Findings)
			}
		})
	}
}

// A link or a file where a folder of small files must be is removed, not followed.
func TestRepairLinkForFolder(t *testing.T) {
	media := pickle(t, 500, sample.Options{Components: 3, LayerSize: 64}).media
	blobs := sums(t, media, "blobs/")
	for _, pattern := range []string{"pannier/objects", "pannier/parity", "pannier/parity/[0-9]*", "pannier/parity/copies-*"} {
		folder := name(t, media, pattern)
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			media, outside := trip.Copy(t, media), t.TempDir()
			if err := errors.Join(os.RemoveAll(at(media, folder)), os.WriteFile(filepath.Join(outside, "mine"), nil, 0o644), os.Symlink(outside, at(media, folder))); err != nil {
				t.Fatal(err)
			}
			for _, f := range about(trip.Audit(t, media), folder) {
				if !f.Healable {
					t.Errorf("said to be beyond healing: %+v", f)
				}
			}
			if report, err := mend(t, media, nil); err != nil || report.Status != verify.StatusComplete {
				t.Fatalf("%v %+v", err, report)
			}
			trip.Whole(t, media)
			if !maps.Equal(sums(t, media, "blobs/"), blobs) {
				t.Error("another bundle than before")
			}
			if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
				t.Errorf("outside the drive: %v %v", entries, err)
			}
		})
	}
}

// A damaged index hides what a damaged manifest needs: one repair heals both, whichever blob it
// is.
func TestRepairIndexAndBlob(t *testing.T) {
	d := pickle(t, 500, sample.Options{Components: 1, LayerSize: 64})
	index := name(t, d.media, "pannier/index-*.db")
	for _, b := range d.blobs {
		media := trip.Copy(t, d.media)
		trip.Flip(t, at(media, index), 5000)
		trip.Flip(t, trip.Blob(media, b.Digest), b.Size/2)
		if report, err := mend(t, media, nil); err != nil || report.Status != verify.StatusComplete {
			t.Errorf("%s: %v %+v", b.Digest, err, report)
		}
		if !maps.Equal(sums(t, media, "blobs/"), sums(t, d.media, "blobs/")) {
			t.Errorf("%s: other blobs than before", b.Digest)
		}
	}
}
