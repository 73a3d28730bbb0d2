package ocdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/objects"
	"pannier/bundle/release"
)

const (
	partialExt      = ".download"
	tempPrefix      = ".tmp-" // of blobs whose digest oc did not know yet
	signaturePrefix = "signature-"

	maxSignatureFiles = 10_000
	maxSignatures     = 64 << 20 // bytes of all of them
)

func splitPath(name string) []string { return strings.Split(name, "/") }

// list calls fn for every name in a folder, sorted.
func (t *Tree) list(folder string, fn func(name string, fi fs.FileInfo) error) error {
	root := t.folders[folder]
	if root == nil {
		return nil
	}
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxNames + 1)
	if err != nil && err != io.EOF {
		return err
	}
	if len(names) > maxNames {
		return fmt.Errorf("%s: %w: more than %d names", folder, content.ErrInvalid, maxNames)
	}
	slices.Sort(names)
	for _, name := range names {
		fi, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since
		}
		if err != nil {
			t.files = append(t.files, File{Path: folder + "/" + name, Err: err})
			continue
		}
		if err := fn(name, fi); err != nil {
			return err
		}
	}
	return nil
}

// blob takes what stands in blobs.
func (t *Tree) blob(name string, fi fs.FileInfo) error {
	t.file(blobsDir, name, fi)
	return nil
}

// file notes a file that is no tag.
func (t *Tree) file(folder, name string, fi fs.FileInfo) {
	f := File{Path: folder + "/" + name, Size: fi.Size()}
	base, partial := strings.CutSuffix(name, partialExt)
	f.Digest, f.Partial = parseName(base), partial || strings.HasPrefix(name, tempPrefix)
	switch {
	case !fi.Mode().IsRegular():
		f.Err = fmt.Errorf("%w: it is a link, a folder or a special file", layout.ErrUnsafe)
	case f.Digest == "" && !f.Partial:
		f.Err = errors.New("oc writes no such file")
	case !f.Partial:
		p := place{folder: folder, name: name, size: fi.Size(), info: fi}
		for _, other := range t.places[f.Digest] {
			f.Again = true
			f.Linked = f.Linked || os.SameFile(other.info, fi)
		}
		t.places[f.Digest] = append(t.places[f.Digest], p)
	}
	t.files = append(t.files, f)
}

// parseName reads sha256:<hex>, or with a hyphen; "" if name is neither.
func parseName(name string) digest.Digest {
	hexes, ok := strings.CutPrefix(name, "sha256:")
	if !ok {
		hexes, ok = strings.CutPrefix(name, "sha256-")
	}
	d := digest.NewDigestFromEncoded(digest.SHA256, hexes)
	if !ok || content.CheckDigest(d) != nil {
		return ""
	}
	return d
}

// manifest takes what stands in manifests: manifests, and tags that name one. A tag is a link
// to the digest beside it. Where links could not be copied, a copy of the manifest stands in
// its place, and what it names is the digest of its bytes.
func (t *Tree) manifest(name string, fi fs.FileInfo) error {
	path := manifestsDir + "/" + name
	isTag := parseName(name) == "" && release.ValidTag(name) && !strings.HasSuffix(name, partialExt)
	switch {
	case fi.Mode()&fs.ModeSymlink != 0:
		target, err := t.folders[manifestsDir].Readlink(name)
		d := parseName(target)
		switch {
		case err != nil:
		case !isTag:
			err = fmt.Errorf("%w: a link of this name is no tag", layout.ErrUnsafe)
		case d == "":
			err = fmt.Errorf("%w: a tag that is no link to a digest beside it, but to %.200q", layout.ErrUnsafe, target)
		}
		if err != nil {
			t.problems = append(t.problems, Problem{path, err})
			return nil
		}
		t.tags = append(t.tags, Tag{Name: name, Path: path, Digest: d})
	case isTag && fi.Mode().IsRegular() && fi.Size() <= content.MaxManifest:
		p := place{folder: manifestsDir, name: name, size: fi.Size(), info: fi}
		raw, err := t.readAll(p, content.MaxManifest)
		if err != nil {
			t.problems = append(t.problems, Problem{path, err})
			return nil
		}
		d := digest.FromBytes(raw)
		t.tags = append(t.tags, Tag{Name: name, Path: path, Digest: d})
		t.places[d] = append(t.places[d], p)
	default:
		t.file(manifestsDir, name, fi)
	}
	return nil
}

// signature takes the ConfigMaps in config. oc writes JSON into them, whatever their ending.
func (t *Tree) signature(name string, fi fs.FileInfo) error {
	if !strings.HasPrefix(name, signaturePrefix) {
		return nil
	}
	path := configDir + "/" + name
	fail := func(err error) error {
		t.problems = append(t.problems, Problem{path, err})
		return nil
	}
	if !fi.Mode().IsRegular() {
		return fail(fmt.Errorf("%w: it is a link, a folder or a special file", layout.ErrUnsafe))
	}
	raw, err := t.readAll(place{folder: configDir, name: name, size: fi.Size(), info: fi}, objects.MaxDocument)
	if err != nil {
		return fail(err)
	}
	found, err := objects.ParseSignatureConfigMap(raw)
	if err != nil {
		return fail(err)
	}
	n := 0
	for d, messages := range found {
		for _, m := range messages {
			n += len(m)
			t.signatures[d] = append(t.signatures[d], m)
		}
	}
	if t.signed++; t.signed > maxSignatureFiles {
		return fmt.Errorf("%s: %w: more than %d files of signatures", configDir, content.ErrInvalid, maxSignatureFiles)
	}
	if t.signedBytes += n; t.signedBytes > maxSignatures {
		return fmt.Errorf("%s: %w: more than %d bytes of signatures", configDir, content.ErrInvalid, maxSignatures)
	}
	return nil
}
