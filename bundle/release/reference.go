package release

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
)

// ErrReference says that a text names no release, no image, no architecture.
var ErrReference = errors.New("invalid reference")

// DefaultRepository is where Red Hat publishes release images.
const DefaultRepository = "quay.io/openshift-release-dev/ocp-release"

// DefaultArch is the architecture of a release that is asked for by its version alone.
const DefaultArch = "x86_64"

// Reference names an image in a repository, by tag, by digest or both; then the digest
// decides.
type Reference struct {
	Repository string        // with host, "quay.io/openshift-release-dev/ocp-release"
	Tag        string        // may be empty if Digest is set
	Digest     digest.Digest // may be empty if Tag is set
	Version    string        // of a release, if the text says it; "4.8.21"
	Arch       string        // of a release, if the text says it; as in tags, "x86_64"
}

// String returns the pull spec.
func (r Reference) String() string {
	s := r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// Defaults complete what a RELEASE on the command line leaves out.
type Defaults struct {
	Repository string // of a bare version; empty means DefaultRepository
	Arch       string // of a version without architecture; empty means DefaultArch
}

const (
	pathPart = `[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*`
	number   = `(?:0|[1-9][0-9]{0,8})`
)

var (
	pathRule = regexp.MustCompile(`^` + pathPart + `(?:/` + pathPart + `)*$`)
	tagRule  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

	// Semantic versions, without build metadata: '+' cannot stand in a tag.
	versionRule = regexp.MustCompile(`^` + number + `\.` + number + `\.` + number + `(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?$`)
)

// maxName bounds the length of repositories and versions: registries take no more than 255
// characters.
const maxName = 255

// ParseReference reads a RELEASE as people write it (docs/cli.md): "4.8.21",
// "4.8.21-x86_64", or a pull spec with tag or digest, optionally after "docker://". A bare
// version is completed from d. Errors wrap [ErrReference].
func ParseReference(s string, d Defaults) (Reference, error) {
	if version, arch, ok := splitVersion(s); ok {
		if d.Repository == "" {
			d.Repository = DefaultRepository
		}
		if d.Arch == "" {
			d.Arch = DefaultArch
		}
		if arch == "" {
			a, err := NormalizeArch(d.Arch)
			if err != nil {
				return Reference{}, err
			}
			arch = a
		}
		host, path, _ := strings.Cut(d.Repository, "/")
		if err := checkRepository(host, path); err != nil {
			return Reference{}, fmt.Errorf("%w: repository %q: %w", ErrReference, d.Repository, err)
		}
		return Reference{Repository: d.Repository, Tag: Tag(version, arch), Version: version, Arch: arch}, nil
	}
	if !strings.Contains(s, "/") {
		return Reference{}, fmt.Errorf("%w: %q is no release: write a version such as 4.8.21, version and architecture such as 4.8.21-x86_64, or a pull spec with tag or digest", ErrReference, s)
	}
	r, err := ParseImageReference(s)
	if err != nil {
		return Reference{}, err
	}
	if version, arch, ok := splitVersion(r.Tag); ok {
		r.Version, r.Arch = version, arch
	}
	return r, nil
}

// IsReference reports whether s reads as a RELEASE: a version, or a pull spec with a host
// and a tag or digest. What begins like a path ("/", ".", "~") never does.
func IsReference(s string) bool {
	if s == "" || strings.ContainsAny(s[:1], "/.~") {
		return false
	}
	_, err := ParseReference(s, Defaults{})
	return err == nil
}

// ParseImageReference reads the pull spec of any image: host, repository, and a tag or a
// digest or both, optionally after "docker://". Nothing is guessed: names without host and
// names without tag are refused. Errors wrap [ErrReference] and say how to write it.
func ParseImageReference(s string) (Reference, error) {
	fail := func(format string, args ...any) (Reference, error) {
		return Reference{}, fmt.Errorf("%w: image %q: %w", ErrReference, s, fmt.Errorf(format, args...))
	}
	rest := strings.TrimPrefix(s, "docker://")
	if i := strings.Index(rest, "://"); i >= 0 {
		return fail("it must not begin with %q", rest[:i+3])
	}
	var r Reference
	name, text, found := strings.Cut(rest, "@")
	if found {
		r.Digest = digest.Digest(text)
		if err := content.CheckDigest(r.Digest); err != nil {
			return fail("%w", err)
		}
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, r.Tag = name[:i], name[i+1:]
		if !ValidTag(r.Tag) {
			return fail("%q is no tag", r.Tag)
		}
	}
	host, path, _ := strings.Cut(name, "/")
	if path == "" || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return fail("the registry is missing; write host and repository in full, as docker.io/library/%s", lastPart(rest))
	}
	if host == "docker.io" && !strings.Contains(path, "/") {
		return fail("write the repository in full, as docker.io/library/%s", lastPart(rest))
	}
	if err := checkRepository(host, path); err != nil {
		return fail("%w", err)
	}
	if r.Tag == "" && r.Digest == "" {
		return fail("it has neither tag nor digest")
	}
	r.Repository = name
	return r, nil
}

func lastPart(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

func checkRepository(host, path string) error {
	if err := content.CheckHost(host); err != nil {
		return err
	}
	switch {
	case path != strings.ToLower(path):
		return fmt.Errorf("repository %q must be lower case", path)
	case len(host)+len(path) >= maxName || !pathRule.MatchString(path):
		return fmt.Errorf("%q is no repository", path)
	}
	return nil
}

// splitVersion reads "4.8.21" and "4.8.21-x86_64". arch is empty if s does not say it. One
// architecture's part of a multi release, tagged "4.8.21-multi-x86_64", so is of a version
// "4.8.21-multi", which no payload states: it cannot pass for the release 4.8.21-x86_64.
func splitVersion(s string) (version, arch string, ok bool) {
	version = s
	if i := strings.LastIndexByte(s, '-'); i > 0 {
		if a, err := NormalizeArch(s[i+1:]); err == nil {
			version, arch = s[:i], a
		}
	}
	return version, arch, ValidVersion(version)
}

// ValidVersion reports whether s is a semantic version that can stand in a tag.
func ValidVersion(s string) bool { return len(s) <= maxName && versionRule.MatchString(s) }

// ValidTag reports whether s is a tag by the grammar of the OCI distribution-spec.
func ValidTag(s string) bool { return tagRule.MatchString(s) }

// Multi is the architecture of releases that hold several.
const Multi = "multi"

var goArch = map[string]string{
	"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x", Multi: Multi,
}

// NormalizeArch returns the architecture as release tags spell it: x86_64, aarch64, ppc64le,
// s390x or multi; Go's amd64 and arm64 are understood. Errors wrap [ErrReference].
func NormalizeArch(s string) (string, error) {
	a := strings.ToLower(s)
	switch a {
	case "amd64":
		return "x86_64", nil
	case "arm64":
		return "aarch64", nil
	}
	if _, ok := goArch[a]; ok {
		return a, nil
	}
	return "", fmt.Errorf("%w: architecture %q is none of x86_64, aarch64, ppc64le, s390x, multi", ErrReference, s)
}

// GoArch returns the architecture as Go, image configs and update graphs spell it: amd64 for
// x86_64, arm64 for aarch64. What it does not know it returns as it is.
func GoArch(s string) string {
	if a, ok := goArch[s]; ok {
		return a
	}
	return s
}

// Tag returns the tag of a release image, as oc writes it: "4.8.21-x86_64".
func Tag(version, arch string) string { return version + "-" + arch }

// ComponentTag returns the tag of a component, as oc writes it: "4.8.21-x86_64-etcd".
func ComponentTag(version, arch, name string) string { return Tag(version, arch) + "-" + name }

// SigstoreTag returns the tag under which cosign puts the signatures of d, in the same
// repository: "sha256-<hex>.sig".
func SigstoreTag(d digest.Digest) string {
	return d.Algorithm().String() + "-" + d.Encoded() + ".sig"
}
