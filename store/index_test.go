package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
)

func TestRoundTrip(t *testing.T) {
	x := create(t)
	fillSample(t, x)

	want := sampleBlob(5)
	want.State, want.Offset, want.Sealed = StateComplete, want.Size, 3
	want.Images = []string{sampleTag, sampleTag + "-etcd"} // sorted
	got, err := x.Record(want.Digest)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "record", got, want.Record)
	sums, err := x.Slices(want.Digest)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "sums", sums, want.Slices)

	partial, err := x.Record(sampleRecord(2).Digest)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "partial record", partial, sampleRecord(2))

	release, docs := sampleRelease()
	release.Sealed = 3
	gotRelease, err := x.ReleaseByTag(sampleTag)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "release", gotRelease, release)
	for name, data := range docs {
		got, err := x.Document(sampleTag, name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, data) {
			t.Errorf("document %s: %x, want %x", name, got, data)
		}
	}
	image, err := x.ImageByTag(sampleTag + "-cli")
	if err != nil {
		t.Fatal(err)
	}
	same(t, "image", image, sampleImage("cli"))

	// The same through a snapshot, read-only and writable, and through the live file.
	all := dump(t, x)
	if len(all.Records) != 5 || len(all.Slices) != 3 || len(all.Images) != 2 || len(all.Documents) != 3 {
		t.Fatalf("the sample is incomplete: %+v", all)
	}
	ro, err := openBytes(t, snapshot(t, x))
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	same(t, "snapshot", dump(t, ro), all)
	if err := ro.Put(sampleRecord(9)); !errors.Is(err, errReadOnly) {
		t.Errorf("Put on a read-only index: %v", err)
	}
	if !bytes.Equal(snapshot(t, ro), snapshot(t, x)) {
		t.Error("a snapshot of a snapshot differs from it")
	}
	path := x.file.Name()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	rw, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer rw.Close()
	same(t, "working copy", dump(t, rw), all)
	if err := rw.Put(sampleRecord(9)); err != nil {
		t.Error(err)
	}
}

func TestNotFound(t *testing.T) {
	x := create(t)
	fillSample(t, x)
	unknown := digest.FromString("unknown")
	_, record := x.Record(unknown)
	_, sums := x.Slices(sampleRecord(1).Digest)
	_, release := x.ReleaseByTag("4.8.22-x86_64")
	_, image := x.ImageByTag("4.8.22-x86_64")
	_, document := x.Document(sampleTag, "signature-2")
	_, value := x.Meta("unknown")
	for i, err := range []error{record, sums, release, image, document, value} {
		if !errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := x.Delete(unknown); err != nil {
		t.Error(err)
	}
}

func TestDelete(t *testing.T) {
	x := create(t)
	empty := snapshot(t, x)
	release, docs := sampleRelease()
	if err := errors.Join(x.Complete(sampleBlob(1)), x.PutImages(sampleImage("etcd")), x.PutRelease(release, docs)); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(x.Delete(sampleBlob(1).Digest), x.DeleteImage(sampleTag+"-etcd"), x.DeleteRelease(sampleTag))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snapshot(t, x), empty) {
		t.Error("something is left of what was deleted")
	}
}

// A release that is written again keeps the documents that it still names, only those.
func TestPutReleaseAgain(t *testing.T) {
	x := create(t)
	release, docs := sampleRelease()
	other := release
	other.Tag = "4.8.21-x86_64-0" // sorts beside the first; its documents are its own
	if err := errors.Join(x.PutRelease(release, docs), x.PutRelease(other, docs)); err != nil {
		t.Fatal(err)
	}
	release.Signature = SignatureUnverified
	release.Documents = release.Documents[1:]
	if err := x.PutRelease(release, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Document(release.Tag, "signature-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a document that the release no longer names: %v", err)
	}
	for tag, name := range map[string]string{release.Tag: "mirror-sources.json", other.Tag: "signature-1"} {
		if got, err := x.Document(tag, name); err != nil || !bytes.Equal(got, docs[name]) {
			t.Errorf("%s of %s: %x, %v", name, tag, got, err)
		}
	}
	wrong := map[string][]byte{"mirror-sources.json": []byte("else")}
	if err := x.PutRelease(release, wrong); !errors.Is(err, content.ErrInvalid) {
		t.Errorf("a document with other bytes: %v", err)
	}
	if err := x.PutRelease(release, map[string][]byte{"more": nil}); !errors.Is(err, content.ErrInvalid) {
		t.Errorf("a document that is not listed: %v", err)
	}
	release.Tag = "4.8.23-x86_64"
	if err := x.PutRelease(release, nil); !errors.Is(err, content.ErrInvalid) {
		t.Errorf("documents that were never given: %v", err)
	}
}

func TestSeal(t *testing.T) {
	x := create(t)
	fillSample(t, x) // sealed as 3, then two partial records
	if err := x.Complete(sampleBlob(2)); err != nil {
		t.Fatal(err)
	}
	if err := x.Seal(4); err != nil {
		t.Fatal(err)
	}
	want := map[digest.Digest]uint64{sampleBlob(0).Digest: 3, sampleBlob(1).Digest: 3, sampleBlob(5).Digest: 3, sampleBlob(2).Digest: 4}
	err := x.Records(func(r Record) error {
		if r.Sealed != want[r.Digest] {
			return fmt.Errorf("%s %s: sealed by %d, want %d", r.State, r.Digest, r.Sealed, want[r.Digest])
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := x.Seal(0); !errors.Is(err, content.ErrInvalid) {
		t.Errorf("generation 0: %v", err)
	}
}

// Sums that cannot belong to a record any more go when its size is corrected.
func TestPutOfOtherSize(t *testing.T) {
	x := create(t)
	blob := sampleBlob(5)
	if err := x.Complete(blob); err != nil {
		t.Fatal(err)
	}
	r := blob.Record
	r.State, r.Offset = StateWanted, 0
	if err := x.Put(r); err != nil {
		t.Fatal(err)
	}
	if s, err := x.Slices(r.Digest); err != nil || !bytes.Equal(s, blob.Slices) {
		t.Errorf("sums after a change of state: %x, %v", s, err)
	}
	r.Size = 1
	if err := x.Put(r); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Slices(r.Digest); !errors.Is(err, ErrNotFound) {
		t.Errorf("sums after a change of size: %v", err)
	}
}

func TestRefusedValues(t *testing.T) {
	x := create(t)
	record := func(change func(*Record)) func() error {
		return func() error { r := sampleRecord(1); change(&r); return x.Put(r) }
	}
	image := func(change func(*Image)) func() error {
		return func() error { i := sampleImage("etcd"); change(&i); return x.PutImages(i) }
	}
	release := func(change func(*Release)) func() error {
		return func() error { r, docs := sampleRelease(); change(&r); return x.PutRelease(r, docs) }
	}
	tests := map[string]func() error{
		"no digest":         record(func(r *Record) { r.Digest = "" }),
		"sha512":            record(func(r *Record) { r.Digest = digest.NewDigestFromEncoded(digest.SHA512, strings.Repeat("ab", 64)) }),
		"negative size":     record(func(r *Record) { r.Size = -1 }),
		"huge size":         record(func(r *Record) { r.Size = MaxBlob + 1 }),
		"negative offset":   record(func(r *Record) { r.Offset = -1 }),
		"offset past size":  record(func(r *Record) { r.Offset = r.Size + 1 }),
		"complete but not":  record(func(r *Record) { r.State = StateComplete }),
		"unknown state":     record(func(r *Record) { r.State = "done" }),
		"no state":          record(func(r *Record) { r.State = "" }),
		"image of no name":  record(func(r *Record) { r.Images = []string{""} }),
		"terminal escape":   record(func(r *Record) { r.Source = "quay.io/\x1b[2J" }),
		"invalid UTF-8":     record(func(r *Record) { r.Source = "quay.io/\xff" }),
		"long text":         record(func(r *Record) { r.MediaType = string(bytes.Repeat([]byte("a"), maxText+1)) }),
		"path as ref name":  image(func(i *Image) { i.Tag = "../../etc" }),
		"line in ref name":  image(func(i *Image) { i.Tag = "a\nb" }),
		"unknown kind":      image(func(i *Image) { i.Kind = "other" }),
		"negative bytes":    image(func(i *Image) { i.Bytes = -1 }),
		"bad descriptor":    image(func(i *Image) { i.Descriptor.Size = -1 }),
		"slash in tag":      release(func(r *Release) { r.Tag = "a/b" }),
		"no tag":            release(func(r *Release) { r.Tag = "" }),
		"unknown verdict":   release(func(r *Release) { r.Signature = "fine" }),
		"document path":     release(func(r *Release) { r.Documents[0].Name = "a/b" }),
		"document dots":     release(func(r *Release) { r.Documents[0].Name = ".." }),
		"document twice":    release(func(r *Release) { r.Documents[1] = r.Documents[0] }),
		"document size":     release(func(r *Release) { r.Documents[0].Size++ }),
		"set format":        func() error { return x.SetMeta(MetaFormat, "1") },
		"instance path":     func() error { return x.SetMeta(MetaInstance, "../x") },
		"generation text":   func() error { return x.SetMeta(MetaGeneration, "0x1") },
		"sums of less":      func() error { b := sampleBlob(5); b.Slices = b.Slices[16:]; return x.Complete(b) },
		"sums of nothing":   func() error { b := sampleBlob(5); b.Slices = nil; return x.Complete(b) },
		"one bad of a pair": func() error { return x.Put(sampleRecord(1), Record{}) },
	}
	for name, call := range tests {
		if err := call(); !errors.Is(err, content.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d := dump(t, x); len(d.Records)+len(d.Images)+len(d.Releases) != 0 {
		t.Errorf("a refused value was written: %+v", d)
	}
	// What looks odd and is right.
	whole := sampleImage("etcd")
	whole.Tag, whole.Kind, whole.Release = "reg.example:5000/team/app:1.2@"+digest.FromString("a").String(), KindAdditional, ""
	zero := Completed{Record: Record{Digest: digest.FromString("")}}
	if err := errors.Join(x.PutImages(whole), x.Complete(zero)); err != nil {
		t.Error(err)
	}
	if s, err := x.Slices(zero.Digest); err != nil || len(s) != 0 {
		t.Errorf("sums of an empty blob: %x, %v", s, err)
	}
}

func TestCreateAndOpenPaths(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "index.db")
	if _, err := Open(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of nothing: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("Open made a file")
	}
	if _, err := OpenReadOnly(dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a folder: %v", err)
	}
	x, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Error("opened twice for writing")
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	if _, err := Create(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("Create over a file: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("Create changed the file that was there")
	}
	if _, err := x.Record(digest.FromString("")); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("a closed index: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// The bytes of a snapshot are a function of the entries, whatever the way to them.
func TestSnapshotIsDeterministic(t *testing.T) {
	const n = 1500
	var want []byte
	for run := range 4 {
		x := create(t)
		release, docs := sampleRelease()
		for i := range n {
			k := i
			if run == 1 {
				k = n - 1 - i
			}
			var err error
			if run == 2 || i%100 == 0 {
				err = x.Put(sampleRecord(n+1), sampleRecord(k))
			} else {
				err = x.Put(sampleRecord(k))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		err := errors.Join(x.PutImages(sampleImage("etcd"), sampleImage("cli")), x.PutRelease(release, docs),
			x.Complete(sampleBlob(4), sampleBlob(3)), x.Delete(sampleRecord(n+1).Digest))
		if err != nil {
			t.Fatal(err)
		}
		got := snapshot(t, x)
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("run %d: other bytes (%d, %d)", run, len(got), len(want))
		}
	}
}

func TestRecordsMayBeChangedWhileWalked(t *testing.T) {
	x := create(t)
	var records []Record
	for i := range 2 * batchEntries {
		records = append(records, sampleRecord(i))
	}
	if err := x.Put(records...); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err := x.Records(func(r Record) error {
		seen++
		r.MediaType = string(bytes.Repeat([]byte("m"), maxText)) // makes the file grow
		if seen%3 == 0 {
			return x.Delete(r.Digest)
		}
		return x.Put(r)
	})
	if err != nil || seen != len(records) {
		t.Fatalf("walked %d of %d: %v", seen, len(records), err)
	}
	stop := errors.New("stop")
	seen = 0
	if err := x.Records(func(Record) error { seen++; return stop }); err != stop || seen != 1 {
		t.Errorf("after an error: %d calls, %v", seen, err)
	}
}

func TestParallelUse(t *testing.T) {
	x := create(t)
	const workers, each = 8, 60
	var wg sync.WaitGroup
	errs := make(chan error, workers+1)
	done := make(chan struct{})
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				r := sampleRecord(w*each + i)
				if err := x.Put(r); err != nil {
					errs <- err
					return
				}
				if i%2 == 0 {
					if err := x.Complete(Completed{r, make(content.Slices, sumBytes(r.Size))}); err != nil {
						errs <- err
						return
					}
				}
				if got, err := x.Record(r.Digest); err != nil || got.Size != r.Size {
					errs <- fmt.Errorf("%+v: %w", got, err)
					return
				}
			}
		}()
	}
	go func() {
		// Snapshots taken meanwhile are whole.
		defer close(done)
		for range 5 {
			ro, err := openBytes(t, snapshot(t, x))
			if err != nil {
				errs <- err
				return
			}
			ro.Close()
		}
	}()
	wg.Wait()
	<-done
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	d := dump(t, x)
	if len(d.Records) != workers*each || len(d.Slices) != workers*each/2 {
		t.Errorf("%d records, %d with sums", len(d.Records), len(d.Slices))
	}
}

// After a commit that failed the handle says so and does not go on.
func TestFailedWriteIsSticky(t *testing.T) {
	x := create(t)
	fillSample(t, x)
	x.db.MaxSize = 1 // the next growth is refused by bbolt itself
	big := sampleRecord(7)
	for i := range 40000 {
		big.Images = append(big.Images, fmt.Sprintf("4.8.21-x86_64-component-%05d", i))
	}
	first := x.Put(big)
	if first == nil || errors.Is(first, ErrCorrupt) {
		t.Fatalf("a write without space: %v", first)
	}
	if err := x.Put(sampleRecord(8)); err == nil {
		t.Error("wrote on after a failed commit")
	}
	if _, err := x.WriteTo(&bytes.Buffer{}); err == nil {
		t.Error("made a snapshot after a failed commit")
	}
	if err := x.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func BenchmarkPut10k(b *testing.B) {
	records := make([]Record, 10000)
	for i := range records {
		records[i] = sampleRecord(i)
	}
	for b.Loop() {
		x := create(b)
		for batch := range 100 {
			if err := x.Put(records[batch*100 : batch*100+100]...); err != nil {
				b.Fatal(err)
			}
		}
		x.Close()
	}
}

func BenchmarkPutOne(b *testing.B) {
	x := create(b)
	for i := 0; b.Loop(); i++ {
		if err := x.Put(sampleRecord(i)); err != nil {
			b.Fatal(err)
		}
	}
}

// filled10k returns an index of 10,000 records.
func filled10k(b *testing.B) *Index {
	x := create(b)
	records := make([]Record, 10000)
	for i := range records {
		records[i] = sampleRecord(i)
	}
	if err := x.Put(records...); err != nil {
		b.Fatal(err)
	}
	return x
}

func BenchmarkRecords10k(b *testing.B) {
	x := filled10k(b)
	for b.Loop() {
		n := 0
		if err := x.Records(func(Record) error { n++; return nil }); err != nil || n != 10000 {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkWriteTo10k(b *testing.B) {
	x := filled10k(b)
	for b.Loop() {
		b.SetBytes(int64(len(snapshot(b, x))))
	}
}

func BenchmarkOpenReadOnly10k(b *testing.B) {
	path := filepath.Join(b.TempDir(), "copy.db")
	if err := os.WriteFile(path, snapshot(b, filled10k(b)), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		x, err := OpenReadOnly(path)
		if err != nil {
			b.Fatal(err)
		}
		x.Close()
	}
}
