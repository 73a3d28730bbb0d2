package bundle

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/remote"
)

// checkSignatures gathers the signatures of a release and has them judged, before anything
// of a component is fetched. It returns the sigstore images that were found.
func (p *packer) checkSignatures(ctx context.Context, repo *remote.Repository, pr *plannedRelease) ([]*sigstoreFound, error) {
	s := SignedRelease{
		Digest: pr.record.Descriptor.Digest, Version: pr.record.Version, Arch: pr.record.Arch, Source: pr.record.Source,
		Children: map[digest.Digest][][]byte{},
		Keys:     pr.payload.Keys, Policies: pr.payload.ImagePolicies, Images: pr.payload.Images,
	}
	var err error
	var silent error
	if s.Messages, silent, err = p.messages(ctx, s.Digest, &pr.asked); err != nil {
		return nil, err
	}
	if silent != nil && p.opts.Policy == PolicyRequire {
		return nil, fmt.Errorf("%w: %w", ErrNoStore, silent)
	}
	for _, child := range pr.payload.Children {
		if s.Children[child.Digest], _, err = p.messages(ctx, child.Digest, nil); err != nil {
			return nil, err
		}
	}
	found, err := p.findSigstore(ctx, repo, pr)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		s.Sigstore = append(s.Sigstore, f.image)
	}
	return found, p.judge(ctx, pr, s)
}

// judge has the signatures of a release judged, and takes those that are some.
func (p *packer) judge(ctx context.Context, pr *plannedRelease, s SignedRelease) error {
	pr.verdict = SignatureVerdict{Status: SignatureUnverified, Accepted: s.Messages, Children: s.Children}
	if len(s.Messages) == 0 {
		pr.verdict.Status = SignatureMissing
	}
	if p.opts.Signatures != nil {
		var err error
		if pr.verdict, err = p.opts.Signatures.VerifyRelease(ctx, s); err != nil {
			return err
		}
	}
	pr.record.Signature = pr.verdict.Status
	if pr.verdict.Status != SignatureVerified {
		serr := &SignatureError{Tag: pr.record.Tag, Digest: s.Digest.String(), Verdict: pr.verdict, Asked: pr.asked}
		if p.opts.Policy == PolicyRequire {
			return serr
		}
		p.warn("%v", serr)
	}
	pr.docs = signatureDocuments(pr.verdict.Accepted, pr.verdict.Children)
	return nil
}

// messages asks every store for the signatures of d. If none could be asked at all, silent
// says why; a store that has no signature is no error.
func (p *packer) messages(ctx context.Context, d digest.Digest, asked *[]string) (out [][]byte, silent, err error) {
	failed := 0
	for _, st := range p.opts.Stores {
		a, err := p.opts.Client.Signatures(ctx, st, d)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if err == nil {
			err = a.Err
		}
		store, status := a.Store, a.Status // without user and password
		if err != nil {
			failed++
			silent = err
		}
		p.log.Info("signature store", "store", store, "digest", d, "answer", status)
		if asked != nil {
			*asked = append(*asked, fmt.Sprintf("%s (%s)", store, status))
		}
		for _, m := range a.Messages {
			if !slices.ContainsFunc(out, func(o []byte) bool { return bytes.Equal(o, m) }) {
				out = append(out, m)
			}
		}
	}
	if failed < len(p.opts.Stores) || len(out) > 0 {
		silent = nil
	}
	return out, silent, nil
}
