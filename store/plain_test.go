package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"pannier/bundle/content"
	"pannier/store"
)

// An index says what it has to say to a program that knows bbolt, JSON and docs/format.md,
// and nothing of this package: per blob digest, size, state, offset, source and images; per
// release the mirror set and the signatures.
func TestReadWithBboltAlone(t *testing.T) {
	layer, doc := []byte("a layer"), map[string][]byte{"signature-1": {0x89, 0, 1}, "imagecontentsourcepolicy.yaml": []byte("kind: ImageContentSourcePolicy\n")}
	var sums content.Slicer
	sums.Write(layer)
	half := digest.FromString("half")
	release := store.Release{
		Tag: "4.8.21-x86_64", Version: "4.8.21", Arch: "x86_64", Source: "quay.io/openshift-release-dev/ocp-release",
		Descriptor: ocispec.Descriptor{MediaType: content.MediaTypeDockerManifest, Digest: digest.FromString("m"), Size: 1},
		Created:    time.Date(2021, 11, 18, 1, 0, 0, 0, time.FixedZone("", 3600)), Signature: store.SignatureVerified,
	}
	for _, name := range []string{"signature-1", "imagecontentsourcepolicy.yaml"} {
		release.Documents = append(release.Documents, store.Document{Name: name, Digest: digest.FromBytes(doc[name]), Size: int64(len(doc[name]))})
	}

	path := filepath.Join(t.TempDir(), "index.db")
	x, err := store.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	var buf bytes.Buffer
	for _, call := range []func() error{
		func() error { return x.SetMeta(store.MetaInstance, "d1") },
		func() error { return x.SetMeta(store.MetaGeneration, "12") },
		func() error {
			return x.Complete(store.Completed{
				Record: store.Record{Digest: digest.FromBytes(layer), Size: int64(len(layer)), Source: "quay.io/a/b", Images: []string{"4.8.21-x86_64-etcd"}},
				Slices: sums.Slices(),
			})
		},
		func() error {
			return x.Put(store.Record{Digest: half, Size: 200, State: store.StatePartial, Offset: 100, Source: "quay.io/c/d"})
		},
		func() error { return x.PutRelease(release, doc) },
		func() error {
			return x.PutImages(store.Image{Tag: "4.8.21-x86_64", Kind: store.KindRelease, Release: "4.8.21-x86_64", Reference: "quay.io/x", Descriptor: release.Descriptor, Bytes: 9})
		},
		func() error { return x.Seal(1) },
		func() error { _, err := x.WriteTo(&buf); return err },
	} {
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}

	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(copied, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(copied, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var got []string
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				got = append(got, fmt.Sprintf("%s %s %s", name, k, v))
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"meta format 1", "meta generation 12", "meta instance d1",
		"blobs " + digest.FromBytes(layer).String() + ` {"size":7,"state":"complete","offset":7,"source":"quay.io/a/b","images":["4.8.21-x86_64-etcd"],"sealed":1}`,
		"blobs " + half.String() + ` {"size":200,"state":"partial","offset":100,"source":"quay.io/c/d","images":[]}`,
		"slices " + digest.FromBytes(layer).String() + " " + string(sums.Slices()),
		"documents 4.8.21-x86_64/signature-1 \x89\x00\x01",
		"documents 4.8.21-x86_64/imagecontentsourcepolicy.yaml kind: ImageContentSourcePolicy\n",
		`images 4.8.21-x86_64 {"name":"","kind":"release","release":"4.8.21-x86_64","reference":"quay.io/x","descriptor":{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","digest":"` + digest.FromString("m").String() + `","size":1},"bytes":9}`,
	}
	rest := got[:0:0]
	for _, line := range got {
		if !strings.HasPrefix(line, "releases ") {
			rest = append(rest, line)
			continue
		}
		raw, ok := strings.CutPrefix(line, "releases 4.8.21-x86_64 ")
		if !ok {
			t.Fatal(line)
		}
		var r struct {
			Version, Arch, Source, Created, Signature string
			Sealed                                    int
			Documents                                 []struct{ Name, Digest string }
		}
		if err := json.Unmarshal([]byte(raw), &r); err != nil {
			t.Fatal(err)
		}
		if r.Version != "4.8.21" || r.Arch != "x86_64" || r.Created != "2021-11-18T00:00:00Z" || r.Signature != "verified" || r.Sealed != 1 ||
			len(r.Documents) != 2 || r.Documents[0].Name != "signature-1" || r.Documents[0].Digest != digest.FromBytes(doc["signature-1"]).String() {
			t.Errorf("release: %s", raw)
		}
	}
	sort.Strings(rest)
	sort.Strings(want)
	if len(got) != len(rest)+1 || !reflect.DeepEqual(rest, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(rest, "\n"), strings.Join(want, "\n"))
	}
}
