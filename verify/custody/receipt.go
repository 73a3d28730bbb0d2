package custody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/objects"
)

// Limits of a receipt (docs/format.md, "Receipts and inventories").
const (
	// MaxReceipt is the size of the largest receipt that is read, in bytes.
	MaxReceipt = 64 << 20

	maxReceiptBlobs        = 500_000 // blobs and manifests of all repositories
	maxReceiptRepositories = 1000
	maxReceiptReleases     = 1000
	maxReceiptBundles      = 100
	maxReceiptText         = 512 // bytes of one text
)

// Kinds of a [Receipt].
const (
	KindReceipt   = "pannier-receipt"   // of an unpack
	KindInventory = "pannier-inventory" // a registry was asked, and nothing was brought
)

// Receipt says what a registry was seen to hold, and which drives brought it: a small file that
// is carried back to the internet side (docs/format.md, "Receipts and inventories").
type Receipt struct {
	Kind         string           `json:"kind"`
	Format       int              `json:"format"` // 1
	Time         time.Time        `json:"time"`
	Program      string           `json:"program"`
	Commit       string           `json:"commit,omitempty"`
	Platform     string           `json:"platform,omitempty"`
	Registry     string           `json:"registry"`          // REGISTRY/REPO that releases are in
	Cluster      *ReceiptCluster  `json:"cluster,omitempty"` // if one was asked
	Bundles      []ReceiptBundle  `json:"bundles"`           // drives that were unpacked
	Releases     []ReceiptRelease `json:"releases"`
	Repositories []Held           `json:"repositories"`
}

// ReceiptCluster is what a cluster said of itself.
type ReceiptCluster struct {
	Version string `json:"version"` // that it runs
}

// ReceiptBundle is a drive that was unpacked.
type ReceiptBundle struct {
	Bundle     string        `json:"bundle"` // id; empty of a folder that oc wrote
	Generation uint64        `json:"generation,omitempty"`
	Custody    digest.Digest `json:"custody,omitempty"` // of the last line of its custody log then
}

// ReceiptRelease is a release at the registry.
type ReceiptRelease struct {
	Release   string        `json:"release"` // "4.8.21-x86_64"
	Digest    digest.Digest `json:"digest"`
	Complete  bool          `json:"complete"` // all that it is made of is there
	Signature string        `json:"signature,omitempty"`
}

// Held is what one repository holds. Each list is sorted by digest.
type Held struct {
	Repository string         `json:"repository"` // "registry.example:5000/ocp4/openshift4"
	Manifests  []bundle.Sized `json:"manifests"`
	Blobs      []bundle.Sized `json:"blobs"`
}

// HeldOf lists what a repository holds: its manifests and its blobs, in any order, some perhaps
// twice.
func HeldOf(repository string, manifests, blobs []ocispec.Descriptor) Held {
	return Held{Repository: repository, Manifests: sized(manifests), Blobs: sized(blobs)}
}

func sized(descs []ocispec.Descriptor) []bundle.Sized {
	out := make([]bundle.Sized, len(descs))
	for i, d := range descs {
		out[i] = bundle.Sized{Digest: d.Digest, Size: d.Size}
	}
	return bundle.SortSized(out)
}

// CountText says how much all repositories hold, what several of them do as often as they do:
// "30 blobs + 13 manifests, 12.1 MiB". The bytes are those of both.
func (r *Receipt) CountText() string {
	var all Held
	for _, h := range r.Repositories {
		all.Blobs, all.Manifests = append(all.Blobs, h.Blobs...), append(all.Manifests, h.Manifests...)
	}
	return all.CountText()
}

// CountText says how much it is, as [Receipt.CountText] does.
func (h Held) CountText() string {
	var bytes int64
	for _, list := range [][]bundle.Sized{h.Blobs, h.Manifests} {
		for _, b := range list {
			bytes += b.Size
		}
	}
	return fmt.Sprintf("%s + %s, %s", content.Plural(len(h.Blobs), "blob", "blobs"), content.Plural(len(h.Manifests), "manifest", "manifests"), content.SizeText(bytes))
}

// Holdings is the receipt as pack takes it.
func (r *Receipt) Holdings() bundle.Holdings {
	h := bundle.Holdings{Blobs: map[string]map[digest.Digest]int64{}}
	h.Registry, _ = objects.ParseDestination(r.Registry) // checked when it was read
	for _, repo := range r.Repositories {
		blobs := make(map[digest.Digest]int64, len(repo.Blobs))
		for _, b := range repo.Blobs {
			blobs[b.Digest] = b.Size
		}
		h.Blobs[repo.Repository] = blobs
	}
	return h
}

// signedLine is the second line of a receipt.
type signedLine struct {
	Signature string `json:"signature"`
}

// Encode returns the receipt as a file: a line, and with a key a second one that signs it.
func (r *Receipt) Encode(key *Key) ([]byte, error) {
	doc := *r
	doc.Bundles, doc.Releases, doc.Repositories = orEmpty(r.Bundles), orEmpty(r.Releases), slices.Clone(orEmpty(r.Repositories))
	for i := range doc.Repositories {
		h := &doc.Repositories[i]
		h.Manifests, h.Blobs = orEmpty(h.Manifests), orEmpty(h.Blobs)
	}
	if err := doc.check(); err != nil {
		return nil, err
	}
	line, err := json.Marshal(&doc)
	if err != nil {
		return nil, err
	}
	line = append(line, '\n')
	if key == nil {
		return line, nil
	}
	signature, err := key.Sign(NamespaceReceipt, line)
	if err != nil {
		return nil, err
	}
	second, err := json.Marshal(signedLine{string(signature)})
	if err != nil {
		return nil, err
	}
	return append(append(line, second...), '\n'), nil
}

// ParseReceipt reads a receipt or an inventory, which comes from the other side and is hostile:
// every number in it is bounded. signer says whose key signed it, nil that none did; whether
// anybody trusts that key is the caller's question. Errors are [bundle.ErrVersion] for a newer
// format, [ErrSignature], or wrap [content.ErrInvalid].
func ParseReceipt(raw []byte) (r *Receipt, signer *Signer, err error) {
	if len(raw) > MaxReceipt {
		return nil, nil, invalidReceipt("%d bytes", len(raw))
	}
	end := bytes.IndexByte(raw, '\n') + 1
	if end == 0 {
		return nil, nil, invalidReceipt("its first line ends early")
	}
	line, rest := raw[:end], raw[end:]
	if len(rest) > 0 {
		// The signature first: what it is not of need not be understood.
		var second signedLine
		if err := decodeOne(rest, &second); err != nil {
			return nil, nil, invalidReceipt("what stands behind the first line is no signature: %w", err)
		}
		if signer, err = VerifySignature(NamespaceReceipt, line, []byte(second.Signature)); err != nil {
			return nil, nil, fmt.Errorf("receipt: it was changed after it was signed, or its signature was: %w", err)
		}
	}
	var version struct{ Format int }
	if err := json.Unmarshal(line, &version); err != nil {
		return nil, nil, invalidReceipt("%w", err)
	}
	if version.Format > 1 {
		return nil, nil, fmt.Errorf("the receipt is of format %d, this program knows 1: %w", version.Format, bundle.ErrVersion)
	}
	r = &Receipt{}
	if err := decodeOne(line, r); err != nil {
		return nil, nil, invalidReceipt("%w", err)
	}
	if err := r.check(); err != nil {
		return nil, nil, err
	}
	return r, signer, nil
}

func invalidReceipt(format string, args ...any) error {
	return fmt.Errorf("receipt: %w: %w", content.ErrInvalid, fmt.Errorf(format, args...))
}

// decodeOne reads one JSON value that nothing follows.
func decodeOne(raw []byte, to any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(to); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows it")
	}
	return nil
}

// check refuses what cannot stand in a receipt.
func (r *Receipt) check() error {
	switch {
	case r.Kind != KindReceipt && r.Kind != KindInventory:
		return invalidReceipt("it is no receipt and no inventory, but of the kind %.80q", r.Kind)
	case r.Format != 1:
		return invalidReceipt("format %d", r.Format)
	case len(r.Bundles) > maxReceiptBundles || len(r.Releases) > maxReceiptReleases || len(r.Repositories) > maxReceiptRepositories:
		return invalidReceipt("%d drives, %d releases and %d repositories", len(r.Bundles), len(r.Releases), len(r.Repositories))
	}
	if _, err := objects.ParseDestination(r.Registry); err != nil {
		return invalidReceipt("registry: %w", err)
	}
	texts := []string{r.Program, r.Commit, r.Platform}
	if r.Cluster != nil {
		texts = append(texts, r.Cluster.Version)
	}
	for _, b := range r.Bundles {
		texts = append(texts, b.Bundle, string(b.Custody))
	}
	for _, rel := range r.Releases {
		texts = append(texts, rel.Release, rel.Signature)
		if err := content.CheckDigest(rel.Digest); err != nil {
			return invalidReceipt("release %.80q: %w", rel.Release, err)
		}
	}
	for _, t := range texts {
		if len(t) > maxReceiptText || strings.ContainsFunc(t, func(c rune) bool { return c < ' ' || c > '~' }) {
			return invalidReceipt("text %.80q", t)
		}
	}
	return r.checkHeld()
}

func (r *Receipt) checkHeld() error {
	total := 0
	seen := map[string]bool{}
	for _, h := range r.Repositories {
		if _, err := objects.ParseDestination(h.Repository); err != nil || seen[h.Repository] {
			return invalidReceipt("repository %.80q is none, or stands twice", h.Repository)
		}
		seen[h.Repository] = true
		for _, list := range [][]bundle.Sized{h.Manifests, h.Blobs} {
			if total += len(list); total > maxReceiptBlobs {
				return invalidReceipt("more than %d blobs and manifests", maxReceiptBlobs)
			}
			if err := bundle.CheckSized(list); err != nil {
				return invalidReceipt("%s: %w", h.Repository, err)
			}
		}
	}
	return nil
}
