package release

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

// Version is a version of OpenShift, or of what it is made of: 4.8.21, 4.14.0-rc.2.
type Version struct {
	Major, Minor, Patch int
	Pre                 string // what stands behind the hyphen
}

// Kubelets say v1.21 and build metadata; the patch may be left out.
var looseRule = regexp.MustCompile(`^v?([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?(?:-([0-9A-Za-z.-]+))?(?:\+.*)?$`)

// ParseVersion reads a version; ok is false for what is none.
func ParseVersion(s string) (v Version, ok bool) {
	m := looseRule.FindStringSubmatch(s)
	if m == nil {
		return v, false
	}
	v.Major, _ = strconv.Atoi(m[1])
	v.Minor, _ = strconv.Atoi(m[2])
	v.Patch, _ = strconv.Atoi(m[3])
	v.Pre = m[4]
	return v, true
}

// Compare orders versions as semantic versioning does.
func (v Version) Compare(w Version) int {
	if c := cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor), cmp.Compare(v.Patch, w.Patch)); c != 0 {
		return c
	}
	switch {
	case v.Pre == w.Pre:
		return 0
	case v.Pre == "":
		return 1 // a release comes after its candidates
	case w.Pre == "":
		return -1
	}
	a, b := strings.Split(v.Pre, "."), strings.Split(w.Pre, ".")
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

// SameMinor reports whether v and w differ in nothing but patch and pre-release.
func (v Version) SameMinor(w Version) bool { return v.Major == w.Major && v.Minor == w.Minor }
