package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	"pannier/bundle/remote"
)

// releaseTextFlag is which release.txt releases are compared with.
type releaseTextFlag struct{ texts cli.StringSlice }

func (f *releaseTextFlag) flag() cli.Flag {
	return &cli.StringSliceFlag{Name: "release-txt", Destination: &f.texts,
		Usage: "`SOURCE` is a file or address of release.txt, each for the release that it is of, or none; digests must agree (default: the public client mirror, if release and signatures come from their public places); repeatable"}
}

// values are what was named: nil if the flag was not given, empty for none.
func (f *releaseTextFlag) values(s *session) ([]string, error) {
	names := f.texts.Value()
	if slices.Contains(names, "none") {
		if len(names) > 1 {
			return nil, usagef(s.command, "--release-txt none stands alone")
		}
		return []string{}, nil
	}
	var out []string
	for _, name := range names {
		if !remote.IsAddress(name) {
			name = s.env.expandHome(name)
			if err := s.env.checkNamed("--release-txt", name); err != nil {
				return nil, usagef(s.command, "%v", err)
			}
		}
		out = append(out, name)
	}
	return out, nil
}
