package store

import (
	"fmt"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// Limits of what an index holds (docs/format.md, "Manifest index"). More is refused with an
// error wrapping [content.ErrInvalid] when written and [ErrCorrupt] when read.
const (
	// MaxBlob is the size of the largest blob, in bytes: 4 TiB. Its slice sums are 64 MiB.
	MaxBlob = 4 << 40
	// MaxDocument is the size of the largest captured document, in bytes.
	MaxDocument = content.MaxManifest

	maxJSON = 8 << 20 // bytes of a JSON value
	maxText = 2048    // bytes of one text in it
	maxTag  = 128     // bytes of a tag (OCI distribution-spec, "Pulling manifests")
	maxRef  = 512     // bytes of a ref name in index.json, which may be a whole reference
)

// State says how far a blob has come.
type State string

// The states of a blob. A partial offset is a hint: what is on the drive is hashed again
// before it is continued. A complete record implies a durable blob.
const (
	StateWanted   State = "wanted"
	StatePartial  State = "partial"
	StateComplete State = "complete"
	StatePresumed State = "presumed" // at a registry, and not on the drive
)

// Record is what the index says of one blob or manifest. It is the value in bucket "blobs",
// as JSON, under the digest.
type Record struct {
	Digest    digest.Digest `json:"-"`                   // the key
	Size      int64         `json:"size"`                // bytes
	MediaType string        `json:"mediaType,omitempty"` // as its first descriptor says
	State     State         `json:"state"`
	Offset    int64         `json:"offset"`           // bytes in the partial file; Size when complete
	Source    string        `json:"source"`           // repository it is fetched from, "" for our own documents
	Images    []string      `json:"images"`           // ref names of the images that need it, sorted
	Sealed    uint64        `json:"sealed,omitempty"` // generation of the seal that first covered it, 0 none
}

// The kinds of an [Image].
const (
	KindRelease    = "release"    // the release image
	KindComponent  = "component"  // an image that a release names
	KindAdditional = "additional" // an image asked for besides
	KindSignature  = "signature"  // a sigstore signature image
	KindDocuments  = "documents"  // the artifact that carries the documents of a release
	KindSupplement = "supplement" // an artifact that names the blobs of a supplement
	KindPresumes   = "presumes"   // the artifact that names the presumed blobs
)

// Image is one image of the layout. It is the value in bucket "images", as JSON, under the
// image's ref name in index.json.
type Image struct {
	Tag        string             `json:"-"`                 // the key
	Name       string             `json:"name"`              // component name, "" for the other kinds
	Kind       string             `json:"kind"`              // one of the Kind constants
	Release    string             `json:"release,omitempty"` // tag of the release it belongs to
	Reference  string             `json:"reference"`         // where it came from, in full
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Bytes      int64              `json:"bytes"` // manifest and everything below, each blob once
}

// Document describes one document captured with a release.
type Document struct {
	Name      string        `json:"name"` // lower-case letters, digits, dot and hyphen
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"` // bytes, at most MaxDocument
}

// Verdicts on a release's signature when it was packed.
const (
	SignatureVerified   = "verified"
	SignatureUnverified = "unverified"
	SignatureMissing    = "missing"
)

// Release is one release. It is the value in bucket "releases", as JSON, under its tag.
type Release struct {
	Tag        string             `json:"-"`       // the key, "4.8.21-x86_64"
	Version    string             `json:"version"` // "4.8.21"
	Arch       string             `json:"arch"`    // x86_64, aarch64, ppc64le, s390x or multi
	Source     string             `json:"source"`  // repository of the release image
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Created    time.Time          `json:"created"`   // kept in UTC
	Previous   []string           `json:"previous"`  // versions it updates from
	Signature  string             `json:"signature"` // one of the Signature constants
	Documents  []Document         `json:"documents"`
	Sealed     uint64             `json:"sealed,omitempty"` // generation of the seal that first covered it, 0 none
}

// check returns an error wrapping [content.ErrInvalid] unless r can stand in an index.
func (r *Record) check() error {
	if err := content.CheckDigest(r.Digest); err != nil {
		return err
	}
	switch {
	case r.Size < 0 || r.Size > MaxBlob:
		return invalid("size %d", r.Size)
	case r.Offset < 0 || r.Offset > r.Size:
		return invalid("offset %d of %d", r.Offset, r.Size)
	case r.State != StateWanted && r.State != StatePartial && r.State != StateComplete && r.State != StatePresumed:
		return invalid("state %.80q", string(r.State))
	case r.State == StateComplete && r.Offset != r.Size:
		return invalid("complete at offset %d of %d", r.Offset, r.Size)
	case r.State == StatePresumed && r.Offset != 0:
		return invalid("presumed, and at offset %d", r.Offset)
	}
	for i, ref := range r.Images {
		if err := checkRef(ref); err != nil {
			return err
		}
		if i > 0 && ref <= r.Images[i-1] {
			return invalid("images are not sorted")
		}
	}
	return checkTexts(r.MediaType, r.Source)
}

func (i *Image) check() error {
	if err := checkRef(i.Tag); err != nil {
		return err
	}
	switch i.Kind {
	case KindRelease, KindComponent, KindAdditional, KindSignature, KindDocuments, KindSupplement, KindPresumes:
	default:
		return invalid("kind %.80q", i.Kind)
	}
	if i.Release != "" {
		if err := checkTag(i.Release); err != nil {
			return err
		}
	}
	if i.Bytes < 0 {
		return invalid("%d bytes", i.Bytes)
	}
	if err := checkDescriptor(i.Descriptor); err != nil {
		return err
	}
	return checkTexts(i.Name, i.Reference)
}

func (d *Document) check() error {
	if !made(d.Name, maxTag, isNameByte) || d.Name[0] == '.' || d.Name[0] == '-' {
		return invalid("document name %.80q", d.Name)
	}
	if err := content.CheckDigest(d.Digest); err != nil {
		return fmt.Errorf("document %s: %w", d.Name, err)
	}
	if d.Size < 0 || d.Size > MaxDocument {
		return invalid("document %s: size %d", d.Name, d.Size)
	}
	return checkTexts(d.MediaType)
}

func (r *Release) check() error {
	if err := checkTag(r.Tag); err != nil {
		return err
	}
	switch r.Signature {
	case SignatureVerified, SignatureUnverified, SignatureMissing:
	default:
		return invalid("signature verdict %.80q", r.Signature)
	}
	if err := checkDescriptor(r.Descriptor); err != nil {
		return err
	}
	names := make(map[string]bool, len(r.Documents))
	for i := range r.Documents {
		d := &r.Documents[i]
		if err := d.check(); err != nil {
			return err
		}
		if names[d.Name] {
			return invalid("two documents named %s", d.Name)
		}
		names[d.Name] = true
	}
	if err := checkTexts(r.Previous...); err != nil {
		return err
	}
	return checkTexts(r.Version, r.Arch, r.Source)
}

func checkDescriptor(d ocispec.Descriptor) error {
	if err := content.CheckDescriptor(d); err != nil {
		return err
	}
	if d.Size > MaxBlob {
		return invalid("size %d", d.Size)
	}
	return checkTexts(d.MediaType)
}

// checkTexts refuses texts that are long or that would do something to a terminal.
func checkTexts(texts ...string) error {
	for _, s := range texts {
		if len(s) > maxText {
			return invalid("a text of %d bytes", len(s))
		}
		for _, r := range s {
			if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
				return invalid("text %.80q", s)
			}
		}
	}
	return nil
}

// checkTag refuses what is no tag by the OCI distribution-spec. Keys of documents begin with
// a tag and a slash, which a tag cannot hold.
func checkTag(s string) error {
	if !made(s, maxTag, isTagByte) || s[0] == '.' || s[0] == '-' {
		return invalid("tag %.80q", s)
	}
	return nil
}

// checkRef refuses what is no ref name by the OCI image-spec, annotation
// org.opencontainers.image.ref.name: a tag or a whole reference.
func checkRef(s string) error {
	if !made(s, maxRef, isRefByte) || !isTagByte(s[0]) || s[0] == '.' || s[0] == '-' {
		return invalid("ref name %.80q", s)
	}
	return nil
}

// made reports whether s is not empty, at most limit bytes and of allowed bytes only.
func made(s string, limit int, allowed func(byte) bool) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return true
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-'
}
func isTagByte(c byte) bool { return isNameByte(c) || c >= 'A' && c <= 'Z' || c == '_' }
func isRefByte(c byte) bool { return isTagByte(c) || c == '/' || c == ':' || c == '@' || c == '+' }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", content.ErrInvalid, fmt.Errorf(format, args...))
}
