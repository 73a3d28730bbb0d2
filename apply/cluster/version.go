package cluster

import (
	"regexp"
	"strings"

	"pannier/bundle/release"
)

// semver is a version of OpenShift or Kubernetes.
type semver struct{ release.Version }

// parseVersion reads a version; ok is false for what is none.
func parseVersion(s string) (semver, bool) {
	v, ok := release.ParseVersion(s)
	return semver{v}, ok
}

// compare orders versions as semantic versioning does.
func (v semver) compare(w semver) int { return v.Compare(w.Version) }

// before reports whether v is older than major.minor, pre-releases of it not counted.
func (v semver) before(major, minor int) bool {
	return v.Major < major || v.Major == major && v.Minor < minor
}

func (v semver) sameMinor(w semver) bool { return v.SameMinor(w.Version) }

// kubeMinor is the minor version of Kubernetes 1.x that an OpenShift 4.x is made of, 0 if
// that is not known.
func (v semver) kubeMinor() int {
	if v.Major != 4 || v.Minor < 1 {
		return 0
	}
	return v.Minor + 13
}

// digestOf is the sha256 digest that a pull spec ends with, "" if it has none.
func digestOf(image string) string {
	_, d, found := strings.Cut(image, "@")
	if !found || !digestRule.MatchString(d) {
		return ""
	}
	return d
}

var digestRule = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
