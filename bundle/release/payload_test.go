package release_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
)

const keyMap = `apiVersion: v1
kind: ConfigMap
metadata:
  name: release-verification
  namespace: openshift-config-managed
  namespace: openshift-config-managed
  annotations:
    release.openshift.io/verification-config-map: ""
data:
  store-public: https://store.example
  verifier-public-key-sample: |
    armored text
  verifier-public-key-another: |
    more text
`

const imagePolicy = `apiVersion: config.openshift.io/v1
kind: ClusterImagePolicy
metadata: {name: openshift}
spec: {scopes: [quay.io/openshift-release-dev/ocp-release]}
`

func makeRelease(t *testing.T, o sample.Options) *sample.Release {
	t.Helper()
	r, err := sample.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRead(t *testing.T) {
	r := makeRelease(t, sample.Options{
		Previous: []string{"4.8.20", "4.7.40"}, KeyConfigMap: []byte(keyMap), ImagePolicy: []byte(imagePolicy),
		Manifests: []release.File{
			{Name: "decoy.yaml", Data: []byte("kind: Deployment\n# release.openshift.io/verification-config-map\n")},
			{Name: "crd.yaml", Data: []byte("kind: CustomResourceDefinition\nspec: {names: {kind: ClusterImagePolicy}}\n")},
			{Name: "notes.txt", Data: []byte(keyMap)},
			{Name: "two.yaml", Data: []byte("---\nkind: Namespace\n---\n" + strings.Replace(imagePolicy, "openshift}", "second}", 1))},
		},
	})
	p, err := release.Read(t.Context(), r, r.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	if p.Version != "4.8.21" || p.Arch != "x86_64" || p.Tag() != "4.8.21-x86_64" || p.Descriptor.Digest != r.Descriptor.Digest {
		t.Errorf("%s %s %+v", p.Version, p.Arch, p.Descriptor)
	}
	if !p.Created.Equal(time.Date(2021, 11, 29, 12, 0, 0, 0, time.UTC)) || p.URL != "https://errata.example/4.8.21" || !slices.Equal(p.Previous, []string{"4.8.20", "4.7.40"}) {
		t.Errorf("%v %s %v", p.Created, p.URL, p.Previous)
	}
	if !slices.Equal(p.Images, r.Components) || len(p.Children) != 0 {
		t.Errorf("%d images, %d children", len(p.Images), len(p.Children))
	}
	if !slices.Equal(p.Repositories(), []string{sample.DefaultComponentRepository}) {
		t.Errorf("repositories %v", p.Repositories())
	}
	if !bytes.Contains(p.References, []byte("ImageStream")) || !bytes.Contains(p.Metadata, []byte("cincinnati-metadata-v0")) {
		t.Error("the raw files are missing")
	}
	if len(p.Keys) != 2 || p.Keys[0].Name != "verifier-public-key-another" || string(p.Keys[1].Data) != "armored text\n" {
		t.Errorf("keys %q", p.Keys)
	}
	if len(p.ImagePolicies) != 2 || string(p.ImagePolicies[0].Data) != imagePolicy || p.ImagePolicies[1].Name != "two.yaml" {
		t.Errorf("policies %q", p.ImagePolicies)
	}
}

func TestReadMulti(t *testing.T) {
	r := makeRelease(t, sample.Options{Multi: true, SharedDigest: true, Archs: []string{"s390x", "x86_64", "aarch64"}})
	p, err := release.Read(t.Context(), r, r.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	if p.Arch != "multi" || len(p.Children) != 3 || p.Children[1].Platform.Architecture != "amd64" || len(p.Images) != 12 {
		t.Errorf("%s, %d children, %d images", p.Arch, len(p.Children), len(p.Images))
	}

	// One child alone must not pass for the release of its architecture.
	for _, child := range r.Children {
		child.Platform = nil
		_, err := release.Read(t.Context(), r, child)
		if !errors.Is(err, release.ErrPayload) || !strings.Contains(err.Error(), "ask for 4.8.21-multi") {
			t.Errorf("a child alone: %v", err)
		}
	}
	list := addList(t, r, r.Children[:1])
	if _, err := release.Read(t.Context(), r, list); !errors.Is(err, release.ErrPayload) {
		t.Errorf("a child in a list of its own: %v", err)
	}
}

func addList(t *testing.T, r *sample.Release, children []ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	text := `{"schemaVersion":2,"mediaType":"` + content.MediaTypeDockerList + `","manifests":[`
	for i, c := range children {
		if i > 0 {
			text += ","
		}
		text += `{"mediaType":"` + c.MediaType + `","digest":"` + c.Digest.String() + `","size":` + strconv.FormatInt(c.Size, 10) + `}`
	}
	return r.AddManifest(r.Repository, "", content.MediaTypeDockerList, []byte(text+"]}"))
}

func TestReadLists(t *testing.T) {
	r := makeRelease(t, sample.Options{Arch: "aarch64"})
	p, err := release.Read(t.Context(), r, addList(t, r, []ocispec.Descriptor{r.Descriptor}))
	if err != nil || p.Arch != "aarch64" || len(p.Children) != 1 {
		t.Errorf("a list of one: %+v, %v", p, err)
	}
	if _, err := release.Read(t.Context(), r, addList(t, r, nil)); !errors.Is(err, release.ErrPayload) {
		t.Errorf("an empty list: %v", err)
	}
	two := addList(t, r, []ocispec.Descriptor{r.Descriptor, r.Descriptor})
	if _, err := release.Read(t.Context(), r, two); !errors.Is(err, release.ErrPayload) || !strings.Contains(err.Error(), "does not say") {
		t.Errorf("a list of two whose metadata is of one: %v", err)
	}
	if _, err := release.Read(t.Context(), r, addList(t, r, []ocispec.Descriptor{two})); !errors.Is(err, release.ErrPayload) {
		t.Errorf("a list of lists: %v", err)
	}
}

func TestReadFindsFilesInLowerLayers(t *testing.T) {
	emptyLayer, err := sample.Compress("gzip", make([]byte, 1024))
	if err != nil {
		t.Fatal(err)
	}
	r := makeRelease(t, sample.Options{Mutate: func(d *sample.Draft) { d.OnTop = [][]byte{emptyLayer} }})
	if p, err := release.Read(t.Context(), r, r.Descriptor); err != nil || len(p.Images) != 12 {
		t.Errorf("%v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	cut := func(name string) func(*sample.Draft) {
		return func(d *sample.Draft) { d.Edit(name, func(b []byte) []byte { return b[:len(b)/2] }) }
	}
	replace := func(name, old, text string) func(*sample.Draft) {
		return func(d *sample.Draft) { d.Replace(name, old, text) }
	}
	layer := func(b []byte) func(*sample.Draft) { return func(d *sample.Draft) { d.Layer = b } }
	for _, c := range []struct {
		name   string
		mutate func(*sample.Draft)
		why    string
	}{
		{"image-references cut", cut("image-references"), "image-references: invalid release payload: unexpected EOF"},
		{"release-metadata cut", cut("release-metadata"), "release-metadata: invalid release payload: unexpected EOF"},
		{"versions differ", replace("release-metadata", `"4.8.21"`, `"4.8.22"`), "4.8.22"},
		{"versions differ without label", func(d *sample.Draft) {
			delete(d.Labels, "io.openshift.release")
			d.Replace("image-references", `"name": "4.8.21"`, `"name": "4.8.22"`)
		}, `image-references is of version "4.8.22"`},
		{"label differs", func(d *sample.Draft) { d.Labels["io.openshift.release"] = "4.8.20" }, "label"},
		{"says it is of a multi release", replace("release-metadata", `"metadata": {`, `"metadata": {"release.openshift.io/architecture": "multi",`), "part of the multi release"},
		{"unknown architecture", func(d *sample.Draft) { d.Architecture = "mips" }, "mips"},
		{"no architecture", func(d *sample.Draft) { d.Architecture = "" }, "architecture"},
		{"by tag", replace("image-references", "@sha256:", ":"), "by digest"},
		{"no image-references", func(d *sample.Draft) { d.Entries[1].Name = "other" }, "no image-references"},
		{"no release image", func(d *sample.Draft) { d.Entries = nil }, "no release image: no layer of it has image-references or release-metadata"},
		{"twice in one layer", func(d *sample.Draft) {
			d.Entries = append(d.Entries, sample.Entry{Header: tar.Header{Name: "./release-manifests/image-references"}, Data: []byte("{}")})
		}, "stands twice"},
		{"keys that are no YAML", func(d *sample.Draft) {
			d.Entries = append(d.Entries, sample.Entry{Header: tar.Header{Name: "release-manifests/k.yaml"}, Data: []byte("[release.openshift.io/verification-config-map")})
		}, "k.yaml"},
		{"a layer that is no archive", layer(bytes.Repeat([]byte("text "), 1000)), "tar"},
		{"a cut gzip layer", layer([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0}), "gzip"},
		{"a broken zstd layer", layer([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), "zstd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := makeRelease(t, sample.Options{Mutate: c.mutate})
			_, err := release.Read(t.Context(), r, r.Descriptor)
			if !errors.Is(err, release.ErrPayload) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("error %v, want ErrPayload about %s", err, c.why)
			}
		})
	}
}

func TestReadRefusesChildrenThatDiffer(t *testing.T) {
	for name, mutate := range map[string]func(*sample.Draft){
		"another version": func(d *sample.Draft) {
			if d.Arch == "s390x" {
				d.Labels["io.openshift.release"] = "4.8.20"
			}
		},
		"another architecture than the list says": func(d *sample.Draft) {
			if d.Arch == "s390x" {
				d.Architecture = "amd64"
			}
		},
	} {
		r := makeRelease(t, sample.Options{Multi: true, Mutate: mutate})
		if _, err := release.Read(t.Context(), r, r.Descriptor); !errors.Is(err, release.ErrPayload) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadRefusesOtherContent(t *testing.T) {
	r := makeRelease(t, sample.Options{})
	if _, err := release.Read(t.Context(), r, ocispec.Descriptor{MediaType: "text/html", Digest: r.Descriptor.Digest, Size: r.Descriptor.Size}); !errors.Is(err, release.ErrPayload) {
		t.Errorf("no manifest: %v", err)
	}
	component := ocispec.Descriptor{MediaType: r.Descriptor.MediaType, Digest: r.Components[0].Digest, Size: int64(len(r.Blobs[r.Components[0].Digest]))}
	if _, err := release.Read(t.Context(), r, component); !errors.Is(err, release.ErrNotRelease) || !errors.Is(err, release.ErrPayload) || !strings.Contains(err.Error(), "it calls itself") || !strings.Contains(err.Error(), "no release image") {
		t.Errorf("a component: %v", err)
	}
	raw := r.Blobs[r.Descriptor.Digest]
	half := r.AddManifest(r.Repository, "", r.Descriptor.MediaType, raw[:len(raw)/2])
	if _, err := release.Read(t.Context(), r, half); !errors.Is(err, release.ErrPayload) || !errors.Is(err, content.ErrInvalid) {
		t.Errorf("a cut manifest: %v", err)
	}
}

// source serves a release and changes what it serves of one blob.
type source struct {
	*sample.Release
	at     digest.Digest
	change func(io.Reader) io.Reader
}

func (s source) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	rc, err := s.Release.Fetch(ctx, desc, offset)
	if err == nil && desc.Digest == s.at {
		return io.NopCloser(s.change(rc)), nil
	}
	return rc, err
}

func TestReadTellsTheSourcesFaultsFromThePayloads(t *testing.T) {
	r := makeRelease(t, sample.Options{})
	m, err := content.ParseManifest(r.Descriptor.MediaType, r.Blobs[r.Descriptor.Digest])
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("connection lost")
	flip := func(r io.Reader) io.Reader {
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		return bytes.NewReader(b)
	}
	for _, at := range []digest.Digest{r.Descriptor.Digest, m.Config.Digest, m.Layers[len(m.Layers)-1].Digest} {
		for _, c := range []struct {
			name   string
			change func(io.Reader) io.Reader
			want   error
		}{
			{"connection lost", func(r io.Reader) io.Reader {
				return io.MultiReader(io.LimitReader(r, 100), iotest.ErrReader(broken))
			}, broken},
			{"one bit", flip, content.ErrDigest},
			{"cut", func(r io.Reader) io.Reader { return io.LimitReader(r, 100) }, content.ErrSize},
			{"longer", func(r io.Reader) io.Reader { return io.MultiReader(r, strings.NewReader("x")) }, content.ErrSize},
		} {
			_, err := release.Read(t.Context(), source{r, at, c.change}, r.Descriptor)
			if !errors.Is(err, c.want) || errors.Is(err, release.ErrPayload) {
				t.Errorf("%s of %s: %v, want %v alone", c.name, at, err, c.want)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := release.Read(ctx, r, r.Descriptor); !errors.Is(err, context.Canceled) || errors.Is(err, release.ErrPayload) {
		t.Errorf("ended: %v", err)
	}
	missing := makeRelease(t, sample.Options{})
	delete(missing.Blobs, m.Layers[len(m.Layers)-1].Digest)
	if _, err := release.Read(t.Context(), missing, r.Descriptor); err == nil || errors.Is(err, release.ErrPayload) {
		t.Errorf("a blob that is not there: %v", err)
	}
}
