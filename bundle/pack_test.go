package bundle_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/store"
)

// open opens a drive for reading.
func open(t *testing.T, media string) *bundle.Bundle {
	t.Helper()
	b, err := bundle.Open(t.Context(), media, bundle.OpenOptions{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// blobs lists blobs/sha256 with the sum of each file.
func blobs(t *testing.T, media string) map[string]digest.Digest {
	t.Helper()
	out := map[string]digest.Digest{}
	for name, s := range trip.Tree(t, filepath.Join(media, "blobs", "sha256")) {
		if s.Mode.IsRegular() {
			out[name] = s.Sum
		}
	}
	return out
}

// holds fails unless every blob of r is on the drive, byte for byte.
func holds(t *testing.T, media string, r *sample.Release) {
	t.Helper()
	have := blobs(t, media)
	for _, d := range r.Digests() {
		if have[d.Encoded()] != d {
			t.Errorf("%s of %s: on the drive as %q", d, r.Version, have[d.Encoded()])
		}
	}
}

func TestPackFresh(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    sample.Options
	}{
		{"docker gzip", sample.Options{}},
		{"oci zstd", sample.Options{OCI: true, Compression: "zstd"}},
		{"shared digest", sample.Options{SharedDigest: true, Components: 4}},
		{"multi", sample.Options{Multi: true, Components: 4, SharedDigest: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := trip.Make(t, tc.o)
			o := trip.NewOrigin(t, r)
			media := trip.Drive(t)
			res := o.Pack(media, r.Reference())
			tag := release.Tag(r.Version, r.Arch)
			if len(res.Releases) != 1 || res.Releases[0].Tag != tag || res.Releases[0].Digest != r.Descriptor.Digest.String() ||
				res.Releases[0].Images != len(r.Components) || res.Releases[0].Signature.Status != bundle.SignatureVerified || res.Releases[0].Kept {
				t.Errorf("result: %+v", res.Releases)
			}
			holds(t, media, r)
			for d, n := range trip.Blobs(o.Log.Take()) {
				if n > 2 { // once to read the payload, once to carry it
					t.Errorf("blob %s was fetched %d times", d, n)
				}
			}
			report := trip.Whole(t, media)
			if len(report.Releases) != 1 || report.Releases[0].Images != len(r.Components) || report.Releases[0].Signature != bundle.SignatureVerified {
				t.Errorf("audit: %+v", report.Releases)
			}

			// index.json names everything by the tags that oc writes, with true media types.
			raw, err := os.ReadFile(filepath.Join(media, "index.json"))
			if err != nil {
				t.Fatal(err)
			}
			idx, err := layout.ParseIndex(raw)
			if err != nil {
				t.Fatal(err)
			}
			named := map[string]ocispec.Descriptor{}
			for _, d := range idx.Manifests {
				named[d.Annotations[ocispec.AnnotationRefName]] = d
			}
			want := map[string]digest.Digest{tag: r.Descriptor.Digest}
			for _, c := range r.Components {
				want[tag+"-"+c.Name] = c.Digest
			}
			for tag, d := range want {
				if named[tag].Digest != d {
					t.Errorf("%s is %s, want %s", tag, named[tag].Digest, d)
				}
			}
			if got := named[tag]; got.MediaType != r.Descriptor.MediaType || got.Size != r.Descriptor.Size {
				t.Errorf("%s: %+v, want %+v", tag, got, r.Descriptor)
			}
			if len(named) != len(want)+1 {
				t.Errorf("%d entries with names, want %d and the documents", len(named), len(want))
			}
			b := open(t, media)
			if b.IndexProblem != nil || b.Seal == nil || b.Interrupted || b.Leftovers {
				t.Errorf("%+v", b)
			}
			if b.Seal.Bundle != bundle.ID(idx) || b.Seal.Totals.Blobs != len(blobs(t, media)) || b.Seal.ReadBack.Blobs != b.Seal.Totals.Blobs {
				t.Errorf("seal: %+v", b.Seal)
			}
		})
	}
}

// The same command again costs one request for each release and changes nothing at all.
func TestPackAgain(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	extra, err := r1.AddImage("quay.io/extra/tool", "v1", sample.Image{})
	if err != nil {
		t.Fatal(err)
	}
	o := trip.NewOrigin(t, r1, r2)
	media := trip.Drive(t)
	opts := func() bundle.PackOptions {
		opts := o.Options(media, "4.8.21", "4.8.22")
		opts.Additional = []release.Reference{trip.Image(t, "quay.io/extra/tool:v1"), trip.Image(t, "quay.io/extra/tool@"+extra.Digest.String())}
		return opts
	}
	first := trip.Pack(t, opts())
	before := trip.Tree(t, media)
	o.Log.Take()
	again := trip.Pack(t, opts())
	if !again.Unchanged || again.Moved != 0 || again.BundleID != first.BundleID || again.Blobs != first.Blobs || again.Bytes != first.Bytes {
		t.Errorf("again: %+v", again)
	}
	var asked []string
	for _, q := range o.Log.Take() {
		asked = append(asked, q.Method+" "+q.Manifest())
	}
	slices.Sort(asked)
	if want := []string{"HEAD 4.8.21-x86_64", "HEAD 4.8.22-x86_64", "HEAD v1"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	if after := trip.Tree(t, media); !reflect.DeepEqual(before, after) {
		t.Errorf("the drive changed")
	}
	trip.Whole(t, media)
}

func TestPackSecondReleaseOntoSealedDrive(t *testing.T) {
	r1, r2 := trip.Make(t, sample.Options{Version: "4.8.21"}), trip.Make(t, sample.Options{Version: "4.8.22"})
	o := trip.NewOrigin(t, r1, r2)
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)
	first := o.Pack(media, "4.8.21")
	was := blobs(t, media)
	o.Log.Take()
	second := o.Pack(media, "4.8.22")
	if second.Unchanged || len(second.Releases) != 2 || !second.Releases[0].Kept || second.Releases[1].Kept {
		t.Errorf("result: %+v", second.Releases)
	}
	for d := range trip.Blobs(o.Log.Take()) {
		if _, ok := was[strings.TrimPrefix(d, "sha256:")]; ok {
			t.Errorf("%s was on the drive and is fetched again", d)
		}
	}
	holds(t, media, r1)
	holds(t, media, r2)
	if second.ReadBack.Blobs >= second.Blobs || second.ReadBack.Blobs != second.Blobs-first.Blobs {
		t.Errorf("read back %d of %d blobs, %d of them old", second.ReadBack.Blobs, second.Blobs, first.Blobs)
	}
	b := open(t, media)
	if b.Seal.Totals.Releases != 2 || len(b.Contents.Releases) != 2 {
		t.Errorf("seal: %+v", b.Seal.Totals)
	}

	// Both at once on another drive is the same bundle.
	other := trip.Drive(t)
	trip.WholeAtEnd(t, other)
	both := o.Pack(other, "4.8.22", "4.8.21")
	if both.BundleID != second.BundleID || !maps.Equal(blobs(t, other), blobs(t, media)) {
		t.Errorf("packed at once: %s, one after the other: %s", both.BundleID, second.BundleID)
	}
	equalRecords(t, b, open(t, other))
	manifests := 0
	for _, r := range b.Contents.Records {
		if content.IsManifest(r.MediaType) {
			manifests++
		}
	}
	if again := o.Pack(media, "4.8.22"); second.Manifests != manifests || both.Manifests != manifests || again.Manifests != manifests {
		t.Errorf("%d manifests on the drive, counted were %d, %d and %d", manifests, second.Manifests, both.Manifests, again.Manifests)
	}
}

// equalRecords compares what two indexes say of their blobs, but for when they were sealed.
func equalRecords(t *testing.T, a, b *bundle.Bundle) {
	t.Helper()
	strip := func(c *bundle.Contents) map[digest.Digest]store.Record {
		out := maps.Clone(c.Records)
		for d, r := range out {
			r.Sealed = 0
			out[d] = r
		}
		return out
	}
	ra, rb := strip(a.Contents), strip(b.Contents)
	for d, r := range ra {
		if !reflect.DeepEqual(r, rb[d]) {
			t.Errorf("record %s: %+v and %+v", d, r, rb[d])
		}
	}
	if len(ra) != len(rb) {
		t.Errorf("%d records and %d", len(ra), len(rb))
	}
}

func TestPackTwoHosts(t *testing.T) {
	r := trip.Make(t, sample.Options{})
	var ids []string
	var trees []map[string]digest.Digest
	var opened []*bundle.Bundle
	for range 2 {
		o := trip.NewOrigin(t, r)
		media := trip.Drive(t)
		ids = append(ids, o.Pack(media, "4.8.21").BundleID)
		trees = append(trees, blobs(t, media))
		opened = append(opened, open(t, media))
	}
	if ids[0] != ids[1] || !maps.Equal(trees[0], trees[1]) {
		t.Errorf("two packers made %s and %s", ids[0], ids[1])
	}
	equalRecords(t, opened[0], opened[1])
	if opened[0].Seal.Instance == opened[1].Seal.Instance {
		t.Error("two drives have the same instance")
	}
}

func TestPackAdditionalImages(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	one, err := r.AddImage("quay.io/extra/tool", "v1", sample.Image{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.AddList("quay.io/extra/list", "latest", true, "x86_64", "s390x")
	if err != nil {
		t.Fatal(err)
	}
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)
	names := map[string]digest.Digest{
		"quay.io/extra/tool:v1": one.Digest, "quay.io/extra/list:latest": list.Digest, "quay.io/extra/list@" + list.Digest.String(): list.Digest,
	}
	opts := o.Options(media)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		opts.Additional = append(opts.Additional, trip.Image(t, name))
	}
	trip.Pack(t, opts)
	check := func(b *bundle.Bundle) {
		t.Helper()
		found := map[string]digest.Digest{}
		for _, img := range b.Contents.Images {
			if img.Kind == store.KindAdditional {
				found[img.Tag] = img.Descriptor.Digest
			}
		}
		if !maps.Equal(found, names) {
			t.Errorf("on the drive: %v, want %v", found, names)
		}
	}
	b := open(t, media)
	check(b)
	if len(b.Contents.Releases) != 0 {
		t.Errorf("releases: %+v", b.Contents.Releases)
	}

	// The tag is moved: the image is replaced and what only the old one needed goes.
	moved, err := r.AddImage("quay.io/extra/tool", "v1", sample.Image{Layers: [][]byte{[]byte("another")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Registry.Load(r); err != nil {
		t.Fatal(err)
	}
	names["quay.io/extra/tool:v1"] = moved.Digest
	opts.Client = o.Client()
	res := trip.Pack(t, opts)
	if len(res.Warnings) == 0 || !strings.Contains(strings.Join(res.Warnings, "\n"), "quay.io/extra/tool:v1") {
		t.Errorf("nobody was told: %q", res.Warnings)
	}
	check(open(t, media))
	if _, ok := blobs(t, media)[one.Digest.Encoded()]; ok {
		t.Errorf("the image that the tag named before is still there")
	}
	trip.Whole(t, media)

	// A release joins them.
	o.Pack(media, "4.8.21")
	check(open(t, media))
}

func TestPackMulti(t *testing.T) {
	r := trip.Make(t, sample.Options{Multi: true, Archs: []string{"x86_64", "s390x"}, Components: 4, SharedDigest: true})
	single := trip.Make(t, sample.Options{Components: 4})
	o := trip.NewOrigin(t, r)
	for _, c := range r.Children {
		o.PutSignature(c.Digest, trip.Key().Message(signedAs(c.Digest, r.Repository+":4.8.21-x86_64"), packetOptions))
	}
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)
	o.Pack(media, "4.8.21-multi")
	b := open(t, media)
	rel, ok := b.Contents.Release("4.8.21-multi")
	if !ok || rel.Arch != "multi" {
		t.Fatalf("releases: %+v", b.Contents.Releases)
	}
	for _, c := range r.Children {
		if data, ok := b.Contents.Document(rel.Tag, "signature-"+c.Digest.Encoded()+"-1"); !ok || len(data) == 0 {
			t.Errorf("the signature of child %s is not on the drive", c.Digest)
		}
		if _, err := b.Layout.Stat(c.Digest); err != nil {
			t.Errorf("child: %v", err)
		}
	}
	_ = single

	// One child alone is not the single-architecture release, whatever it says.
	for _, ref := range []string{r.Repository + "@" + r.Children[0].Digest.String()} {
		opts := o.Options(trip.Drive(t), ref)
		_, err := bundle.Pack(t.Context(), opts)
		if err == nil {
			t.Fatalf("%s was packed", ref)
		}
		if !errors.Is(err, release.ErrPayload) && !errors.Is(err, bundle.ErrSignature) {
			t.Errorf("%s: %v", ref, err)
		}
		if _, err := os.Lstat(opts.Media); err == nil {
			t.Errorf("MEDIA was made")
		}
	}
}

func TestPackSigstore(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	subjects := map[digest.Digest]string{r1.Descriptor.Digest: r1.Repository}
	for _, r := range []*sample.Release{r1, r2} {
		for _, c := range r.Components {
			subjects[c.Digest] = c.Repository // the two share some
		}
	}
	for d, repo := range subjects {
		trip.AddSigstore(t, r1, repo, d)
	}
	o := trip.NewOrigin(t, r1, r2)
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)
	o.Pack(media, "4.8.21")
	check := func(releases ...*sample.Release) {
		t.Helper()
		b := open(t, media)
		walked, err := bundle.ContentsFromLayout(t.Context(), b.Layout, b.Index)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*bundle.Contents{b.Contents, walked} {
			for _, r := range releases {
				s, err := c.Signed(t.Context(), b.Layout, release.Tag(r.Version, r.Arch))
				if err != nil {
					t.Fatal(err)
				}
				found := map[digest.Digest]bool{}
				for _, si := range s.Sigstore {
					found[si.Subject] = true
					if si.Repository != subjects[si.Subject] || len(si.Layers) != 1 {
						t.Errorf("sigstore image of %s: %s, %d layers", si.Subject, si.Repository, len(si.Layers))
					}
				}
				for _, comp := range r.Components {
					if !found[comp.Digest] {
						t.Errorf("%s: the sigstore image of %s is missing", r.Version, comp.Name)
					}
				}
			}
		}
		for d := range subjects {
			if slices.ContainsFunc(releases, func(r *sample.Release) bool { _, ok := r.Blobs[d]; return ok }) &&
				!slices.ContainsFunc(b.Contents.Images, func(i store.Image) bool { return i.Tag == release.SigstoreTag(d) && i.Kind == store.KindSignature }) {
				t.Errorf("%s is not tagged", release.SigstoreTag(d))
			}
		}
	}
	check(r1)
	o.Pack(media, "4.8.22")
	check(r1, r2)
	other := trip.Drive(t)
	o.Pack(other, "4.8.22", "4.8.21")
	trip.Whole(t, other)
	if a, b := open(t, media).Seal.Bundle, open(t, other).Seal.Bundle; a != b {
		t.Errorf("one after the other %s, at once %s", a, b)
	}
}

func TestPackForDestination(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)
	pack := func(dest string) *bundle.PackResult {
		t.Helper()
		opts := o.Options(media, "4.8.21")
		d, err := objects.ParseDestination(dest)
		if err != nil {
			t.Fatal(err)
		}
		opts.Destination = &d
		return trip.Pack(t, opts)
	}
	check := func(dest string) {
		t.Helper()
		obj, ok := open(t, media).Contents.RenderedMirrorSet("4.8.21-x86_64")
		if !ok || !strings.Contains(string(obj.YAML), dest) {
			t.Fatalf("rendered: %s", obj.YAML)
		}
		_, _, mirrors, err := objects.ParseMirrorSet(obj.YAML)
		if err != nil || len(mirrors) != 2 {
			t.Errorf("mirrors: %+v, %v", mirrors, err)
		}
		copied, err := os.ReadFile(filepath.Join(media, "pannier", "objects", "4.8.21-x86_64-"+strings.ToLower(obj.Kind)+".yaml"))
		if err != nil || string(copied) != string(obj.YAML) {
			t.Errorf("readable copy: %v", err)
		}
		start, err := os.ReadFile(filepath.Join(media, "START-HERE.txt"))
		if err != nil || !strings.Contains(string(start), "pannier unpack . "+dest) {
			t.Errorf("START-HERE.txt: %v\n%s", err, start)
		}
	}
	res := pack("registry.one:5000/ocp4/openshift4")
	if len(res.Plan.Objects) != 1 {
		t.Errorf("objects: %+v", res.Plan.Objects)
	}
	check("registry.one:5000/ocp4/openshift4")
	if !pack("registry.one:5000/ocp4/openshift4").Unchanged {
		t.Error("the same destination again changed something")
	}
	n := len(blobs(t, media))
	o.Log.Take()
	if pack("registry.two/mirror").Unchanged {
		t.Error("another destination changed nothing")
	}
	for d, n := range trip.Blobs(o.Log.Take()) {
		if n > 1 {
			t.Errorf("%s was fetched %d times", d, n)
		}
	}
	check("registry.two/mirror")
	if got := len(blobs(t, media)); got != n {
		t.Errorf("%d blobs, and %d after the mirror set was rendered anew", n, got)
	}
}

func TestPackRefresh(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)
	old := trip.Key().Message(signedAs(r.Descriptor.Digest, r.Reference()), packetOptions)
	o.PutSignature(r.Descriptor.Digest, old)
	o.Pack(media, "4.8.21")
	n := len(blobs(t, media))
	fresh := trip.Key().Message(signedAs(r.Descriptor.Digest, r.Reference()), packetOptions3)
	o.PutSignature(r.Descriptor.Digest, fresh)
	if !o.Pack(media, "4.8.21").Unchanged {
		t.Error("without refresh the documents were asked for")
	}
	opts := o.Options(media, "4.8.21")
	opts.Refresh = true
	trip.Pack(t, opts)
	b := open(t, media)
	if data, _ := b.Contents.Document("4.8.21-x86_64", "signature-1"); string(data) != string(fresh) {
		t.Error("the new signature is not on the drive")
	}
	have := blobs(t, media)
	if _, ok := have[digest.FromBytes(old).Encoded()]; ok || len(have) != n {
		t.Errorf("%d blobs, and %d after the refresh; old signature there: %v", n, len(have), ok)
	}
	if len(b.Pending) != 0 {
		t.Errorf("pending: %v", b.Pending)
	}
}

func TestPackDryRun(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	o := trip.NewOrigin(t, r1, r2)
	media := trip.Drive(t)
	dry := func(refs ...string) *bundle.PackResult {
		t.Helper()
		opts := o.Options(media, refs...)
		opts.DryRun = true
		return trip.Pack(t, opts)
	}
	compare := func(plan *bundle.PackResult, did *bundle.PackResult, before map[string]digest.Digest) {
		t.Helper()
		if !reflect.DeepEqual(plan.Plan.Blobs, did.Plan.Blobs) || plan.Plan.Bytes != did.Plan.Bytes || plan.Plan.Manifests != did.Plan.Manifests || !slices.Equal(plan.Plan.Tags, did.Plan.Tags) {
			t.Errorf("planned %+v, did %+v", plan.Plan, did.Plan)
		}
		var moved int64
		for name := range blobs(t, media) {
			if _, ok := before[name]; ok {
				continue
			}
			fi, err := os.Stat(filepath.Join(media, "blobs", "sha256", name))
			if err != nil {
				t.Fatal(err)
			}
			moved += fi.Size()
		}
		if did.Moved != moved {
			t.Errorf("moved %d bytes, the drive has %d more", did.Moved, moved)
		}
		if rest := moved - plan.Plan.Bytes.Transfer; rest <= 0 || rest > 64<<10 {
			t.Errorf("the plan says %d bytes, moved were %d: the rest cannot all be manifests", plan.Plan.Bytes.Transfer, moved)
		}
	}
	plan := dry("4.8.21")
	if _, err := os.Lstat(media); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the dry run made MEDIA: %v", err)
	}
	compare(plan, o.Pack(media, "4.8.21"), nil)
	before, had := trip.Tree(t, media), blobs(t, media)
	plan = dry("4.8.21", "4.8.22")
	if !reflect.DeepEqual(trip.Tree(t, media), before) {
		t.Fatal("the dry run changed the drive")
	}
	compare(plan, o.Pack(media, "4.8.21", "4.8.22"), had)
	trip.Whole(t, media)
}

// What is there of a download is not planned to be fetched, nor to be found room for.
func TestPackPlansTheRestOfADownload(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	o := trip.NewOrigin(t, r1, r2)
	whole, media := trip.Drive(t), trip.Drive(t)
	o.Pack(whole, "4.8.22")
	o.Pack(media, "4.8.21")
	opts := o.Options(media, "4.8.22")
	opts.DryRun = true
	before := trip.Pack(t, opts).Plan

	var hex string
	var half []byte
	for name := range blobs(t, whole) {
		raw, err := os.ReadFile(filepath.Join(whole, "blobs", "sha256", name))
		if err != nil {
			t.Fatal(err)
		}
		if _, there := blobs(t, media)[name]; !there && len(raw)/2 > len(half) && !strings.HasPrefix(string(raw), "{") {
			hex, half = name, raw[:len(raw)/2]
		}
	}
	write(t, filepath.Join(media, "pannier", "partial", hex+".download"), string(half))

	plan := trip.Pack(t, opts).Plan
	n := int64(len(half))
	if plan.Begun != 1 || plan.Resumed != n || plan.Bytes.Present != before.Bytes.Present+n || plan.Bytes.Transfer != before.Bytes.Transfer-n || plan.Bytes.Total != before.Bytes.Total {
		t.Errorf("%d bytes are there of one blob: planned %+v, before %+v", n, plan, before)
	}
	if plan.Blobs != before.Blobs {
		t.Errorf("blobs: %+v, before %+v", plan.Blobs, before.Blobs)
	}
	most, last := int64(0), bundle.Event{}
	opts.DryRun = false
	opts.Progress = func(e bundle.Event) {
		if e.Phase == bundle.PhaseDownload {
			most, last = max(most, e.Done), e
		}
	}
	opts.Jobs = 1
	if res := trip.Pack(t, opts); res.Resumed != n || most != res.Moved || last.Done != res.Moved || last.Done+last.Reused != last.Total {
		t.Errorf("%d bytes were resumed, %d were there; %d were moved, at most %d were shown as moved, last %+v", res.Resumed, n, res.Moved, most, last)
	}
	trip.Whole(t, media)
}

func TestPackRefusals(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	sealed := trip.Drive(t)
	o.Pack(sealed, "4.8.21")

	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "hello")
	full := filepath.Join(dir, "full")
	write(t, filepath.Join(full, "holiday.jpg"), "x")
	oc := filepath.Join(dir, "oc")
	write(t, filepath.Join(oc, "v2", "openshift", "release", "blobs", "x"), "x")
	write(t, filepath.Join(oc, "v2", "openshift", "release", "manifests", "x"), "x")
	foreign := filepath.Join(dir, "foreign")
	write(t, filepath.Join(foreign, "oci-layout"), `{"imageLayoutVersion":"1.0.0"}`)
	write(t, filepath.Join(foreign, "index.json"), `{"schemaVersion":2,"manifests":[]}`)
	for media, word := range map[string]string{
		file: "file", full: "other things", oc: "oc adm release mirror", foreign: "did not write", filepath.Join(dir, "no", "such"): "does not exist",
	} {
		before := trip.Tree(t, dir)
		o.Log.Take()
		_, err := bundle.Pack(t.Context(), o.Options(media, "4.8.21"))
		if !errors.Is(err, bundle.ErrNotBundle) || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", media, err)
		}
		if q := o.Log.Take(); len(q) > 0 {
			t.Errorf("%s: asked %v", media, q)
		}
		if !reflect.DeepEqual(before, trip.Tree(t, dir)) {
			t.Errorf("%s: something was written", media)
		}
		if _, err := bundle.Open(t.Context(), media, bundle.OpenOptions{Cache: t.TempDir()}); !errors.Is(err, bundle.ErrNotBundle) {
			t.Errorf("open %s: %v", media, err)
		}
	}

	// What operating systems leave there is not in the way.
	empty := filepath.Join(dir, "stick")
	write(t, filepath.Join(empty, "System Volume Information", "x"), "x")
	write(t, filepath.Join(empty, "._.Trashes"), "x")
	o.Pack(empty, "4.8.21")
	if r := trip.Audit(t, empty); r.Status != "complete" || len(r.Notes) == 0 {
		t.Errorf("audit: %+v", r)
	}

	newer := trip.Copy(t, sealed)
	reseal(t, newer, func(s map[string]any) { s["format"] = 2 })
	before := trip.Tree(t, newer)
	if _, err := bundle.Pack(t.Context(), o.Options(newer, "4.8.21")); !errors.Is(err, bundle.ErrVersion) {
		t.Errorf("newer format: %v", err)
	}
	if !reflect.DeepEqual(before, trip.Tree(t, newer)) {
		t.Error("newer format: something was written")
	}
}

// A payload that contradicts itself stops everything before anything is made.
func TestPackHostilePayloads(t *testing.T) {
	other := digest.FromString("another")
	for name, mutate := range map[string]func(*sample.Draft){
		"two versions":     func(d *sample.Draft) { d.Replace("release-metadata", `"4.8.21"`, `"4.8.22"`) },
		"reference by tag": func(d *sample.Draft) { d.Edit("image-references", byTag) },
		"label disagrees":  func(d *sample.Draft) { d.Labels["io.openshift.release"] = "4.8.99" },
		"truncated":        func(d *sample.Draft) { d.Edit("image-references", func(b []byte) []byte { return b[:len(b)/2] }) },
	} {
		t.Run(name, func(t *testing.T) {
			r := trip.Make(t, sample.Options{Components: 3, Mutate: mutate})
			o := trip.NewOrigin(t, r)
			media := trip.Drive(t)
			_, err := bundle.Pack(t.Context(), o.Options(media, "4.8.21"))
			if !errors.Is(err, release.ErrPayload) {
				t.Errorf("%v", err)
			}
			if _, err := os.Lstat(media); err == nil {
				t.Error("MEDIA was made")
			}
			for _, q := range o.Log.Take() {
				if strings.Contains(q.Path, "art-dev") {
					t.Errorf("a component was asked for: %v", q)
				}
			}
		})
	}
	_ = other
}

func TestPackSignaturePolicy(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	d := r.Descriptor.Digest
	for name, message := range map[string][]byte{
		"missing":      nil,
		"stranger":     trip.Stranger().Message(signedAs(d, r.Reference()), packetOptions),
		"other digest": trip.Key().Message(signedAs(digest.FromString("other"), r.Reference()), packetOptions),
		"other name":   trip.Key().Message(signedAs(d, r.Repository+":4.8.99-x86_64"), packetOptions),
		"HTML":         []byte("<html><body>404 not found</body></html>"),
	} {
		t.Run(name, func(t *testing.T) {
			o.PutSignature(d, message)
			o.Log.Take()
			opts := o.Options(trip.Drive(t), "4.8.21")
			_, err := bundle.Pack(t.Context(), opts)
			var se *bundle.SignatureError
			if !errors.Is(err, bundle.ErrSignature) || !errors.As(err, &se) {
				t.Fatalf("%v", err)
			}
			if se.Tag != "4.8.21-x86_64" || se.Digest != d.String() || !strings.Contains(strings.Join(se.Asked, " "), o.Store) {
				t.Errorf("%+v", se)
			}
			for _, q := range o.Log.Take() {
				// Whether there are sigstore signatures may be asked; nothing of a component may.
				if strings.Contains(q.Path, "art-dev") && !strings.HasSuffix(q.Path, ".sig") {
					t.Errorf("asked for %v", q)
				}
			}
			if _, err := os.Lstat(opts.Media); err == nil {
				t.Error("MEDIA was made")
			}

			opts = o.Options(opts.Media, "4.8.21")
			opts.Policy = bundle.PolicyWarn
			res := trip.Pack(t, opts)
			if len(res.Warnings) == 0 || res.Releases[0].Signature.Status == bundle.SignatureVerified {
				t.Errorf("%+v", res)
			}
			if a := trip.Audit(t, opts.Media); a.Status != "untrusted" {
				t.Errorf("audit: %s %+v", a.Status, a.Findings)
			}
		})
	}
}

func TestPackNoSpace(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	opts := o.Options(media, "4.8.21")
	cut := &trip.Cut{At: 3, Err: errNoSpace, Only: func(name string) bool { return strings.Contains(name, "partial/") }}
	opts.FS = cut.FS
	if _, err := bundle.Pack(t.Context(), opts); !errors.Is(err, layout.ErrNoSpace) {
		t.Fatalf("%v", err)
	}
	if a := trip.Audit(t, media); a.Status != "incomplete" {
		t.Errorf("audit: %s %+v", a.Status, a.Findings)
	}
	o.Pack(media, "4.8.21")
	trip.Whole(t, media)
}

func TestPackLocked(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	l, err := layout.Create(media, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	unlock, err := l.Lock("somebody else")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.Pack(t.Context(), o.Options(media, "4.8.21")); !errors.Is(err, layout.ErrLocked) || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("%v", err)
	}
	unlock()
	o.Pack(media, "4.8.21")
	trip.Whole(t, media)
}

func TestPackConflict(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	trip.WholeAtEnd(t, media)
	o.Pack(media, "4.8.21")
	other := trip.Make(t, sample.Options{Version: "4.8.21", Components: 3, Seed: 7})
	o.Sign(trip.Key(), other)
	if err := o.Registry.Load(other); err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.Pack(t.Context(), o.Options(media, "4.8.21")); !errors.Is(err, bundle.ErrConflict) {
		t.Errorf("%v", err)
	}
}

func TestPackCancelledWhilePlanning(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	ctx, cancel := context.WithCancel(t.Context())
	o.Log.Before(func(_ http.ResponseWriter, r *http.Request) bool { cancel(); return false })
	if _, err := bundle.Pack(ctx, o.Options(media, "4.8.21")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(media); err == nil {
		t.Error("MEDIA was made")
	}
}
