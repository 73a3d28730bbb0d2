package bundle

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/store"
)

// Contents is what a bundle holds, whether read from the bbolt index or walked in the layout.
type Contents struct {
	Releases []store.Release                // by tag
	Images   []store.Image                  // by tag
	Records  map[digest.Digest]store.Record // blobs that are, or are to be, on the drive
	// Presumed are blobs that images need and that the drive does not hold, since a registry does.
	Presumed map[digest.Digest]store.Record

	documents map[string][]byte // release tag and document name, joined by a slash
	broken    []BrokenManifest
}

// BrokenManifest is a manifest that could not be read, so that what it names is not known.
type BrokenManifest struct {
	Descriptor ocispec.Descriptor
	Image      string // tag
	Err        error
}

// Broken lists the manifests that could not be read while Contents was made from a layout.
func (c *Contents) Broken() []BrokenManifest { return c.broken }

// Document returns a document that was captured with a release, byte for byte.
func (c *Contents) Document(tag, name string) ([]byte, bool) {
	data, ok := c.documents[tag+"/"+name]
	return data, ok
}

// Release returns the release of that tag.
func (c *Contents) Release(tag string) (store.Release, bool) {
	for _, r := range c.Releases {
		if r.Tag == tag {
			return r, true
		}
	}
	return store.Release{}, false
}

// Names lists the tags of the releases, for a sentence.
func (c *Contents) Names() string {
	if len(c.Releases) == 0 {
		return "nothing that is known of"
	}
	tags := make([]string, len(c.Releases))
	for i, r := range c.Releases {
		tags[i] = r.Tag
	}
	return strings.Join(tags, ", ")
}

// Components counts the component images of a release.
func (c *Contents) Components(tag string) int {
	n := 0
	for _, img := range c.Images {
		if img.Release == tag && img.Kind == store.KindComponent {
			n++
		}
	}
	return n
}

// Select returns the tags of the releases that wanted names, each as "4.8.21" or
// "4.8.21-x86_64"; all of them if wanted is empty. The error wraps [ErrNoRelease].
func (c *Contents) Select(wanted []string) ([]string, error) {
	var out []string
	if len(wanted) == 0 {
		for _, r := range c.Releases {
			out = append(out, r.Tag)
		}
		return out, nil
	}
	for _, w := range wanted {
		found := false
		for _, r := range c.Releases {
			if w == r.Tag || w == r.Version || sameArch(w, r) {
				out = append(out, r.Tag)
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("%w: %s; the drive holds %s", ErrNoRelease, w, c.Names())
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// sameArch understands amd64 and arm64 for x86_64 and aarch64.
func sameArch(wanted string, r store.Release) bool {
	arch, ok := strings.CutPrefix(wanted, r.Version+"-")
	if !ok {
		return false
	}
	norm, err := release.NormalizeArch(arch)
	return err == nil && norm == r.Arch
}

// Signed gathers what vouches for a release, for a [SignatureVerifier].
func (c *Contents) Signed(ctx context.Context, f content.Fetcher, tag string) (SignedRelease, error) {
	rel, ok := c.Release(tag)
	if !ok {
		return SignedRelease{}, fmt.Errorf("%w: %s", ErrNoRelease, tag)
	}
	s := SignedRelease{
		Digest: rel.Descriptor.Digest, Version: rel.Version, Arch: rel.Arch, Source: rel.Source,
		Children: map[digest.Digest][][]byte{},
	}
	for _, d := range rel.Documents {
		data, ok := c.Document(tag, d.Name)
		if !ok {
			continue
		}
		file := release.File{Name: d.Name, Data: data}
		switch child, isSig := isSignatureDocument(d.Name); {
		case isSig && child == "":
			s.Messages = append(s.Messages, data)
		case isSig:
			s.Children[child] = append(s.Children[child], data)
		case strings.HasPrefix(d.Name, prefixKey):
			s.Keys = append(s.Keys, file)
		case strings.HasPrefix(d.Name, prefixPolicy):
			s.Policies = append(s.Policies, file)
		}
	}
	own := map[string]bool{}
	for _, img := range c.Images {
		own[img.Tag] = img.Release == tag
	}
	for _, img := range c.Images {
		switch {
		case img.Kind == store.KindComponent && img.Release == tag:
			repo, dgst, _ := strings.Cut(img.Reference, "@")
			s.Images = append(s.Images, release.Image{Name: img.Name, Repository: repo, Digest: digest.Digest(dgst)})
		case img.Kind == store.KindSignature && (img.Release == tag || c.signs(img, own)):
			si, err := readSigstoreImage(ctx, f, img)
			if err != nil {
				return s, fmt.Errorf("%s: %w", img.Tag, err)
			}
			s.Sigstore = append(s.Sigstore, si)
		}
	}
	return s, nil
}

// signs reports whether the subject of a sigstore image belongs to one of the images named:
// releases share components, and the image says one release only.
func (c *Contents) signs(img store.Image, tags map[string]bool) bool {
	r, ok := c.Records[sigstoreSubject(img.Tag)]
	return ok && slices.ContainsFunc(r.Images, func(t string) bool { return tags[t] })
}

// contentsFromStore reads what the bbolt index x says of idx, and refuses an index that says
// otherwise than idx. With a nil idx, of a bundle that has no layout index yet, it is all.
func contentsFromStore(x *store.Index, idx *ocispec.Index) (*Contents, error) {
	c := &Contents{Records: map[digest.Digest]store.Record{}, Presumed: map[digest.Digest]store.Record{}, documents: map[string][]byte{}}
	named := map[string]digest.Digest{} // tag -> digest; documents under documentsTag
	artifacts := map[digest.Digest]bool{}
	if idx != nil {
		for _, d := range idx.Manifests {
			if tag := d.Annotations[ocispec.AnnotationRefName]; tag != "" {
				named[tag] = d.Digest
			} else {
				artifacts[d.Digest] = true
			}
		}
	}
	err := x.Images(func(img store.Image) error {
		if idx != nil {
			if untagged(img.Kind) && !artifacts[img.Descriptor.Digest] {
				return nil // of a release that is not sealed
			}
			if !untagged(img.Kind) {
				want, ok := named[img.Tag]
				if !ok {
					return nil
				}
				if want != img.Descriptor.Digest {
					return fmt.Errorf("%w: image %s is %s here and %s in the layout index", store.ErrCorrupt, img.Tag, img.Descriptor.Digest, want)
				}
			}
			delete(named, img.Tag)
			delete(artifacts, img.Descriptor.Digest)
		}
		c.Images = append(c.Images, img)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(named)+len(artifacts) > 0 {
		missing := slices.Sorted(maps.Keys(named))
		return nil, fmt.Errorf("%w: %d images of the layout index are not in it: %s", store.ErrCorrupt, len(named)+len(artifacts), strings.Join(missing, ", "))
	}
	tags := map[string]bool{}
	for _, img := range c.Images {
		tags[img.Tag] = true
	}
	err = x.Releases(func(r store.Release) error {
		if !tags[r.Tag] && idx != nil {
			return nil
		}
		for _, d := range r.Documents {
			data, err := x.Document(r.Tag, d.Name)
			if err != nil {
				return fmt.Errorf("release %s: document %s: %w", r.Tag, d.Name, err)
			}
			c.documents[r.Tag+"/"+d.Name] = data
		}
		c.Releases = append(c.Releases, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, x.Records(func(r store.Record) error {
		if idx != nil {
			// An image of a pack that did not finish may need it too.
			r.Images = slices.DeleteFunc(r.Images, func(t string) bool { return !tags[t] })
		}
		switch {
		case idx != nil && len(r.Images) == 0:
		case r.State == store.StatePresumed:
			c.Presumed[r.Digest] = r
		default:
			c.Records[r.Digest] = r
		}
		return nil
	})
}
