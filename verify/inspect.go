package verify

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/store"
	"pannier/verify/custody"
)

// InspectOptions says what [Inspect] looks at. Media must be set.
type InspectOptions struct {
	Media      string
	Signatures bundle.SignatureVerifier
	Signers    *custody.Signers // whose signatures of the custody log are trusted; may be nil
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

	Fingerprint string `json:"fingerprint,omitempty"` // of that key
	KeySource   string `json:"keySource,omitempty"`   // the file or manifest that it was read from

	Digests Digests          `json:"digests"`
	Sealed  bool             `json:"sealed"`
	Bytes   int64            `json:"bytes"`
	Clients []string         `json:"clients,omitempty"` // platforms that it has clients for on the drive
	Updates []objects.Update `json:"updates,omitempty"` // to this release, of paths that were packed

	problems []string // captured documents that cannot be read, and why
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
	Generation       uint64             `json:"generation,omitempty"` // of the seal
	Instance         string             `json:"instance,omitempty"`   // random name of the drive's bundle
	SealedAt         time.Time          `json:"sealedAt,omitzero"`
	Program          string             `json:"program,omitempty"` // that sealed it
	Notes            []string           `json:"notes,omitempty"`
	Presumes         *Presumption       `json:"presumes,omitempty"`   // what it does not hold, since a registry does
	Supplement       bool               `json:"supplement,omitempty"` // it holds what another drive has lost, and nothing else
	Custody          *custody.State     `json:"custody,omitempty"`    // what the custody log tells

	// Tools are the programs on the drive, as its seal covers them.
	Tools []bundle.InstalledTool `json:"tools,omitempty"`

	Contents []InspectedBlob `json:"-"` // the largest first

	SealLost  bool `json:"-"` // the seal is lost, and what it covered is known
	Directory bool `json:"-"` // oc adm release mirror wrote it
	Lacking   bool `json:"-"` // of such a folder: something is missing, or contradicts itself
}

// InspectedBlob is one blob or manifest that belongs on the drive.
type InspectedBlob struct {
	Digest   string
	Size     int64
	Complete bool     // as the index says
	Sealed   uint64   // generation of the seal that first covered it
	Owner    string   // the component that alone needs it, or what else it is
	Releases []string // tags of the releases that need it
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
	out.SealLost = b.Seal == nil && b.Resealable()
	if b.Seal != nil {
		out.BundleID, out.Generation, out.Instance = b.Seal.Bundle.String(), b.Seal.Generation, b.Seal.Instance
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
		out.add(r)
	}
	for _, img := range b.Contents.Images {
		if img.Kind == store.KindAdditional {
			out.AdditionalImages = append(out.AdditionalImages, AdditionalImage{Reference: img.Tag, Digest: img.Descriptor.Digest.String()})
		}
	}
	out.Presumes, out.Supplement = presumption(b.Contents), b.Contents.Supplement()
	out.Contents, out.Tools = contentsOf(b.Contents), b.Tools()
	out.Custody = custody.Look(b.Layout, opts.Signers, time.Now())
	if b.Seal != nil && out.Custody.Lines == 0 && len(out.Custody.Problems) == 0 {
		out.Custody.Problems = []string{noLog}
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
	r.Fingerprint, r.KeySource = verdict.Fingerprint, verdict.KeySource
	if len(verdict.Accepted) > 0 {
		// The verdict accepts only messages that name exactly this digest.
		r.Digests.Signature = rel.Descriptor.Digest.String()
	}
	if r.Updates, err = c.Updates(rel.Tag); err != nil {
		r.problems = append(r.problems, err.Error())
	}
	text, err := c.TextDigest(ctx, blobs, rel.Tag)
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	if err != nil {
		r.problems = append(r.problems, err.Error())
	}
	r.Digests.ReleaseTxt = text.String()
	return r, nil
}

// add adds a release, and notes what is wrong with it.
func (i *Inspection) add(r InspectedRelease) {
	i.Releases = append(i.Releases, r)
	i.Notes = append(i.Notes, r.problems...)
}

// contentsOf lists the blobs that belong to a bundle, and to whom in it.
func contentsOf(c *bundle.Contents) []InspectedBlob {
	images := map[string]store.Image{}
	for _, img := range c.Images {
		images[img.Tag] = img
	}
	out := make([]InspectedBlob, 0, len(c.Records))
	for _, rec := range c.Records {
		blob := InspectedBlob{Digest: rec.Digest.String(), Size: rec.Size, Complete: rec.State == store.StateComplete, Sealed: rec.Sealed}
		for i, tag := range rec.Images {
			img := images[tag]
			owner := img.Name
			if img.Kind != store.KindComponent {
				owner = map[string]string{
					store.KindRelease: "release image", store.KindAdditional: "additional images",
					store.KindSignature: "signatures", store.KindDocuments: "documents",
					store.KindPresumes: "list of presumed blobs", store.KindSupplement: "supplement",
				}[img.Kind]
			}
			if i > 0 && owner != blob.Owner {
				owner = "shared by several"
			}
			blob.Owner = owner
			if img.Release != "" && !slices.Contains(blob.Releases, img.Release) {
				blob.Releases = append(blob.Releases, img.Release)
			}
		}
		if blob.Owner == "" {
			blob.Owner = "other"
		}
		out = append(out, blob)
	}
	slices.SortFunc(out, func(x, y InspectedBlob) int {
		if c := cmp.Compare(y.Size, x.Size); c != 0 {
			return c
		}
		return strings.Compare(x.Digest, y.Digest)
	})
	return out
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
