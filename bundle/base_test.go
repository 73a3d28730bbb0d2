package bundle_test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/trip"
	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/store"
	"pannier/verify"
)

// keeping is a drive with one image of every kind, and another release that can be packed onto it.
type keeping struct {
	*trip.Origin
	sealed      string
	first, next *sample.Release
	kinds       map[string]digest.Digest // a manifest of each kind of image
}

func newKeeping(t *testing.T) *keeping {
	k := &keeping{
		first:  trip.Make(t, sample.Options{Version: "4.8.21", Components: 3, LayerSize: 1 << 10, Seed: 1, Multi: true}),
		next:   trip.Make(t, sample.Options{Version: "4.8.22", Components: 3, LayerSize: 1 << 10, Seed: 7}),
		sealed: trip.Drive(t), kinds: map[string]digest.Digest{},
	}
	if _, err := k.first.AddList("quay.io/extra/tool", "v1", true, "x86_64", "s390x"); err != nil {
		t.Fatal(err)
	}
	trip.AddSigstore(t, k.first, k.first.Repository, k.first.Descriptor.Digest)
	k.Origin = trip.NewOrigin(t, k.first, k.next)
	opts := k.Options(k.sealed, k.first.Reference())
	opts.Additional = []release.Reference{trip.Image(t, "quay.io/extra/tool:v1")}
	trip.Pack(t, opts)
	b := open(t, k.sealed)
	roots := map[digest.Digest]bool{}
	for _, img := range b.Contents.Images {
		k.kinds[img.Kind] = img.Descriptor.Digest
		roots[img.Descriptor.Digest] = true
	}
	for d, r := range b.Contents.Records {
		if content.IsManifest(r.MediaType) && !roots[d] && strings.HasPrefix(r.Images[0], "4.8.21-multi-") {
			k.kinds["child"] = d
		}
	}
	if len(k.kinds) != 6 {
		t.Fatalf("kinds: %v", k.kinds)
	}
	return k
}

// takeAway takes the seal away, or all that is pannier's own.
func takeAway(t *testing.T, media, what string) {
	t.Helper()
	if what == nothing {
		return
	}
	names, err := filepath.Glob(filepath.Join(media, what))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	if err := os.RemoveAll(names[0]); err != nil {
		t.Fatal(err)
	}
}

// spoil damages a manifest, or removes it.
func spoil(t *testing.T, media string, d digest.Digest, how string) {
	t.Helper()
	if how == "flipped" {
		trip.Flip(t, trip.Blob(media, d), 10)
	} else if err := os.Remove(trip.Blob(media, d)); err != nil {
		t.Fatal(err)
	}
}

// onlyNeeded fails if something was fetched that stood right on the sealed drive.
func (k *keeping) onlyNeeded(t *testing.T, broken digest.Digest) {
	t.Helper()
	have := blobs(t, k.sealed)
	if err := k.first.Walk(k.first.Descriptor, func(d ocispec.Descriptor) error {
		delete(have, d.Digest.Encoded()) // is read for the plan, whatever the drive has
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, img := range k.first.Images { // so are signatures
		if strings.HasSuffix(img.Tag, ".sig") {
			k.first.Walk(img.Descriptor, func(d ocispec.Descriptor) error { delete(have, d.Digest.Encoded()); return nil })
		}
	}
	for d := range trip.Blobs(k.Log.Take()) {
		if _, ok := have[digest.Digest(d).Encoded()]; ok && d != broken.String() {
			t.Errorf("%s was right on the drive, and was fetched again", d)
		}
	}
}

// What is lost of pannier's own.
const (
	nothing   = ""
	sealLost  = "pannier/seal-*.json"
	indexLost = "pannier/index-*.db"
	ownLost   = "pannier"
)

// What a drive without a valid seal names is kept when another release is packed, whatever one
// manifest of it is like: what is sound is hashed, what is broken is fetched.
func TestPackKeepsWhatIsSound(t *testing.T) {
	k := newKeeping(t)
	for kind, d := range k.kinds {
		for _, lost := range []string{nothing, sealLost, indexLost, ownLost} {
			for _, how := range []string{"flipped", "removed"} {
				t.Run(fmt.Sprint(kind, "/", lost, "/", how), func(t *testing.T) {
					media := trip.Copy(t, k.sealed)
					takeAway(t, media, lost)
					spoil(t, media, d, how)
					k.Log.Take()
					res := k.Pack(media, k.next.Reference())
					k.onlyNeeded(t, d)
					if kind == store.KindDocuments && (lost == indexLost || lost == ownLost) {
						// They are in no registry; the release is told of, and waits.
						if !strings.Contains(strings.Join(res.Warnings, "\n"), "4.8.21-multi") || len(res.Releases) != 1 {
							t.Errorf("%+v: %q", res.Releases, res.Warnings)
						}
						if a := trip.Audit(t, media); a.Status != verify.StatusIncomplete || len(a.Releases) != 1 {
							t.Errorf("audit: %s: %+v", a.Status, a.Findings)
						}
						k.Log.Take()
						k.Pack(media, k.first.Reference())
						k.onlyNeeded(t, d)
					}
					if a := trip.Whole(t, media); len(a.Releases) != 2 || a.Additional != 1 {
						t.Errorf("%d releases, %d images", len(a.Releases), a.Additional)
					}
					if how == "removed" {
						return
					}
					// Asked for again with the other, it is the same drive.
					again := trip.Copy(t, k.sealed)
					takeAway(t, again, lost)
					spoil(t, again, d, how)
					k.Log.Take()
					k.Pack(again, k.first.Reference(), k.next.Reference())
					k.onlyNeeded(t, d)
					trip.Whole(t, again)
					if !maps.Equal(blobs(t, again), blobs(t, media)) {
						t.Error("asked for again, other blobs are there")
					}
				})
			}
		}
	}
}

// What nobody has any more is left out of the seal by name; the rest of it stays.
func TestPackSetsAside(t *testing.T) {
	k := newKeeping(t)
	for kind, d := range k.kinds {
		if kind == store.KindDocuments {
			continue // those come back from the index, or see above
		}
		words, refresh := ", which the drive holds, is not whole", kind == store.KindSignature
		if refresh {
			words = " on the drive cannot be read and is left out"
		}
		for _, lost := range []string{sealLost, ownLost} {
			t.Run(fmt.Sprint(kind, "/", lost), func(t *testing.T) {
				media := trip.Copy(t, k.sealed)
				takeAway(t, media, lost)
				spoil(t, media, d, "flipped")
				k.Log.Before(func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasSuffix(r.URL.Path, "/manifests/"+d.String()) {
						return false
					}
					w.WriteHeader(http.StatusNotFound)
					return true
				})
				defer k.Log.Before(nil)
				res := k.Pack(media, k.next.Reference())
				told := strings.Join(res.Warnings, "\n")
				name := "4.8.21-multi"
				switch {
				case kind == store.KindSignature:
					name = release.SigstoreTag(k.first.Descriptor.Digest)
				case kind == store.KindAdditional:
					name = "quay.io/extra/tool:v1"
				}
				if !strings.Contains(told, name+words) || strings.Count(told, words) != 1 {
					t.Errorf("told of %s: %q", name, told)
				}
				for _, f := range trip.Audit(t, media).Findings {
					if f.Kind != verify.KindPartial {
						t.Errorf("%+v", f)
					}
				}
				// Once it can be had again, packing it fetches nothing else.
				k.Log.Before(nil)
				k.Log.Take()
				opts := k.Options(media, k.first.Reference())
				opts.Additional = []release.Reference{trip.Image(t, "quay.io/extra/tool:v1")}
				opts.Refresh = refresh
				trip.Pack(t, opts)
				k.onlyNeeded(t, d)
				if b := open(t, media); len(b.Contents.Images) != len(open(t, k.sealed).Contents.Images)+5 {
					t.Errorf("%d images", len(b.Contents.Images))
				}
				if a := trip.Whole(t, media); len(a.Releases) != 2 || a.Additional != 1 {
					t.Errorf("%d releases, %d images", len(a.Releases), a.Additional)
				}
			})
		}
	}
}
