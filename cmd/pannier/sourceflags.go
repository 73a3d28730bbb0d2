package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/bundle/release"
)

// sourceFlags is what pack and mirror are asked for at the registries of the internet side.
type sourceFlags struct {
	arch       string
	mirrors    cli.StringSlice
	additional cli.StringSlice
}

func (f *sourceFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "arch", Destination: &f.arch,
			Usage: "`ARCH` of a release given by its version alone: x86_64 (default, or $ARCHITECTURE), aarch64, ppc64le, s390x, multi; amd64 and arm64 are understood"},
		&cli.StringSliceFlag{Name: "registry-mirror", Destination: &f.mirrors,
			Usage: "`FROM=TO`: fetch what is named FROM, a host or a host and path, from TO instead; names keep FROM; repeatable"},
		&cli.StringSliceFlag{Name: "additional-image", Destination: &f.additional, Usage: "carry the image `REF` too; repeatable"},
	}
}

// images reads --additional-image.
func (f *sourceFlags) images(command string) ([]release.Reference, error) {
	var out []release.Reference
	for _, text := range f.additional.Value() {
		ref, err := release.ParseImageReference(text)
		if err != nil {
			return nil, usagef(command, "--additional-image: %v", err)
		}
		out = append(out, ref)
	}
	return out, nil
}

// archNamed says who named the architecture.
func archNamed(flag string) string {
	if flag != "" {
		return "--arch"
	}
	return "ARCHITECTURE"
}

// archValue is the architecture of releases that do not say it; "" if nobody named one.
func (s *session) archValue(f *sourceFlags) (string, error) {
	arch := f.arch
	if arch == "" {
		arch = s.env("ARCHITECTURE")
	}
	if arch == "" {
		return "", nil
	}
	normal, err := release.NormalizeArch(arch)
	if err != nil {
		return "", usagef(s.command, "%s: %s", archNamed(f.arch), strings.TrimPrefix(err.Error(), release.ErrReference.Error()+": "))
	}
	return normal, nil
}

// parseReleases reads RELEASE..., which come from variable if that is not empty; last is what
// the last argument of the command is.
func (s *session) parseReleases(f *sourceFlags, texts []string, variable, last string) ([]release.Reference, error) {
	arch, err := s.archValue(f)
	if err != nil {
		return nil, err
	}
	var refs []release.Reference
	for _, text := range texts {
		ref, err := release.ParseReference(text, release.Defaults{Repository: s.env.repository(), Arch: arch})
		switch {
		case err != nil && variable != "":
			return nil, usagef(s.command, "%s: %v", variable, err)
		case err != nil:
			return nil, usagef(s.command, "%v (only the last argument is %s)", err, last)
		case f.arch != "" && ref.Arch != "" && ref.Arch != arch && variable == "":
			return nil, usagef(s.command, "--arch %s contradicts %s", f.arch, text)
		}
		if !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}
