package layout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// RefName is the annotation under which an entry of index.json carries its tag.
const RefName = ocispec.AnnotationRefName

// Bounds of an index.json.
const (
	// MaxIndex is the largest index.json that is read, in bytes.
	MaxIndex = 64 << 20
	// maxEntries is how many manifests it may name; ten releases have two thousand.
	maxEntries = 100_000
)

// ParseIndex reads an index.json (OCI image-spec, image-index.md). Every entry's digest and
// size are well-formed; nothing else is promised about them. Errors wrap
// [content.ErrInvalid]. It reads entry by entry: a few bytes of JSON can stand for many of
// memory.
func ParseIndex(raw []byte) (*ocispec.Index, error) {
	if len(raw) > MaxIndex {
		return nil, fmt.Errorf("index.json: %w: %d bytes, at most %d are read", content.ErrInvalid, len(raw), MaxIndex)
	}
	var x ocispec.Index
	dec := json.NewDecoder(bytes.NewReader(raw))
	err := decodeObject(dec, func(key string) error { return decodeIndexField(dec, key, &x) })
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = fmt.Errorf("data after the JSON value")
		}
	}
	if err == nil && x.SchemaVersion != 2 {
		err = fmt.Errorf("schema version %d", x.SchemaVersion)
	}
	if err == nil && x.MediaType != "" && x.MediaType != ocispec.MediaTypeImageIndex {
		err = fmt.Errorf("media type %q", x.MediaType)
	}
	if err != nil {
		return nil, fmt.Errorf("index.json: %w: %w", content.ErrInvalid, err)
	}
	return &x, nil
}

// decodeObject reads one JSON object; field is called with the decoder before each value. A
// name that comes twice is refused: readers would disagree about which one counts.
func decodeObject(dec *json.Decoder, field func(key string) error) error {
	if t, err := dec.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return fmt.Errorf("not a JSON object")
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok || seen[key] || len(seen) == 100 {
			return fmt.Errorf("field %q comes twice, or there are too many", key)
		}
		seen[key] = true
		if err := field(key); err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
	}
	_, err := dec.Token()
	return err
}

func decodeIndexField(dec *json.Decoder, key string, x *ocispec.Index) error {
	switch key {
	case "schemaVersion":
		return dec.Decode(&x.SchemaVersion)
	case "mediaType":
		return dec.Decode(&x.MediaType)
	case "artifactType":
		return dec.Decode(&x.ArtifactType)
	case "annotations":
		return dec.Decode(&x.Annotations)
	case "subject":
		return dec.Decode(&x.Subject)
	case "manifests":
		return decodeEntries(dec, x)
	}
	var skip json.RawMessage
	return dec.Decode(&skip)
}

func decodeEntries(dec *json.Decoder, x *ocispec.Index) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if t != json.Delim('[') {
		return fmt.Errorf("not a list")
	}
	for dec.More() {
		if len(x.Manifests) == maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		var d ocispec.Descriptor
		if err := dec.Decode(&d); err != nil {
			return err
		}
		if err := content.CheckDescriptor(d); err != nil {
			return err
		}
		x.Manifests = append(x.Manifests, d)
	}
	_, err = dec.Token()
	return err
}
