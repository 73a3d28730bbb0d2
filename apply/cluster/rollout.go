package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pannier/bundle/content"
	"pannier/bundle/objects"
)

// patience decides how long a cluster that does not answer is waited for. API servers restart
// during a rollout, one after the other; they then refuse connections, and for a moment even
// refuse permissions.
type patience struct {
	c        *Cluster
	answered bool      // at least once
	since    time.Time // of the last good answer
	denied   time.Time // since when there is nothing but 401 and 403
	told     bool
}

func (c *Cluster) patience() *patience { return &patience{c: c, since: time.Now()} }

// good notes an answer.
func (p *patience) good() {
	if p.told {
		p.c.event("api", "", "the API server answers again after %s", time.Since(p.since).Round(time.Second))
	}
	p.answered, p.since, p.denied, p.told = true, time.Now(), time.Time{}, false
}

// bear returns nil if waiting goes on after an error, or the error to give up with.
func (p *patience) bear(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !errors.Is(err, ErrCluster) {
		return err
	}
	now := time.Now()
	switch {
	case errors.Is(err, ErrForbidden):
		if p.denied.IsZero() {
			p.denied = now
		}
		if !p.answered || now.Sub(p.denied) >= p.c.timing.Denied {
			return err
		}
	case !transient(err) && !isNotFound(err):
		return err
	default:
		p.denied = time.Time{}
		if now.Sub(p.since) >= p.c.timing.GiveUp {
			return fmt.Errorf("no answer for %s: %w", now.Sub(p.since).Round(time.Second), err)
		}
	}
	if !p.told {
		p.told = true
		p.c.event("api", "", "waiting for the API server: %v", err)
	}
	return nil
}

// RolloutOptions say what is waited for.
type RolloutOptions struct {
	Objects []objects.Object // the mirror sets that must have arrived; others are passed over

	// RequirePaused waits for paused pools too, which then never ends before somebody resumes
	// them. Otherwise they are named and passed over.
	RequirePaused bool
}

// WaitRollout returns when the nodes of every pool have the mirrors: when the configuration
// that the pool asks for holds them and every node has that configuration. It tells of each
// change, and outlives restarts of the API server. Errors wrap [ErrDegraded] for a pool that
// fails, [ErrStalled] if the mirror sets are not taken up. It may be called again at any time.
func (c *Cluster) WaitRollout(ctx context.Context, opts RolloutOptions) ([]PoolState, error) {
	var sets []mirrorSet
	for _, o := range opts.Objects {
		if o.Kind == "ConfigMap" {
			continue
		}
		set, err := c.parseWanted(o)
		if err != nil {
			return nil, err
		}
		sets = append(sets, set)
	}
	w := &rollout{c: c, want: wantedPairs(sets), paused: opts.RequirePaused, patience: c.patience(), start: time.Now()}
	return w.run(ctx)
}

// rollout follows pools and nodes.
type rollout struct {
	c        *Cluster
	want     []pair
	paused   bool // paused pools count
	patience *patience
	start    time.Time
	rendered rendered
	watch    watch

	// require says of a settled pool what it still lacks, "" if nothing; nil is "nothing".
	require func(context.Context, *pool) (string, error)
}

func (w *rollout) run(ctx context.Context) ([]PoolState, error) {
	w.rendered.c, w.watch.c = w.c, w.c
	for {
		states, done, err := w.look(ctx)
		switch {
		case err == nil && done:
			return states, nil
		case err == nil:
			w.patience.good()
		case errors.Is(err, ErrDegraded) || errors.Is(err, ErrStalled):
			return states, err
		default:
			if err := w.patience.bear(ctx, err); err != nil {
				return states, fmt.Errorf("wait for the rollout: %w", err)
			}
			w.start = time.Now() // an operator that cannot reach its API server is not stalled
		}
		if err := sleep(ctx, w.c.timing.Poll); err != nil {
			return states, err
		}
	}
}

// look asks once, and says whether everything has arrived.
func (w *rollout) look(ctx context.Context) ([]PoolState, bool, error) {
	ps, err := list[pool](ctx, w.c, pools, "", "")
	if isNotFound(err) {
		w.c.event("warning", "", "the cluster has no machine config pools: whoever runs its nodes must bring the mirrors to them")
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	slices.SortFunc(ps, func(a, b pool) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	done := true
	var unrendered []string
	for i := range ps {
		p := &ps[i]
		text, ok, err := w.pool(ctx, p)
		if err != nil {
			return poolStates(ps), false, err
		}
		w.watch.change("pool", p.Metadata.Name, text)
		if strings.HasPrefix(text, unrenderedText) {
			unrendered = append(unrendered, p.Metadata.Name)
		}
		done = done && ok
	}
	if err := w.watch.nodes(ctx, ps); err != nil {
		return poolStates(ps), false, err
	}
	if err := w.watch.broken(ps, w.paused); err != nil {
		return poolStates(ps), false, err
	}
	if len(unrendered) > 0 && time.Since(w.start) >= w.c.timing.Render {
		return poolStates(ps), false, fmt.Errorf("%w: for %s the machine-config operator has not put the mirrors into the configuration of %s%s",
			ErrStalled, w.c.timing.Render, strings.Join(unrendered, ", "), w.c.operatorSays(ctx, "machine-config"))
	}
	return poolStates(ps), done, nil
}

const unrenderedText = "the machine-config operator has not taken up the mirrors yet"

// pool describes one pool, and says whether it need not be waited for any more.
func (w *rollout) pool(ctx context.Context, p *pool) (text string, done bool, err error) {
	if p.Spec.Paused && !w.paused {
		return fmt.Sprintf("paused, with %s: not waited for", content.Plural(p.Status.Machines, "node", "nodes")), true, nil
	}
	if len(w.want) > 0 {
		a, err := w.rendered.arrived(ctx, p, w.want)
		switch {
		case err != nil:
			return "", false, err
		case !a.rendered:
			return unrenderedText, false, nil
		}
	}
	if p.settled() {
		lacks := ""
		if w.require != nil {
			if lacks, err = w.require(ctx, p); err != nil {
				return "", false, err
			}
		}
		if lacks == "" {
			return fmt.Sprintf("done: %s with %s", content.Plural(p.Status.Machines, "node", "nodes"), p.Spec.Configuration.Name), true, nil
		}
		return lacks, false, nil
	}
	return fmt.Sprintf("%d of %s updated to %s, %d ready", p.Status.Updated, content.Plural(p.Status.Machines, "node", "nodes"), p.Spec.Configuration.Name, p.Status.Ready), false, nil
}

// operatorSays is what a cluster operator complains about, for the end of an error.
func (c *Cluster) operatorSays(ctx context.Context, name string) string {
	var co clusterOperator
	if err := c.get(ctx, clusterOperators, "", name, &co); err != nil {
		return ""
	}
	for _, t := range []string{"Degraded", "Progressing"} {
		if cond := co.Status.Conditions.get(t); cond.Status == "True" {
			return fmt.Sprintf("; clusteroperator %s: %s: %s", name, t, cond.text())
		}
	}
	return fmt.Sprintf("; clusteroperator %s complains of nothing: the log of the machine-config-controller in openshift-machine-config-operator says more", name)
}

// watch turns states into events, one for each change.
type watch struct {
	c        *Cluster
	said     map[string]string
	blind    bool // nodes may not be read
	degraded map[string]time.Time
}

func (w *watch) change(kind, name, text string) {
	if w.said == nil {
		w.said = map[string]string{}
	}
	if key := kind + "/" + name; w.said[key] != text {
		w.said[key] = text
		w.c.event(kind, name, "%s", text)
	}
}

// nodes tells of nodes that change. At the first look only those that are not up to date are
// worth a line. An error is that of a server that does not answer: if it only keeps nodes to
// itself, the pools alone decide.
func (w *watch) nodes(ctx context.Context, ps []pool) error {
	if w.blind {
		return nil
	}
	ns, err := list[node](ctx, w.c, nodes, "", "")
	switch {
	case err == nil:
	case transient(err):
		return err
	case errors.Is(err, ErrForbidden):
		w.blind = true
		w.c.event("warning", "", "nodes are not followed: %v", err)
		return nil
	default:
		return nil
	}
	for _, n := range nodeStates(ns, ps) {
		key := "node/" + n.Name
		if _, known := w.said[key]; !known && (n.State == "up to date" || n.State == "ready") {
			w.said[key] = n.State
			continue
		}
		w.change("node", n.Name, n.State)
	}
	return nil
}

// broken returns an error once a pool has been degraded for long enough. Pools that are not
// waited for do not count.
func (w *watch) broken(ps []pool, paused bool) error {
	if w.degraded == nil {
		w.degraded = map[string]time.Time{}
	}
	for i := range ps {
		p := &ps[i]
		name, why := p.Metadata.Name, p.degraded()
		if why == "" || p.Spec.Paused && !paused {
			delete(w.degraded, name)
			continue
		}
		since, known := w.degraded[name]
		if !known {
			w.degraded[name] = time.Now()
			since = time.Now()
			w.c.event("pool", name, "degraded: %s", why)
		}
		if time.Since(since) >= w.c.timing.Degraded {
			return fmt.Errorf("%w: pool %s: %s", ErrDegraded, name, why)
		}
	}
	return nil
}
