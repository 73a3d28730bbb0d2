package ocdir_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/trip"
	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/ocdir"
	"pannier/bundle/release"
)

func open(t *testing.T, dir string) *ocdir.Tree {
	t.Helper()
	tree, err := ocdir.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

// Every blob, tag and signature is found, in each form that oc has written.
func TestOpen(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	for name, o := range map[string]trip.OCOptions{"linux": {}, "windows": {Windows: true}, "yaml": {Ext: ".yaml"}, "old": {Old: true}} {
		t.Run(name, func(t *testing.T) {
			tree := open(t, trip.OC(t, o, r))
			root := "4.8.21-x86_64"
			if o.Old {
				root = "4.8.21"
			}
			var tags []string
			for _, tag := range tree.Tags() {
				tags = append(tags, tag.Name)
				if tag.Name == root && tag.Digest != r.Descriptor.Digest {
					t.Errorf("%+v", tag)
				}
			}
			if want := []string{root, root + "-cli", root + "-cluster-version-operator", root + "-etcd"}; !slices.Equal(tags, want) {
				t.Error(tags)
			}
			for _, d := range r.Digests() {
				n, err := tree.Stat(d)
				rc, ferr := tree.Fetch(t.Context(), ocispec.Descriptor{Digest: d}, 1)
				if err != nil || ferr != nil || n != int64(len(r.Blobs[d])) {
					t.Fatal(d, n, err, ferr)
				}
				got, err := io.ReadAll(rc)
				rc.Close()
				if err != nil || string(got) != string(r.Blobs[d][1:]) {
					t.Error(d, err)
				}
			}
			desc, raw, err := tree.Manifest(t.Context(), r.Descriptor.Digest)
			if err != nil || desc.MediaType != r.Descriptor.MediaType || desc.Size != r.Descriptor.Size || string(raw) != string(r.Blobs[desc.Digest]) {
				t.Errorf("%+v %v", desc, err)
			}
			if s := tree.Signatures()[r.Descriptor.Digest]; len(s) != 1 || len(tree.Problems()) > 0 {
				t.Errorf("%d signatures, %v", len(s), tree.Problems())
			}
			for _, f := range tree.Files() {
				if f.Err != nil || f.Partial || tree.Verify(t.Context(), f, nil) != nil {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// A hostile folder leads nowhere: links are read as tags or not at all, and nothing else than
// plain files is opened.
func TestHostile(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := r.Components[0].Digest
	for name, target := range map[string]string{
		"out":         "../../../../../etc/passwd",
		"absolute":    secret,
		"other":       "../blobs/" + d.String(),
		"no digest":   "sha256:" + strings.Repeat("g", 64),
		"another tag": "4.8.21-x86_64",
		"dot":         "./" + d.String(),
	} {
		t.Run("tag "+name, func(t *testing.T) {
			dir := trip.OC(t, trip.OCOptions{}, r)
			if err := os.Symlink(target, trip.OCTag(dir, "4.8.99-x86_64")); err != nil {
				t.Fatal(err)
			}
			tree := open(t, dir)
			p := tree.Problems()
			if len(p) != 1 || !errors.Is(p[0].Err, layout.ErrUnsafe) || slices.ContainsFunc(tree.Tags(), func(t ocdir.Tag) bool { return t.Name == "4.8.99-x86_64" }) {
				t.Errorf("%v", p)
			}
		})
	}
	for name, path := range map[string]func(dir string) string{
		"blob":     func(dir string) string { return trip.OCBlob(dir, digest.FromString("{}")) },
		"manifest": func(dir string) string { return trip.OCTag(dir, digest.FromString("{}").String()) },
	} {
		t.Run("linked "+name, func(t *testing.T) {
			dir := trip.OC(t, trip.OCOptions{}, r)
			if err := os.Symlink(secret, path(dir)); err != nil {
				t.Fatal(err)
			}
			tree := open(t, dir)
			if _, err := tree.Stat(digest.FromString("{}")); !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			unsafe := slices.ContainsFunc(tree.Files(), func(f ocdir.File) bool { return errors.Is(f.Err, layout.ErrUnsafe) })
			problem := slices.ContainsFunc(tree.Problems(), func(p ocdir.Problem) bool { return errors.Is(p.Err, layout.ErrUnsafe) })
			if !unsafe && !problem {
				t.Errorf("%+v %+v", tree.Files(), tree.Problems())
			}
		})
	}
	t.Run("linked folder", func(t *testing.T) {
		dir := trip.OC(t, trip.OCOptions{}, r)
		blobs := filepath.Join(dir, trip.OCBlobs)
		if err := errors.Join(os.Rename(blobs, blobs+"-real"), os.Symlink("blobs-real", blobs)); err != nil {
			t.Fatal(err)
		}
		if _, err := ocdir.Open(dir); !errors.Is(err, layout.ErrUnsafe) {
			t.Error(err)
		}
	})
	t.Run("exchanged while open", func(t *testing.T) {
		dir := trip.OC(t, trip.OCOptions{}, r)
		tree := open(t, dir)
		path := trip.OCBlob(dir, d)
		if err := errors.Join(os.Remove(path), os.Symlink(secret, path)); err != nil {
			t.Fatal(err)
		}
		if _, err := tree.Fetch(t.Context(), ocispec.Descriptor{Digest: d}, 0); !errors.Is(err, layout.ErrUnsafe) {
			t.Error(err)
		}
	})
	t.Run("signature", func(t *testing.T) {
		dir := trip.OC(t, trip.OCOptions{Unsigned: true}, r)
		for name, data := range map[string]string{
			"signature-1.json": `{"kind":"Secret"}`,
			"signature-2.yaml": strings.Repeat("x", 5<<20),
			"signature-3.json": "\x00",
		} {
			if err := os.WriteFile(filepath.Join(dir, "config", name), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(secret, filepath.Join(dir, "config", "signature-4.json")); err != nil {
			t.Fatal(err)
		}
		if tree := open(t, dir); len(tree.Problems()) != 4 || len(tree.Signatures()) != 0 {
			t.Errorf("%v", tree.Problems())
		}
	})
}

// What oc left when it was interrupted is told apart from what it finished.
func TestPartial(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	dir := trip.OC(t, trip.OCOptions{}, r)
	d := r.Components[0].Digest
	for _, name := range []string{d.String() + ".download", ".tmp-123"} {
		if err := os.WriteFile(filepath.Join(dir, trip.OCBlobs, name), []byte("begun"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, f := range open(t, dir).Files() {
		if f.Partial {
			n++
			if f.Err != nil || f.Size != 5 || strings.HasSuffix(f.Path, ".download") != (f.Digest == d) {
				t.Errorf("%+v", f)
			}
		}
	}
	if n != 2 {
		t.Error(n)
	}
}

func TestFind(t *testing.T) {
	dir := trip.OC(t, trip.OCOptions{}, trip.Small(t, "4.8.21"))
	for path, want := range map[string]string{
		dir: "", filepath.Dir(dir): dir, filepath.Join(dir, "v2"): dir, filepath.Join(dir, trip.OCManifests): dir,
		filepath.Join(dir, "config"): dir, filepath.Join(dir, "nowhere"): dir, t.TempDir(): "",
	} {
		if got := ocdir.Find(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if ocdir.Is(filepath.Join(dir, "v2")) || !ocdir.Is(dir) {
		t.Error("taken for another")
	}
}

// FuzzTree: whatever lies in the folders under whatever names, opening it neither fails nor
// believes what is not so.
func FuzzTree(f *testing.F) {
	manifest := `{"schemaVersion":2,"config":{"digest":"sha256:` + strings.Repeat("0", 64) + `","size":1}}`
	f.Add("sha256:"+strings.Repeat("a", 64), []byte("{}"), []byte(manifest))
	f.Add("4.8.21-x86_64", []byte(manifest), []byte(`{"mediaType":"x"}`))
	f.Add("sha256-"+strings.Repeat("b", 64)+".download", []byte{}, []byte(`{"manifests":[]}`))
	f.Fuzz(func(t *testing.T, name string, file, config []byte) {
		if name == "" || len(name) > 200 || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
			return
		}
		dir := t.TempDir()
		for path, data := range map[string][]byte{
			trip.OCBlobs + "/" + name: file, trip.OCManifests + "/" + name: file,
			"config/signature-x.json": config, trip.OCManifests + "/" + digest.FromBytes(config).String(): config,
		} {
			full := filepath.Join(dir, path)
			if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, data, 0o644)); err != nil {
				t.Skip(err)
			}
		}
		tree, err := ocdir.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		for _, tag := range tree.Tags() {
			if !release.ValidTag(tag.Name) || content.CheckDigest(tag.Digest) != nil {
				t.Errorf("%+v", tag)
			}
		}
		if desc, raw, err := tree.Manifest(t.Context(), digest.FromBytes(config)); err == nil && (!content.IsManifest(desc.MediaType) || string(raw) != string(config)) {
			t.Errorf("%+v", desc)
		}
	})
}
