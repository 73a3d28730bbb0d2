//go:build cluster

package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"pannier/apply/cluster/clustertest"
	"pannier/bundle/objects"
)

// TestAPIServerKilled kills the API server in the middle of a rollout and of an update, and
// starts it again a while later.
func TestAPIServerKilled(t *testing.T) {
	w := emptyWorld(t, clustertest.Start(t, clustertest.Options{}))
	w.build(testVersion)
	w.arrived()
	// Slow enough that the server is gone before the last node is done.
	w.operate(func(o *operators) { o.tick = 400 * time.Millisecond })
	c := w.cluster()
	outage := func(when string, down time.Duration) chan error {
		done := make(chan error, 1)
		go func() {
			for !w.said(when) && w.ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			w.plane.Kill()
			time.Sleep(down)
			done <- w.plane.Restart()
		}()
		return done
	}
	if _, err := c.Apply(w.ctx, ApplyOptions{Objects: moreObjects(t)}); err != nil {
		t.Fatal(err)
	}
	// Longer than a request is tried again in silence, wherever in a look the server goes.
	back := outage("0 of 3 nodes updated", 16*time.Second)
	if _, err := c.WaitRollout(w.ctx, RolloutOptions{Objects: moreObjects(t)}); err != nil {
		t.Fatalf("rollout: %v\n%s", err, w.log())
	}
	if err := <-back; err != nil {
		t.Fatal(err)
	}
	if !w.said("waiting for the API server") || !w.said("answers again") {
		t.Errorf("events:\n%s", w.log())
	}

	back = outage("Working towards", time.Second)
	opts := w.options()
	opts.Wait = true
	if _, err := c.Upgrade(w.ctx, opts); err != nil {
		t.Fatalf("update: %v\n%s", err, w.log())
	}
	if err := <-back; err != nil {
		t.Fatal(err)
	}

	// Gone for good: given up after the time that was set, as a cluster that cannot be reached.
	w.plane.Kill()
	timing := fast
	timing.GiveUp = 500 * time.Millisecond
	c = w.connect(w.plane.Kubeconfig, timing)
	if _, err := c.WaitRollout(w.ctx, RolloutOptions{Objects: moreObjects(t)}); !errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrCluster) {
		t.Errorf("gone for good: %v", err)
	}
	if all, err := c.Preflight(w.ctx, PreflightOptions{}); err != nil || all[0].Status != Fail || all[1].Status != Skip {
		t.Errorf("preflight: %+v, %v", all, err)
	}
	if _, err := c.Upgrade(w.ctx, opts); !errors.Is(err, ErrUnreachable) {
		t.Errorf("upgrade: %v", err)
	}
}

// TestOldCluster applies to and updates a cluster of 4.8, whose schemas lack the younger
// fields: strict validation shows that nothing is written that it would prune.
func TestOldCluster(t *testing.T) {
	w := emptyWorld(t, clustertest.Start(t, clustertest.Old()))
	w.build("4.8.11")
	w.patchStatus(cvPath, `{"conditions":[`+strings.Join([]string{condition3("Available", "True", "", ""), condition3("Failing", "False", "", ""), condition3("Progressing", "False", "", "")}, ",")+`]}`)
	c := w.cluster()
	all := append(releaseObjects(t, objects.IDMS), mirrorObject(t, objects.ITMS, objects.AdditionalName, "reg.example:5000/ubi", "registry.example/ubi"))
	p, err := c.Apply(w.ctx, ApplyOptions{Objects: all})
	if err != nil || p.Kind != objects.ICSP || actions(p) != "create create" || !strings.Contains(strings.Join(p.Warnings, " "), "ImageTagMirrorSet pannier-additional is left out") {
		t.Fatalf("%+v, %v", p, err)
	}
	if n := len(w.get(icspAPI+"/"+objects.ReleaseName).Objects("spec", "repositoryDigestMirrors")); n != 2 {
		t.Errorf("%d entries", n)
	}
	opts := w.options()
	opts.Target.Version, opts.Target.Previous = "4.8.21", []string{"4.8.11"}
	if _, err := c.Upgrade(w.ctx, opts); err != nil {
		t.Fatal(err)
	}
	update := w.get(cvPath).At("spec", "desiredUpdate").(map[string]any)
	if _, there := update["architecture"]; there || update["image"] != opts.Target.Image {
		t.Errorf("%v", update)
	}
	// Also where the version does not tell that the field is missing.
	w.patch(cvPath, map[string]any{"spec": map[string]any{"desiredUpdate": nil}})
	w.patchStatus(cvPath, fmt.Sprintf(`{"observedGeneration":%d,"desired":{"version":"4.13.0","image":"x"},"history":[{"state":"Completed","startedTime":"2026-01-01T00:00:00Z","completionTime":"2026-01-01T01:00:00Z","version":"4.13.0","image":"x","verified":true}]}`, w.get(cvPath).Generation()))
	opts.Target.Version, opts.Target.Previous = "4.13.5", []string{"4.13.0"}
	if _, err := w.cluster("kubelet-versions").Upgrade(w.ctx, opts); err != nil || w.asked() != opts.Target.Image {
		t.Errorf("%v, asked %q", err, w.asked())
	}
}

// TestClusterWithoutICSP is one of which the old kind is gone.
func TestClusterWithoutICSP(t *testing.T) {
	w := emptyWorld(t, clustertest.Start(t, clustertest.WithoutICSP()))
	w.build(testVersion)
	p, err := w.cluster().Apply(w.ctx, ApplyOptions{Objects: releaseObjects(t, objects.ICSP)})
	if err != nil || p.Kind != objects.IDMS {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := w.cluster().Apply(w.ctx, ApplyOptions{Objects: moreObjects(t), Kind: objects.ICSP}); !errors.Is(err, ErrConflict) {
		t.Errorf("a kind that is not there: %v", err)
	}
}

// TestStrictValidation shows that a field that the cluster does not know is refused, and not
// dropped without a word.
func TestStrictValidation(t *testing.T) {
	w := newWorld(t)
	o := mirrorObject(t, objects.IDMS, objects.ReleaseName, testMirror, testSource)
	o.YAML = []byte(strings.Replace(string(o.YAML), "spec:", "spec:\n  imageDigestMirrrors: []", 1))
	if _, err := w.cluster().Apply(w.ctx, ApplyOptions{Objects: []objects.Object{o}}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "imageDigestMirrrors") {
		t.Errorf("%v", err)
	}
}

// TestProbeNodes plays the kubelet: one pool pulls, the other cannot.
func TestProbeNodes(t *testing.T) {
	w := newWorld(t)
	const podAPI = "/api/v1/namespaces/default/pods"
	go func() {
		for w.ctx.Err() == nil {
			list, _ := w.plane.List(w.ctx, podAPI)
			for _, p := range list {
				state := `{"phase":"Succeeded","containerStatuses":[{"name":"probe","image":"x","imageID":"quay.io/x@sha256:1","ready":false,"restartCount":0,"state":{"terminated":{"exitCode":0}}}]}`
				if strings.HasPrefix(p.Text("spec", "nodeName"), "worker") {
					state = `{"phase":"Pending","containerStatuses":[{"name":"probe","image":"x","imageID":"","ready":false,"restartCount":0,"state":{"waiting":{"reason":"ImagePullBackOff","message":"x509: unknown authority"}}}]}`
				}
				w.plane.Patch(w.ctx, podAPI+"/"+p.Name()+"/status", []byte(`{"status":`+state+`}`))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	all, err := w.cluster().ProbeNodes(w.ctx, ProbeOptions{Image: testSource + "@" + newDigest.String()})
	if err != nil || len(all) != 2 || all[0].Status != Pass || all[1].Status != Fail || !strings.Contains(all[1].Detail, "unknown authority") {
		t.Errorf("%+v, %v", all, err)
	}
	if left, err := w.plane.List(w.ctx, podAPI); err != nil || len(left) > 0 {
		// Without a kubelet a pod on a node stays until its grace period of 0 s is over.
		t.Errorf("%d pods left, %v", len(left), err)
	}
	if _, err := w.cluster().ProbeNodes(w.ctx, ProbeOptions{Image: testSource + ":4.16.9"}); !errors.Is(err, ErrRefused) {
		t.Errorf("by tag: %v", err)
	}
}

// TestExpiredLogin is a token that the cluster does not know.
func TestExpiredLogin(t *testing.T) {
	w := newWorld(t)
	c := w.cluster()
	c.client.Transport = withoutToken{c.client.Transport}
	all, err := c.Preflight(w.ctx, PreflightOptions{})
	if err != nil || all[0].Status != Fail || !strings.Contains(all[0].Remedy, "oc login") {
		t.Errorf("%+v, %v", all[0], err)
	}
	if got := find(all, "etcd"); got.Status != Skip {
		t.Errorf("%+v", got)
	}
	c.disable["api"] = true
	if all, _ := c.Preflight(w.ctx, PreflightOptions{}); find(all, "etcd").Status != Warn {
		t.Errorf("without the check of the API: %+v", find(all, "etcd"))
	}
	if _, err := c.Plan(w.ctx, ApplyOptions{Objects: moreObjects(t)}); !errors.Is(err, ErrForbidden) || !errors.Is(err, ErrCluster) {
		t.Errorf("%v", err)
	}
}

// withoutToken sends a token of its own; client-go leaves one that is set as it is.
type withoutToken struct{ next http.RoundTripper }

func (t withoutToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer expired")
	return t.next.RoundTrip(r)
}
