package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/bundle"
	"pannier/bundle/release"
)

// sourceFlags is what pack and mirror are asked for at the registries of the internet side.
type sourceFlags struct {
	arch       string
	mirrors    cli.StringSlice
	additional cli.StringSlice
}

// flags; images is what --additional-image takes.
func (f *sourceFlags) flags(images string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "arch", Destination: &f.arch,
			Usage: "`ARCH` of a release given by its version alone: x86_64 (default, or $ARCHITECTURE), aarch64, ppc64le, s390x, multi; amd64 and arm64 are understood"},
		&cli.StringSliceFlag{Name: "registry-mirror", Destination: &f.mirrors,
			Usage: "`FROM=TO`: fetch what is named FROM, a host or a host and path, from TO instead; names keep FROM; repeatable"},
		&cli.StringSliceFlag{Name: "additional-image", Destination: &f.additional, Usage: images},
	}
}

// images reads --additional-image; local are those of layouts on the local disk.
func (f *sourceFlags) images(s *session) (out []release.Reference, local []bundle.LocalImage, err error) {
	command := s.command
	for _, text := range f.additional.Value() {
		if rest, ok := strings.CutPrefix(text, "oci:"); ok {
			dir, name, _ := cutLast(rest, "=")
			ref, err := release.ParseImageReference(name)
			if err != nil || ref.Tag == "" || ref.Digest != "" || dir == "" {
				return nil, nil, usagef(command, "--additional-image oci:DIR=REF takes the folder of an OCI image layout, and the name with a tag under which the image is carried, as oci:%s=registry.example/tools/pannier:1.0", orWord(dir, "DIR"))
			}
			local = append(local, bundle.LocalImage{Dir: s.env.expandHome(dir), Reference: ref})
			continue
		}
		ref, err := release.ParseImageReference(text)
		if err != nil {
			return nil, nil, usagef(command, "--additional-image: %v", err)
		}
		out = append(out, ref)
	}
	return out, local, nil
}

// cutLast is strings.Cut at the last separator; without one, all is before it.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
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
