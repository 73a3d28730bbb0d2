package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/store"
)

// Limits of a refetch list (docs/format.md, "Refetch list").
const (
	// MaxRefetchList is the size of the largest list that is read, in bytes.
	MaxRefetchList = 16 << 20

	maxRefetchBlobs   = 50_000
	maxRefetchSources = 16 // of a blob
	maxRefetchImages  = 20 // of a blob; more are left out
)

// RefetchList names blobs that a drive has lost, for the internet side to fetch again
// (docs/format.md, "Refetch list").
type RefetchList struct {
	Format int           `json:"format"`
	Bundle digest.Digest `json:"bundle"` // bundle id of the drive that lacks them
	Blobs  []RefetchBlob `json:"blobs"`  // sorted by digest, each once
}

// RefetchBlob is one blob of a [RefetchList].
type RefetchBlob struct {
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
	MediaType string        `json:"mediaType"`
	Sources   []string      `json:"sources"` // repositories that are asked for it, in this order
	Images    []string      `json:"images"`  // for people: some of the images that need it
}

// descriptor is what the blob is fetched by.
func (b RefetchBlob) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size}
}

// Refetch lists blobs of the bundle for the internet side. Those that no registry has, the
// captured documents, are left out; their number is returned.
func (b *Bundle) Refetch(lost []store.Record) (list *RefetchList, without int) {
	list = &RefetchList{Format: FormatVersion, Blobs: []RefetchBlob{}}
	if b.Index != nil {
		list.Bundle = ID(b.Index)
	}
	references := map[string]string{} // image -> repository
	for _, img := range b.Contents.Images {
		if ref, err := release.ParseImageReference(img.Reference); err == nil {
			references[img.Tag] = ref.Repository
		}
	}
	for _, rec := range lost {
		blob := RefetchBlob{Digest: rec.Digest, Size: rec.Size, MediaType: rec.MediaType, Images: rec.Images[:min(len(rec.Images), maxRefetchImages)]}
		add := func(repository string) {
			if repository != "" && len(blob.Sources) < maxRefetchSources && !slices.Contains(blob.Sources, repository) {
				blob.Sources = append(blob.Sources, repository)
			}
		}
		add(rec.Source)
		for _, tag := range rec.Images {
			add(references[tag])
		}
		if len(blob.Sources) == 0 {
			without++
			continue
		}
		list.Blobs = append(list.Blobs, blob)
	}
	slices.SortFunc(list.Blobs, func(x, y RefetchBlob) int { return strings.Compare(string(x.Digest), string(y.Digest)) })
	list.Blobs = slices.CompactFunc(list.Blobs, func(x, y RefetchBlob) bool { return x.Digest == y.Digest })
	return list, without
}

// Bytes is the sum of the sizes.
func (l *RefetchList) Bytes() int64 {
	var n int64
	for _, b := range l.Blobs {
		n += b.Size
	}
	return n
}

// Encode returns the list as a file.
func (l *RefetchList) Encode() ([]byte, error) {
	raw, err := json.MarshalIndent(l, "", "  ")
	return append(raw, '\n'), err
}

// ParseRefetchList reads a list, which comes from a drive's other side and is hostile: every
// number in it is bounded, and what it names is fetched by digest alone. Errors are
// [ErrVersion], or wrap [content.ErrInvalid].
func ParseRefetchList(raw []byte) (*RefetchList, error) {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("refetch list: %w: %w", content.ErrInvalid, fmt.Errorf(format, args...))
	}
	if len(raw) > MaxRefetchList {
		return nil, invalid("%d bytes", len(raw))
	}
	var l RefetchList
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&l); err != nil {
		return nil, invalid("%w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, invalid("something follows it")
	}
	switch {
	case l.Format > FormatVersion:
		return nil, fmt.Errorf("the refetch list is of format %d, this program knows %d: %w", l.Format, FormatVersion, ErrVersion)
	case l.Format < 1:
		return nil, invalid("format %d", l.Format)
	case len(l.Blobs) == 0:
		return nil, invalid("it names no blob")
	case len(l.Blobs) > maxRefetchBlobs:
		return nil, invalid("%d blobs", len(l.Blobs))
	}
	if err := content.CheckDigest(l.Bundle); err != nil {
		return nil, invalid("bundle: %w", err)
	}
	for i, b := range l.Blobs {
		if err := b.check(); err != nil {
			return nil, invalid("blob %d: %w", i+1, err)
		}
		if i > 0 && b.Digest <= l.Blobs[i-1].Digest {
			return nil, invalid("blob %d: %s stands twice, or out of order", i+1, b.Digest)
		}
	}
	return &l, nil
}

func (b RefetchBlob) check() error {
	if err := content.CheckDescriptor(b.descriptor()); err != nil {
		return err
	}
	switch {
	case b.Size > store.MaxBlob:
		return fmt.Errorf("%d bytes", b.Size)
	case len(b.MediaType) > 255 || strings.ContainsFunc(b.MediaType, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("media type %.80q", b.MediaType)
	case content.IsManifest(b.MediaType) && b.Size > content.MaxManifest:
		return fmt.Errorf("a manifest of %d bytes", b.Size)
	case len(b.Sources) == 0 || len(b.Sources) > maxRefetchSources:
		return fmt.Errorf("%d sources", len(b.Sources))
	}
	for _, s := range b.Sources {
		if ref, err := release.ParseImageReference(s + "@" + string(b.Digest)); err != nil || ref.Repository != s {
			return fmt.Errorf("source %.80q is no repository", s)
		}
	}
	return nil
}
