package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"pannier/apply/cluster"
	"pannier/apply/preflight"
	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/remote"
)

// DeliverOptions say how [Deliver] brings a delivery to a cluster. Cluster must be set.
type DeliverOptions struct {
	Cluster *cluster.Cluster
	Kind    objects.Kind // of the mirror sets; "" lets the cluster decide
	DryRun  bool
	Wait    bool                // until every node of every pool that is not paused has the mirrors
	Planned func(*cluster.Plan) // called once it is known what will be done, before the first write; may be nil
}

// DeliverResult is what [Deliver] did, as far as it came with an error too.
type DeliverResult struct {
	Plan  *cluster.Plan
	Pools []cluster.PoolState // after the writes, and after the wait if there is one
	Nodes []cluster.NodeState
}

// Deliver brings the objects of a delivery to a cluster: signatures, then mirror sets, then,
// if asked to, it waits for the rollout. It may be called again at any time: what is there
// is left alone. Errors are those of package cluster.
func Deliver(ctx context.Context, d *Delivery, opts DeliverOptions) (*DeliverResult, error) {
	r := &DeliverResult{}
	var err error
	r.Plan, err = opts.Cluster.Apply(ctx, cluster.ApplyOptions{
		Objects: d.Objects, Alternatives: d.Alternatives, Kind: opts.Kind, DryRun: opts.DryRun, Planned: opts.Planned,
	})
	if err != nil {
		return r, err
	}
	r.Pools, r.Nodes = r.Plan.Pools, r.Plan.Nodes
	if opts.DryRun {
		return r, nil
	}
	if opts.Wait {
		if r.Pools, err = opts.Cluster.WaitRollout(ctx, cluster.RolloutOptions{Objects: applied(r.Plan)}); err != nil {
			return r, err
		}
	}
	pools, nodes, err := opts.Cluster.States(ctx)
	if err == nil {
		r.Pools, r.Nodes = pools, nodes
	} else if errors.Is(err, cluster.ErrForbidden) {
		err = nil // the plan has said so
	}
	return r, err
}

// applied are the objects of a plan, in the form that was chosen.
func applied(p *cluster.Plan) []objects.Object {
	var out []objects.Object
	for _, c := range p.Changes {
		if c.Object.Kind != "ConfigMap" {
			out = append(out, c.Object)
		}
	}
	return out
}

// SeveralError says that it must be said which of several releases is meant.
type SeveralError struct {
	Releases []objects.ReleaseInfo
	Current  string // version of the cluster, if it was asked: no path that was packed leads on from there, or several do
}

func (e *SeveralError) Error() string {
	tags := make([]string, len(e.Releases))
	for i, r := range e.Releases {
		tags[i] = release.Tag(r.Version, r.Arch)
	}
	return fmt.Sprintf("there are %d releases to choose from: %s", len(tags), strings.Join(tags, ", "))
}

// Candidate is the one release of a delivery that a cluster can be asked for. Errors are
// [*SeveralError], and [bundle.ErrNoRelease] if there is none.
func (d *Delivery) Candidate() (objects.ReleaseInfo, error) {
	switch len(d.Releases) {
	case 0:
		return objects.ReleaseInfo{}, fmt.Errorf("%s: %w: nothing to ask a cluster for", d.From, bundle.ErrNoRelease)
	case 1:
		return d.Releases[0], nil
	}
	return objects.ReleaseInfo{}, &SeveralError{Releases: slices.Clone(d.Releases)}
}

// RegistryOptions say how a registry is looked at for a cluster. Client and Destination must
// be set.
type RegistryOptions struct {
	Client      *remote.Client
	Destination objects.Destination
	Cluster     *objects.Destination // the name by which the nodes know it, if another
	Jobs        int
	Progress    bundle.ProgressFunc

	// Login makes a client that has a pull secret and nothing else; nil leaves out the
	// check that the cluster's pull secret opens the registry.
	Login func(pullSecret []byte) (*remote.Client, error)
}

func (o *RegistryOptions) nodes() objects.Destination {
	if o.Cluster != nil {
		return *o.Cluster
	}
	return o.Destination
}

// Ahead says of which releases the registry knows nothing yet: applying does no harm then,
// and brings nothing either. A registry that does not answer is said too, and no error: the
// one who applies need not be one who can reach it.
func (d *Delivery) Ahead(ctx context.Context, reg RegistryOptions) []string {
	var out []string
	for _, r := range d.Releases {
		repo, err := reg.Client.Repository(reg.Destination.String())
		if err == nil {
			_, err = repo.Resolve(ctx, r.Digest.String())
		}
		switch {
		case isAbsent(err):
			out = append(out, fmt.Sprintf("%s does not hold release %s yet: unpack it before the cluster is asked for it", reg.Destination, release.Tag(r.Version, r.Arch)))
		case err != nil:
			return append(out, fmt.Sprintf("whether %s holds the release is not known: %v", reg.Destination, err))
		}
	}
	return out
}

// UpgradeOptions say how [Upgrade] asks a cluster. Cluster, Delivery and Registry must be set.
type UpgradeOptions struct {
	Cluster  *cluster.Cluster
	Delivery *Delivery
	Registry RegistryOptions

	Signatures bundle.SignatureVerifier // for the checks of a drive
	Policy     bundle.Policy
	Cache      string

	EtcdBackup       string
	AllowPausedPools []string
	DryRun           bool
	Wait             bool

	Checked func(preflight.Check)        // told of each check as it is done; may be nil
	Asking  func(*cluster.UpgradeResult) // called once nothing stands against it, before the request; may be nil
	Logger  *slog.Logger
}

// Upgrade asks a cluster for the one release of a delivery, or the next on the path that was
// packed ([Delivery.Next]), once the checks of the far side
// and of the cluster have passed and the registry holds every manifest and blob of it. Checks
// that are about pushing are left out: nothing is pushed any more, and the registry may be
// closed to it. Errors are those of [Delivery.Next] and of package cluster.
func Upgrade(ctx context.Context, opts UpgradeOptions) (*cluster.UpgradeResult, error) {
	info, err := opts.Delivery.Next(ctx, opts.Cluster.Version)
	if err != nil {
		return nil, err
	}
	target := targetOf(info)
	reg := &opts.Registry
	return opts.Cluster.Upgrade(ctx, cluster.UpgradeOptions{
		Target: target, DryRun: opts.DryRun, Wait: opts.Wait, Asking: opts.Asking,
		Preflight: clusterOptions(reg, &info, opts.EtcdBackup, opts.AllowPausedPools, opts.Checked),
		FarSide: func(ctx context.Context) ([]cluster.Check, error) {
			far := preflight.FarOptions{
				Destination: reg.Destination, Cluster: reg.Cluster, Client: reg.Client, ReadOnly: true,
				Signatures: opts.Signatures, Policy: opts.Policy, Cache: opts.Cache, Logger: opts.Logger,
			}
			if opts.Delivery.Media {
				far.Media, far.Releases = opts.Delivery.From, []string{release.Tag(info.Version, info.Arch)}
			}
			report, err := preflight.Far(ctx, far)
			return toCluster(report.Checks), err
		},
		Holds: func(ctx context.Context) error {
			return Arrived(ctx, ArrivedOptions{Client: reg.Client, Destination: reg.Destination, Release: info, Jobs: reg.Jobs, Progress: reg.Progress})
		},
	})
}

func targetOf(r objects.ReleaseInfo) cluster.Target {
	return cluster.Target{Image: r.Image, Version: r.Version, Arch: r.Arch, Previous: r.Previous, Sources: r.Sources, Updates: r.Updates}
}

// clusterOptions are the options of the checks of a cluster; info is nil where no release is
// known.
func clusterOptions(reg *RegistryOptions, info *objects.ReleaseInfo, backup string, paused []string, checked func(preflight.Check)) cluster.PreflightOptions {
	out := cluster.PreflightOptions{EtcdBackup: backup, AllowPausedPools: paused}
	if checked != nil {
		out.Checked = func(c cluster.Check) { checked(fromCluster(c)) }
	}
	if info != nil {
		target := targetOf(*info)
		out.Target = &target
	}
	if reg == nil || reg.Client == nil {
		return out
	}
	out.Registry = reg.nodes()
	out.RegistryTime = func(ctx context.Context) (time.Time, error) {
		repo, err := reg.Client.Repository(reg.Destination.String())
		if err != nil {
			return time.Time{}, err
		}
		g, err := repo.Ping(ctx)
		if err != nil {
			return time.Time{}, err
		}
		return g.Date, nil
	}
	if reg.Login != nil && reg.nodes() == reg.Destination {
		out.Pull = func(ctx context.Context, secret []byte) error { return pullWith(ctx, reg, info, secret) }
	}
	if info != nil {
		out.Unsigned = func(ctx context.Context) (unsigned []string, err error) {
			a, err := newArrival(ctx, ArrivedOptions{Client: reg.Client, Destination: reg.Destination, Release: *info})
			if err == nil {
				unsigned, err = a.unsigned(ctx)
			}
			if isAbsent(err) || errors.Is(err, ErrNotArrived) {
				err = fmt.Errorf("%w: %w", cluster.ErrNotThere, err)
			}
			return unsigned, err
		}
	}
	return out
}

// pullWith reads from the registry with a pull secret: the release image if it is known to be
// there, else no more than the login.
func pullWith(ctx context.Context, reg *RegistryOptions, info *objects.ReleaseInfo, secret []byte) error {
	client, err := reg.Login(secret)
	if err != nil {
		return err
	}
	repo, err := client.Repository(reg.Destination.String())
	if err != nil {
		return err
	}
	if info == nil {
		return repo.Authenticate(ctx)
	}
	_, err = repo.Resolve(ctx, info.Digest.String())
	if isAbsent(err) {
		return nil // it may read; that the release is not there yet is said elsewhere
	}
	return err
}

func toCluster(checks []preflight.Check) []cluster.Check {
	out := make([]cluster.Check, len(checks))
	for i, c := range checks {
		out[i] = cluster.Check{Name: c.Name, Status: cluster.Status(c.Status), Detail: c.Detail, Remedy: c.Remedy}
	}
	return out
}

// fromCluster gives a check of a cluster the form of the others, and what fails the error
// that leads to the exit code.
func fromCluster(c cluster.Check) preflight.Check {
	out := preflight.Check{Name: c.Name, Status: preflight.Status(c.Status), Detail: c.Detail, Remedy: c.Remedy}
	if c.Status == cluster.Fail {
		out.Err = fmt.Errorf("%w: %s: %s", cluster.ErrGuard, c.Name, c.Detail)
	}
	return out
}
