package bundle_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle"
)

// What a power cut leaves of a bundle, its folder pannier lost, is taken for one by pack, which
// keeps what is right of it; nothing that may be somebody else's is.
func TestPackOntoRemains(t *testing.T) {
	r, next := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	o := trip.NewOrigin(t, r, next)
	sealed := trip.Drive(t)
	o.Pack(sealed, r.Reference())
	hex := strings.Repeat("0", 64)
	for name, tc := range map[string]struct {
		leave func(media string) error // after the folder pannier has gone
		taken bool
	}{
		"all but pannier":      {func(m string) error { return nil }, true},
		"index.json and blobs": {func(m string) error { return drop(m, "START-HERE.txt", "SHA256SUMS", "oci-layout") }, true},
		"texts, no index":      {func(m string) error { return drop(m, "index.json") }, true},
		"zeros":                {func(m string) error { return zero(m, "START-HERE.txt", "SHA256SUMS", "oci-layout", "index.json") }, true},
		"an empty SHA256SUMS": {func(m string) error {
			return errors.Join(drop(m, "START-HERE.txt", "index.json", "oci-layout", "blobs"), zero(m, "SHA256SUMS"))
		}, true},
		"a temporary file": {func(m string) error {
			return os.Rename(filepath.Join(m, "index.json"), filepath.Join(m, "index.json.new"))
		}, true},
		"what Windows leaves": {func(m string) error { return os.Mkdir(filepath.Join(m, "System Volume Information"), 0o755) }, true},
		"another layout": {func(m string) error {
			return errors.Join(drop(m, "START-HERE.txt", "SHA256SUMS"), put(m, "index.json", `{"schemaVersion":2,"manifests":[]}`))
		}, false},
		"no sign, but blobs": {func(m string) error {
			return errors.Join(drop(m, "START-HERE.txt", "SHA256SUMS"), zero(m, "index.json"))
		}, false},
		"somebody's own text": {func(m string) error {
			return errors.Join(drop(m, "SHA256SUMS", "index.json", "blobs"), put(m, "START-HERE.txt", "holidays"))
		}, false},
		"a layout of another version, begun": {func(m string) error {
			return errors.Join(drop(m, "START-HERE.txt", "SHA256SUMS", "index.json", "blobs"), put(m, "oci-layout", `{"imageLayoutVersion":"2.0.0"}`))
		}, false},
		"other files beside":      {func(m string) error { return put(m, "thesis.doc", "x") }, false},
		"other files among blobs": {func(m string) error { return put(m, "blobs/sha256/"+hex[1:], "x") }, false},
		"another folder of blobs": {func(m string) error { return os.Mkdir(filepath.Join(m, "blobs", "sha512"), 0o755) }, false},
		"a link for a file": {func(m string) error {
			return errors.Join(drop(m, "index.json"), os.Symlink("/etc/passwd", filepath.Join(m, "index.json")))
		}, false},
		"a link among blobs": {func(m string) error { return os.Symlink("/etc/passwd", filepath.Join(m, "blobs", "sha256", hex)) }, false},
		"a folder for a file": {func(m string) error {
			return errors.Join(drop(m, "index.json"), os.Mkdir(filepath.Join(m, "index.json"), 0o755))
		}, false},
		"a file for the own folder": {func(m string) error { return put(m, "pannier", "x") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, sealed)
			if err := errors.Join(drop(media, "pannier"), tc.leave(media)); err != nil {
				t.Fatal(err)
			}
			before := trip.Tree(t, media)
			opts := o.Options(media, next.Reference())
			opts.DryRun = true
			if _, err := bundle.Pack(t.Context(), opts); (err == nil) != tc.taken || err != nil && !errors.Is(err, bundle.ErrNotBundle) {
				t.Fatalf("taken %v: %v", err == nil, err)
			}
			if !maps.Equal(before, trip.Tree(t, media)) {
				t.Error("a dry run has changed something")
			}
			opts.DryRun = false
			if !tc.taken {
				if _, err := bundle.Pack(t.Context(), opts); !errors.Is(err, bundle.ErrNotBundle) || !maps.Equal(before, trip.Tree(t, media)) {
					t.Errorf("refused, and nothing changed: %v", err)
				}
				return
			}
			if name == "texts, no index" { // nothing says what the blobs are for
				other := trip.Copy(t, media)
				res := o.Pack(other, next.Reference())
				if trip.Whole(t, other); !strings.Contains(strings.Join(res.Warnings, "\n"), "cannot be told") {
					t.Errorf("warnings: %q", res.Warnings)
				}
			}
			// Both releases at last, whatever the index still told.
			o.Pack(media, r.Reference(), next.Reference())
			if a := trip.Whole(t, media); len(a.Releases) != 2 {
				t.Errorf("%d releases", len(a.Releases))
			}
		})
	}
	// What the layout index names is kept, without being asked for.
	media := trip.Copy(t, sealed)
	if err := drop(media, "pannier"); err != nil {
		t.Fatal(err)
	}
	o.Pack(media, next.Reference())
	if a := trip.Whole(t, media); len(a.Releases) != 2 {
		t.Errorf("%d releases", len(a.Releases))
	}
}

func drop(media string, names ...string) error {
	var errs []error
	for _, n := range names {
		errs = append(errs, os.RemoveAll(filepath.Join(media, n)))
	}
	return errors.Join(errs...)
}

func put(media, name, text string) error {
	return os.WriteFile(filepath.Join(media, filepath.FromSlash(name)), []byte(text), 0o644)
}

// zero keeps the sizes of files, and nothing of their bytes.
func zero(media string, names ...string) error {
	var errs []error
	for _, n := range names {
		fi, err := os.Stat(filepath.Join(media, n))
		if err == nil {
			err = put(media, n, strings.Repeat("\x00", int(fi.Size())))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
