package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pannier/bundle/content"
)

func checkPools(ctx context.Context, in *inspection) Check {
	all, err := in.pools(ctx)
	if err != nil {
		return unseen(err)
	}
	var bad, good []string
	for i := range all {
		p := &all[i]
		name := p.Metadata.Name
		switch why := p.degraded(); {
		case why != "":
			bad = append(bad, name+" is degraded: "+why)
		case p.Spec.Paused: // has a check of its own
			good = append(good, fmt.Sprintf("%s paused", name))
		case !p.settled():
			bad = append(bad, fmt.Sprintf("%s is not up to date: %d of %d nodes updated, %d ready", name, p.Status.Updated, p.Status.Machines, p.Status.Ready))
		default:
			good = append(good, fmt.Sprintf("%s %d/%d", name, p.Status.Updated, p.Status.Machines))
		}
	}
	if len(bad) > 0 {
		return fail(strings.Join(bad, "; "), "wait for the rollout, or repair the nodes that are named: oc describe mcp POOL")
	}
	return pass("up to date: " + strings.Join(good, ", "))
}

func checkPaused(ctx context.Context, in *inspection) Check {
	all, err := in.pools(ctx)
	if err != nil {
		return unseen(err)
	}
	var barred, allowed []string
	for i := range all {
		p := &all[i]
		if !p.Spec.Paused {
			continue
		}
		text := fmt.Sprintf("%s (%s)", p.Metadata.Name, content.Plural(p.Status.Machines, "node", "nodes"))
		if p.Metadata.Name != "master" && slices.Contains(in.opts.AllowPausedPools, p.Metadata.Name) {
			allowed = append(allowed, text)
		} else {
			barred = append(barred, text)
		}
	}
	switch {
	case len(barred) > 0:
		return fail("paused: "+names(barred)+": the nodes get neither mirrors nor the update", `resume it (oc patch mcp POOL --type=merge -p '{"spec":{"paused":false}}'), or for an update over several minor versions allow it with --allow-paused-pool POOL; the pool master must not be paused`)
	case len(allowed) > 0:
		return warn("paused, as allowed: "+names(allowed)+": the nodes stay as they are", "resume it after the last update of the path")
	}
	return pass("no pool is paused")
}

func checkNodes(ctx context.Context, in *inspection) Check {
	all, err := in.nodes(ctx)
	if err != nil {
		return unseen(err)
	}
	var bad []string
	for i := range all {
		n := &all[i]
		var why []string
		a := n.Metadata.Annotations
		if !n.Status.Conditions.isTrue("Ready") {
			why = append(why, "not ready")
		}
		if n.Spec.Unschedulable {
			why = append(why, "cordoned")
		}
		for _, t := range []string{"MemoryPressure", "DiskPressure", "PIDPressure"} {
			if n.Status.Conditions.isTrue(t) {
				why = append(why, t)
			}
		}
		if s := a[nodeState]; s != "" && s != "Done" {
			why = append(why, strings.TrimSuffix("machine config "+s+": "+a[nodeReason], ": "))
		}
		if a[nodeCurrentConfig] != a[nodeDesiredConfig] {
			why = append(why, "has not the configuration that it should have")
		}
		if len(why) > 0 {
			bad = append(bad, n.Metadata.Name+": "+strings.Join(why, ", "))
		}
	}
	if len(bad) > 0 {
		return fail(names(bad), "repair or uncordon these nodes, or remove them from the cluster")
	}
	return pass(content.Plural(len(all), "node", "nodes") + ", all ready")
}

// checkKubelets looks for nodes that would be left behind too far, as a pool that stays
// paused over several updates leaves them.
func checkKubelets(ctx context.Context, in *inspection) Check {
	_, to, c := in.versions(ctx)
	if c != nil {
		return *c
	}
	all, err := in.nodes(ctx)
	if err != nil {
		return unseen(err)
	}
	kube := to.kubeMinor()
	if kube == 0 {
		return skip("the Kubernetes version of " + in.opts.Target.Version + " is not known")
	}
	behind := 2
	if kube >= 28 {
		behind = 3
	}
	var bad []string
	for _, n := range all {
		v, ok := parseVersion(n.Status.NodeInfo.KubeletVersion)
		if ok && v.Major == 1 && kube-v.Minor > behind {
			bad = append(bad, fmt.Sprintf("%s (%s)", n.Metadata.Name, n.Status.NodeInfo.KubeletVersion))
		}
	}
	if len(bad) > 0 {
		return fail(fmt.Sprintf("too old for a control plane of Kubernetes 1.%d: %s", kube, names(bad)), "resume the paused pool and let its nodes update first")
	}
	return pass(fmt.Sprintf("no kubelet is more than %d minor versions behind Kubernetes 1.%d", behind, kube))
}

// operatorGrace is how long an operator may complain before it counts.
const operatorGrace = 5 * time.Minute

func checkOperators(ctx context.Context, in *inspection) Check {
	all, err := in.clusterOperators(ctx)
	if err != nil {
		return unseen(err)
	}
	var bad, short []string
	for _, co := range all {
		name, cs := co.Metadata.Name, co.Status.Conditions
		for _, t := range []string{"Available", "Degraded"} {
			c := cs.get(t)
			if t == "Available" && c.Status == "True" || t == "Degraded" && c.Status != "True" {
				continue
			}
			text := name + ": " + t + "=" + c.Status
			if why := c.text(); why != "" {
				text += " (" + why + ")"
			}
			if in.now.Sub(c.LastTransitionTime) < operatorGrace && c.Status != "" {
				short = append(short, text)
			} else {
				bad = append(bad, text)
			}
		}
		if c := cs.get("Progressing"); c.Status == "True" {
			short = append(short, name+": Progressing ("+c.text()+")")
		}
	}
	switch {
	case len(bad) > 0:
		return fail(names(append(bad, short...)), "repair these operators: oc describe clusteroperator NAME")
	case len(short) > 0:
		return warn(names(short), "look again in a few minutes")
	}
	return pass(content.Plural(len(all), "operator", "operators") + ", all available, none degraded")
}

func checkEtcd(ctx context.Context, in *inspection) Check {
	var members struct {
		Status struct {
			Conditions conditions `json:"conditions"`
		} `json:"status"`
	}
	if err := in.c.get(ctx, etcdOperators, "", "cluster", &members); err != nil && !isNotFound(err) {
		return unseen(err)
	}
	if c := members.Status.Conditions.get("EtcdMembersAvailable"); c.Status == "False" {
		return fail("etcd members are not available: "+c.text(), "repair the member that is named before anything else")
	}
	type etcdPod struct {
		Metadata meta `json:"metadata"`
		Status   struct {
			Conditions conditions `json:"conditions"`
		} `json:"status"`
	}
	all, err := list[etcdPod](ctx, in.c, pods, "openshift-etcd", "app=etcd")
	if err != nil {
		return unseen(err)
	}
	var bad []string
	for _, p := range all {
		if !p.Status.Conditions.isTrue("Ready") {
			bad = append(bad, p.Metadata.Name)
		}
	}
	switch {
	case len(bad) > 0:
		return fail("not ready: "+names(bad), "repair etcd before anything else: oc -n openshift-etcd get pods -l app=etcd")
	case len(all) == 0:
		return skip("no etcd pods in openshift-etcd: somebody else runs this cluster's control plane")
	}
	return pass(content.Plural(len(all), "member", "members") + " ready")
}
