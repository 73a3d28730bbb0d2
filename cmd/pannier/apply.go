package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/apply"
	"pannier/apply/cluster"
	"pannier/bundle/objects"
	"pannier/bundle/remote"
)

// deliveryFlags is what apply and upgrade read, and for which registry.
type deliveryFlags struct {
	logFlags
	registryFlags
	trustFlags
	progressFlags
	outputFlags
	mirrorSetFlag
	clusterFlags

	fromDir  cli.StringSlice
	to       string
	nodes    string
	releases cli.StringSlice
	prefix   string
	dryRun   bool
	wait     bool

	objectsDir string // of apply alone
}

func (f *deliveryFlags) flags(releaseUsage string) []cli.Flag {
	flags := []cli.Flag{
		&cli.StringSliceFlag{Name: "release", Destination: &f.releases, Usage: releaseUsage},
		&cli.StringSliceFlag{Name: "from-dir", Destination: &f.fromDir, Usage: "FROM, a `MEDIA` or a folder of objects, for those who are used to oc"},
		&cli.StringFlag{Name: "to", Destination: &f.to, Usage: "`REGISTRY/REPO`, for those who are used to oc"},
		&cli.StringFlag{Name: "cluster-registry", Destination: &f.nodes,
			Usage: "the name `REGISTRY/REPO` by which the nodes know the registry, where it differs from the one that is reached from here"},
		&cli.BoolFlag{Name: "dry-run", Destination: &f.dryRun, Usage: "say what would be done; the API server checks it and keeps nothing"},
		waitFlag(&f.wait),
	}
	flags = append(flags, f.clusterFlags.flags()...)
	flags = append(flags, f.registryFlags.flags(defaultGiveUp)...)
	flags = append(flags, f.trustFlags.flags("`URL` or directory of release signatures, for drives that carry none; nobody is asked without it; repeatable")...)
	flags = append(flags, f.progressFlags.flags("questions to the registry at a time (default: 8)")...)
	flags = append(flags, f.outputFlags.flags("`FORMAT` of stdout: text (default) or json; with --dry-run")...)
	return append(flags, f.logFlags.flags()...)
}

// delivered is what apply and upgrade both begin with.
type delivered struct {
	opts     apply.DeliveryOptions
	registry apply.RegistryOptions
	cluster  *cluster.Cluster
	delivery *apply.Delivery
}

// deliver reads flags and arguments, connects, and reads FROM.
func (s *session) deliver(ctx context.Context, f *deliveryFlags, args []string) (*delivered, error) {
	d := &delivered{opts: apply.DeliveryOptions{Prefix: f.prefix, Cache: s.cacheDir()}}
	opts := &d.opts
	selectedBy, err := s.deliveryOptions(f, args, opts)
	if err != nil {
		return nil, err
	}
	if err := s.start(&f.logFlags, &f.progressFlags); err != nil {
		return nil, err
	}
	opts.Logger = s.log
	registry, err := f.registryFlags.options(s)
	if err != nil {
		return nil, err
	}
	registry.Confined = true
	client, err := remote.New(registry)
	if err != nil {
		return nil, err
	}
	d.registry = registryOptions(client, registry, opts.Destination, opts.Cluster, f.jobs)
	d.registry.Progress = s.progress.event
	if opts.Stores = f.storeList(s.env); len(opts.Stores) > 0 {
		if opts.StoreClient, err = s.storeClient(f.authority); err != nil {
			return nil, err
		}
	}
	verifier, err := f.verifier(s)
	if err != nil {
		return nil, err
	}
	opts.Signatures = verifier
	if d.cluster, err = f.clusterFlags.connect(s); err != nil {
		return nil, err
	}
	if d.delivery, err = apply.ReadDelivery(ctx, *opts); err != nil {
		return nil, err
	}
	s.warnAll(d.delivery.Warnings)
	if selectedBy != "" {
		s.console.say("%s selects %s%s", selectedBy, strings.Join(opts.Releases, ", "), leftOutText(d.delivery.LeftOut))
	}
	return d, nil
}

// deliveryOptions reads arguments, flags and the environment; selectedBy says which variable
// selects a release, if one does.
func (s *session) deliveryOptions(f *deliveryFlags, args []string, opts *apply.DeliveryOptions) (selectedBy string, err error) {
	if opts.Policy, err = f.policyValue(s.command); err != nil {
		return "", err
	}
	if opts.MirrorSet, err = f.mirrorSetFlag.value(s.command); err != nil {
		return "", err
	}
	if f.nodes != "" {
		if opts.Cluster, err = parseDestination(s.command, "--cluster-registry", f.nodes); err != nil {
			return "", err
		}
	}
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
	from, dest, err := s.deliveryArguments(f, args)
	if err != nil {
		return "", err
	}
	opts.From, opts.Destination = from, *dest
	return selectedBy, s.refuseLoopback(s.command, opts.Destination, opts.Cluster)
}

// deliveryArguments tells FROM from REGISTRY/REPO, as unpack tells MEDIA from it.
func (s *session) deliveryArguments(f *deliveryFlags, args []string) (from string, dest *objects.Destination, err error) {
	last := len(args) - 1
	switch {
	case f.to != "":
		dest, err = parseDestination(s.command, "--to", f.to)
	case last >= 0 && !looksLikePath(args[last]) && (last > 0 || len(f.fromDir.Value()) > 0 || !exists(args[last])):
		dest, err = parseDestination(s.command, "the last argument", args[last])
		args = args[:last]
	default:
		dest, err = s.env.destination()
	}
	if err != nil {
		return "", nil, err
	}
	args = append(f.fromDir.Value(), args...)
	switch {
	case len(args) > 1:
		return "", nil, usagef(s.command, "%s takes one FROM, not %d: %s", s.command, len(args), strings.Join(args, " "))
	case len(args) == 1:
		from = s.env.expandHome(args[0])
	default:
		if from = s.env.media(); from == "" {
			return "", nil, usagef(s.command, "FROM is missing: pannier %s FROM REGISTRY/REPO, FROM being the folder on the drive or one that --objects-dir wrote", s.command)
		}
	}
	if dest == nil {
		return "", nil, usagef(s.command, "REGISTRY/REPO is missing: name the local registry and repository last, as registry.example:5000/ocp4/openshift4, or set LOCAL_REGISTRY and LOCAL_REPOSITORY")
	}
	if isFolder(filepath.Join(from, "pannier")) { // a drive, and no folder that --objects-dir wrote
		s.drives = []string{from}
	}
	return from, dest, s.offDrive("--objects-dir", f.objectsDir)
}

type applyFlags struct{ deliveryFlags }

func (s *session) applyCommand() *cli.Command {
	f := &applyFlags{}
	flags := append([]cli.Flag{
		f.mirrorSetFlag.flag(),
		&cli.StringFlag{Name: "objects-dir", Destination: &f.objectsDir, Usage: "write the cluster objects into `DIR` as well, as unpack does"},
		&cli.StringFlag{Name: "additional-prefix", Destination: &f.prefix, Usage: "`PATH` that stands before the path of additional images"},
	}, f.deliveryFlags.flags("only the release `VERSION[-ARCH]`; repeatable; default: $OCP_RELEASE, else all")...)
	return &cli.Command{
		Name: "apply", Usage: "signature ConfigMaps and mirror sets -> cluster", ArgsUsage: "FROM REGISTRY/REPO",
		Description: "FROM is MEDIA, or a folder that --objects-dir wrote. What the cluster says already is left\n" +
			"alone; what will be written and what that does to the nodes is said before. Without --wait\n" +
			"one table of pools and nodes is printed. Exit code 8: the cluster refused or is not reached.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.apply(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) apply(ctx context.Context, f *applyFlags, args []string) error {
	asJSON, err := f.dryJSON(s.command, f.dryRun)
	if err != nil {
		return err
	}
	d, err := s.deliver(ctx, &f.deliveryFlags, args)
	if err != nil {
		return err
	}
	ahead := d.delivery.Ahead(ctx, d.registry)
	if !asJSON {
		s.warnAll(ahead)
	}
	if f.objectsDir != "" && !f.dryRun {
		if err := d.delivery.WriteObjects(s.env.expandHome(f.objectsDir)); err != nil {
			return err
		}
	}
	opts := apply.DeliverOptions{Cluster: d.cluster, Kind: d.opts.MirrorSet, DryRun: f.dryRun, Wait: f.wait}
	if !f.dryRun {
		opts.Planned = s.sayClusterPlan(d.cluster)
	}
	r, err := apply.Deliver(ctx, d.delivery, opts)
	s.progress.close()
	switch {
	case err != nil:
		return err
	case asJSON:
		return s.printApplyJSON(d, r.Plan, ahead)
	case f.dryRun:
		s.warnAll(r.Plan.Warnings)
		return s.console.print("%s\n# Nothing was written: this was a dry run.\n", trusted(clusterPlanText(d.cluster.Server(), r.Plan)))
	}
	if text := statesText(r.Pools, r.Nodes); text != "" {
		err = s.console.print("%s\n", trusted(text))
	}
	if !f.wait && r.Plan.Writes() {
		s.console.say("The rollout goes on in the cluster; the same command with --wait follows it.")
	}
	return err
}

// sayClusterPlan tells what will be written before it is.
func (s *session) sayClusterPlan(c *cluster.Cluster) func(*cluster.Plan) {
	return func(p *cluster.Plan) {
		s.console.say("%s", trusted(clusterPlanText(c.Server(), p)))
		s.warnAll(p.Warnings)
	}
}

// applyDocument is what a dry run of apply prints as JSON: the objects whole, and what would
// be done with each.
type applyDocument struct {
	Objects []json.RawMessage    `json:"objects"`
	Cluster *clusterPlanDocument `json:"cluster"`
}

func (s *session) printApplyJSON(d *delivered, p *cluster.Plan, warnings []string) error {
	doc := applyDocument{Objects: []json.RawMessage{}, Cluster: planDocumentOf(d.cluster.Server(), p, warnings)}
	for _, c := range p.Changes {
		var raw json.RawMessage
		if err := objects.Decode(c.Object.YAML, &raw); err != nil {
			return fmt.Errorf("object %s %s: %w", c.Object.Kind, c.Object.Name, err)
		}
		doc.Objects = append(doc.Objects, raw)
	}
	return s.console.json(doc)
}
