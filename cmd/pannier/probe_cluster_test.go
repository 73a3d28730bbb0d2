//go:build cluster

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"pannier/apply/cluster/clustertest"
)

const defaultPods = "/api/v1/namespaces/default/pods"

// noPods fails if a probe left a pod.
func (y *yard) noPods() {
	y.t.Helper()
	left, err := y.cluster.Plane.List(y.t.Context(), defaultPods)
	if err != nil || len(left) > 0 {
		y.t.Errorf("%d pods left, %v", len(left), err)
	}
}

// podOn returns once there is a pod on a node of a pool.
func (y *yard) podOn(pool string) {
	y.t.Helper()
	for range 6000 {
		list, _ := y.cluster.Plane.List(y.t.Context(), defaultPods)
		for _, p := range list {
			if strings.HasPrefix(p.Text("spec", "nodeName"), pool) {
				return
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	y.t.Fatalf("no pod came to pool %s", pool)
}

// flat undoes the wrapping of long lines.
func flat(text string) string { return strings.Join(strings.Fields(text), " ") }

// TestClusterProbeNodes runs pods on nodes that pull, cannot pull, or say nothing. Whatever comes of
// it, and also when it is interrupted, no pod stays.
func TestClusterProbeNodes(t *testing.T) {
	y := newYard(t, nil)
	probe := []string{"preflight", y.media, "…", "--etcd-backup", "1h", "--probe-nodes"}

	// Without mirrors a node asks quay.io, which it cannot reach.
	out, _ := y.run(8, probe...)
	wants(t, flat(out), "FAIL probe-master", "FAIL probe-worker", "cannot pull quay.io/openshift-release-dev/ocp-release@"+y.release.Descriptor.Digest.String(),
		"lookup quay.io: no such host", "NOT READY")
	y.noPods()

	y.run(0, "unpack", y.media, "…", "--apply", "--wait")
	out, _ = y.run(0, probe...)
	wants(t, flat(out), "PASS probe-master", "PASS probe-worker", "node worker-0 pulled quay.io/", " READY: ")
	y.noPods()

	y.cluster.Pull("worker", "tls: failed to verify certificate: x509: certificate signed by unknown authority")
	out, _ = y.run(8, probe...)
	wants(t, flat(out), "PASS probe-master", "FAIL probe-worker", "unknown authority", "additionalTrustedCA")
	y.noPods()

	y.cluster.Pull("worker", clustertest.Silent)
	out, _ = y.run(8, probe...)
	wants(t, flat(out), "FAIL probe-worker", "within 8s: the node has said nothing")
	y.noPods()

	t.Run("interrupted", func(t *testing.T) {
		cmd := y.command(probe...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		y.podOn("worker")
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("exit code %d\n%s", code, errs.String())
		}
		y.noPods()
	})
	t.Run("the API server restarts", func(t *testing.T) {
		cmd := y.command(probe...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		y.podOn("worker")
		if err := y.cluster.Plane.Restart(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 8 {
			t.Errorf("exit code %d", code)
		}
		y.noPods()
	})
	t.Run("not permitted", func(t *testing.T) {
		u, err := y.cluster.Plane.CreateUser(t.Context(), "onlooker", clustertest.Rule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "patch"}},
			clustertest.Rule{APIGroups: []string{"config.openshift.io", "operator.openshift.io"}, Resources: []string{"*"}, Verbs: []string{"create"}},
			clustertest.Rule{Namespace: "openshift-config-managed", Resources: []string{"configmaps"}, Verbs: []string{"create"}})
		if err != nil {
			t.Fatal(err)
		}
		out, _ := y.run(0, "preflight", y.media, y.registry(), "--cluster-registry", nodesKnow, "--keyring", y.key, "--kubeconfig", u.Kubeconfig,
			"--etcd-backup", "1h", "--probe-nodes")
		wants(t, flat(out), "WARN probe-master", "WARN probe-worker", "cannot create resource", "cluster-admin")
		y.noPods()
	})
	t.Run("which release is not known", func(t *testing.T) {
		out, _ := y.run(0, "preflight", "…", "--etcd-backup", "1h", "--probe-nodes")
		wants(t, flat(out), "SKIP probe-nodes", "name MEDIA")
	})
}
