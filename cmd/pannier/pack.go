package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/bundle"
	"pannier/bundle/parity"
	"pannier/bundle/release"
	"pannier/bundle/remote"
)

type packFlags struct {
	logFlags
	registryFlags
	trustFlags
	progressFlags
	outputFlags
	mirrorSetFlag
	sourceFlags
	releaseTextFlag
	clientFlag
	toolFlags
	updateGraphFlags
	reportFlags

	toDir   string
	dest    string
	dryRun  bool
	refresh bool
	verify  bool
	only    string
	prefix  string
	parity  string
	adopt   string
	have    cli.StringSlice
	signers string
}

func (s *session) packCommand() *cli.Command {
	f := &packFlags{}
	flags := []cli.Flag{
		&cli.StringFlag{Name: "to-dir", Destination: &f.toDir, Usage: "`MEDIA`, for those who are used to oc"},
		&cli.StringFlag{Name: "adopt", Destination: &f.adopt,
			Usage: "take over the folder `DIR` that oc adm release mirror --to-dir wrote: what is wanted is copied from there, and only the rest is fetched; without RELEASE everything in it that is whole and signed, and no network is needed"},
		&cli.StringFlag{Name: "for", Destination: &f.dest,
			Usage: "the destination `REGISTRY/REPO` is known: render, keep and print its mirror set now (default: $LOCAL_REGISTRY/$LOCAL_REPOSITORY)"},
		&cli.BoolFlag{Name: "dry-run", Destination: &f.dryRun, Usage: "say what would be done; write nothing anywhere"},
		&cli.BoolFlag{Name: "refresh", Destination: &f.refresh,
			Usage: "ask again for signatures and other documents of releases that are sealed already"},
		f.releaseTextFlag.flag(),
		f.clientFlag.flag(),
		&cli.BoolFlag{Name: "verify", Destination: &f.verify,
			Usage: "read and hash what is on the drive already, too, and fetch again what is bad"},
		&cli.StringFlag{Name: "only", Destination: &f.only, TakesFile: true,
			Usage: "make a supplement of what the refetch list `FILE` names, which \"pannier audit --refetch-list\" wrote; no RELEASE then"},
		&cli.StringSliceFlag{Name: "have", Destination: &f.have, TakesFile: true,
			Usage: "pack only what the registry on the other side lacks, by the receipt or inventory in `FILE`; the drive then is for that registry; repeatable"},
		&cli.StringFlag{Name: "trusted-signers", Destination: &f.signers, TakesFile: true,
			Usage: "with --have: each must be signed by somebody that `FILE` names, in the format of ssh-keygen's allowed_signers"},
		&cli.StringFlag{Name: "additional-prefix", Destination: &f.prefix,
			Usage: "`PATH` that stands before the path of additional images at the destination"},
		&cli.StringFlag{Name: "parity", Destination: &f.parity,
			Usage: "`PERCENT` of the drive spent on parity, from which damage is healed without a network: 5% (default), up to 50%; 0 for none"},
		f.mirrorSetFlag.flag(),
	}
	flags = append(flags, f.toolFlags.flags()...)
	flags = append(flags, f.sourceFlags.flags("carry the image `REF` too; repeatable; oci:DIR=REF is an image of the OCI image layout in DIR, carried as REF")...)
	flags = append(flags, f.updateGraphFlags.flags()...)
	flags = append(flags, f.registryFlags.flags(defaultGiveUp)...)
	flags = append(flags, f.trustFlags.flags("`URL` or directory of release signatures, laid out sha256=<hex>/signature-N, instead of the public stores; repeatable")...)
	flags = append(flags, f.progressFlags.flags("parallel transfers (default: 4)")...)
	flags = append(append(flags, f.reportFlags.flags()...), f.reportFlags.keyFlag())
	flags = append(flags, f.outputFlags.flags("`FORMAT` of stdout: text (default) or json; with --dry-run")...)
	flags = append(flags, f.logFlags.flags()...)
	return &cli.Command{
		Name: "pack", Usage: "put releases on a drive: registry -> drive", ArgsUsage: "RELEASE... MEDIA",
		Description: "RELEASE is 4.8.21, 4.8.21-x86_64 or a pull spec by tag or digest. MEDIA is a folder on the\n" +
			"drive; it is made if its parent exists. Defaults come from OCP_RELEASE and the other\n" +
			"variables of the usual runbook. Run it again to continue or to add releases.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.pack(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) pack(ctx context.Context, f *packFlags, args []string) (err error) {
	asJSON, err := f.dryJSON(s.command, f.dryRun)
	if err != nil {
		return err
	}
	opts, err := s.packOptions(f, args)
	if err != nil {
		return err
	}
	s.drives = []string{opts.Media}
	if err := s.start(&f.logFlags, &f.progressFlags); err != nil {
		return err
	}
	opts.Logger, opts.Progress = s.log, s.progress.event
	registry, err := f.registryFlags.options(s)
	if err != nil {
		return err
	}
	if registry.Mirrors, err = parseMirrors(s.command, f.mirrors.Value()); err != nil {
		return err
	}
	if opts.Client, err = remote.New(registry); err != nil {
		return err
	}
	verifier, err := f.verifier(s)
	if err != nil {
		return err
	}
	opts.Signatures = verifier
	evidence, err := s.evidence(&f.reportFlags, &f.trustFlags, opts.DryRun, verifier, opts.Media)
	if err != nil {
		return err
	}
	defer func() { err = evidence.finish(ctx, err) }()
	opts.Progress = evidence.progress(opts.Progress)
	if opts.Have, err = s.holdings(f); err != nil {
		return err
	}

	warned := 0 // warnings that were printed with the plan
	if !opts.DryRun {
		opts.Planned = func(r *bundle.PackResult) {
			s.sayPlan(r.Plan, "to be "+moved(opts), "free on the drive")
			s.warnAll(r.Warnings)
			warned = len(r.Warnings)
			s.saving()
		}
	}
	result, err := bundle.Pack(ctx, opts)
	s.progress.finish(err)
	if tree := (*bundle.DirectoryError)(nil); errors.As(err, &tree) && opts.Adopt == "" {
		return adoptInstead(s.command, args, opts, tree.Dir)
	}
	if result == nil {
		return err
	}
	evidence.packed(ctx, f, opts, result, err)
	s.result = packResult(result)
	s.warnAll(result.Warnings[min(warned, len(result.Warnings)):])
	if printErr := s.printPack(f, opts, result, asJSON, err); err == nil {
		err = printErr
	}
	return err
}

// packOptions reads arguments, flags and the environment.
func (s *session) packOptions(f *packFlags, args []string) (bundle.PackOptions, error) {
	opts := bundle.PackOptions{
		DryRun: f.dryRun, Refresh: f.refresh, Verify: f.verify, Jobs: f.jobs, Prefix: f.prefix,
		Stores: f.storeList(s.env), Cache: s.cacheDir(), Program: "pannier " + buildVersion(),
	}
	var err error
	if err = f.checkStores(s); err != nil {
		return opts, err
	}
	if opts.Policy, err = f.policyValue(s.command); err != nil {
		return opts, err
	}
	opts.Parity = parity.DefaultShare
	if f.parity != "" {
		if opts.Parity, err = parity.ParseShare(f.parity); err != nil {
			return opts, usagef(s.command, "--parity: %v", err)
		}
	}
	if opts.MirrorSet, err = f.mirrorSetFlag.value(s.command); err != nil {
		return opts, err
	}
	if opts.Destination, err = s.env.destination(); f.dest != "" {
		opts.Destination, err = parseDestination(s.command, "--for", f.dest)
	}
	if err != nil {
		return opts, err
	}
	if opts.Additional, opts.Local, err = f.images(s); err != nil {
		return opts, err
	}
	if opts.Texts, err = f.releaseTextFlag.values(s); err != nil {
		return opts, err
	}
	if opts.Clients, opts.AnyClients, err = f.clientFlag.values(s); err != nil {
		return opts, err
	}
	if opts.Tools, err = f.toolFlags.values(s); err != nil {
		return opts, err
	}
	if f.only != "" {
		return s.onlyOptions(f, args, opts)
	}
	if opts.Releases, opts.Media, err = s.packArguments(f, args, len(opts.Additional)+len(opts.Local) > 0 || f.adopt != ""); err != nil {
		return opts, err
	}
	if opts.Adopt = s.env.expandHome(f.adopt); opts.Adopt != "" && filepath.Clean(opts.Adopt) == filepath.Clean(opts.Media) {
		return opts, usagef(s.command, "--adopt %s is MEDIA itself; it is copied from there into a folder of its own: name another one as MEDIA", f.adopt)
	}
	if f.adopt != "" && len(opts.Releases) == 0 && f.channel != "" {
		return opts, usagef(s.command, "--adopt takes over the releases that are there; to fetch the newest of a channel too, name it as RELEASE")
	}
	arch, err := s.archValue(&f.sourceFlags)
	if err != nil {
		return opts, err
	}
	opts.Updates, err = f.updateGraphFlags.options(s, opts.Releases, release.Defaults{Repository: s.env.repository(), Arch: arch})
	return opts, err
}

// onlyOptions are those of a pack of a supplement: the list, and MEDIA.
func (s *session) onlyOptions(f *packFlags, args []string, opts bundle.PackOptions) (bundle.PackOptions, error) {
	if len(f.have.Value()) > 0 || len(opts.Additional)+len(opts.Local) > 0 || f.refresh || f.dest != "" || opts.Texts != nil || f.from != "" || f.channel != "" || len(f.graphs.Value()) > 0 || len(opts.Clients) > 0 || len(opts.Tools) > 0 {
		return opts, usagef(s.command, "--only makes a supplement, which holds no images: --have, --additional-image, --for, --refresh, --release-txt, --with-clients, --with-tool, --upgrade-from, --channel and --graph do not go with it")
	}
	if f.toDir != "" {
		args = append([]string{f.toDir}, args...)
	}
	if len(args) != 1 || release.IsReference(args[0]) {
		return opts, usagef(s.command, "--only takes no RELEASE: pannier pack --only FILE MEDIA, with MEDIA a new or empty folder")
	}
	name := s.env.expandHome(f.only)
	if err := s.env.checkNamed("--only", name); err != nil {
		return opts, usagef(s.command, "%v", err)
	}
	raw, err := readFile(name, bundle.MaxRefetchList)
	if err != nil {
		return opts, err
	}
	if opts.Only, err = bundle.ParseRefetchList(raw); err != nil {
		return opts, usagef(s.command, "--only %s: %v; it takes the file that \"pannier audit --refetch-list FILE\" wrote", f.only, err)
	}
	opts.Media, opts.Destination = s.env.expandHome(args[0]), nil
	return opts, nil
}

// packArguments tells RELEASE... from MEDIA. The last argument is MEDIA unless it reads as a
// release, --to-dir is given, or there is none; the environment fills in what is missing.
func (s *session) packArguments(f *packFlags, args []string, releasesOptional bool) ([]release.Reference, string, error) {
	media, releases := f.toDir, args
	if n := len(args); media == "" && n > 0 && !release.IsReference(args[n-1]) {
		media, releases = args[n-1], args[:n-1]
	}
	if err := swappedPack(s.command, f, args); err != nil {
		return nil, "", err
	}
	if media == "" {
		if media = s.env.media(); media == "" {
			if n := len(args); n > 0 {
				return nil, "", usagef(s.command, "MEDIA is missing: %q reads as a release; name a folder on the drive last (one that looks like a release as ./%s), or set REMOVABLE_MEDIA_PATH",
					args[n-1], args[n-1])
			}
			return nil, "", usagef(s.command, "RELEASE and MEDIA are missing: pannier pack RELEASE... MEDIA, as pannier pack 4.8.21 /media/usb/mirror")
		}
	}
	variable := ""
	if len(releases) == 0 && f.channel == "" { // a channel on the command line wins over the environment
		value := ""
		if value, variable = s.env.release(); value != "" && f.adopt == "" { // with --adopt, what is there is meant
			releases = []string{value}
		} else if !releasesOptional {
			return nil, "", usagef(s.command, "RELEASE is missing: say before %q which release to pack, as 4.8.21, or set OCP_RELEASE", media)
		}
	}
	refs, err := s.parseReleases(&f.sourceFlags, releases, variable, "MEDIA")
	return refs, s.env.expandHome(media), err
}

// swappedPack recognizes MEDIA that stands before the releases, and REGISTRY/REPO where a release or
// MEDIA belongs, and says how it is meant.
func swappedPack(command string, f *packFlags, args []string) error {
	n := len(args)
	if f.toDir != "" || n < 2 {
		return nil
	}
	first, last := args[0], args[n-1]
	isMedia := func(arg string) bool { return looksLikePath(arg) || isFolder(arg) }
	isRegistry := func(arg string) bool {
		host, _, _ := strings.Cut(arg, "/")
		return !isMedia(arg) && isDestination(arg) && (strings.ContainsAny(host, ".:") || host == "localhost")
	}
	switch {
	case isMedia(first) && isRegistry(last):
		return usagef(command, "pack takes RELEASE... MEDIA, and %s is REGISTRY/REPO; to put what is on the drive %s there: %s", last, first,
			commandLine("pannier", "unpack", first, last))
	case isRegistry(first) && isMedia(last):
		return usagef(command, "pack takes RELEASE... MEDIA, and %s is REGISTRY/REPO; a release there is named with its tag or digest, %s:4.8.21-x86_64; to put what is on the drive %s there: %s", first, first, last,
			commandLine("pannier", "unpack", last, first))
	case isRegistry(last) && release.IsReference(first) && !isFolder(filepath.Dir(last)):
		return usagef(command, "pack takes RELEASE... MEDIA, and %s is no folder on a drive but REGISTRY/REPO; to put releases there without a drive: %s; to pack for it, name MEDIA last, and --for %s", last,
			commandLine(append([]string{"pannier", "mirror"}, args...)...), last)
	case !looksLikePath(first) || looksLikePath(last):
		return nil
	}
	for _, a := range args[1:] {
		if !release.IsReference(a) {
			return nil
		}
	}
	words := append(append([]string{"pannier", "pack"}, args[1:]...), args[0])
	return usagef(command, "MEDIA is missing: it comes last; did you mean: %s", commandLine(words...))
}

// adoptInstead answers a pack onto a folder that oc wrote with the command that takes it over.
func adoptInstead(command string, args []string, opts bundle.PackOptions, dir string) error {
	words := []string{"pannier", "pack"}
	for _, a := range args {
		if a != opts.Media {
			words = append(words, a)
		}
	}
	words = append(words, filepath.Join(filepath.Dir(filepath.Clean(dir)), "pannier"), "--adopt", dir)
	return usagef(command, "%s was written by oc adm release mirror --to-dir; pannier takes it over into a folder of its own, copying what is whole: %s", dir, commandLine(words...))
}
