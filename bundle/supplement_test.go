package bundle_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

// lose damages blobs of a release on a drive: a manifest, a layer of its own, a shared one.
func lose(t *testing.T, media string, r *sample.Release) []digest.Digest {
	t.Helper()
	var lost []digest.Digest
	for d, data := range r.Blobs {
		switch {
		case d == r.Components[0].Digest, len(data) > 900 && !strings.HasPrefix(string(data), "{") && len(lost) < 4:
			lost = append(lost, d)
			if err := os.Truncate(trip.Blob(media, d), int64(len(data)/3)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(lost) < 3 {
		t.Fatalf("only %d blobs", len(lost))
	}
	return lost
}

// refetch is the list that an audit makes, through its bytes.
func refetch(t *testing.T, media string) *bundle.RefetchList {
	t.Helper()
	list, without := trip.Audit(t, media).Refetch()
	if without > 0 {
		t.Errorf("%d blobs of nobody", without)
	}
	raw, err := list.Encode()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := bundle.ParseRefetchList(raw)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// only are the options of a pack of a supplement.
func only(o *trip.Origin, media string, list *bundle.RefetchList) bundle.PackOptions {
	opts := o.Options(media)
	opts.Only = list
	return opts
}

// What a drive has lost is fetched by digest onto a supplement, which is sealed and can be
// audited; with it the drive unpacks, and is healed.
func TestSupplement(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 4, LayerSize: 8 << 10})
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	o.Pack(media, "4.8.21")
	lost := lose(t, media, r)
	list := refetch(t, media)
	if len(list.Blobs) != len(lost) || list.Bytes() == 0 {
		t.Fatalf("%+v, lost %v", list, lost)
	}
	supplement := trip.Drive(t)
	o.Log.Take()
	trip.Pack(t, only(o, supplement, list))
	if asked := o.Log.Take(); len(asked) > 3*len(lost)+5 {
		t.Errorf("%d requests for %d blobs", len(asked), len(lost))
	}
	if report := trip.Whole(t, supplement); !strings.Contains(strings.Join(report.Notes, "\n"), "supplement") {
		t.Errorf("%q", report.Notes)
	}
	b := open(t, supplement)
	if !b.Contents.Supplement() || b.Seal.Totals.Blobs != len(lost)+2 {
		t.Errorf("%+v", b.Seal.Totals)
	}
	if again := trip.Pack(t, only(o, supplement, list)); !again.Unchanged {
		t.Error("packed a second time, and something was written")
	}

	// Read from both.
	site := trip.NewSite(t)
	if _, err := apply.Unpack(t.Context(), site.Options(media)); err == nil {
		t.Error("the damaged drive alone was unpacked")
	}
	site = trip.NewSite(t)
	for _, order := range [][]string{{media, supplement}, {supplement, media}} {
		res, err := apply.Unpack(t.Context(), site.Options(order...))
		if err != nil || len(res.Releases) != 1 || !res.Releases[0].Complete {
			t.Fatalf("%v %+v", err, res)
		}
	}
	for _, d := range r.Digests() {
		if !site.Registry.Has(trip.Repository, d) {
			t.Errorf("%s did not arrive", d)
		}
	}

	// Healed from it.
	l, err := layout.Open(supplement, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	report, err := verify.Repair(t.Context(), verify.RepairOptions{
		Audit:  verify.AuditOptions{Media: media, Signatures: o.Verifier, Cache: t.TempDir()},
		Repair: bundle.RepairOptions{From: []bundle.RepairSource{{Name: supplement, Blobs: l, Files: l}}},
	})
	if err != nil || report.Status != verify.StatusComplete {
		t.Fatalf("%v %+v", err, report)
	}
	trip.Whole(t, media)
}

// A supplement is a drive of its own, and holds what the last list named.
func TestSupplementAlone(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 4, LayerSize: 8 << 10})
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	o.Pack(media, "4.8.21")
	whole := trip.Copy(t, media)
	lose(t, media, r)
	list := refetch(t, media)
	if _, err := bundle.Pack(t.Context(), only(o, whole, list)); !errors.Is(err, bundle.ErrSupplement) {
		t.Errorf("onto a drive with a release: %v", err)
	}
	supplement := trip.Drive(t)
	trip.Pack(t, only(o, supplement, list))
	if _, err := bundle.Pack(t.Context(), o.Options(supplement, "4.8.21")); !errors.Is(err, bundle.ErrSupplement) {
		t.Errorf("a release onto a supplement: %v", err)
	}
	list.Blobs = list.Blobs[:1]
	trip.Pack(t, only(o, supplement, list))
	trip.Whole(t, supplement)
	if b := open(t, supplement); b.Seal.Totals.Blobs != 3 {
		t.Errorf("%+v", b.Seal.Totals)
	}
	// Without its index it reads the same.
	found, err := filepath.Glob(filepath.Join(supplement, "pannier", "index-*.db"))
	if err != nil || os.Remove(found[0]) != nil {
		t.Fatal(err)
	}
	if b := open(t, supplement); !b.Contents.Supplement() {
		t.Error("not a supplement by its layout")
	}
	// A registry that has other bytes is found out, and one that has none is said.
	list.Blobs[0].Sources = []string{"quay.io/nobody/nothing"}
	if _, err := bundle.Pack(t.Context(), only(o, trip.Drive(t), list)); err == nil {
		t.Error("packed from a repository that has nothing")
	}
}

func goodList(t testing.TB) *bundle.RefetchList {
	t.Helper()
	list := &bundle.RefetchList{Format: 1, Bundle: digest.FromString("bundle")}
	for _, s := range []string{"b", "a", "c"} {
		list.Blobs = append(list.Blobs, bundle.RefetchBlob{
			Digest: digest.FromString(s), Size: 1, MediaType: ocispec.MediaTypeImageLayerGzip, Sources: []string{"quay.io/a/b"}, Images: []string{"4.8.21-x86_64-etcd"},
		})
	}
	if list.Blobs[0].Digest > list.Blobs[1].Digest {
		list.Blobs[0], list.Blobs[1] = list.Blobs[1], list.Blobs[0]
	}
	list.Blobs = list.Blobs[:2]
	return list
}

func TestParseRefetchList(t *testing.T) {
	encode := func(l *bundle.RefetchList) []byte {
		raw, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	if _, err := bundle.ParseRefetchList(encode(goodList(t))); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*bundle.RefetchList){
		"no blobs":         func(l *bundle.RefetchList) { l.Blobs = nil },
		"format 0":         func(l *bundle.RefetchList) { l.Format = 0 },
		"no bundle":        func(l *bundle.RefetchList) { l.Bundle = "" },
		"a digest twice":   func(l *bundle.RefetchList) { l.Blobs[1] = l.Blobs[0] },
		"out of order":     func(l *bundle.RefetchList) { l.Blobs[0], l.Blobs[1] = l.Blobs[1], l.Blobs[0] },
		"a path":           func(l *bundle.RefetchList) { l.Blobs[0].Digest = "sha256:../../etc" },
		"below nothing":    func(l *bundle.RefetchList) { l.Blobs[0].Size = -1 },
		"more than a blob": func(l *bundle.RefetchList) { l.Blobs[0].Size = 5 << 40 },
		"a large manifest": func(l *bundle.RefetchList) {
			l.Blobs[0].MediaType, l.Blobs[0].Size = ocispec.MediaTypeImageManifest, content.MaxManifest+1
		},
		"an odd type":       func(l *bundle.RefetchList) { l.Blobs[0].MediaType = "a\x1b[2J" },
		"no source":         func(l *bundle.RefetchList) { l.Blobs[0].Sources = nil },
		"many sources":      func(l *bundle.RefetchList) { l.Blobs[0].Sources = make([]string, 17) },
		"a source by tag":   func(l *bundle.RefetchList) { l.Blobs[0].Sources = []string{"quay.io/a/b:latest"} },
		"a source of a URL": func(l *bundle.RefetchList) { l.Blobs[0].Sources = []string{"https://quay.io/a/b"} },
		"a file as source":  func(l *bundle.RefetchList) { l.Blobs[0].Sources = []string{"/etc/passwd"} },
	} {
		l := goodList(t)
		change(l)
		if _, err := bundle.ParseRefetchList(encode(l)); !errors.Is(err, content.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	l := goodList(t)
	l.Format = 2
	if _, err := bundle.ParseRefetchList(encode(l)); !errors.Is(err, bundle.ErrVersion) {
		t.Errorf("a newer format: %v", err)
	}
	for what, raw := range map[string][]byte{
		"nothing": nil, "no JSON": []byte("{"), "two": append(encode(goodList(t)), encode(goodList(t))...),
		"endless": []byte(strings.Repeat(" ", bundle.MaxRefetchList+1)),
	} {
		if _, err := bundle.ParseRefetchList(raw); !errors.Is(err, content.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzParseRefetchList(f *testing.F) {
	raw, err := goodList(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"format":1,"bundle":"sha256:` + zeros + `","blobs":[{"digest":"sha256:` + zeros + `","size":1,"mediaType":"a/b","sources":["quay.io/a/b"]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := bundle.ParseRefetchList(raw)
		if err != nil {
			return
		}
		again, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.ParseRefetchList(again); err != nil {
			t.Errorf("%v: %s", err, again)
		}
		if !json.Valid(again) {
			t.Error("no JSON")
		}
		for _, b := range l.Blobs {
			for _, s := range b.Sources {
				if _, err := release.ParseImageReference(s + "@" + string(b.Digest)); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
