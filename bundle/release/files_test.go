package release_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
)

// blobs is a content.Fetcher of a few blobs.
type blobs map[digest.Digest][]byte

func (b blobs) Fetch(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b[desc.Digest][offset:])), nil
}

// file is an entry of a layer: "name" with data, or a link "name" to another.
type file struct {
	name, data string
	flag       byte
	link       string
}

// layered makes an image of layers, the lowest first.
func layered(t testing.TB, layers ...[]file) (blobs, ocispec.Descriptor) {
	t.Helper()
	b := blobs{}
	put := func(mediaType string, data []byte) ocispec.Descriptor {
		d := content.Descriptor(mediaType, data)
		b[d.Digest] = data
		return d
	}
	var descs []string
	for _, l := range layers {
		var raw bytes.Buffer
		w := tar.NewWriter(&raw)
		for _, f := range l {
			h := &tar.Header{Name: f.name, Size: int64(len(f.data)), Typeflag: f.flag, Linkname: f.link, Mode: 0o755}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, f.data)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		packed, err := sample.Compress("gzip", raw.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		d := put(content.MediaTypeDockerLayer, packed)
		descs = append(descs, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, d.MediaType, d.Digest, d.Size))
	}
	config := put(content.MediaTypeDockerConfig, []byte("{}"))
	return b, put(content.MediaTypeDockerManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[%s]}`,
		content.MediaTypeDockerManifest, config.MediaType, config.Digest, strings.Join(descs, ",")))
}

func reg(name, data string) file { return file{name: name, data: data, flag: tar.TypeReg} }

func TestFiles(t *testing.T) {
	const oc = "usr/share/x/oc"
	for name, row := range map[string]struct {
		layers [][]file
		want   string // content of oc; "-" if there is none, "!" and words for an error
	}{
		"plain":                  {[][]file{{reg(oc, "a")}}, "a"},
		"with a dot":             {[][]file{{reg("./"+oc, "a")}}, "a"},
		"upper wins":             {[][]file{{reg(oc, "a")}, {reg("other", "")}, {reg(oc, "b")}}, "b"},
		"absent":                 {[][]file{{reg("usr/share/x/kubectl", "a")}}, "-"},
		"hard link":              {[][]file{{reg("usr/share/x/kubectl", "a"), {name: oc, flag: tar.TypeLink, link: "usr/share/x/kubectl"}}}, "a"},
		"hard link elsewhere":    {[][]file{{reg("usr/bin/oc", "a"), {name: oc, flag: tar.TypeLink, link: "/usr/bin/oc"}}}, "a"},
		"symbolic link":          {[][]file{{reg("usr/share/x/kubectl", "a")}, {{name: oc, flag: tar.TypeSymlink, link: "kubectl"}}}, "a"},
		"absolute link":          {[][]file{{{name: oc, flag: tar.TypeSymlink, link: "/usr/bin/oc"}}, {reg("usr/bin/oc", "a")}}, "a"},
		"link out of the image":  {[][]file{{{name: oc, flag: tar.TypeSymlink, link: "../../../../../../etc/shadow"}, reg("etc/shadow", "a")}}, "a"},
		"link to nothing":        {[][]file{{{name: oc, flag: tar.TypeSymlink, link: "nothing"}}}, "-"},
		"links in a circle":      {[][]file{{{name: oc, flag: tar.TypeSymlink, link: "b"}, {name: "usr/share/x/b", flag: tar.TypeSymlink, link: "oc"}}}, "-"},
		"whiteout":               {[][]file{{reg(oc, "a")}, {reg("usr/share/x/.wh.oc", "")}}, "-"},
		"whiteout of the folder": {[][]file{{reg(oc, "a")}, {reg("usr/share/.wh.x", "")}}, "-"},
		"opaque folder":          {[][]file{{reg(oc, "a")}, {reg("usr/share/x/.wh..wh..opq", "")}}, "-"},
		"whiteout, then anew":    {[][]file{{reg(oc, "a")}, {reg("usr/share/x/.wh..wh..opq", ""), reg(oc, "b")}}, "b"},
		"a device":               {[][]file{{reg(oc, "a")}, {{name: oc, flag: tar.TypeChar}}}, "-"},
		"twice in a layer":       {[][]file{{reg(oc, "a"), reg(oc, "b")}}, "!stands twice"},
		"empty":                  {[][]file{{reg(oc, "")}}, ""},
	} {
		b, desc := layered(t, row.layers...)
		got := "-"
		err := release.Files(t.Context(), b, desc, "", []string{oc}, func(names []string, size int64, r io.Reader) error {
			data, err := io.ReadAll(r)
			got = string(data)
			if size != int64(len(data)) || !slices.Equal(names, []string{oc}) {
				t.Errorf("%s: %d bytes, said to be %d, of %v", name, len(data), size, names)
			}
			return err
		})
		if words, bad := strings.CutPrefix(row.want, "!"); bad {
			if !errors.Is(err, release.ErrPayload) || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %v", name, err)
			}
		} else if err != nil || got != row.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, row.want)
		}
	}

	// A layer that is not what its digest says; a bomb; what the taker cannot write.
	take := func([]string, int64, io.Reader) error { return nil }
	b, desc := layered(t, []file{reg(oc, strings.Repeat("a", 1000))})
	for d, data := range b {
		if data[0] == 0x1f {
			b[d] = append(bytes.Clone(data[:len(data)-1]), data[len(data)-1]^1)
		}
	}
	if err := release.Files(t.Context(), b, desc, "", []string{oc}, take); !errors.Is(err, content.ErrDigest) {
		t.Errorf("wrong layer: %v", err)
	}
	b, desc = layered(t, []file{reg(oc, "a")})
	full := errors.New("full")
	if err := release.Files(t.Context(), b, desc, "", []string{oc}, func([]string, int64, io.Reader) error { return full }); !errors.Is(err, full) || errors.Is(err, release.ErrPayload) {
		t.Errorf("a taker that fails: %v", err)
	}
}

func FuzzFiles(f *testing.F) {
	b, desc := layered(f, []file{reg("a/oc", "x"), {name: "a/b", flag: tar.TypeLink, link: "a/oc"}, {name: "a/c", flag: tar.TypeSymlink, link: "/../b"}})
	for d, data := range b {
		if d != desc.Digest {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		layer, config := content.Descriptor(content.MediaTypeDockerLayer, raw), content.Descriptor(content.MediaTypeDockerConfig, []byte("{}"))
		m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
			content.MediaTypeDockerManifest, config.MediaType, config.Digest, layer.MediaType, layer.Digest, layer.Size)
		desc := content.Descriptor(content.MediaTypeDockerManifest, m)
		b := blobs{layer.Digest: raw, config.Digest: []byte("{}"), desc.Digest: m}
		err := release.Files(t.Context(), b, desc, "", []string{"a/oc", "a/c"}, func(_ []string, _ int64, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
		if err != nil && !errors.Is(err, release.ErrPayload) {
			t.Error(err)
		}
	})
}
