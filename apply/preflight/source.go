package preflight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/bundle/remote"
)

// named is a release that was asked for, as far as it could be read.
type named struct {
	ref     release.Reference
	payload once[*release.Payload]
}

// read resolves the release and reads its payload.
func (r *named) read(ctx context.Context, c *remote.Client) (*release.Payload, error) {
	return r.payload.get(func() (*release.Payload, error) {
		repo, err := c.Repository(r.ref.Repository)
		if err != nil {
			return nil, err
		}
		desc, err := repo.Resolve(ctx, wanted(r.ref))
		if err != nil {
			return nil, err
		}
		return release.Read(ctx, repo, desc)
	})
}

// wanted is the tag or digest that a reference asks for; the digest if it has both.
func wanted(ref release.Reference) string {
	if ref.Digest != "" {
		return ref.Digest.String()
	}
	return ref.Tag
}

// repositories are all that pack would ask for manifests and blobs, as far as is known,
// sorted.
func (n *near) repositories(ctx context.Context) []string {
	names := slices.Clone(n.opts.Repositories)
	for _, r := range n.releases {
		names = append(names, r.ref.Repository)
		if p, err := r.read(ctx, n.opts.Client); err == nil {
			names = append(names, p.Repositories()...)
		}
	}
	for _, ref := range n.opts.Additional {
		names = append(names, ref.Repository)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// hosts are the registries of the repositories, each with one repository to ask by.
func (n *near) hosts(ctx context.Context) (names []string, by map[string]*remote.Repository, err error) {
	by = map[string]*remote.Repository{}
	for _, name := range n.repositories(ctx) {
		repo, err := n.opts.Client.Repository(name)
		if err != nil {
			return nil, nil, err
		}
		host, _, _ := strings.Cut(repo.Endpoint(), "/")
		if by[host] == nil {
			names = append(names, host)
			by[host] = repo
		}
	}
	return names, by, nil
}

func (n *near) greet(ctx context.Context, host string, repo *remote.Repository) (*remote.Greeting, error) {
	if n.greeting[host] == nil {
		n.greeting[host] = &once[*remote.Greeting]{}
	}
	return n.greeting[host].get(func() (*remote.Greeting, error) { return repo.Ping(ctx) })
}

// sourceRegistry sees whether every registry answers as one.
func sourceRegistry(ctx context.Context, n *near) Check {
	hosts, by, err := n.hosts(ctx)
	if err != nil {
		return fail(err, "check the spelling of the repository", "%v", err)
	}
	var checks []Check
	for _, host := range hosts {
		g, err := n.greet(ctx, host, by[host])
		if err != nil {
			checks = append(checks, fail(err, hostRemedy(err), "%v", err))
			continue
		}
		checks = append(checks, pass("%s", greetingText(host, g)))
	}
	return worst(checks...)
}

// greetingText tells what a registry said.
func greetingText(host string, g *remote.Greeting) string {
	text := fmt.Sprintf("%s answers over %s", host, g.Scheme)
	switch {
	case g.Flavour != remote.FlavourUnknown:
		text += " (it is " + string(g.Flavour) + ")"
	case g.Server != "":
		text += " (" + g.Server + ")"
	}
	switch {
	case g.Challenge == "bearer" && g.Realm != "":
		text += ", wants a token of " + g.Realm
	case g.Challenge == "basic":
		text += ", wants a user and a password"
	}
	return text
}

func sourceClock(ctx context.Context, n *near) Check {
	hosts, by, err := n.hosts(ctx)
	if err != nil {
		return skipAfter("source-registry")
	}
	var checks []Check
	for _, host := range hosts {
		if g, err := n.greet(ctx, host, by[host]); err == nil {
			checks = append(checks, clockCheck(host, g.Date, g.Asked))
		}
	}
	if len(checks) == 0 {
		return skipAfter("source-registry")
	}
	return worst(checks...)
}

// sourceAccess sees whether this account may read in each repository: the release image, one
// component of each repository that the release names, each additional image.
func sourceAccess(ctx context.Context, n *near) Check {
	var checks []Check
	for _, r := range n.releases {
		p, err := r.read(ctx, n.opts.Client)
		if err != nil {
			err = fmt.Errorf("release %s: %w", r.ref, err)
			checks = append(checks, fail(err, remedyFor(err), "%v", err))
			continue
		}
		checks = append(checks, pass("%s was read in %s%s", release.Tag(p.Version, p.Arch), r.ref.Repository, n.credential(ctx, r.ref.Repository)))
		checks = append(checks, n.components(ctx, p)...)
	}
	for _, ref := range n.opts.Additional {
		checks = append(checks, n.readable(ctx, ref.Repository, wanted(ref)))
	}
	for _, name := range n.opts.Repositories {
		checks = append(checks, n.open(ctx, name))
	}
	return worst(checks...)
}

// components reads one image of each repository that a payload names.
func (n *near) components(ctx context.Context, p *release.Payload) []Check {
	var checks []Check
	for _, name := range p.Repositories() {
		i := slices.IndexFunc(p.Images, func(i release.Image) bool { return i.Repository == name })
		checks = append(checks, n.readable(ctx, name, p.Images[i].Digest.String()))
	}
	return checks
}

// readable reads one image: its manifest and, since blobs are often served by another host,
// its config.
func (n *near) readable(ctx context.Context, name, ref string) Check {
	repo, err := n.opts.Client.Repository(name)
	if err == nil {
		err = pull(ctx, repo, ref)
	}
	if err != nil {
		return fail(err, remedyFor(err), "%v", err)
	}
	return pass("an image was read in %s%s", name, n.credential(ctx, name))
}

// open sees whether a repository may be read without knowing what is in it: it asks for a
// tag that nobody has. To be told that there is no such tag, one must be let in.
func (n *near) open(ctx context.Context, name string) Check {
	repo, err := n.opts.Client.Repository(name)
	if err == nil {
		_, err = repo.Resolve(ctx, absentTag)
	}
	if err != nil && (!errors.Is(err, remote.ErrNotFound) || errors.Is(err, remote.ErrNotRegistry)) {
		return fail(err, remedyFor(err), "%v", err)
	}
	return pass("%s may be read%s", name, n.credential(ctx, name))
}

// absentTag is a tag that no repository has.
const absentTag = "pannier-preflight"

func (n *near) credential(ctx context.Context, name string) string {
	repo, err := n.opts.Client.Repository(name)
	if err != nil {
		return ""
	}
	text, found, err := repo.Credential(ctx)
	if err != nil || !found {
		return ", anonymously"
	}
	return ", " + text
}

// maxConfig bounds, in bytes, what is read of an image's config; they have some kilobytes.
const maxConfig = 4 << 20

// pull reads the manifest ref, of a list that of the first child as well, and its config.
func pull(ctx context.Context, repo *remote.Repository, ref string) error {
	for range 2 {
		desc, raw, err := repo.Manifest(ctx, ref)
		if err != nil {
			return err
		}
		m, err := content.ParseManifest(desc.MediaType, raw)
		if err != nil {
			return fmt.Errorf("manifest %s of %s: %w", desc.Digest, repo.Name(), err)
		}
		if content.IsIndex(desc.MediaType) {
			if len(m.Manifests) == 0 {
				return nil
			}
			ref = m.Manifests[0].Digest.String()
			continue
		}
		if m.Config.Size > maxConfig {
			return nil
		}
		rc, err := repo.Fetch(ctx, m.Config, 0)
		if err != nil {
			return err
		}
		defer rc.Close()
		raw, err = io.ReadAll(io.LimitReader(rc, maxConfig))
		if err == nil && digest.FromBytes(raw) != m.Config.Digest {
			err = fmt.Errorf("blob %s of %s: %w: the bytes hash to %s", m.Config.Digest, repo.Name(), content.ErrDigest, digest.FromBytes(raw))
		}
		return err
	}
	return nil
}

// sourceHosts lists who was really asked, for whoever keeps the firewall.
func sourceHosts(_ context.Context, n *near) Check { return contactsCheck(n.opts.Client) }

// contactsCheck lists who was asked, and passes only if everybody answered.
func contactsCheck(c *remote.Client) Check {
	var answered, silent []string
	for _, k := range c.Contacts() {
		text := k.Host + " (" + k.Why
		if k.Proxy != "" {
			text += ", by proxy " + k.Proxy
		}
		if c.Answered(k.Host) {
			answered = append(answered, text+")")
		} else {
			silent = append(silent, text+")")
		}
	}
	const remedy = "open the firewall for the hosts that did not answer (curl -v https://HOST/), or check HTTPS_PROXY and NO_PROXY; the other checks say what failed"
	switch {
	case len(answered)+len(silent) == 0:
		return skip("no host was asked")
	case len(silent) == 0:
		return pass("asked so far: %s", strings.Join(answered, ", "))
	case len(answered) == 0:
		return fail(errSilent, remedy, "no host answered; asked: %s", strings.Join(silent, ", "))
	}
	return warn(nil, remedy, "no answer from %s; answered: %s", strings.Join(silent, ", "), strings.Join(answered, ", "))
}

// errSilent is a network in which nobody answers.
var errSilent = fmt.Errorf("no host answered: %w", remote.ErrUnreachable)
