package signature

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
)

// Values of critical.type.
const (
	typeAtomic = "atomic container signature"       // OpenPGP
	typeCosign = "cosign container image signature" // sigstore
)

// maxReference is the longest docker-reference, in bytes, that is taken.
const maxReference = 1024

// claims is what the JSON of a container signature says.
type claims struct {
	Digest    digest.Digest
	Reference string
}

// parseClaims reads the JSON of a container signature of the given type. It takes exactly
// what the cluster takes and less: each known key once, in its own spelling (Go's decoder
// alone would let "Critical" or a second "critical" override the first), and nothing else.
// Only a sigstore payload may carry annotations of the signer's own under "optional".
// Errors wrap [ErrMalformed].
func parseClaims(raw []byte, wantType string) (*claims, error) {
	if !json.Valid(raw) || !utf8.Valid(raw) {
		return nil, fmt.Errorf("signed text: %w: not one JSON value", ErrMalformed)
	}
	top, err := object(raw, "critical", "optional")
	if err != nil {
		return nil, fmt.Errorf("signed text: %w", err)
	}
	critical, err := object(top["critical"], "type", "image", "identity")
	if err != nil {
		return nil, fmt.Errorf("signed text: critical: %w", err)
	}
	image, err := object(critical["image"], "docker-manifest-digest")
	if err != nil {
		return nil, fmt.Errorf("signed text: image: %w", err)
	}
	identity, err := object(critical["identity"], "docker-reference")
	if err != nil {
		return nil, fmt.Errorf("signed text: identity: %w", err)
	}
	if err := checkOptional(top["optional"], wantType); err != nil {
		return nil, fmt.Errorf("signed text: optional: %w", err)
	}
	got, err := text(critical["type"])
	if err != nil || got != wantType {
		return nil, fmt.Errorf("signed text: %w: its type is %.80q, not %q", ErrMalformed, got, wantType)
	}
	d, err := text(image["docker-manifest-digest"])
	if err != nil {
		return nil, fmt.Errorf("signed text: docker-manifest-digest: %w", err)
	}
	if err := content.CheckDigest(digest.Digest(d)); err != nil {
		return nil, fmt.Errorf("signed text: %w: its digest %.120q is no SHA-256", ErrMalformed, d)
	}
	reference, err := text(identity["docker-reference"])
	if err != nil {
		return nil, fmt.Errorf("signed text: docker-reference: %w", err)
	}
	if reference == "" || len(reference) > maxReference {
		return nil, fmt.Errorf("signed text: %w: a docker-reference of %d bytes", ErrMalformed, len(reference))
	}
	return &claims{Digest: digest.Digest(d), Reference: reference}, nil
}

func checkOptional(raw json.RawMessage, wantType string) error {
	if raw == nil || string(raw) == "null" {
		return nil
	}
	var known []string
	if wantType == typeAtomic {
		known = []string{"creator", "timestamp"}
	}
	optional, err := object(raw, known...)
	if err != nil || wantType != typeAtomic {
		return err
	}
	if v, ok := optional["creator"]; ok {
		if _, err := text(v); err != nil {
			return fmt.Errorf("creator: %w", err)
		}
	}
	var seconds int64
	if v, ok := optional["timestamp"]; ok && json.Unmarshal(v, &seconds) != nil {
		return fmt.Errorf("timestamp: %w: not a whole number", ErrMalformed)
	}
	return nil
}

// names returns an error wrapping [ErrUntrusted] unless c speaks of want.
func (c *claims) names(want digest.Digest) error {
	if c.Digest != want {
		return fmt.Errorf("%w: it signs %s, not %s", ErrUntrusted, c.Digest, want)
	}
	return nil
}

// object reads raw, which is valid JSON, as an object in which every key stands once and, if
// any are given, is one of known.
func object(raw json.RawMessage, known ...string) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%w: missing, or not an object", ErrMalformed)
	}
	out := make(map[string]json.RawMessage)
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		name, _ := t.(string)
		if len(known) > 0 && !slices.Contains(known, name) {
			return nil, fmt.Errorf("%w: unknown field %.80q", ErrMalformed, name)
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("%w: field %.80q stands twice", ErrMalformed, name)
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		out[name] = v
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: data after the JSON value", ErrMalformed)
	}
	return out, nil
}

// text reads raw as a JSON string.
func text(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", fmt.Errorf("%w: missing, or not a string", ErrMalformed)
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return s, nil
}
