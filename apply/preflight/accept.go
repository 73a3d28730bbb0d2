package preflight

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/remote"
)

// Whether a registry takes a kind of manifest can only be known by putting one: headers tell
// neither its product nor its configuration reliably, and zot takes Docker's only if it is
// configured to. To leave nothing behind, the manifest names a config that the registry does
// not have. A registry that does not take the kind says so (415), one that does says that the
// blob is unknown, and neither stores anything.
//
// Some answers fit both: Quay says MANIFEST_INVALID to either. Then an image of the kind that
// is in the repository already is proof enough; failing that, a tiny whole image is pushed.
// It is pushed by digest alone, so that no tag shows it, is the same bytes every time, so that
// there is never more than one, and is removed where the registry allows it. Its blobs are its
// own, so that removing them takes nothing from other images.

// dialect is a kind of manifest.
type dialect struct {
	name                          string
	manifest, list, config, layer string // media types
	remedy                        string // where a registry does not take it
}

// trial is what came of trying one kind of manifest.
type trial int

const (
	unclear  trial = iota // the answer fits several causes
	accepted              // the registry takes the kind
	refused               // it does not
	barred                // this account may not put manifests
)

// judge reads the answer to a manifest whose config is missing.
func judge(err error) trial {
	if err == nil {
		return accepted
	}
	var e *remote.Error
	if !errors.As(err, &e) {
		return unclear
	}
	switch {
	case errors.Is(err, remote.ErrAuth):
		return barred
	case e.Status == http.StatusUnsupportedMediaType, e.Code == "UNSUPPORTED":
		return refused
	case e.Code == "MANIFEST_BLOB_UNKNOWN", e.Code == "BLOB_UNKNOWN":
		return accepted
	case e.Status >= 400 && e.Status < 500 && aboutBlob.MatchString(e.Message):
		return accepted
	case e.Status >= 400 && e.Status < 500 && aboutType.MatchString(e.Message):
		return refused
	}
	return unclear
}

var (
	aboutBlob = regexp.MustCompile(`(?i)(blob|layer|config)[^;]*(unknown|not found|missing|not exist)|unknown (blob|layer)`)
	aboutType = regexp.MustCompile(`(?i)(media|content)[ -]?type|unsupported|not supported`)
)

func registryDocker(ctx context.Context, f *far) Check {
	if !f.carries(ctx, docker.manifest, docker.list) {
		return skip("nothing on the drive is of that kind")
	}
	c := f.accepts(ctx, docker)
	if c.Status == Fail {
		c.Remedy = docker.remedy
	}
	return c
}

func registryOCI(ctx context.Context, f *far) Check {
	if !f.carries(ctx, oci.manifest, oci.list) {
		return skip("nothing on the drive is of that kind")
	}
	c := f.accepts(ctx, oci)
	if c.Status == Fail {
		c.Remedy = oci.remedy
		if f.opts.Media == "" {
			c.Status = Warn // older releases need none
		}
	}
	return c
}

// accepts finds out whether the registry takes a kind of manifest.
func (f *far) accepts(ctx context.Context, d dialect) Check {
	if _, err := f.greet(ctx); err != nil {
		return skipAfter("registry-api")
	}
	if err := f.push(ctx); err != nil {
		return skipAfter("registry-push")
	}
	desc, raw, _, err := tinyImage(d, false)
	if err != nil {
		return warn(err, "", "%v", err)
	}
	err = f.repo.PushManifest(ctx, desc, raw, desc.Digest.String())
	switch judge(err) {
	case accepted:
		if err != nil {
			return pass("%s: the registry understands them: it missed only the config that one named", d.name)
		}
		return pass("%s: the registry took one%s", d.name, f.sweep(ctx, desc.Digest, nil))
	case refused:
		return fail(err, "", "%s: %v", d.name, err)
	case barred:
		return fail(err, hostRemedy(err), "%s: an upload was accepted but a manifest was not: %v", d.name, err)
	}
	first := err
	if tag, ok := f.holds(ctx, d); ok {
		return pass("%s: the registry holds one already, %s:%s", d.name, f.opts.Destination, tag)
	}
	return f.whole(ctx, d, first)
}

// maxLooked bounds how many tags are asked for what kind they are of.
const maxLooked = 5

// holds looks for a manifest of the kind in the repository.
func (f *far) holds(ctx context.Context, d dialect) (tag string, ok bool) {
	tags, err := f.list(ctx)
	if err != nil {
		return "", false
	}
	for _, tag := range tags[:min(maxLooked, len(tags))] {
		if desc, err := f.repo.Resolve(ctx, tag); err == nil && desc.MediaType == d.manifest {
			return tag, true
		}
	}
	return "", false
}

// whole pushes a tiny image and removes it.
func (f *far) whole(ctx context.Context, d dialect, first error) Check {
	desc, raw, blobs, err := tinyImage(d, true)
	if err != nil {
		return warn(err, "", "%v", err)
	}
	for _, b := range blobs {
		open := func(_ context.Context, offset int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b.data[offset:])), nil
		}
		if err := f.repo.PushBlob(ctx, b.desc, open); err != nil {
			return fail(err, hostRemedy(err), "a blob of %d bytes was not taken: %v", b.desc.Size, err)
		}
	}
	err = f.repo.PushManifest(ctx, desc, raw, desc.Digest.String())
	if err == nil {
		return pass("%s: the registry took a tiny image%s", d.name, f.sweep(ctx, desc.Digest, blobs))
	}
	left := f.sweep(ctx, "", blobs)
	var e *remote.Error
	if errors.As(err, &e) && e.Status >= 400 && e.Status < 500 {
		return fail(err, hostRemedy(err), "%s: %v%s", d.name, err, left)
	}
	return warn(err, hostRemedy(err), "%s: it could not be found out: %v; before: %v%s", d.name, err, first, left)
}

// sweep removes what was pushed and says what of it stays. Blobs are removed only when
// nothing names them any more.
func (f *far) sweep(ctx context.Context, manifest digest.Digest, blobs []tinyBlob) string {
	if manifest != "" {
		if err := f.repo.DeleteManifest(ctx, manifest); err != nil {
			return fmt.Sprintf("; it stays there, without a tag, because the registry does not let it be removed: %s", manifest)
		}
	}
	var stay []string
	for _, b := range blobs {
		if err := f.repo.DeleteBlob(ctx, b.desc.Digest); err != nil {
			stay = append(stay, b.desc.Digest.String())
		}
	}
	if len(stay) > 0 {
		return "; blobs of some hundred bytes stay until the registry collects its garbage: " + listed(stay)
	}
	return "; it was removed again"
}

// tinyBlob is a blob of a tiny image.
type tinyBlob struct {
	desc ocispec.Descriptor
	data []byte
}

// tinyImage makes the smallest image that the strictest registry takes: one layer with one
// file, and a config that tells of it. With whole false config and layer are such
// as do not exist anywhere.
func tinyImage(d dialect, whole bool) (desc ocispec.Descriptor, raw []byte, blobs []tinyBlob, err error) {
	if !whole {
		// The digests of these words, so that nobody has a blob of them by chance.
		missing := func(mediaType, words string) ocispec.Descriptor {
			return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(words), Size: int64(len(words))}
		}
		return manifestOf(d, missing(d.config, "pannier preflight: this config is never pushed"),
			[]ocispec.Descriptor{missing(d.layer, "pannier preflight: this layer is never pushed")})
	}
	layer, diff, err := tinyLayer()
	if err != nil {
		return desc, nil, nil, err
	}
	epoch := time.Unix(0, 0).UTC()
	config, err := json.Marshal(ocispec.Image{
		Created:  &epoch,
		Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff}},
		History:  []ocispec.History{{Created: &epoch, CreatedBy: "pannier preflight"}},
	})
	if err != nil {
		return desc, nil, nil, err
	}
	blobs = []tinyBlob{
		{ocispec.Descriptor{MediaType: d.config, Digest: digest.FromBytes(config), Size: int64(len(config))}, config},
		{ocispec.Descriptor{MediaType: d.layer, Digest: digest.FromBytes(layer), Size: int64(len(layer))}, layer},
	}
	desc, raw, _, err = manifestOf(d, blobs[0].desc, []ocispec.Descriptor{blobs[1].desc})
	return desc, raw, blobs, err
}

func manifestOf(d dialect, config ocispec.Descriptor, layers []ocispec.Descriptor) (ocispec.Descriptor, []byte, []tinyBlob, error) {
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: d.manifest, Config: config, Layers: layers,
	})
	desc := ocispec.Descriptor{MediaType: d.manifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return desc, raw, nil, err
}

// tinyLayer is a layer of one small file, compressed, and the digest of it uncompressed.
func tinyLayer() ([]byte, digest.Digest, error) {
	const text = "made by pannier preflight to see which manifests this registry takes; it can be deleted\n"
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	err := w.WriteHeader(&tar.Header{Name: "pannier-preflight", Mode: 0o644, Size: int64(len(text)), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, "", err
	}
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(plain.Bytes()); err != nil {
		return nil, "", err
	}
	if err := z.Close(); err != nil {
		return nil, "", err
	}
	return packed.Bytes(), digest.FromBytes(plain.Bytes()), nil
}
