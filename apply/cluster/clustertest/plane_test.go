//go:build cluster

package clustertest_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"pannier/apply/cluster/clustertest"
)

type object = clustertest.Object

const (
	versionPath = "/apis/config.openshift.io/v1/clusterversions/version"
	poolPath    = "/apis/machineconfiguration.openshift.io/v1/machineconfigpools"
)

// dump is what `oc get -o yaml` prints, with what a server decides itself. The pool's second
// change is one the operator has not looked at yet.
const dump = `apiVersion: v1
kind: List
items:
- apiVersion: config.openshift.io/v1
  kind: ClusterVersion
  metadata:
    name: version
    uid: 3ba11aa4-3a62-47d1-9158-ec54d4c49e1d
    resourceVersion: "30459"
    creationTimestamp: "2023-11-02T12:48:53Z"
    generation: 7
  spec:
    clusterID: ea006e73-1e7a-4fbc-a12d-ae4109affb3d
    channel: stable-4.8
  status:
    availableUpdates: null
    desired: {version: 4.8.11, image: "quay.io/openshift-release-dev/ocp-release@sha256:aa"}
    history:
    - {state: Completed, version: 4.8.11, image: "quay.io/a/b@sha256:aa", verified: true, startedTime: "2023-11-02T12:48:53Z", completionTime: "2023-11-02T13:48:53Z"}
    conditions:
    - {type: Progressing, status: "False", lastTransitionTime: "2023-11-02T13:48:53Z", message: Cluster version is 4.8.11}
    observedGeneration: 7
    versionHash: abc=
---
apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfigPool
metadata: {name: worker, generation: 4, labels: {a: b}}
spec: {paused: true}
status: {observedGeneration: 3, machineCount: 3}
---
apiVersion: v1
kind: Node
metadata: {name: worker-0, labels: {node-role.kubernetes.io/worker: ""}}
status:
  conditions: [{type: Ready, status: "True", reason: KubeletReady}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: admin-gates, namespace: openshift-config-managed}
data: {ack-4.8-kube-1.22-api-removals-in-4.9: Read this.}
---
apiVersion: machine.openshift.io/v1beta1
kind: MachineHealthCheck
metadata: {name: workers, namespace: openshift-machine-api}
spec: {selector: {}, unhealthyConditions: [{type: Ready, status: "False", timeout: 300s}]}
`

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// load fills a plane with dump.
func load(t *testing.T, p *clustertest.Plane) {
	t.Helper()
	if _, err := p.Load(testContext(t), []byte(dump)); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, c *clustertest.Client, path string) object {
	t.Helper()
	o, err := c.Get(testContext(t), path)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func wantError(t *testing.T, err, want error, text string) {
	t.Helper()
	if err == nil || !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want %v with %q", err, want, text)
	}
}

func TestEveryCRDIsServed(t *testing.T) {
	ctx := testContext(t)
	began := time.Now()
	p := clustertest.Start(t, clustertest.Options{})
	t.Logf("started with %d CRDs in %v", len(clustertest.CRDs), time.Since(began))
	for _, name := range clustertest.CRDs {
		crd := get(t, p.Client, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+name)
		if crd.Condition("Established").Text("status") != "True" {
			t.Errorf("%s is not established", name)
		}
	}
	if v := get(t, p.Client, "/version"); v.Text("gitVersion") != "v1.37.2" {
		t.Errorf("the server calls itself %q", v.Text("gitVersion"))
	}

	// More can be had, also from behind a feature gate, and less.
	const backups = "etcdbackups.operator.openshift.io"
	if err := p.InstallCRD(ctx, backups); err != nil {
		t.Fatal(err)
	}
	get(t, p.Client, "/apis/operator.openshift.io/v1alpha1/etcdbackups")
	if err := p.RemoveCRD(ctx, backups); err != nil {
		t.Fatal(err)
	}
	_, err := p.Get(ctx, "/apis/operator.openshift.io/v1alpha1/etcdbackups")
	wantError(t, err, clustertest.ErrNotFound, "")
	if err := p.InstallCRD(ctx, "trees.wood.example"); err == nil {
		t.Error("a CRD that nobody made was installed")
	}

	t.Run("strict", func(t *testing.T) { testStrict(t, p) })
	t.Run("job", func(t *testing.T) { testJob(t, p) })
	t.Run("load", func(t *testing.T) { testLoad(t, p) })
	t.Run("users", func(t *testing.T) { testUsers(t, p) })
	t.Run("restart", func(t *testing.T) { testRestart(t, p) })
	t.Run("reset", func(t *testing.T) { testReset(t, p) })
}

// testStrict: what the schema does not know or does not want is refused on every way to write.
func testStrict(t *testing.T, p *clustertest.Plane) {
	ctx := testContext(t)
	load(t, p)
	mirrors := object{"apiVersion": "config.openshift.io/v1", "kind": "ImageDigestMirrorSet", "metadata": object{"name": "a"},
		"spec": object{"imageDigestMirrors": []object{{"source": "quay.io/a/b", "mirrors": []string{"reg:5000/a/b"}, "colour": "red"}}}}
	_, err := p.Create(ctx, mirrors)
	wantError(t, err, clustertest.ErrInvalid, "colour")
	_, err = p.Apply(ctx, mirrors)
	wantError(t, err, clustertest.ErrInvalid, "colour")
	_, err = p.Patch(ctx, versionPath, object{"spec": object{"desiredUpdat": object{}}})
	wantError(t, err, clustertest.ErrInvalid, "desiredUpdat")
	_, err = p.Patch(ctx, versionPath, object{"spec": object{"desiredUpdate": object{"image": "a/b@sha256:aa", "architecture": "Multi"}}})
	wantError(t, err, clustertest.ErrInvalid, "cannot set both Architecture and Image")
	_, err = p.PatchStatus(ctx, poolPath+"/worker", object{"machinCount": 1})
	wantError(t, err, clustertest.ErrInvalid, "machinCount")

	o, err := p.Apply(ctx, []byte("{apiVersion: config.openshift.io/v1, kind: ImageDigestMirrorSet, metadata: {name: a}, spec: {imageDigestMirrors: [{source: quay.io/a/b, mirrors: ['reg:5000/a/b']}]}}"))
	if err != nil {
		t.Fatal(err)
	}
	if o.Generation() != 1 || len(o.Objects("spec", "imageDigestMirrors")) != 1 {
		t.Errorf("applied, but the server has %v", o)
	}
}

// testJob: the Job of docs is one that the API server takes, and it looks at every field.
func testJob(t *testing.T, p *clustertest.Plane) {
	ctx := testContext(t)
	raw, err := os.ReadFile("../../../docs/job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(ctx, object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": "pannier"}}); err != nil {
		t.Fatal(err)
	}
	_, err = p.Apply(ctx, bytes.Replace(raw, []byte("readOnlyRootFilesystem"), []byte("readOnlyRoot"), 1))
	wantError(t, err, clustertest.ErrInvalid, "readOnlyRoot")
	if _, err := p.Apply(ctx, raw); err != nil {
		t.Error(err)
	}
}

func testLoad(t *testing.T, p *clustertest.Plane) {
	load(t, p)
	load(t, p) // over what is there
	v := get(t, p.Client, versionPath)
	if got := v.Text("status", "desired", "version"); got != "4.8.11" {
		t.Errorf("status.desired.version %q", got)
	}
	if v.Int("status", "observedGeneration") != v.Generation() {
		t.Errorf("generation %d, observed %d: as loaded they are one", v.Generation(), v.Int("status", "observedGeneration"))
	}
	if got := v.Condition("Progressing").Text("message"); got != "Cluster version is 4.8.11" {
		t.Errorf("condition Progressing says %q", got)
	}
	pool := get(t, p.Client, poolPath+"/worker")
	if d := pool.Generation() - pool.Int("status", "observedGeneration"); d != 1 {
		t.Errorf("the pool's operator is %d generations behind, as loaded 1", d)
	}
	node := get(t, p.Client, "/api/v1/nodes/worker-0")
	if node.Condition("Ready").Text("status") != "True" || node.At("spec", "taints") != nil {
		t.Errorf("node: %v", node)
	}
	gates := get(t, p.Client, "/api/v1/namespaces/openshift-config-managed/configmaps/admin-gates")
	if gates.Text("data", "ack-4.8-kube-1.22-api-removals-in-4.9") != "Read this." {
		t.Errorf("admin gates: %v", gates)
	}
}

// testUsers: a user has what it was given, lacks one verb, gets it and loses it.
func testUsers(t *testing.T, p *clustertest.Plane) {
	ctx := testContext(t)
	load(t, p)
	versions := clustertest.Rule{APIGroups: []string{"config.openshift.io"}, Resources: []string{"clusterversions"}, Verbs: []string{"get"}}
	maps := clustertest.Rule{Namespace: "openshift-config-managed", Resources: []string{"configmaps"}, Verbs: []string{"get", "list"}}
	u, err := p.CreateUser(ctx, "reader", versions, maps)
	if err != nil {
		t.Fatal(err)
	}
	get(t, u.Client, versionPath)
	get(t, u.Client, "/api/v1/namespaces/openshift-config-managed/configmaps")
	patch := object{"spec": object{"channel": "stable-4.9"}}
	_, err = u.Patch(ctx, versionPath, patch)
	wantError(t, err, clustertest.ErrForbidden, `cannot patch resource "clusterversions"`)
	_, err = u.Get(ctx, "/api/v1/namespaces/openshift-config/configmaps")
	wantError(t, err, clustertest.ErrForbidden, "system:serviceaccount:clustertest:reader")

	versions.Verbs = append(versions.Verbs, "patch")
	if err := u.Allow(ctx, versions); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Patch(ctx, versionPath, patch); err != nil {
		t.Error(err)
	}
	_, err = u.Get(ctx, "/api/v1/namespaces/openshift-config-managed/configmaps")
	wantError(t, err, clustertest.ErrForbidden, "configmaps")
	if can, err := u.Can(ctx, "patch", "config.openshift.io", "clusterversions", ""); !can || err != nil {
		t.Errorf("may patch: %v, %v", can, err)
	}
	if can, err := u.Can(ctx, "delete", "config.openshift.io", "clusterversions", ""); can || err != nil {
		t.Errorf("may delete: %v, %v", can, err)
	}
}

// testRestart: a killed server refuses connections; started again it has all objects, also
// the one written right before the kill, and knows the same users at the same address.
func testRestart(t *testing.T, p *clustertest.Plane) {
	ctx := testContext(t)
	load(t, p)
	u, err := p.CreateUser(ctx, "survivor", clustertest.Rule{APIGroups: []string{"config.openshift.io"}, Resources: []string{"*"}, Verbs: []string{"get"}})
	if err != nil {
		t.Fatal(err)
	}
	before := get(t, p.Client, versionPath)
	kubeconfig, err := os.ReadFile(p.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		last, err := p.Patch(ctx, versionPath, object{"spec": object{"channel": time.Now().Format("at-15.04.05.000000")}})
		if err != nil {
			t.Fatal(err)
		}
		p.Kill()
		var op *net.OpError
		if _, err := p.Get(ctx, versionPath); p.Running() || !errors.As(err, &op) {
			t.Fatalf("the killed server is running (%v) or answers (%v)", p.Running(), err)
		}
		began := time.Now()
		if err := p.Restart(); err != nil {
			t.Fatal(err)
		}
		t.Logf("restarted in %v", time.Since(began))
		after := get(t, p.Client, versionPath)
		if after.Text("metadata", "uid") != before.Text("metadata", "uid") ||
			after.Text("metadata", "resourceVersion") != last.Text("metadata", "resourceVersion") {
			t.Errorf("before the kill %v, after the restart %v", last["metadata"], after["metadata"])
		}
		get(t, u.Client, versionPath)
		if now, err := os.ReadFile(p.Kubeconfig); err != nil || string(now) != string(kubeconfig) {
			t.Errorf("the kubeconfig changed over the restart: %v", err)
		}
	}
}

func testReset(t *testing.T, p *clustertest.Plane) {
	ctx := testContext(t)
	load(t, p)
	if err := p.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{poolPath, "/apis/config.openshift.io/v1/clusterversions", "/api/v1/nodes",
		"/apis/machine.openshift.io/v1beta1/machinehealthchecks", "/api/v1/namespaces/openshift-config-managed/configmaps"} {
		if list, err := p.List(ctx, path); err != nil || len(list) > 0 {
			t.Errorf("%s after the reset: %d objects, %v", path, len(list), err)
		}
	}
	load(t, p)
}

// TestOld: the fields that came later are unknown, those that were there are known.
func TestOld(t *testing.T) {
	ctx := testContext(t)
	p := clustertest.Start(t, clustertest.Old())
	load(t, p)
	_, err := p.Patch(ctx, versionPath, object{"spec": object{"desiredUpdate": object{"image": "a/b@sha256:aa", "architecture": "Multi"}}})
	wantError(t, err, clustertest.ErrInvalid, "architecture")
	_, err = p.PatchStatus(ctx, versionPath, object{"history": []object{{"state": "Partial", "image": "a", "verified": true, "completionTime": nil, "startedTime": "2023-11-02T12:48:53Z", "acceptedRisks": "some"}}})
	wantError(t, err, clustertest.ErrInvalid, "acceptedRisks")
	if _, err = p.Patch(ctx, versionPath, object{"spec": object{"desiredUpdate": object{"version": "", "image": "a/b@sha256:aa", "force": false}}}); err != nil {
		t.Error(err)
	}
	_, err = p.Get(ctx, "/apis/config.openshift.io/v1/imagedigestmirrorsets")
	wantError(t, err, clustertest.ErrNotFound, "")
	get(t, p.Client, "/apis/operator.openshift.io/v1alpha1/imagecontentsourcepolicies")
}

func TestWithoutICSP(t *testing.T) {
	p := clustertest.Start(t, clustertest.WithoutICSP())
	_, err := p.Get(testContext(t), "/apis/operator.openshift.io/v1alpha1/imagecontentsourcepolicies")
	wantError(t, err, clustertest.ErrNotFound, "")
	get(t, p.Client, "/apis/config.openshift.io/v1/imagedigestmirrorsets")
}

// TestMissingProgram: a test without the API server fails and says what to do.
func TestMissingProgram(t *testing.T) {
	t.Setenv("PANNIER_KUBEPLANE", "/nowhere/kubeplane")
	p, err := clustertest.Launch(clustertest.Options{})
	if err == nil {
		p.Close()
	}
	wantError(t, err, os.ErrNotExist, "make bin/kubeplane")
}
