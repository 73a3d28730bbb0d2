package bundle_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/release"
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
		"another layout, that names our types": {func(m string) error {
			return errors.Join(drop(m, "START-HERE.txt", "SHA256SUMS"), foreign(m, "", map[string]string{"by": `application/vnd.pannier.release.v1+json`}))
		}, false},
		"another layout, with artifacts of ours": {func(m string) error {
			return errors.Join(drop(m, "START-HERE.txt", "SHA256SUMS"), foreign(m, bundle.ArtifactRelease, map[string]string{ocispec.AnnotationVersion: "4.8.21"}))
		}, false},
		"another layout beside texts of ours": {func(m string) error { return foreign(m, "", nil) }, false},
		"another layout and an empty START-HERE.txt": {func(m string) error {
			return errors.Join(drop(m, "SHA256SUMS"), put(m, "START-HERE.txt", ""), foreign(m, "", nil))
		}, false},
		"another's list of sums": {func(m string) error {
			return errors.Join(drop(m, "START-HERE.txt", "index.json"), put(m, "SHA256SUMS", hex+"  pannier/thesis.doc\n"))
		}, false},
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
	// Who only reads it is told what it is; images that belong to no release are known by the texts.
	for name, refs := range map[string][]string{"a release": {r.Reference()}, "an image": nil} {
		media := trip.Drive(t)
		opts := o.Options(media, refs...)
		if refs == nil {
			opts.Additional = []release.Reference{trip.Image(t, r.Reference())}
		}
		trip.Pack(t, opts)
		if err := drop(media, "pannier"); err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.Open(t.Context(), media, bundle.OpenOptions{Cache: t.TempDir()}); !errors.Is(err, bundle.ErrNotBundle) || !strings.Contains(err.Error(), "pannier wrote it") {
			t.Errorf("%s: %v", name, err)
		}
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

// foreign writes the layout index of somebody else.
func foreign(media, artifact string, annotations map[string]string) error {
	raw, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1, ArtifactType: artifact, Annotations: annotations,
	}}})
	return errors.Join(err, put(media, "index.json", string(raw)))
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
