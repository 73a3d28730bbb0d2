package bundle_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/parity"
	"pannier/bundle/release/sample"
)

// rottenFS returns other bytes of every blob but those that are small, once it is read back.
type rottenFS struct {
	layout.FS
	rotten *bool
	few    bool // one blob alone
	struck map[string]bool
}

func (f *rottenFS) OpenFile(name string, flag int, perm os.FileMode) (layout.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil || flag != os.O_RDONLY || !*f.rotten || !strings.HasPrefix(name, "blobs/sha256/") {
		return file, err
	}
	if f.few && len(f.struck) == 1 && !f.struck[name] {
		return file, nil
	}
	f.struck[name] = true
	return rottenFile{file}, nil
}

type rottenFile struct{ layout.File }

func (f rottenFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if n > 0 {
		p[0] ^= 1
	}
	return n, err
}

func (f rottenFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if n > 0 {
		p[0] ^= 1
	}
	return n, err
}

// A drive that returns other bytes is not sealed, and all that it returns wrong is listed, up
// to a number: a bad place is told from a false drive.
func TestReadBackListsAll(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 12, LayerSize: 2 << 10})
	o := trip.NewOrigin(t, r)
	for _, share := range []parity.Share{0, 500} {
		for _, few := range []bool{false, true} {
			t.Run(fmt.Sprintf("parity %s, one blob %v", share, few), func(t *testing.T) {
				opts := o.Options(trip.Drive(t), r.Reference())
				opts.Parity, opts.Jobs = share, 1
				rotten := false
				opts.FS = func(dir string) (layout.FS, error) {
					f, err := layout.OpenFS(dir)
					return &rottenFS{f, &rotten, few, map[string]bool{}}, err
				}
				opts.Progress = func(e bundle.Event) { rotten = rotten || e.Phase == bundle.PhaseReadBack }
				res, err := bundle.Pack(t.Context(), opts)
				if !errors.Is(err, content.ErrDigest) || res.Sealed {
					t.Fatalf("sealed %v: %v", res.Sealed, err)
				}
				listed := strings.Count(err.Error(), "read back at offset 0: ")
				if !few && (listed < 20 || listed > 21 || !strings.Contains(err.Error(), "blobs are not as they were written") || !strings.Contains(err.Error(), " more")) {
					t.Errorf("%d listed: %v", listed, err)
				}
				if few && strings.Contains(err.Error(), "blobs are not as they were written") {
					t.Errorf("one blob: %v", err)
				}
				// The same command makes it whole once the drive returns what it was given.
				opts.FS, opts.Progress = nil, nil
				trip.Pack(t, opts)
				trip.Whole(t, opts.Media)
			})
		}
	}
}
