package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// follower follows one update from the request to the last pool.
type follower struct {
	c        *Cluster
	target   Target
	digest   string
	before   condition // the one that tells of refusals, as it stood before asking
	since    time.Time // of the request, or of the API server's return
	backup   time.Time // since when the cluster takes a backup of its own
	accepted bool
	watch    watch
}

// refusalConditions are those that tell of a refused release: the second on clusters that do
// not have the first.
const releaseAccepted, failing = "ReleaseAccepted", "Failing"

// recentBackup stands in the refusal of a cluster of 4.8 to 4.14 that takes a backup first.
const recentBackup = "RecentBackup"

// follow waits for acceptance, completion and the pools.
func (u *upgrade) follow(ctx context.Context, before *clusterVersion) error {
	f := &follower{c: u.c, target: u.opts.Target, digest: u.digest, since: time.Now()}
	f.watch.c = u.c
	f.before = before.refusalCondition()
	patience := u.c.patience()
	for done := false; !done; {
		var cv clusterVersion
		err := u.c.get(ctx, clusterVersions, "", "version", &cv)
		if err == nil {
			patience.good()
			if done, err = f.look(&cv); err != nil {
				return err
			}
		} else if err = patience.bear(ctx, err); err != nil {
			return fmt.Errorf("follow the update: %w", err)
		} else {
			f.since = time.Now()
		}
		if !done {
			if err := sleep(ctx, u.c.timing.Poll); err != nil {
				return err
			}
		}
	}
	return u.followPools(ctx)
}

// refusalCondition is the condition that tells of refusals on this cluster.
func (cv *clusterVersion) refusalCondition() condition {
	if c := cv.Status.Conditions.get(releaseAccepted); c.Type != "" {
		return c
	}
	return cv.Status.Conditions.get(failing)
}

// look judges the cluster version, and says whether the update is complete.
func (f *follower) look(cv *clusterVersion) (bool, error) {
	if cv.reached(f.digest) && cv.Status.History[0].State == "Completed" {
		f.watch.change("version", "", "completed: the control plane runs "+f.target.Version)
		return true, nil
	}
	if !cv.asks(f.digest) && !cv.reached(f.digest) {
		return false, fmt.Errorf("%w: the request for %s is gone: somebody withdrew or replaced it", ErrPayload, f.target.Image)
	}
	if cv.Status.ObservedGeneration >= cv.Metadata.Generation {
		if done, err := f.refused(cv); done || err != nil {
			return false, err
		}
	}
	if cv.reached(f.digest) {
		if !f.accepted {
			f.accepted = true
			f.c.event("version", "", "accepted: the cluster updates to %s", f.target.Version)
		}
		text := cv.Status.Conditions.get("Progressing").text()
		if c := cv.Status.Conditions.get(failing); c.Status == "True" {
			text = "failing: " + c.text()
		}
		f.watch.change("version", "", text)
		return false, nil
	}
	if time.Since(f.since) >= f.c.timing.Accept {
		return false, fmt.Errorf("%w: for %s the cluster has neither accepted nor refused the release%s", ErrStalled, f.c.timing.Accept, strings.TrimSuffix("; it says: "+cv.refusalCondition().text(), "; it says: "))
	}
	text := "the cluster version operator looks at the release"
	if cv.Status.ObservedGeneration < cv.Metadata.Generation {
		text = "the cluster version operator has not noticed the request yet"
	}
	f.watch.change("version", "", text)
	return false, nil
}

// oldRefusals are the reasons for which clusters without ReleaseAccepted say that they will
// not apply a release.
var oldRefusals = []string{"ImageVerificationFailed", "UpdatePayload", "UpgradePrecondition", "VerifyPayload", "RetrievePayload", "PreconditionChecks", "LoadPayload"}

// refused returns an error if the cluster has refused the release. wait is true while a
// refusal is not final: a backup that the cluster itself takes first, or one that stood there
// before it was asked.
func (f *follower) refused(cv *clusterVersion) (wait bool, err error) {
	c := cv.refusalCondition()
	switch {
	case c.Type == releaseAccepted && (c.Status != "False" || cv.reached(f.digest)),
		c.Type == failing && (c.Status != "True" || !startsWithAny(c.Reason, oldRefusals)),
		c.Type == "", !f.about(c):
		f.backup = time.Time{}
		return false, nil
	case strings.Contains(c.Message, recentBackup):
		if f.backup.IsZero() {
			f.backup = time.Now()
		}
		if time.Since(f.backup) < f.c.timing.Backup {
			f.watch.change("version", "", "the cluster takes a backup of etcd before it accepts the release: "+c.text())
			return true, nil
		}
	case c.same(f.before) && time.Since(f.since) < f.c.timing.Refusal:
		f.watch.change("version", "", "an earlier refusal still stands there, waiting for a new decision: "+c.text())
		return true, nil
	}
	return false, fmt.Errorf("%w: %s", ErrPayload, c.text())
}

// about reports whether a refusal is of this release: its message names it, or none.
func (f *follower) about(c condition) bool {
	return strings.Contains(c.Message, f.digest) || !strings.Contains(c.Message, "sha256:") ||
		f.target.Version != "" && strings.Contains(c.Message, `version="`+f.target.Version+`"`)
}

func startsWithAny(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// followPools waits until the nodes have what the new version renders for them: the operator
// calls an update complete before the workers have it, and a pool calls itself updated until
// it is given its new configuration.
func (u *upgrade) followPools(ctx context.Context) error {
	w := &rollout{c: u.c, patience: u.c.patience(), start: time.Now()}
	w.require = func(ctx context.Context, p *pool) (string, error) {
		conf, err := w.rendered.config(ctx, p.Spec.Configuration.Name)
		switch {
		case errors.Is(err, ErrForbidden):
			w.watch.change("warning", "machineconfigs", "whether pools have the configuration of the new version is not looked at: "+err.Error())
			return "", nil
		case isNotFound(err):
			return "waiting for its configuration of " + u.opts.Target.Version, nil
		case err != nil:
			return "", err
		}
		controller, err := u.controller(ctx, &w.rendered)
		if err != nil {
			return "", err
		}
		if conf.version != "" && conf.version != u.opts.Target.Version ||
			conf.version == "" && controller != "" && conf.controller != "" && conf.controller != controller {
			return "waiting for its configuration of " + u.opts.Target.Version, nil
		}
		return "", nil
	}
	states, err := w.run(ctx)
	u.res.Pools = states
	return err
}

// controller is the machine-config controller that rendered the control plane's
// configuration, which is that of the new version once the update is complete.
func (u *upgrade) controller(ctx context.Context, r *rendered) (string, error) {
	var p pool
	if err := u.c.get(ctx, pools, "", "master", &p); err != nil {
		if isNotFound(err) {
			return "", nil
		}
		return "", err
	}
	conf, err := r.config(ctx, p.Spec.Configuration.Name)
	if err != nil {
		return "", err
	}
	return conf.controller, nil
}
