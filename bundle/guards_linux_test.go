package bundle_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/layout/baddrive"
	"pannier/bundle/parity"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

// cachedFS takes the guard out: what is dropped from the page cache is that of another file.
type cachedFS struct {
	layout.FS
	other *os.File
}

func (f cachedFS) OpenFile(name string, flag int, perm os.FileMode) (layout.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil || flag != os.O_RDONLY {
		return file, err
	}
	return cachedFile{file, f.other}, nil
}

type cachedFile struct {
	layout.File
	other *os.File
}

func (f cachedFile) Fd() uintptr { return f.other.Fd() }

// A drive with bad cells is found because what was written, blobs and small files, is read past
// the page cache; where the cache is not dropped the same drive is sealed, which is what the
// guard is for.
func TestReadBackPassesTheCache(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 3, LayerSize: 64 << 10})
	o := trip.NewOrigin(t, r)
	other, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const blobs, start, index, slices, copies = "partial/", "START-HERE.txt", "pannier/index-", "parity/2/", "parity/copies-"
	for _, arm := range []struct {
		guarded bool
		share   parity.Share // by which of two ways blobs are read back
		where   string
		off     int64
	}{
		{true, 0, blobs, 20 << 10}, {false, 0, blobs, 20 << 10}, {true, 500, blobs, 20 << 10}, {false, 500, blobs, 20 << 10},
		{true, 0, start, 0}, {false, 0, start, 0}, {true, 0, index, 4 << 10}, {false, 0, index, 4 << 10},
		{true, 500, slices, 8 << 10}, {false, 500, slices, 8 << 10},

		// No cache of FUSE has these: nobody read them since.
		{true, 0, "pannier/seal-", 0}, {true, 500, copies, 0},
	} {
		guarded := arm.guarded
		d := baddrive.New(t, baddrive.Options{})
		opts := o.Options(filepath.Join(d.Plug(), "drive"), r.Reference())
		opts.Parity = arm.share
		d.Set(func(o *baddrive.Options) {
			o.Rot = func(path string, off int64) bool { return strings.Contains(path, arm.where) && off == arm.off }
		})
		if !guarded {
			opts.FS = func(dir string) (layout.FS, error) {
				f, err := layout.OpenFS(dir)
				return cachedFS{f, other}, err
			}
		}
		res, err := bundle.Pack(t.Context(), opts)
		switch {
		case guarded && (!errors.Is(err, content.ErrDigest) || res.Sealed):
			t.Errorf("%s: sealed %v: %v", arm.where, res.Sealed, err)
		case !guarded && (err != nil || !res.Sealed):
			t.Errorf("%s: the guard is out, and something else stood in for it: %v", arm.where, err)
		}
		d.Pull()
		d.Plug()
		if !guarded {
			if a := trip.Audit(t, opts.Media); a.Status != verify.StatusDamaged {
				t.Errorf("%s: the drive is not bad at all: %s", arm.where, a.Status)
			}
		}
		d.Pull()
	}
}

// What no seal covers is hashed again on a rerun, whatever its record says, and what is wrong of
// it is fetched again, alone. The same damage under a seal, where the record is trusted, stays:
// it is the hashing that finds it.
func TestRerunHashes(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 4, LayerSize: 64 << 10})
	o := trip.NewOrigin(t, r)
	sealed := trip.Drive(t)
	o.Pack(sealed, r.Reference())
	bad := layerOf(t, r)
	for _, guarded := range []bool{true, false} {
		media := trip.Copy(t, sealed)
		if guarded { // complete by its records, and without a seal
			for _, pattern := range []string{"seal-*", "layout-*"} {
				names, err := filepath.Glob(filepath.Join(media, "pannier", pattern))
				if err != nil || len(names) != 1 || os.Remove(names[0]) != nil {
					t.Fatal(names, err)
				}
			}
			if err := os.Remove(filepath.Join(media, "index.json")); err != nil {
				t.Fatal(err)
			}
		}
		trip.Flip(t, trip.Blob(media, bad), 20)
		o.Log.Take()
		res, err := bundle.Pack(t.Context(), o.Options(media, r.Reference()))
		if err != nil {
			t.Fatal(err)
		}
		fetched := trip.Blobs(o.Log.Take())
		switch status := trip.Audit(t, media).Status; {
		case guarded && (fetched[bad.String()] != 1 || status != verify.StatusComplete || !res.Sealed):
			t.Errorf("fetched %d times, %s", fetched[bad.String()], status)
		case !guarded && (fetched[bad.String()] != 0 || status != verify.StatusDamaged):
			t.Errorf("something else than hashing found it: fetched %d times, %s", fetched[bad.String()], status)
		}
		for d, times := range fetched {
			if d != bad.String() && !ofRelease(t, r, d) {
				t.Errorf("%s was right and was fetched %d times", d, times)
			}
		}
	}
}

// layerOf is a layer of the last component that no other image has.
func layerOf(t *testing.T, r *sample.Release) digest.Digest {
	t.Helper()
	m, err := content.ParseManifest(content.MediaTypeDockerManifest, r.Blobs[r.Components[len(r.Components)-1].Digest])
	if err != nil {
		t.Fatal(err)
	}
	return m.Layers[len(m.Layers)-1].Digest
}
