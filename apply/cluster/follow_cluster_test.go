//go:build cluster

package cluster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pannier/bundle/objects"
)

const moreSource = "quay.io/custom/release"

// moreObjects need a rollout: the usual mirrors are there already.
func moreObjects(t *testing.T) []objects.Object {
	return []objects.Object{mirrorObject(t, objects.IDMS, objects.ReleaseName, testMirror, testSource, testParts, moreSource)}
}

func TestRollout(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	w.operate(nil)
	c := w.cluster()
	if _, err := c.Apply(w.ctx, ApplyOptions{Objects: moreObjects(t)}); err != nil {
		t.Fatal(err)
	}
	// Right after the write every pool still says that it is up to date.
	states, err := c.WaitRollout(w.ctx, RolloutOptions{Objects: moreObjects(t)})
	if err != nil || len(states) != 2 || !states[0].Settled || !states[1].Settled {
		t.Fatalf("%+v, %v\n%s", states, err, w.log())
	}
	for _, name := range []string{"master", "worker"} {
		p := w.get(poolAPI + "/machineconfigpools/" + name)
		want := w.render(name, append(wantedTestPairs(), pair{moreSource, testMirror}), "controller-1")
		if p.Text("status", "configuration", "name") != want {
			t.Errorf("%s has %s, want %s", name, p.Text("status", "configuration", "name"), want)
		}
	}
	if !w.said(unrenderedText) || !w.said("1 of 3 nodes updated") || !w.said("done: 2 nodes") {
		t.Errorf("events:\n%s", w.log())
	}
	// Again: at once.
	if _, err := c.WaitRollout(w.ctx, RolloutOptions{Objects: moreObjects(t)}); err != nil {
		t.Error(err)
	}
}

func TestRolloutThatFails(t *testing.T) {
	for _, tc := range []struct {
		name   string
		play   func(*operators)
		timing func(*Timing)
		want   error
		text   string
	}{
		{"a pool degrades", func(o *operators) { o.degrade = "worker" }, func(*Timing) {}, ErrDegraded, "worker: NodeDegraded: Node worker-0 is reporting: disk is full"},
		{"nothing is taken up", func(o *operators) { o.deaf = true }, func(t *Timing) { t.Render = 300 * time.Millisecond }, ErrStalled, "machine-config-controller"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.arrived()
			w.operate(tc.play)
			timing := fast
			tc.timing(&timing)
			c := w.connect(w.plane.Kubeconfig, timing)
			if _, err := c.Apply(w.ctx, ApplyOptions{Objects: moreObjects(t)}); err != nil {
				t.Fatal(err)
			}
			_, err := c.WaitRollout(w.ctx, RolloutOptions{Objects: moreObjects(t)})
			if !errors.Is(err, tc.want) || !errors.Is(err, ErrCluster) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestRolloutWithPausedPool(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	w.patch(poolAPI+"/machineconfigpools/worker", map[string]any{"spec": map[string]any{"paused": true}})
	w.operate(nil)
	c := w.cluster()
	p, err := c.Apply(w.ctx, ApplyOptions{Objects: moreObjects(t)})
	if err != nil || !strings.Contains(strings.Join(p.Warnings, "\n"), "pool worker (2 nodes) is paused") {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := c.WaitRollout(w.ctx, RolloutOptions{Objects: moreObjects(t)}); err != nil || !w.said("paused, with 2 nodes: not waited for") {
		t.Errorf("%v\n%s", err, w.log())
	}
	ctx, cancel := context.WithTimeout(w.ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := c.WaitRollout(ctx, RolloutOptions{Objects: moreObjects(t), RequirePaused: true}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused pool that is required: %v", err)
	}
}

func TestUpgradeToTheEnd(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	w.operate(nil)
	opts := w.options()

	dry := opts
	dry.DryRun, dry.Wait = true, true
	if res, err := w.cluster().Upgrade(w.ctx, dry); err != nil || res.Asked || w.asked() != "" {
		t.Fatalf("dry run: %+v, %v, asked %q", res, err, w.asked())
	}
	opts.Wait = true
	res, err := w.cluster().Upgrade(w.ctx, opts)
	if err != nil || !res.Asked || res.Already || res.From != testVersion {
		t.Fatalf("%+v, %v\n%s", res, err, w.log())
	}
	update := w.get(cvPath).At("spec", "desiredUpdate").(map[string]any)
	if update["image"] != opts.Target.Image || update["force"] != false || update["version"] != "" || update["architecture"] != "" {
		t.Errorf("%v", update)
	}
	for _, p := range []string{"master", "worker"} {
		if got := w.get(poolAPI+"/machineconfigpools/"+p).Text("status", "configuration", "name"); got != w.render(p, wantedTestPairs(), "controller-2") {
			t.Errorf("the wait ended with %s in pool %s", got, p)
		}
	}
	for _, text := range []string{"accepted: the cluster updates to 4.16.9", "Working towards 4.16.9", "completed"} {
		if !w.said(text) {
			t.Errorf("no word of %q:\n%s", text, w.log())
		}
	}
	before := w.get(cvPath).Generation()
	res, err = w.cluster().Upgrade(w.ctx, opts)
	if err != nil || !res.Already || res.Asked || w.get(cvPath).Generation() != before {
		t.Errorf("again: %+v, %v", res, err)
	}
}

// TestUpgradeInterrupted ends the wait at several steps; the same call goes on.
func TestUpgradeInterrupted(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	w.operate(nil)
	opts := w.options()
	opts.Wait = true
	for i := range 6 {
		ctx, cancel := context.WithTimeout(w.ctx, time.Duration(i+1)*250*time.Millisecond)
		_, err := w.cluster().Upgrade(ctx, opts)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if res, err := w.cluster().Upgrade(w.ctx, opts); err != nil {
		t.Fatalf("%+v, %v\n%s", res, err, w.log())
	}
	if g := w.get(cvPath).Generation(); g != 2 {
		t.Errorf("asked %d times", g-1)
	}
}

func TestUpgradeRefused(t *testing.T) {
	const why = `Retrieving payload failed version="" image="` + testMirror + `@x": The update cannot be verified: unable to verify against keyrings: verifier-public-key-redhat`
	w := newWorld(t)
	w.arrived()
	o := w.operate(func(o *operators) { o.refuse = why })
	opts := w.options()
	opts.Wait = true
	if _, err := w.cluster().Upgrade(w.ctx, opts); !errors.Is(err, ErrPayload) || !strings.Contains(err.Error(), why) {
		t.Fatalf("%v\n%s", err, w.log())
	}
	// Asked again while nothing has changed: the old refusal is not taken for the new one, the new one is found.
	if _, err := w.cluster().Upgrade(w.ctx, opts); !errors.Is(err, ErrPayload) {
		t.Errorf("again: %v", err)
	}
	o.set(func(o *operators) { o.refuse, o.step = "", 0 })
	if _, err := w.cluster().Upgrade(w.ctx, opts); err != nil {
		t.Errorf("after the cause is gone: %v\n%s", err, w.log())
	}
}

func TestUpgradeRefusedByOldCluster(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	w.patchStatus(cvPath, `{"conditions":[{"type":"Available","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"},{"type":"Failing","status":"False","lastTransitionTime":"2026-01-01T00:00:00Z"},{"type":"Progressing","status":"False","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`)
	w.operate(func(o *operators) { o.refuse, o.old = "The update cannot be verified", true })
	opts := w.options()
	opts.Wait = true
	if _, err := w.cluster().Upgrade(w.ctx, opts); !errors.Is(err, ErrPayload) || !strings.Contains(err.Error(), "cannot be verified") {
		t.Errorf("%v\n%s", err, w.log())
	}
}

func TestUpgradeWaitsForOwnBackup(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	w.operate(func(o *operators) { o.backup = 20 })
	opts := w.options()
	opts.Wait = true
	if _, err := w.cluster().Upgrade(w.ctx, opts); err != nil || !w.said("takes a backup of etcd") {
		t.Errorf("%v\n%s", err, w.log())
	}
}

func TestUpgradeStalls(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	w.operate(func(o *operators) { o.silent = true })
	timing := fast
	timing.Accept = 300 * time.Millisecond
	opts := w.options()
	opts.Wait = true
	if _, err := w.connect(w.plane.Kubeconfig, timing).Upgrade(w.ctx, opts); !errors.Is(err, ErrStalled) {
		t.Errorf("%v", err)
	}
}

func TestUpgradeWithPausedPoolAllowed(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	w.patch(poolAPI+"/machineconfigpools/worker", map[string]any{"spec": map[string]any{"paused": true}})
	w.operate(nil)
	opts := w.options()
	opts.Wait = true
	opts.Preflight.AllowPausedPools = []string{"worker"}
	if _, err := w.cluster().Upgrade(w.ctx, opts); err != nil || !w.said("paused, with 2 nodes: not waited for") {
		t.Errorf("%v\n%s", err, w.log())
	}
}

// TestWaitLacksAVerb takes away, one at a time, what following a rollout and an update reads:
// it ends soon with what is not permitted, or goes on without what it can do without.
func TestWaitLacksAVerb(t *testing.T) {
	w := newWorld(t)
	w.arrived()
	s, err := w.cluster().surroundings(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	all := append(needed(s), useful...)
	user, err := w.plane.CreateUser(w.ctx, "follower", rules(all)...)
	if err != nil {
		t.Fatal(err)
	}
	without := func(verb string, r resource) *Cluster {
		t.Helper()
		left := slices.DeleteFunc(slices.Clone(all), func(n need) bool { return n.verb == verb && n.resource == r })
		if len(left) == len(all) {
			t.Fatalf("nobody needs to %s %s", verb, r)
		}
		if err := user.Allow(w.ctx, rules(left)...); err != nil {
			t.Fatal(err)
		}
		return w.connect(user.Kubeconfig, fast)
	}
	for _, tc := range []struct {
		verb   string
		r      resource
		denied bool
	}{{"list", pools, true}, {"get", machineConfigs, true}, {"list", nodes, false}, {"list", clusterOperators, false}} {
		t.Run(tc.verb+" "+tc.r.name, func(t *testing.T) {
			_, err := without(tc.verb, tc.r).WaitRollout(w.ctx, RolloutOptions{Objects: releaseObjects(t, objects.IDMS)})
			if errors.Is(err, ErrForbidden) != tc.denied || !tc.denied && err != nil {
				t.Errorf("%v", err)
			}
		})
	}

	// In the middle of an update, which the cluster goes through with all the same.
	o := w.operate(func(o *operators) { o.silent = true })
	if err := user.Allow(w.ctx, rules(all)...); err != nil {
		t.Fatal(err)
	}
	opts := w.options()
	opts.Wait = true
	done := make(chan error, 1)
	go func() {
		_, err := w.connect(user.Kubeconfig, fast).Upgrade(w.ctx, opts)
		done <- err
	}()
	for w.asked() == "" && w.ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	c := without("get", clusterVersions)
	if err := <-done; !errors.Is(err, ErrForbidden) || !strings.Contains(err.Error(), "clusterversions") {
		t.Errorf("%v\n%s", err, w.log())
	}
	if _, err := c.Upgrade(w.ctx, opts); !errors.Is(err, ErrForbidden) {
		t.Errorf("again: %v", err)
	}
	o.set(func(o *operators) { o.silent = false })
	c = without("list", nodes) // without which less is told
	if _, err := c.Upgrade(w.ctx, opts); err != nil {
		t.Errorf("%v\n%s", err, w.log())
	}
}
