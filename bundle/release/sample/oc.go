package sample

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
)

// OCOptions say how [WriteOC] writes.
type OCOptions struct {
	Windows   bool                       // a hyphen for the colon, and copies of manifests for links
	Old       bool                       // tags of oc until 4.6: VERSION and VERSION-COMPONENT
	Ext       string                     // ending of the files with signatures; default ".json"
	Signature func(digest.Digest) []byte // of a release image; nil writes none, as older versions of oc did
}

// Folders that oc writes into.
const (
	OCBlobs     = "v2/openshift/release/blobs"
	OCManifests = "v2/openshift/release/manifests"
)

// WriteOC writes what oc adm release mirror --to-dir writes for releases into dir, which is
// made.
func WriteOC(dir string, o OCOptions, releases ...*Release) error {
	w := &ocWriter{OCOptions: o, dir: dir}
	for _, sub := range []string{OCBlobs, OCManifests, "config"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	for _, r := range releases {
		if err := w.release(r); err != nil {
			return fmt.Errorf("oc's folder: %w", err)
		}
	}
	return nil
}

type ocWriter struct {
	OCOptions
	dir string
}

func (w *ocWriter) name(d digest.Digest) string {
	if w.Windows {
		return strings.Replace(d.String(), ":", "-", 1)
	}
	return d.String()
}

func (w *ocWriter) release(r *Release) error {
	for _, d := range r.Digests() {
		if err := w.blob(r, d); err != nil {
			return err
		}
	}
	root := release.Tag(r.Version, r.Arch)
	if w.Old {
		root = r.Version
	}
	if err := w.manifest(r, r.Descriptor, root); err != nil {
		return err
	}
	placed := map[digest.Digest]ocispec.Descriptor{}
	for _, img := range r.Images {
		placed[img.Descriptor.Digest] = img.Descriptor
	}
	for _, c := range r.Components {
		if err := w.manifest(r, placed[c.Digest], root+"-"+c.Name); err != nil {
			return err
		}
	}
	if w.Signature == nil {
		return nil
	}
	return w.sign(r.Descriptor.Digest)
}

func (w *ocWriter) blob(r *Release, d digest.Digest) error {
	rc, err := r.Fetch(context.TODO(), ocispec.Descriptor{Digest: d}, 0)
	if err != nil {
		return err
	}
	defer rc.Close()
	f, err := os.Create(filepath.Join(w.dir, OCBlobs, w.name(d)))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, rc); err != nil {
		return err
	}
	return f.Close()
}

// manifest links a manifest, and the children of a list, and tags it.
func (w *ocWriter) manifest(r *Release, desc ocispec.Descriptor, tag string) error {
	name := w.name(desc.Digest)
	if err := w.link(name, name); err != nil {
		return err
	}
	if content.IsIndex(desc.MediaType) {
		m, err := content.ParseManifest(desc.MediaType, r.Blobs[desc.Digest])
		if err != nil {
			return err
		}
		for _, c := range m.Manifests {
			if err := w.manifest(r, c, ""); err != nil {
				return err
			}
		}
	}
	switch {
	case tag == "":
		return nil
	case w.Windows:
		return w.link(name, tag)
	}
	return os.Symlink(name, filepath.Join(w.dir, OCManifests, tag))
}

// link puts a blob among the manifests, where it may be already.
func (w *ocWriter) link(blob, name string) error {
	from, to := filepath.Join(w.dir, OCBlobs, blob), filepath.Join(w.dir, OCManifests, name)
	if _, err := os.Lstat(to); err == nil {
		return nil
	}
	if !w.Windows {
		return os.Link(from, to)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// sign writes the ConfigMap with the signature: one line of JSON, whatever its ending.
func (w *ocWriter) sign(d digest.Digest) error {
	ext := w.Ext
	if ext == "" {
		ext = ".json"
	}
	doc := fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"sha256-%[1]s","namespace":"openshift-config-managed","creationTimestamp":null,`+
		`"labels":{"release.openshift.io/verification-signatures":""}},"binaryData":{"sha256-%[1]s-1":"%[2]s"}}`, d.Encoded(), base64.StdEncoding.EncodeToString(w.Signature(d)))
	return os.WriteFile(filepath.Join(w.dir, "config", "signature-sha256-"+d.Encoded()[:16]+ext), []byte(doc), 0o640)
}
