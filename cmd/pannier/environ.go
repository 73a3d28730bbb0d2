package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"pannier/bundle/objects"
	"pannier/bundle/release"
)

// environ is the environment as the program looks at it: the block of variables of the
// usual mirroring runbook, which keeps working, and the places where registries' tools and
// desktops keep files. Arguments and flags win over all of it.
type environ func(name string) string

// release returns the runbook's release, and the variable that names it.
func (env environ) release() (value, variable string) {
	for _, name := range []string{"OCP_RELEASE", "OCP_RELEASE_NUMBER"} {
		if v := strings.TrimSpace(env(name)); v != "" {
			return v, name
		}
	}
	return "", ""
}

// repository returns the repository that a bare version stands for.
func (env environ) repository() string {
	product, name := env("PRODUCT_REPO"), env("RELEASE_NAME")
	if product == "" && name == "" {
		return ""
	}
	if product == "" {
		product = "openshift-release-dev"
	}
	if name == "" {
		name = "ocp-release"
	}
	return "quay.io/" + strings.Trim(product, "/") + "/" + strings.Trim(name, "/")
}

// media returns the folder on the removable drive.
func (env environ) media() string {
	mount := env("REMOVABLE_MEDIA_PATH")
	if mount == "" {
		return ""
	}
	return filepath.Join(mount, "mirror")
}

// destination returns the local registry's repository, nil if the runbook's block does not
// name one.
func (env environ) destination() (*objects.Destination, error) {
	registry, repository := env("LOCAL_REGISTRY"), env("LOCAL_REPOSITORY")
	if registry == "" || repository == "" {
		return nil, nil
	}
	d, err := objects.ParseDestination(registry + "/" + strings.Trim(repository, "/"))
	if err != nil {
		return nil, usagef("", "LOCAL_REGISTRY and LOCAL_REPOSITORY: %v", err)
	}
	return &d, nil
}

// authFiles returns where pull secrets are looked for, in order, when no flag names one;
// explicit says that the runbook's LOCAL_SECRET_JSON names exactly one.
func (env environ) authFiles() (files []string, explicit bool) {
	if f := env("LOCAL_SECRET_JSON"); f != "" {
		return []string{f}, true
	}
	if f := env("REGISTRY_AUTH_FILE"); f != "" {
		files = append(files, f)
	}
	if dir := env("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	}
	if home := env("HOME"); home != "" {
		files = append(files,
			filepath.Join(home, ".config", "containers", "auth.json"),
			filepath.Join(home, ".docker", "config.json"))
	}
	return files, false
}

// kubeconfigs returns the files that say how to reach the cluster, as oc finds them: those of
// KUBECONFIG, else ~/.kube/config if it is there; nil if there is none.
func (env environ) kubeconfigs() []string {
	var files []string
	for _, f := range filepath.SplitList(env("KUBECONFIG")) {
		if f != "" {
			files = append(files, f)
		}
	}
	if home := env("HOME"); len(files) == 0 && home != "" {
		if f := filepath.Join(home, ".kube", "config"); exists(f) {
			files = []string{f}
		}
	}
	return files
}

// selection returns the release that the runbook's block selects on a drive, "4.8.21" or
// "4.8.21-x86_64", and the variable that does; both empty if it selects none.
func (env environ) selection() (tag, variable string, err error) {
	value, variable := env.release()
	if value == "" {
		return "", "", nil
	}
	arch := ""
	if a := env("ARCHITECTURE"); a != "" {
		if arch, err = release.NormalizeArch(a); err != nil {
			return "", "", usagef("", "ARCHITECTURE: %v", err)
		}
	}
	ref, err := release.ParseReference(value, release.Defaults{Repository: env.repository(), Arch: arch})
	switch {
	case err != nil:
		return "", "", usagef("", "%s: %v", variable, err)
	case ref.Version == "":
		return "", "", usagef("", "%s=%s names no version; say with --release VERSION-ARCH which release of the drive is meant", variable, value)
	case arch == "" && !strings.HasSuffix(value, "-"+ref.Arch):
		// Nobody said an architecture: the drive's own decides.
		return ref.Version, variable, nil
	}
	return ref.Version + "-" + ref.Arch, variable, nil
}

// cacheDir returns where private copies of the index may lie: in the user's cache folder; ""
// where there is no home that can be written.
func (env environ) cacheDir() string {
	dir := env("XDG_CACHE_HOME")
	if dir == "" && env("HOME") != "" {
		dir = filepath.Join(env("HOME"), ".cache")
	}
	if dir != "" && filepath.IsAbs(dir) && canCreate(dir) {
		return filepath.Join(dir, "pannier")
	}
	return ""
}

// cacheDir is that of the environment, or else a new folder for this run alone, which nobody
// else can have prepared; it is removed when the command is over.
func (s *session) cacheDir() string {
	if dir := s.env.cacheDir(); dir != "" {
		return dir
	}
	if s.scratch == "" {
		dir, err := os.MkdirTemp("", "pannier-") // 0700
		if err != nil {
			s.scratchErr = fmt.Errorf("no folder for private copies of the index; HOME and TMPDIR say where: %w", err)
			return ""
		}
		s.scratch = dir
	}
	return s.scratch
}

// canCreate reports whether dir can be written or made. It tries, since neither mode bits
// nor the user's id tell on network and read-only file systems.
func canCreate(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err == nil {
			if !info.IsDir() {
				return false
			}
			break
		}
		parent := filepath.Dir(dir)
		if !os.IsNotExist(err) || parent == dir {
			return false
		}
		dir = parent
	}
	f, err := os.CreateTemp(dir, ".pannier-*")
	if err != nil {
		return false
	}
	f.Close()
	os.Remove(f.Name())
	return true
}

// expandHome replaces a leading "~/", which a shell leaves alone behind "=".
func (env environ) expandHome(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok && env("HOME") != "" {
		return filepath.Join(env("HOME"), rest)
	}
	return path
}
