package verify

import (
	"context"
	"fmt"
	"strings"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/remote"
	"pannier/store"
)

// releases judges the signature of every release, and lists them.
func (a *audit) releases(ctx context.Context) error {
	tags, err := a.b.Contents.Select(a.opts.Releases)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		rel, _ := a.b.Contents.Release(tag)
		a.payload(ctx, tag)
		verdict, err := Signature(ctx, a.b.Contents, a.blobSource(), tag, a.opts.Signatures, a.opts.Client, a.opts.Stores)
		if err != nil {
			return err
		}
		a.report.Releases = append(a.report.Releases, Release{
			Version: rel.Version, Arch: rel.Arch, Digest: rel.Descriptor.Digest.String(),
			Images: a.b.Contents.Components(tag), Signature: verdict.Status,
			Key: verdict.Key, Fingerprint: verdict.Fingerprint, KeySource: verdict.KeySource,
		})
		for _, n := range verdict.Notes {
			a.note("release %s: %s", tag, n)
		}
		if verdict.Status == bundle.SignatureVerified {
			continue
		}
		detail := describe(verdict)
		if a.opts.Policy == bundle.PolicyWarn {
			a.note("release %s: %s", tag, detail)
			continue
		}
		a.find(Finding{Kind: KindUntrusted, Digest: rel.Descriptor.Digest.String(), Path: a.blobPath(rel.Descriptor.Digest),
			Images: []string{tag}, Detail: detail})
	}
	a.additional()
	return nil
}

// payload reports what a sealed drive says otherwise than the release image itself. A release
// image that cannot be read is reported where its blobs are.
func (a *audit) payload(ctx context.Context, tag string) {
	if a.b.Seal == nil {
		return
	}
	wrong := a.b.Contents.CheckPayload(ctx, a.l, tag)
	if ctx.Err() != nil || bundle.Unread(wrong) && len(a.report.Findings) > 0 {
		return
	}
	for _, err := range wrong {
		a.find(Finding{Kind: KindCorrupt, Path: "index.json", Images: []string{tag}, Detail: err.Error()})
	}
}

// additional notes the images that no release names: nobody vouches for them.
func (a *audit) additional() {
	for _, img := range a.b.Contents.Images {
		if img.Kind == store.KindAdditional || a.b.Seal != nil {
			if err := a.b.Contents.CheckImage(img); err != nil {
				a.find(Finding{Kind: KindCorrupt, Path: "index.json", Digest: img.Descriptor.Digest.String(), Images: []string{img.Tag}, Detail: err.Error()})
				continue
			}
		}
		switch img.Kind {
		case store.KindAdditional:
			a.report.Additional++
			a.note("additional image %s (%s): no signature is checked for it", img.Tag, img.Descriptor.Digest)
		case store.KindPresumes:
			a.report.Presumes = presumption(a.b.Contents)
			a.note("%s", a.report.Presumes)
		case store.KindSupplement:
			a.note("this is a supplement, of pieces that another drive has lost: each is taken by its digest, and no signature is checked here")
		}
	}
}

// Signature judges the signature of a release afresh; c is what holds it, f reads that. What
// a drive recorded when it was packed proves nothing. Where c carries no signature, the stores are asked, if
// a client is given. It returns an error only if ctx ended; what could not be read on the
// drive is a problem in the verdict.
func Signature(ctx context.Context, c *bundle.Contents, f content.Fetcher, tag string, v bundle.SignatureVerifier, client *remote.Client, stores []string) (bundle.SignatureVerdict, error) {
	signed, err := c.Signed(ctx, f, tag)
	if ctx.Err() != nil {
		return bundle.SignatureVerdict{}, ctx.Err()
	}
	broken := err
	if len(signed.Messages) == 0 && client != nil {
		for _, st := range stores {
			if answer, err := client.Signatures(ctx, st, signed.Digest); err == nil {
				signed.Messages = append(signed.Messages, answer.Messages...)
			}
		}
	}
	verdict := bundle.SignatureVerdict{Status: bundle.SignatureMissing, Accepted: signed.Messages}
	if len(signed.Messages) > 0 {
		verdict.Status = bundle.SignatureUnverified
	}
	if v != nil {
		if verdict, err = v.VerifyRelease(ctx, signed); err != nil {
			return verdict, err
		}
	}
	if broken != nil {
		verdict.Problems = append(verdict.Problems, broken.Error())
		if verdict.Status == bundle.SignatureVerified {
			verdict.Notes = append(verdict.Notes, "not everything that signs it could be read: "+broken.Error())
		}
	}
	return verdict, nil
}

func describe(v bundle.SignatureVerdict) string {
	what := map[string]string{
		bundle.SignatureMissing:    "it carries no signature",
		bundle.SignatureUnverified: "no trusted key vouches for it",
	}[v.Status]
	if len(v.Problems) > 0 {
		what += ": " + strings.Join(v.Problems, "; ")
	}
	return fmt.Sprintf("the release is not trusted: %s", what)
}
