package release

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"time"
)

// maxImages bounds the components of a release; 4.x has up to about two hundred.
const maxImages = 10000

// references is what is read of image-references, an ImageStream in JSON.
type references struct {
	version string
	created time.Time
	images  []Image
}

// parseReferences reads image-references. arch is the release's, for the check that every
// component can be tagged.
func parseReferences(raw []byte, arch string) (*references, error) {
	var doc struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
		Metadata   struct {
			Name    string `json:"name"`
			Created string `json:"creationTimestamp"`
		} `json:"metadata"`
		Spec struct {
			Tags []struct {
				Name string `json:"name"`
				From *struct {
					Kind string `json:"kind"`
					Name string `json:"name"`
				} `json:"from"`
			} `json:"tags"`
		} `json:"spec"`
	}
	if err := decodeOne(raw, &doc); err != nil {
		return nil, err
	}
	if doc.Kind != "ImageStream" || doc.APIVersion != "image.openshift.io/v1" {
		return nil, fmt.Errorf("%w: kind %q of %q, want ImageStream of image.openshift.io/v1", ErrPayload, doc.Kind, doc.APIVersion)
	}
	out := &references{version: doc.Metadata.Name}
	if !ValidVersion(out.version) {
		return nil, fmt.Errorf("%w: %q is no version", ErrPayload, out.version)
	}
	if len(doc.Spec.Tags) > maxImages {
		return nil, fmt.Errorf("%w: %d components, at most %d are read", ErrPayload, len(doc.Spec.Tags), maxImages)
	}
	// Only shown to people: a date that cannot be read is no reason to refuse a release.
	out.created, _ = time.Parse(time.RFC3339, doc.Metadata.Created)
	seen := map[string]bool{}
	for _, t := range doc.Spec.Tags {
		if t.From == nil || t.From.Kind != "DockerImage" {
			continue
		}
		if !ValidTag(t.Name) || !ValidTag(ComponentTag(out.version, arch, t.Name)) {
			return nil, fmt.Errorf("%w: component name %q cannot stand in a tag", ErrPayload, t.Name)
		}
		if seen[t.Name] {
			return nil, fmt.Errorf("%w: component %s stands twice", ErrPayload, t.Name)
		}
		seen[t.Name] = true
		ref, err := ParseImageReference(t.From.Name)
		if err != nil {
			// Not wrapped: ErrReference is about what a person typed.
			return nil, fmt.Errorf("component %s: %w: %v", t.Name, ErrPayload, err)
		}
		if ref.Digest == "" || ref.Tag != "" {
			return nil, fmt.Errorf("component %s: %w: %q is not a reference by digest alone", t.Name, ErrPayload, t.From.Name)
		}
		out.images = append(out.images, Image{Name: t.Name, Repository: ref.Repository, Digest: ref.Digest})
	}
	if len(out.images) == 0 {
		return nil, fmt.Errorf("%w: it names no image", ErrPayload)
	}
	return out, nil
}

// metadata is what is read of release-metadata.
type metadata struct {
	version  string
	previous []string
	url      string
	multi    bool
}

const (
	metadataKind = "cincinnati-metadata-v0"
	archKey      = "release.openshift.io/architecture"
)

var urlRule = regexp.MustCompile(`^https?://[!-~]+$`) // up to maxURL characters

const maxURL = 1000

// parseMetadata reads release-metadata.
func parseMetadata(raw []byte) (*metadata, error) {
	var doc struct {
		Kind     string         `json:"kind"`
		Version  string         `json:"version"`
		Previous []string       `json:"previous"`
		Metadata map[string]any `json:"metadata"`
	}
	if err := decodeOne(raw, &doc); err != nil {
		return nil, err
	}
	if doc.Kind != metadataKind {
		return nil, fmt.Errorf("%w: kind %q, want %q", ErrPayload, doc.Kind, metadataKind)
	}
	if !ValidVersion(doc.Version) {
		return nil, fmt.Errorf("%w: %q is no version", ErrPayload, doc.Version)
	}
	for _, v := range doc.Previous {
		if !ValidVersion(v) {
			return nil, fmt.Errorf("%w: previous: %q is no version", ErrPayload, v)
		}
	}
	out := &metadata{version: doc.Version, previous: doc.Previous}
	// Shown to people: nothing but a plain web address is taken.
	if u, _ := doc.Metadata["url"].(string); len(u) <= maxURL && urlRule.MatchString(u) {
		out.url = u
	}
	arch, _ := doc.Metadata[archKey].(string)
	out.multi = arch == Multi
	return out, nil
}

// decodeOne decodes the one JSON value that raw must be.
func decodeOne(raw []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(v); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("%w: %w", ErrPayload, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("%w: data after the JSON value", ErrPayload)
	}
	return nil
}
