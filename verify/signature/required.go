package signature

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle"
)

// maxNamed is how many images a sentence names before it only counts them.
const maxNamed = 5

func sortedDigests[V any](m map[digest.Digest]V) []digest.Digest {
	return slices.Sorted(maps.Keys(m))
}

// checkSigstore looks at the sigstore signatures of a release whose OpenPGP signature is
// good, so that the policies in its payload can be believed. It reports whether all is there
// that the cluster will ask for.
//
// What the cluster asks for is written in those policies, and in nothing else: a payload
// that has none for its own repository is noted and passes. From which version on they are
// in force, and not in a preview only, is known: 4.21 for the release image, 4.22 for the
// components.
func checkSigstore(ctx context.Context, user []sigstoreKey, r bundle.SignedRelease, out *bundle.SignatureVerdict) (bool, error) {
	s := sigstoreCheck{user: user, release: r, out: out, images: make(map[digest.Digest][]bundle.SigstoreImage), ok: true}
	for _, f := range r.Policies {
		keys, err := PolicyKeys(f.Data)
		if err != nil {
			// Unreadable is not absent: nobody can say what it asks for.
			s.problem(atLeast(r.Version, 4, 21), fmt.Sprintf("the release's own %s: %v", printable(f.Name), err))
		}
		s.policies = append(s.policies, keys...)
	}
	for _, i := range r.Sigstore {
		s.images[i.Subject] = append(s.images[i.Subject], i)
	}
	s.checkRelease()
	if err := s.checkComponents(ctx); err != nil {
		return false, err
	}
	s.checkOthers()
	return s.ok, nil
}

// sigstoreCheck is one run of [checkSigstore].
type sigstoreCheck struct {
	user     []sigstoreKey
	policies []PolicyKey
	release  bundle.SignedRelease
	images   map[digest.Digest][]bundle.SigstoreImage
	out      *bundle.SignatureVerdict
	ok       bool
}

func (s *sigstoreCheck) problem(decides bool, text string) {
	s.out.Problems = append(s.out.Problems, text)
	if decides {
		s.ok = false
	}
}

func (s *sigstoreCheck) note(format string, args ...any) {
	s.out.Notes = append(s.out.Notes, fmt.Sprintf(format, args...))
}

// errAbsent says that an image has no .sig image.
var errAbsent = errors.New("it has no sigstore signature")

// image judges one image. scoped says whether a policy covers it. With neither policy nor
// key of the user's the error is [errNoKey], if there is a signature at all.
func (s *sigstoreCheck) image(repository string, d digest.Digest) (scoped bool, err error) {
	policies := policiesFor(s.policies, repository, d)
	scoped = len(policies) > 0
	found := s.images[d]
	if len(found) == 0 {
		return scoped, errAbsent
	}
	var user []crypto.PublicKey
	for _, k := range s.user {
		user = append(user, k.key)
	}
	if len(user) > 0 && anyVerifies(found, d, repository, user) == nil {
		return scoped, nil
	}
	if !scoped {
		if len(user) == 0 {
			return false, errNoKey
		}
		return false, anyVerifies(found, d, repository, user)
	}
	for _, p := range policies {
		if p.Key == nil {
			return true, fmt.Errorf("%w: policy %s asks for a root of trust of type %q, which cannot be checked here", ErrUntrusted, p.Name, p.Type)
		}
		signed := p.signedRepository(repository)
		if signed == "" {
			return true, fmt.Errorf("%w: policy %s has an unknown rule %.40q for names", ErrUntrusted, p.Name, p.match.MatchPolicy)
		}
		if err := anyVerifies(found, d, signed, []crypto.PublicKey{p.Key}); err != nil {
			return true, fmt.Errorf("policy %s: %w", p.Name, err)
		}
	}
	return true, nil
}

// errNoKey says that there is a signature and nothing to check it with.
var errNoKey = errors.New("its sigstore signature was not checked: no policy in the release and no key of the user's is for it")

func anyVerifies(images []bundle.SigstoreImage, want digest.Digest, repository string, keys []crypto.PublicKey) error {
	var problem error
	for _, i := range images {
		err := VerifySigstore(i.Manifest, i.Layers, want, repository, keys)
		if err == nil {
			return nil
		}
		problem = worse(problem, err)
	}
	return problem
}

func (s *sigstoreCheck) checkRelease() {
	r := s.release
	scoped, err := s.image(r.Source, r.Digest)
	required := atLeast(r.Version, 4, 21)
	switch {
	case err == nil && scoped && len(s.user) > 0 && !s.byPolicy(r.Source, r.Digest):
		s.note("the release image's sigstore signature is by the user's key; the policy in the release asks for another one")
	case err == nil:
		s.note("the release image has a valid sigstore signature")
	case required && scoped:
		s.problem(true, fmt.Sprintf("release image: %v; a cluster of version %s refuses to run it", err, r.Version))
	case errors.Is(err, errAbsent) && required:
		s.note("the release image has no sigstore signature, and the release has no policy that asks for one; a cluster of 4.21 or later that has such a policy for %s already will refuse it", r.Source)
	case errors.Is(err, errAbsent) && scoped:
		s.note("the release image has no sigstore signature; clusters ask for one from 4.21 on")
	case errors.Is(err, errAbsent):
	case errors.Is(err, errNoKey):
		s.note("release image: %v", err)
	default:
		s.problem(false, fmt.Sprintf("release image: %v", err))
	}
}

// byPolicy reports whether the policies alone are satisfied.
func (s *sigstoreCheck) byPolicy(repository string, d digest.Digest) bool {
	alone := *s
	alone.user = nil
	_, err := alone.image(repository, d)
	return err == nil
}

func (s *sigstoreCheck) checkComponents(ctx context.Context) error {
	required := atLeast(s.release.Version, 4, 22)
	seen := make(map[digest.Digest]bool)
	var absent, unchecked []string
	wrong := make(map[string][]string)
	valid := 0
	for _, c := range s.release.Images {
		if err := ctx.Err(); err != nil {
			return err
		}
		if seen[c.Digest] {
			continue
		}
		seen[c.Digest] = true
		scoped, err := s.image(c.Repository, c.Digest)
		switch {
		case err == nil:
			valid++
		case errors.Is(err, errAbsent):
			if scoped {
				absent = append(absent, printable(c.Name))
			}
		case errors.Is(err, errNoKey):
			unchecked = append(unchecked, printable(c.Name))
		default:
			key := fmt.Sprintf("%t %v", scoped, err)
			wrong[key] = append(wrong[key], printable(c.Name))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(wrong)) {
		scoped, text, _ := strings.Cut(key, " ")
		s.problem(required && scoped == "true", fmt.Sprintf("%s: %s", named(wrong[key]), text))
	}
	if len(absent) > 0 {
		text := fmt.Sprintf("%s without sigstore signature", named(absent))
		switch {
		case required && s.release.Arch != archMulti:
			s.problem(true, fmt.Sprintf("%s; a cluster of version %s refuses to run them", text, s.release.Version))
		case required:
			s.note("%s on the list itself, as is usual: the images in the lists carry theirs", text)
		default:
			s.note("%s; clusters ask for them from 4.22 on", text)
		}
	}
	if len(unchecked) > 0 {
		s.note("%s: %v", named(unchecked), errNoKey)
	}
	if valid > 0 {
		s.note("%d of %d component images have a valid sigstore signature", valid, len(seen))
	}
	return nil
}

// checkOthers looks at what is signed beside release and components, children of lists: a
// wrong signature there is worth a word, and decides nothing.
func (s *sigstoreCheck) checkOthers() {
	known := map[digest.Digest]bool{s.release.Digest: true}
	for _, c := range s.release.Images {
		known[c.Digest] = true
	}
	var problems []string
	for _, d := range sortedDigests(s.images) {
		if known[d] {
			continue
		}
		if _, err := s.image(s.images[d][0].Repository, d); err != nil && !errors.Is(err, errNoKey) {
			problems = append(problems, fmt.Sprintf("sigstore signature of %s: %v", d, err))
		}
	}
	if extra := len(problems) - maxNamed; extra > 0 {
		problems = append(problems[:maxNamed], fmt.Sprintf("and %d more sigstore signatures that are not valid", extra))
	}
	s.out.Problems = append(s.out.Problems, problems...)
}

// named lists components for a sentence.
func named(names []string) string {
	slices.Sort(names)
	if len(names) == 1 {
		return "component " + names[0]
	}
	if len(names) <= maxNamed {
		return "components " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("components %s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}
