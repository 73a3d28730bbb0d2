package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/ocdir"
	"pannier/bundle/release"
	"pannier/store"
)

// ErrIncomplete says that something is not there which nobody has promised: in a folder that
// oc adm release mirror wrote, which no seal covers.
var ErrIncomplete = errors.New("not whole")

// DirectoryError says that a folder is what oc adm release mirror --to-dir writes, where a
// bundle is wanted. It is [ErrNotBundle].
type DirectoryError struct{ Dir string }

func (e *DirectoryError) Error() string {
	return e.Dir + ": " + ErrNotBundle.Error() + ": oc adm release mirror --to-dir wrote it, in another format"
}

// Is makes errors.Is(err, ErrNotBundle) true.
func (e *DirectoryError) Is(target error) bool { return target == ErrNotBundle }

// IsDirectory reports whether media is a folder that oc adm release mirror wrote, and not a
// bundle beside which such a folder stands.
func IsDirectory(media string) bool {
	own, err := os.Lstat(filepath.Join(media, dirOwn))
	return (err != nil || !own.IsDir()) && ocdir.Is(media)
}

// Directory is a folder that oc adm release mirror --to-dir wrote, opened for reading. It has
// no seal: what it must hold, its own release images say.
type Directory struct {
	Tree     *ocdir.Tree
	Contents *Contents // Documents are those that pack would capture

	// Problems are what is wrong with tags, signatures and releases; each wraps [ErrDamaged],
	// [layout.ErrUnsafe] or [content.ErrInvalid], or [ErrIncomplete] where it speaks of a
	// release image of which something is missing.
	Problems []FileProblem
	// Notes are for people.
	Notes []string
}

// OpenDirectory reads what a folder that oc adm release mirror wrote holds: its tags, release
// images and manifests, each hashed, but no other blob. It writes nothing. The error wraps
// [ErrNotBundle] if media is no such folder; it is ctx's if that ended.
func OpenDirectory(ctx context.Context, media string) (*Directory, error) {
	if !IsDirectory(media) {
		return nil, fmt.Errorf("%s: %w: oc adm release mirror did not write it", media, ErrNotBundle)
	}
	t, err := ocdir.Open(media)
	if err != nil {
		return nil, err
	}
	d := &Directory{Tree: t, Contents: &Contents{Records: map[digest.Digest]store.Record{}, documents: map[string][]byte{}}}
	for _, p := range t.Problems() {
		d.problem(p.Path, p.Err)
	}
	r := &directoryReader{Directory: d, tags: map[string]ocdir.Tag{}, used: map[string]bool{}}
	if err := r.read(ctx); err != nil {
		t.Close()
		return nil, err
	}
	return d, nil
}

// Close lets go of the folder.
func (d *Directory) Close() error { return d.Tree.Close() }

func (d *Directory) problem(path string, err error) {
	d.Problems = append(d.Problems, FileProblem{path, err})
}

// source is the folder as a source. What is wrong with it beside single blobs ends what takes
// from it with an error, after what is right has been taken.
func (d *Directory) source() *Source {
	pulse := &layout.Pulse{}
	s := &Source{Name: d.Tree.Dir(), Contents: d.Contents, Blobs: d.Tree, Notes: d.Notes, unsealed: true, feel: pulse.Feel, close: d.Close}
	var errs []error
	for _, p := range d.Problems {
		errs = append(errs, fmt.Errorf("%s: %s: %w", s.Name, p.Path, p.Err))
	}
	s.Unfinished = errors.Join(errs...)
	if len(d.Contents.Releases) == 0 && s.Unfinished != nil {
		s.Refused, s.Unfinished = s.Unfinished, nil
	}
	return s
}

// directoryReader makes Contents of the tags of a folder.
type directoryReader struct {
	*Directory
	tags map[string]ocdir.Tag
	used map[string]bool // tags that belong to a release
}

func (r *directoryReader) read(ctx context.Context) error {
	for _, t := range r.Tree.Tags() {
		r.tags[t.Name] = t
	}
	roots := r.roots()
	for _, tag := range roots {
		if err := r.release(ctx, tag); err != nil {
			return err
		}
	}
	if len(roots) == 0 {
		r.problem("v2/openshift/release/manifests", fmt.Errorf("%w: no tag names a release", ErrIncomplete))
	}
	if err := r.signatures(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(r.tags)) {
		if !r.used[name] {
			r.Notes = append(r.Notes, fmt.Sprintf("%s: the tag belongs to no release; it is left alone", r.tags[name].Path))
		}
	}
	for d, rec := range r.Contents.Records {
		slices.Sort(rec.Images)
		rec.Images = slices.Compact(rec.Images)
		r.Contents.Records[d] = rec
	}
	slices.SortFunc(r.Contents.Images, func(a, b store.Image) int { return strings.Compare(a.Tag, b.Tag) })
	slices.SortFunc(r.Contents.Releases, func(a, b store.Release) int { return strings.Compare(a.Tag, b.Tag) })
	return nil
}

// roots are the tags that must name a release: VERSION-ARCH, and VERSION as oc wrote it until
// 4.6. "4.8.21-aarch64-etcd" reads as a version too; it is a component of what it begins with.
func (r *directoryReader) roots() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(r.tags)) {
		ref, err := release.ParseReference(name, release.Defaults{})
		if err != nil || strings.Contains(name, "/") {
			continue
		}
		full := name == release.Tag(ref.Version, ref.Arch)
		component := slices.ContainsFunc(out, func(root string) bool { return strings.HasPrefix(name, root+"-") })
		if full || !component {
			out = append(out, name)
		}
	}
	return out
}

// release takes the release that a tag names, and its components by their tags.
func (r *directoryReader) release(ctx context.Context, root string) error {
	tag := r.tags[root]
	r.used[root] = true
	desc, p, err := r.payload(ctx, tag.Digest)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && root != p.Tag() && root != p.Version {
		err = fmt.Errorf("%w: the tag names the release %s", ErrDamaged, p.Tag())
	}
	if err != nil {
		r.problem(tag.Path, fmt.Errorf("the release image %s: %w", tag.Digest, err))
		r.expect(ctx, root, root, desc)
		for name, t := range r.tags { // whose components they are nobody knows now
			if strings.HasPrefix(name, root+"-") && !r.used[name] {
				r.used[name] = true
				r.expect(ctx, name, name, ocispec.Descriptor{Digest: t.Digest})
			}
		}
		return ctx.Err()
	}
	if _, twice := r.Contents.Release(p.Tag()); twice {
		return nil // under its name of before 4.7 too
	}
	rec := store.Release{
		Tag: p.Tag(), Version: p.Version, Arch: p.Arch, Source: release.DefaultRepository, Descriptor: plain(desc),
		Created: p.Created, Previous: p.Previous, Signature: SignatureUnverified,
	}
	if err := r.capture(&rec, p); err != nil {
		return err
	}
	r.Contents.Releases = append(r.Contents.Releases, rec)
	r.image(ctx, store.Image{Tag: rec.Tag, Kind: store.KindRelease, Release: rec.Tag, Reference: rec.Source + "@" + desc.Digest.String()}, desc)
	untagged := 0
	for _, c := range p.Images {
		img := store.Image{
			Tag: release.ComponentTag(p.Version, p.Arch, c.Name), Name: c.Name, Kind: store.KindComponent, Release: rec.Tag,
			Reference: c.Repository + "@" + c.Digest.String(),
		}
		d := c.Digest
		if t, ok := r.tags[root+"-"+c.Name]; ok {
			d = t.Digest // if that is another, CheckPayload says so
			r.used[t.Name] = true
		} else {
			untagged++
		}
		r.image(ctx, img, ocispec.Descriptor{Digest: d})
	}
	if untagged > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("release %s: %d of %d components have no tag here; they are found by their digests", rec.Tag, untagged, len(p.Images)))
	}
	return ctx.Err()
}

// payload reads a release image.
func (r *directoryReader) payload(ctx context.Context, d digest.Digest) (ocispec.Descriptor, *release.Payload, error) {
	desc, _, err := r.Tree.Manifest(ctx, d)
	var p *release.Payload
	if err == nil {
		p, err = release.Read(ctx, r.Tree, desc)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: %w", ErrIncomplete, err)
	case err != nil:
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return desc, p, err
}

// capture makes the documents that pack would capture, so that the folder can be judged and
// unpacked as a bundle is.
func (r *directoryReader) capture(rec *store.Release, p *release.Payload) error {
	docs := payloadDocuments(p)
	sources, err := json.Marshal(mirrorSources{Sources: payloadSources(rec.Source, p), Previous: p.Previous})
	if err != nil {
		return err
	}
	docs = append(docs, document{DocumentSources, mediaTypeJSON, sources})
	found := r.Tree.Signatures()
	children := map[digest.Digest][][]byte{}
	for _, c := range p.Children {
		children[c.Digest] = found[c.Digest]
	}
	docs = append(docs, signatureDocuments(found[rec.Descriptor.Digest], children)...)
	sortDocuments(docs)
	rec.Documents = captured(docs)
	for _, d := range docs {
		r.Contents.documents[rec.Tag+"/"+d.name] = d.data
	}
	return nil
}

// image adds an image and what it needs. Of one whose manifest cannot be read, more is not
// known than its digest.
func (r *directoryReader) image(ctx context.Context, img store.Image, desc ocispec.Descriptor) {
	img.Descriptor, img.Bytes = r.expect(ctx, img.Tag, img.Reference, desc)
	r.Contents.Images = append(r.Contents.Images, img)
}

// expect records what the image of a digest needs.
func (r *directoryReader) expect(ctx context.Context, tag, reference string, desc ocispec.Descriptor) (ocispec.Descriptor, int64) {
	if desc.MediaType == "" {
		var err error
		if desc, _, err = r.Tree.Manifest(ctx, desc.Digest); err != nil {
			if desc.MediaType == "" {
				desc.MediaType = content.MediaTypeDockerManifest // what it should be
			}
			r.Contents.record(desc, "", tag)
			r.Contents.broken = append(r.Contents.broken, BrokenManifest{Descriptor: desc, Image: tag, Err: err})
			return plain(desc), 0
		}
	}
	source := ""
	if ref, err := release.ParseImageReference(reference); err == nil {
		source = ref.Repository
	}
	n, _ := r.Contents.walk(ctx, r.Tree, desc, source, tag) // its error is ctx's, for which the caller looks
	return plain(desc), n
}

// signatures takes the sigstore images that lie beside the images that they sign.
func (r *directoryReader) signatures(ctx context.Context) error {
	repository := map[digest.Digest]store.Image{}
	for _, img := range r.Contents.Images {
		repository[img.Descriptor.Digest] = img
	}
	for _, name := range slices.Sorted(maps.Keys(r.tags)) {
		subject, ok := repository[sigstoreSubject(name)]
		if !ok {
			continue
		}
		r.used[name] = true
		repo, _, _ := strings.Cut(subject.Reference, "@")
		r.image(ctx, store.Image{Tag: name, Kind: store.KindSignature, Release: subject.Release, Reference: repo + ":" + name},
			ocispec.Descriptor{Digest: r.tags[name].Digest})
	}
	return ctx.Err()
}
