package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pannier/apply"
	"pannier/apply/preflight"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/verify/signature"
)

// preflightGiveUp is how long a host may be silent: somebody who asks whether it works does
// not want to wait for a network that comes and goes.
const preflightGiveUp = 30 * time.Second

type preflightFlags struct {
	logFlags
	registryFlags
	trustFlags
	outputFlags
	clusterFlags
	updateFlags

	fromDir  cli.StringSlice
	to       string
	nodes    string
	releases cli.StringSlice
	mirrors  cli.StringSlice
	arch     string
	side     string
	prefix   string
	probe    bool
}

// Sides of a trip, the values of --side.
const (
	sideAuto = "auto"
	sideNear = "near"
	sideFar  = "far"
	sideBoth = "both"
)

func (s *session) preflightCommand() *cli.Command {
	f := &preflightFlags{}
	flags := []cli.Flag{
		&cli.StringFlag{Name: "side", Destination: &f.side, Value: sideAuto,
			Usage: "`SIDE` to look at: near (the internet side), far (the disconnected one), both, or auto (default): far if REGISTRY/REPO is an argument, else near"},
		&cli.StringSliceFlag{Name: "release", Destination: &f.releases,
			Usage: "the release `VERSION[-ARCH]` that is going to be packed, or that is meant of those on the drive; repeatable; default: $OCP_RELEASE"},
		&cli.StringFlag{Name: "arch", Destination: &f.arch,
			Usage: "`ARCH` of a release that does not say it: x86_64 (default), aarch64, ppc64le, s390x or multi; amd64 and arm64 are understood"},
		&cli.StringSliceFlag{Name: "from-dir", Destination: &f.fromDir, Usage: "`MEDIA`, for those who are used to oc"},
		&cli.StringFlag{Name: "to", Destination: &f.to, Usage: "`REGISTRY/REPO`, for those who are used to oc"},
		&cli.StringFlag{Name: "cluster-registry", Destination: &f.nodes,
			Usage: "the name `REGISTRY/REPO` by which the nodes know the registry, where it differs from the one that is reached from here"},
		&cli.StringSliceFlag{Name: "registry-mirror", Destination: &f.mirrors,
			Usage: "`FROM=TO`: ask TO for what is named FROM, a host or a host and the beginning of a path; repeatable"},
		&cli.StringFlag{Name: "additional-prefix", Destination: &f.prefix, Usage: "`PATH` that stands before the path of additional images"},
		&cli.BoolFlag{Name: "probe-nodes", Destination: &f.probe,
			Usage: "run one short pod in each machine config pool that pulls the release image: the proof that nodes can"},
	}
	flags = append(flags, f.updateFlags.flags()...)
	flags = append(flags, f.clusterFlags.flags()...)
	flags = append(flags, f.registryFlags.flags(preflightGiveUp)...)
	flags = append(flags, f.trustFlags.flags("`URL` or directory of release signatures; repeatable; default: the two public release stores")...)
	flags = append(flags, f.outputFlags.flags("`FORMAT` of stdout: text (default) or json")...)
	flags = append(flags, f.logFlags.flags()...)
	return &cli.Command{
		Name: "preflight", Usage: "say whether both sides are ready", ArgsUsage: "[MEDIA] [REGISTRY/REPO]",
		Description: "An argument is MEDIA if it begins with /, . or ~ or exists. Each check says what it has seen\n" +
			"and what to do. The cluster is looked at on the far side if a kubeconfig is known, or is\n" +
			"given. Exit code 0: nothing fails; otherwise the code of the worst.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.preflight(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) preflight(ctx context.Context, f *preflightFlags, args []string) error {
	asJSON, err := f.json(s.command)
	if err != nil {
		return err
	}
	opts, err := s.preflightOptions(f, args)
	if err != nil {
		return err
	}
	report, err := apply.Preflight(ctx, opts)
	if err != nil {
		return err
	}
	if asJSON {
		err = s.console.json(report)
	} else {
		err = s.printPreflight(report)
	}
	if err != nil {
		return err
	}
	if failed := report.Err(); failed != nil {
		return &codedError{code: exitCode(failed), is: failed}
	}
	return nil
}

func (s *session) printPreflight(r preflight.Report) error {
	count := map[preflight.Status]int{}
	for _, c := range r.Checks {
		count[c.Status]++
	}
	verdict := "READY"
	if !r.Ready {
		verdict = "NOT READY"
	}
	return s.console.print("%s%s: %d passed, %s, %d failed, %d skipped.\n", trusted(checksText(r.Checks)), verdict,
		count[preflight.Pass], content.Plural(count[preflight.Warn], "warning", "warnings"), count[preflight.Fail], count[preflight.Skip])
}

// places is what the arguments of preflight name.
type places struct {
	media string
	dest  *objects.Destination
	near  bool
	far   bool
}

func (s *session) preflightOptions(f *preflightFlags, args []string) (apply.PreflightOptions, error) {
	opts := apply.PreflightOptions{EtcdBackup: s.env.expandHome(f.etcdBackup), AllowPausedPools: f.paused.Value(), ProbeNodes: f.probe}
	p, err := s.preflightArguments(f, args)
	if err != nil {
		return opts, err
	}
	policy, err := f.policyValue(s.command)
	if err != nil {
		return opts, err
	}
	if err := s.start(&f.logFlags, nil); err != nil {
		return opts, err
	}
	registry, err := f.registryFlags.options(s)
	if err != nil {
		return opts, err
	}
	verifier, err := f.verifier(s)
	if err != nil {
		return opts, err
	}
	if p.near {
		if opts.Near, err = s.nearOptions(f, p, registry, verifier, policy); err != nil {
			return opts, err
		}
	}
	if p.far {
		if opts.Far, err = s.farOptions(f, p, registry, verifier, policy); err != nil {
			return opts, err
		}
		opts.Registry = registryOptions(opts.Far.Client, registry, *p.dest, opts.Far.Cluster, 0)
	}
	return opts, s.preflightCluster(f, p, &opts)
}

// preflightCluster connects to the cluster if one is known: on the far side any that is
// configured, on the near side only one that is named, as a workstation there may know
// clusters that have nothing to do with the trip.
func (s *session) preflightCluster(f *preflightFlags, p places, opts *apply.PreflightOptions) error {
	named := f.kubeconfig != "" || f.context != ""
	if !named && (!p.far || len(f.files(s.env)) == 0) {
		if f.probe {
			return usagef(s.command, "--probe-nodes needs a cluster: give --kubeconfig FILE")
		}
		opts.NoCluster = "not looked at: no kubeconfig is known; --kubeconfig FILE or KUBECONFIG names one"
		if !p.far {
			opts.NoCluster = "not looked at from the internet side; --kubeconfig FILE names a cluster"
		}
		return nil
	}
	var err error
	opts.Cluster, err = f.clusterFlags.connect(s)
	return err
}

// preflightArguments tells MEDIA from REGISTRY/REPO, and decides which side is looked at.
func (s *session) preflightArguments(f *preflightFlags, args []string) (p places, err error) {
	if f.to != "" {
		if p.dest, err = parseDestination(s.command, "--to", f.to); err != nil {
			return p, err
		}
	}
	media := f.fromDir.Value()
	for i, arg := range append(media, args...) {
		switch {
		case i < len(media) || looksLikePath(arg) || exists(arg):
			if p.media != "" {
				return p, usagef(s.command, "preflight takes one MEDIA, not two: %s and %s", p.media, arg)
			}
			p.media = arg
		case p.dest != nil:
			return p, usagef(s.command, "preflight takes one REGISTRY/REPO, not two: %s and %s (MEDIA begins with /, . or ~, or exists)", p.dest, arg)
		default:
			if p.dest, err = parseDestination(s.command, "the argument "+arg, arg); err != nil {
				return p, err
			}
		}
	}
	if p.media = s.env.expandHome(p.media); p.media == "" {
		p.media = s.env.media()
	}
	if p.media != "" {
		s.drives = []string{p.media}
	}
	switch f.side {
	case sideAuto, "":
		p.far = p.dest != nil
		p.near = !p.far
	case sideNear, sideFar, sideBoth:
		p.near, p.far = f.side != sideFar, f.side != sideNear
	default:
		return p, usagef(s.command, "--side is auto, near, far or both, not %q", f.side)
	}
	if p.far && p.dest == nil {
		if p.dest, err = s.env.destination(); err == nil && p.dest == nil {
			err = usagef(s.command, "REGISTRY/REPO is missing: the far side is that of the local registry, as registry.example:5000/ocp4/openshift4; or set LOCAL_REGISTRY and LOCAL_REPOSITORY")
		}
	}
	return p, err
}

func (s *session) nearOptions(f *preflightFlags, p places, registry remote.Options, v *signature.Verifier, policy bundle.Policy) (*preflight.NearOptions, error) {
	opts := &preflight.NearOptions{
		Media: p.media, Stores: f.storeList(s.env), Signatures: v, Policy: policy, Cache: s.cacheDir(), Logger: s.log,
	}
	texts, variable := f.releases.Value(), ""
	if len(texts) == 0 {
		var value string
		if value, variable = s.env.release(); value != "" {
			texts = []string{value}
		}
	}
	var err error
	if opts.Releases, err = s.parseReleases(&sourceFlags{arch: f.arch}, texts, variable, "MEDIA"); err != nil {
		return nil, err
	}
	if repository := s.env.repository(); repository != "" && len(opts.Releases) == 0 {
		opts.Repositories = []string{repository}
	}
	if registry.Mirrors, err = parseMirrors(s.command, f.mirrors.Value()); err != nil {
		return nil, err
	}
	opts.Client, err = remote.New(registry)
	return opts, err
}

func (s *session) farOptions(f *preflightFlags, p places, registry remote.Options, v *signature.Verifier, policy bundle.Policy) (*preflight.FarOptions, error) {
	opts := &preflight.FarOptions{
		Media: p.media, Destination: *p.dest, Prefix: f.prefix, Signatures: v, Policy: policy, Cache: s.cacheDir(), Logger: s.log,
	}
	var err error
	if f.nodes != "" {
		if opts.Cluster, err = parseDestination(s.command, "--cluster-registry", f.nodes); err != nil {
			return nil, err
		}
	}
	if p.near {
		// What is going to be packed is named as pack names it, and need not be on the drive yet.
		for _, text := range f.releases.Value() {
			if ref, err := release.ParseReference(text, release.Defaults{}); err == nil && !strings.Contains(text, "/") {
				opts.Releases = append(opts.Releases, ref.Version)
			}
		}
	} else if opts.Releases, err = parseReleaseSelection(s.command, f.releases.Value()); err != nil {
		return nil, err
	}
	if len(f.releases.Value()) == 0 && p.media != "" {
		tag, _, err := s.env.selection()
		if err != nil {
			return nil, err
		}
		if tag != "" {
			opts.Releases = []string{tag}
		}
	}
	registry.Confined = true
	if opts.Client, err = remote.New(registry); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return opts, nil
}
