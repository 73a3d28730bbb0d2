package bundle_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/release/sample"
)

// plainIndex is the bbolt index of a drive, read with bbolt and JSON alone.
type plainIndex map[string]map[string]string // bucket -> key -> value

func readPlain(t *testing.T, media string) plainIndex {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(media, "pannier", "index-*.db"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no index: %v", err)
	}
	slices.Sort(found)
	raw, err := os.ReadFile(found[len(found)-1])
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "index.db")
	if err := os.WriteFile(copied, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(copied, 0o600, &bolt.Options{ReadOnly: true, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	out := plainIndex{}
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			out[string(name)] = map[string]string{}
			return b.ForEach(func(k, v []byte) error {
				out[string(name)][string(k)] = string(v)
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// plainRecord is what docs/format.md says of an entry of the bucket "blobs".
type plainRecord struct {
	Size   int64    `json:"size"`
	State  string   `json:"state"`
	Offset int64    `json:"offset"`
	Source string   `json:"source"`
	Images []string `json:"images"`
}

func (x plainIndex) record(t *testing.T, d digest.Digest) plainRecord {
	t.Helper()
	var r plainRecord
	if err := json.Unmarshal([]byte(x["blobs"][d.String()]), &r); err != nil {
		t.Errorf("blob %s: %v", d, err)
	}
	return r
}

// Opened with bbolt alone, the index tells of every blob its digest, size, state, offset,
// source and owners, and of each release the mirror set and the signatures.
func TestIndexWithBboltAlone(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 4})
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	opts := o.Options(media, "4.8.21")
	opts.Destination = &objects.Destination{Registry: "registry.site.example:5000", Repository: "ocp4/openshift4"}
	trip.Pack(t, opts)
	trip.WholeAtEnd(t, media)
	x := readPlain(t, media)

	onDrive := blobs(t, media)
	if len(x["blobs"]) != len(onDrive) {
		t.Errorf("%d blobs in the index, %d on the drive", len(x["blobs"]), len(onDrive))
	}
	for name := range onDrive {
		d := digest.NewDigestFromEncoded(digest.SHA256, name)
		fi, err := os.Stat(trip.Blob(media, d))
		if err != nil {
			t.Fatal(err)
		}
		got := x.record(t, d)
		if got.Size != fi.Size() || got.State != "complete" || got.Offset != fi.Size() || len(got.Images) == 0 {
			t.Errorf("%s: %+v", d, got)
		}
		if n := len(x["slices"][d.String()]); int64(n) != content.SliceCount(fi.Size())*content.SumSize {
			t.Errorf("%s: %d bytes of slice sums", d, n)
		}
	}
	for _, c := range r.Components {
		got := x.record(t, c.Digest)
		if got.Source != r.ComponentRepository || !slices.Contains(got.Images, "4.8.21-x86_64-"+c.Name) {
			t.Errorf("%s: %+v", c.Name, got)
		}
		var img struct{ Name, Kind, Release, Reference string }
		if err := json.Unmarshal([]byte(x["images"]["4.8.21-x86_64-"+c.Name]), &img); err != nil || img.Name != c.Name || img.Kind != "component" ||
			img.Release != "4.8.21-x86_64" || img.Reference != c.Repository+"@"+c.Digest.String() {
			t.Errorf("image %s: %+v, %v", c.Name, img, err)
		}
	}
	if got := x.record(t, r.Descriptor.Digest); got.Source != r.Repository || !slices.Contains(got.Images, "4.8.21-x86_64") {
		t.Errorf("release image: %+v", got)
	}

	var rel struct {
		Version, Arch, Source, Signature string
		Descriptor                       struct{ Digest string }
		Documents                        []struct {
			Name, Digest string
			Size         int64
		}
	}
	if err := json.Unmarshal([]byte(x["releases"]["4.8.21-x86_64"]), &rel); err != nil {
		t.Fatal(err)
	}
	if rel.Version != "4.8.21" || rel.Arch != "x86_64" || rel.Source != r.Repository || rel.Descriptor.Digest != r.Descriptor.Digest.String() || rel.Signature != "verified" {
		t.Errorf("release: %+v", rel)
	}
	for _, d := range rel.Documents {
		data := x["documents"]["4.8.21-x86_64/"+d.Name]
		if digest.FromString(data).String() != d.Digest || int64(len(data)) != d.Size {
			t.Errorf("document %s: %d bytes", d.Name, len(data))
		}
	}
	sig, err := os.ReadFile(filepath.Join(o.Store, "sha256="+r.Descriptor.Digest.Encoded(), "signature-1"))
	if err != nil || x["documents"]["4.8.21-x86_64/signature-1"] != string(sig) {
		t.Errorf("the signature is not there as the store had it (%v)", err)
	}
	found := ""
	for key, data := range x["documents"] {
		if strings.Contains(data, "registry.site.example:5000/ocp4/openshift4") {
			found = key
		}
	}
	if found != "4.8.21-x86_64/imagecontentsourcepolicy.yaml" {
		t.Errorf("the mirror set is %q", found)
	}
	if src := x["documents"]["4.8.21-x86_64/mirror-sources.json"]; !strings.Contains(src, r.Repository) || !strings.Contains(src, r.ComponentRepository) {
		t.Errorf("mirror sources: %s", src)
	}
}

// After an interruption it tells what is wanted, how far each download has come, and what is
// there.
func TestIndexAfterInterruption(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 4, LayerSize: 64 << 10})
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	n := countBlobs(t, o, o.Options(trip.Drive(t), "4.8.21"))
	opts := o.Options(media, "4.8.21")
	opts.Jobs = 1
	if _, err := bundle.Pack(interrupt(t, o, n/2, true), opts); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	o.Log.Before(nil)
	x := readPlain(t, media)
	onDrive := blobs(t, media)
	states := map[string]int{}
	for _, d := range r.Digests() {
		got := x.record(t, d)
		states[got.State]++
		_, there := onDrive[d.Encoded()]
		if there != (got.State == "complete") || got.Size != int64(len(r.Blobs[d])) || got.Source == "" || len(got.Images) == 0 {
			t.Errorf("%s: there %v, %+v", d, there, got)
		}
		fi, err := os.Stat(filepath.Join(media, "pannier", "partial", d.Encoded()+".download"))
		if (err == nil) != (got.State == "partial") && (err != nil || fi.Size() > 0) {
			t.Errorf("%s: %+v, %v", d, got, err)
		}
		if err == nil && got.Offset != fi.Size() {
			t.Errorf("%s: offset %d, the partial file has %d bytes", d, got.Offset, fi.Size())
		}
	}
	if states["wanted"] == 0 || states["complete"] == 0 || states["partial"] == 0 {
		t.Errorf("states: %v", states)
	}
	if x["documents"]["4.8.21-x86_64/signature-1"] == "" {
		t.Error("the signature is not in the index")
	}
	o.Pack(media, "4.8.21")
	trip.Whole(t, media)
}

// A drive without index, or with a bad one, is read from the layout, which says the same.
func TestIndexRebuilt(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	if _, err := r1.AddImage("quay.io/extra/tool", "v1", sample.Image{}); err != nil {
		t.Fatal(err)
	}
	trip.AddSigstore(t, r1, r1.ComponentRepository, r1.Components[0].Digest)
	o := trip.NewOrigin(t, r1, r2)
	sealed := trip.Drive(t)
	opts := o.Options(sealed, "4.8.21")
	opts.Additional = append(opts.Additional, trip.Image(t, "quay.io/extra/tool:v1"))
	trip.Pack(t, opts)
	good := open(t, sealed).Contents

	for name, damage := range map[string]func(path string) error{
		"gone":    os.Remove,
		"empty":   func(p string) error { return os.Truncate(p, 0) },
		"flipped": func(p string) error { trip.Flip(t, p, 4096); return nil },
		"foreign": func(p string) error { return os.WriteFile(p, []byte("not a database"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			media := trip.Copy(t, sealed)
			found, _ := filepath.Glob(filepath.Join(media, "pannier", "index-*.db"))
			if err := damage(found[0]); err != nil {
				t.Fatal(err)
			}
			b := open(t, media)
			if b.IndexProblem == nil {
				t.Fatal("nothing is wrong with the index")
			}
			if d := good.Differences(b.Contents); len(d) > 0 {
				t.Errorf("index and layout differ: %q", d)
			}
			if d := b.Contents.Differences(good); len(d) > 0 {
				t.Errorf("layout and index differ: %q", d)
			}
			for _, rel := range good.Releases {
				got, ok := b.Contents.Release(rel.Tag)
				if !ok || !reflect.DeepEqual(got.Previous, rel.Previous) || !got.Created.Equal(rel.Created) || !reflect.DeepEqual(got.Documents, rel.Documents) {
					t.Errorf("release %+v, want %+v", got, rel)
				}
			}
			for _, img := range good.Images {
				i := slices.IndexFunc(b.Contents.Images, func(o storeImage) bool { return o.Tag == img.Tag })
				if i < 0 || !reflect.DeepEqual(b.Contents.Images[i], img) {
					t.Errorf("image %+v is not what the layout says: %d", img, i)
				}
			}
			if r := trip.Audit(t, media); r.Status != "damaged" || !slices.ContainsFunc(r.Findings, func(f finding) bool { return f.Kind == "index" }) {
				t.Errorf("audit: %s %+v", r.Status, r.Findings)
			}
			res := o.Pack(media, "4.8.22")
			if len(res.Warnings) == 0 {
				t.Error("nobody was told")
			}
			trip.Whole(t, media)
			if got := len(readPlain(t, media)["blobs"]); got != len(blobs(t, media)) {
				t.Errorf("%d blobs in the index made again, %d on the drive", got, len(blobs(t, media)))
			}
		})
	}
}

// What a drive held stays when its seal is lost and something else is packed.
func TestSealLost(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	if _, err := r1.AddImage("quay.io/extra/tool", "v1", sample.Image{}); err != nil {
		t.Fatal(err)
	}
	o := trip.NewOrigin(t, r1, r2)
	media := trip.Drive(t)
	o.Pack(media, "4.8.21")
	if err := os.Remove(sealOf(t, media)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(trip.Blob(media, digest.FromString("{}"))); err != nil {
		t.Fatal(err)
	}
	// What only the drive held comes back from the manifest index.
	opts := o.Options(media)
	opts.Additional = append(opts.Additional, trip.Image(t, "quay.io/extra/tool:v1"))
	trip.Pack(t, opts)
	trip.Whole(t, media)
	// A manifest that is known to be broken is not believed to be sealed.
	trip.Flip(t, trip.Blob(media, r1.Components[1].Digest), 3)
	opts = o.Options(media, "4.8.21", "4.8.22")
	opts.Additional = append(opts.Additional, trip.Image(t, "quay.io/extra/tool:v1"))
	trip.Pack(t, opts)
	trip.Whole(t, media)
	holds(t, media, r1)
	holds(t, media, r2)
}

// A release that was begun and given up does not stand in the way of another.
func TestPackGivenUp(t *testing.T) {
	r1, r2 := trip.Make(t, sample.Options{Version: "4.8.21", Seed: 1, Components: 3}), trip.Make(t, sample.Options{Version: "4.8.22", Seed: 2, Components: 3})
	o := trip.NewOrigin(t, r1, r2)
	media := trip.Drive(t)
	if _, err := bundle.Pack(interrupt(t, o, 12, true), o.Options(media, "4.8.21")); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	o.Log.Before(nil)
	o.Pack(media, "4.8.22")
	if r := trip.Audit(t, media); r.Status != "incomplete" && r.Status != "complete" {
		t.Errorf("audit: %s %+v", r.Status, r.Findings)
	}
	site := trip.NewSite(t)
	if res := site.Unpack(media); len(res.Releases) != 1 || !res.Releases[0].Complete || res.Releases[0].Tag != "4.8.22-x86_64" {
		t.Errorf("unpacked %+v", res.Releases)
	}
	o.Pack(media, "4.8.21")
	trip.Whole(t, media)
	holds(t, media, r1)
	holds(t, media, r2)
}
