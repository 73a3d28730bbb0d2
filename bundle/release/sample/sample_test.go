package sample

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
)

func makeRelease(t *testing.T, o Options) *Release {
	t.Helper()
	r, err := Make(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// variants are releases of every form.
var variants = map[string]Options{
	"default":  {},
	"oci":      {OCI: true, Version: "4.19.3", Arch: "arm64"},
	"zstd":     {Compression: "zstd", Arch: "s390x"},
	"plain":    {Compression: "none", Components: 3},
	"multi":    {Multi: true, SharedDigest: true},
	"multioci": {Multi: true, OCI: true, Compression: "zstd", Archs: []string{"x86_64", "aarch64"}},
	"many":     {Components: 40, LayerSize: 100, SharedDigest: true},
	"large":    {LargeLayer: 300_001, LargeLayers: 2},
}

func TestMakeIsReadAsARelease(t *testing.T) {
	for name, o := range variants {
		t.Run(name, func(t *testing.T) {
			r := makeRelease(t, o)
			p, err := release.Read(t.Context(), r, r.Descriptor)
			if err != nil {
				t.Fatal(err)
			}
			if p.Version != r.Version || p.Arch != r.Arch || !slices.Equal(p.Images, r.Components) || len(p.Children) != len(r.Children) {
				t.Errorf("read as %s %s, %d images, %d children", p.Version, p.Arch, len(p.Images), len(p.Children))
			}
			seen := map[string]bool{}
			for _, i := range r.Images {
				if err := r.Walk(i.Descriptor, func(d ocispec.Descriptor) error {
					rc, err := r.Fetch(t.Context(), d, 0)
					if err != nil {
						return err
					}
					v, err := content.NewReader(rc, d)
					if err != nil {
						return err
					}
					seen[d.Digest.String()] = true
					_, err = io.Copy(io.Discard, v)
					return err
				}); err != nil {
					t.Fatalf("%s: %v", i.Repository, err)
				}
			}
			if len(seen) != len(r.Digests()) {
				t.Errorf("%d of %d blobs are reached", len(seen), len(r.Digests()))
			}
			again := makeRelease(t, o)
			if again.Descriptor.Digest != r.Descriptor.Digest || !slices.Equal(again.Digests(), r.Digests()) {
				t.Error("made twice, it differs")
			}
		})
	}
}

func TestReleasesShare(t *testing.T) {
	a, b := makeRelease(t, Options{}), makeRelease(t, Options{Version: "4.8.22"})
	same := 0
	for i, c := range a.Components {
		if c == b.Components[i] {
			same++
		}
	}
	if same == 0 || same == len(a.Components) {
		t.Errorf("%d of %d components are the same in two versions", same, len(a.Components))
	}
	other := makeRelease(t, Options{Seed: 1})
	for d := range maps.Keys(other.Blobs) {
		if _, ok := a.Blobs[d]; ok {
			t.Errorf("%s is in releases of two seeds", d)
		}
	}
}

func TestSharedDigest(t *testing.T) {
	r := makeRelease(t, Options{SharedDigest: true})
	n := len(r.Components)
	if a, b := r.Components[n-1], r.Components[n-2]; a.Digest != b.Digest || a.Name == b.Name {
		t.Errorf("%+v, %+v", a, b)
	}
}

func TestServe(t *testing.T) {
	r := makeRelease(t, Options{Multi: true})
	extra, err := r.AddImage("registry.example/tools/curl", "v1", Image{OCI: true})
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.AddList("registry.example/tools/list", "v2", false, "x86_64", "aarch64")
	if err != nil {
		t.Fatal(err)
	}
	sig, err := r.AddSigstore(r.Repository, r.Descriptor.Digest, [][]byte{[]byte("{}")}, []string{"c2ln"})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	reg, err := Serve(RegistryOptions{Wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			paths = append(paths, req.URL.Path)
			h.ServeHTTP(w, req)
		})
	}}, r)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	for _, c := range []struct {
		repo, tag string
		want      ocispec.Descriptor
	}{
		{"openshift-release-dev/ocp-release", "4.8.21-multi", r.Descriptor},
		{"openshift-release-dev/ocp-release", "4.8.21-multi-aarch64", r.Children[1]},
		{"openshift-release-dev/ocp-release", release.SigstoreTag(r.Descriptor.Digest), sig},
		{"openshift-release-dev/ocp-v4.0-art-dev", r.Components[0].Digest.String(), ocispec.Descriptor{MediaType: content.MediaTypeDockerList, Digest: r.Components[0].Digest}},
		{"tools/curl", "v1", extra},
		{"tools/list", "v2", list},
	} {
		got, _, err := reg.Manifest(c.repo, c.tag)
		if err != nil || got.Digest != c.want.Digest || got.MediaType != c.want.MediaType {
			t.Errorf("%s %s: %+v, %v", c.repo, c.tag, got, err)
		}
	}
	tags, err := reg.Tags("openshift-release-dev/ocp-release")
	if err != nil || len(tags) != 6 {
		t.Errorf("tags %v, %v", tags, err)
	}
	if len(paths) != 0 {
		t.Errorf("helpers went through the wrapper: %v", paths)
	}
	if reg.Has("tools/curl", r.Descriptor.Digest) {
		t.Error("a repository holds what was not put there")
	}
	resp, err := http.Get(reg.URL() + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !slices.Equal(paths, []string{"/v2/"}) {
		t.Errorf("%s; the wrapper saw %v", resp.Status, paths)
	}
}

func TestLargeLayerReadsTheSameFromAnywhere(t *testing.T) {
	f, err := newBigFile("x", 3*chunkSize+77, "seed")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(io.NewSectionReader(f, 0, f.total))
	if err != nil || int64(len(whole)) != f.total || f.total%512 != 0 {
		t.Fatalf("%d bytes of %d, %v", len(whole), f.total, err)
	}
	for _, off := range []int64{0, 1, 511, 512, 513, 512 + chunkSize - 1, 512 + chunkSize, 512 + 3*chunkSize + 76, f.total - 1500, f.total - 1} {
		for _, n := range []int{1, 100, chunkSize, 3 * chunkSize} {
			buf := make([]byte, n)
			k, err := f.ReadAt(buf, off)
			want := whole[off:min(off+int64(n), f.total)]
			if string(buf[:k]) != string(want) || (k < n) != (err == io.EOF) {
				t.Errorf("%d bytes from %d: %d, %v", n, off, k, err)
			}
		}
	}
}

func TestFetch(t *testing.T) {
	r := makeRelease(t, Options{})
	rc, err := r.Fetch(t.Context(), r.Descriptor, 5)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(rc)
	if err != nil || string(got) != string(r.Blobs[r.Descriptor.Digest][5:]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Fetch(ctx, r.Descriptor, 0); err == nil {
		t.Error("a fetch after the end succeeded")
	}
	if _, err := r.Fetch(t.Context(), r.Descriptor, r.Descriptor.Size+1); err == nil {
		t.Error("an offset behind the end succeeded")
	}
}
