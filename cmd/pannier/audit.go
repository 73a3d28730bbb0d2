package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/remote"
	"pannier/verify"
	"pannier/verify/custody"
)

type auditFlags struct {
	logFlags
	registryFlags
	trustFlags
	progressFlags
	outputFlags
	reportFlags

	fromDir  cli.StringSlice
	releases cli.StringSlice
	signers  string
	repair   bool
	from     cli.StringSlice
	drop     bool
	refetch  string
}

func (s *session) auditCommand() *cli.Command {
	f := &auditFlags{}
	flags := []cli.Flag{
		&cli.StringSliceFlag{Name: "release", Destination: &f.releases, Usage: "only the release `VERSION[-ARCH]`; repeatable; default: all"},
		&cli.StringSliceFlag{Name: "from-dir", Destination: &f.fromDir, Usage: "`MEDIA`, for those who are used to oc"},
		&cli.BoolFlag{Name: "repair", Destination: &f.repair, Usage: "heal what can be healed; the only audit that writes to the drive"},
		&cli.StringSliceFlag{Name: "from", Destination: &f.from,
			Usage: "with --repair: take what is damaged from `OTHER`, another drive or REGISTRY/REPO; repeatable"},
		&cli.BoolFlag{Name: "drop-unfinished", Destination: &f.drop,
			Usage: "with --repair: remove what a pack that was given up has left beside what is sealed"},
		&cli.StringFlag{Name: "refetch-list", Destination: &f.refetch, TakesFile: true,
			Usage: "write to `FILE` what is lost and cannot be healed here, for \"pannier pack --only FILE\" on the internet side"},
		&cli.StringFlag{Name: "trusted-signers", Destination: &f.signers, TakesFile: true,
			Usage: "the custody log must be whole and signed by somebody that `FILE` names, in the format of ssh-keygen's allowed_signers"},
	}
	flags = append(flags, f.registryFlags.flags(defaultGiveUp)...)
	flags = append(flags, f.trustFlags.flags("`URL` or directory of release signatures, for drives that carry none; nobody is asked without it; repeatable")...)
	flags = append(flags, f.progressFlags.flags("parallel readers (default: one for each processor, at most 4)")...)
	flags = append(append(flags, f.reportFlags.flags()...), f.reportFlags.keyFlag(),
		f.custodyFlag("enter this audit in the custody log beside the drive, `FILE`, which is made if it is not there; what it holds already is looked at too"))
	flags = append(flags, f.outputFlags.flags("`FORMAT` of stdout: text (default) or json")...)
	flags = append(flags, f.logFlags.flags()...)
	return &cli.Command{
		Name: "audit", Usage: "prove the drive whole, or say exactly what is not", ArgsUsage: "MEDIA",
		Description: "Every blob is read and hashed, and every signature checked. Nothing is written to the\n" +
			"drive, unless --repair asks for it: then what can be healed is, and the drive is audited\n" +
			"again. Exit code 0: whole; 3: incomplete; 4: damaged or not trusted.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.audit(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) audit(ctx context.Context, f *auditFlags, args []string) (err error) {
	asJSON, err := f.json(s.command)
	if err != nil {
		return err
	}
	if err := f.check(s.command); err != nil {
		return err
	}
	opts := verify.AuditOptions{Jobs: f.jobs, Cache: s.cacheDir()}
	if opts.Media, err = s.oneMedia(append(f.fromDir.Value(), args...)); err != nil {
		return err
	}
	if err = s.offDrive("--refetch-list", f.refetch); err != nil {
		return err
	}
	if err = f.checkStores(s); err != nil {
		return err
	}
	if opts.Policy, err = f.policyValue(s.command); err != nil {
		return err
	}
	if opts.Releases, err = parseReleaseSelection(s.command, f.releases.Value()); err != nil {
		return err
	}
	if err := s.start(&f.logFlags, &f.progressFlags); err != nil {
		return err
	}
	opts.Logger, opts.Progress = s.log, s.progress.event
	verifier, err := f.verifier(s)
	if err != nil {
		return err
	}
	opts.Signatures = verifier
	if opts.Stores = f.storeList(s.env); len(opts.Stores) > 0 {
		if opts.Client, err = s.storeClient(f.authority); err != nil {
			return err
		}
	}

	if opts.Signers, err = s.trustedSigners(f.signers); err != nil {
		return err
	}
	evidence, err := s.evidence(&f.reportFlags, &f.trustFlags, false, verifier, opts.Media)
	if err != nil {
		return err
	}
	evidence.signers = opts.Signers
	defer func() { err = evidence.finish(ctx, err) }()
	opts.Progress = evidence.progress(opts.Progress)
	if f.custody != "" {
		if opts.Beside, err = custody.ReadBeside(f.custody); err != nil {
			return fmt.Errorf("--custody: %w", err)
		}
	}

	report, err := s.auditOrRepair(ctx, f, opts)
	s.progress.finish(err)
	if f.repair && report != nil {
		evidence.repaired(ctx, opts, report)
	}
	evidence.audited(ctx, opts, f.trustFlags.words(), report, err)
	if report == nil {
		return err
	}
	s.result = auditResult(report)
	s.journal.findings(report.Findings)
	var printErr error
	if asJSON {
		printErr = s.console.json(reportDocument(report))
	} else {
		printErr = s.printReport(opts.Media, f.trustFlags.words(), evidence.onDrive, report, f.verbose > 0)
	}
	if err = errors.Join(err, printErr, s.writeRefetchList(f.refetch, report)); err != nil {
		return err
	}
	return statusError(report.Status)
}

// writeRefetchList writes the list of what is lost to the file that was asked for.
func (s *session) writeRefetchList(name string, report *verify.Report) error {
	if name == "" {
		return nil
	}
	list, nowhere := report.Refetch()
	if nowhere > 0 {
		s.console.prose("%d lost blobs are documents that pack captured, which no registry has: pack the release again with --verify to restore them.", nowhere)
	}
	if list == nil || len(list.Blobs) == 0 {
		s.console.prose("Nothing is to be fetched again; %s is not written.", name)
		return nil
	}
	raw, err := list.Encode()
	if err != nil {
		return err
	}
	name = s.env.expandHome(name)
	if err := os.WriteFile(name, raw, 0o644); err != nil {
		return fmt.Errorf("--refetch-list: %w", err)
	}
	s.console.prose("%s names %s, %s. On the internet side: %s", name, content.Plural(len(list.Blobs), "blob", "blobs"), content.SizeText(list.Bytes()),
		commandLine("pannier", "pack", "--only", filepath.Base(name), "SUPPLEMENT"))
	return nil
}

// auditOrRepair audits, and heals if that was asked for.
func (s *session) auditOrRepair(ctx context.Context, f *auditFlags, opts verify.AuditOptions) (*verify.Report, error) {
	if !f.repair {
		return verify.Audit(ctx, opts)
	}
	sources, done, err := s.repairSources(f)
	if err != nil {
		return nil, err
	}
	defer done()
	s.saving()
	return verify.Repair(ctx, verify.RepairOptions{
		Audit:  opts,
		Repair: bundle.RepairOptions{From: sources, Drop: f.drop, Program: "pannier " + buildVersion()},
	})
}

// check refuses flags that do not go together.
func (f *auditFlags) check(command string) error {
	switch {
	case !f.repair && (len(f.from.Value()) > 0 || f.drop):
		return usagef(command, "--from and --drop-unfinished go with --repair")
	case f.repair && len(f.releases.Value()) > 0:
		return usagef(command, "--repair looks at the whole drive: it does not go with --release")
	}
	return nil
}

// storeClient makes the client that asks signature stores and nobody else: without
// credentials.
func (s *session) storeClient(authority string) (*remote.Client, error) {
	opts := remote.Options{
		Proxy: http.ProxyFromEnvironment, UserAgent: "pannier/" + buildVersion(), Logger: s.log, OnWait: s.progress.waiting,
	}
	if authority != "" {
		opts.CAFiles = []string{s.env.expandHome(authority)}
	}
	return remote.New(opts)
}

// oneMedia is the MEDIA of a command that takes one and nothing else.
func (s *session) oneMedia(args []string) (string, error) {
	switch {
	case len(args) == 1:
		s.drives = []string{s.env.expandHome(args[0])}
		return s.drives[0], nil
	case len(args) > 1:
		return "", usagef(s.command, "%s takes one MEDIA, not %d: %s", s.command, len(args), strings.Join(args, " "))
	}
	if media := s.env.media(); media != "" {
		s.drives = []string{media}
		return media, nil
	}
	return "", usagef(s.command, "MEDIA is missing: pannier %s MEDIA, the folder on the drive that was packed", s.command)
}

// statusError is the exit code of an audit's outcome.
func statusError(status verify.Status) error {
	switch status {
	case verify.StatusComplete:
		return nil
	case verify.StatusIncomplete:
		return &codedError{code: exitIncomplete, is: bundle.ErrUnsealed}
	case verify.StatusUntrusted:
		return &codedError{code: exitUntrusted, is: bundle.ErrSignature}
	}
	return &codedError{code: exitUntrusted, is: bundle.ErrDamaged}
}

// reportDocument makes empty lists of absent ones: whoever reads the JSON can count on them.
func reportDocument(r *verify.Report) *verify.Report {
	doc := *r
	if doc.Releases == nil {
		doc.Releases = []verify.Release{}
	}
	if doc.Findings == nil {
		doc.Findings = []verify.Finding{}
	}
	if doc.Notes == nil {
		doc.Notes = []string{}
	}
	return &doc
}

func (s *session) printReport(media string, trust, onDrive []string, r *verify.Report, all bool) error {
	c := s.console
	for _, rel := range r.Releases {
		if err := c.tell("release %s, %s, signature %s\n    %s\n", rel.Version+" "+rel.Arch, content.Plural(rel.Images, "image", "images"),
			printable(signatureText(bundle.SignatureVerdict{Status: rel.Signature, Key: rel.Key, Fingerprint: rel.Fingerprint})), rel.Digest); err != nil {
			return err
		}
	}
	blobs := fmt.Sprintf("%d blobs and manifests, %s", r.Blobs.Count, content.SizeText(r.Blobs.Bytes))
	if r.Blobs.Partial > 0 {
		blobs += fmt.Sprintf(", %d partial", r.Blobs.Partial)
	}
	if err := c.tell("%s\n%s", blobs, trusted(findingsText(r.Findings, all))); err != nil {
		return err
	}
	if list, _ := r.Refetch(); list != nil && len(list.Blobs) > 0 {
		if err := c.tell("beyond what is on the drive: %s, %s\n", content.Plural(len(list.Blobs), "blob", "blobs"), content.SizeText(list.Bytes())); err != nil {
			return err
		}
	}
	for _, n := range r.Notes {
		if err := c.tell("note: %s\n", n); err != nil {
			return err
		}
	}
	v := auditVerdict(media, trust, onDrive, r)
	if err := c.tell("%s is %s: %s. %s\n", v.subject, v.word, countText(r.Findings), v.meaning); err != nil {
		return err
	}
	for _, step := range v.steps {
		if err := c.tell("%s\n", step); err != nil {
			return err
		}
	}
	return nil
}

// findingsText renders findings, with a few of each kind for all: what has not been fetched
// yet is only counted.
func findingsText(findings []verify.Finding, all bool) string {
	var b strings.Builder
	awaited, bytes := 0, int64(0)
	shown, hidden := map[verify.Kind]int{}, map[verify.Kind]int{}
	var kinds []verify.Kind // that are hidden, in order
	for _, f := range findings {
		switch {
		case all:
			b.WriteString(findingText(f))
		case f.Awaited > 0:
			awaited++
			bytes += f.Awaited
		case shown[f.Kind] < maxShown:
			shown[f.Kind]++
			b.WriteString(findingText(f))
		default:
			if hidden[f.Kind] == 0 {
				kinds = append(kinds, f.Kind)
			}
			hidden[f.Kind]++
		}
	}
	for _, kind := range kinds {
		fmt.Fprintf(&b, "%s: and %d more (-o json lists all)\n", kind, hidden[kind])
	}
	if awaited > 0 {
		fmt.Fprintf(&b, "missing: %s (%s) not fetched yet (-v lists them)\n", content.Plural(awaited, "blob", "blobs"), content.SizeText(bytes))
	}
	return b.String()
}

func findingText(f verify.Finding) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", f.Kind, printable(orWord(f.Path, f.Digest)))
	if f.Detail != "" {
		fmt.Fprintf(&b, ": %s", printable(f.Detail))
	}
	switch {
	case f.Repaired && f.Kind == verify.KindExtra:
		b.WriteString(" (removed)")
	case f.Repaired:
		b.WriteString(" (repaired)")
	case f.Healable:
		b.WriteString(" (can be healed here)")
	}
	b.WriteByte('\n')
	if f.Digest != "" && !strings.Contains(f.Path, strings.TrimPrefix(f.Digest, "sha256:")) {
		fmt.Fprintf(&b, "  digest: %s\n", printable(f.Digest))
	}
	// A base layer belongs to every image; the first few say enough for people, JSON has all.
	const shown = 6
	if n := len(f.Images); n > 0 {
		names := make([]string, 0, shown)
		for _, name := range f.Images[:min(n, shown)] {
			names = append(names, printable(name))
		}
		fmt.Fprintf(&b, "  needed by: %s", strings.Join(names, ", "))
		if n > shown {
			fmt.Fprintf(&b, " and %d more", n-shown)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
