package bundle_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/parity"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
)

// packParity packs refs with the default share.
func packParity(t *testing.T, o *trip.Origin, media string, refs ...string) *bundle.PackResult {
	t.Helper()
	opts := o.Options(media, refs...)
	opts.Parity = parity.DefaultShare
	return trip.Pack(t, opts)
}

// parityFiles are the files of parity on a drive, without the copies of small files.
func parityFiles(t *testing.T, media string) map[string]trip.State {
	t.Helper()
	out := map[string]trip.State{}
	for name, s := range trip.Tree(t, media) {
		if strings.HasPrefix(name, "pannier/parity/") && !strings.HasPrefix(name, "pannier/parity/copies-") && strings.HasSuffix(name, ".bin") {
			out[name] = s
		}
	}
	return out
}

// wantCovered fails the test unless the parity on the drive covers every blob of the bundle
// once, and each can be reconstructed when it is lost.
func wantCovered(t *testing.T, media string) {
	t.Helper()
	b := open(t, media)
	set, err := parity.Open(b.Layout)
	if err != nil || len(set.Problems) > 0 {
		t.Fatal(err, set.Problems)
	}
	n := 0
	for _, g := range set.Generations {
		n += len(g.Blobs)
	}
	if n != len(b.Contents.Records) {
		t.Errorf("parity covers %d blobs, the bundle has %d", n, len(b.Contents.Records))
	}
	for d, r := range b.Contents.Records {
		path := trip.Blob(media, d)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		remove(t, path)
		out := make(buffer, r.Size)
		if _, err := set.Rebuild(t.Context(), ocispec.Descriptor{Digest: d, Size: r.Size}, out); err != nil || !bytes.Equal(out, whole) {
			t.Errorf("blob of %d bytes: %v", r.Size, err)
		}
		if err := os.WriteFile(path, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

type buffer []byte

func (b buffer) WriteAt(p []byte, off int64) (int, error) { return copy(b[off:], p), nil }

// A release that is added gets parity of its own; what was sealed stays as it is, and a run
// that finds all there writes nothing. Two who pack the same get the same bytes.
func TestPackParity(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	o := trip.NewOrigin(t, r1, r2)
	media := trip.Drive(t)
	var plan bundle.PlannedParity
	opts := o.Options(media, "4.8.21")
	opts.Parity = parity.DefaultShare
	opts.Planned = func(res *bundle.PackResult) { plan = res.Plan.Parity }
	trip.Pack(t, opts)
	trip.Whole(t, media)
	wantCovered(t, media)
	first := parityFiles(t, media)
	var size int64
	for _, s := range first {
		size += s.Size
	}
	if plan.Bytes != size || size == 0 || plan.Share != parity.DefaultShare {
		t.Errorf("planned %+v, written %d bytes", plan, size)
	}

	before := trip.Tree(t, media)
	if res := packParity(t, o, media, "4.8.21"); !res.Unchanged || !maps.Equal(before, trip.Tree(t, media)) {
		t.Error("the same again changed something")
	}

	packParity(t, o, media, "4.8.22")
	trip.Whole(t, media)
	wantCovered(t, media)
	both := parityFiles(t, media)
	for name, s := range first {
		if both[name] != s {
			t.Errorf("%s was sealed and has changed", name)
		}
	}
	if len(both) != 2*len(first) {
		t.Errorf("%d files of parity after the second release, %d after the first", len(both), len(first))
	}

	other := trip.Drive(t)
	packParity(t, o, other, "4.8.21")
	contents := func(files map[string]trip.State) map[string]digest.Digest {
		out := map[string]digest.Digest{}
		for name, s := range files {
			out[filepath.Base(name)] = s.Sum
		}
		return out
	}
	if one, two := contents(first), contents(parityFiles(t, other)); len(one) != 3 || !maps.Equal(one, two) {
		t.Errorf("two who pack the same have %v and %v", one, two)
	}
	opts = o.Options(media, "4.8.21", "4.8.22")
	if res := trip.Pack(t, opts); !res.Unchanged {
		t.Error("without parity asked for, the parity that is there was no longer good enough")
	}
}

// A drive without parity, and one whose parity is damaged, get it when pack is asked for it.
func TestPackParityLater(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	o.Pack(media, "4.8.21")
	if files := parityFiles(t, media); len(files) > 0 {
		t.Fatalf("%v without being asked", slices.Sorted(maps.Keys(files)))
	}
	packParity(t, o, media, "4.8.21")
	trip.Whole(t, media)
	wantCovered(t, media)
	damage := map[string]func(path string){
		"map-1.bin":    func(path string) { trip.Flip(t, path, 80) },
		"map-2.bin":    func(path string) { remove(t, path) },
		"slices-1.bin": func(path string) { truncate(t, path, 1000) },
	}
	for _, name := range slices.Sorted(maps.Keys(damage)) {
		found, err := filepath.Glob(filepath.Join(media, "pannier", "parity", "*", name))
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		damage[name](found[0])
		if res := packParity(t, o, media, "4.8.21"); res.Unchanged {
			t.Errorf("%s damaged, and pack left it", name)
		}
		trip.Whole(t, media)
		wantCovered(t, media)
	}
}

// When a blob goes that nothing needs any more, the parity that needed it goes too, and what
// else it covered is covered anew.
func TestPackParityOfWhatGoes(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	if _, err := r.AddImage("quay.io/extra/tool", "v1", sample.Image{}); err != nil {
		t.Fatal(err)
	}
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	tool := func() bundle.PackOptions {
		opts := o.Options(media, "4.8.21")
		opts.Additional = []release.Reference{trip.Image(t, "quay.io/extra/tool:v1")}
		opts.Parity = parity.DefaultShare
		return opts
	}
	trip.Pack(t, tool())
	first := parityFiles(t, media)
	if _, err := r.AddImage("quay.io/extra/tool", "v1", sample.Image{Layers: [][]byte{[]byte("another")}}); err != nil {
		t.Fatal(err)
	}
	if err := o.Registry.Load(r); err != nil {
		t.Fatal(err)
	}
	trip.Pack(t, tool())
	trip.Whole(t, media)
	wantCovered(t, media)
	for name := range parityFiles(t, media) {
		if _, old := first[name]; old {
			t.Errorf("%s is still there", name)
		}
	}
}

// Every small file has a copy that says the same, and a damaged copy is found.
func TestPackCopies(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	packParity(t, o, media, "4.8.21")
	g := open(t, media).Seal.Generation
	n := 0
	for name := range trip.Tree(t, media) {
		path := filepath.Join(media, filepath.FromSlash(name))
		fi, err := os.Stat(path)
		if err != nil || fi.IsDir() || !bundle.Copied(g, name) {
			continue
		}
		n++
		one, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(media, filepath.FromSlash(bundle.CopyName(g, name)))
		if two, err := os.ReadFile(other); err != nil || !bytes.Equal(one, two) {
			t.Errorf("%s: its copy: %v", name, err)
			continue
		}
		trip.Flip(t, other, 20)
		if report := trip.Audit(t, media); len(report.Findings) != 1 || report.Findings[0].Path != bundle.CopyName(g, name) {
			t.Errorf("%s: its copy is damaged: %+v", name, report.Findings)
		}
		trip.Flip(t, other, 20)
	}
	if n < 6 {
		t.Errorf("only %d files have copies", n)
	}
	trip.Whole(t, media)
}
