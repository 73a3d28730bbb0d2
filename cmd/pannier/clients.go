package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/bundle/release"
)

// clientFlag is which clients are taken out of the releases.
type clientFlag struct{ clients cli.StringSlice }

func (f *clientFlag) flag() cli.Flag {
	return &cli.StringSliceFlag{Name: "with-clients", Destination: &f.clients,
		Usage: "take oc and openshift-install for `PLATFORM` out of the releases onto the drive: linux/amd64, mac/arm64, windows, …, several with commas between them, or all; repeatable"}
}

// values are the platforms; all says that those are meant that a release has.
func (f *clientFlag) values(s *session) (out []release.Platform, all bool, err error) {
	for _, text := range strings.Split(strings.Join(f.clients.Value(), ","), ",") {
		switch text = strings.TrimSpace(text); text {
		case "":
			continue
		case "all":
			return release.Platforms(), true, nil
		}
		p, err := release.ParsePlatform(text)
		if err != nil {
			return nil, false, usagef(s.command, "--with-clients: %s, or all", strings.TrimPrefix(err.Error(), release.ErrReference.Error()+": "))
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, false, nil
}
