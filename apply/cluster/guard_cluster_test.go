//go:build cluster

package cluster

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pannier/apply/cluster/clustertest"
)

// guardCase is a cluster, or a request, that one guard and no other objects to.
type guardCase struct {
	name   string // of the guard or check
	spoil  func(*world)
	opts   func(*world, *UpgradeOptions)
	status Status // of the check; Fail stops an update
	text   string // in the detail or the error
}

func condition3(kind, status, reason, message string) string {
	return fmt.Sprintf(`{"type":%q,"status":%q,"reason":%q,"message":%q,"lastTransitionTime":"2026-01-01T00:00:00Z"}`, kind, status, reason, message)
}

// setCondition replaces one condition of an object's status.
func (w *world) setCondition(path, kind, status, reason, message string) {
	w.t.Helper()
	list := []string{condition3(kind, status, reason, message)}
	for _, c := range w.get(path).Objects("status", "conditions") {
		if c.Text("type") != kind {
			list = append(list, condition3(c.Text("type"), c.Text("status"), c.Text("reason"), c.Text("message")))
		}
	}
	w.patchStatus(path, `{"conditions":[`+strings.Join(list, ",")+`]}`)
}

func minorUpdate(_ *world, o *UpgradeOptions) { o.Target.Version = "4.17.2" }

// refresh makes a pool's status take notice of a change of its spec.
func (w *world) refresh(pool string) {
	path := poolAPI + "/machineconfigpools/" + pool
	w.patchStatus(path, fmt.Sprintf(`{"observedGeneration":%d}`, w.get(path).Generation()))
}

func guardCases() []guardCase {
	target := func(change func(*Target)) func(*world, *UpgradeOptions) {
		return func(_ *world, o *UpgradeOptions) { change(&o.Target) }
	}
	cv := func(kind, status, reason, message string) func(*world) {
		return func(w *world) { w.setCondition(cvPath, kind, status, reason, message) }
	}
	worker, node := poolAPI+"/machineconfigpools/worker", "/api/v1/nodes/worker-1"
	return []guardCase{
		{name: "digest", opts: target(func(t *Target) { t.Image = testMirror + "@latest" }), status: Fail, text: "named by tag"},
		{name: "cluster-version-valid", spoil: cv("Invalid", "True", "InvalidClusterVersion", "spec.x is wrong"), status: Fail, text: "spec.x is wrong"},
		{name: "cluster-version-failing", spoil: cv("Failing", "True", "ClusterOperatorDown", "dns is down"), status: Fail, text: "dns is down"},
		{name: "cluster-version-progressing", spoil: cv("Progressing", "True", "", "Working towards 4.16.4"), status: Fail, text: "already updating"},
		{name: "release-accepted", spoil: cv("ReleaseAccepted", "False", "RetrievePayload", "no such image"), status: Fail, text: "no such image"},
		{name: "downgrade", opts: target(func(t *Target) { t.Version = "4.16.1" }), status: Fail, text: "downgrade"},
		{name: "skipped-minor", opts: target(func(t *Target) { t.Version = "4.18.1" }), status: Fail, text: "one minor version at a time"},
		{name: "update-path", opts: target(func(t *Target) { t.Previous = []string{"4.16.4"} }), status: Warn, text: "does not name 4.16.3"},
		{name: "architecture", opts: target(func(t *Target) { t.Arch = "aarch64" }), status: Fail, text: "aarch64"},
		{name: "architecture", opts: target(func(t *Target) { t.Arch = "multi" }), status: Fail, text: "for several architectures, the cluster runs a payload for amd64"},
		{name: "upgradeable", spoil: cv("Upgradeable", "False", "PoolUpdating", "a pool is old"), opts: minorUpdate, status: Fail, text: "a pool is old"},
		{name: "upgradeable", spoil: func(w *world) {
			w.setCondition(configAPI+"/clusteroperators/etcd", "Upgradeable", "False", "X", "not now")
		}, opts: minorUpdate, status: Fail, text: "etcd: X: not now"},
		{name: "overrides", spoil: func(w *world) {
			w.patch(cvPath, map[string]any{"spec": map[string]any{"overrides": []any{map[string]any{"kind": "Deployment", "group": "apps", "name": "x", "namespace": "y", "unmanaged": true}}}})
		}, status: Fail, text: "Deployment y/x"},
		{name: "admin-gates", spoil: func(w *world) {
			w.load("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: admin-gates, namespace: openshift-config-managed}\ndata: {ack-4.16-kube-1.30-api-removals-in-4.17: read this, ack-4.15-x-y: not this}")
		}, opts: minorUpdate, status: Fail, text: "api-removals-in-4.17: read this"},
		{name: "machine-config-pools", spoil: func(w *world) {
			// Not worker: the guard of the mirror sets would object too.
			w.load("apiVersion: machineconfiguration.openshift.io/v1\nkind: MachineConfigPool\nmetadata: {name: infra, generation: 1}\nspec: {paused: true, configuration: {name: x}}\nstatus: {observedGeneration: 1, conditions: [%s]}", condition3("RenderDegraded", "True", "", "no role"))
		}, opts: func(_ *world, o *UpgradeOptions) { o.Preflight.AllowPausedPools = []string{"infra"} }, status: Fail, text: "RenderDegraded: no role"},
		{name: "paused-pools", spoil: func(w *world) {
			w.patch(worker, map[string]any{"spec": map[string]any{"paused": true}})
			w.refresh("worker")
		}, status: Fail, text: "worker (2 nodes)"},
		{name: "nodes", spoil: func(w *world) { w.patch(node, map[string]any{"spec": map[string]any{"unschedulable": true}}) }, status: Fail, text: "worker-1: cordoned"},
		{name: "nodes", spoil: func(w *world) { w.setCondition(node, "DiskPressure", "True", "x", "y") }, status: Fail, text: "DiskPressure"},
		{name: "kubelet-versions", spoil: func(w *world) {
			w.patchStatus(node, `{"nodeInfo":{"kubeletVersion":"v1.25.0"}}`)
		}, status: Fail, text: "worker-1 (v1.25.0)"},
		{name: "cluster-operators", spoil: func(w *world) {
			w.setCondition(configAPI+"/clusteroperators/kube-apiserver", "Available", "False", "Down", "it is down")
		}, status: Fail, text: "it is down"},
		{name: "etcd", spoil: func(w *world) {
			w.patchStatus("/api/v1/namespaces/openshift-etcd/pods/etcd-master-0", `{"conditions":[{"type":"Ready","status":"False"}]}`)
		}, status: Fail, text: "etcd-master-0"},
		{name: "etcd-backup", opts: func(_ *world, o *UpgradeOptions) { o.Preflight.EtcdBackup = "" }, status: Fail, text: "no evidence"},
		{name: "etcd-backup", opts: func(_ *world, o *UpgradeOptions) { o.Preflight.EtcdBackup = "25h" }, status: Fail, text: "25h0m0s old"},
		{name: "pull-secret", opts: func(_ *world, o *UpgradeOptions) {
			o.Preflight.Pull = func(context.Context, []byte) error { return errors.New("401 from the registry") }
		}, status: Fail, text: "401 from the registry"},
		{name: "pull-secret", spoil: func(w *world) {
			w.patch("/api/v1/namespaces/openshift-config/secrets/pull-secret", map[string]any{"data": map[string]any{".dockerconfigjson": []byte(`{"auths":{"quay.io":{"auth":"eDp5"}}}`)}})
		}, status: Warn, text: "no entry for reg.example:5000"},
		{name: "certificate", spoil: func(w *world) { w.delete("/api/v1/namespaces/openshift-config/configmaps/registry-ca") }, status: Fail, text: "do not trust"},
		{name: "certificate", opts: func(_ *world, o *UpgradeOptions) {
			o.Preflight.Handshake = func(context.Context, string) (tls.ConnectionState, error) {
				return tls.ConnectionState{}, tls.RecordHeaderError{Msg: "HTTP"}
			}
		}, status: Fail, text: "no TLS"},
		{name: "registry-sources", spoil: func(w *world) {
			w.patch(configAPI+"/images/cluster", map[string]any{"spec": map[string]any{"registrySources": map[string]any{"allowedRegistries": []string{"quay.io", "reg.example"}}}})
		}, status: Fail, text: "allows only quay.io, reg.example"},
		{name: "mirror-set-conflicts", spoil: func(w *world) {
			for _, p := range []string{"NeverContactSource", "AllowContactingSource"} {
				w.load("apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata: {name: set-%s}\nspec: {imageDigestMirrors: [{source: quay.io/a/b, mirrors: [x.example/y], mirrorSourcePolicy: %s}]}",
					strings.ToLower(p), p)
			}
		}, status: Fail, text: "disagree on mirrorSourcePolicy"},
		{name: "sigstore", spoil: func(w *world) {
			w.load("apiVersion: config.openshift.io/v1\nkind: ClusterImagePolicy\nmetadata: {name: openshift}\nspec: {scopes: [%s], policy: {rootOfTrust: {policyType: PublicKey, publicKey: {keyData: %s}}}}",
				testSource, base64.StdEncoding.EncodeToString([]byte("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----")))
		}, opts: func(_ *world, o *UpgradeOptions) {
			o.Preflight.Unsigned = func(context.Context) ([]string, error) { return []string{"etcd"}, nil }
		}, status: Fail, text: "lacks those of etcd"},
		{name: "disruption-budgets", spoil: func(w *world) {
			w.load("apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: tight, namespace: openshift-config}\nspec: {minAvailable: 1, selector: {}}\nstatus: {disruptionsAllowed: 0, expectedPods: 1, currentHealthy: 1, desiredHealthy: 1}")
		}, status: Warn, text: "openshift-config/tight"},
		{name: "removed-apis", spoil: func(w *world) {
			w.load(`
apiVersion: apiserver.openshift.io/v1
kind: APIRequestCount
metadata: {name: flowschemas.v1beta2.flowcontrol.apiserver.k8s.io}
spec: {numberOfUsersToReport: 10}
status:
  removedInRelease: "1.29"
  requestCount: 12
  currentHour: {requestCount: 0}
  last24h: [{requestCount: 12, byNode: [{nodeName: node-1, requestCount: 12, byUser: [{username: alice, userAgent: kubectl, requestCount: 12}, {username: "system:kube-controller-manager", userAgent: x, requestCount: 3}]}]}]`)
		}, status: Warn, text: "gone in 1.29, by alice"},
		{name: "machine-health-checks", spoil: func(w *world) {
			w.load("apiVersion: machine.openshift.io/v1beta1\nkind: MachineHealthCheck\nmetadata: {name: workers, namespace: openshift-machine-api}\nspec: {selector: {}, unhealthyConditions: [{type: Ready, status: Unknown, timeout: 300s}]}")
		}, status: Warn, text: "active: workers"},
		{name: "alerts", spoil: func(w *world) {
			w.monitoring.Fire(clustertest.Alert{Name: "ClusterOperatorDown", Severity: "critical", State: "firing", About: "dns"},
				clustertest.Alert{Name: "etcdNoLeader", Severity: "critical", State: "pending"})
		}, status: Warn, text: "critical alerts fire: ClusterOperatorDown (dns)"},
		{name: "clock", opts: func(_ *world, o *UpgradeOptions) {
			o.Preflight.RegistryTime = func(context.Context) (time.Time, error) { return time.Now().Add(-time.Hour), nil }
		}, status: Warn, text: "registry: -"},
		{name: "signature", spoil: func(w *world) { w.delete(cmAPI + "/sha256-" + newDigest.Encoded()) }, status: Fail, text: "no ConfigMap"},
		{name: "mirror-sets", opts: target(func(t *Target) { t.Sources = append(t.Sources, moreSource) }), status: Fail, text: "nodes of pool master lack " + moreSource},
		{name: "far-side", opts: func(_ *world, o *UpgradeOptions) {
			o.FarSide = func(context.Context) ([]Check, error) {
				return []Check{{Name: "registry-write", Status: Fail, Detail: "403"}}, nil
			}
		}, status: Fail, text: "registry-write: 403"},
		{name: "registry-holds", opts: func(_ *world, o *UpgradeOptions) {
			o.Holds = func(context.Context) error { return errors.New("blob 7 is missing") }
		}, status: Fail, text: "blob 7 is missing"},
	}
}

// apart are rows that have tests of their own, as they need another connection or user.
var apart = []string{"api", "permissions"}

// TestGuards shows of every guard and check that it objects to a cluster that nothing else
// objects to, that an update then stops before the first write, and that with the guard
// switched off the very same cluster passes: so each is needed, and no other covers for it.
func TestGuards(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range apart {
		seen[name] = true
	}
	for i, tc := range guardCases() {
		seen[tc.name] = true
		t.Run(fmt.Sprintf("%d %s", i, tc.name), func(t *testing.T) {
			w := newWorld(t)
			w.arrived()
			if tc.spoil != nil {
				tc.spoil(w)
			}
			opts := w.options()
			if tc.opts != nil {
				tc.opts(w, &opts)
			}
			res, err := w.cluster().Upgrade(w.ctx, opts)
			switch {
			case tc.status == Fail:
				if !errors.Is(err, ErrGuard) || !errors.Is(err, ErrCluster) || !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "\n") {
					t.Errorf("want one refusal with %q, got: %v", tc.text, err)
				}
				if w.asked() != "" {
					t.Fatal("it was asked all the same")
				}
			case err != nil:
				t.Errorf("a warning stopped the update: %v", err)
			}
			if isCheck(tc.name) {
				if got := find(res.Checks, tc.name); got.Status != tc.status || !strings.Contains(got.Detail, tc.text) {
					t.Errorf("%+v", got)
				}
			}
			// Off: nothing objects any more. A warning has been asked for already.
			w.patch(cvPath, map[string]any{"spec": map[string]any{"desiredUpdate": nil}})
			w.patchStatus(cvPath, fmt.Sprintf(`{"observedGeneration":%d}`, w.get(cvPath).Generation()))
			res, err = w.cluster(tc.name).Upgrade(w.ctx, opts)
			if err != nil || w.asked() != opts.Target.Image {
				t.Errorf("switched off: %v, asked %q", err, w.asked())
			}
			for _, c := range res.Checks {
				if c.Status == Warn || c.Status == Fail {
					if tc.name != "admin-gates" && tc.name != "machine-config-pools" && c.Name != "update-path" {
						t.Errorf("another check objects too: %+v", c)
					}
				}
			}
		})
	}
	for _, g := range guards() {
		if !seen[g.Name] {
			t.Errorf("guard %s has no case", g.Name)
		}
	}
}

func isCheck(name string) bool {
	return slices.ContainsFunc(checks(), func(r checkRow) bool { return r.name == name })
}

func find(all []Check, name string) Check {
	for _, c := range all {
		if c.Name == name {
			return c
		}
	}
	return Check{}
}

func TestPreflightOfHealthyCluster(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	opts := w.options()
	opts.Preflight.Target = &opts.Target
	all, err := w.cluster().Preflight(w.ctx, opts.Preflight)
	if err != nil || !Ready(all) || len(all) != len(checks()) {
		t.Fatalf("%v", err)
	}
	for _, c := range all {
		if c.Status != Pass {
			t.Errorf("%+v", c)
		}
	}
	// Without a release and a registry what concerns them is skipped.
	all, err = w.cluster().Preflight(w.ctx, PreflightOptions{EtcdBackup: "1h"})
	if err != nil || !Ready(all) || find(all, "downgrade").Status != Skip || find(all, "pull-secret").Status != Skip {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestEvidenceOfBackup(t *testing.T) {
	// A cluster serves it in technology preview alone.
	if err := shared.InstallCRD(t.Context(), "etcdbackups.operator.openshift.io"); err != nil {
		t.Fatal(err)
	}
	defer shared.RemoveCRD(context.WithoutCancel(t.Context()), "etcdbackups.operator.openshift.io")
	now := time.Now().UTC().Add(-time.Hour).Format(time.RFC3339)
	for name, text := range map[string]string{
		"the operator's own, of this version": fmt.Sprintf("apiVersion: config.openshift.io/v1\nkind: ClusterOperator\nmetadata: {name: etcd}\nspec: {}\nstatus: {conditions: [{type: RecentBackup, status: 'True', reason: UpgradeBackupSuccessful, message: 'UpgradeBackup for 4.16.3 is located at path /x on node \"m\"', lastTransitionTime: %q}]}", now),
		"an object of its own":                fmt.Sprintf("apiVersion: operator.openshift.io/v1alpha1\nkind: EtcdBackup\nmetadata: {name: nightly}\nspec: {pvcName: x}\nstatus: {conditions: [{type: BackupCompleted, status: 'True', reason: BackupCompleted, message: done, lastTransitionTime: %q}]}", now),
		"a scheduled job":                     fmt.Sprintf("apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: backup, namespace: openshift-etcd}\nspec: {schedule: '0 0 * * *', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: x, image: x}]}}}}}\nstatus: {lastScheduleTime: %[1]q, lastSuccessfulTime: %[1]q}", now),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load("%s", text)
			all, _ := w.cluster().Preflight(w.ctx, PreflightOptions{})
			if c := find(all, "etcd-backup"); c.Status != Pass {
				t.Errorf("%+v", c)
			}
			all, _ = w.cluster().Preflight(w.ctx, PreflightOptions{Now: time.Now().Add(24 * time.Hour)})
			if c := find(all, "etcd-backup"); c.Status != Fail {
				t.Errorf("a day later: %+v", c)
			}
		})
	}
	w := newWorld(t)
	w.setCondition(configAPI+"/clusteroperators/etcd", "RecentBackup", "True", "UpgradeBackupSuccessful", "UpgradeBackup for 4.15.9 is located at path /x")
	all, _ := w.cluster().Preflight(w.ctx, PreflightOptions{})
	if c := find(all, "etcd-backup"); c.Status != Fail {
		t.Errorf("a backup of an earlier version: %+v", c)
	}
}

// rules are permissions for needs, as RBAC writes them.
func rules(needs []need) []clustertest.Rule {
	var out []clustertest.Rule
	for _, n := range needs {
		r := clustertest.Rule{Namespace: n.namespace, APIGroups: []string{n.resource.group}, Resources: []string{n.resource.name}, Verbs: []string{n.verb}}
		out = append(out, r)
	}
	return out
}

// TestPermissions takes one permission after the other from a user who has all that is
// needed: preflight names it, nothing that was not seen passes, and what needs it is refused.
func TestPermissions(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	s, err := w.cluster().surroundings(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	all := append(needed(s), useful...)
	user, err := w.plane.CreateUser(w.ctx, "operator", rules(all)...)
	if err != nil {
		t.Fatal(err)
	}
	c := w.connect(user.Kubeconfig, fast)
	opts := w.options()
	opts.DryRun = true
	if res, err := c.Upgrade(w.ctx, opts); err != nil || find(res.Checks, "permissions").Status != Pass {
		t.Fatalf("with all that is needed: %v, %+v", err, res)
	}
	for i, n := range all {
		name := n.verb + " " + display(n.resource, n.namespace, n.name)
		t.Run(name, func(t *testing.T) {
			if err := user.Allow(w.ctx, rules(slices.Delete(slices.Clone(all), i, i+1))...); err != nil {
				t.Fatal(err)
			}
			opts := w.options()
			opts.Preflight.Target = &opts.Target
			got, err := c.Preflight(w.ctx, opts.Preflight)
			if err != nil {
				t.Fatal(err)
			}
			want := Warn
			if i < len(needed(s)) {
				want = Fail
			}
			if p := find(got, "permissions"); p.Status != want || !strings.Contains(p.Detail, name) {
				t.Errorf("%+v", p)
			}
			for _, check := range got {
				if check.Status == Fail && check.Name != "permissions" {
					t.Errorf("a check that may not look failed: %+v", check)
				}
			}
			if want == Fail {
				opts.DryRun = true
				if _, err := c.Upgrade(w.ctx, opts); !errors.Is(err, ErrCluster) {
					t.Errorf("upgrade: %v", err)
				}
			}
			if n.verb == "patch" && n.resource == clusterVersions {
				// On, the lack is found before the first write; off, by the write.
				if _, err := c.Upgrade(w.ctx, opts); !errors.Is(err, ErrGuard) {
					t.Errorf("upgrade: %v", err)
				}
				if _, err := w.connect(user.Kubeconfig, fast, "permissions").Upgrade(w.ctx, opts); errors.Is(err, ErrGuard) || !errors.Is(err, ErrForbidden) {
					t.Errorf("upgrade without the check: %v", err)
				}
			}
			dry := ApplyOptions{Objects: append(moreObjects(t), signatureObject(t, oldDigest, signature)), DryRun: true}
			_, err = c.Apply(w.ctx, dry)
			writes := n.verb == "create" && n.resource == configMaps || n.verb == "patch" && n.resource == idmsResource
			reads := n.resource == configMaps && n.namespace == "openshift-config-managed" && n.verb != "patch" && n.verb != "create" ||
				n.verb == "list" && slices.Contains([]resource{idmsResource, icspResource, itmsResource}, n.resource)
			if needs := writes || reads; needs != errors.Is(err, ErrForbidden) {
				t.Errorf("apply without it: %v", err)
			}
		})
	}
}

// want asks the cluster for an update.
func (w *world) want(image, version string) {
	w.patch(cvPath, map[string]any{"spec": map[string]any{"desiredUpdate": map[string]any{"image": image, "version": version}}})
}

// takeUp makes the cluster begin with an update that it was asked for.
func (w *world) takeUp(image, version string) {
	w.t.Helper()
	cv := w.get(cvPath)
	history := append([]any{map[string]any{"state": "Partial", "startedTime": "2026-02-01T00:00:00Z", "completionTime": nil, "version": version, "image": image, "verified": true}},
		cv.At("status", "history").([]any)...)
	status := cv.At("status").(map[string]any)
	status["desired"], status["history"], status["observedGeneration"] = map[string]any{"version": version, "image": image}, history, cv.Generation()
	if _, err := w.plane.PutStatus(w.ctx, cvPath, status); err != nil {
		w.t.Fatal(err)
	}
}

// TestPreflightOfUpdatingCluster is a cluster in the middle of an update, whose workers are
// paused: their pool calls itself up to date, which is true of what it had before.
func TestPreflightOfUpdatingCluster(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	const next = "quay.io/openshift-release-dev/ocp-release@sha256:05ba8e63f8a76e568afe87f182334504a01d47342b6ad5b4c3ff83a2463018bd"
	w.want(next, "4.16.4")
	w.takeUp(next, "4.16.4")
	w.setCondition(cvPath, "Progressing", "True", "ClusterOperatorUpdating", "Working towards 4.16.4: 139 of 859 done (16% complete), waiting on kube-scheduler")
	w.patchStatus(configAPI+"/clusteroperators/etcd", `{"versions":[{"name":"operator","version":"4.16.4"}]}`)
	w.setCondition(configAPI+"/clusteroperators/etcd", "RecentBackup", "True", "UpgradeBackupSuccessful", `UpgradeBackup for 4.16.3 is located at path /etc/kubernetes/cluster-backup/x on node "master-0"`)
	w.patch(poolAPI+"/machineconfigpools/worker", map[string]any{"spec": map[string]any{"paused": true}})
	w.refresh("worker")

	opts := w.options()
	opts.Preflight.Target, opts.Preflight.EtcdBackup = &opts.Target, ""
	all, err := w.cluster().Preflight(w.ctx, opts.Preflight)
	if err != nil || Ready(all) {
		t.Fatalf("%v", err)
	}
	objections := map[string]string{
		"cluster-version-progressing": "already updating: ClusterOperatorUpdating: Working towards 4.16.4: 139 of 859 done",
		"paused-pools":                "paused: worker (2 nodes)",
		"etcd-backup":                 "no evidence", // the operator's own backup is of last winter
	}
	for _, c := range all {
		switch text, objects := objections[c.Name]; {
		case objects && (c.Status != Fail || !strings.Contains(c.Detail, text)):
			t.Errorf("%+v", c)
		case !objects && c.Status != Pass:
			t.Errorf("%+v", c)
		}
	}
	// What it runs is what it had before, until the update is through.
	if c := find(all, "downgrade"); c.Detail != "from "+testVersion+" to 4.16.9" {
		t.Errorf("%+v", c)
	}
	if c := find(all, "machine-config-pools"); !strings.Contains(c.Detail, "master 3/3, worker paused") {
		t.Errorf("%+v", c)
	}
}

// TestTakenUpWhileLooking: an earlier run asked and was killed, and the cluster begins while the
// guards of this one look. What they object to then is the update itself.
func TestTakenUpWhileLooking(t *testing.T) {
	for _, begins := range []bool{true, false} {
		w := newWorld(t)
		w.arrived()
		opts := w.options()
		w.want(opts.Target.Image, opts.Target.Version)
		var once sync.Once
		opts.Preflight.Checked = func(Check) {
			once.Do(func() {
				if begins {
					w.takeUp(opts.Target.Image, opts.Target.Version)
				}
				w.patch("/api/v1/nodes/worker-1", map[string]any{"spec": map[string]any{"unschedulable": true}})
			})
		}
		res, err := w.cluster().Upgrade(w.ctx, opts)
		if begins && (err != nil || !res.Underway || res.Asked) || !begins && (!errors.Is(err, ErrGuard) || !strings.Contains(err.Error(), "worker-1")) {
			t.Errorf("begins: %v: %+v, %v", begins, res, err)
		}
	}
}

// TestGuardsInOrder: what is told first is what oc tells first.
func TestGuardsInOrder(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	for _, kind := range []string{"Progressing", "Failing", "Invalid"} {
		w.setCondition(cvPath, kind, "True", "", "so it is")
	}
	opts := w.options()
	opts.Target.Version, opts.Preflight.EtcdBackup = "4.16.1", ""
	_, err := w.cluster().Upgrade(w.ctx, opts)
	if err == nil {
		t.Fatal("it was asked")
	}
	var got []string
	for _, line := range strings.Split(err.Error(), "\n") {
		_, rest, _ := strings.Cut(line, ": ")
		name, _, _ := strings.Cut(rest, ":")
		got = append(got, name)
	}
	if want := "cluster-version-valid cluster-version-failing cluster-version-progressing downgrade etcd-backup"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s\n%v", got, want, err)
	}
}

// TestClockOfTheServer: the API server's own clock is compared too.
func TestClockOfTheServer(t *testing.T) {
	w := newWorld(t)
	c := w.cluster()
	c.client.Transport = lateServer{c.client.Transport}
	if got := checkClock(w.ctx, c.inspect(PreflightOptions{})); got.Status != Warn || !strings.Contains(got.Detail, "API server: -3600 s") {
		t.Errorf("%+v", got)
	}
}

// lateServer is a server whose clock is an hour late.
type lateServer struct{ next http.RoundTripper }

func (l lateServer) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(r)
	if err == nil {
		resp.Header.Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
	}
	return resp, err
}
