package main

import (
	"context"
	"fmt"
	"time"

	"pannier/apply"
	"pannier/apply/cluster"
	"pannier/bundle/remote"
)

// chain is what unpack goes on with, at the cluster.
type chain struct {
	apply    bool
	upgrade  bool
	wait     bool
	cluster  *cluster.Cluster
	registry apply.RegistryOptions
	update   *updateFlags
	plan     *cluster.Plan // of a dry run
}

// chain reads the flags for the cluster; nil if there are none. What can be found out about
// them before hours of pushing is found out here.
func (s *session) chain(ctx context.Context, f *pushFlags, registry remote.Options, opts *apply.UnpackOptions) (*chain, error) {
	switch {
	case f.wait && !f.apply && !f.upgrade:
		return nil, usagef(s.command, "--wait goes with --apply or --upgrade: without them there is nothing to wait for")
	case !f.upgrade && (f.etcdBackup != "" || len(f.paused.Value()) > 0):
		return nil, usagef(s.command, "--etcd-backup and --allow-paused-pool go with --upgrade")
	case !f.apply && !f.upgrade && f.receipt == "" && (f.kubeconfig != "" || f.context != ""):
		return nil, usagef(s.command, "--kubeconfig and --context go with --apply or --upgrade, or of unpack with --receipt: without them the cluster is not touched")
	case !f.apply && !f.upgrade:
		return nil, nil
	}
	what := "--apply"
	if !f.apply {
		what = "--upgrade"
	}
	if err := s.refuseLoopback(what, opts.Destination, opts.Cluster); err != nil {
		return nil, err
	}
	c := &chain{apply: f.apply, upgrade: f.upgrade, wait: f.wait, update: &f.updateFlags}
	var err error
	if c.cluster, err = f.clusterFlags.connect(s); err != nil {
		return nil, err
	}
	if f.etcdBackup != "" {
		if _, err := cluster.ParseBackup(ctx, s.env.expandHome(f.etcdBackup), time.Now()); err != nil {
			return nil, fmt.Errorf("%w: etcd-backup: %w", cluster.ErrGuard, err)
		}
	}
	c.registry = registryOptions(opts.Client, registry, opts.Destination, opts.Cluster, 2*opts.Jobs)
	opts.Confirm, opts.OneRelease, opts.Current = true, f.upgrade, c.cluster.Version
	return c, nil
}

// document is the cluster's part of a dry run's JSON.
func (c *chain) document() *clusterPlanDocument {
	if c == nil || c.plan == nil {
		return nil
	}
	return planDocumentOf(c.cluster.Server(), c.plan, nil)
}

// goOn ends an unpack and goes on to the cluster, unless something was refused.
func (s *session) goOn(ctx context.Context, c *chain, opts apply.UnpackOptions, r *apply.UnpackResult, asJSON bool, failure error) error {
	delivery := r.Delivery(opts.Media)
	if opts.DryRun {
		return s.goOnDry(ctx, c, delivery, opts, r, asJSON, failure)
	}
	printErr := s.printPush(opts, r, asJSON, c, failure)
	switch {
	case failure != nil:
		s.console.say("The cluster was not touched: not everything that was selected is at the registry.")
		return failure
	case printErr != nil:
		return printErr
	}
	s.console.say("The registry was asked for every manifest and blob: it holds them.")
	if c.apply {
		result, err := apply.Deliver(ctx, delivery, apply.DeliverOptions{
			// An update can only be asked for once the nodes have the mirrors.
			Cluster: c.cluster, Kind: opts.MirrorSet, Wait: c.wait || c.upgrade, Planned: s.sayClusterPlan(c.cluster),
		})
		if err != nil {
			return err
		}
		if text := statesText(result.Pools, result.Nodes); text != "" && !c.upgrade {
			s.console.say("%s", trusted(text))
		}
	}
	if !c.upgrade {
		return nil
	}
	s.progress = startProgress(s.mode, s.console) // that of the push has been closed
	c.registry.Progress = s.progress.event
	result, err := s.ask(ctx, c.upgradeOptions(s, delivery, opts))
	s.progress.close()
	if err != nil || result == nil {
		return err
	}
	s.console.say("%s", trusted(upgradeText(result, false, c.wait)))
	return nil
}

func (c *chain) upgradeOptions(s *session, d *apply.Delivery, opts apply.UnpackOptions) apply.UpgradeOptions {
	return apply.UpgradeOptions{
		Cluster: c.cluster, Delivery: d, Registry: c.registry,
		Signatures: opts.Signatures, Policy: opts.Policy, Cache: opts.Cache, Logger: s.log,
		EtcdBackup: s.env.expandHome(c.update.etcdBackup), AllowPausedPools: c.update.paused.Value(), Wait: c.wait,
	}
}

// goOnDry says what would be done at the cluster. Whether it can be asked for the release is
// for preflight to say: most of what is looked at then is what this would bring.
func (s *session) goOnDry(ctx context.Context, c *chain, d *apply.Delivery, opts apply.UnpackOptions, r *apply.UnpackResult, asJSON bool, failure error) error {
	if failure == nil && c.apply {
		result, err := apply.Deliver(ctx, d, apply.DeliverOptions{Cluster: c.cluster, Kind: opts.MirrorSet, DryRun: true})
		if err != nil {
			return err
		}
		c.plan = result.Plan
		s.warnAll(result.Plan.Warnings)
	}
	err := s.printPush(opts, r, asJSON, c, failure)
	if failure != nil {
		err = failure
	}
	if err != nil || asJSON {
		return err
	}
	if c.plan != nil {
		if err := s.console.print("%s\n", trusted(clusterPlanText(c.cluster.Server(), c.plan))); err != nil {
			return err
		}
	}
	if !c.upgrade || len(d.Releases) == 0 {
		return nil
	}
	rel, err := d.Next(ctx, c.cluster.Version)
	if err != nil {
		return err
	}
	return s.console.print("Then the cluster would be asked for %s, unless a check stands against it:\n  %s\n", rel.Version, rel.Image)
}
