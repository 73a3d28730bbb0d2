package verify

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/store"
)

// InspectOptions says what [Inspect] looks at. Media must be set.
type InspectOptions struct {
	Media      string
	Signatures bundle.SignatureVerifier
	Cache      string
	Logger     *slog.Logger
}

// InspectedImage is one component of an [InspectedRelease].
type InspectedImage struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Source string `json:"source"`
	Bytes  int64  `json:"bytes"`
}

// Digests are the release's digest by each origin that is at hand; an origin that is not is
// left out. They must agree.
type Digests struct {
	Payload    string `json:"payload"`
	Signature  string `json:"signature,omitempty"`
	ReleaseTxt string `json:"releaseTxt,omitempty"`
}

// InspectedRelease is one release on the drive.
type InspectedRelease struct {
	Version    string           `json:"version"`
	Arch       string           `json:"arch"`
	Digest     string           `json:"digest"`
	Source     string           `json:"source"`
	Created    time.Time        `json:"created"`
	Images     []InspectedImage `json:"images"`
	Signatures int              `json:"signatures"`
	Signature  string           `json:"signature"`
	Key        string           `json:"key,omitempty"`
	Digests    Digests          `json:"digests"`
	Sealed     bool             `json:"sealed"`
	Bytes      int64            `json:"bytes"`
	Clients    []string         `json:"clients,omitempty"` // platforms that it has clients for on the drive
	Updates    []objects.Update `json:"updates,omitempty"` // to this release, of paths that were packed
}

// AdditionalImage is an image on the drive that is no part of a release.
type AdditionalImage struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
}

// Inspection is what is on a drive, as it says itself; nothing is hashed but the small files.
type Inspection struct {
	Releases         []InspectedRelease `json:"releases"`
	AdditionalImages []AdditionalImage  `json:"additionalImages"`
	Blobs            Blobs              `json:"blobs"`
	Sealed           bool               `json:"sealed"`
	BundleID         string             `json:"bundleID,omitempty"`
	SealedAt         time.Time          `json:"sealedAt,omitzero"`
	Program          string             `json:"program,omitempty"` // that sealed it
	Notes            []string           `json:"notes,omitempty"`

	Directory bool `json:"-"` // oc adm release mirror wrote it
	Lacking   bool `json:"-"` // of such a folder: something is missing, or contradicts itself
}

// Inspect says what is on a drive. Its errors are those of [Audit], and [bundle.ErrDamaged]
// if neither the index nor the layout can be read. With a seal that is not valid, and no
// other, there is an Inspection and an error that wraps [bundle.ErrDamaged].
func Inspect(ctx context.Context, opts InspectOptions) (*Inspection, error) {
	if bundle.IsDirectory(opts.Media) {
		return inspectDirectory(ctx, opts)
	}
	b, err := bundle.Open(ctx, opts.Media, bundle.OpenOptions{Cache: opts.Cache, Logger: opts.Logger})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	out := &Inspection{Releases: []InspectedRelease{}, AdditionalImages: []AdditionalImage{}, Sealed: b.Seal != nil && !b.Interrupted}
	if b.Seal != nil {
		out.BundleID = b.Seal.Bundle.String()
		out.SealedAt, out.Program = b.Seal.Sealed, b.Seal.Program
	}
	if b.IndexProblem != nil {
		out.Notes = append(out.Notes, "the index cannot be used, this was read from the layout: "+b.IndexProblem.Error())
	}
	if b.Interrupted {
		out.Notes = append(out.Notes, "a later pack onto this drive did not finish; this is what was sealed before")
	}
	for _, p := range b.SealProblems {
		out.Notes = append(out.Notes, p.Path+": "+p.Err.Error())
	}
	for _, rel := range b.Contents.Releases {
		r, err := inspectRelease(ctx, b.Contents, b.Layout, rel, opts.Signatures)
		if err != nil {
			return nil, b.Layout.Diagnose(err)
		}
		r.Sealed, r.Clients = b.Seal != nil, b.Clients(rel.Tag)
		out.Releases = append(out.Releases, r)
	}
	for _, img := range b.Contents.Images {
		if img.Kind == store.KindAdditional {
			out.AdditionalImages = append(out.AdditionalImages, AdditionalImage{Reference: img.Tag, Digest: img.Descriptor.Digest.String()})
		}
	}
	if err := countBlobs(b, &out.Blobs); err != nil {
		return nil, b.Layout.Diagnose(err)
	}
	if b.Seal == nil && len(b.SealProblems) > 0 {
		if err := b.Layout.Gone(); err != nil {
			return nil, err
		}
		p := b.SealProblems[0]
		return out, fmt.Errorf("%s: %s: %w: %w", opts.Media, p.Path, bundle.ErrDamaged, p.Err)
	}
	return out, nil
}

func inspectRelease(ctx context.Context, c *bundle.Contents, blobs bundle.Blobs, rel store.Release, v bundle.SignatureVerifier) (InspectedRelease, error) {
	r := InspectedRelease{
		Version: rel.Version, Arch: rel.Arch, Digest: rel.Descriptor.Digest.String(), Source: rel.Source,
		Created: rel.Created, Images: []InspectedImage{}, Digests: Digests{Payload: rel.Descriptor.Digest.String()},
	}
	tags := map[string]bool{}
	for _, img := range c.Images {
		if img.Release != rel.Tag {
			continue
		}
		tags[img.Tag] = true
		if img.Kind == store.KindComponent {
			source, _, _ := strings.Cut(img.Reference, "@")
			r.Images = append(r.Images, InspectedImage{Name: img.Name, Digest: img.Descriptor.Digest.String(), Source: source, Bytes: img.Bytes})
		}
	}
	for _, rec := range c.Records {
		if slices.ContainsFunc(rec.Images, func(t string) bool { return tags[t] }) {
			r.Bytes += rec.Size
		}
	}
	verdict, err := Signature(ctx, c, blobs, rel.Tag, v, nil, nil)
	if err != nil {
		return r, err
	}
	r.Signature, r.Key, r.Signatures = verdict.Status, verdict.Key, len(verdict.Accepted)
	if len(verdict.Accepted) > 0 {
		// The verdict accepts only messages that name exactly this digest.
		r.Digests.Signature = rel.Descriptor.Digest.String()
	}
	if r.Updates, err = c.Updates(rel.Tag); err != nil {
		return r, err
	}
	text, err := c.TextDigest(ctx, blobs, rel.Tag)
	r.Digests.ReleaseTxt = text.String()
	return r, err
}

func countBlobs(b *bundle.Bundle, n *Blobs) error {
	files, err := b.Layout.Blobs()
	if err != nil {
		return err
	}
	for _, f := range files {
		n.Count++
		n.Bytes += f.Size
	}
	partials, err := b.Layout.Partials()
	n.Partial = len(partials)
	return err
}
