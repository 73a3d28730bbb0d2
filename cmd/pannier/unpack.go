package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/apply"
	"pannier/bundle/objects"
	"pannier/bundle/remote"
)

type unpackFlags struct {
	logFlags
	registryFlags
	trustFlags
	progressFlags
	outputFlags
	mirrorSetFlag
	clusterFlags
	updateFlags

	fromDir     cli.StringSlice
	to          string
	cluster     string
	releases    cli.StringSlice
	objectsDir  string
	prefix      string
	dryRun      bool
	checkAll    bool
	missingOnly bool

	apply   bool
	upgrade bool
	wait    bool
}

func (s *session) unpackCommand() *cli.Command {
	f := &unpackFlags{}
	flags := []cli.Flag{
		&cli.StringSliceFlag{Name: "release", Destination: &f.releases,
			Usage: "only the release `VERSION[-ARCH]`; repeatable; default: $OCP_RELEASE, else all"},
		&cli.StringSliceFlag{Name: "from-dir", Destination: &f.fromDir, Usage: "`MEDIA`, for those who are used to oc; repeatable"},
		&cli.StringFlag{Name: "to", Destination: &f.to, Usage: "`REGISTRY/REPO`, for those who are used to oc"},
		&cli.StringFlag{Name: "cluster-registry", Destination: &f.cluster,
			Usage: "the name `REGISTRY/REPO` by which the nodes know the registry, where it differs from the one pushed to"},
		&cli.BoolFlag{Name: "dry-run", Destination: &f.dryRun, Usage: "say what would be done; write nothing anywhere"},
		&cli.StringFlag{Name: "objects-dir", Destination: &f.objectsDir, Usage: "write the cluster objects into `DIR`; without it they are printed"},
		&cli.BoolFlag{Name: "check-all", Destination: &f.checkAll, Usage: "ask the registry for every blob, not only every manifest, and read the end of each (64 KiB) back"},
		&cli.BoolFlag{Name: "missing-only", Destination: &f.missingOnly,
			Usage: "read from the drive only what the registry lacks; by default every selected blob is read and hashed"},
		&cli.StringFlag{Name: "additional-prefix", Destination: &f.prefix, Usage: "`PATH` that stands before the path of additional images"},
		f.mirrorSetFlag.flag(),
		&cli.BoolFlag{Name: "apply", Destination: &f.apply, Usage: "go on to the cluster with the objects, once everything is at the registry"},
		&cli.BoolFlag{Name: "upgrade", Destination: &f.upgrade,
			Usage: "then ask the cluster for the release; with --apply, the rollout of the mirror sets is waited for first"},
		waitFlag(&f.wait),
	}
	flags = append(flags, f.updateFlags.flags()...)
	flags = append(flags, f.clusterFlags.flags()...)
	flags = append(flags, f.registryFlags.flags(defaultGiveUp)...)
	flags = append(flags, f.trustFlags.flags("`URL` or directory of release signatures, for drives that carry none; nobody is asked without it; repeatable")...)
	flags = append(flags, f.progressFlags.flags("parallel transfers (default: 4)")...)
	flags = append(flags, f.outputFlags.flags("`FORMAT` of stdout: text (default) or json; with --dry-run")...)
	flags = append(flags, f.logFlags.flags()...)
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

func (s *session) unpack(ctx context.Context, f *unpackFlags, args []string) error {
	asJSON, err := f.dryJSON(s.command, f.dryRun)
	if err != nil {
		return err
	}
	opts, selectedBy, err := s.unpackOptions(f, args)
	if err != nil {
		return err
	}
	if err := s.start(&f.logFlags, &f.progressFlags); err != nil {
		return err
	}
	opts.Logger, opts.Progress = s.log, s.progress.event
	registry, err := f.registryFlags.options(s)
	if err != nil {
		return err
	}
	registry.Confined = true
	if opts.Client, err = remote.New(registry); err != nil {
		return err
	}
	chain, err := s.chain(ctx, f, registry, &opts)
	if err != nil {
		return err
	}
	if opts.Stores = f.storeList(s.env); len(opts.Stores) > 0 {
		if opts.StoreClient, err = s.storeClient(f.authority); err != nil {
			return err
		}
	}
	verifier, err := f.verifier(s)
	if err != nil {
		return err
	}
	opts.Signatures = verifier

	said := false
	opts.Planned = func(r *apply.UnpackResult) {
		said = true
		s.sayLeftOut(opts, r, selectedBy)
		s.sayPlan(r.Plan, "to be pushed", "")
	}
	result, err := apply.Unpack(ctx, opts)
	var several *apply.SeveralError
	if errors.As(err, &several) {
		return severalReleases(s.command, several)
	}
	s.progress.finish(err)
	if result == nil {
		return err
	}
	s.result = unpackResult(result)
	if !said {
		s.sayLeftOut(opts, result, selectedBy)
	}
	if chain != nil {
		return s.goOn(ctx, chain, opts, result, asJSON, err)
	}
	if printErr := s.printUnpack(opts, result, asJSON, nil, err); err == nil {
		err = printErr
	}
	return err
}

// unpackOptions reads arguments, flags and the environment; selectedBy says which variable
// selects a release, if one does.
func (s *session) unpackOptions(f *unpackFlags, args []string) (opts apply.UnpackOptions, selectedBy string, err error) {
	opts = apply.UnpackOptions{
		Prefix: f.prefix, CheckAll: f.checkAll, MissingOnly: f.missingOnly, DryRun: f.dryRun,
		ObjectsDir: s.env.expandHome(f.objectsDir), Jobs: f.jobs, Cache: s.cacheDir(),
	}
	if f.checkAll && f.missingOnly {
		return opts, "", usagef(s.command, "--check-all and --missing-only contradict each other")
	}
	if opts.Policy, err = f.policyValue(s.command); err != nil {
		return opts, "", err
	}
	if opts.MirrorSet, err = f.mirrorSetFlag.value(s.command); err != nil {
		return opts, "", err
	}
	if f.cluster != "" {
		if opts.Cluster, err = parseDestination(s.command, "--cluster-registry", f.cluster); err != nil {
			return opts, "", err
		}
	}
	if opts.Releases, err = parseReleaseSelection(s.command, f.releases.Value()); err != nil {
		return opts, "", err
	}
	if len(opts.Releases) == 0 {
		tag, variable, err := s.env.selection()
		if err != nil {
			return opts, "", err
		}
		if tag != "" {
			opts.Releases, selectedBy = []string{tag}, variable
		}
	}
	dest, media, err := s.unpackArguments(f, args)
	if err != nil {
		return opts, "", err
	}
	opts.Destination, opts.Media = *dest, media
	return opts, selectedBy, nil
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

func (s *session) printUnpack(opts apply.UnpackOptions, r *apply.UnpackResult, asJSON bool, chain *chain, failure error) error {
	c := s.console
	s.warnAll(r.Warnings)
	if opts.DryRun {
		switch {
		case failure != nil:
			return nil
		case asJSON:
			return s.printPlanJSON(r.Plan, chain.document())
		}
		return s.printPlan(r.Plan, "would be pushed", "")
	}
	cluster := opts.Destination
	if opts.Cluster != nil {
		cluster = *opts.Cluster
	}
	if opts.ObjectsDir == "" && len(r.Objects) > 0 {
		// Where both streams are one terminal, the objects need an edge.
		shown := isTerminal(c.stdout, s.env)
		if shown {
			c.prose("The cluster objects (--objects-dir DIR writes them to files instead):")
		}
		if err := s.printObjects(r.Objects, "for "+cluster.String()); err != nil {
			return err
		}
		if shown {
			c.say("%s", strings.Repeat("=", min(c.width, 72)))
		}
	}

	rows := [][]string{
		{"pushed", fmt.Sprintf("%d blobs, %s", r.Pushed.Blobs, bytesText(r.Pushed.Bytes)), "read, verified and pushed"},
		{"there already", fmt.Sprintf("%d blobs, %s", r.Present.Blobs, bytesText(r.Present.Bytes)), "read and verified, not pushed"},
	}
	if opts.MissingOnly || r.Skipped.Blobs > 0 {
		rows = append(rows, []string{"skipped", fmt.Sprintf("%d blobs, %s", r.Skipped.Blobs, bytesText(r.Skipped.Bytes)), "not read: the registry has them"})
	}
	if r.Documents.Blobs > 0 {
		rows = append(rows, []string{"documents", fmt.Sprintf("%d blobs, %s", r.Documents.Blobs, bytesText(r.Documents.Bytes)), "read and verified; they stay on the drive"})
	}
	if len(r.Refused) > 0 {
		rows = append(rows, []string{"REFUSED", fmt.Sprintf("%d blobs or images", len(r.Refused)), "listed below"})
	}
	for _, contact := range r.Contacts {
		via := "direct"
		if contact.Proxy != "" {
			via = "through the proxy " + contact.Proxy
		}
		rows = append(rows, []string{"contacted", contact.Host, contact.Why + ", " + via})
	}
	if moved := r.Pushed.Blobs + r.Present.Blobs + r.Skipped.Blobs + r.Documents.Blobs; failure == nil || moved > 0 || len(r.Refused) > 0 {
		c.say("%s", trusted(table(rows)))
	}
	s.sayReleases(r)
	if failure != nil {
		return nil
	}
	if chain == nil {
		s.sayObjects(opts, r)
	}
	return nil
}

func (s *session) sayReleases(r *apply.UnpackResult) {
	for _, rel := range r.Releases {
		state := "complete"
		if !rel.Complete {
			state = "NOT COMPLETE"
		}
		s.console.say("release %s, %s\n    %s", rel.Tag, state, rel.Image)
		s.console.prose("    signature %s", signatureText(rel.Signature))
	}
}

// sayObjects says what to do with the cluster objects, and prints what a person types next.
func (s *session) sayObjects(opts apply.UnpackOptions, r *apply.UnpackResult) {
	c := s.console
	switch {
	case len(r.Objects) == 0:
	case opts.ObjectsDir != "":
		c.say("Cluster objects, to be applied in this order:")
		for _, o := range r.Objects {
			c.say("  %s", objectPath(opts.ObjectsDir, o))
		}
	default:
		c.prose("%d cluster objects are on stdout: save them with --objects-dir DIR, or pipe them into \"oc apply -f -\".", len(r.Objects))
	}
	if len(r.InstallConfig) > 0 {
		c.say("For a new cluster, into install-config.yaml:")
		for _, line := range strings.Split(strings.TrimRight(string(r.InstallConfig), "\n"), "\n") {
			c.say("  %s", line)
		}
	}
	var commands []string
	for _, rel := range r.Releases {
		if rel.Complete {
			commands = append(commands, "oc adm upgrade --allow-explicit-upgrade --to-image "+rel.Image)
		}
	}
	if len(commands) == 0 {
		return
	}
	which := "the release with"
	if len(commands) > 1 {
		which = "one of these releases with one of these"
	}
	c.prose("When the objects are applied, ask the cluster for %s:", which)
	for _, command := range commands {
		c.say("%s", command)
	}
	c.prose("or let pannier do both, with its checks: pannier apply, then pannier upgrade, or --apply --upgrade --wait here.")
}

// objectPath is where apply.Unpack writes an object.
func objectPath(dir string, o objects.Object) string {
	return strings.TrimRight(dir, "/") + "/" + o.FileName()
}
