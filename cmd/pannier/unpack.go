package main

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/apply"
	"pannier/bundle/objects"
)

type unpackFlags struct {
	pushFlags
	reportFlags

	fromDir     cli.StringSlice
	releases    cli.StringSlice
	missingOnly bool
}

func (s *session) unpackCommand() *cli.Command {
	f := &unpackFlags{}
	flags := []cli.Flag{
		&cli.StringSliceFlag{Name: "release", Destination: &f.releases,
			Usage: "only the release `VERSION[-ARCH]`; repeatable; default: $OCP_RELEASE, else all"},
		&cli.StringSliceFlag{Name: "from-dir", Destination: &f.fromDir, Usage: "`MEDIA`, for those who are used to oc; repeatable"},
		&cli.BoolFlag{Name: "missing-only", Destination: &f.missingOnly,
			Usage: "read from the drive only what the registry lacks; by default every selected blob is read and hashed"},
	}
	flags = append(flags, f.pushFlags.flags("`URL` or directory of release signatures, for drives that carry none; nobody is asked without it; repeatable")...)
	flags = append(flags,
		&cli.StringFlag{Name: "receipt", Destination: &f.receipt, TakesFile: true,
			Usage: "write to `FILE` what arrived and what the registry was seen to hold, to be carried back for \"pannier pack --have FILE\"; beside it, in FILE.custody.jsonl, the custody log"},
		f.custodyFlag("enter this unpack in the custody log beside the drives, `FILE`, which is made if it is not there"))
	flags = append(append(flags, f.reportFlags.flags()...), f.reportFlags.keyFlag())
	return &cli.Command{
		Name: "unpack", Usage: "put releases into a registry: drive -> registry [-> cluster]", ArgsUsage: "MEDIA... REGISTRY/REPO",
		Description: "Every blob is verified before it is pushed; the drive is never written to. Nobody is asked\n" +
			"but the registry, and hosts that it names itself. The cluster objects go to stdout as YAML,\n" +
			"for oc apply -f -, or into a folder.\n" +
			"With --apply, --upgrade and --wait the cluster is brought to the release as well; whatever\n" +
			"stops that, the same command goes on from there.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.unpack(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) unpack(ctx context.Context, f *unpackFlags, args []string) (err error) {
	p := &pushing{}
	selectedBy, err := s.unpackOptions(f, args, p)
	if err != nil {
		return err
	}
	if err := s.checkReceipt(f, &p.opts); err != nil {
		return err
	}
	if err := s.startPush(ctx, &f.pushFlags, p); err != nil {
		return err
	}
	opts := &p.opts
	if opts.Stores = f.storeList(s.env); len(opts.Stores) > 0 {
		if opts.StoreClient, err = s.storeClient(f.authority); err != nil {
			return err
		}
	}
	if p.evidence, err = s.evidence(&f.reportFlags, &f.trustFlags, opts.DryRun, opts.Signatures, opts.Media...); err != nil {
		return err
	}
	defer func() { err = p.evidence.finish(ctx, err) }()
	opts.Progress = p.evidence.progress(opts.Progress)

	said := false
	opts.Planned = func(r *apply.UnpackResult) {
		said = true
		s.saving()
		s.sayLeftOut(*opts, r, selectedBy)
		s.sayPlan(r.Plan, "to be pushed", "")
	}
	result, err := apply.Unpack(ctx, *opts)
	if result != nil && !said {
		s.sayLeftOut(*opts, result, selectedBy)
	}
	err = s.pushed(ctx, p, result, err)
	return s.leaveReceipt(ctx, f, p, result, err)
}

// unpackOptions reads arguments, flags and the environment; selectedBy says which variable
// selects a release, if one does.
func (s *session) unpackOptions(f *unpackFlags, args []string, p *pushing) (selectedBy string, err error) {
	if f.checkAll && f.missingOnly {
		return "", usagef(s.command, "--check-all and --missing-only contradict each other")
	}
	if err := s.pushOptions(&f.pushFlags, p); err != nil {
		return "", err
	}
	opts := &p.opts
	opts.MissingOnly = f.missingOnly
	if opts.Releases, err = parseReleaseSelection(s.command, f.releases.Value()); err != nil {
		return "", err
	}
	if len(opts.Releases) == 0 {
		tag, variable, err := s.env.selection()
		if err != nil {
			return "", err
		}
		if tag != "" {
			opts.Releases, selectedBy = []string{tag}, variable
		}
	}
	dest, media, err := s.unpackArguments(f, args)
	if err != nil {
		return "", err
	}
	opts.Destination, opts.Media, s.drives = *dest, media, media
	return selectedBy, s.offDrive("--objects-dir", f.objectsDir)
}

// unpackArguments tells MEDIA... from REGISTRY/REPO: the last argument is the destination
// unless --to is given, it looks like a path, or it stands alone and exists.
func (s *session) unpackArguments(f *unpackFlags, args []string) (*objects.Destination, []string, error) {
	if err := swappedUnpack(s.command, f, args); err != nil {
		return nil, nil, err
	}
	media := append([]string{}, f.fromDir.Value()...)
	var dest *objects.Destination
	var err error
	last := len(args) - 1
	switch {
	case f.to != "":
		dest, err = parseDestination(s.command, "--to", f.to)
	case last >= 0 && !looksLikePath(args[last]) && !isFolder(args[last]) && (last > 0 || len(media) > 0 || !exists(args[last])):
		dest, err = parseDestination(s.command, "the last argument", args[last])
		args = args[:last]
	default:
		dest, err = s.env.destination()
	}
	if err != nil {
		return nil, nil, err
	}
	media = append(media, args...)
	if len(media) == 0 {
		if m := s.env.media(); m != "" {
			media = []string{m}
		} else {
			return nil, nil, usagef(s.command, "MEDIA is missing: pannier unpack MEDIA... REGISTRY/REPO, or set REMOVABLE_MEDIA_PATH")
		}
	}
	if dest == nil {
		if last > 0 && isFolder(args[last]) {
			return nil, nil, usagef(s.command, "REGISTRY/REPO is missing: %q is a folder, and so is taken for a drive; name the local registry and repository last, as registry.example:5000/ocp4/openshift4", args[last])
		}
		return nil, nil, usagef(s.command, "REGISTRY/REPO is missing: name the local registry and repository last, as registry.example:5000/ocp4/openshift4, or set LOCAL_REGISTRY and LOCAL_REPOSITORY")
	}
	var paths []string
	for _, m := range media {
		if m = s.env.expandHome(m); !slices.Contains(paths, m) {
			paths = append(paths, m)
		}
	}
	return dest, paths, nil
}

// swappedUnpack recognizes REGISTRY/REPO that stands before the drives.
func swappedUnpack(command string, f *unpackFlags, args []string) error {
	last := len(args) - 1
	if f.to != "" || last < 1 || looksLikePath(args[0]) || exists(args[0]) || !looksLikePath(args[last]) && !isFolder(args[last]) {
		return nil
	}
	if _, err := objects.ParseDestination(args[0]); err != nil {
		return nil
	}
	words := append(append([]string{"pannier", "unpack"}, args[1:]...), args[0])
	return usagef(command, "REGISTRY/REPO comes last; did you mean: %s", commandLine(words...))
}

// isFolder reports whether an argument names a folder that is there: then it is a drive,
// whatever else its name could mean.
func isFolder(arg string) bool {
	info, err := os.Stat(arg)
	return err == nil && info.IsDir()
}

func looksLikePath(arg string) bool { return arg != "" && strings.ContainsAny(arg[:1], "/.~") }

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// sayLeftOut tells which releases of the drives are left out because the environment selects
// one: whoever forgot about the variable should know.
func (s *session) sayLeftOut(opts apply.UnpackOptions, r *apply.UnpackResult, selectedBy string) {
	if selectedBy != "" {
		s.console.say("%s selects %s%s", selectedBy, strings.Join(opts.Releases, ", "), leftOutText(r.LeftOut))
	}
}

func leftOutText(left []string) string {
	if len(left) == 0 {
		return ""
	}
	return "; left out: " + strings.Join(left, ", ") + " (--release selects others)"
}
