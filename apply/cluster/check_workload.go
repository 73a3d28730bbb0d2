package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pannier/bundle/content"
)

// checkBudgets looks for disruption budgets that let no pod go: they hold up every drain.
func checkBudgets(ctx context.Context, in *inspection) Check {
	type budget struct {
		Metadata meta `json:"metadata"`
		Status   struct {
			Allowed  int `json:"disruptionsAllowed"`
			Expected int `json:"expectedPods"`
		} `json:"status"`
	}
	all, err := list[budget](ctx, in.c, budgets, "", "")
	if isNotFound(err) { // Kubernetes up to 1.20
		all, err = list[budget](ctx, in.c, oldBudgets, "", "")
	}
	if err != nil {
		return unseen(err)
	}
	var tight []string
	for _, b := range all {
		if b.Status.Allowed == 0 && b.Status.Expected > 0 {
			tight = append(tight, b.Metadata.Namespace+"/"+b.Metadata.Name)
		}
	}
	if len(tight) > 0 {
		return warn("no pod may be evicted under "+names(tight)+": draining a node will wait for them", "let them have one more replica, or relax the budget while updating")
	}
	return pass(content.Plural(len(all), "disruption budget", "disruption budgets") + ", each lets a pod go")
}

// checkRemovedAPIs looks for clients of APIs that the new version has no longer.
func checkRemovedAPIs(ctx context.Context, in *inspection) Check {
	_, to, c := in.versions(ctx)
	if c != nil {
		return *c
	}
	type user struct {
		Username string `json:"username"`
	}
	type usage struct {
		ByNode []struct {
			ByUser []user `json:"byUser"`
		} `json:"byNode"`
	}
	type requestCount struct {
		Metadata meta `json:"metadata"`
		Status   struct {
			Removed string  `json:"removedInRelease"`
			Count   int64   `json:"requestCount"`
			Last24h []usage `json:"last24h"`
		} `json:"status"`
	}
	all, err := list[requestCount](ctx, in.c, requestCounts, "", "")
	if err != nil {
		return unseen(err)
	}
	kube := to.kubeMinor()
	if kube == 0 {
		return skip("the Kubernetes version of " + in.opts.Target.Version + " is not known")
	}
	var used []string
	for _, r := range all {
		removed, ok := parseVersion(r.Status.Removed)
		if !ok || r.Status.Count == 0 || removed.Major != 1 || removed.Minor > kube {
			continue
		}
		users := map[string]bool{}
		for _, hour := range r.Status.Last24h {
			for _, n := range hour.ByNode {
				for _, u := range n.ByUser {
					users[u.Username] = true
				}
			}
		}
		maps.DeleteFunc(users, func(name string, _ bool) bool { return platform(name) })
		if len(users) > 0 || len(r.Status.Last24h) == 0 {
			used = append(used, strings.TrimSuffix(fmt.Sprintf("%s, gone in 1.%d, by %s", r.Metadata.Name, removed.Minor, names(slices.Collect(maps.Keys(users)))), ", by "))
		}
	}
	if len(used) > 0 {
		return warn("used in the last 24 hours, and removed in this release: "+names(used), "move these clients to the newer API first: oc get apirequestcounts")
	}
	return pass(fmt.Sprintf("nobody uses an API that Kubernetes 1.%d has no longer", kube))
}

// platform reports whether a user is a part of the platform, which counts every API by itself
// and is replaced with the update.
func platform(user string) bool {
	for _, prefix := range []string{"system:kube-", "system:apiserver", "system:node:", "system:cluster-policy-controller", "system:serviceaccount:openshift-", "system:serviceaccount:kube-system:"} {
		if strings.HasPrefix(user, prefix) {
			return true
		}
	}
	return false
}

// healthCheckPause is the annotation that stops a MachineHealthCheck.
const healthCheckPause = "cluster.x-k8s.io/paused"

// checkHealthChecks looks for what would replace a node that is only being updated.
func checkHealthChecks(ctx context.Context, in *inspection) Check {
	type healthCheck struct {
		Metadata meta `json:"metadata"`
	}
	all, err := list[healthCheck](ctx, in.c, healthChecks, "openshift-machine-api", "")
	if err != nil {
		return unseen(err)
	}
	var active []string
	for _, h := range all {
		if _, paused := h.Metadata.Annotations[healthCheckPause]; !paused && h.Metadata.Name != "machine-api-termination-handler" {
			active = append(active, h.Metadata.Name)
		}
	}
	if len(active) > 0 {
		return warn("active: "+names(active)+": they may replace nodes that restart for the update", fmt.Sprintf("oc -n openshift-machine-api annotate mhc NAME %s=\"\"; remove it after the update", healthCheckPause))
	}
	return pass("no machine health check is active")
}
