//go:build cluster

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"pannier/apply/cluster/clustertest"
)

// operators plays the machine-config operator and the cluster version operator: it looks at
// the API server every few milliseconds, and writes what they would. What goes wrong is
// tried again at the next look, so that it outlives the API server.
type operators struct {
	w    *world
	tick time.Duration

	mu         sync.Mutex
	deaf       bool   // the machine-config operator takes up nothing
	degrade    string // pool that fails when it is rolled
	refuse     string // message with which releases are refused; "" accepts
	backup     int    // looks for which the release is refused until a backup is there
	silent     bool   // the cluster version operator does nothing
	old        bool   // a cluster without ReleaseAccepted
	controller string // of the machine-config operator

	delay map[string]int // looks until a pool goes on
	step  int            // of the update
	asked string
}

// operate starts the operators; they end with the test.
func (w *world) operate(change func(*operators)) *operators {
	o := &operators{w: w, tick: 30 * time.Millisecond, controller: "controller-1", delay: map[string]int{}}
	if change != nil {
		change(o)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	var ended sync.WaitGroup
	ended.Go(func() {
		for ctx.Err() == nil {
			o.mu.Lock()
			o.machineConfig(ctx)
			o.clusterVersion(ctx)
			o.mu.Unlock()
			time.Sleep(o.tick)
		}
	})
	w.t.Cleanup(func() { cancel(); ended.Wait() })
	return o
}

func (o *operators) set(change func(*operators)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change(o)
}

// machineConfig renders what mirror sets say, and rolls it out node by node. It takes its
// time before it takes something up: meanwhile pools say that they are up to date.
func (o *operators) machineConfig(ctx context.Context) {
	if o.deaf {
		return
	}
	var mirrors []pair
	for path, field := range map[string]string{icspAPI: "repositoryDigestMirrors", idmsAPI: "imageDigestMirrors", itmsAPI: "imageTagMirrors"} {
		sets, err := o.w.plane.List(ctx, path)
		if err != nil {
			return
		}
		for _, s := range sets {
			for _, e := range s.Objects("spec", field) {
				list, _ := e["mirrors"].([]any)
				for _, m := range list {
					mirrors = append(mirrors, pair{e.Text("source"), fmt.Sprint(m)})
				}
			}
		}
	}
	all, err := o.w.plane.List(ctx, poolAPI+"/machineconfigpools")
	if err != nil || len(mirrors) == 0 {
		return
	}
	for _, p := range all {
		o.pool(ctx, p, mirrors)
	}
}

func (o *operators) pool(ctx context.Context, p clustertest.Object, mirrors []pair) {
	name, path := p.Name(), poolAPI+"/machineconfigpools/"+p.Name()
	if o.delay[name]++; o.delay[name] < 4 {
		return
	}
	o.delay[name] = 0
	want := o.w.render(name, mirrors, o.controller)
	if p.Text("spec", "configuration", "name") != want {
		o.w.plane.Patch(ctx, path, clustertest.Object{"spec": clustertest.Object{"configuration": clustertest.Object{"name": want}}})
		return
	}
	if p.At("spec", "paused") == true || p.Text("status", "configuration", "name") == want && p.Int("status", "observedGeneration") == p.Generation() {
		return
	}
	machines, updated := p.Int("status", "machineCount"), p.Int("status", "updatedMachineCount")
	const then = "2026-01-02T00:00:00Z"
	cond := func(kind, status, message string) string {
		return fmt.Sprintf(`{"type":%q,"status":%q,"lastTransitionTime":%q,"reason":"","message":%q}`, kind, status, then, message)
	}
	status := ""
	switch {
	case name == o.degrade:
		status = fmt.Sprintf(`{"observedGeneration":%d,"degradedMachineCount":1,"conditions":[%s,%s]}`, p.Generation(),
			cond("Updated", "False", ""), cond("NodeDegraded", "True", "Node worker-0 is reporting: disk is full"))
	case p.Condition("Updating").Text("status") != "True":
		status = fmt.Sprintf(`{"observedGeneration":%d,"updatedMachineCount":0,"readyMachineCount":0,"conditions":[%s,%s]}`, p.Generation(),
			cond("Updated", "False", ""), cond("Updating", "True", ""))
	case updated < machines:
		node := fmt.Sprintf("/api/v1/nodes/%s-%d", name, updated)
		o.w.plane.Patch(ctx, node, json.RawMessage(fmt.Sprintf(`{"metadata":{"annotations":{%q:%q,%q:%q}}}`, nodeCurrentConfig, want, nodeDesiredConfig, want)))
		status = fmt.Sprintf(`{"updatedMachineCount":%d,"readyMachineCount":%d}`, updated+1, updated+1)
	default:
		status = fmt.Sprintf(`{"observedGeneration":%d,"configuration":{"name":%q},"conditions":[%s,%s]}`, p.Generation(), want,
			cond("Updated", "True", ""), cond("Updating", "False", ""))
	}
	o.w.plane.PatchStatus(ctx, path, json.RawMessage(status))
}

// clusterVersion takes up a request, decides on it, and updates.
func (o *operators) clusterVersion(ctx context.Context) {
	cv, err := o.w.plane.Get(ctx, cvPath)
	if err != nil || o.silent {
		return
	}
	image := cv.Text("spec", "desiredUpdate", "image")
	if image == "" || image == cv.Text("status", "desired", "image") && cv.Objects("status", "history")[0].Text("state") == "Completed" {
		return
	}
	if o.asked != image {
		o.asked, o.step = image, 0
	}
	o.step++
	key := "ReleaseAccepted"
	conditions := map[string]string{"Available": "True", "Failing": "False", "Progressing": "False", key: "True"}
	texts := map[string]string{}
	history := cv.At("status", "history").([]any)
	next := map[string]any{"observedGeneration": cv.Generation()}
	entry := map[string]any{"state": "Partial", "startedTime": "2026-02-01T00:00:00Z", "completionTime": nil, "version": "4.16.9", "image": image, "verified": true}
	refusal := o.refuse
	if o.step <= o.backup {
		refusal = `Preconditions failed for payload loaded version="4.16.9" image="` + image + `": Precondition "EtcdRecentBackup" failed because of "ControllerStarted": RecentBackup: not yet`
	}
	switch {
	case o.step < 5: // nothing is noticed yet: the old conditions stand
		return
	case refusal != "" && o.old:
		conditions["Failing"], conditions["Progressing"] = "True", "True"
		texts["Failing"] = "ImageVerificationFailed\x00" + refusal
		o.put(cv, next, entry, history)
	case refusal != "":
		conditions[key] = "False"
		texts[key] = "RetrievePayload\x00" + refusal
	case o.step < 10:
		conditions[key] = "Unknown"
	case o.step < 25:
		conditions["Progressing"] = "True"
		texts["Progressing"] = fmt.Sprintf("ClusterOperatorsUpdating\x00Working towards 4.16.9: %d of 20 done", o.step)
		o.put(cv, next, entry, history)
	case o.step == 25:
		o.controller = "controller-2" // the new operator renders everything anew
		return
	default:
		master, err := o.w.plane.Get(ctx, poolAPI+"/machineconfigpools/master")
		if err != nil || master.Text("spec", "configuration", "name") != o.w.render("master", o.mirrorsOf(ctx), o.controller) ||
			master.Text("status", "configuration", "name") != master.Text("spec", "configuration", "name") {
			return
		}
		entry["state"], entry["completionTime"] = "Completed", "2026-02-01T01:00:00Z"
		o.put(cv, next, entry, history)
	}
	if o.old {
		delete(conditions, key)
	}
	var list []any
	for kind, status := range conditions {
		reason, message, _ := strings.Cut(texts[kind], "\x00")
		if kind == key && message == "" {
			message = `architecture="amd64"`
		}
		list = append(list, map[string]any{"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-02-01T00:00:00Z"})
	}
	next["conditions"] = list
	// A merge patch would lose the null of completionTime.
	status := cv.At("status").(map[string]any)
	maps.Copy(status, next)
	if _, err := o.w.plane.PutStatus(ctx, cvPath, status); err != nil && ctx.Err() == nil && o.w.plane.Running() {
		o.w.t.Logf("status of the cluster version: %v", err)
	}
}

func (o *operators) mirrorsOf(ctx context.Context) []pair {
	var out []pair
	sets, _ := o.w.plane.List(ctx, idmsAPI)
	for _, s := range sets {
		for _, e := range s.Objects("spec", "imageDigestMirrors") {
			list, _ := e["mirrors"].([]any)
			for _, m := range list {
				out = append(out, pair{e.Text("source"), fmt.Sprint(m)})
			}
		}
	}
	return out
}

// put makes the release the newest entry of the history.
func (o *operators) put(cv clustertest.Object, next, entry map[string]any, history []any) {
	next["desired"] = map[string]any{"version": entry["version"], "image": entry["image"]}
	if cv.Objects("status", "history")[0].Text("image") == entry["image"] {
		history = history[1:]
	}
	next["history"] = append([]any{entry}, history...)
}
