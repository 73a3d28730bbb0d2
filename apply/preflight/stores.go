package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle"
)

// signatureStores sees whether the stores answer, and hold a signature of each release.
func signatureStores(ctx context.Context, n *near) Check {
	var checks []Check
	for _, r := range n.releases {
		d := r.ref.Digest
		if p, err := r.read(ctx, n.opts.Client); err == nil {
			d = p.Descriptor.Digest
		}
		if d == "" {
			checks = append(checks, Check{Status: Skip, Detail: r.ref.String() + ": its digest is not known: see source-access"})
			continue
		}
		checks = append(checks, n.storesHave(ctx, r.ref.String(), d))
	}
	if !slices.ContainsFunc(checks, func(c Check) bool { return c.Status != Skip }) {
		checks = append(checks, n.storesAnswer(ctx))
	}
	return worst(checks...)
}

// ask asks every store.
func (n *near) ask(ctx context.Context, d digest.Digest) (texts []string, found int, errs []error) {
	for _, store := range n.opts.Stores {
		a, err := n.opts.Client.Signatures(ctx, store, d)
		if err == nil {
			err = a.Err
		}
		found += len(a.Messages)
		text := a.Status
		if err != nil {
			errs = append(errs, err)
			text = "error: " + err.Error()
		}
		texts = append(texts, a.Store+": "+text)
	}
	return texts, found, errs
}

const storeRemedy = "let these hosts pass in firewall and proxy, or fetch the signature on a machine that reaches them and give it with --signature-store DIR (DIR/sha256=<hex>/signature-1)"

func (n *near) storesHave(ctx context.Context, name string, d digest.Digest) Check {
	texts, found, errs := n.ask(ctx, d)
	detail := name + ": " + strings.Join(texts, ", ")
	bad := warn
	if n.opts.Policy == bundle.PolicyRequire {
		bad = fail
	}
	switch {
	case found > 0 && len(errs) == 0:
		return pass("%s", detail)
	case found > 0:
		return warn(&several{errs}, storeRemedy, "%s", detail)
	case len(errs) > 0:
		return bad(&several{errs}, storeRemedy, "%s", detail)
	}
	err := fmt.Errorf("%w: no store has a signature of %s", bundle.ErrSignature, d)
	return bad(err, "a release that is not an official one is signed with a key of your own: put its signature into a folder and give it with --signature-store; or give the store that has it", "%s", detail)
}

// storesAnswer asks for a signature of nothing: to say that there is none is answer enough.
func (n *near) storesAnswer(ctx context.Context) Check {
	if len(n.opts.Stores) == 0 {
		return skip("no signature store is named")
	}
	texts, _, errs := n.ask(ctx, digest.FromBytes(nil))
	detail := strings.Join(texts, ", ")
	switch {
	case len(errs) == 0:
		return pass("%s (asked for a signature that does not exist)", detail)
	case len(errs) < len(n.opts.Stores) || n.opts.Policy != bundle.PolicyRequire:
		return warn(&several{errs}, storeRemedy, "%s", detail)
	}
	return fail(&several{errs}, storeRemedy, "%s", detail)
}
