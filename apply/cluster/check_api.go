package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"pannier/bundle/objects"
)

func checkAPI(ctx context.Context, in *inspection) Check {
	var v struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := in.c.read(ctx, "get", "/version", "/version", nil, &v); err != nil {
		remedy := "check --kubeconfig and --context, and the way to " + in.c.server
		if errors.Is(err, ErrForbidden) {
			remedy = "log in again: oc login"
		}
		return fail(err.Error(), remedy)
	}
	text := fmt.Sprintf("%s, Kubernetes %s", in.c.server, v.GitVersion)
	var who struct {
		Status struct {
			UserInfo struct {
				Username string `json:"username"`
			} `json:"userInfo"`
		} `json:"status"`
	}
	review := map[string]any{"apiVersion": subjectReviews.apiVersion(), "kind": subjectReviews.kind}
	switch err := in.c.create(ctx, subjectReviews, "", "", review, false, &who); {
	case err == nil:
		text += ", as " + who.Status.UserInfo.Username
	case status(err) == http.StatusUnauthorized:
		return fail(err.Error(), "log in again: oc login")
	}
	if _, err := in.c.do(ctx, http.MethodGet, "get", "/readyz", "/readyz", nil, "", nil, nil); status(err) >= 500 {
		return fail(text+", but it does not call itself ready: "+err.Error(), "wait until the API server is ready")
	}
	return pass(text)
}

// need is one permission.
type need struct {
	verb      string
	resource  resource
	namespace string
	name      string
}

// needed are the permissions without which apply and upgrade fail; useful those without which
// less can be looked at.
func needed(s *surroundings) []need {
	out := []need{
		{"get", clusterVersions, "", "version"}, {"patch", clusterVersions, "", "version"},
		{"list", configMaps, objects.SignatureNamespace, ""}, {"get", configMaps, objects.SignatureNamespace, ""},
		{"create", configMaps, objects.SignatureNamespace, ""}, {"patch", configMaps, objects.SignatureNamespace, ""},
		{"list", pools, "", ""}, {"get", pools, "", "master"}, {"get", machineConfigs, "", ""},
	}
	for _, kind := range []objects.Kind{objects.ICSP, objects.IDMS, objects.ITMS} {
		if s != nil && !s.served[kind] {
			continue
		}
		for _, verb := range []string{"list", "create", "patch"} {
			out = append(out, need{verb, mirrorResources[kind].resource, "", ""})
		}
	}
	return out
}

var useful = []need{
	{"list", clusterOperators, "", ""}, {"list", nodes, "", ""}, {"get", configMaps, "openshift-config", ""},
	{"get", secrets, "openshift-config", "pull-secret"}, {"get", imageConfigs, "", "cluster"}, {"get", proxies, "", "cluster"},
	{"list", pods, "openshift-etcd", ""}, {"list", budgets, "", ""}, {"list", requestCounts, "", ""}, {"list", healthChecks, "openshift-machine-api", ""},
	{"get", clusterOperators, "", "etcd"}, {"get", etcdOperators, "", "cluster"}, {"list", cronJobs, "openshift-etcd", ""},
	{"list", imagePolicies, "", ""}, {"get", mcoConfigs, "", "cluster"}, {"get", routes, monitoringNamespace, monitoringRoute},
}

// may asks the API server whether this user has a permission.
func (c *Cluster) may(ctx context.Context, n need) (bool, error) {
	review := map[string]any{
		"apiVersion": accessReviews.apiVersion(), "kind": accessReviews.kind,
		"spec": map[string]any{"resourceAttributes": map[string]any{
			"verb": n.verb, "group": n.resource.group, "version": n.resource.version, "resource": n.resource.name,
			"namespace": n.namespace, "name": n.name,
		}},
	}
	var answer struct {
		Status struct {
			Allowed bool `json:"allowed"`
		} `json:"status"`
	}
	err := c.create(ctx, accessReviews, "", "", review, false, &answer)
	return answer.Status.Allowed, err
}

func checkPermissions(ctx context.Context, in *inspection) Check {
	served := &surroundings{served: map[objects.Kind]bool{}}
	for kind, r := range mirrorResources {
		ok, err := in.c.exists(ctx, r.resource)
		if err != nil {
			served = nil // then all are asked for
			break
		}
		served.served[kind] = ok
	}
	var lacks, blind []string
	ask := func(all []need, to *[]string) error {
		for _, n := range all {
			ok, err := in.c.may(ctx, n)
			if err != nil {
				return err
			}
			if !ok {
				*to = append(*to, n.verb+" "+display(n.resource, n.namespace, n.name))
			}
		}
		return nil
	}
	if err := errors.Join(ask(needed(served), &lacks), ask(useful, &blind)); err != nil {
		return unseen(err)
	}
	const remedy = "use an account with the role cluster-admin, or let one grant these"
	switch {
	case len(lacks) > 0:
		return fail("not permitted: "+strings.Join(lacks, ", "), remedy)
	case len(blind) > 0:
		return warn("not permitted, so that some checks see nothing: "+strings.Join(blind, ", "), remedy)
	}
	return pass("everything that apply, upgrade and these checks need")
}

// maxSkew is how far clocks may be apart.
const maxSkew = 2 * time.Minute

// checkClock compares the clocks: certificates, tokens and the age of backups hang on them.
func checkClock(ctx context.Context, in *inspection) Check {
	began := time.Now()
	date, err := in.c.do(ctx, http.MethodGet, "get", "/version", "/version", nil, "", nil, nil)
	if err != nil {
		return unseen(err)
	}
	if date.IsZero() {
		return skip("the API server sends no date")
	}
	var bad, good []string
	compare := func(name string, other time.Time, local time.Time) {
		// A Date is cut to whole seconds.
		skew := other.Sub(local.Truncate(time.Second))
		text := fmt.Sprintf("%s: %+d s", name, int(skew.Round(time.Second).Seconds()))
		if skew.Abs() > maxSkew {
			bad = append(bad, text)
		} else {
			good = append(good, text)
		}
	}
	compare("API server", date, began)
	if in.opts.RegistryTime != nil {
		began = time.Now()
		switch at, err := in.opts.RegistryTime(ctx); {
		case err != nil:
			good = append(good, "registry: "+err.Error())
		case !at.IsZero():
			compare("registry", at, began)
		}
	}
	if len(bad) > 0 {
		return warn("clocks differ from this machine's by "+strings.Join(append(bad, good...), ", "), "set the clocks (chrony): certificates, tokens and signatures hang on them")
	}
	return pass("against this machine's clock: " + strings.Join(good, ", "))
}
