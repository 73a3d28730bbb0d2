package objects

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
)

// ReleaseInfo tells machines what of one release is at a destination. release.json holds
// a list of them.
type ReleaseInfo struct {
	Version   string        `json:"version"`
	Arch      string        `json:"arch"`
	Digest    digest.Digest `json:"digest"`
	Image     string        `json:"image"`              // pull spec at the destination, by digest
	Tags      []string      `json:"tags"`               // written at the destination, release tag first
	Sources   []string      `json:"sources"`            // repositories that the destination mirrors
	Previous  []string      `json:"previous,omitempty"` // versions that may update to this one
	Signature string        `json:"signature,omitempty"`

	Updates []Update `json:"updates,omitempty"` // of paths that were packed, to this release
}

type releaseDocument struct {
	Releases []ReleaseInfo `json:"releases"`
}

// ReleaseJSON renders release.json, written beside the objects for scripts and for apply
// and upgrade: {"releases": […]}, in the order given.
func ReleaseJSON(releases ...ReleaseInfo) ([]byte, error) {
	doc := releaseDocument{Releases: make([]ReleaseInfo, len(releases))}
	for i, r := range releases {
		if r.Tags == nil {
			r.Tags = []string{}
		}
		if r.Sources == nil {
			r.Sources = []string{}
		}
		doc.Releases[i] = r
	}
	raw, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("render release.json: %w", err)
	}
	return append(raw, '\n'), nil
}

// ParseReleaseJSON reads what [ReleaseJSON] wrote. Errors wrap [ErrInvalid].
func ParseReleaseJSON(data []byte) ([]ReleaseInfo, error) {
	var doc releaseDocument
	if len(data) > MaxDocument {
		return nil, fmt.Errorf("%w: release.json of %d bytes", ErrInvalid, len(data))
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("release.json: %w: %w", ErrInvalid, err)
	}
	for _, r := range doc.Releases {
		if err := content.CheckDigest(r.Digest); err != nil {
			return nil, fmt.Errorf("release.json: %s: %w: %w", r.Version, ErrInvalid, err)
		}
	}
	return doc.Releases, nil
}
