package release

import (
	"fmt"
	"strings"
)

// Platform is an operating system and an architecture, as Go spells them.
type Platform struct{ OS, Arch string }

// String returns the platform as Go does: linux/amd64.
func (p Platform) String() string { return p.OS + "/" + p.Arch }

// Folder is the name of the platform in paths on a drive: linux-amd64.
func (p Platform) Folder() string { return p.OS + "-" + p.Arch }

// clientFolders are the platforms that releases bring clients for, and the folders that they
// keep them in.
var clientFolders = []struct {
	Platform
	folder string
}{
	{Platform{"darwin", "amd64"}, "mac"},
	{Platform{"darwin", "arm64"}, "mac_arm64"},
	{Platform{"linux", "amd64"}, "linux_amd64"},
	{Platform{"linux", "arm64"}, "linux_arm64"},
	{Platform{"linux", "ppc64le"}, "linux_ppc64le"},
	{Platform{"linux", "s390x"}, "linux_s390x"},
	{Platform{"windows", "amd64"}, "windows"},
}

// Platforms are the platforms that releases bring clients for.
func Platforms() []Platform {
	var out []Platform
	for _, f := range clientFolders {
		out = append(out, f.Platform)
	}
	return out
}

// ParsePlatform reads a platform as people write it: linux/amd64, linux-amd64, linux-x86_64,
// mac-arm64, windows. Errors wrap [ErrReference].
func ParsePlatform(s string) (Platform, error) {
	system, arch, _ := strings.Cut(strings.ToLower(s), "/")
	if arch == "" {
		system, arch, _ = strings.Cut(strings.ToLower(s), "-")
	}
	switch system {
	case "mac", "macos":
		system = "darwin"
	case "windows":
		if arch == "" {
			arch = "amd64"
		}
	}
	if a, err := NormalizeArch(arch); err == nil {
		arch = GoArch(a)
	}
	for _, p := range Platforms() {
		if p.OS == system && p.Arch == arch {
			return p, nil
		}
	}
	return Platform{}, fmt.Errorf("%w: platform %q is none of %s", ErrReference, s, joinPlatforms())
}

func joinPlatforms() string {
	var out []string
	for _, p := range Platforms() {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

// Client is a program for a platform inside a release.
type Client struct {
	Platform  Platform
	Name      string // of the file: oc, oc.exe, openshift-install
	Component string // that holds it
	Path      string // in the component's image
}

// Clients are the programs that a release for arch, as in tags, may bring for a platform. Not
// every release brings every one.
func Clients(p Platform, arch string) []Client {
	for _, f := range clientFolders {
		if f.Platform != p {
			continue
		}
		dir := "usr/share/openshift/" + f.folder + "/"
		if p.OS == "windows" {
			return []Client{{p, "oc.exe", "cli-artifacts", dir + "oc.exe"}}
		}
		install := Client{p, "openshift-install", "installer-artifacts", dir + "openshift-install"}
		if p.OS == "linux" && (p.Arch == GoArch(arch) || arch == Multi) {
			install.Component, install.Path = "installer", "usr/bin/openshift-install"
		}
		return []Client{{p, "oc", "cli-artifacts", dir + "oc"}, install}
	}
	return nil
}
