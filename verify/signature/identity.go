package signature

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// archMulti names the architecture of a release that is a manifest list.
const archMulti = "multi"

// archs are the architectures of single images as tags name them.
var archs = []string{"x86_64", "aarch64", "ppc64le", "s390x"}

var versionForm = regexp.MustCompile(`^(\d{1,6})\.(\d{1,6})\.\d{1,6}(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$`)

var candidateForm = regexp.MustCompile(`^(rc|ec|fc|candidate)\.`)

// isCandidate reports whether version is a release candidate, engineering candidate or
// feature candidate: "4.21.0-rc.1".
func isCandidate(version string) bool {
	m := versionForm.FindStringSubmatch(version)
	return m != nil && candidateForm.MatchString(m[3])
}

// atLeast reports whether version is of the given minor or a later one; its pre-releases
// count as the version itself. A version that cannot be read counts as the newest, so that
// nothing is waived for it.
func atLeast(version string, major, minor int) bool {
	m := versionForm.FindStringSubmatch(version)
	if m == nil {
		return true
	}
	x, _ := strconv.Atoi(m[1])
	y, _ := strconv.Atoi(m[2])
	return x > major || x == major && y >= minor
}

// splitReference takes a docker-reference apart: repository, tag and digest, the latter two
// "" if it has none.
func splitReference(s string) (repository, tag, digest string) {
	s, digest, _ = strings.Cut(s, "@")
	slash := strings.LastIndexByte(s, '/')
	if i := strings.LastIndexByte(s, ':'); i > slash {
		return s[:i], s[i+1:], digest
	}
	return s, "", digest
}

// checkTag compares the tag of the docker-reference with the release that it must speak of.
// The signed digest agrees already; the tag tells one version from another whose digest is
// passed off as it. The note says what the reference leaves open.
func (s *Signature) checkTag(version, arch string) (note string, err error) {
	return s.matchTag(version, version+"-"+arch)
}

// checkChildTag is [Signature.checkTag] for a child of a multi release: it may be named as
// its list is, as a child of it, or as the single image that it also is.
func (s *Signature) checkChildTag(version string) (note string, err error) {
	tags := []string{version + "-" + archMulti}
	for _, a := range archs {
		tags = append(tags, version+"-"+archMulti+"-"+a, version+"-"+a)
	}
	return s.matchTag(version, tags...)
}

func (s *Signature) matchTag(version string, tags ...string) (note string, err error) {
	if version == "" {
		return "", fmt.Errorf("%w: signed as %q, and the wanted version is not known", ErrUntrusted, s.Reference)
	}
	switch _, tag, _ := splitReference(s.Reference); {
	case slices.Contains(tags, tag):
		return "", nil
	case s.pinned:
		// Red Hat's keys sign all of its images, and its releases always have such a tag.
	case tag == "":
		return fmt.Sprintf("the signature calls the release %q, which names no version", s.Reference), nil
	case tag == version:
		return fmt.Sprintf("the signature calls the release %q, which names no architecture", s.Reference), nil
	}
	return "", fmt.Errorf("%w: signed as %q, not as %s", ErrUntrusted, s.Reference, tags[0])
}
