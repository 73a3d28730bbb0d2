package cluster

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

// semver is a version of OpenShift: 4.8.21, 4.14.0-rc.2.
type semver struct {
	major, minor, patch int
	pre                 string
}

var versionRule = regexp.MustCompile(`^v?([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?(?:-([0-9A-Za-z.-]+))?(?:\+.*)?$`)

// parseVersion reads a version; ok is false for what is none.
func parseVersion(s string) (v semver, ok bool) {
	m := versionRule.FindStringSubmatch(s)
	if m == nil {
		return v, false
	}
	v.major, _ = strconv.Atoi(m[1])
	v.minor, _ = strconv.Atoi(m[2])
	v.patch, _ = strconv.Atoi(m[3])
	v.pre = m[4]
	return v, true
}

// compare orders versions as semantic versioning does.
func (v semver) compare(w semver) int {
	if c := cmp.Or(cmp.Compare(v.major, w.major), cmp.Compare(v.minor, w.minor), cmp.Compare(v.patch, w.patch)); c != 0 {
		return c
	}
	switch {
	case v.pre == w.pre:
		return 0
	case v.pre == "":
		return 1 // a release comes after its candidates
	case w.pre == "":
		return -1
	}
	a, b := strings.Split(v.pre, "."), strings.Split(w.pre, ".")
	for i := range min(len(a), len(b)) {
		x, xerr := strconv.Atoi(a[i])
		y, yerr := strconv.Atoi(b[i])
		c := 0
		switch {
		case xerr == nil && yerr == nil:
			c = cmp.Compare(x, y)
		case xerr == nil:
			c = -1
		case yerr == nil:
			c = 1
		default:
			c = strings.Compare(a[i], b[i])
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// before reports whether v is older than major.minor, pre-releases of it not counted.
func (v semver) before(major, minor int) bool {
	return v.major < major || v.major == major && v.minor < minor
}

func (v semver) sameMinor(w semver) bool { return v.major == w.major && v.minor == w.minor }

// kubeMinor is the minor version of Kubernetes 1.x that an OpenShift 4.x is made of, 0 if
// that is not known.
func (v semver) kubeMinor() int {
	if v.major != 4 || v.minor < 1 {
		return 0
	}
	return v.minor + 13
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
