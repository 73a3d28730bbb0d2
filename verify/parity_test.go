package verify_test

import (
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/apply/trip"
	"pannier/bundle/layout"
	"pannier/bundle/parity"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

const mib = 1 << 20

// rotten is a drive with parity that is damaged and repaired again and again.
type rotten struct {
	t     *testing.T
	media string
	all   map[string]digest.Digest // as it was sealed
	blobs []parity.Blob            // the largest first
	gen   *parity.Generation
	quick bool // large: it is not audited before it is repaired, and each step is told
}

// pickle packs a release with parity and remembers what the drive is like.
func pickle(t *testing.T, share parity.Share, o sample.Options) *rotten {
	t.Helper()
	r := trip.Make(t, o)
	origin := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	opts := origin.Options(media, r.Reference())
	opts.Parity = share
	trip.Pack(t, opts)
	return preserved(t, media)
}

func preserved(t *testing.T, media string) *rotten {
	t.Helper()
	trip.Whole(t, media)
	l, err := layout.Open(media, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	set, err := parity.Open(l)
	if err != nil || len(set.Generations) != 1 || len(set.Problems) > 0 {
		t.Fatalf("%v %+v", err, set)
	}
	return &rotten{t: t, media: media, all: sums(t, media, ""), blobs: set.Generations[0].Blobs, gen: set.Generations[0]}
}

// slice is one slice of a blob that is stored in it alone.
type slice struct {
	blob digest.Digest
	n    int64
}

// slices lists the whole slices of blobs, in random order.
func (d *rotten) slices(rnd *rand.Rand) []slice {
	var out []slice
	for _, b := range d.blobs {
		for n := range b.Size / mib {
			out = append(out, slice{b.Digest, n})
		}
	}
	rnd.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// spoil zeroes slices, or what is in them at a random place.
func (d *rotten) spoil(rnd *rand.Rand, list []slice) {
	d.t.Helper()
	for _, s := range list {
		d.zero(trip.Blob(d.media, s.blob), s.n*mib+rnd.Int64N(mib/2), 1+rnd.Int64N(mib/2))
	}
}

// zero writes zeros into a file; where it has zeros already, ones.
func (d *rotten) zero(path string, offset, n int64) {
	d.t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, n), offset); err != nil {
		d.t.Fatal(err)
	}
}

// heals repairs the drive with nothing but itself, and wants it as it was.
func (d *rotten) heals(what string) {
	d.t.Helper()
	if !d.quick {
		for _, f := range trip.Audit(d.t, d.media).Findings {
			if !f.Healable {
				d.t.Errorf("%s: not healable: %s %s: %s", what, f.Kind, f.Path, f.Detail)
			}
		}
	}
	report, err := mend(d.t, d.media, nil)
	if err != nil || report.Status != verify.StatusComplete {
		d.t.Fatalf("%s: %v %s %+v", what, err, report.Status, report.Findings)
	}
	if d.quick {
		d.t.Logf("healed: %s", what)
	}
	now := sums(d.t, d.media, "")
	for name, want := range d.all {
		if now[name] != want {
			d.t.Errorf("%s: %s is another than before", what, name)
		}
	}
	if len(now) != len(d.all) {
		d.t.Errorf("%s: %d files, were %d", what, len(now), len(d.all))
	}
}

// stays repairs the drive, which cannot be healed, and wants it as it is. It returns the bytes
// that are lost.
func (d *rotten) stays(what string) (lost int64) {
	d.t.Helper()
	before := sums(d.t, d.media, "")
	report, err := mend(d.t, d.media, nil)
	if err != nil || report.Status != verify.StatusDamaged {
		d.t.Fatalf("%s: %v %+v", what, err, report)
	}
	if !maps.Equal(sums(d.t, d.media, ""), before) {
		d.t.Errorf("%s: what cannot be healed was changed", what)
	}
	for _, f := range report.Findings {
		if f.Healable || f.Repaired || f.Bytes == 0 || !strings.Contains(f.Detail, "not healed") {
			d.t.Errorf("%s: %+v", what, f)
		}
		lost += f.Bytes
	}
	list, _ := report.Refetch()
	if list.Bytes() != lost {
		d.t.Errorf("%s: the refetch list has %d bytes, %d are lost", what, list.Bytes(), lost)
	}
	return lost
}

// small enough for every run: one group with three parity slices.
func TestRepairFromParity(t *testing.T) {
	d := pickle(t, 1000, sample.Options{Components: 8, LayerSize: 3*mib - 4096})
	rnd := rand.New(rand.NewPCG(1, 2))
	rows := int(d.gen.Rows())
	if rows < 3 {
		t.Fatalf("%d parity slices in a group", rows)
	}
	d.spoil(rnd, d.slices(rnd)[:rows])
	d.heals("as many slices as there are parity slices")

	b := d.blobs[0]
	d.zero(trip.Blob(d.media, b.Digest), 0, min(b.Size, int64(rows)*mib-1))
	d.heals("a burst")
	for _, i := range []int{0, len(d.blobs) / 2, len(d.blobs) - 1} {
		b := d.blobs[i]
		if b.Size > int64(rows)*mib {
			t.Fatalf("blob %d has %d bytes", i, b.Size)
		}
		if err := os.Remove(trip.Blob(d.media, b.Digest)); err != nil {
			t.Fatal(err)
		}
		d.heals("a blob that is gone")
	}
	if err := os.Truncate(trip.Blob(d.media, b.Digest), b.Size/2); err != nil {
		t.Fatal(err)
	}
	d.heals("a blob that is cut")
	if err := os.Truncate(trip.Blob(d.media, b.Digest), b.Size+1); err != nil {
		t.Fatal(err)
	}
	d.heals("a blob with a byte behind its end")

	for _, name := range d.gen.Files() {
		d.zero(at(d.media, name), 100, 50)
		d.heals("damaged " + name)
		if err := os.Remove(at(d.media, name)); err != nil {
			t.Fatal(err)
		}
		d.heals("deleted " + name)
	}
	// Parity and blobs, as long as enough of both is left.
	d.zero(at(d.media, d.gen.Files()[len(d.gen.Files())-1]), 0, 10)
	d.spoil(rnd, d.slices(rnd)[:rows-1])
	d.heals("parity and blobs")

	// One too many.
	copied := trip.Copy(t, d.media)
	d.spoil(rnd, d.slices(rnd)[:rows+1])
	if lost := d.stays("more than there is parity"); lost == 0 {
		t.Error("nothing is lost")
	}
	l, err := layout.Open(copied, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	report, err := mend(t, d.media, func(o *verify.RepairOptions) { o.Repair.From = append(o.Repair.From, from(t, copied)) })
	if err != nil || report.Status != verify.StatusComplete {
		t.Fatalf("%v %+v", err, report)
	}
}

// Each small file of a drive with parity has a copy, the seal too: whichever is damaged or
// gone is put back byte for byte.
func TestRepairFromCopies(t *testing.T) {
	d := pickle(t, parity.DefaultShare, sample.Options{Components: 3, LayerSize: 1 << 10})
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(d.all)), func(n string) bool { return strings.HasPrefix(n, "blobs/") })
	if len(names) < 15 {
		t.Fatalf("%q", names)
	}
	for _, name := range names {
		path := at(d.media, name)
		trip.Flip(t, path, 10)
		d.heals("a flipped bit of " + name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		d.heals("without " + name)
		if err := os.Truncate(path, 5); err != nil {
			t.Fatal(err)
		}
		d.heals("a cut " + name)
	}
	// All originals at once.
	for _, name := range names {
		if strings.Contains(name, "parity/") || strings.Contains(name, "layout-") {
			continue
		}
		if err := os.Remove(at(d.media, name)); err != nil {
			t.Fatal(err)
		}
	}
	d.heals("without any of the originals")
}

// A repair from parity that is cut off anywhere makes nothing worse, and goes on.
func TestRepairFromParityCutAnywhere(t *testing.T) {
	d := pickle(t, 2000, sample.Options{Components: 3, LayerSize: 1500 << 10})
	rnd := rand.New(rand.NewPCG(3, 4))
	clean := trip.Copy(t, d.media)
	d.spoil(rnd, d.slices(rnd)[:1])
	if err := os.Remove(trip.Blob(d.media, d.blobs[len(d.blobs)-1].Digest)); err != nil {
		t.Fatal(err)
	}
	trip.Flip(t, at(d.media, "SHA256SUMS"), 3)
	start := trip.Copy(t, d.media)
	had := map[string]bool{}
	for _, f := range trip.Audit(t, start).Findings {
		had[f.Path] = true
	}
	counter := &trip.Cut{}
	if report, err := mend(t, trip.Copy(t, start), func(o *verify.RepairOptions) { o.Repair.FS = counter.FS }); err != nil || report.Status != verify.StatusComplete {
		t.Fatalf("%v %+v", err, report)
	}
	n := counter.Calls()
	t.Logf("%d calls", n)
	for k := 1; k <= n; k++ {
		d.media = trip.Copy(t, start)
		cut := &trip.Cut{At: k}
		if _, err := mend(t, d.media, func(o *verify.RepairOptions) { o.Repair.FS = cut.FS }); err == nil && !strings.HasSuffix(cut.Call, "pannier/lock") {
			t.Errorf("call %d, %s: no error", k, cut.Call)
		}
		for _, f := range trip.Audit(t, d.media).Findings {
			if !had[f.Path] && f.Kind != verify.KindPartial && !strings.HasSuffix(f.Path, ".new") {
				t.Errorf("call %d, %s: %s %s: %s", k, cut.Call, f.Kind, f.Path, f.Detail)
			}
		}
		d.heals("after a cut at " + cut.Call)
	}
	if !maps.Equal(sums(t, clean, ""), d.all) {
		t.Error("the clean copy is another")
	}
}

// Slices that pass their sums and are wrong nevertheless reconstruct to a blob that its digest
// refuses: nothing is taken, nothing is changed.
func TestRepairParityThatLies(t *testing.T) {
	d := pickle(t, 1000, sample.Options{Components: 3, LayerSize: 2 * mib})
	other := pickle(t, 1000, sample.Options{Components: 3, LayerSize: 2 * mib, Seed: 5})
	b := d.blobs[0]
	trip.Flip(t, trip.Blob(d.media, b.Digest), 5)
	// The parity of another bundle under the name of this one's.
	files, foreign := d.gen.Files(), other.gen.Files()
	if len(files) != len(foreign) {
		t.Fatalf("%q %q", files, foreign)
	}
	for i := range files {
		raw, err := os.ReadFile(at(other.media, foreign[i]))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at(d.media, files[i]), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := sums(t, d.media, "blobs/")
	report, err := mend(t, d.media, nil)
	if err != nil || report.Status != verify.StatusDamaged || !maps.Equal(sums(t, d.media, "blobs/"), before) {
		t.Errorf("%v %+v", err, report)
	}
}
