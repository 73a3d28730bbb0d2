package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pannier/bundle/content"
	"pannier/bundle/objects"
)

// PoolState is one machine config pool, for a table.
type PoolState struct {
	Name     string
	Machines int
	Updated  int
	Ready    int
	Paused   bool
	Degraded string // why, "" if it is not
	Settled  bool   // every machine has the configuration that the pool asks for
}

// NodeState is one node, for a table.
type NodeState struct {
	Name  string
	Pool  string // "" if no pool claims it
	State string // in a few words
	Ready bool
}

// States reads all pools and nodes. A cluster without pools (a hosted one) has none.
func (c *Cluster) States(ctx context.Context) ([]PoolState, []NodeState, error) {
	ps, err := list[pool](ctx, c, pools, "", "")
	if err != nil && !isNotFound(err) {
		return nil, nil, err
	}
	ns, err := list[node](ctx, c, nodes, "", "")
	if err != nil {
		return poolStates(ps), nil, err
	}
	return poolStates(ps), nodeStates(ns, ps), nil
}

func poolStates(ps []pool) []PoolState {
	var out []PoolState
	for i := range ps {
		p := &ps[i]
		out = append(out, PoolState{
			Name: p.Metadata.Name, Machines: p.Status.Machines, Updated: p.Status.Updated, Ready: p.Status.Ready,
			Paused: p.Spec.Paused, Degraded: p.degraded(), Settled: p.settled(),
		})
	}
	slices.SortFunc(out, func(a, b PoolState) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func nodeStates(ns []node, ps []pool) []NodeState {
	var out []NodeState
	for i := range ns {
		n := &ns[i]
		s := NodeState{Name: n.Metadata.Name, State: n.state(), Ready: n.Status.Conditions.isTrue("Ready")}
		for j := range ps {
			if n.in(&ps[j], ps) {
				s.Pool = ps[j].Metadata.Name
				break
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b NodeState) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// survey fills a plan with pools, nodes and what will happen to them. What may not be read
// becomes a warning: applying does not need it.
func (c *Cluster) survey(ctx context.Context, p *Plan, s *surroundings) error {
	var err error
	p.Pools, p.Nodes, err = c.States(ctx)
	if err != nil {
		if !errors.Is(err, ErrForbidden) {
			return err
		}
		p.Warnings = append(p.Warnings, fmt.Sprintf("pools or nodes are not shown: %v", err))
	}
	var writes, tags bool
	for _, ch := range p.Changes {
		if ch.Writes() && ch.Object.Kind != "ConfigMap" {
			writes = true
			tags = tags || ch.Object.Kind == string(objects.ITMS)
		}
	}
	if !writes {
		p.NodeEffect = "no mirror set is written: the nodes stay as they are"
		return nil
	}
	p.NodeEffect = nodeEffect(s.version, s.known, tags) + c.nodePolicy(ctx)
	for _, ps := range p.Pools {
		if ps.Paused {
			p.Warnings = append(p.Warnings, fmt.Sprintf("pool %s (%s) is paused: its nodes get the mirrors only when it is resumed, and cannot pull through them until then", ps.Name, content.Plural(ps.Machines, "node", "nodes")))
		}
		if ps.Degraded != "" {
			p.Warnings = append(p.Warnings, fmt.Sprintf("pool %s is degraded before the change: %s", ps.Name, ps.Degraded))
		}
	}
	return nil
}

// nodeEffect is what the machine-config operator of a version does with nodes when mirrors
// are added; tags says that mirrors by tag are among them.
func nodeEffect(v semver, known, tags bool) string {
	switch {
	case !known:
		return "the cluster's version is not known; up to 4.6 nodes are drained and rebooted one after the other, from 4.8 on CRI-O only reloads its configuration"
	case v.before(4, 7):
		return "nodes of every pool are drained and rebooted, one after the other"
	case v.before(4, 8):
		return "nodes of every pool are drained, one after the other, and CRI-O reloads its configuration; there is no reboot"
	case tags:
		return "nodes of every pool are drained, one after the other, because mirrors for tags are added, and CRI-O reloads its configuration; there is no reboot"
	}
	return "CRI-O reloads its configuration on the nodes of every pool, one after the other; there is no drain and no reboot"
}

// registriesFile is where nodes keep what mirror sets say.
const registriesFile = "/etc/containers/registries.conf"

// nodePolicy says whether an administrator has decided what a change of the file does to
// nodes, which younger clusters allow. It is a remark, and says so where it may not be read.
func (c *Cluster) nodePolicy(ctx context.Context) string {
	var m struct {
		Spec struct {
			NodeDisruptionPolicy struct {
				Files []struct {
					Path    string `json:"path"`
					Actions []struct {
						Type string `json:"type"`
					} `json:"actions"`
				} `json:"files"`
			} `json:"nodeDisruptionPolicy"`
		} `json:"spec"`
	}
	switch err := c.get(ctx, mcoConfigs, "", "cluster", &m); {
	case errors.Is(err, ErrForbidden):
		return "; whether MachineConfiguration cluster sets another policy may not be read"
	case err != nil:
		return ""
	}
	for _, f := range m.Spec.NodeDisruptionPolicy.Files {
		if f.Path == registriesFile {
			var actions []string
			for _, a := range f.Actions {
				actions = append(actions, a.Type)
			}
			return fmt.Sprintf("; but MachineConfiguration cluster sets a policy of its own for %s: %s", f.Path, strings.Join(actions, ", "))
		}
	}
	return ""
}
