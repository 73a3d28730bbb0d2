package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"

	"pannier/bundle"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/verify"
)

type auditFlags struct {
	logFlags
	trustFlags
	progressFlags
	outputFlags

	fromDir   cli.StringSlice
	authority string
	releases  cli.StringSlice
}

func (s *session) auditCommand() *cli.Command {
	f := &auditFlags{}
	flags := []cli.Flag{
		&cli.StringSliceFlag{Name: "release", Destination: &f.releases, Usage: "only the release `VERSION[-ARCH]`; repeatable; default: all"},
		&cli.StringSliceFlag{Name: "from-dir", Destination: &f.fromDir, Usage: "`MEDIA`, for those who are used to oc"},
		&cli.StringFlag{Name: "certificate-authority", Destination: &f.authority, TakesFile: true,
			Usage: "`FILE` with further certificate authorities to trust, for signature stores"},
	}
	flags = append(flags, f.trustFlags.flags("`URL` or directory of release signatures, for drives that carry none; nobody is asked without it; repeatable")...)
	flags = append(flags, f.progressFlags.flags("parallel readers (default: one for each processor, at most 4)")...)
	flags = append(flags, f.outputFlags.flags("`FORMAT` of stdout: text (default) or json")...)
	flags = append(flags, f.logFlags.flags()...)
	return &cli.Command{
		Name: "audit", Usage: "prove the drive whole, or say exactly what is not", ArgsUsage: "MEDIA",
		Description: "Every blob is read and hashed, and every signature checked. Nothing is written to the\n" +
			"drive. Exit code 0: whole; 3: incomplete; 4: damaged or not trusted.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.audit(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) audit(ctx context.Context, f *auditFlags, args []string) error {
	asJSON, err := f.json(s.command)
	if err != nil {
		return err
	}
	opts := verify.AuditOptions{Jobs: f.jobs, Cache: s.cacheDir()}
	if opts.Media, err = s.oneMedia(append(f.fromDir.Value(), args...)); err != nil {
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

	report, err := verify.Audit(ctx, opts)
	s.progress.finish(err)
	if err != nil || report == nil {
		return err
	}
	if asJSON {
		err = s.console.json(reportDocument(report))
	} else {
		err = s.printReport(opts.Media, report, f.verbose > 0)
	}
	if err != nil {
		return err
	}
	return statusError(report.Status)
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
		return s.env.expandHome(args[0]), nil
	case len(args) > 1:
		return "", usagef(s.command, "%s takes one MEDIA, not %d: %s", s.command, len(args), strings.Join(args, " "))
	}
	if media := s.env.media(); media != "" {
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
		return &codedError{code: exitIncomplete}
	}
	return &codedError{code: exitUntrusted}
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

// statusWords says what an outcome means and what to do about it; that of a whole drive says
// also what it is whole of, see vouched.
var statusWords = map[verify.Status][2]string{
	verify.StatusComplete:   {"whole", "Every blob is what its digest says"},
	verify.StatusIncomplete: {"INCOMPLETE", "Packing has not finished. Run the same pack command again on the internet side: it continues."},
	verify.StatusDamaged:    {"DAMAGED", "Do not rely on this drive. Try another port or reader; then pack again with --verify on the internet side: only what is bad is fetched."},
	verify.StatusUntrusted:  {"NOT TRUSTED", "The bytes may be whole, but nobody trusted vouches for them. A key of your own is given with --keyring FILE, a signature that the drive lacks with --signature-store DIR."},
}

// vouched says who vouches for what is on a whole drive.
func vouched(r *verify.Report) string {
	var accepted []string
	for _, rel := range r.Releases {
		if rel.Signature != bundle.SignatureVerified {
			accepted = append(accepted, release.Tag(rel.Version, rel.Arch)+" ("+rel.Signature+")")
		}
	}
	text := ", and every release is signed by somebody trusted."
	switch {
	case len(accepted) > 0:
		text = ". NOT verified, and accepted only because of --signature-policy warn: " + strings.Join(accepted, ", ") + "."
	case len(r.Releases) == 0:
		text = ". There is no release on it."
	}
	if r.Additional > 0 {
		text += fmt.Sprintf(" No signature is checked for additional images, of which there are %d.", r.Additional)
	}
	return text
}

func (s *session) printReport(media string, r *verify.Report, all bool) error {
	c := s.console
	for _, rel := range r.Releases {
		if err := c.print("release %s, %d images, signature %s\n    %s\n", rel.Version+" "+rel.Arch, rel.Images, rel.Signature, rel.Digest); err != nil {
			return err
		}
	}
	blobs := fmt.Sprintf("%d blobs and manifests, %s", r.Blobs.Count, bytesText(r.Blobs.Bytes))
	if r.Blobs.Partial > 0 {
		blobs += fmt.Sprintf(", %d partial", r.Blobs.Partial)
	}
	if err := c.print("%s\n%s", blobs, trusted(findingsText(r.Findings, all))); err != nil {
		return err
	}
	for _, n := range r.Notes {
		if err := c.print("note: %s\n", n); err != nil {
			return err
		}
	}
	words := statusWords[r.Status]
	if r.Status == verify.StatusComplete {
		words[1] += vouched(r)
	}
	count := fmt.Sprintf("%d findings", len(r.Findings))
	if len(r.Findings) == 1 {
		count = "1 finding"
	}
	return c.print("%s is %s: %s. %s\n", media, words[0], count, words[1])
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
		fmt.Fprintf(&b, "missing: %d blobs (%s) are not fetched yet (-v lists them)\n", awaited, bytesText(bytes))
	}
	return b.String()
}

func findingText(f verify.Finding) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", f.Kind, printable(orWord(f.Path, f.Digest)))
	if f.Detail != "" {
		fmt.Fprintf(&b, ": %s", printable(f.Detail))
	}
	if f.Repaired {
		b.WriteString(" (repaired)")
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
