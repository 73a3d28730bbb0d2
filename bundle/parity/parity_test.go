package parity

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/layout"
)

// drive is a layout with random blobs in it, of which the test knows the bytes.
type drive struct {
	t     testing.TB
	dir   string
	l     *layout.Layout
	data  map[digest.Digest][]byte
	blobs []Blob
}

func newDrive(tb testing.TB, seed byte, sizes ...int) *drive {
	tb.Helper()
	d := &drive{t: tb, dir: tb.TempDir(), data: map[digest.Digest][]byte{}}
	var err error
	if d.l, err = layout.Create(d.dir, layout.Options{}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { d.l.Close() })
	r := rand.NewChaCha8([32]byte{seed})
	for _, size := range sizes {
		data := make([]byte, size)
		r.Read(data)
		desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(size)}
		sums, err := d.l.IngestBytes(tb.Context(), desc, data)
		if err != nil {
			tb.Fatal(err)
		}
		d.data[desc.Digest] = data
		d.blobs = append(d.blobs, Blob{Digest: desc.Digest, Size: desc.Size, Sums: sums})
	}
	if err := d.l.Flush(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return d
}

// mixed are sizes of some large blobs, one of just a slice, small ones and an empty one.
var mixed = []int{5*sliceSize + 123, 4 * sliceSize, sliceSize, sliceSize - 1, sliceSize + 1, 700_000, 500_000, 40_000, 1, 2000, 0}

func (d *drive) write(generation uint64, share Share, most int) map[string]digest.Digest {
	d.t.Helper()
	files, err := Write(d.t.Context(), WriteOptions{
		Layout: d.l, Generation: generation, Share: share, Bundle: digest.FromString("bundle"), Blobs: d.blobs, most: most,
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return files
}

func (d *drive) open() *Set {
	d.t.Helper()
	s, err := Open(d.l)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func (d *drive) path(b Blob) string {
	return filepath.Join(d.dir, filepath.FromSlash(layout.BlobPath(b.Digest)))
}

// spoil overwrites bytes of a file.
func (d *drive) spoil(path string, offset int64, n int) {
	d.t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, offset); err != nil && err != io.EOF {
		d.t.Fatal(err)
	}
	for i := range b {
		b[i] ^= 0x55
	}
	if _, err := f.WriteAt(b, offset); err != nil {
		d.t.Fatal(err)
	}
}

// buffer is an io.WriterAt and io.ReaderAt in memory.
type buffer []byte

func (b *buffer) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(*b) {
		*b = append(*b, make([]byte, need-len(*b))...)
	}
	return copy((*b)[off:], p), nil
}

func (b *buffer) ReadAt(p []byte, off int64) (int, error) {
	if n := copy(p, (*b)[off:]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

// wantRebuilt rebuilds a blob in both ways and compares.
func (d *drive) wantRebuilt(s *Set, b Blob) {
	d.t.Helper()
	var out, scratch buffer
	damage, err := s.Rebuild(d.t.Context(), b.Descriptor(), &out)
	if err != nil || !bytes.Equal(out, d.data[b.Digest]) {
		d.t.Errorf("blob of %d bytes, rebuilt: %v, equal %t", b.Size, err, bytes.Equal(out, d.data[b.Digest]))
	}
	m, err := s.Mend(d.t.Context(), b.Descriptor(), &scratch)
	if err != nil {
		d.t.Errorf("blob of %d bytes, mended: %v", b.Size, err)
		return
	}
	r := m.Open(d.t.Context())
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, d.data[b.Digest]) || int64(len(scratch)) > damage.Bytes() {
		d.t.Errorf("blob of %d bytes, mended with %d bytes for %d damaged: %v", b.Size, len(scratch), damage.Bytes(), err)
	}
}

// Any one blob that is no larger than the parity can be lost as a whole, and comes back.
func TestEveryBlobLost(t *testing.T) {
	d := newDrive(t, 1, mixed...)
	d.write(7, 5000, 8) // 16 slices in 2 groups of 8 with 4: 8 slices of parity
	s := d.open()
	if len(s.Problems) > 0 || len(s.Generations) != 1 || s.Generations[0].groups != 2 || s.Generations[0].parity != 4 {
		t.Fatalf("%+v, %+v", s.Problems, s.Generations[0].geometry)
	}
	for _, b := range d.blobs {
		if err := os.Remove(d.path(b)); err != nil {
			t.Fatal(err)
		}
		damage, err := s.Locate(t.Context(), b.Descriptor(), nil)
		if err != nil || damage.Bytes() != b.Size {
			t.Errorf("blob of %d bytes: %v, %d bytes damaged", b.Size, err, damage.Bytes())
		}
		if lost := s.Lost([]Damage{damage}, nil); len(lost) > 0 {
			t.Errorf("blob of %d bytes: said to be lost: %v", b.Size, lost)
		}
		d.wantRebuilt(s, b)
		if err := os.WriteFile(d.path(b), d.data[b.Digest], 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// As many slices of every group as it has parity are healed, whichever they are; one more in
// one group is said to be lost beforehand, and is.
func TestBadSlicesInEveryGroup(t *testing.T) {
	d := newDrive(t, 2, mixed...)
	d.write(1, 3000, 6)
	s := d.open()
	g := s.Generations[0]
	hit := map[digest.Digest][]int64{}
	spoil := func(slot, group int) {
		if i, ok := g.slice(group, slot); ok {
			for _, p := range g.pieces(i) {
				b := g.Blobs[p.blob]
				d.spoil(d.path(b), p.slice*sliceSize+int64(p.n)/2, 1)
				hit[b.Digest] = append(hit[b.Digest], p.slice)
			}
		}
	}
	located := func() []Damage {
		var out []Damage
		for _, b := range g.Blobs {
			damage, err := s.Locate(t.Context(), b.Descriptor(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if want := slices.Sorted(slices.Values(hit[b.Digest])); !slices.Equal(damage.Slices, want) {
				t.Fatalf("located %v, spoiled %v", damage.Slices, want)
			}
			if len(damage.Slices) > 0 {
				out = append(out, damage)
			}
		}
		return out
	}
	for group := range g.groups {
		for slot := range g.parity {
			spoil(slot, group)
		}
	}
	damage := located()
	if lost := s.Lost(damage, nil); len(lost) > 0 {
		t.Fatalf("said to be lost: %v", lost)
	}
	for _, b := range g.Blobs {
		if len(hit[b.Digest]) > 0 {
			d.wantRebuilt(s, b)
		}
	}
	spoil(g.parity, 0)
	damage = located()
	lost := s.Lost(damage, nil)
	if len(lost) == 0 {
		t.Fatal("one slice more than parity, and nothing is said to be lost")
	}
	put := map[digest.Digest]bool{}
	left, err := s.Restore(t.Context(), damage, func(desc ocispec.Descriptor, j int64, data []byte) error {
		put[desc.Digest] = true
		if !bytes.Equal(data, d.data[desc.Digest][j*sliceSize:min(desc.Size, (j+1)*sliceSize)]) {
			t.Errorf("slice %d of a blob of %d bytes is wrong", j, desc.Size)
		}
		return nil
	})
	if err != nil || !slices.EqualFunc(left, lost, func(a, b Damage) bool { return a.Digest == b.Digest && slices.Equal(a.Slices, b.Slices) }) {
		t.Errorf("%v; lost %v, foretold %v", err, left, lost)
	}
	if len(put) == 0 {
		t.Error("nothing of the other groups was healed")
	}
	for _, l := range lost {
		if _, err := s.Rebuild(t.Context(), ocispec.Descriptor{Digest: l.Digest, Size: l.Size}, new(buffer)); !errors.Is(err, ErrLost) {
			t.Errorf("a blob of a lost group: %v", err)
		}
	}
}

// What a plan says of its strength.
func TestPlan(t *testing.T) {
	blob := func(slices int64) []Blob {
		return []Blob{{Digest: digest.FromString("x"), Size: slices * sliceSize}}
	}
	for _, tc := range []struct {
		share Share
		blobs []Blob
		want  Strength
	}{
		{0, blob(16), Strength{}},
		{500, nil, Strength{}},
		{500, blob(1), Strength{1, 1, 1}},
		{500, blob(16), Strength{1, 16, 1}},
		{500, blob(200), Strength{10, 200, 1}},
		{500, blob(1000), Strength{10, 200, 5}},
		{1000, blob(201), Strength{11, 101, 2}},
	} {
		if got := Plan(tc.share, tc.blobs); got != tc.want {
			t.Errorf("%v of %d blobs: %+v, want %+v", tc.share, len(tc.blobs), got, tc.want)
		}
	}
}

// Damaged parity is found and made again, also where a blob is damaged in the same group, and
// what it heals shrinks by it.
func TestDamagedParity(t *testing.T) {
	d := newDrive(t, 3, mixed...)
	d.write(1, 5000, 8)
	s := d.open()
	g := s.Generations[0]
	name := filepath.Join(d.dir, filepath.FromSlash(slicesName(1, 0)))
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	d.spoil(name, 1*sliceSize+7, 1)
	if err := os.Truncate(name, int64(len(whole))-1); err != nil {
		t.Fatal(err)
	}
	bad, err := g.CheckParity(t.Context())
	if want := []int{1, g.groups*g.parity - 1}; err != nil || !slices.Equal(bad, want) || g.SizesRight() {
		t.Fatalf("%v, %v found bad, want %v", err, bad, want)
	}
	// Three slices of the first group, which has four parity slices, one of them bad.
	lost := g.Blobs[0]
	for _, j := range []int64{0, 2, 4} {
		d.spoil(d.path(lost), j*sliceSize, 1)
	}
	damage, err := s.Locate(t.Context(), lost.Descriptor(), nil)
	if err != nil || s.Lost([]Damage{damage}, []ParityDamage{{1, bad}}) != nil {
		t.Fatalf("%v: %v said to be lost", err, damage)
	}
	d.wantRebuilt(s, lost)
	left, err := g.RestoreParity(t.Context(), bad, func(file string, offset int64, data []byte) error {
		if file != slicesName(1, 0) || !bytes.Equal(data, whole[offset:offset+sliceSize]) {
			t.Errorf("parity slice at %d of %s is wrong", offset, file)
		}
		return nil
	})
	if err != nil || len(left) > 0 {
		t.Errorf("%v, %v left", err, left)
	}
	d.spoil(name, 0, 1)
	if s.Lost([]Damage{damage}, []ParityDamage{{1, []int{0, 1}}}) == nil {
		t.Error("three slices and two parity slices of four damaged, and nothing is said to be lost")
	}
	if _, err := s.Rebuild(t.Context(), lost.Descriptor(), new(buffer)); !errors.Is(err, ErrLost) {
		t.Errorf("three slices and two parity slices of four damaged: %v", err)
	}
	if left, err = g.RestoreParity(t.Context(), []int{0, 1}, func(string, int64, []byte) error { return errors.New("made up") }); err != nil || len(left) != 2 {
		t.Errorf("%v, %v left", err, left)
	}
}

// The same blobs give the same bytes, whoever wrote them in whatever order.
func TestDeterministic(t *testing.T) {
	a := newDrive(t, 4, mixed...)
	b := newDrive(t, 4, mixed...)
	slices.Reverse(b.blobs)
	one, other := a.write(3, DefaultShare, 0), b.write(3, DefaultShare, 0)
	if len(one) != 3 || !maps.Equal(one, other) {
		t.Errorf("%v\n%v", one, other)
	}
	for name, want := range one {
		raw, err := os.ReadFile(filepath.Join(a.dir, filepath.FromSlash(name)))
		if err != nil || digest.FromBytes(raw) != want {
			t.Errorf("%s: %v, or not of the digest that Write returned", name, err)
		}
	}
	if got := a.open().Generations[0].Files(); !slices.Equal(got, slices.Sorted(maps.Keys(one))) {
		t.Errorf("files %v", got)
	}
	if none, err := Write(t.Context(), WriteOptions{Layout: a.l, Generation: 4, Share: 5000, Bundle: digest.FromString("")}); none != nil || err != nil {
		t.Errorf("of no blobs: %v, %v", none, err)
	}
	var size int64
	for name := range one {
		fi, err := os.Stat(filepath.Join(a.dir, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		size += fi.Size()
	}
	if planned := Size(DefaultShare, a.blobs); planned != size {
		t.Errorf("%d bytes planned, %d written", planned, size)
	}
}

// Either copy of the map will do; without both there is no parity, and both are named.
func TestDamagedMaps(t *testing.T) {
	for copy := 1; copy <= 2; copy++ {
		d := newDrive(t, 5, mixed...)
		d.write(9, DefaultShare, 0)
		d.spoil(filepath.Join(d.dir, filepath.FromSlash(mapName(9, copy))), 100, 1)
		s := d.open()
		if len(s.Generations) != 1 || len(s.Problems) != 1 || s.Problems[0].Path != mapName(9, copy) || !errors.Is(s.Problems[0].Err, ErrMap) {
			t.Errorf("copy %d spoiled: %v", copy, s.Problems)
		}
		os.Remove(d.path(d.blobs[3]))
		d.wantRebuilt(s, d.blobs[3])
		os.Remove(filepath.Join(d.dir, filepath.FromSlash(mapName(9, 3-copy))))
		s = d.open()
		if len(s.Generations) != 0 || len(s.Problems) != 2 {
			t.Errorf("both spoiled: %v", s.Problems)
		}
		if _, err := s.Locate(t.Context(), d.blobs[3].Descriptor(), nil); !errors.Is(err, ErrNotCovered) {
			t.Errorf("both spoiled: %v", err)
		}
	}
}

// The parity of other blobs heals nothing and harms nothing, whatever folder it is put in.
func TestForeignParity(t *testing.T) {
	d := newDrive(t, 6, mixed...)
	d.write(1, DefaultShare, 0)
	other := newDrive(t, 7, mixed...)
	other.write(2, DefaultShare, 0)
	if err := os.CopyFS(filepath.Join(d.dir, "pannier", "parity"), os.DirFS(filepath.Join(other.dir, "pannier", "parity"))); err != nil {
		t.Fatal(err)
	}
	os.Remove(d.path(d.blobs[3]))
	s := d.open()
	if len(s.Generations) != 2 || s.Generations[0].Number != 2 {
		t.Fatal("the newest is not first")
	}
	d.wantRebuilt(s, d.blobs[3])
	if _, err := s.Rebuild(t.Context(), other.blobs[0].Descriptor(), new(buffer)); !errors.Is(err, ErrLost) {
		t.Errorf("a blob of the other drive: %v", err)
	}
	// Its slices under our map: their sums say so, and nothing is made up.
	raw, err := os.ReadFile(filepath.Join(other.dir, filepath.FromSlash(slicesName(2, 0))))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.dir, filepath.FromSlash(slicesName(1, 0))), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rebuild(t.Context(), d.blobs[3].Descriptor(), new(buffer)); !errors.Is(err, ErrLost) {
		t.Errorf("with the slices of another drive: %v", err)
	}
}

// A slice that is not what was written, and sums that are not the blob's, stop the writing.
func TestWriteCompares(t *testing.T) {
	d := newDrive(t, 8, mixed...)
	d.spoil(d.path(d.blobs[1]), 2*sliceSize+5, 1)
	opts := WriteOptions{Layout: d.l, Generation: 1, Share: DefaultShare, Bundle: digest.FromString(""), Blobs: d.blobs}
	if _, err := Write(t.Context(), opts); !errors.Is(err, content.ErrDigest) {
		t.Errorf("a spoiled slice: %v", err)
	}
	opts.Generation, opts.Blobs = 2, slices.Clone(d.blobs)
	opts.Blobs[0].Sums = opts.Blobs[0].Sums[:content.SumSize]
	if _, err := Write(t.Context(), opts); !errors.Is(err, content.ErrInvalid) {
		t.Errorf("sums of another size: %v", err)
	}
}

// The bytes of a slice may pass its sum and not be the blob's: then no slice is found wrong,
// and nothing is reconstructed.
func TestNotLocated(t *testing.T) {
	d := newDrive(t, 9, mixed...)
	b := &d.blobs[0]
	d.spoil(d.path(*b), 5, 1)
	var slicer content.Slicer
	raw, err := os.ReadFile(d.path(*b))
	if err != nil {
		t.Fatal(err)
	}
	slicer.Write(raw)
	b.Sums = slicer.Slices()
	d.write(1, DefaultShare, 0)
	s := d.open()
	damage, err := s.Locate(t.Context(), b.Descriptor(), nil)
	if err != nil || len(damage.Slices) > 0 {
		t.Errorf("%v, %v", err, damage)
	}
	if _, err := s.Rebuild(t.Context(), b.Descriptor(), new(buffer)); !errors.Is(err, ErrLost) {
		t.Errorf("%v", err)
	}
}

// Twenty bad slices at random places of 20,000 are healed, a thousand times over; what the
// drive promises of a burst and of a blob holds at its limit and not beyond.
func TestGeometryHolds(t *testing.T) {
	m := newMap(digest.FromString(""), DefaultShare, []Blob{{Size: 20_000 * sliceSize}}, maxData)
	if m.groups != 100 || m.data != 200 || m.parity != 10 {
		t.Fatalf("%+v", m.geometry)
	}
	g := &Generation{Map: m}
	m.index = map[digest.Digest]int{"": 0}
	s := &Set{Generations: []*Generation{g}}
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 0))
		var bad []int64
		for len(bad) < 20 {
			if j := r.Int64N(20_000); !slices.Contains(bad, j) {
				bad = append(bad, j)
			}
		}
		if lost := s.Lost([]Damage{{Size: 20_000 * sliceSize, Slices: bad}}, nil); len(lost) > 0 {
			t.Errorf("seed %d: %v lost", seed, lost)
		}
	}
	burst := func(n int64) []Damage {
		d := Damage{Size: 20_000 * sliceSize}
		for j := range n {
			d.Slices = append(d.Slices, 777+j)
		}
		return []Damage{d}
	}
	if lost := s.Lost(burst(1000), nil); len(lost) > 0 {
		t.Errorf("a burst of the whole share: %d slices lost", len(lost[0].Slices))
	}
	if lost := s.Lost(burst(1001), nil); len(lost) != 1 || len(lost[0].Slices) != 11 {
		t.Errorf("a burst of a slice more: %v", lost)
	}
}

// Groups never have more slices than the field has elements, and cover every slice once.
func TestGeometry(t *testing.T) {
	for _, share := range []Share{1, 100, 500, 1000, 2800, 2801, 3333, MaxShare} {
		for _, n := range []int{1, 2, 199, 200, 201, 2001, 20_000, 123_457} {
			g := newGeometry(n, share, maxData)
			seen := 0
			for group := range g.groups {
				for slot := range g.data {
					if _, ok := g.slice(group, slot); ok {
						seen++
					}
				}
			}
			if g.data > maxData || g.data+g.parity > maxShards || seen != n || (g.data-1)*g.groups >= n {
				t.Errorf("%d slices, %s: %+v covers %d", n, share, g, seen)
			}
			if 100*100*g.parity < g.data*int(share) {
				t.Errorf("%d slices, %s: %+v is less than the share", n, share, g)
			}
			if last := g.files() - 1; g.files() > 1 && (g.filed()*g.parity > fileSlices || g.filed() == 0) || last < 0 {
				t.Errorf("%d slices, %s: %d groups in a file", n, share, g.filed())
			}
		}
	}
}

func TestParseShare(t *testing.T) {
	for text, want := range map[string]Share{"5%": 500, "5": 500, "0": 0, "0%": 0, " 2.5% ": 250, "0.01": 1, "50%": 5000, "12.34%": 1234} {
		got, err := ParseShare(text)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "%", "-5", "51", "50.01%", "5%%", "five", "1e1", "0x5", "2.555", ".5", "NaN", "5 %x"} {
		if got, err := ParseShare(text); !errors.Is(err, ErrShare) {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	if s := Share(250).String(); s != "2.5%" {
		t.Error(s)
	}
}

// seal makes the checksum of a map right again.
func reseal(raw []byte) []byte {
	sum := sha256.Sum256(raw[:len(raw)-sha256.Size])
	return append(raw[:len(raw)-sha256.Size:len(raw)-sha256.Size], sum[:]...)
}

func sampleMap(tb testing.TB) []byte {
	d := newDrive(tb, 10, 3*sliceSize, 2*sliceSize+1, 5000, 0)
	d.write(1, 5000, 4)
	raw, err := os.ReadFile(filepath.Join(d.dir, filepath.FromSlash(mapName(1, 1))))
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// A map whose numbers lie is refused although its checksum is right.
func TestLyingMaps(t *testing.T) {
	raw := sampleMap(t)
	if _, err := ParseMap(raw); err != nil {
		t.Fatal(err)
	}
	lies := map[string]func(b []byte) []byte{
		"version":        func(b []byte) []byte { b[11] = 2; return b },
		"slices":         func(b []byte) []byte { b[19]++; return b },
		"data":           func(b []byte) []byte { b[23]++; return b },
		"data, huge":     func(b []byte) []byte { b[20] = 0xff; return b },
		"parity":         func(b []byte) []byte { b[27]++; return b },
		"parity, none":   func(b []byte) []byte { b[27] = 0; return b },
		"groups":         func(b []byte) []byte { b[31]++; return b },
		"groups, huge":   func(b []byte) []byte { b[28] = 0xff; return b },
		"blobs":          func(b []byte) []byte { b[35]++; return b },
		"blobs, huge":    func(b []byte) []byte { b[32] = 0xff; return b },
		"size":           func(b []byte) []byte { b[headSize+38]++; return b },
		"size, huge":     func(b []byte) []byte { b[headSize+32] = 0x7f; return b },
		"size, negative": func(b []byte) []byte { b[headSize+32] = 0xff; return b },
		"twice":          func(b []byte) []byte { copy(b[headSize+entrySize:], b[headSize:headSize+32]); return b },
		"longer":         func(b []byte) []byte { return append(b, make([]byte, 16)...) },
		"shorter":        func(b []byte) []byte { return b[:len(b)-16] },
		"a head alone":   func(b []byte) []byte { return b[:headSize+sha256.Size] },
	}
	for name, lie := range lies {
		if _, err := ParseMap(reseal(lie(bytes.Clone(raw)))); !errors.Is(err, ErrMap) && !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range raw {
		b := bytes.Clone(raw)
		b[i] ^= 1
		if _, err := ParseMap(b); !errors.Is(err, ErrMap) {
			t.Fatalf("a flip at %d: %v", i, err)
		}
	}
}

func FuzzParseMap(f *testing.F) {
	raw := sampleMap(f)
	f.Add(raw[:len(raw)-sha256.Size])
	f.Add(raw[:headSize])
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := ParseMap(reseal(append(bytes.Clone(body), make([]byte, sha256.Size)...)))
		if err != nil {
			return
		}
		if m.mapSize() != int64(len(body))+sha256.Size {
			t.Errorf("a map of %d bytes takes %d", len(body)+sha256.Size, m.mapSize())
		}
		again, err := m.encode()
		if err != nil || !bytes.Equal(again[:len(body)], body) {
			t.Errorf("encoded anew it differs: %v", err)
		}
		// Every slice of every blob is found again in the row.
		for k, b := range m.Blobs {
			for j := range content.SliceCount(b.Size) {
				i := m.row(k, j)
				if i >= m.slices || !slices.ContainsFunc(m.pieces(i), func(p piece) bool { return p.blob == k && p.slice == j }) {
					t.Fatalf("slice %d of blob %d is not in slice %d of the row", j, k, i)
				}
			}
		}
	})
}
