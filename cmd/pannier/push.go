package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/apply"
	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/remote"
)

// pushFlags is what unpack and mirror have in common: where it all goes, and what comes then.
type pushFlags struct {
	logFlags
	registryFlags
	trustFlags
	progressFlags
	outputFlags
	mirrorSetFlag
	clusterFlags
	updateFlags

	to         string
	cluster    string
	objectsDir string
	prefix     string
	dryRun     bool
	checkAll   bool
	perRepo    bool
	receipt    string // unpack alone has it

	apply   bool
	upgrade bool
	wait    bool
}

func (f *pushFlags) flags(storeUsage string) []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "to", Destination: &f.to, Usage: "`REGISTRY/REPO`, for those who are used to oc"},
		&cli.StringFlag{Name: "cluster-registry", Destination: &f.cluster,
			Usage: "the name `REGISTRY/REPO` by which the nodes know the registry, where it differs from the one pushed to"},
		&cli.BoolFlag{Name: "dry-run", Destination: &f.dryRun, Usage: "say what would be done; write nothing anywhere"},
		&cli.StringFlag{Name: "objects-dir", Destination: &f.objectsDir, Usage: "write the cluster objects into `DIR`; without it they are printed"},
		&cli.BoolFlag{Name: "check-all", Destination: &f.checkAll, Usage: "ask the registry for every blob, not only every manifest, and read the end of each (64 KiB) back"},
		&cli.BoolFlag{Name: "repo-per-component", Destination: &f.perRepo,
			Usage: "give every component a repository of its own too, REPO/NAME; nodes pull from REPO, which has everything all the same"},
		&cli.StringFlag{Name: "additional-prefix", Destination: &f.prefix, Usage: "`PATH` that stands before the path of additional images"},
		f.mirrorSetFlag.flag(),
		&cli.BoolFlag{Name: "apply", Destination: &f.apply, Usage: "go on to the cluster with the objects, once everything is at the registry"},
		&cli.BoolFlag{Name: "upgrade", Destination: &f.upgrade,
			Usage: "then ask the cluster for the release; with --apply, the rollout of the mirror sets is waited for first"},
		waitFlag(&f.wait),
	}
	flags = append(flags, f.updateFlags.flags()...)
	flags = append(flags, f.clusterFlags.flags()...)
	flags = append(flags, f.registryFlags.flags(defaultGiveUp)...)
	flags = append(flags, f.trustFlags.flags(storeUsage)...)
	flags = append(flags, f.progressFlags.flags("parallel transfers (default: 4)")...)
	flags = append(flags, f.outputFlags.flags("`FORMAT` of stdout: text (default) or json; with --dry-run")...)
	return append(flags, f.logFlags.flags()...)
}

// pushing is one run of unpack or mirror.
type pushing struct {
	opts   apply.UnpackOptions
	asJSON bool
	chain  *chain         // what comes at the cluster; nil if nothing does
	reach  remote.Options // how registries are reached

	evidence *evidence // nil leaves none
}

// pushOptions reads the flags that say what is done, all but REGISTRY/REPO.
func (s *session) pushOptions(f *pushFlags, p *pushing) error {
	var err error
	if p.asJSON, err = f.dryJSON(s.command, f.dryRun); err != nil {
		return err
	}
	opts := &p.opts
	opts.Prefix, opts.CheckAll, opts.DryRun, opts.Jobs = f.prefix, f.checkAll, f.dryRun, f.jobs
	opts.RepoPerComponent = f.perRepo
	opts.ObjectsDir, opts.Cache = s.env.expandHome(f.objectsDir), s.cacheDir()
	if opts.Policy, err = f.policyValue(s.command); err != nil {
		return err
	}
	if opts.MirrorSet, err = f.mirrorSetFlag.value(s.command); err != nil {
		return err
	}
	if f.cluster != "" {
		opts.Cluster, err = parseDestination(s.command, "--cluster-registry", f.cluster)
	}
	return err
}

// startPush begins to show progress, and makes what the work needs: the client of the
// destination, the verifier, and the way to the cluster.
func (s *session) startPush(ctx context.Context, f *pushFlags, p *pushing) error {
	if err := s.start(&f.logFlags, &f.progressFlags); err != nil {
		return err
	}
	opts := &p.opts
	opts.Logger, opts.Progress = s.log, s.progress.event
	var err error
	if p.reach, err = f.registryFlags.options(s); err != nil {
		return err
	}
	target := p.reach
	target.Confined = true
	if opts.Client, err = remote.New(target); err != nil {
		return err
	}
	if p.chain, err = s.chain(ctx, f, target, opts); err != nil {
		return err
	}
	verifier, err := f.verifier(s)
	if err != nil {
		return err
	}
	opts.Signatures = verifier
	return nil
}

// pushed ends a run: it says what was done, or goes on to the cluster.
func (s *session) pushed(ctx context.Context, p *pushing, result *apply.UnpackResult, err error) error {
	var several *apply.SeveralError
	if errors.As(err, &several) {
		return severalReleases(s.command, several)
	}
	s.progress.finish(err)
	if result == nil {
		return err
	}
	if p.evidence != nil {
		p.evidence.unpacked(p.opts, result, err)
	}
	s.result = unpackResult(result)
	if p.chain != nil {
		return s.goOn(ctx, p.chain, p.opts, result, p.asJSON, err)
	}
	if printErr := s.printPush(p.opts, result, p.asJSON, nil, err); err == nil {
		err = printErr
	}
	return err
}

func (s *session) printPush(opts apply.UnpackOptions, r *apply.UnpackResult, asJSON bool, chain *chain, failure error) error {
	c := s.console
	s.warnAll(r.Warnings)
	s.sayRefused(r)
	if opts.DryRun {
		switch {
		case failure != nil:
			return nil
		case asJSON:
			return s.printPlanJSON(r.Plan, chain.document())
		}
		return s.printPlan(r.Plan, "would be pushed", "")
	}
	cluster := opts.Destination
	if opts.Cluster != nil {
		cluster = *opts.Cluster
	}
	if opts.ObjectsDir == "" && len(r.Objects) > 0 {
		// Where both streams are one terminal, the objects need an edge.
		shown := isTerminal(c.stdout, s.env)
		if shown {
			c.prose("The cluster objects (--objects-dir DIR writes them to files instead):")
		}
		if err := s.printObjects(r.Objects, "for "+cluster.String()); err != nil {
			return err
		}
		if shown {
			c.say("%s", strings.Repeat("=", min(c.width, 72)))
		}
	}

	rows := [][]string{
		{"pushed", fmt.Sprintf("%s, %s", content.Plural(r.Pushed.Blobs, "blob", "blobs"), content.SizeText(r.Pushed.Bytes)), "read, verified and pushed"},
	}
	if !opts.MissingOnly || r.Present.Blobs > 0 {
		row := []string{"there already", fmt.Sprintf("%s, %s", content.Plural(r.Present.Blobs, "blob", "blobs"), content.SizeText(r.Present.Bytes))}
		if r.Present.Blobs > 0 {
			row = append(row, presentText(opts.CheckAll))
		}
		rows = append(rows, row)
	}
	if r.Mounted.Blobs > 0 {
		rows = append(rows, []string{"mounted", fmt.Sprintf("%s, %s", content.Plural(r.Mounted.Blobs, "blob", "blobs"), content.SizeText(r.Mounted.Bytes)), "not read: the registry took them over from a repository of its own"})
	}
	if opts.MissingOnly || r.Skipped.Blobs > 0 {
		rows = append(rows, []string{"skipped", fmt.Sprintf("%s, %s", content.Plural(r.Skipped.Blobs, "blob", "blobs"), content.SizeText(r.Skipped.Bytes)), "not read: the registry has them"})
	}
	if r.Presumed.Blobs > 0 {
		rows = append(rows, []string{"presumed", fmt.Sprintf("%s, %s", content.Plural(r.Presumed.Blobs, "blob", "blobs"), content.SizeText(r.Presumed.Bytes)), "on no drive; the registry was asked for each, and has it"})
	}
	if r.Documents.Blobs > 0 {
		rows = append(rows, []string{"documents", fmt.Sprintf("%s, %s", content.Plural(r.Documents.Blobs, "blob", "blobs"), content.SizeText(r.Documents.Bytes)), "read and verified; they stay on the drive"})
	}
	if len(r.Refused) > 0 {
		rows = append(rows, []string{"REFUSED", content.Plural(len(r.Refused), "blob or image", "blobs or images"), s.whereRefused()})
	}
	for _, contact := range r.Contacts {
		via := "direct"
		if contact.Proxy != "" {
			via = "through the proxy " + contact.Proxy
		}
		rows = append(rows, []string{"contacted", contact.Host, contact.Why + ", " + via})
	}
	if moved := r.Pushed.Blobs + r.Mounted.Blobs + r.Present.Blobs + r.Skipped.Blobs + r.Presumed.Blobs + r.Documents.Blobs; failure == nil || moved > 0 || len(r.Refused) > 0 {
		c.say("%s", trusted(table(rows)))
	}
	s.sayReleases(r)
	if failure != nil {
		return nil
	}
	if chain == nil {
		s.sayObjects(opts, r)
	}
	return nil
}

// presentText says what is known of blobs that the registry had.
func presentText(checkAll bool) string {
	if checkAll {
		return "read and verified; the registry was asked for each"
	}
	return "read and verified; --check-all asks the registry for each"
}

// sayRefused lists with -v all that was refused; the errors at the end name the first of it.
func (s *session) sayRefused(r *apply.UnpackResult) {
	if !s.verbose {
		return
	}
	for _, one := range r.Refused {
		s.console.say("refused %s, for %s: %s", one.Digest, strings.Join(one.Images, ", "), oneLine(one.Err))
	}
}

// whereRefused says where a list of what was refused is.
func (s *session) whereRefused() string {
	if s.verbose {
		return "listed above"
	}
	return "the first are named below; -v and --report list all"
}

func (s *session) sayReleases(r *apply.UnpackResult) {
	for _, rel := range r.Releases {
		state := "complete"
		if !rel.Complete {
			state = "NOT COMPLETE"
		}
		s.console.say("release %s, %s\n    %s", rel.Tag, state, rel.Image)
		s.console.prose("    signature %s", signatureText(rel.Signature))
	}
}

// sayObjects says what to do with the cluster objects, and prints what a person types next.
func (s *session) sayObjects(opts apply.UnpackOptions, r *apply.UnpackResult) {
	c := s.console
	switch {
	case len(r.Objects) == 0:
	case opts.ObjectsDir != "":
		c.say("Cluster objects, to be applied in this order:")
		for _, o := range r.Objects {
			c.say("  %s", objectPath(opts.ObjectsDir, o))
		}
	default:
		c.prose("%d cluster objects are on stdout: save them with --objects-dir DIR, or pipe them into \"oc apply -f -\".", len(r.Objects))
	}
	if len(r.InstallConfig) > 0 {
		c.say("For a new cluster, into install-config.yaml:")
		for _, line := range strings.Split(strings.TrimRight(string(r.InstallConfig), "\n"), "\n") {
			c.say("  %s", line)
		}
	}
	complete, ordered := inOrder(r.Releases)
	if len(complete) == 0 {
		return
	}
	which := "the release with"
	switch {
	case ordered && len(complete) > 1:
		which = "these releases one after the other, in this order, each once the one before has been reached"
	case len(complete) > 1:
		which = "one of these releases with one of these"
	}
	c.prose("When the objects are applied, ask the cluster for %s:", which)
	for i, rel := range complete {
		if ordered && len(complete) > 1 {
			c.say("%s %s:", [...]string{"first", "then"}[min(i, 1)], rel.Tag)
		}
		c.say("oc adm upgrade --allow-explicit-upgrade --to-image %s", rel.Image)
	}
	c.prose("or let pannier do both, with its checks: pannier apply, then pannier upgrade, or --apply --upgrade --wait here.")
}

// inOrder returns the complete releases; ordered says that they are one path of updates, on
// which each follows the one before it.
func inOrder(all []apply.UnpackedRelease) (complete []apply.UnpackedRelease, ordered bool) {
	for _, rel := range all {
		if rel.Complete {
			complete = append(complete, rel)
		}
	}
	path := make([]apply.UnpackedRelease, 0, len(complete))
	for after := ""; len(path) < len(complete); after = path[len(path)-1].Tag {
		i := slices.IndexFunc(complete, func(r apply.UnpackedRelease) bool { return r.After == after })
		if i < 0 {
			return complete, false
		}
		path = append(path, complete[i])
	}
	return path, true
}

// objectPath is where apply.Unpack writes an object.
func objectPath(dir string, o objects.Object) string {
	return strings.TrimRight(dir, "/") + "/" + o.FileName()
}
