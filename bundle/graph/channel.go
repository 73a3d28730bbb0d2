package graph

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"

	"pannier/bundle/release"
)

// DefaultURL is the public update service.
const DefaultURL = "https://api.openshift.com/api/upgrades_info/v1/graph"

var channelRule = regexp.MustCompile(`^([a-z][a-z0-9-]{0,62})-([0-9]{1,6})\.([0-9]{1,6})$`)

// ValidChannel reports whether s is the name of a channel: stable-4.20.
func ValidChannel(s string) bool { return channelRule.MatchString(s) }

// DefaultChannel is the channel that a version is looked for in: stable-4.20, or
// candidate-4.20 for a candidate.
func DefaultChannel(version string) string {
	v, ok := release.ParseVersion(version)
	if !ok {
		return ""
	}
	name := "stable"
	if v.Pre != "" {
		name = "candidate"
	}
	return fmt.Sprintf("%s-%d.%d", name, v.Major, v.Minor)
}

// Channels returns the channels whose graphs together hold the paths from a version to one of
// channel: channel itself, and those of the minor versions in between, since one spans two of
// them. Channels eus span three, and are there for even minor versions only.
func Channels(channel, from string) []string {
	out := []string{channel}
	m := channelRule.FindStringSubmatch(channel)
	v, ok := release.ParseVersion(from)
	if m == nil || !ok {
		return out
	}
	minor, _ := strconv.Atoi(m[3])
	step := 1
	if m[1] == "eus" {
		step = 2
	}
	for n := minor - step; m[2] == strconv.Itoa(v.Major) && n > v.Minor; n -= step {
		out = append(out, fmt.Sprintf("%s-%s.%d", m[1], m[2], n))
	}
	return out
}

// Query returns the address at which a service is asked for a channel; arch is as in tags.
func Query(service, channel, arch string) (string, error) {
	u, err := url.Parse(service)
	if err != nil {
		return "", err
	}
	q := u.Query()
	q.Set("arch", release.GoArch(arch))
	q.Set("channel", channel)
	u.RawQuery = q.Encode()
	return u.String(), nil
}
