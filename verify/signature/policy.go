package signature

import (
	"crypto"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/objects"
)

// PolicyKey is what one ClusterImagePolicy asks for: images in its scopes carry a sigstore
// signature by its key.
type PolicyKey struct {
	Name   string           // of the policy
	Scopes []string         // registries, repositories or images: "quay.io/openshift-release-dev/ocp-release"
	Type   string           // of the root of trust, "PublicKey"
	Key    crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey; nil if Type is another one
	match  identityMatch
}

// identityMatch says which docker-reference a signature of an image must have.
type identityMatch struct {
	MatchPolicy     string `json:"matchPolicy"`
	ExactRepository struct {
		Repository string `json:"repository"`
	} `json:"exactRepository"`
	RemapIdentity struct {
		Prefix       string `json:"prefix"`
		SignedPrefix string `json:"signedPrefix"`
	} `json:"remapIdentity"`
}

// policyManifest is what is read of a config.openshift.io ClusterImagePolicy (v1 and
// v1alpha1 agree in it).
type policyManifest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Scopes []string `json:"scopes"`
		Policy struct {
			RootOfTrust struct {
				PolicyType string `json:"policyType"`
				PublicKey  struct {
					KeyData []byte `json:"keyData"`
				} `json:"publicKey"`
			} `json:"rootOfTrust"`
			SignedIdentity identityMatch `json:"signedIdentity"`
		} `json:"policy"`
	} `json:"spec"`
}

// PolicyKeys reads a manifest file, YAML or JSON, and returns what the ClusterImagePolicies
// in it ask for; objects of other kinds are passed over. Errors wrap [ErrMalformed].
func PolicyKeys(imagePolicy []byte) ([]PolicyKey, error) {
	docs, err := objects.Documents(imagePolicy)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var out []PolicyKey
	for _, doc := range docs {
		var m policyManifest
		if err := objects.Decode(doc, &m); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if m.Kind != "ClusterImagePolicy" || !strings.HasPrefix(m.APIVersion, "config.openshift.io/") {
			continue
		}
		p, err := m.policyKey()
		if err != nil {
			return nil, fmt.Errorf("ClusterImagePolicy %.80q: %w", m.Metadata.Name, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func (m *policyManifest) policyKey() (PolicyKey, error) {
	root := m.Spec.Policy.RootOfTrust
	p := PolicyKey{Name: printable(m.Metadata.Name), Scopes: m.Spec.Scopes, Type: printable(root.PolicyType), match: m.Spec.Policy.SignedIdentity}
	if len(p.Scopes) == 0 {
		return p, fmt.Errorf("%w: no scopes", ErrMalformed)
	}
	if root.PolicyType != "PublicKey" {
		return p, nil
	}
	var err error
	p.Key, err = parsePEM(root.PublicKey.KeyData)
	return p, err
}

// policiesFor returns the policies that hold for an image: those of the most specific scope
// that covers it, all of which must be satisfied (containers-policy.json(5)).
func policiesFor(policies []PolicyKey, repository string, d digest.Digest) []PolicyKey {
	best := 0
	var out []PolicyKey
	for _, p := range policies {
		n := 0
		for _, scope := range p.Scopes {
			n = max(n, covers(scope, repository, d))
		}
		switch {
		case n == 0 || n < best:
		case n > best:
			best, out = n, []PolicyKey{p}
		default:
			out = append(out, p)
		}
	}
	return out
}

// covers returns how specific scope is if it covers the image, and 0 otherwise. A scope is a
// host, a path of whole segments below it, or a single image; "*.example.com" covers the
// hosts below example.com and is less specific than any of those.
func covers(scope, repository string, d digest.Digest) int {
	if suffix, ok := strings.CutPrefix(scope, "*"); ok {
		host, _, _ := strings.Cut(repository, "/")
		if strings.HasPrefix(suffix, ".") && strings.HasSuffix(host, suffix) {
			return len(suffix)
		}
		return 0
	}
	if scope != "" && (scope == repository || strings.HasPrefix(repository, scope+"/") || scope == repository+"@"+d.String()) {
		return maxReference + len(scope)
	}
	return 0
}

// signedRepository returns the repository that a signature of an image in repository must
// name, by the policy's signedIdentity; "" if the rule is not known.
func (p *PolicyKey) signedRepository(repository string) string {
	switch p.match.MatchPolicy {
	case "", "MatchRepoDigestOrExact", "MatchRepository":
		return repository
	case "ExactRepository":
		named, _, _ := splitReference(p.match.ExactRepository.Repository)
		return named
	case "RemapIdentity":
		prefix := p.match.RemapIdentity.Prefix
		if repository == prefix || strings.HasPrefix(repository, prefix+"/") {
			return p.match.RemapIdentity.SignedPrefix + strings.TrimPrefix(repository, prefix)
		}
		return repository
	}
	return ""
}
