package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"pannier/bundle/objects"
)

// Status is the outcome of a check.
type Status string

// The outcomes, from good to bad; a skipped check says why it does not apply.
const (
	Pass Status = "pass"
	Skip Status = "skip"
	Warn Status = "warn" // also: it could not be looked at for lack of permission
	Fail Status = "fail"
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail"` // the evidence
	Remedy string `json:"remedy"` // "" if there is nothing to do
}

func pass(detail string) Check         { return Check{Status: Pass, Detail: detail} }
func skip(detail string) Check         { return Check{Status: Skip, Detail: detail} }
func warn(detail, remedy string) Check { return Check{Status: Warn, Detail: detail, Remedy: remedy} }
func fail(detail, remedy string) Check { return Check{Status: Fail, Detail: detail, Remedy: remedy} }

// unseen is the outcome of a check whose objects could not be read.
func unseen(err error) Check {
	switch {
	case isNotFound(err):
		return skip("the cluster has no such object: " + err.Error())
	case errors.Is(err, ErrForbidden):
		return warn("not looked at, for lack of permission: "+err.Error(), "run this as somebody who may read it, or look by hand")
	}
	return fail("could not be looked at: "+err.Error(), "run it again when the API server answers")
}

// Target is the release that a cluster is to be updated to.
type Target struct {
	Image    string   // pull spec by digest, REG/REPO@sha256:…, by which the nodes know it
	Version  string   // "4.8.21"
	Arch     string   // as in tags: x86_64, aarch64, ppc64le, s390x, multi
	Previous []string // versions that may be updated to it, as its metadata says
	Sources  []string // repositories that its images name; the mirror sets must cover them

	Updates []objects.Update // recorded when it was packed with the path to it; may be empty
}

// repository is the mirror: the target's image without its digest.
func (t *Target) repository() string {
	repository, _, _ := strings.Cut(t.Image, "@")
	return repository
}

// pairs are the mirrors that the nodes need for a release.
func (t *Target) pairs() []pair {
	var out []pair
	for _, s := range t.Sources {
		if s != t.repository() {
			out = append(out, pair{s, t.repository()})
		}
	}
	return out
}

// PreflightOptions say what a cluster is looked at for.
type PreflightOptions struct {
	Target   *Target             // nil skips what concerns a release
	Registry objects.Destination // as the nodes know it; the zero value takes Target's, or skips what concerns it

	EtcdBackup       string   // FILE or TIME, see [ParseBackup]; "" looks for evidence in the cluster
	AllowPausedPools []string // pools that may be paused

	// Pull tries to read from the registry with the cluster's pull secret, and nothing else;
	// it must not keep or print it. nil only looks whether there is an entry.
	Pull func(ctx context.Context, pullSecret []byte) error
	// Unsigned names those images of the release whose sigstore signature the registry lacks
	// although it must have it; nil is not asked. An error that wraps [ErrNotThere] says that
	// the registry does not hold the release yet.
	Unsigned func(ctx context.Context) ([]string, error)
	// RegistryTime is the registry's clock; nil is not asked.
	RegistryTime func(ctx context.Context) (time.Time, error)
	// Handshake is the state of a TLS connection to host:port, unverified; nil dials.
	Handshake func(ctx context.Context, address string) (tls.ConnectionState, error)
	// Roots are what machines trust of their own; nil takes this machine's.
	Roots *x509.CertPool

	Checked func(Check) // told of each as it is done; may be nil
	Now     time.Time   // zero is the current time
}

// checkRow is one check by name.
type checkRow struct {
	name string
	run  func(ctx context.Context, in *inspection) Check
}

// checks are all checks of a cluster. Those that decide whether a release may be asked for
// stand in the order in which oc looks, ours behind them. A release is asked for only if none
// of them fails.
func checks() []checkRow {
	return []checkRow{
		{"api", checkAPI},
		{"permissions", checkPermissions},
		{"cluster-version-valid", checkInvalid},
		{"cluster-version-failing", checkFailing},
		{"cluster-version-progressing", checkProgressing},
		{"release-accepted", checkAccepted},
		{"downgrade", checkDowngrade},
		{"skipped-minor", checkSkippedMinor},
		{"update-path", checkPath},
		{"architecture", checkArchitecture},
		{"upgradeable", checkUpgradeable},
		{"overrides", checkOverrides},
		{"admin-gates", checkGates},
		{"machine-config-pools", checkPools},
		{"paused-pools", checkPaused},
		{"nodes", checkNodes},
		{"kubelet-versions", checkKubelets},
		{"cluster-operators", checkOperators},
		{"etcd", checkEtcd},
		{"etcd-backup", checkEtcdBackup},
		{"pull-secret", checkPullSecret},
		{"certificate", checkCertificate},
		{"registry-sources", checkRegistrySources},
		{"mirror-set-conflicts", checkMirrorSets},
		{"sigstore", checkSigstore},
		{"disruption-budgets", checkBudgets},
		{"removed-apis", checkRemovedAPIs},
		{"machine-health-checks", checkHealthChecks},
		{"alerts", checkAlerts},
		{"clock", checkClock},
	}
}

// inspection is one run of checks: what several of them need is read once.
type inspection struct {
	c    *Cluster
	opts PreflightOptions
	now  time.Time

	cv        once[*clusterVersion]
	poolList  once[[]pool]
	nodeList  once[[]node]
	operators once[[]clusterOperator]
	images    once[*imageConfig]
}

type once[T any] struct {
	done  bool
	value T
	err   error
}

func (o *once[T]) get(read func() (T, error)) (T, error) {
	if !o.done {
		o.value, o.err = read()
		o.done = true
	}
	return o.value, o.err
}

func (in *inspection) version(ctx context.Context) (*clusterVersion, error) {
	return in.cv.get(func() (*clusterVersion, error) {
		var cv clusterVersion
		return &cv, in.c.get(ctx, clusterVersions, "", "version", &cv)
	})
}

func (in *inspection) pools(ctx context.Context) ([]pool, error) {
	return in.poolList.get(func() ([]pool, error) { return list[pool](ctx, in.c, pools, "", "") })
}

func (in *inspection) nodes(ctx context.Context) ([]node, error) {
	return in.nodeList.get(func() ([]node, error) { return list[node](ctx, in.c, nodes, "", "") })
}

func (in *inspection) clusterOperators(ctx context.Context) ([]clusterOperator, error) {
	return in.operators.get(func() ([]clusterOperator, error) {
		return list[clusterOperator](ctx, in.c, clusterOperators, "", "")
	})
}

func (in *inspection) imageConfig(ctx context.Context) (*imageConfig, error) {
	return in.images.get(func() (*imageConfig, error) {
		var i imageConfig
		err := in.c.get(ctx, imageConfigs, "", "cluster", &i)
		if isNotFound(err) {
			err = nil // unset is a legal state
		}
		return &i, err
	})
}

// registry is the mirror registry, ok is false if none is known.
func (in *inspection) registry() (d objects.Destination, ok bool) {
	d = in.opts.Registry
	if d.Registry == "" && in.opts.Target != nil {
		d.Registry, d.Repository, _ = strings.Cut(in.opts.Target.repository(), "/")
	}
	return d, d.Registry != ""
}

// versions are those of the cluster and of the target; a check is returned instead if there
// is nothing to compare.
func (in *inspection) versions(ctx context.Context) (from, to semver, c *Check) {
	if in.opts.Target == nil {
		s := skip("no release is named")
		return from, to, &s
	}
	cv, err := in.version(ctx)
	if err != nil {
		u := unseen(err)
		return from, to, &u
	}
	from, ok := parseVersion(cv.current())
	if !ok {
		f := fail("the cluster's version "+quote(cv.current())+" cannot be understood", "look at status.history of clusterversion/version")
		return from, to, &f
	}
	if to, ok = parseVersion(in.opts.Target.Version); !ok {
		f := fail("the release's version "+quote(in.opts.Target.Version)+" cannot be understood", "")
		return from, to, &f
	}
	return from, to, nil
}

// minor reports whether the update leaves the minor version; true if that is not known.
func (in *inspection) minor(ctx context.Context) bool {
	from, to, c := in.versions(ctx)
	return c != nil || !from.sameMinor(to)
}

func quote(s string) string { return "\"" + s + "\"" }

// names joins the first few of a list.
func names(all []string) string {
	const most = 8
	slices.Sort(all)
	if n := len(all); n > most {
		all = append(slices.Clone(all[:most]), "…")
	}
	return strings.Join(all, ", ")
}

func (c *Cluster) inspect(opts PreflightOptions) *inspection {
	in := &inspection{c: c, opts: opts, now: opts.Now}
	if in.now.IsZero() {
		in.now = time.Now()
	}
	return in
}

// Preflight looks at a cluster, and changes nothing. A check that may not read what it needs
// is a warning that says so. The error is that of the context alone.
func (c *Cluster) Preflight(ctx context.Context, opts PreflightOptions) ([]Check, error) {
	in := c.inspect(opts)
	var out []Check
	for _, row := range checks() {
		if !c.on(row.name) {
			continue
		}
		check := skip("the API server does not answer")
		if len(out) == 0 || out[0].Name != "api" || out[0].Status != Fail {
			check = row.run(ctx, in)
		}
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		check.Name = row.name
		out = append(out, check)
		if opts.Checked != nil {
			opts.Checked(check)
		}
	}
	return out, nil
}

// Ready reports whether no check failed.
func Ready(checks []Check) bool {
	return !slices.ContainsFunc(checks, func(c Check) bool { return c.Status == Fail })
}
