package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"pannier/apply"
	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/remote"
)

type mirrorFlags struct {
	pushFlags
	sourceFlags
	reportFlags
}

func (s *session) mirrorCommand() *cli.Command {
	f := &mirrorFlags{}
	flags := append(append(f.sourceFlags.flags("push the image `REF` too; repeatable"), f.reportFlags.flags()...),
		f.pushFlags.flags("`URL` or directory of release signatures, laid out sha256=<hex>/signature-N, instead of the public stores; repeatable")...)
	return &cli.Command{
		Name: "mirror", Usage: "put releases into a registry without a drive: registry -> registry [-> cluster]", ArgsUsage: "RELEASE... REGISTRY/REPO",
		Description: "For hosts that reach both sides. RELEASE is 4.8.21, 4.8.21-x86_64 or a pull spec by tag or\n" +
			"digest. What the registry lacks is read, verified as it passes, and pushed; nothing is\n" +
			"stored on the way. Run it again to continue: what is there is not read. --insecure means\n" +
			"the registry that is pushed to. The cluster objects go to stdout or into a folder, and\n" +
			"--apply, --upgrade and --wait go on to the cluster, as with unpack.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.mirror(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) mirror(ctx context.Context, f *mirrorFlags, args []string) (err error) {
	p := &pushing{}
	from, err := s.mirrorOptions(f, args, p)
	if err != nil {
		return err
	}
	mirrors, err := parseMirrors(s.command, f.mirrors.Value())
	if err != nil {
		return err
	}
	if err := s.startPush(ctx, &f.pushFlags, p); err != nil {
		return err
	}
	opts := &p.opts
	source := p.reach
	source.Mirrors, source.InsecureHosts = mirrors, []string{opts.Destination.Registry}
	if from.Client, err = remote.New(source); err != nil {
		return err
	}
	if p.evidence, err = s.evidence(&f.reportFlags, &f.trustFlags, opts.DryRun, opts.Signatures); err != nil {
		return err
	}
	defer func() { err = p.evidence.finish(ctx, err) }()
	opts.Progress = p.evidence.progress(opts.Progress)
	from.Signatures, from.Progress, from.Logger = opts.Signatures, opts.Progress, s.log
	opts.Planned = func(r *apply.UnpackResult) {
		s.saving()
		s.sayPlan(r.Plan, "to be pushed", "")
	}
	result, err := apply.Mirror(ctx, *from, *opts)
	return s.pushed(ctx, p, result, err)
}

// mirrorOptions reads arguments, flags and the environment.
func (s *session) mirrorOptions(f *mirrorFlags, args []string, p *pushing) (*bundle.ResolveOptions, error) {
	if err := s.pushOptions(&f.pushFlags, p); err != nil {
		return nil, err
	}
	p.opts.MissingOnly = true
	from := &bundle.ResolveOptions{Stores: f.storeList(s.env), Policy: p.opts.Policy, Jobs: f.jobs}
	var err error
	var local []bundle.LocalImage
	if from.Additional, local, err = f.images(s); err != nil {
		return nil, err
	}
	if len(local) > 0 {
		return nil, usagef(s.command, "--additional-image oci:DIR: mirror takes images from registries; put it onto a drive with pack, or push it with another tool")
	}
	dest, releases, err := s.mirrorArguments(f, args)
	if err != nil {
		return nil, err
	}
	p.opts.Destination = *dest
	variable := ""
	if len(releases) == 0 {
		value := ""
		if value, variable = s.env.release(); value != "" {
			releases = []string{value}
		} else if len(from.Additional) == 0 {
			return nil, usagef(s.command, "RELEASE is missing: say before %q which release to mirror, as 4.8.21, or set OCP_RELEASE", dest)
		}
	}
	from.Releases, err = s.parseReleases(&f.sourceFlags, releases, variable, "REGISTRY/REPO")
	return from, err
}

// isDestination reports whether an argument reads as REGISTRY/REPO and as no release.
func isDestination(arg string) bool {
	_, err := objects.ParseDestination(arg)
	return err == nil && !release.IsReference(arg)
}

// mirrorArguments tells RELEASE... from REGISTRY/REPO: the last argument is the destination
// unless --to is given or it reads as a release.
func (s *session) mirrorArguments(f *mirrorFlags, args []string) (*objects.Destination, []string, error) {
	var dest *objects.Destination
	var err error
	last := len(args) - 1
	switch {
	case f.to != "":
		dest, err = parseDestination(s.command, "--to", f.to)
	case last >= 0 && (looksLikePath(args[last]) || isFolder(args[last])):
		return nil, nil, usagef(s.command, "%q is a folder, and mirror needs REGISTRY/REPO; to fill a drive: %s", args[last],
			commandLine(append([]string{"pannier", "pack"}, args...)...))
	case last > 0 && isDestination(args[0]) && release.IsReference(args[last]):
		return nil, nil, usagef(s.command, "REGISTRY/REPO comes last; did you mean: %s",
			commandLine(append(append([]string{"pannier", "mirror"}, args[1:]...), args[0])...))
	case last >= 0 && !release.IsReference(args[last]):
		dest, err = parseDestination(s.command, "the last argument", args[last])
		args = args[:last]
	default:
		dest, err = s.env.destination()
	}
	if err == nil && dest == nil {
		err = usagef(s.command, "REGISTRY/REPO is missing: name the registry and repository to push to last, as registry.example:5000/ocp4/openshift4, or set LOCAL_REGISTRY and LOCAL_REPOSITORY")
	}
	return dest, args, err
}
