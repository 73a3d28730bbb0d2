package apply

import (
	"context"
	"fmt"

	"pannier/apply/cluster"
	"pannier/apply/preflight"
	"pannier/bundle"
	"pannier/bundle/objects"
)

// PreflightOptions say what [Preflight] looks at; what is nil is left out.
type PreflightOptions struct {
	Near *preflight.NearOptions
	Far  *preflight.FarOptions

	Cluster          *cluster.Cluster
	NoCluster        string          // why there is no Cluster, for the report; "" leaves it out
	Registry         RegistryOptions // for the cluster's checks; the zero value skips what concerns it
	EtcdBackup       string
	AllowPausedPools []string
	ProbeNodes       bool // run a pod in each pool that pulls the release image by its name at the source
}

// Preflight looks whether both sides are ready. Errors are ctx's, and those of a drive whose
// release cannot be chosen; the report, as far as it came, is returned with them.
func Preflight(ctx context.Context, opts PreflightOptions) (preflight.Report, error) {
	var lists [][]preflight.Check
	report := func() preflight.Report { return preflight.NewReport(lists...) }
	if opts.Near != nil {
		r, err := preflight.Near(ctx, *opts.Near)
		lists = append(lists, r.Checks)
		if err != nil {
			return report(), err
		}
	}
	var info *objects.ReleaseInfo
	source := ""
	if opts.Far != nil {
		r, err := preflight.Far(ctx, *opts.Far)
		lists = append(lists, r.Checks)
		if err != nil {
			return report(), err
		}
		info, source = targetOn(ctx, *opts.Far)
	}
	if opts.Cluster == nil {
		if opts.NoCluster != "" {
			lists = append(lists, []preflight.Check{{Name: "cluster", Status: preflight.Skip, Detail: opts.NoCluster}})
		}
		return report(), nil
	}
	checks, err := opts.Cluster.Preflight(ctx, clusterOptions(&opts.Registry, info, opts.EtcdBackup, opts.AllowPausedPools, nil))
	lists = append(lists, convert(checks))
	if err != nil || !opts.ProbeNodes {
		return report(), err
	}
	lists = append(lists, probe(ctx, opts.Cluster, info, source))
	return report(), ctx.Err()
}

// targetOn is the one release that is chosen on the drive, and the repository that it is
// named by at its source; nil if there is none, several, or no drive. What is wrong with the
// drive the far side's checks have said.
func targetOn(ctx context.Context, far preflight.FarOptions) (info *objects.ReleaseInfo, source string) {
	if far.Media == "" {
		return nil, ""
	}
	b, err := bundle.OpenSource(ctx, far.Media, bundle.OpenOptions{Cache: far.Cache, Logger: far.Logger})
	if err != nil {
		return nil, ""
	}
	defer b.Close()
	tags, err := b.Contents.Select(far.Releases)
	if err != nil || len(tags) != 1 {
		return nil, ""
	}
	rel, ok := b.Contents.Release(tags[0])
	if !ok {
		return nil, ""
	}
	nodes := far.Destination
	if far.Cluster != nil {
		nodes = *far.Cluster
	}
	info = &objects.ReleaseInfo{
		Version: rel.Version, Arch: rel.Arch, Digest: rel.Descriptor.Digest, Previous: rel.Previous,
		Image: nodes.String() + "@" + rel.Descriptor.Digest.String(),
	}
	if info.Sources, err = b.Contents.Sources(rel.Tag); err != nil {
		return nil, ""
	}
	if info.Updates, err = b.Contents.Updates(rel.Tag); err != nil {
		return nil, ""
	}
	return info, rel.Source
}

func probe(ctx context.Context, c *cluster.Cluster, info *objects.ReleaseInfo, source string) []preflight.Check {
	if info == nil {
		return []preflight.Check{{Name: "probe-nodes", Status: preflight.Skip, Detail: "no release is known that nodes could pull: name MEDIA, and with --release one of several"}}
	}
	checks, err := c.ProbeNodes(ctx, cluster.ProbeOptions{Image: source + "@" + info.Digest.String()})
	out := convert(checks)
	if err != nil && ctx.Err() == nil {
		out = append(out, preflight.Check{Name: "probe-nodes", Status: preflight.Fail, Detail: err.Error(),
			Remedy: "run it again when the API server answers, as somebody who may list pools and nodes", Err: fmt.Errorf("probe-nodes: %w", err)})
	}
	return out
}

func convert(checks []cluster.Check) []preflight.Check {
	out := make([]preflight.Check, len(checks))
	for i, c := range checks {
		out[i] = fromCluster(c)
	}
	return out
}
