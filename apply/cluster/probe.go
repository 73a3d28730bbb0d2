package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ProbeOptions say what nodes are to pull.
type ProbeOptions struct {
	Image     string // by its name at the source and by digest, so that the mirror set is proven too
	Namespace string // for the pods; "" is default
}

// ProbeNodes runs one short pod in each pool that pulls an image and ends: it proves mirror
// set, authority, pull secret and route of a node before an update depends on them. The pods
// are removed again. One check is returned for each pool.
func (c *Cluster) ProbeNodes(ctx context.Context, opts ProbeOptions) ([]Check, error) {
	if digestOf(opts.Image) == "" {
		return nil, fmt.Errorf("%w: %s is not named by digest, and mirror sets hold for digests alone", ErrRefused, opts.Image)
	}
	if opts.Namespace == "" {
		opts.Namespace = "default"
	}
	ps, err := list[pool](ctx, c, pools, "", "")
	if err != nil {
		return nil, err
	}
	ns, err := list[node](ctx, c, nodes, "", "")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(ps, func(a, b pool) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	var out []Check
	for i := range ps {
		check := c.probe(ctx, &ps[i], ps, ns, opts)
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		check.Name = "probe-" + ps[i].Metadata.Name
		out = append(out, check)
	}
	return out, nil
}

// probe runs the pod of one pool.
func (c *Cluster) probe(ctx context.Context, p *pool, ps []pool, ns []node, opts ProbeOptions) Check {
	if p.Status.Machines == 0 {
		return skip("pool " + p.Metadata.Name + " has no nodes")
	}
	i := slices.IndexFunc(ns, func(n node) bool {
		return n.in(p, ps) && n.Status.Conditions.isTrue("Ready") && !n.Spec.Unschedulable
	})
	if i < 0 {
		return warn("pool "+p.Metadata.Name+" has no node that is ready", "repair the nodes of the pool")
	}
	target := ns[i].Metadata.Name
	name := fmt.Sprintf("pannier-probe-%s-%d", p.Metadata.Name, time.Now().UnixNano()%1e9)
	err := c.create(ctx, pods, opts.Namespace, name, probePod(name, target, opts), false, nil)
	if err == nil || transient(err) || ctx.Err() != nil { // or it may be there without our knowing
		defer c.removePod(ctx, opts.Namespace, name)
	}
	switch {
	case errors.Is(err, ErrForbidden):
		return warn("a pod may not be started: "+err.Error(), "run this as cluster-admin")
	case err != nil:
		return fail("a pod could not be started: "+err.Error(), "read the message; the cluster's rules for pods may forbid it")
	}
	return c.awaitPull(ctx, name, target, opts)
}

// removePod removes the pod of a probe: also when the caller has been interrupted, and
// through a restart of the API server as long as a request may take.
func (c *Cluster) removePod(ctx context.Context, namespace, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timing.Request)
	defer cancel()
	for {
		err := c.remove(ctx, pods, namespace, name)
		if err == nil || isNotFound(err) {
			return
		}
		if !transient(err) || sleep(ctx, min(time.Second, c.timing.Poll)) != nil {
			c.event("warning", name, "the probe's pod could not be removed, oc -n %s delete pod %s does it: %v", namespace, name, err)
			return
		}
	}
}

// probePod pulls the image always and does nothing; whether it can even start is no matter.
func probePod(name, target string, opts ProbeOptions) map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": name, "namespace": opts.Namespace, "labels": map[string]any{"app.kubernetes.io/managed-by": FieldManager}},
		"spec": map[string]any{
			"nodeName": target, "restartPolicy": "Never", "automountServiceAccountToken": false,
			"activeDeadlineSeconds": 600, "terminationGracePeriodSeconds": 0,
			"tolerations":     []any{map[string]any{"operator": "Exists"}},
			"securityContext": map[string]any{"runAsNonRoot": true, "seccompProfile": map[string]any{"type": "RuntimeDefault"}},
			"containers": []any{map[string]any{
				"name": "probe", "image": opts.Image, "imagePullPolicy": "Always", "command": []any{"/usr/bin/true"},
				"resources":       map[string]any{"requests": map[string]any{"cpu": "1m", "memory": "8Mi"}},
				"securityContext": map[string]any{"allowPrivilegeEscalation": false, "capabilities": map[string]any{"drop": []any{"ALL"}}},
			}},
		},
	}
}

// awaitPull follows the pod until its image is there or has been refused twice.
func (c *Cluster) awaitPull(ctx context.Context, name, target string, opts ProbeOptions) Check {
	const remedy = "look at the mirror set, the pull secret, the authority (additionalTrustedCA) and the route from that node to the registry"
	refused, last := 0, "the node has said nothing"
	for end := time.Now().Add(c.timing.Probe); time.Now().Before(end); {
		var p struct {
			Status struct {
				Phase      string `json:"phase"`
				Reason     string `json:"reason"`
				Message    string `json:"message"`
				Containers []struct {
					ImageID string `json:"imageID"`
					State   struct {
						Waiting *struct {
							Reason  string `json:"reason"`
							Message string `json:"message"`
						} `json:"waiting"`
					} `json:"state"`
				} `json:"containerStatuses"`
			} `json:"status"`
		}
		err := c.get(ctx, pods, opts.Namespace, name, &p)
		switch {
		case err != nil && !transient(err):
			return fail("the pod on "+target+" could not be followed: "+err.Error(), remedy)
		case err != nil:
			last = err.Error()
		case p.Status.Phase == "Failed" && len(p.Status.Containers) == 0:
			return fail(fmt.Sprintf("node %s refused the pod: %s: %s", target, p.Status.Reason, p.Status.Message), "read the message; it is not about the image")
		case len(p.Status.Containers) > 0 && p.Status.Containers[0].ImageID != "":
			return pass("node " + target + " pulled " + opts.Image)
		case len(p.Status.Containers) > 0 && p.Status.Containers[0].State.Waiting != nil:
			w := p.Status.Containers[0].State.Waiting
			last = strings.TrimSuffix(w.Reason+": "+strings.Join(strings.Fields(w.Message), " "), ": ")
			if w.Reason == "CreateContainerError" || w.Reason == "CreateContainerConfigError" || w.Reason == "RunContainerError" {
				return pass("node " + target + " pulled " + opts.Image) // starting it is not the question
			}
			if w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff" || w.Reason == "SignatureValidationFailed" {
				if refused++; refused > 1 {
					return fail("node "+target+" cannot pull "+opts.Image+": "+last, remedy)
				}
			}
		}
		if sleep(ctx, c.timing.Poll) != nil {
			return skip("interrupted")
		}
	}
	return fail(fmt.Sprintf("node %s did not pull %s within %s: %s", target, opts.Image, c.timing.Probe, last), remedy)
}
