package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
)

// DefaultClientMirror is where the clients of releases are published, release.txt among them.
const DefaultClientMirror = "https://mirror.openshift.com/pub/openshift-v4"

// textPatience bounds the one try at a release.txt that nobody asked for.
const textPatience = 10 * time.Second

// givenText is a release.txt that was named.
type givenText struct {
	name string
	raw  []byte
	text *release.Text
	used bool
}

// readTexts reads the release.txt that were named, before anything is asked for: a typing
// error should not cost hours.
func (p *packer) readTexts(ctx context.Context) error {
	for _, name := range p.opts.Texts {
		raw, err := p.opts.Client.Document(ctx, name, remote.DocumentOptions{What: DocumentText, Limit: release.MaxText})
		if err != nil {
			return err
		}
		t, err := release.ParseText(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		p.texts = append(p.texts, &givenText{name: name, raw: raw, text: t})
	}
	return nil
}

// textOf finds the named release.txt of a release; nil if there is none. The only one is of
// the only release, whatever it says: then it disagrees.
func (p *packer) textOf(rec store.Release) *givenText {
	if len(p.texts) == 1 && len(p.opts.Releases) == 1 {
		p.texts[0].used = true
		return p.texts[0]
	}
	i := slices.IndexFunc(p.texts, func(g *givenText) bool { return g.text.Digest == rec.Descriptor.Digest })
	if i < 0 {
		i = slices.IndexFunc(p.texts, func(g *givenText) bool {
			return g.text.Version == rec.Version && (g.text.Arch == "" || g.text.Arch == rec.Arch || rec.Arch == release.Multi)
		})
	}
	if i < 0 {
		return nil
	}
	p.texts[i].used = true
	return p.texts[i]
}

// unusedTexts refuses a release.txt that is of no release that is packed.
func (p *packer) unusedTexts() error {
	for _, g := range p.texts {
		if !g.used {
			return fmt.Errorf("%s: %w: it is of %s (%s), which is not packed now", g.name, release.ErrText, g.text.Version, g.text.Digest)
		}
	}
	return nil
}

// captureText compares the release with its release.txt, and keeps that. repo is where it comes
// from, nil if it is taken over.
func (p *packer) captureText(ctx context.Context, repo *remote.Repository, pr *plannedRelease) error {
	raw, from, err := p.findText(ctx, repo, pr.record)
	if err != nil || raw == nil {
		return err
	}
	t, err := release.ParseText(raw)
	if err == nil {
		err = checkText(t, pr.record, pr.payload.Children)
	}
	if err == nil {
		err = checkTextSource(t, pr)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	pr.text = from
	pr.docs = append(pr.docs, document{DocumentText, mediaTypeText, raw})
	return nil
}

// findText returns the release.txt of a release and where it is from, nil if there is none.
func (p *packer) findText(ctx context.Context, repo *remote.Repository, rec store.Release) (raw []byte, from string, err error) {
	switch {
	case p.opts.Texts != nil:
		if g := p.textOf(rec); g != nil {
			return g.raw, g.name, nil
		}
		if len(p.opts.Texts) > 0 {
			p.note("no release.txt was named for %s", rec.Tag)
		}
		return nil, "", nil
	case repo == nil:
		return nil, "", nil // taken over: nobody is asked for anything
	case !p.public || repo.Name() != release.DefaultRepository || repo.Endpoint() != repo.Name():
		// Whoever uses mirrors of his own may not want the public hosts to be asked.
		p.note("%s was not compared with a release.txt, as it or its signatures do not come from their public places; --release-txt names one", rec.Tag)
		return nil, "", nil
	}
	from = strings.Join([]string{DefaultClientMirror, rec.Arch, "clients/ocp", rec.Version, DocumentText}, "/")
	once, cancel := context.WithTimeout(ctx, textPatience)
	defer cancel()
	raw, err = p.opts.Client.Document(once, from, remote.DocumentOptions{What: DocumentText, Limit: release.MaxText, Once: true})
	if ctx.Err() != nil {
		return nil, "", ctx.Err()
	}
	if err == nil {
		if _, err = release.ParseText(raw); err == nil {
			return raw, from, nil
		}
	}
	p.note("%s was not compared with its release.txt: %v", rec.Tag, err)
	return nil, "", nil
}

// checkText compares a release.txt with a release. Of a multi release it may be of any child,
// as the list names these.
func checkText(t *release.Text, rec store.Release, children []ocispec.Descriptor) error {
	if t.Version != "" && t.Version != rec.Version {
		return fmt.Errorf("%w: it is of %s, and not of %s", ErrDisagree, t.Version, rec.Version)
	}
	if t.Digest == rec.Descriptor.Digest || slices.ContainsFunc(children, func(c ocispec.Descriptor) bool { return c.Digest == t.Digest }) {
		return nil
	}
	return fmt.Errorf("%w: it names %s, and the release is %s", ErrDisagree, t.Digest, rec.Descriptor.Digest)
}

// checkTextSource compares the repository that Pull From names with the one in the signature.
func checkTextSource(t *release.Text, pr *plannedRelease) error {
	signed, err := release.ParseImageReference(pr.verdict.Reference)
	if pr.verdict.Status != SignatureVerified || err != nil || t.Source == signed.Repository || t.Source == pr.record.Source {
		return nil
	}
	return fmt.Errorf("%w: it says to pull from %s, and the signature names %s", ErrDisagree, t.Source, signed.Repository)
}

// keepsText reports whether a sealed release may stay as it is: whether the drive carries the
// release.txt that was named for it.
func (p *packer) keepsText(rel store.Release) bool {
	g := p.textOf(rel)
	if g == nil {
		return true
	}
	have, ok := p.base.Document(rel.Tag, DocumentText)
	return ok && bytes.Equal(have, g.raw)
}

// text reads the captured release.txt of a release; nil if there is none.
func (c *Contents) text(tag string) (*release.Text, error) {
	raw, ok := c.Document(tag, DocumentText)
	if !ok {
		return nil, nil
	}
	t, err := release.ParseText(raw)
	if err != nil {
		return nil, fmt.Errorf("document %s: %w", DocumentText, err)
	}
	return t, nil
}

// TextDigest returns the digest that the captured release.txt of a release gives it, "" if
// there is none. A text of one child of a multi release agrees with the list that names it: then
// the list's digest is returned. f reads the drive that c is the contents of.
func (c *Contents) TextDigest(ctx context.Context, f content.Fetcher, tag string) (digest.Digest, error) {
	rel, ok := c.Release(tag)
	if !ok {
		return "", fmt.Errorf("%w: %s", ErrNoRelease, tag)
	}
	t, err := c.text(tag)
	if err != nil || t == nil {
		return "", err
	}
	var children []ocispec.Descriptor
	if content.IsIndex(rel.Descriptor.MediaType) && t.Digest != rel.Descriptor.Digest {
		raw, err := content.ReadAll(ctx, f, rel.Descriptor, content.MaxManifest)
		if err != nil {
			return "", err
		}
		m, err := content.ParseManifest(rel.Descriptor.MediaType, raw)
		if err != nil {
			return "", err
		}
		children = m.Manifests
	}
	if err := checkText(t, rel, children); err == nil || !errors.Is(err, ErrDisagree) {
		return rel.Descriptor.Digest, err
	}
	return t.Digest, nil
}

func (p *packer) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}
