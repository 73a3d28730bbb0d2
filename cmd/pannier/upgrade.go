package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/apply"
	"pannier/apply/cluster"
	"pannier/apply/preflight"
	"pannier/bundle/content"
	"pannier/bundle/release"
)

type upgradeFlags struct {
	deliveryFlags
	updateFlags
}

func (s *session) upgradeCommand() *cli.Command {
	f := &upgradeFlags{}
	flags := append(f.updateFlags.flags(), f.deliveryFlags.flags("the release `VERSION[-ARCH]` that is meant, where FROM holds several; default: $OCP_RELEASE")...)
	return &cli.Command{
		Name: "upgrade", Usage: "ask the cluster for the release, by digest", ArgsUsage: "FROM REGISTRY/REPO",
		Description: "The checks of preflight run first, and the registry is asked for every manifest and blob;\n" +
			"whatever fails stops it before the cluster is asked (exit code 8). Nothing is forced, and\n" +
			"nothing acknowledged in your place. FROM is MEDIA, or a folder that --objects-dir wrote.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.upgrade(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) upgrade(ctx context.Context, f *upgradeFlags, args []string) error {
	asJSON, err := f.dryJSON(s.command, f.dryRun)
	if err != nil {
		return err
	}
	d, err := s.deliver(ctx, &f.deliveryFlags, args)
	if err != nil {
		return err
	}
	opts := apply.UpgradeOptions{
		Cluster: d.cluster, Delivery: d.delivery, Registry: d.registry,
		Signatures: d.opts.Signatures, Policy: d.opts.Policy, Cache: d.opts.Cache, Logger: s.log,
		EtcdBackup: s.env.expandHome(f.etcdBackup), AllowPausedPools: f.paused.Value(), DryRun: f.dryRun, Wait: f.wait,
	}
	r, err := s.ask(ctx, opts)
	s.progress.close()
	if r == nil {
		return err
	}
	if asJSON {
		if printErr := s.printUpgradeJSON(r, err); err == nil {
			err = printErr
		}
		return err
	}
	if err != nil {
		return err
	}
	return s.console.print("%s\n", trusted(upgradeText(r, f.dryRun, f.wait)))
}

// ask runs an upgrade, and says what is seen on the way.
func (s *session) ask(ctx context.Context, opts apply.UpgradeOptions) (*cluster.UpgradeResult, error) {
	count := map[preflight.Status]int{}
	opts.Checked = func(c preflight.Check) {
		count[c.Status]++
		s.log.Info("check", "name", c.Name, "status", string(c.Status), "detail", c.Detail)
		if c.Status == preflight.Warn {
			s.console.warn("%s", strings.TrimSuffix(c.Name+": "+c.Detail+"; to do: "+c.Remedy, "; to do: "))
		}
	}
	opts.Asking = func(r *cluster.UpgradeResult) {
		s.progress.close() // what follows are the cluster's events, a line each
		s.console.say("%d checks passed, %s, %d do not apply, none failed", count[preflight.Pass], content.Plural(count[preflight.Warn], "warning", "warnings"), count[preflight.Skip])
		if !opts.DryRun {
			s.console.say("Asking %s for %s, which runs %s:\n  %s", opts.Cluster.Server(), r.To, r.From, r.Image)
		}
	}
	r, err := apply.Upgrade(ctx, opts)
	var several *apply.SeveralError
	if errors.As(err, &several) {
		return nil, severalReleases(s.command, several)
	}
	return r, err
}

// severalReleases lists what there is to choose from.
func severalReleases(command string, e *apply.SeveralError) error {
	tags := make([]string, len(e.Releases))
	for i, r := range e.Releases {
		tags[i] = release.Tag(r.Version, r.Arch)
	}
	how := "say which with --release"
	if command == "mirror" {
		how = "mirror the others without --upgrade"
	}
	if e.Current != "" {
		how += fmt.Sprintf(" (no path that was packed leads on from %s alone, which the cluster runs)", e.Current)
	}
	return usagef(command, "a cluster is asked for one release, and there are %d: %s; %s", len(tags), strings.Join(tags, ", "), how)
}

// upgradeText says how it ended.
func upgradeText(r *cluster.UpgradeResult, dryRun, waited bool) string {
	to, text := printable(r.To), ""
	switch {
	case r.Already:
		text = fmt.Sprintf("Cluster is already at %s.", to)
	case dryRun:
		text = fmt.Sprintf("The cluster, which runs %s, would be asked for %s:\n  %s\n# Nothing was written: this was a dry run.", printable(r.From), to, printable(r.Image))
	case waited:
		text = fmt.Sprintf("Cluster is at %s.", to)
	case r.Underway:
		text = fmt.Sprintf("The cluster is on its way to %s; --wait follows it.", to)
	default:
		text = fmt.Sprintf("The cluster was asked for %s; --wait follows it, as \"oc adm upgrade\" does.", to)
	}
	if len(r.Pools) > 0 {
		text += "\n" + poolsText(r.Pools)
	}
	return text
}

// upgradeDocument is what a dry run of upgrade prints as JSON, also when checks fail.
type upgradeDocument struct {
	From     string            `json:"from"`
	To       string            `json:"to"`
	Image    string            `json:"image"`
	Already  bool              `json:"already"`  // the cluster is at the release
	Underway bool              `json:"underway"` // it is on its way there
	Ready    bool              `json:"ready"`    // nothing stands against asking
	Checks   []preflight.Check `json:"checks"`
}

func (s *session) printUpgradeJSON(r *cluster.UpgradeResult, failure error) error {
	doc := upgradeDocument{From: r.From, To: r.To, Image: r.Image, Already: r.Already, Underway: r.Underway, Ready: failure == nil, Checks: []preflight.Check{}}
	for _, c := range r.Checks {
		doc.Checks = append(doc.Checks, preflight.Check{Name: c.Name, Status: preflight.Status(c.Status), Detail: c.Detail, Remedy: c.Remedy})
	}
	return s.console.json(doc)
}
