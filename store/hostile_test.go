package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// tryOpen writes raw to path, opens it and reads all of it. It fails the test for anything
// but a whole index, ErrCorrupt or ErrVersion; a panic or a hang fails it by itself.
func tryOpen(t testing.TB, path string, raw []byte) (everything, bool) {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	x, err := OpenReadOnly(path)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("neither corrupt nor newer: %v", err)
		}
		return everything{}, false
	}
	defer x.Close()
	d := dump(t, x)
	// What our own walk accepts, bbolt's must accept: it is the oracle, in a test only.
	err = x.db.View(func(tx *bolt.Tx) error {
		var all []error
		for err := range tx.Check() {
			all = append(all, err)
		}
		return errors.Join(all...)
	})
	if err != nil {
		t.Fatalf("bbolt's own check disagrees: %v", err)
	}
	return d, true
}

func smallSnapshot(t testing.TB) []byte {
	x := create(t)
	fillSample(t, x)
	return snapshot(t, x)
}

// treeSnapshot has branch pages, overflow pages and free pages.
func treeSnapshot(t testing.TB) []byte {
	x := create(t)
	fillSample(t, x)
	var records []Record
	for i := range 150 {
		records = append(records, sampleRecord(i))
	}
	for i := range 300 {
		records[0].Images = append(records[0].Images, fmt.Sprintf("4.8.21-x86_64-component-%05d", i))
	}
	if err := x.Put(records...); err != nil {
		t.Fatal(err)
	}
	return snapshot(t, x)
}

func TestTruncated(t *testing.T) {
	raw := treeSnapshot(t)
	path := filepath.Join(t.TempDir(), "copy.db")
	for n := 0; n < len(raw); n += 512 {
		if _, ok := tryOpen(t, path, raw[:n]); ok {
			t.Errorf("opened with %d of %d bytes", n, len(raw))
		}
	}
	if _, ok := tryOpen(t, path, append(bytes.Clone(raw), make([]byte, 700)...)); !ok {
		t.Error("refused for bytes behind the last page")
	}
}

func TestEveryByteFlipped(t *testing.T) {
	t.Parallel()
	raw := smallSnapshot(t)
	path := filepath.Join(t.TempDir(), "copy.db")
	want, _ := tryOpen(t, path, raw)
	step := 13 // no multiple of 8: another bit each time
	if allFaults {
		step = 1
	}
	refused, equal, changed := 0, 0, 0
	for i := 0; i < len(raw); i += step {
		flip := byte(1) << (i % 8)
		raw[i] ^= flip
		got, ok := tryOpen(t, path, raw)
		raw[i] ^= flip
		switch {
		case !ok:
			refused++
		case reflect.DeepEqual(got, want):
			equal++
		default:
			changed++ // inside of a text: the file's digest in the seal tells
		}
	}
	t.Logf("of %d bytes: %d refused, %d without effect, %d in a text", len(raw), refused, equal, changed)
	if refused == 0 || equal == 0 {
		t.Error("the test flips nothing")
	}
}

// An enemy writes numbers that are out of the ordinary, and correct checksums.
func TestHostileNumbers(t *testing.T) {
	t.Parallel()
	raw := treeSnapshot(t)
	path := filepath.Join(t.TempDir(), "copy.db")
	pages := uint64(len(raw) / pageSize)
	values := []uint64{0, 1, 2, 3, 4, pages - 1, pages, 0xffff, 0x7fffffff, 0xffffffff, 1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1}
	opened := 0
	for page := range int(pages) {
		for off := 0; off < 112; off += 4 {
			for _, value := range values {
				for _, size := range []int{2, 4, 8} {
					if size == 2 && off != 8 || size == 8 && off%8 != 0 {
						continue
					}
					if !allFaults && (page+off/4)%5 != 0 {
						continue
					}
					hostile := bytes.Clone(raw)
					put(hostile[page*pageSize+off:], size, value)
					sumMetas(hostile)
					if _, ok := tryOpen(t, path, hostile); ok {
						opened++
					}
				}
			}
		}
	}
	t.Logf("%d opened", opened)
}

// put writes the low bytes of value.
func put(b []byte, size int, value uint64) {
	switch size {
	case 2:
		binary.NativeEndian.PutUint16(b, uint16(value))
	case 4:
		binary.NativeEndian.PutUint32(b, uint32(value))
	default:
		binary.NativeEndian.PutUint64(b, value)
	}
}

// sumMetas writes the right checksums into both meta pages.
func sumMetas(raw []byte) {
	for id := range 2 {
		if at := id*pageSize + headerSize; len(raw) >= at+metaSize {
			sum := fnv.New64a()
			sum.Write(raw[at : at+metaSize-8])
			binary.NativeEndian.PutUint64(raw[at+metaSize-8:], sum.Sum64())
		}
	}
}

// Attacks on the structure, each by its intention. The page numbers are looked up, so that
// they stay what they say.
func TestHostilePages(t *testing.T) {
	raw := treeSnapshot(t)
	ne := binary.NativeEndian
	pages := uint64(len(raw) / pageSize)
	var branch, leaf uint64
	for id := uint64(2); id < pages; id++ {
		switch p := raw[id*pageSize:]; ne.Uint16(p[8:]) {
		case flagBranch:
			branch = id
		case flagLeaf:
			if ne.Uint64(p) == id && int(ne.Uint16(p[10:])) > len(buckets) {
				leaf = id
			}
		}
	}
	if branch == 0 || leaf == 0 {
		t.Fatal("the sample has no tree")
	}
	element := func(b []byte, page uint64, i int) []byte {
		return b[page*pageSize+headerSize+uint64(i)*elementSize:]
	}
	tests := map[string]func([]byte){
		"a branch that contains itself":    func(b []byte) { ne.PutUint64(element(b, branch, 0)[8:], branch) },
		"two references to one page":       func(b []byte) { copy(element(b, branch, 1)[8:16], element(b, branch, 0)[8:16]) },
		"a reference past the end":         func(b []byte) { ne.PutUint64(element(b, branch, 0)[8:], pages) },
		"a reference to a meta page":       func(b []byte) { ne.PutUint64(element(b, branch, 0)[8:], 1) },
		"a branch without elements":        func(b []byte) { ne.PutUint16(b[branch*pageSize+10:], 0) },
		"a page that goes on past the end": func(b []byte) { ne.PutUint32(b[leaf*pageSize+12:], 1<<31) },
		"a key outside of its page":        func(b []byte) { ne.PutUint32(element(b, leaf, 0)[4:], 1<<30) },
		"one value for two keys":           func(b []byte) { ne.PutUint32(element(b, leaf, 1)[4:], ne.Uint32(element(b, leaf, 0)[4:])-elementSize) },
		"a value that is too long":         func(b []byte) { ne.PutUint32(element(b, leaf, 0)[12:], 1<<31-1) },
		"a value that is a bucket":         func(b []byte) { ne.PutUint32(element(b, leaf, 0), flagBucket) },
		"a key of no bytes":                func(b []byte) { ne.PutUint32(element(b, leaf, 0)[8:], 0) },
		"a list of 2^64 free pages":        hugeFreelist,
		"no list of free pages":            func(b []byte) { bothMetas(b, 32, 1<<64-1) },
		"a tree of free pages":             func(b []byte) { bothMetas(b, 16, ne.Uint64(b[headerSize+32:])) },
		"more pages than the file has":     func(b []byte) { bothMetas(b, 40, 1<<40) },
		"fewer pages than it uses":         func(b []byte) { bothMetas(b, 40, pages-1) },
		"the last transaction":             func(b []byte) { ne.PutUint64(b[headerSize+48:], 1<<64-1) },
		"small pages":                      func(b []byte) { ne.PutUint32(b[headerSize+8:], 1024) },
		"the other byte order":             func(b []byte) { ne.PutUint32(b[headerSize:], 0xEDDA0CED) },
	}
	path := filepath.Join(t.TempDir(), "copy.db")
	for name, attack := range tests {
		hostile := bytes.Clone(raw)
		attack(hostile)
		if bytes.Equal(hostile, raw) {
			t.Errorf("%s: changes nothing", name)
		}
		sumMetas(hostile)
		if _, ok := tryOpen(t, path, hostile); ok {
			t.Errorf("%s: opened", name)
		}
	}
}

func hugeFreelist(b []byte) {
	ne := binary.NativeEndian
	page := b[ne.Uint64(b[headerSize+32:])*pageSize:]
	ne.PutUint16(page[10:], 0xffff)
	ne.PutUint64(page[headerSize:], 1<<64-1)
}

func bothMetas(b []byte, off int, value uint64) {
	binary.NativeEndian.PutUint64(b[headerSize+off:], value)
	binary.NativeEndian.PutUint64(b[pageSize+headerSize+off:], value)
}

// Databases that bbolt has no quarrel with and that are no index of ours.
func TestForeignEntries(t *testing.T) {
	d := string(sampleBlob(5).Digest) // complete, with sums
	set := func(bucket, key, value string) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) }
	}
	record := func(fields string) func(*bolt.Tx) error {
		return set("blobs", d, `{"size":10,"state":"wanted","offset":0,"source":"","images":[]`+fields+`}`)
	}
	tests := []struct {
		name   string
		change func(*bolt.Tx) error
		want   error
	}{
		{"nothing", func(*bolt.Tx) error { return nil }, nil},
		{"a bucket more", func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("more")); return err }, nil},
		{"a member more", set("blobs", string(sampleRecord(1).Digest), `{"size":1,"state":"wanted","offset":0,"source":"","images":[],"new":[{}]}`), nil},
		{"a newer format", set("meta", "format", "2"), ErrVersion},
		{"a newer format without our buckets", func(tx *bolt.Tx) error {
			return errors.Join(set("meta", "format", "10")(tx), tx.DeleteBucket([]byte("blobs")))
		}, ErrVersion},
		{"format 0", set("meta", "format", "0"), ErrCorrupt},
		{"a format that is no number", set("meta", "format", " 1"), ErrCorrupt},
		{"no format", func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("format")) }, ErrCorrupt},
		{"no meta", func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("meta")) }, ErrCorrupt},
		{"no slices", func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("slices")) }, ErrCorrupt},
		{"an instance that is a path", set("meta", "instance", "../.."), ErrCorrupt},
		{"a nested bucket", func(tx *bolt.Tx) error {
			_, err := tx.Bucket([]byte("blobs")).CreateBucket([]byte(sampleRecord(8).Digest))
			return err
		}, ErrCorrupt},
		{"a key that is no digest", set("blobs", "sha256:../../x", `{"size":1,"state":"wanted","offset":0,"source":"","images":[]}`), ErrCorrupt},
		{"a key in capitals", set("blobs", "sha256:"+string(bytes.Repeat([]byte("A"), 64)), `{"size":1,"state":"wanted"}`), ErrCorrupt},
		{"an empty value", set("blobs", d, ""), ErrCorrupt},
		{"null", set("blobs", d, "null"), ErrCorrupt},
		{"no JSON", set("blobs", d, "{"), ErrCorrupt},
		{"two values", set("blobs", d, "{}{}"), ErrCorrupt},
		{"an unknown state", record(`,"state":"done"`), ErrCorrupt},
		{"a negative size", record(`,"size":-1`), ErrCorrupt},
		{"a size that overflows", record(`,"size":9223372036854775807`), ErrCorrupt},
		{"an offset past the size", record(`,"offset":11`), ErrCorrupt},
		{"a negative offset", record(`,"offset":-1`), ErrCorrupt},
		{"images out of order", record(`,"images":["b","a"]`), ErrCorrupt},
		{"an image that is a path", record(`,"images":["../x"]`), ErrCorrupt},
		{"a terminal escape", record(`,"source":"\u001b[2J"`), ErrCorrupt},
		{"sums that fit another size", record(``), ErrCorrupt},
		{"sums of an unknown blob", set("slices", string(sampleRecord(8).Digest), "0123456789abcdef"), ErrCorrupt},
		{"half a sum", set("slices", d, "01234567"), ErrCorrupt},
		{"an unknown kind of image", set("images", "a", `{"kind":"x","descriptor":{"digest":"`+d+`","size":1}}`), ErrCorrupt},
		{"an image without descriptor", set("images", "a", `{"kind":"release"}`), ErrCorrupt},
		{"a document with other bytes", set("documents", sampleTag+"/signature-1", "012345"), ErrCorrupt},
		{"a document of no release", set("documents", "4.9.0-x86_64/signature-1", ""), ErrCorrupt},
		{"a document that is missing", func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("documents")).Delete([]byte(sampleTag + "/signature-1"))
		}, ErrCorrupt},
		{"a release that is a path", set("releases", "../x", `{"signature":"missing","descriptor":{"digest":"`+d+`","size":1}}`), ErrCorrupt},
		{"a release with a time of nonsense", set("releases", "a", `{"created":"yesterday","signature":"missing","descriptor":{"digest":"`+d+`","size":1}}`), ErrCorrupt},
		{"a very long value", set("blobs", d, `{"source":"`+string(bytes.Repeat([]byte("a"), maxJSON))+`"}`), ErrCorrupt},
		{"a very long key", set("images", string(bytes.Repeat([]byte("a"), maxKey+1)), `{}`), ErrCorrupt},
		{"deep JSON", set("blobs", d, `{"images":`+string(bytes.Repeat([]byte("["), 1<<20))), ErrCorrupt},
	}
	raw := smallSnapshot(t)
	for _, test := range tests {
		path := filepath.Join(t.TempDir(), "copy.db")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(test.change), db.Close()); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		for _, open := range []func(string) (*Index, error){OpenReadOnly, Open} {
			x, err := open(path)
			if !errors.Is(err, test.want) || err != nil && test.want == nil {
				t.Errorf("%s: %v, want %v", test.name, err, test.want)
			}
			if err == nil {
				x.Close()
			}
		}
	}
}

// Whatever an index goes through, its file and its snapshots pass the walk: what it asks
// beyond bbolt's own check is true of every honest file.
func TestHonestFilesPass(t *testing.T) {
	t.Parallel()
	x := create(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		for range rnd.IntN(4) {
			var err error
			switch k := rnd.IntN(400); rnd.IntN(4) {
			case 0:
				var batch []Record
				for i := range rnd.IntN(300) {
					batch = append(batch, sampleRecord(k+i))
				}
				err = x.Put(batch...)
			case 1:
				err = x.Complete(sampleBlob(rnd.IntN(9)))
			case 2:
				for i := range rnd.IntN(150) {
					err = errors.Join(err, x.Delete(sampleRecord(k+i).Digest))
				}
			case 3:
				r := sampleRecord(k)
				for i := range rnd.IntN(5000) {
					r.Images = append(r.Images, fmt.Sprintf("4.8.21-x86_64-component-%05d", i))
				}
				err = x.Put(r)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		live, err := os.ReadFile(x.file.Name())
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "copy.db")
		for what, raw := range map[string][]byte{"file": live, "snapshot": snapshot(t, x)} {
			if err := checkPages(bytes.NewReader(raw), int64(len(raw))); err != nil {
				t.Fatalf("round %d: %s: %v", round, what, err)
			}
			if d, ok := tryOpen(t, path, raw); !ok || !reflect.DeepEqual(d, dump(t, x)) {
				t.Fatalf("round %d: %s: other content", round, what)
			}
		}
	}
}

// A list of 65535 free pages or more has its length in another place.
func TestLongFreelist(t *testing.T) {
	raw := smallSnapshot(t)
	ne := binary.NativeEndian
	const pages, listPages = 70000, 140
	list := uint64(len(raw) / pageSize)
	old := ne.Uint64(raw[headerSize+32:])
	free := []uint64{old}
	for i := range uint64(ne.Uint16(raw[old*pageSize+10:])) {
		free = append(free, ne.Uint64(raw[old*pageSize+headerSize+8*i:]))
	}
	slices.Sort(free)
	for id := list + listPages; id < pages; id++ {
		free = append(free, id)
	}
	page := make([]byte, listPages*pageSize)
	ne.PutUint64(page, list)
	ne.PutUint16(page[8:], flagFreelist)
	ne.PutUint16(page[10:], 0xffff)
	ne.PutUint32(page[12:], listPages-1)
	ne.PutUint64(page[headerSize:], uint64(len(free)))
	for i, id := range free {
		ne.PutUint64(page[headerSize+8+8*i:], id)
	}
	bothMetas(raw, 32, list)
	bothMetas(raw, 40, pages)
	sumMetas(raw)
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(path, append(raw, page...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, pages*pageSize); err != nil { // a hole: free pages are not read
		t.Fatal(err)
	}
	for range 2 { // the second time as bbolt writes it
		x, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(x.Put(sampleRecord(3)), x.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzOpenReadOnly(f *testing.F) {
	f.Add(smallSnapshot(f))
	f.Add(treeSnapshot(f))
	f.Add([]byte{})
	path := filepath.Join(f.TempDir(), "copy.db")
	f.Fuzz(func(t *testing.T, raw []byte) {
		tryOpen(t, path, raw)
		sumMetas(raw)
		tryOpen(t, path, raw)
	})
}

func FuzzDecodeRecord(f *testing.F) {
	key := []byte(sampleRecord(1).Digest)
	good, err := encodeRecord(sampleRecord(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(key, good)
	f.Add(key, []byte(`{"size":1e3,"state":"complete","offset":1000,"images":["a","b"],"sealed":18446744073709551615}`))
	f.Add(key, []byte(`null`))
	f.Add([]byte("sha512:00"), []byte(`{}`))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, err := decodeRecord(entry{key, value})
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		// What is read fast is what encoding/json and the checks make of it.
		slow := Record{Digest: digest.Digest(key)}
		if err := decode(bucketBlobs, key, value, &slow); err != nil || !reflect.DeepEqual(r, slow) {
			t.Fatalf("%+v, slowly %+v, %v", r, slow, err)
		}
		again, err := encodeRecord(r)
		if err != nil {
			t.Fatalf("read and not writable: %v", err)
		}
		same, err := decodeRecord(entry{key, again})
		if err != nil {
			t.Fatal(err)
		}
		r.Images = append([]string{}, r.Images...)
		if !reflect.DeepEqual(r, same) {
			t.Fatalf("%+v became %+v", r, same)
		}
	})
}

func FuzzDecodeImage(f *testing.F) {
	good, err := encodeImage(sampleImage("etcd"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(sampleImage("etcd").Tag), good)
	f.Add([]byte("a"), []byte(`{"kind":"release","name":"\u0061"}`))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		i, err := decodeImage(entry{key, value})
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		slow := Image{Tag: string(key)}
		if err := decode(bucketImages, key, value, &slow); err != nil || !reflect.DeepEqual(i, slow) {
			t.Fatalf("%+v, slowly %+v, %v", i, slow, err)
		}
	})
}

func FuzzDecodeRelease(f *testing.F) {
	release, _ := sampleRelease()
	good, err := encodeRelease(release)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(release.Tag), good)
	f.Add([]byte("a"), []byte(`{"documents":[null],"created":null}`))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, err := decodeRelease(entry{key, value})
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if _, err := encodeRelease(r); err != nil {
			t.Fatalf("read and not writable: %v", err)
		}
	})
}
