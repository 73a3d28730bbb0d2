package preflight

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/content"
)

// releasePlan makes the plan as pack would.
func releasePlan(ctx context.Context, n *near) Check {
	p, err := n.plan(ctx)
	switch {
	case p == nil && err == nil:
		return skip("no release was named")
	case err != nil:
		if name := n.stopper(ctx, err); name != "" {
			return skipAfter(name)
		}
		return fail(err, remedyFor(err), "%v", err)
	}
	b := p.Plan.Bytes
	return pass("%s of %s and %s; %s are there, %s are to be fetched", counted(int(p.Plan.Blobs.Total), "blob", "blobs"), content.SizeText(b.Total),
		counted(p.Plan.Manifests, "manifest", "manifests"), content.SizeText(b.Present), content.SizeText(b.Transfer))
}

// stopper names the check that says why there is no plan; "" if none does.
func (n *near) stopper(ctx context.Context, err error) string {
	for _, r := range n.releases {
		if _, rerr := r.read(ctx, n.opts.Client); rerr != nil {
			return "source-access"
		}
	}
	switch {
	case !errors.Is(err, bundle.ErrNotBundle) && !errors.Is(err, bundle.ErrVersion) && !errors.Is(err, bundle.ErrDamaged):
		return ""
	case driveMounted(ctx, n).Status == Fail:
		return "drive-mounted"
	}
	return "drive-bundle"
}

// releaseSignature tells what pack would think of the signatures.
func releaseSignature(ctx context.Context, n *near) Check {
	if n.opts.Signatures == nil {
		return skip("no keys are at hand to judge signatures by")
	}
	p, err := n.plan(ctx)
	switch {
	case err != nil:
		return skipAfter(cmp.Or(n.stopper(ctx, err), "release-plan"))
	case p == nil:
		return skip("no release was named")
	}
	var checks []Check
	for _, r := range p.Releases {
		if !r.Kept {
			checks = append(checks, signatureCheck(r.Tag, r.Signature, n.opts.Policy))
		}
	}
	if len(checks) == 0 {
		return pass("what was asked for is on the drive, sealed")
	}
	return worst(checks...)
}

// signatureCheck judges a verdict by the policy.
func signatureCheck(tag string, v bundle.SignatureVerdict, policy bundle.Policy) Check {
	switch v.Status {
	case bundle.SignatureVerified:
		return pass("%s: signed by %s", tag, v.Key)
	case "":
		return skip("%s: is on the drive, sealed", tag)
	}
	err := fmt.Errorf("%s: %w: %s", tag, bundle.ErrSignature, v.Status)
	if len(v.Problems) > 0 {
		err = fmt.Errorf("%w: %s", err, listed(v.Problems))
	}
	bad := warn
	if policy == bundle.PolicyRequire {
		bad = fail
	}
	return bad(err, "give the key of a release of your own with --keyring FILE on both sides (trust never travels on the drive), a missing signature with --signature-store; otherwise find out where this image comes from", "%v", err)
}

// largest finds the largest blob of the releases and images, by their manifests.
func (n *near) largest(ctx context.Context) (ocispec.Descriptor, error) {
	var most ocispec.Descriptor
	for _, r := range n.releases {
		p, err := r.read(ctx, n.opts.Client)
		if err != nil {
			return most, err
		}
		if err := n.widest(ctx, r.ref.Repository, p.Descriptor.Digest.String(), 1, &most); err != nil {
			return most, err
		}
		for _, i := range p.Images {
			if err := n.widest(ctx, i.Repository, i.Digest.String(), 1, &most); err != nil {
				return most, err
			}
		}
	}
	for _, ref := range n.opts.Additional {
		if err := n.widest(ctx, ref.Repository, wanted(ref), 1, &most); err != nil {
			return most, err
		}
	}
	return most, nil
}

// widest raises most to the largest blob below the manifest ref, of a list with those of its
// children; deeper nesting, which no release has, is not followed.
func (n *near) widest(ctx context.Context, name, ref string, depth int, most *ocispec.Descriptor) error {
	repo, err := n.opts.Client.Repository(name)
	if err != nil {
		return err
	}
	desc, raw, err := repo.Manifest(ctx, ref)
	if err != nil {
		return err
	}
	m, err := content.ParseManifest(desc.MediaType, raw)
	if err != nil {
		return err
	}
	for _, child := range m.Children() {
		if content.IsManifest(child.MediaType) {
			if depth == 0 {
				continue
			}
			if err := n.widest(ctx, name, child.Digest.String(), depth-1, most); err != nil {
				return err
			}
		} else if child.Size > most.Size {
			*most = child
		}
	}
	return nil
}
