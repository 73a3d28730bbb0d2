package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"pannier/bundle/objects"
)

// UpgradeOptions say which release a cluster is to be asked for.
type UpgradeOptions struct {
	Target    Target           // by digest; Target.Sources must be in the mirror sets
	Preflight PreflightOptions // for the checks; its Target is taken from here

	// FarSide are the checks of the registry's side, run before the first write; may be nil.
	FarSide func(context.Context) ([]Check, error)
	// Holds proves that the registry holds every manifest and blob of the release; may be nil.
	Holds func(context.Context) error

	DryRun bool // the API server checks the request and does not keep it
	Wait   bool // follow the update until it is done on every pool that is not paused

	// Asking is called with what will be asked, once nothing stands against it; may be nil.
	Asking func(*UpgradeResult)
}

// UpgradeResult is what [Cluster.Upgrade] found and did, as far as it came with an error too.
type UpgradeResult struct {
	From     string  // version of the cluster
	To       string  // version of the release
	Image    string  // that is asked for
	Already  bool    // the cluster is at the release: nothing was asked for
	Underway bool    // the cluster was on its way there: nothing was asked for
	Asked    bool    // the request was written
	Checks   []Check // as they came out, the far side's too
	Warnings []string
	Pools    []PoolState // at the end of a wait
}

// upgrade is one run of Upgrade.
type upgrade struct {
	c      *Cluster
	opts   UpgradeOptions
	in     *inspection
	res    *UpgradeResult
	digest string
}

// Guard is one reason not to ask a cluster for a release. Check returns an error that says
// why; a nil error lets the update go on.
type Guard struct {
	Name  string
	Check func(ctx context.Context, u *upgrade) error
}

// guards are all guards of an update, in order: the ones of oc first, as far as they look at
// the cluster; then ours; at last those that take long or need the registry.
func guards() []Guard {
	out := []Guard{{"digest", guardDigest}}
	for _, row := range checks() {
		out = append(out, Guard{row.name, func(ctx context.Context, u *upgrade) error { return u.judge(row.name, row.run(ctx, u.in)) }})
	}
	return append(out,
		Guard{"signature", guardSignature},
		Guard{"mirror-sets", guardMirrorSets},
		Guard{"far-side", guardFarSide},
		Guard{"registry-holds", guardHolds},
	)
}

// expensive guards run only if all others let the update pass.
var expensive = []string{"far-side", "registry-holds"}

// Upgrade asks a cluster for a release, by digest and never forced. Every guard and check
// must pass before the first write; all that fail are in the error, which wraps [ErrGuard].
// A cluster that is at the release already, or on its way there, is not asked again. With
// Wait it follows the update to its end: the error wraps [ErrPayload] if the cluster refuses
// the release, [ErrDegraded] for a pool that fails. The same call may be repeated at any time.
func (c *Cluster) Upgrade(ctx context.Context, opts UpgradeOptions) (*UpgradeResult, error) {
	opts.Preflight.Target = &opts.Target
	u := &upgrade{
		c: c, opts: opts, in: c.inspect(opts.Preflight), digest: digestOf(opts.Target.Image),
		res: &UpgradeResult{To: opts.Target.Version, Image: opts.Target.Image},
	}
	if err := guardDigest(ctx, u); err != nil && c.on("digest") {
		return u.res, err
	}
	cv, err := u.in.version(ctx)
	if err != nil {
		return u.res, err
	}
	u.res.From = cv.current()
	if !cv.reached(u.digest) {
		err = u.ask(ctx, cv)
	}
	if errors.Is(err, ErrGuard) && cv.asks(u.digest) {
		// An earlier run asked for the same. If the cluster has taken that up by now, what the
		// guards saw is the update itself.
		if now, nerr := c.inspect(opts.Preflight).version(ctx); nerr == nil && now.reached(u.digest) {
			cv, err = now, nil
		}
	}
	if err != nil {
		return u.res, err
	}
	if cv.reached(u.digest) {
		u.res.Already = cv.Status.History[0].State == "Completed"
		u.res.Underway = !u.res.Already
	}
	if !opts.Wait || opts.DryRun {
		return u.res, nil
	}
	return u.res, u.follow(ctx, cv)
}

// Version returns the version that the cluster runs; during an update that is the one before.
func (c *Cluster) Version(ctx context.Context) (string, error) {
	cv, err := c.inspect(PreflightOptions{}).version(ctx)
	if err != nil {
		return "", err
	}
	return cv.current(), nil
}

// reached reports whether the cluster runs a release or is updating to it.
func (cv *clusterVersion) reached(digest string) bool {
	h := cv.Status.History
	return digest != "" && len(h) > 0 && digestOf(h[0].Image) == digest &&
		(digestOf(cv.Status.Desired.Image) == digest || h[0].State == "Completed")
}

// ask runs the guards and writes the request.
func (u *upgrade) ask(ctx context.Context, cv *clusterVersion) error {
	if err := u.guard(ctx); err != nil {
		return err
	}
	if u.opts.Asking != nil {
		u.opts.Asking(u.res)
	}
	refusal := cv.Status.Conditions.get(releaseAccepted)
	if cv.asks(u.digest) && refusal.Status == "False" && !strings.Contains(refusal.Message, recentBackup) && !u.opts.DryRun {
		// The same request again is no change, which nobody would notice: it is withdrawn
		// first. That is safe as long as the release is not accepted.
		withdraw := map[string]any{"spec": map[string]any{"desiredUpdate": nil}}
		if err := u.write(ctx, withdraw); err != nil {
			return fmt.Errorf("withdraw the request that was refused: %w", err)
		}
	}
	update := map[string]any{"image": u.opts.Target.Image, "version": u.known(cv), "force": false}
	if v, ok := parseVersion(cv.current()); !ok || !v.before(4, 13) {
		update["architecture"] = "" // clears what an earlier request may have left
	}
	request := map[string]any{"spec": map[string]any{"desiredUpdate": update}}
	err := u.write(ctx, request)
	if errors.Is(err, ErrRefused) && strings.Contains(err.Error(), `unknown field "spec.desiredUpdate.architecture"`) {
		delete(update, "architecture") // this cluster does not know the field yet
		err = u.write(ctx, request)
	}
	if err != nil {
		return fmt.Errorf("ask for %s: %w", u.opts.Target.Image, err)
	}
	if u.res.Asked = !u.opts.DryRun; u.res.Asked {
		u.c.event("version", "", "asked for %s, %s", u.opts.Target.Version, u.opts.Target.Image)
	}
	return nil
}

// known is the version under which the cluster's own list has the release, "" if it has not.
func (u *upgrade) known(cv *clusterVersion) string {
	for _, r := range cv.Status.AvailableUpdates {
		if digestOf(r.Image) == u.digest {
			return r.Version
		}
	}
	return ""
}

// write patches the cluster version, through restarts of the API server.
func (u *upgrade) write(ctx context.Context, patch any) error {
	for try := 1; ; try++ {
		err := u.c.patch(ctx, clusterVersions, "", "version", patch, u.opts.DryRun, nil)
		if err == nil || !transient(err) || try == writeTries {
			return err
		}
		if err := sleep(ctx, min(time.Duration(try)*time.Second, u.c.timing.Poll)); err != nil {
			return err
		}
	}
}

// guard runs all guards, and joins what fails.
func (u *upgrade) guard(ctx context.Context) error {
	var failed []error
	for _, g := range guards() {
		if !u.c.on(g.Name) || len(failed) > 0 && slices.Contains(expensive, g.Name) {
			continue
		}
		err := g.Check(ctx, u)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			continue
		}
		failed = append(failed, err)
		if g.Name == "api" {
			break // nothing else can be looked at
		}
	}
	return errors.Join(failed...)
}

// judge keeps a check, and makes an error of one that fails.
func (u *upgrade) judge(name string, check Check) error {
	check.Name = name
	u.res.Checks = append(u.res.Checks, check)
	if u.opts.Preflight.Checked != nil {
		u.opts.Preflight.Checked(check)
	}
	switch check.Status {
	case Warn:
		u.res.Warnings = append(u.res.Warnings, name+": "+check.Detail)
	case Fail:
		if check.Remedy != "" {
			return fmt.Errorf("%w: %s: %s (%s)", ErrGuard, name, check.Detail, check.Remedy)
		}
		return fmt.Errorf("%w: %s: %s", ErrGuard, name, check.Detail)
	}
	return nil
}

func guardDigest(_ context.Context, u *upgrade) error {
	if u.digest == "" || !strings.Contains(u.opts.Target.repository(), "/") {
		return fmt.Errorf("%w: digest: %q is not REGISTRY/REPOSITORY@sha256:…; a release that is named by tag cannot be verified by the cluster", ErrGuard, u.opts.Target.Image)
	}
	if host, _, _ := strings.Cut(u.opts.Target.Image, "/"); objects.IsLoopback(host) {
		return fmt.Errorf("%w: digest: %s: %w; it needs the name by which the nodes know the registry", ErrGuard, u.opts.Target.Image, ErrLoopback)
	}
	return nil
}

// guardSignature looks for a signature where the cluster will: in any labelled ConfigMap. The
// cluster judges it; one that is missing would be found out only after asking.
func guardSignature(ctx context.Context, u *upgrade) error {
	all, err := list[configMap](ctx, u.c, configMaps, objects.SignatureNamespace, objects.SignatureLabel)
	if err != nil {
		return err
	}
	prefix := strings.Replace(u.digest, ":", "-", 1)
	for _, m := range all {
		for key, sig := range m.BinaryData {
			if strings.HasPrefix(key, prefix) && len(sig) > 0 {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: signature: no ConfigMap in %s has a signature of %s (pannier apply brings it)", ErrGuard, objects.SignatureNamespace, u.digest)
}

// guardMirrorSets demands that the nodes of every pool pull the release from the mirror, for
// the pod that unpacks it has two minutes.
func guardMirrorSets(ctx context.Context, u *upgrade) error {
	if len(u.opts.Target.Sources) == 0 {
		return fmt.Errorf("%w: mirror-sets: the repositories that the release's images name are not known", ErrGuard)
	}
	all, err := u.in.pools(ctx)
	if isNotFound(err) {
		return nil // somebody else runs the nodes
	}
	if err != nil {
		return err
	}
	r := rendered{c: u.c}
	for i := range all {
		p := &all[i]
		if p.Spec.Paused {
			continue // the guard of paused pools decides
		}
		a, err := r.arrived(ctx, p, u.opts.Target.pairs())
		switch {
		case err != nil:
			return err
		case len(a.lacks) > 0:
			return fmt.Errorf("%w: mirror-sets: the nodes of pool %s lack %s (pannier apply --wait brings it)", ErrGuard, p.Metadata.Name, a.lacks[0])
		case !a.done:
			return fmt.Errorf("%w: mirror-sets: the mirrors are on their way to the nodes of pool %s, not all of which have them (pannier apply --wait waits for it)", ErrGuard, p.Metadata.Name)
		}
	}
	return nil
}

func guardFarSide(ctx context.Context, u *upgrade) error {
	if u.opts.FarSide == nil {
		return nil
	}
	all, err := u.opts.FarSide(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, check := range all {
		failed = append(failed, u.judge(check.Name, check))
	}
	return errors.Join(failed...)
}

func guardHolds(ctx context.Context, u *upgrade) error {
	if u.opts.Holds == nil {
		return nil
	}
	if err := u.opts.Holds(ctx); err != nil {
		return fmt.Errorf("%w: registry-holds: %w", ErrGuard, err)
	}
	return nil
}
