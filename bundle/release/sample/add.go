package sample

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
)

// Image is an image to be added to a release beside what it consists of.
type Image struct {
	Arch   string            // as in tags; default x86_64
	OCI    bool              // OCI media types instead of Docker's
	Layers [][]byte          // contents of one file in each layer; default one small layer of noise
	Labels map[string]string // of the config
}

// AddImage adds an image, as an additional image or another release's neighbour. repository is
// given with host; tag may be empty.
func (r *Release) AddImage(repository, tag string, img Image) (ocispec.Descriptor, error) {
	desc, err := r.addImage(img, repository+":"+tag)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("add image %s: %w", repository, err)
	}
	r.place(repository, tag, desc)
	return desc, nil
}

func (r *Release) addImage(img Image, name string) (ocispec.Descriptor, error) {
	o := Options{Arch: img.Arch, OCI: img.OCI}
	if err := o.complete(); err != nil {
		return ocispec.Descriptor{}, err
	}
	if img.Layers == nil {
		img.Layers = [][]byte{noise(1<<10, name, o.Arch)}
	}
	m := &maker{Options: o, r: r}
	var layers []layer
	for i, data := range img.Layers {
		e := Entry{Data: data}
		e.Name, e.Mode = fmt.Sprintf("opt/file-%d", i+1), 0o644
		l, err := m.layer([]Entry{e})
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		layers = append(layers, l)
	}
	return m.image(release.GoArch(o.Arch), img.Labels, "", layers)
}

// AddList adds a list of one image for each architecture, as they are spelled in tags.
func (r *Release) AddList(repository, tag string, oci bool, archs ...string) (ocispec.Descriptor, error) {
	var children []ocispec.Descriptor
	for _, arch := range archs {
		desc, err := r.addImage(Image{Arch: arch, OCI: oci}, repository+":"+tag)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("add list %s: %w", repository, err)
		}
		children = append(children, platform(desc, arch))
	}
	desc, err := r.list(oci, children)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("add list %s: %w", repository, err)
	}
	r.place(repository, tag, desc)
	return desc, nil
}

// AddManifest adds a manifest as it is, and the blobs that it names.
func (r *Release) AddManifest(repository, tag, mediaType string, raw []byte, blobs ...[]byte) ocispec.Descriptor {
	for _, b := range blobs {
		r.blob("", b)
	}
	desc := r.blob(mediaType, raw)
	r.place(repository, tag, desc)
	return desc
}

// AddSigstore adds a cosign signature image of subject, under its tag in subject's
// repository. payloads are signed documents, signatures their signatures in base64.
func (r *Release) AddSigstore(repository string, subject digest.Digest, payloads [][]byte, signatures []string) (ocispec.Descriptor, error) {
	if len(payloads) != len(signatures) {
		return ocispec.Descriptor{}, fmt.Errorf("add signature of %s: %d payloads, %d signatures", subject, len(payloads), len(signatures))
	}
	doc := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
	}
	config := `{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[`
	for i, p := range payloads {
		desc := r.blob("application/vnd.dev.cosign.simplesigning.v1+json", p)
		desc.Annotations = map[string]string{"dev.cosignproject.cosign/signature": signatures[i]}
		doc.Layers = append(doc.Layers, desc)
		if i > 0 {
			config += ","
		}
		config += `"` + desc.Digest.String() + `"`
	}
	doc.Config = r.blob(ocispec.MediaTypeImageConfig, []byte(config+"]}}"))
	desc, err := r.manifest(doc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	r.place(repository, release.SigstoreTag(subject), desc)
	return desc, nil
}

// place puts desc at repository and tag; a tag that is there already is moved.
func (r *Release) place(repository, tag string, desc ocispec.Descriptor) {
	for i, p := range r.Images {
		if tag != "" && p.Repository == repository && p.Tag == tag {
			r.Images[i].Descriptor = desc
			return
		}
	}
	r.Images = append(r.Images, Placed{repository, tag, desc})
}

// Walk calls fn with everything below desc, children first, desc last; each once.
func (r *Release) Walk(desc ocispec.Descriptor, fn func(ocispec.Descriptor) error) error {
	seen := map[digest.Digest]bool{}
	var walk func(ocispec.Descriptor) error
	walk = func(d ocispec.Descriptor) error {
		if seen[d.Digest] {
			return nil
		}
		seen[d.Digest] = true
		if content.IsManifest(d.MediaType) {
			m, err := content.ParseManifest(d.MediaType, r.Blobs[d.Digest])
			if err != nil {
				return fmt.Errorf("manifest %s: %w", d.Digest, err)
			}
			for _, c := range m.Children() {
				if err := walk(c); err != nil {
					return err
				}
			}
		}
		return fn(d)
	}
	return walk(desc)
}
