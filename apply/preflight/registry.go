package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"pannier/bundle/objects"
	"pannier/bundle/remote"
)

// registryName looks for a name that the nodes cannot use.
func registryName(_ context.Context, f *far) Check {
	dest := f.opts.Destination
	if f.opts.Cluster != nil {
		dest = *f.opts.Cluster
	}
	if objects.IsLoopback(dest.Registry) {
		return warn(nil, "name the registry as the nodes know it with --cluster-registry REGISTRY/REPO, or use that name for all",
			"%s is a name of this machine itself: nodes cannot pull from it", dest.Registry)
	}
	if f.opts.Cluster != nil {
		return pass("nodes know %s as %s; whether they reach it cannot be seen from here", f.opts.Destination, dest)
	}
	return pass("%s is not a loopback name; whether nodes reach it cannot be seen from here", dest.Registry)
}

func (f *far) greet(ctx context.Context) (*remote.Greeting, error) {
	return f.greeted.get(func() (*remote.Greeting, error) { return f.repo.Ping(ctx) })
}

func registryAPI(ctx context.Context, f *far) Check {
	g, err := f.greet(ctx)
	if err != nil {
		remedy := hostRemedy(err)
		if d := f.opts.Destination; errors.Is(err, remote.ErrUnreachable) && !strings.ContainsAny(d.Registry, ".:") && d.Registry != "localhost" {
			remedy = fmt.Sprintf("if %s is meant as a folder, write ./%s; else %s", d, d, remedy)
		}
		return fail(err, remedy, "%v", err)
	}
	return pass("%s", greetingText(f.opts.Destination.Registry, g))
}

// soon is how long a certificate should still be valid: an update, and the pulls after it,
// take days.
const soon = 30 * 24 * time.Hour

// registryTLS looks at the registry's certificate.
func registryTLS(ctx context.Context, f *far) Check {
	g, err := f.greet(ctx)
	if err != nil {
		if errors.Is(err, remote.ErrCertificate) {
			return fail(err, hostRemedy(err), "%v%s", err, presented(err))
		}
		return skipAfter("registry-api")
	}
	host := f.opts.Destination.Registry
	if g.Scheme == "http" {
		return warn(nil, "give the registry a certificate; else every node must have it under insecureRegistries (image.config.openshift.io/cluster)", "%s speaks plain http", host)
	}
	if len(g.Certificates) == 0 {
		return skip("%s showed no certificate", host)
	}
	leaf := g.Certificates[0]
	first := slices.MinFunc(g.Certificates, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	detail := certificateText(leaf)
	if first != leaf {
		detail += "; of its chain, " + certificateText(first)
	}
	left := first.NotAfter.Sub(f.opts.now())
	const renew = "have the certificate renewed before the update: a node that cannot trust the registry cannot start what it has to pull"
	switch {
	case left <= 0:
		return warn(nil, renew, "%s: it has expired, and was accepted only because of --insecure", detail)
	case !g.Verified:
		return warn(nil, "give the authority with --certificate-authority FILE in place of --insecure; the nodes need it too (additionalTrustedCA)", "%s; it was not verified, because of --insecure", detail)
	case left < soon:
		return warn(nil, renew, "%s: %s left", detail, counted(int(left/(24*time.Hour)), "day", "days"))
	}
	return pass("%s", detail)
}

func certificateText(c *x509.Certificate) string {
	name := c.Subject.CommonName
	if name == "" && len(c.DNSNames) > 0 {
		name = c.DNSNames[0]
	}
	if name == "" {
		name = c.Subject.String()
	}
	return fmt.Sprintf("certificate of %q, by %q, valid until %s", name, c.Issuer.CommonName, c.NotAfter.UTC().Format("2006-01-02 15:04 UTC"))
}

// presented describes the certificate that was not trusted.
func presented(err error) string {
	var v *tls.CertificateVerificationError
	if errors.As(err, &v) && len(v.UnverifiedCertificates) > 0 {
		return "; " + certificateText(v.UnverifiedCertificates[0])
	}
	return ""
}

func registryClock(ctx context.Context, f *far) Check {
	g, err := f.greet(ctx)
	if err != nil {
		return skipAfter("registry-api")
	}
	return clockCheck(f.opts.Destination.Registry, g.Date, g.Asked)
}

func (f *far) authenticate(ctx context.Context) error {
	_, err := f.login.get(func() (struct{}, error) { return struct{}{}, f.repo.Authenticate(ctx) })
	return err
}

// registryAuth sees whether the registry accepts the credential, whatever it may do.
func registryAuth(ctx context.Context, f *far) Check {
	g, err := f.greet(ctx)
	if err != nil {
		return skipAfter("registry-api")
	}
	text, found, err := f.repo.Credential(ctx)
	if err != nil {
		return fail(err, "correct the auth file or its helper as the message says", "%v", err)
	}
	if err := f.authenticate(ctx); err != nil {
		return fail(err, hostRemedy(err), "%v", err)
	}
	switch {
	case !found && g.Status == http.StatusOK:
		return pass("%s lets in everybody; %s", f.opts.Destination.Registry, text)
	case !found:
		return pass("%s gives a token to everybody; %s", f.opts.Destination.Registry, text)
	case g.Status == http.StatusOK:
		return pass("%s asks for no credential; there is one: %s", f.opts.Destination.Registry, text)
	}
	return pass("%s accepts the login %s", f.opts.Destination.Registry, text)
}

func (f *far) list(ctx context.Context) ([]string, error) {
	return f.tags.get(func() ([]string, error) { return f.repo.Tags(ctx) })
}

// registryReferrers tells whether signatures can be listed by the image that they are of.
// Nothing here needs that: other tools may.
func registryReferrers(ctx context.Context, f *far) Check {
	if _, err := f.greet(ctx); err != nil {
		return skipAfter("registry-api")
	}
	answers, err := f.repo.Referrers(ctx)
	switch {
	case err != nil:
		return warn(err, hostRemedy(err), "it could not be found out: %v", err)
	case answers:
		return pass("the registry lists what refers to an image (referrers API)")
	}
	return pass("the registry has no referrers API; signatures are pushed and found by their tags, which need none")
}

// registryTags sees whether the repository may be read, and what is in it.
func registryTags(ctx context.Context, f *far) Check {
	if _, err := f.greet(ctx); err != nil {
		return skipAfter("registry-api")
	}
	tags, err := f.list(ctx)
	switch {
	case isAbsent(err):
		return pass("%s does not exist yet", f.opts.Destination)
	case errors.Is(err, remote.ErrAuth):
		// Harbor and Quay hide what does not exist behind a refusal.
		return warn(err, "if registry-push passes, nothing; otherwise the account may not read here, or the repository or its project does not exist", "%v", err)
	case err != nil:
		return warn(err, hostRemedy(err), "%v", err)
	}
	detail := fmt.Sprintf("%s in %s", counted(len(tags), "tag", "tags"), f.opts.Destination)
	if f.opts.Media == "" {
		return pass("%s", detail)
	}
	releases, err := f.selected(ctx)
	if err != nil {
		return pass("%s", detail)
	}
	var have []string
	for _, r := range releases {
		if slices.Contains(tags, r.Tag) {
			have = append(have, r.Tag)
		}
	}
	if len(have) > 0 {
		detail += ", of the drive's releases: " + listed(have)
	}
	return pass("%s", detail)
}

// registryPull reads an image that is there, so that a redirect to a store that cannot be
// reached from here is found.
func registryPull(ctx context.Context, f *far) Check {
	if _, err := f.greet(ctx); err != nil {
		return skipAfter("registry-api")
	}
	tags, err := f.list(ctx)
	if err != nil || len(tags) == 0 {
		return skip("there is nothing in %s yet to read", f.opts.Destination)
	}
	if err := pull(ctx, f.repo, tags[0]); err != nil {
		return warn(err, "if the message names another host, the registry sends clients to its storage: nodes must reach that, or the redirect be turned off (distribution: storage.redirect.disable)",
			"%s:%s cannot be read: %v", f.opts.Destination, tags[0], err)
	}
	return pass("manifest and config of %s:%s were read", f.opts.Destination, tags[0])
}

func (f *far) push(ctx context.Context) error {
	_, err := f.pushed.get(func() (struct{}, error) { return struct{}{}, f.repo.CheckPush(ctx) })
	return err
}

// registryPush begins an upload and cancels it.
func registryPush(ctx context.Context, f *far) Check {
	if _, err := f.greet(ctx); err != nil {
		return skipAfter("registry-api")
	}
	if err := f.push(ctx); err != nil {
		remedy := hostRemedy(err)
		if text := projectRemedy(f, err); text != "" {
			remedy = text
		}
		return fail(err, remedy, "%v", err)
	}
	return pass("an upload to %s was begun and cancelled", f.opts.Destination)
}

// project is what registries want to be created beforehand: the first segment of the path.
func (f *far) project() string { return projectOf(f.opts.Destination.Repository) }

// projectRemedy is advice for a refusal to push to the destination.
func projectRemedy(f *far, err error) string {
	flavour := remote.FlavourUnknown
	if g := f.greeted.value; g != nil {
		flavour = g.Flavour
	}
	return createRemedy(flavour, f.opts.Destination.Repository, err)
}

// registryProject tells an absent project from an account without rights, as far as the
// registry lets that be seen.
func registryProject(ctx context.Context, f *far) Check {
	if _, err := f.greet(ctx); err != nil {
		return skipAfter("registry-api")
	}
	err := f.push(ctx)
	var e *remote.Error
	switch {
	case err == nil:
		return pass("%q exists, or need not: an upload was accepted", f.project())
	case !errors.As(err, &e) || projectRemedy(f, err) == "":
		return skipAfter("registry-push")
	case e.Status == http.StatusNotFound || e.Code == "NAME_UNKNOWN":
		return fail(err, projectRemedy(f, err), "%q does not exist at the registry: %v", f.project(), err)
	}
	if _, terr := f.list(ctx); terr == nil || isAbsent(terr) {
		return pass("%q may be looked at, so that it exists; what is lacking is the right to push: see registry-push", f.project())
	}
	if aerr := f.authenticate(ctx); aerr != nil {
		return skipAfter("registry-auth")
	}
	return warn(err, projectRemedy(f, err), "the login is accepted and %q is neither readable nor writable: it may not exist", f.project())
}

// registryNesting sees whether the registry takes paths of the depth that is needed: Quay
// before 3.6 and OpenShift's internal registry take two segments, no more. The destination
// itself is tried by registry-push; here too every repository that additional images go to.
// No other path is tried, since some registries make a repository of it.
func registryNesting(ctx context.Context, f *far) Check {
	if _, err := f.greet(ctx); err != nil {
		return skipAfter("registry-api")
	}
	depth := strings.Count(f.opts.Destination.Repository, "/") + 1
	if err := f.push(ctx); err != nil {
		var e *remote.Error
		if errors.As(err, &e) && e.Code == "NAME_INVALID" {
			return fail(err, nestingRemedy, "a path of %s is refused: %v", counted(depth, "segment", "segments"), err)
		}
		return skipAfter("registry-push")
	}
	detail := fmt.Sprintf("a path of %s is accepted", counted(depth, "segment", "segments"))
	if f.opts.Media == "" {
		return pass("%s; deeper ones, for additional images, were not tried", detail)
	}
	names, err := f.additional(ctx)
	if err != nil {
		return warn(err, "settle bundle-readable first", "%s; which repositories additional images need is not known: %v", detail, err)
	}
	var checks []Check
	for _, name := range names {
		repo, err := f.opts.Client.Repository(name)
		if err == nil {
			err = repo.CheckPush(ctx)
		}
		if err != nil {
			checks = append(checks, fail(err, nestingRemedy, "%v", err))
		}
	}
	if len(checks) > 0 {
		return worst(checks...)
	}
	if len(names) > 0 {
		detail += "; so are those of the additional images: " + listed(names)
	}
	return pass("%s", detail)
}

const nestingRemedy = "create the project or repository if it does not exist; if the registry limits how deep a path may be, use one of two segments (ocp4/openshift4), and --additional-prefix for additional images"

func registryHosts(_ context.Context, f *far) Check {
	c := contactsCheck(f.opts.Client)
	var proxies []string
	for _, k := range f.opts.Client.Contacts() {
		if k.Proxy != "" && !slices.Contains(proxies, k.Proxy) {
			proxies = append(proxies, k.Proxy)
		}
	}
	if len(proxies) > 0 && c.Status == Pass {
		return warn(nil, "if the registry can be reached directly, exempt it in NO_PROXY: proxies limit size and time of uploads", "%s", c.Detail)
	}
	return c
}
