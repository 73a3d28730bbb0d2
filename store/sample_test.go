package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

const sampleTag = "4.8.21-x86_64"

// sampleBlob returns blob i of a made-up bundle, with its bytes' sums.
func sampleBlob(i int) Completed {
	data := bytes.Repeat([]byte{byte(i)}, 10+i*content.SliceSize/2)
	var s content.Slicer
	s.Write(data)
	return Completed{
		Record: Record{
			Digest:    digest.FromBytes(data),
			Size:      int64(len(data)),
			MediaType: content.MediaTypeDockerLayer,
			Source:    "quay.io/openshift-release-dev/ocp-v4.0-art-dev",
			Images:    []string{sampleTag + "-etcd", sampleTag},
		},
		Slices: s.Slices(),
	}
}

func sampleRecord(i int) Record {
	return Record{
		Digest: digest.FromString(fmt.Sprint("record ", i)),
		Size:   int64(1000 + i), MediaType: content.MediaTypeDockerLayer, State: StatePartial, Offset: int64(i),
		Source: "quay.io/openshift-release-dev/ocp-v4.0-art-dev", Images: []string{sampleTag},
	}
}

func sampleRelease() (Release, map[string][]byte) {
	docs := map[string][]byte{
		"signature-1":         {0x89, 1, 2, 3, 0, 0xff},
		"mirror-sources.json": []byte(`[{"source":"quay.io/openshift-release-dev/ocp-release"}]`),
		"empty":               {},
	}
	r := Release{
		Tag: sampleTag, Version: "4.8.21", Arch: "x86_64", Source: "quay.io/openshift-release-dev/ocp-release",
		Descriptor: ocispec.Descriptor{MediaType: content.MediaTypeDockerManifest, Digest: digest.FromString("release"), Size: 1234},
		Created:    time.Date(2021, 11, 18, 4, 5, 6, 0, time.UTC),
		Previous:   []string{"4.8.20", "4.7.37"},
		Signature:  SignatureVerified,
	}
	for _, name := range []string{"signature-1", "mirror-sources.json", "empty"} {
		r.Documents = append(r.Documents, Document{
			Name: name, MediaType: "application/octet-stream", Digest: digest.FromBytes(docs[name]), Size: int64(len(docs[name])),
		})
	}
	return r, docs
}

func sampleImage(name string) Image {
	return Image{
		Tag: sampleTag + "-" + name, Name: name, Kind: KindComponent, Release: sampleTag,
		Reference:  "quay.io/openshift-release-dev/ocp-v4.0-art-dev@" + digest.FromString(name).String(),
		Descriptor: ocispec.Descriptor{MediaType: content.MediaTypeDockerManifest, Digest: digest.FromString(name), Size: 99},
		Bytes:      1 << 33,
	}
}

// create returns a new, empty index that is closed at the end of the test.
func create(t testing.TB) *Index {
	t.Helper()
	x, err := Create(filepath.Join(t.TempDir(), "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// fillSample writes one of everything.
func fillSample(t testing.TB, x *Index) {
	t.Helper()
	release, docs := sampleRelease()
	steps := []error{
		x.SetMeta(MetaInstance, "b4c7a9d0-1"),
		x.SetMeta(MetaGeneration, "7"),
		x.Complete(sampleBlob(0), sampleBlob(1), sampleBlob(5)),
		x.PutImages(sampleImage("etcd"), sampleImage("cli")),
		x.PutRelease(release, docs),
		x.Seal(3),
		x.Put(sampleRecord(1), sampleRecord(2)),
	}
	for i, err := range steps {
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

// snapshot returns the bytes of a snapshot of x.
func snapshot(t testing.TB, x *Index) []byte {
	t.Helper()
	var buf bytes.Buffer
	n, err := x.WriteTo(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(buf.Len()) {
		t.Fatalf("WriteTo returned %d after %d bytes", n, buf.Len())
	}
	return buf.Bytes()
}

// openBytes opens raw as a copy from a drive would be.
func openBytes(t testing.TB, raw []byte) (*Index, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return OpenReadOnly(path)
}

// everything is all that an index holds.
type everything struct {
	Meta      map[string]string
	Records   []Record
	Slices    map[digest.Digest]string
	Images    []Image
	Releases  []Release
	Documents map[string]string
}

// dump reads all that x holds.
func dump(t testing.TB, x *Index) everything {
	t.Helper()
	d := everything{Meta: map[string]string{}, Slices: map[digest.Digest]string{}, Documents: map[string]string{}}
	for _, key := range []string{MetaFormat, MetaInstance, MetaGeneration} {
		d.Meta[key], _ = x.Meta(key)
	}
	err := x.Records(func(r Record) error {
		d.Records = append(d.Records, r)
		if s, err := x.Slices(r.Digest); err == nil {
			d.Slices[r.Digest] = string(s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Images(func(i Image) error { d.Images = append(d.Images, i); return nil }); err != nil {
		t.Fatal(err)
	}
	err = x.Releases(func(r Release) error {
		d.Releases = append(d.Releases, r)
		for _, doc := range r.Documents {
			data, err := x.Document(r.Tag, doc.Name)
			if err != nil {
				return err
			}
			d.Documents[r.Tag+" "+doc.Name] = string(data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}
