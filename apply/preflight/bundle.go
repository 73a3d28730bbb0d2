package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/store"
	"pannier/verify"
)

// drive is what is unpacked, opened: a bundle, or a folder that oc adm release mirror wrote.
type drive struct {
	*bundle.Bundle // of a folder that oc wrote only Contents are there
	blobs          bundle.Blobs
	folder         *bundle.Directory // nil of a bundle
}

// Close lets go of the drive.
func (d *drive) Close() error {
	if d.folder != nil {
		return d.folder.Close()
	}
	return d.Bundle.Close()
}

// bundle opens the drive.
func (f *far) bundle(ctx context.Context) (*drive, error) {
	return f.opened.get(func() (*drive, error) {
		if bundle.IsDirectory(f.opts.Media) {
			d, err := bundle.OpenDirectory(ctx, f.opts.Media)
			if err != nil {
				return nil, err
			}
			return &drive{Bundle: &bundle.Bundle{Contents: d.Contents}, blobs: d.Tree, folder: d}, nil
		}
		b, err := bundle.Open(ctx, f.opts.Media, bundle.OpenOptions{Cache: f.opts.Cache, Logger: f.opts.Logger})
		if err != nil {
			return nil, err
		}
		return &drive{Bundle: b, blobs: b.Layout}, nil
	})
}

// selected are the releases that unpack would push.
func (f *far) selected(ctx context.Context) ([]store.Release, error) {
	return f.released.get(func() ([]store.Release, error) {
		b, err := f.bundle(ctx)
		if err != nil {
			return nil, err
		}
		tags, err := b.Contents.Select(f.opts.Releases)
		if err != nil {
			return nil, err
		}
		var out []store.Release
		for _, r := range b.Contents.Releases {
			if slices.Contains(tags, r.Tag) {
				out = append(out, r)
			}
		}
		return out, nil
	})
}

func bundleReadable(ctx context.Context, f *far) Check {
	if f.opts.Media == "" {
		return skip("no MEDIA was named")
	}
	b, err := f.bundle(ctx)
	if err != nil {
		return fail(err, driveRemedy(err), "%v", err)
	}
	if b.folder != nil {
		return pass("oc adm release mirror wrote %s, with %s", f.opts.Media, counted(len(b.Contents.Images), "image", "images"))
	}
	if b.IndexProblem != nil && b.Index != nil {
		return warn(b.IndexProblem, "unpack works from the layout instead; run pannier audit to see whether the drive is damaged", "%s: the index cannot be used: %v", f.opts.Media, b.IndexProblem)
	}
	return pass("%s holds a bundle with %s", f.opts.Media, counted(len(b.Contents.Images), "image", "images"))
}

func bundleSealed(ctx context.Context, f *far) Check {
	if f.opts.Media == "" {
		return skip("no MEDIA was named")
	}
	b, err := f.bundle(ctx)
	if err != nil {
		return skipAfter("bundle-readable")
	}
	const audit = "run pannier audit to see how far the damage goes; what the older seal covers can be unpacked"
	switch {
	case b.folder != nil && len(b.folder.Problems) > 0:
		p := b.folder.Problems[0]
		return fail(p.Err, driveRemedy(p.Err), "%s: %v", p.Path, p.Err)
	case b.folder != nil:
		return pass("oc seals nothing; audit and unpack compare what is there with the release images")
	case b.Seal == nil && len(b.SealProblems) > 0:
		p := b.SealProblems[0]
		err := fmt.Errorf("%s: %w: %w", p.Path, bundle.ErrDamaged, p.Err)
		return fail(err, driveRemedy(err), "no seal is valid: %v", err)
	case b.Seal == nil:
		err := fmt.Errorf("%s: %w", f.opts.Media, bundle.ErrUnsealed)
		return fail(err, driveRemedy(err), "%v: pack did not finish", err)
	case len(b.SealProblems) > 0:
		p := b.SealProblems[0]
		return warn(p.Err, audit, "sealed %s; a newer seal is not valid: %s: %v", b.Seal.Sealed.Format("2006-01-02"), p.Path, p.Err)
	case b.Interrupted:
		return warn(nil, "unpack takes what is sealed and ends with exit code 3; for the rest, run the same pack command again where there is internet", "sealed %s; a later pack did not finish", b.Seal.Sealed.Format("2006-01-02"))
	}
	return pass("sealed %s, bundle %s", b.Seal.Sealed.Format("2006-01-02"), b.Seal.Bundle)
}

func bundleReleases(ctx context.Context, f *far) Check {
	if f.opts.Media == "" {
		return skip("no MEDIA was named")
	}
	if _, err := f.bundle(ctx); err != nil {
		return skipAfter("bundle-readable")
	}
	releases, err := f.selected(ctx)
	if err != nil {
		return fail(err, driveRemedy(err), "%v", err)
	}
	var texts []string
	for _, r := range releases {
		texts = append(texts, r.Tag+" ("+r.Descriptor.Digest.String()+")")
	}
	if len(texts) == 0 {
		return warn(nil, "if a release was meant to be here, pack it; a drive of additional images alone needs nothing", "no release is on the drive")
	}
	return pass("%s", strings.Join(texts, ", "))
}

// bundleBlobs compares the size of every blob with the records. That takes seconds; what is
// in them, unpack hashes while it pushes.
func bundleBlobs(ctx context.Context, f *far) Check {
	if f.opts.Media == "" {
		return skip("no MEDIA was named")
	}
	b, err := f.bundle(ctx)
	if err != nil {
		return skipAfter("bundle-readable")
	}
	var bad []string
	var bytes int64
	total := 0
	for d, r := range b.Contents.Records {
		if r.State != store.StateComplete {
			continue
		}
		total++
		bytes += r.Size
		if size, err := b.blobs.Stat(d); err != nil {
			bad = append(bad, err.Error())
		} else if size != r.Size {
			bad = append(bad, fmt.Sprintf("%s has %d bytes of %d", d, size, r.Size))
		}
	}
	for _, m := range b.Contents.Broken() {
		bad = append(bad, fmt.Sprintf("manifest %s: %v", m.Descriptor.Digest, m.Err))
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		meaning := bundle.ErrDamaged
		if b.folder != nil {
			meaning = bundle.ErrIncomplete
		}
		err := fmt.Errorf("%s: %w: %s", counted(len(bad), "blob is", "blobs are")+" not as recorded", meaning, listed(bad))
		return fail(err, driveRemedy(err), "%v", err)
	}
	return pass("%s of %s are there with their sizes; what is in them is hashed by audit and unpack", counted(total, "blob", "blobs"), content.SizeText(bytes))
}

func bundleSignatures(ctx context.Context, f *far) Check {
	if f.opts.Media == "" {
		return skip("no MEDIA was named")
	}
	releases, err := f.selected(ctx)
	switch {
	case err != nil:
		return skipAfter("bundle-releases")
	case f.opts.Signatures == nil:
		return skip("no keys are at hand to judge signatures by")
	case len(releases) == 0:
		return skip("no release is on the drive")
	}
	b, err := f.bundle(ctx)
	if err != nil {
		return skipAfter("bundle-readable")
	}
	var checks []Check
	for _, r := range releases {
		verdict, err := verify.Signature(ctx, b.Contents, b.blobs, r.Tag, f.opts.Signatures, nil, nil)
		if err != nil {
			checks = append(checks, fail(err, driveRemedy(err), "%s: %v", r.Tag, err))
			continue
		}
		checks = append(checks, signatureCheck(r.Tag, verdict, f.opts.Policy))
	}
	return worst(checks...)
}

// additional are the repositories that the drive's additional images go to.
func (f *far) additional(ctx context.Context) ([]string, error) {
	b, err := f.bundle(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, img := range b.Contents.Images {
		if img.Kind != store.KindAdditional {
			continue
		}
		ref, err := release.ParseImageReference(img.Tag)
		if err != nil {
			return nil, err
		}
		out = append(out, f.opts.Destination.Additional(f.opts.Prefix, ref.Repository))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// carries reports whether the drive has images whose manifests match; without a drive, or
// one that cannot be read, it may.
func (f *far) carries(ctx context.Context, mediaTypes ...string) bool {
	if f.opts.Media == "" {
		return true
	}
	b, err := f.bundle(ctx)
	if err != nil {
		return true
	}
	for _, r := range b.Contents.Records {
		if !slices.Contains(mediaTypes, r.MediaType) || !content.IsManifest(r.MediaType) {
			continue
		}
		for _, img := range b.Contents.Images {
			// Documents stay on the drive.
			if img.Kind != store.KindDocuments && slices.Contains(r.Images, img.Tag) {
				return true
			}
		}
	}
	return false
}
