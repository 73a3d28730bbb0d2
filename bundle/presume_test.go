package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/store"
)

// memory is a Fetcher of blobs in memory.
type memory map[digest.Digest][]byte

func (m memory) Fetch(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	data, ok := m[desc.Digest]
	if !ok {
		return nil, store.ErrNotFound
	}
	return io.NopCloser(strings.NewReader(string(data[offset:]))), nil
}

func (m memory) add(mediaType string, data []byte) ocispec.Descriptor {
	d := content.Descriptor(mediaType, data)
	m[d.Digest] = data
	return d
}

func (m memory) image(t *testing.T, layers ...string) ocispec.Descriptor {
	t.Helper()
	man := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: m.add(ocispec.MediaTypeImageConfig, []byte("{}"))}
	for _, l := range layers {
		man.Layers = append(man.Layers, m.add(ocispec.MediaTypeImageLayer, []byte(l)))
	}
	raw, err := json.Marshal(man)
	if err != nil {
		t.Fatal(err)
	}
	return m.add(ocispec.MediaTypeImageManifest, raw)
}

func (m memory) list(t *testing.T, blobs ...Sized) ocispec.Descriptor {
	t.Helper()
	doc := &presumedDocument{Format: 1, Registries: []string{"registry.example/a"}, Blobs: SortSized(blobs)}
	desc, raw, layer, data, err := doc.manifest()
	if err != nil {
		t.Fatal(err)
	}
	m[desc.Digest], m[layer.Digest] = raw, data
	m[emptyConfig.Digest] = emptyConfigData
	return desc
}

func named(d ocispec.Descriptor, tag string) ocispec.Descriptor {
	d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	return d
}

func sizedOf(text string) Sized { return Sized{digest.FromString(text), int64(len(text))} }

// Whoever can write to a drive can write a list of what it presumes: what vouches for a release
// is expected on it all the same, and so is what the list has wrong.
func TestPresumedIsBounded(t *testing.T) {
	const additional = "quay.io/a/b:1"
	for name, c := range map[string]struct {
		list     []Sized
		presumed int
	}{
		"a layer":                 {[]Sized{sizedOf("one")}, 1},
		"two, and one of nobody":  {[]Sized{sizedOf("one"), sizedOf("two"), sizedOf("nobody's")}, 2},
		"another size":            {[]Sized{{digest.FromString("one"), 4}}, 0},
		"of a signature image":    {[]Sized{sizedOf("signed")}, 0},
		"of both":                 {[]Sized{sizedOf("shared")}, 0},
		"a manifest, and a layer": {[]Sized{sizedOf("two")}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := memory{}
			img := m.image(t, "one", "two", "shared")
			sig := m.image(t, "signed", "shared")
			list := c.list
			if strings.HasPrefix(name, "a manifest") {
				list = append(slices.Clone(list), Sized{img.Digest, img.Size})
			}
			release := named(sig, "4.8.21-x86_64")
			documents := m.documents(t, release)
			idx := &ocispec.Index{Manifests: []ocispec.Descriptor{named(img, additional), release, documents, m.list(t, list...)}}
			contents, err := ContentsFromLayout(t.Context(), m, idx)
			if err != nil {
				t.Fatal(err)
			}
			if len(contents.Broken()) > 0 {
				t.Fatalf("%+v", contents.Broken())
			}
			if len(contents.Presumed) != c.presumed {
				t.Errorf("presumed: %v", contents.Presumed)
			}
			for d := range contents.Presumed {
				if _, both := contents.Records[d]; both {
					t.Errorf("%s is expected as well", d)
				}
			}
			if at := contents.PresumedAt(); !slices.Equal(at, []string{"registry.example/a"}) {
				t.Errorf("%v", at)
			}
		})
	}
}

// documents captures a release whose image is rel.
func (m memory) documents(t *testing.T, rel ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	record := store.Release{Tag: "4.8.21-x86_64", Version: "4.8.21", Arch: "x86_64", Source: "quay.io/r/r", Descriptor: plain(rel)}
	rd := &releaseDocument{Format: 1, Tag: record.Tag, Version: record.Version, Arch: record.Arch, Source: record.Source, Descriptor: record.Descriptor,
		Images: []imageDocument{{Tag: record.Tag, Image: store.Image{Kind: store.KindRelease, Release: record.Tag, Reference: "quay.io/r/r@" + rel.Digest.String(), Descriptor: plain(rel)}}}}
	data, err := rd.encode()
	if err != nil {
		t.Fatal(err)
	}
	m.add(mediaTypeRelease, data)
	m[emptyConfig.Digest] = emptyConfigData
	desc, raw, err := documentsManifest(record, []document{{DocumentRelease, mediaTypeRelease, data}})
	if err != nil {
		t.Fatal(err)
	}
	m[desc.Digest] = raw
	desc.Annotations = map[string]string{ocispec.AnnotationVersion: record.Version}
	return desc
}

// A list that cannot be read, and a second one, are damage; nothing is presumed by them.
func TestPresumedListIsBroken(t *testing.T) {
	m := memory{}
	img := named(m.image(t, "one", "two"), "quay.io/a/b:1")
	first, second := m.list(t, sizedOf("one")), m.list(t, sizedOf("two"))
	contents, err := ContentsFromLayout(t.Context(), m, &ocispec.Index{Manifests: []ocispec.Descriptor{img, first, second}})
	if err != nil || len(contents.Broken()) != 1 || len(contents.Presumed) != 1 {
		t.Errorf("two lists: %+v, %v", contents.Broken(), err)
	}
	man, err := content.ParseManifest(first.MediaType, m[first.Digest])
	if err != nil {
		t.Fatal(err)
	}
	m[man.Layers[0].Digest] = []byte("x")
	contents, err = ContentsFromLayout(t.Context(), m, &ocispec.Index{Manifests: []ocispec.Descriptor{img, first}})
	if err != nil || len(contents.Broken()) != 1 || len(contents.Presumed) != 0 {
		t.Errorf("a damaged list: %+v, %v", contents.Broken(), err)
	}
}

func TestParsePresumed(t *testing.T) {
	a, b := sizedOf("a"), sizedOf("b")
	list := SortSized([]Sized{a, b})
	good := presumedDocument{Format: 1, Registries: []string{"registry.example:5000/a/b"}, Blobs: list}
	for name, change := range map[string]func(*presumedDocument){
		"format 0":         func(d *presumedDocument) { d.Format = 0 },
		"no blob":          func(d *presumedDocument) { d.Blobs = nil },
		"no registry":      func(d *presumedDocument) { d.Registries = nil },
		"many registries":  func(d *presumedDocument) { d.Registries = slices.Repeat(d.Registries, 17) },
		"no repository":    func(d *presumedDocument) { d.Registries = []string{"x"} },
		"twice":            func(d *presumedDocument) { d.Blobs = []Sized{a, a} },
		"out of order":     func(d *presumedDocument) { d.Blobs = []Sized{list[1], list[0]} },
		"a digest of none": func(d *presumedDocument) { d.Blobs = []Sized{{"sha256:1", 1}} },
		"a size of none":   func(d *presumedDocument) { d.Blobs = []Sized{{a.Digest, -1}} },
	} {
		doc := good
		change(&doc)
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parsePresumed(raw); !errors.Is(err, content.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	newer := good
	newer.Format = 2
	raw, err := json.Marshal(newer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parsePresumed(raw); !errors.Is(err, ErrVersion) {
		t.Errorf("newer: %v", err)
	}
}

func FuzzParsePresumed(f *testing.F) {
	raw, err := json.Marshal(presumedDocument{Format: 1, Registries: []string{"registry.example:5000/a/b"}, Blobs: []Sized{sizedOf("a")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc, err := parsePresumed(raw)
		if err != nil {
			return
		}
		_, _, _, data, err := doc.manifest()
		if err != nil {
			return // a little longer than it was
		}
		if _, err := parsePresumed(data); err != nil {
			t.Errorf("what was written cannot be read: %v", err)
		}
	})
}

// What the other side holds counts where an image goes to: of several registries each must have it.
func TestHeld(t *testing.T) {
	one, two := objects.Destination{Registry: "one.example", Repository: "r"}, objects.Destination{Registry: "two.example", Repository: "r"}
	d := digest.FromString("x")
	hold := func(where objects.Destination, repo string, size int64) Holdings {
		return Holdings{Registry: where, Blobs: map[string]map[digest.Digest]int64{repo: {d: size}}}
	}
	component := store.Image{Kind: store.KindComponent, Tag: "4.8.21-x86_64-etcd"}
	additional := store.Image{Kind: store.KindAdditional, Tag: "quay.io/a/b:1"}
	for name, c := range map[string]struct {
		have []Holdings
		img  store.Image
		want bool
	}{
		"nothing is known":      {nil, component, false},
		"there":                 {[]Holdings{hold(one, "one.example/r", 1)}, component, true},
		"another size":          {[]Holdings{hold(one, "one.example/r", 2)}, component, false},
		"another repository":    {[]Holdings{hold(one, "one.example/other", 1)}, component, false},
		"of two files one":      {[]Holdings{hold(one, "one.example/other", 1), hold(one, "one.example/r", 1)}, component, true},
		"of two registries one": {[]Holdings{hold(one, "one.example/r", 1), hold(two, "one.example/r", 1)}, component, false},
		"of two registries":     {[]Holdings{hold(one, "one.example/r", 1), hold(two, "two.example/r", 1)}, component, true},
		"an additional image":   {[]Holdings{hold(one, "one.example/p/a/b", 1)}, additional, true},
		"beside it":             {[]Holdings{hold(one, "one.example/r", 1)}, additional, false},
		"no reference":          {[]Holdings{hold(one, "one.example/r", 1)}, store.Image{Kind: store.KindAdditional, Tag: "x"}, false},
	} {
		p := &packer{opts: PackOptions{Have: c.have, Prefix: "p"}}
		if got := p.held(d, 1, c.img); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
