package release

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

var etcd = "quay.io/a/b@" + digest.FromString("etcd").String()

func stream(version, tags string) string {
	return `{"kind":"ImageStream","apiVersion":"image.openshift.io/v1","metadata":{"name":"` + version +
		`","creationTimestamp":"2021-11-29T12:00:00Z"},"spec":{"tags":[` + tags + `]}}`
}

func tag(name, from string) string {
	return fmt.Sprintf(`{"name":%q,"from":{"kind":"DockerImage","name":%q}}`, name, from)
}

func TestParseReferences(t *testing.T) {
	refs, err := parseReferences([]byte(stream("4.8.21", strings.Join([]string{
		tag("etcd", etcd), `{"name":"none"}`, `{"name":"other","from":{"kind":"ImageStreamTag","name":"x:1"}}`, tag("etcd2", etcd),
	}, ","))), "x86_64")
	if err != nil {
		t.Fatal(err)
	}
	if refs.version != "4.8.21" || !refs.created.Equal(time.Date(2021, 11, 29, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", refs)
	}
	d := digest.FromString("etcd")
	want := []Image{{"etcd", "quay.io/a/b", d}, {"etcd2", "quay.io/a/b", d}}
	if len(refs.images) != 2 || refs.images[0] != want[0] || refs.images[1] != want[1] {
		t.Errorf("%+v", refs.images)
	}
}

func TestParseReferencesRefuses(t *testing.T) {
	good := stream("4.8.21", tag("etcd", etcd))
	long := strings.Repeat("a", 120)
	for name, text := range map[string]string{
		"nothing":             "",
		"no JSON":             "x",
		"another kind":        strings.Replace(good, "ImageStream", "Image", 1),
		"another API":         strings.Replace(good, "io/v1", "io/v2", 1),
		"no version":          strings.Replace(good, "4.8.21", "latest", 1),
		"a version for paths": strings.Replace(good, "4.8.21", "4.8.21-../../x", 1),
		"data behind":         good + "{}",
		"by tag":              stream("4.8.21", tag("etcd", "quay.io/a/b:1")),
		"by tag and digest":   stream("4.8.21", tag("etcd", strings.Replace(etcd, "@", ":1@", 1))),
		"without host":        stream("4.8.21", tag("etcd", strings.TrimPrefix(etcd, "quay.io/"))),
		"a short digest":      stream("4.8.21", tag("etcd", etcd[:len(etcd)-1])),
		"another algorithm":   stream("4.8.21", tag("etcd", "quay.io/a/b@sha512:"+strings.Repeat("ab", 64))),
		"a name with a slash": stream("4.8.21", tag("../etcd", etcd)),
		"a long name":         stream("4.8.21", tag(long, etcd)),
		"an empty name":       stream("4.8.21", tag("", etcd)),
		"a name twice":        stream("4.8.21", tag("etcd", etcd)+","+tag("etcd", etcd)),
		"no image":            stream("4.8.21", `{"name":"x"}`),
		"too many":            stream("4.8.21", strings.Repeat("{},", maxImages)+"{}"),
		"cut":                 good[:len(good)-10],
	} {
		if _, err := parseReferences([]byte(text), "x86_64"); !errors.Is(err, ErrPayload) {
			t.Errorf("%s: error %v, want ErrPayload", name, err)
		} else if errors.Is(err, ErrReference) {
			t.Errorf("%s: %v is said to be the user's fault", name, err)
		}
	}
}

func TestParseMetadata(t *testing.T) {
	for text, want := range map[string]metadata{
		`{"kind":"cincinnati-metadata-v0","version":"4.8.21","previous":null}`:                                            {version: "4.8.21"},
		`{"kind":"cincinnati-metadata-v0","version":"4.8.21","metadata":{"url":"https://e/1","x":[1],"y":{"z":true}}}`:    {version: "4.8.21", url: "https://e/1"},
		`{"kind":"cincinnati-metadata-v0","version":"4.8.21","metadata":{"url":7}}`:                                       {version: "4.8.21"},
		`{"kind":"cincinnati-metadata-v0","version":"4.8.21","metadata":{"url":"https://e/\u001b[2J"}}`:                   {version: "4.8.21"},
		`{"kind":"cincinnati-metadata-v0","version":"4.8.21","metadata":{"release.openshift.io/architecture":"multi"}}`:   {version: "4.8.21", multi: true},
		`{"kind":"cincinnati-metadata-v0","version":"4.8.21","metadata":{"release.openshift.io/architecture":["multi"]}}`: {version: "4.8.21"},
	} {
		got, err := parseMetadata([]byte(text))
		if err != nil || got.version != want.version || got.url != want.url || got.multi != want.multi {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	got, err := parseMetadata([]byte(`{"kind":"cincinnati-metadata-v0","version":"4.8.21","previous":["4.8.20","4.7.0-rc.1"],"next":[]}`))
	if err != nil || strings.Join(got.previous, " ") != "4.8.20 4.7.0-rc.1" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{
		``, `[]`, `{}`, `{"kind":"cincinnati-metadata-v1","version":"4.8.21"}`, `{"kind":"cincinnati-metadata-v0"}`,
		`{"kind":"cincinnati-metadata-v0","version":"4.8"}`, `{"kind":"cincinnati-metadata-v0","version":"4.8.21","previous":["x\u001b"]}`,
		`{"kind":"cincinnati-metadata-v0","version":"4.8.21","previous":[1]}`, `{"kind":"cincinnati-metadata-v0","version":"4.8.21"} x`,
	} {
		if _, err := parseMetadata([]byte(text)); !errors.Is(err, ErrPayload) {
			t.Errorf("%s: error %v, want ErrPayload", text, err)
		}
	}
}

// pack makes an archive of regular files; names and contents alternate.
func pack(t testing.TB, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: pairs[i], Size: int64(len(pairs[i+1])), Mode: 0o444}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(pairs[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zs(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

func scan(b []byte) (*found, error) {
	return scanLayer(bufio.NewReader(bytes.NewReader(b)), int64(len(b)), &budget{inflated: 1 << 20, entries: 1000})
}

// claim makes the beginning of an archive whose one file is said to be of size bytes.
func claim(t *testing.T, name string, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: name, Size: size}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestScanLayerCompressions(t *testing.T) {
	plain := pack(t, "./release-manifests/image-references", "refs", "/release-manifests/release-metadata", "meta", "release-manifests/sub/release-metadata", "no")
	skippable := append([]byte{0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'h', 'i'}, zs(t, plain)...)
	for name, b := range map[string][]byte{
		"plain": plain, "gzip": gz(t, plain), "zstd": zs(t, plain), "zstd after a skippable frame": skippable,
		"two gzip members": append(gz(t, plain[:700]), gz(t, plain[700:])...),
		"two zstd frames":  append(zs(t, plain[:700]), zs(t, plain[700:])...),
	} {
		f, err := scan(b)
		if err != nil || string(f.references) != "refs" || string(f.metadata) != "meta" {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	for _, name := range []string{"gzip", "zstd"} {
		b := gz(t, plain)
		if name == "zstd" {
			b = zs(t, plain)
		}
		for _, cut := range []int{5, len(b) / 2, len(b) - 1} {
			if _, err := scan(b[:cut]); err == nil {
				t.Errorf("%s cut to %d of %d: no error", name, cut, len(b))
			}
		}
	}
}

func TestScanLayerTakesRegularFilesOnly(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "release-manifests/image-references", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		{Name: "release-manifests/release-metadata", Typeflag: tar.TypeLink, Linkname: "release-manifests/image-references"},
		{Name: "release-manifests/.wh.image-references", Typeflag: tar.TypeReg},
		{Name: "release-manifests/../image-references", Typeflag: tar.TypeReg},
		{Name: "image-references", Typeflag: tar.TypeReg},
		{Name: "release-manifests//image-references", Typeflag: tar.TypeReg},
		{Name: "release-manifests/image-references", Typeflag: tar.TypeFifo},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err := scan(b.Bytes()); err != nil || f.references != nil || f.metadata != nil || len(f.manifests) != 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestScanLayerLimits(t *testing.T) {
	const name = "release-manifests/image-references"
	for text, b := range map[string][]byte{
		"twice":   pack(t, name, "a", name, "b"),
		"files":   pack(t, strings.Split(strings.Repeat("x,,", 1001), ",")[:2002]...),
		"at most": claim(t, name, maxFile+1),
		// nine MiB of zeros in nine KiB, with one MiB allowed
		"inflates": gz(t, pack(t, "x", string(make([]byte, 9<<20)))),
	} {
		if _, err := scan(b); !errors.Is(err, ErrPayload) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, l := range []*limitReader{
		{r: strings.NewReader("abc"), left: &budget{inflated: 2}, ratio: 10},
		{r: strings.NewReader("abc"), left: &budget{inflated: 10}, ratio: 2},
	} {
		if _, err := io.ReadAll(l); !errors.Is(err, errBomb) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	if f, err := scan(pack(t, name, "a", name, "a")); err != nil || string(f.references) != "a" {
		t.Errorf("the same file twice: %v", err)
	}
}

func TestUpperLayersWin(t *testing.T) {
	top := &found{references: []byte("top"), manifests: []File{{"a", []byte("top")}}}
	top.below(&found{references: []byte("low"), metadata: []byte("low"), manifests: []File{{"a", []byte("low")}, {"b", []byte("low")}}})
	if string(top.references) != "top" || string(top.metadata) != "low" || len(top.manifests) != 2 || string(top.manifests[0].Data) != "top" {
		t.Errorf("%+v", top)
	}
}

func FuzzParseReferences(f *testing.F) {
	f.Add([]byte(stream("4.8.21", tag("etcd", etcd))))
	f.Add([]byte(stream("4.8.21", tag("etcd", "quay.io/a/b:1")+",{}")))
	f.Add([]byte(`{"kind":"ImageStream","spec":{"tags":[{"from":null}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		refs, err := parseReferences(data, "x86_64")
		if err != nil {
			if !errors.Is(err, ErrPayload) {
				t.Error(err)
			}
			return
		}
		for _, i := range refs.images {
			if !ValidTag(ComponentTag(refs.version, "x86_64", i.Name)) || i.Digest.Validate() != nil || i.Repository == "" {
				t.Errorf("%+v", i)
			}
		}
	})
}

func FuzzParseMetadata(f *testing.F) {
	f.Add([]byte(`{"kind":"cincinnati-metadata-v0","version":"4.8.21","previous":["4.8.20"],"metadata":{"url":"https://e/1"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMetadata(data)
		if err != nil {
			if !errors.Is(err, ErrPayload) {
				t.Error(err)
			}
			return
		}
		if !ValidVersion(m.version) {
			t.Errorf("%+v", m)
		}
	})
}

func FuzzScanLayer(f *testing.F) {
	plain := pack(f, "release-manifests/image-references", "refs", "release-manifests/k.yaml",
		"kind: ConfigMap\nmetadata: {annotations: {release.openshift.io/verification-config-map: ''}}\ndata: {verifier-public-key-x: key}\n")
	f.Add(plain)
	f.Add(gz(f, plain))
	f.Add(zs(f, plain))
	f.Fuzz(func(t *testing.T, data []byte) {
		left := &budget{inflated: 4 << 20, entries: 1000}
		out, err := scanLayer(bufio.NewReader(bytes.NewReader(data)), int64(len(data)), left)
		if err != nil {
			return
		}
		if _, _, err := out.trust(); err != nil && !errors.Is(err, ErrPayload) {
			t.Error(err)
		}
	})
}
