package trip

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/store"
)

// Edit is a sealed drive that is being changed by somebody who knows the format: whatever is
// changed, the drive is consistent in itself again afterwards, and sealed.
type Edit struct {
	tb    testing.TB
	Media string

	Images    map[string]store.Image       // by tag; captured documents are made again by themselves
	Releases  []*store.Release             // by tag
	Documents map[string]map[string][]byte // by release tag and name; release.json is made again by itself

	Index   func(*ocispec.Index) // changes index.json after it was made from Images; may be nil
	Raw     func([]byte) []byte  // changes the bytes of index.json; may be nil
	Seal    func(*bundle.Seal)   // changes the seal before its checksum is made; may be nil
	Store   func(*store.Index)   // changes the bbolt index after it was made; may be nil
	NoIndex bool                 // the bbolt index is no database, so that the layout is read
	KeepDB  bool                 // the bbolt index stays as it was
	Remove  []digest.Digest      // blobs that are taken away before SHA256SUMS is made
}

// Reseal changes a sealed drive and seals it again: layout index and its copy, bbolt index,
// captured documents, SHA256SUMS and seal say the same. Blobs that no image needs any more are
// removed. Only signatures cannot be made again.
func Reseal(tb testing.TB, media string, change func(*Edit)) {
	tb.Helper()
	b, err := bundle.Open(tb.Context(), media, bundle.OpenOptions{Cache: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	defer b.Close()
	if b.Seal == nil || b.IndexProblem != nil {
		tb.Fatalf("the drive is not sealed well: %v %v", b.SealProblems, b.IndexProblem)
	}
	e := &Edit{tb: tb, Media: media, Images: map[string]store.Image{}, Documents: map[string]map[string][]byte{}}
	for _, img := range b.Contents.Images {
		e.Images[img.Tag] = img
	}
	for _, r := range b.Contents.Releases {
		e.Releases = append(e.Releases, &r)
		e.Documents[r.Tag] = map[string][]byte{}
		for _, d := range r.Documents {
			e.Documents[r.Tag][d.Name], _ = b.Contents.Document(r.Tag, d.Name)
		}
	}
	change(e)
	for _, r := range e.Releases {
		e.document(r)
	}
	idx := e.index()
	raw, err := json.MarshalIndent(idx, "", "  ")
	e.ok(err)
	if e.Raw != nil {
		raw = e.Raw(raw)
	}
	e.write("index.json", raw)
	e.write(fmt.Sprintf("pannier/layout-%d.json", b.Seal.Generation), raw)
	walked, err := bundle.ContentsFromLayout(tb.Context(), b.Layout, idx)
	e.ok(err)
	e.prune(walked)
	name := fmt.Sprintf("pannier/index-%d.db", b.Seal.Generation)
	switch {
	case e.NoIndex:
		e.write(name, []byte("no database"))
	case !e.KeepDB:
		e.write(name, e.database(b, walked))
	}
	for _, d := range e.Remove {
		e.ok(os.Remove(Blob(media, d)))
	}
	e.seal(b.Seal, idx, walked)
}

func (e *Edit) ok(err error) {
	e.tb.Helper()
	if err != nil {
		e.tb.Fatal(err)
	}
}

func (e *Edit) write(name string, data []byte) {
	e.tb.Helper()
	e.ok(os.WriteFile(filepath.Join(e.Media, filepath.FromSlash(name)), data, 0o644))
}

// Blob adds a blob to the drive.
func (e *Edit) Blob(mediaType string, data []byte) ocispec.Descriptor {
	e.tb.Helper()
	d := content.Descriptor(mediaType, data)
	e.ok(os.WriteFile(Blob(e.Media, d.Digest), data, 0o644))
	return d
}

// Foreign adds an image that nobody signed, and returns its descriptor.
func (e *Edit) Foreign(text string) ocispec.Descriptor {
	e.tb.Helper()
	layer := e.Blob(ocispec.MediaTypeImageLayer, []byte("foreign "+text))
	config := e.Blob(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["`+layer.Digest.String()+`"]}}`))
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
	})
	e.ok(err)
	return e.Blob(ocispec.MediaTypeImageManifest, raw)
}

// Put changes, or adds, the image of a tag.
func (e *Edit) Put(tag string, change func(*store.Image)) {
	img := e.Images[tag]
	change(&img)
	img.Tag = tag
	e.Images[tag] = img
}

// document makes the captured documents of a release again.
func (e *Edit) document(r *store.Release) {
	type image struct {
		Tag string `json:"tag"`
		store.Image
	}
	images := []image{}
	for _, tag := range slices.Sorted(maps.Keys(e.Images)) {
		img := e.Images[tag]
		if img.Release == r.Tag && img.Kind != store.KindDocuments && img.Kind != store.KindAdditional {
			images = append(images, image{tag, img})
		}
	}
	raw, err := json.MarshalIndent(map[string]any{
		"format": 1, "tag": r.Tag, "version": r.Version, "arch": r.Arch, "source": r.Source, "descriptor": r.Descriptor,
		"created": r.Created, "previous": r.Previous, "images": images,
	}, "", "  ")
	e.ok(err)
	docs := e.Documents[r.Tag]
	docs["release.json"] = raw
	types := map[string]string{}
	for _, d := range r.Documents {
		types[d.Name] = d.MediaType
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: bundle.ArtifactRelease,
		Config:  e.Blob(ocispec.MediaTypeEmptyJSON, []byte("{}")),
		Subject: &ocispec.Descriptor{MediaType: r.Descriptor.MediaType, Digest: r.Descriptor.Digest, Size: r.Descriptor.Size},
	}
	r.Documents = nil
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		d := e.Blob(cmp.Or(types[name], "application/json"), docs[name])
		r.Documents = append(r.Documents, store.Document{Name: name, MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
		d.Annotations = map[string]string{ocispec.AnnotationTitle: name}
		m.Layers = append(m.Layers, d)
	}
	raw, err = json.Marshal(m)
	e.ok(err)
	desc := e.Blob(ocispec.MediaTypeImageManifest, raw)
	e.Put(r.Tag+".documents", func(img *store.Image) {
		img.Kind, img.Release, img.Descriptor = store.KindDocuments, r.Tag, desc
	})
}

// index makes the layout index.
func (e *Edit) index() *ocispec.Index {
	idx := &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, tag := range slices.Sorted(maps.Keys(e.Images)) {
		img := e.Images[tag]
		d := ocispec.Descriptor{MediaType: img.Descriptor.MediaType, Digest: img.Descriptor.Digest, Size: img.Descriptor.Size}
		if img.Kind == store.KindDocuments {
			d.ArtifactType = bundle.ArtifactRelease
			d.Annotations = map[string]string{ocispec.AnnotationVersion: strings.TrimSuffix(img.Release, "-x86_64")}
		} else {
			d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
		}
		idx.Manifests = append(idx.Manifests, d)
	}
	if e.Index != nil {
		e.Index(idx)
	}
	return idx
}

// prune removes the blobs that nothing needs.
func (e *Edit) prune(walked *bundle.Contents) {
	dir := filepath.Join(e.Media, "blobs", "sha256")
	entries, err := os.ReadDir(dir)
	e.ok(err)
	for _, f := range entries {
		if _, needed := walked.Records[digest.NewDigestFromEncoded(digest.SHA256, f.Name())]; !needed {
			e.ok(os.Remove(filepath.Join(dir, f.Name())))
		}
	}
}

// database makes the bbolt index.
func (e *Edit) database(b *bundle.Bundle, walked *bundle.Contents) []byte {
	x, err := store.Create(filepath.Join(e.tb.TempDir(), "index.db"))
	e.ok(err)
	defer x.Close()
	for _, img := range e.Images {
		e.ok(x.PutImages(img))
	}
	for _, r := range e.Releases {
		e.ok(x.PutRelease(*r, e.Documents[r.Tag]))
	}
	for d, r := range walked.Records {
		r.State, r.Offset, r.Sealed = store.StateComplete, r.Size, b.Seal.Generation
		if old, ok := b.Contents.Records[d]; ok {
			r.Source = old.Source
		}
		e.ok(x.Put(r))
	}
	e.ok(x.SetMeta(store.MetaInstance, b.Seal.Instance))
	if e.Store != nil {
		e.Store(x)
	}
	var out bytes.Buffer
	_, err = x.WriteTo(&out)
	e.ok(err)
	return out.Bytes()
}

// seal writes SHA256SUMS and the seal over what stands on the drive now.
func (e *Edit) seal(s *bundle.Seal, idx *ocispec.Index, walked *bundle.Contents) {
	e.tb.Helper()
	sums := map[string]digest.Digest{}
	s.Bundle = bundle.ID(idx)
	s.Totals = bundle.SealTotals{Releases: len(walked.Releases), Images: len(idx.Manifests)}
	for _, r := range walked.Records {
		s.Totals.Blobs++
		s.Totals.Bytes += r.Size
	}
	e.ok(filepath.WalkDir(e.Media, func(path string, f fs.DirEntry, err error) error {
		name, _ := filepath.Rel(e.Media, path)
		name = filepath.ToSlash(name)
		if err != nil || !f.Type().IsRegular() || strings.HasPrefix(name, "pannier/seal-") || name == "SHA256SUMS" {
			return err
		}
		raw, err := os.ReadFile(path)
		sums[name] = digest.FromBytes(raw)
		return err
	}))
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&text, "%s  %s\n", sums[name].Encoded(), name)
	}
	e.write("SHA256SUMS", []byte(text.String()))
	for name := range s.Files {
		raw, err := os.ReadFile(filepath.Join(e.Media, filepath.FromSlash(name)))
		e.ok(err)
		s.Files[name] = bundle.SealedFile{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	}
	if e.Seal != nil {
		e.Seal(s)
	}
	zeros := "sha256:" + strings.Repeat("0", 64)
	s.Checksum = digest.Digest(zeros)
	raw, err := json.Marshal(s)
	e.ok(err)
	raw = bytes.Replace(raw, []byte(zeros), []byte(digest.FromBytes(raw)), 1)
	e.write(fmt.Sprintf("pannier/seal-%d.json", s.Generation), raw)
}
