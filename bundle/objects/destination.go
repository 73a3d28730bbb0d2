package objects

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"pannier/bundle/content"
)

// Destination is the one repository of a registry that a release is mirrored to.
type Destination struct {
	Registry   string // host[:port]
	Repository string // path, "ocp4/openshift4"
}

// String returns "host[:port]/path".
func (d Destination) String() string { return d.Registry + "/" + d.Repository }

// Additional is where at the destination's registry an image goes that is part of no release: to
// the path that it has at its source, "quay.io/a/b", below the prefix.
func (d Destination) Additional(prefix, source string) string {
	_, path, _ := strings.Cut(source, "/")
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		path = prefix + "/" + path
	}
	return d.Registry + "/" + path
}

const (
	hostPart = `[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?`
	hostname = hostPart + `(?:\.` + hostPart + `)*`
	pathPart = `[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*`
)

var (
	// What the definitions of IDMS and ITMS demand of a mirror and of a source; ICSP is
	// checked by nobody but the machine-config operator, with the same rule.
	mirrorRule = regexp.MustCompile(`^` + hostname + `(?::[0-9]+)?(?:/` + pathPart + `)*$`)
	sourceRule = regexp.MustCompile(`^(?:\*(?:\.` + hostPart + `)+|` + hostname + `(?::[0-9]+)?(?:/` + pathPart + `)*)$`)

	pathRule = regexp.MustCompile(`^` + pathPart + `(?:/` + pathPart + `)*$`)
)

// ParseDestination reads REGISTRY/REPO, "reg.example:5000/ocp4/openshift4": a host with or
// without port and a repository; no scheme, no tag, no digest. Errors wrap [ErrInvalid] and
// say what is wrong.
func ParseDestination(s string) (Destination, error) {
	fail := func(why string) (Destination, error) {
		return Destination{}, fmt.Errorf("%w: destination %q: %s; it is written REGISTRY/REPOSITORY, as registry.example:5000/ocp4/openshift4", ErrInvalid, s, why)
	}
	if i := strings.Index(s, "://"); i >= 0 {
		return fail(fmt.Sprintf("it must not begin with %q", s[:i+3]))
	}
	if strings.Contains(s, "@") {
		return fail("it must not have a digest")
	}
	host, path, found := strings.Cut(s, "/")
	if !found || path == "" {
		return fail("the repository is missing")
	}
	if strings.HasSuffix(path, "/") {
		return fail("it must not end with a slash")
	}
	if strings.Contains(path, ":") {
		return fail("it must not have a tag: tags are made from version and architecture")
	}
	if err := content.CheckHost(host); err != nil {
		return fail(err.Error())
	}
	if path != strings.ToLower(path) {
		return fail("a repository is written in lower case")
	}
	if len(path) > 255 || !pathRule.MatchString(path) {
		return fail(fmt.Sprintf("%q is no repository", path))
	}
	return Destination{Registry: host, Repository: path}, nil
}

// IsLoopback reports whether host, with or without port, names the machine itself:
// localhost, a loopback address, or the unspecified address.
func IsLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	addr = addr.Unmap()
	return addr.IsLoopback() || addr.IsUnspecified()
}

func lower(s string) string { return strings.ToLower(s) }
