package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pannier/bundle"
	"pannier/verify"
	"pannier/verify/custody"
)

// reportFlags is for commands that can leave evidence of what they did.
type reportFlags struct {
	report  string
	redact  bool
	signKey string
	custody string
}

func (f *reportFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "report", Destination: &f.report, TakesFile: true,
			Usage: "write the report of this run to `FILE`: .html to read and to print, .json or .txt; also when the command fails, as far as it came"},
		&cli.BoolFlag{Name: "redact", Destination: &f.redact,
			Usage: "leave the names of hosts, users and paths out of the report and the custody log"},
	}
}

func (f *reportFlags) keyFlag() cli.Flag {
	return &cli.StringFlag{Name: "sign-key", Destination: &f.signKey, TakesFile: true,
		Usage: "sign what is entered in the custody log, and a receipt, with the private SSH key in `FILE`, which has no passphrase"}
}

// custodyFlag is for commands that read a drive and never write to it.
func (f *reportFlags) custodyFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: "custody", Destination: &f.custody, TakesFile: true, Usage: usage}
}

// evidence is what a command leaves of itself: entries in custody logs, and its report.
type evidence struct {
	s        *session
	flags    *reportFlags
	key      *custody.Key // nil signs nothing
	timeline *custody.Timeline
	report   custody.Report
	media    []string
	verifier bundle.SignatureVerifier
	signers  *custody.Signers // --trusted-signers; nil if that was not given
	keyrings []string         // files of --keyring
	onDrive  []string         // those of them that travel on the drives

	asked   []string // releases that were to come onto the drive
	refused []string // releases that nobody trusted signed, and that were left where they are

	cell   func(drive *verify.Inspection, blob verify.InspectedBlob) string // state of a blob
	images map[string]string                                                // unpack: names at the registry of the releases that are there whole
}

// evidence checks the flags before the work begins. media are the drives, where no report may go.
func (s *session) evidence(f *reportFlags, trust *trustFlags, dry bool, v bundle.SignatureVerifier, media ...string) (*evidence, error) {
	e := &evidence{s: s, flags: f, media: media, verifier: v, images: map[string]string{}, timeline: custody.NewTimeline()}
	e.keyrings = trust.keyrings.Value()
	e.onDrive = s.keysOnDrive(e.keyrings, media)
	s.warnKeys(e.onDrive)
	e.cell = func(*verify.Inspection, verify.InspectedBlob) string { return custody.CellKept }
	if f.report != "" {
		if dry {
			return nil, usagef(s.command, "--report does not go with --dry-run, which writes nothing anywhere")
		}
		f.report = s.env.expandHome(f.report)
		switch filepath.Ext(f.report) {
		case ".html", ".json", ".txt":
		default:
			return nil, usagef(s.command, "--report takes a FILE that ends in .html, .json or .txt, not %q", f.report)
		}
		if err := outside(f.report, media); err != nil {
			return nil, usagef(s.command, "--report: %v", err)
		}
	}
	if f.custody != "" {
		if dry {
			return nil, usagef(s.command, "--custody does not go with --dry-run, which writes nothing anywhere")
		}
		f.custody = s.env.expandHome(f.custody)
		if err := outside(f.custody, media); err != nil {
			return nil, usagef(s.command, "--custody: %v", err)
		}
	}
	var err error
	e.key, err = s.signKey(f.signKey)
	return e, err
}

// signKey reads --sign-key; nil if it was not given.
func (s *session) signKey(name string) (*custody.Key, error) {
	if name == "" {
		return nil, nil
	}
	if err := s.env.checkNamed("--sign-key", name); err != nil {
		return nil, usagef(s.command, "%v", err)
	}
	raw, err := readFile(s.env.expandHome(name), maxKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := custody.ParseKey(raw)
	switch {
	case errors.Is(err, custody.ErrEncryptedKey):
		return nil, usagef(s.command, "--sign-key %s: %v; take a key without one, as \"ssh-keygen -t ed25519 -N '' -f FILE\" makes", name, err)
	case err != nil:
		return nil, usagef(s.command, "--sign-key %s is no private SSH key: %v", name, err)
	}
	return key, nil
}

// trustedSigners reads --trusted-signers; nil if it was not given.
func (s *session) trustedSigners(name string) (*custody.Signers, error) {
	if name == "" {
		return nil, nil
	}
	if err := s.env.checkNamed("--trusted-signers", name); err != nil {
		return nil, usagef(s.command, "%v", err)
	}
	raw, err := readFile(s.env.expandHome(name), custody.MaxSigners)
	if err != nil {
		return nil, err
	}
	signers, err := custody.ParseSigners(raw)
	if err != nil {
		return nil, usagef(s.command, "--trusted-signers %s: %v", name, err)
	}
	return signers, nil
}

// progress also notes the events for the report.
func (e *evidence) progress(next bundle.ProgressFunc) bundle.ProgressFunc {
	if e.flags.report == "" {
		return next
	}
	return func(ev bundle.Event) {
		e.timeline.Event(ev)
		next(ev)
	}
}

// entry is an entry of a custody log, of this program, host and user.
func (e *evidence) entry(event string) custody.Entry { return e.s.entry(event, e.flags.redact) }

func (s *session) entry(event string, redact bool) custody.Entry {
	entry := custody.Entry{Event: event, Time: time.Now().UTC().Truncate(time.Second), Program: "pannier " + buildVersion()}
	if !redact {
		entry.Host, entry.User = hostAndUser()
	}
	return entry
}

func hostAndUser() (host, name string) {
	host, _ = os.Hostname() // a courtesy
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return host, name
}

// record enters in the log of a drive what was done to it. What is wrong with that is said and is no
// failure: the drive is what it is without it.
func (e *evidence) record(media string, entries ...custody.Entry) {
	if err := custody.Append(media, "pannier "+buildVersion(), e.key, entries...); err != nil {
		e.s.console.warn("the custody log on the drive could not be continued: %v. Nothing else depends on it.", err)
	}
}

// recordBeside enters in the log beside the drives what was done with them, and says so if that fails: the
// crossing is what it is without it.
func (e *evidence) recordBeside(entries ...custody.Entry) {
	if e.flags.custody == "" || len(entries) == 0 {
		return
	}
	if err := custody.AppendBeside(e.flags.custody, e.key, entries...); err != nil {
		e.s.console.warn("the custody log beside the drive could not be continued: %v", err)
	}
}

// inspect looks at a drive for the report, also when the command was interrupted.
func (e *evidence) inspect(ctx context.Context, media string) (*verify.Inspection, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return verify.Inspect(ctx, verify.InspectOptions{Media: media, Signatures: e.verifier, Signers: e.signers, Cache: e.s.cacheDir(), Logger: e.s.log})
}

// finish writes the report, whatever came of the command, and returns what did.
func (e *evidence) finish(ctx context.Context, err error) error {
	if e.flags.report == "" {
		return err
	}
	r := &e.report
	r.Format, r.Command, r.Typed = 1, e.s.command, e.s.typed()
	r.Program, r.Commit, r.Platform = "pannier "+buildVersion(), buildCommit(), runtime.GOOS+"/"+runtime.GOARCH
	r.Host, r.User = hostAndUser()
	r.Phases = e.timeline.Phases()
	r.Started, r.Ended = e.timeline.Began().UTC(), time.Now().UTC()
	r.Seconds = r.Ended.Sub(r.Started).Seconds()
	r.ExitCode = exitCode(err)
	if errors.Is(context.Cause(ctx), errInterrupted) && err != nil {
		r.ExitCode = exitInterrupted
	}
	e.failure(ctx, err)
	for _, m := range e.media {
		if d, derr := e.drive(ctx, m); derr == nil {
			r.Drives = append(r.Drives, *d)
		} else if e.s.command == "pack" && errors.Is(derr, bundle.ErrNotBundle) {
			r.Untouched = true
		} else if err == nil || !strings.Contains(err.Error(), derr.Error()) {
			r.Notes = append(r.Notes, "the drive could not be looked at for this report: "+derr.Error())
		}
	}
	e.lacking()
	e.vouched()
	r.Normalize()
	if e.flags.redact {
		e.redact()
	}
	werr := e.write()
	switch {
	case werr == nil:
	case err == nil:
		return fmt.Errorf("--report: %w", werr)
	default:
		e.s.console.warn("the report could not be written: %v", werr)
	}
	return err
}

// failure notes why the command failed, and what to do about that.
func (e *evidence) failure(ctx context.Context, err error) {
	r := &e.report
	var coded *codedError
	if err == nil || errors.As(err, &coded) {
		return
	}
	if errors.Is(context.Cause(ctx), errInterrupted) {
		r.Verdict = custody.Verdict{State: custody.StateIncomplete, Headline: "Interrupted",
			Sentence: "The command was stopped before its end. " + capital(strings.TrimPrefix(e.s.interruptedText(), "interrupted; ")) + ".",
			ToDo:     []string{"Run the same command again: it continues."}}
		err = besides(interruption(err), errInterrupted)
	} else if r.Verdict.State == "" || r.Verdict.State == custody.StateGood {
		r.Verdict = custody.Verdict{State: custody.StateFailed, Headline: "Not done", Sentence: "The command failed before its end. What is told here is as far as it came."}
		if r.ExitCode == exitIncomplete {
			r.Verdict.State, r.Verdict.Headline = custody.StateIncomplete, "Not complete"
		}
	}
	for i, one := range leaves(err) {
		if i == maxShown {
			r.Errors = append(r.Errors, "and more of this kind")
			break
		}
		if text := oneLine(one); !slices.Contains(r.Errors, text) {
			r.Errors = append(r.Errors, text)
		}
		var refused *bundle.SignatureError
		if errors.As(one, &refused) {
			e.refused = append(e.refused, refused.Tag)
			check := custody.Check{What: "signature of " + refused.Tag, How: e.keysText(), Result: refused.Verdict.Status}
			if !slices.Contains(r.Checks, check) {
				r.Checks = append(r.Checks, check)
			}
		}
		a := adviceFor(one)
		for _, todo := range []string{sentence(a.todo), "Running the same command again: " + a.rerun + "."} {
			if !slices.Contains(r.Verdict.ToDo, todo) {
				r.Verdict.ToDo = append(r.Verdict.ToDo, todo)
			}
		}
	}
}

// sentence makes one of a piece of advice.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// drive describes a drive for the report.
func (e *evidence) drive(ctx context.Context, media string) (*custody.DriveReport, error) {
	in, err := e.inspect(ctx, media)
	if in == nil {
		return nil, err
	}
	if in.Custody == nil { // of a folder that oc wrote
		in.Custody = &custody.State{Log: &custody.Log{}}
	}
	d := &custody.DriveReport{
		Media: media, Bundle: in.BundleID, Sealed: in.Sealed, SealedAt: in.SealedAt, SealedBy: in.Program, Generation: in.Generation,
		Blobs: in.Blobs.Count, Bytes: in.Blobs.Bytes, Custody: in.Custody,
	}
	for _, line := range in.Custody.Log.Lines {
		if line.Err == nil {
			d.Entries = append(d.Entries, line.Entry)
		}
	}
	for _, rel := range in.Releases {
		one := custody.ReleaseReport{
			Release: rel.Version + "-" + rel.Arch, Digest: rel.Digest, Source: rel.Source, Created: rel.Created, Images: len(rel.Images), Bytes: rel.Bytes,
			Signature: rel.Signature, Key: rel.Key, Fingerprint: rel.Fingerprint, KeySource: rel.KeySource,
		}
		one.Delivered = e.images[one.Release]
		for _, img := range rel.Images {
			one.Parts = append(one.Parts, custody.Image{Name: img.Name, Digest: img.Digest, Bytes: img.Bytes})
		}
		d.Releases = append(d.Releases, one)
	}
	for _, img := range in.AdditionalImages {
		d.Additional = append(d.Additional, custody.AdditionalImage(img))
	}
	if p := in.Presumes; p != nil {
		d.Presumed = &custody.Presumed{Blobs: p.Blobs, Bytes: p.Bytes, At: p.At}
	}
	for _, t := range in.Tools {
		changed := slices.ContainsFunc(e.report.Findings, func(f custody.Finding) bool { return f.Path == t.Path && !f.Repaired })
		d.Tools = append(d.Tools, custody.Tool{Platform: t.Platform, Path: t.Path, Digest: t.Digest.String(), Changed: changed})
	}
	owners := map[string]int{}
	for _, blob := range in.Contents {
		d.Map = append(d.Map, custody.Cell{Digest: blob.Digest, Size: blob.Size, State: e.cell(in, blob)})
		i, known := owners[blob.Owner]
		if !known {
			i = len(d.Components)
			owners[blob.Owner] = i
			d.Components = append(d.Components, custody.Component{Name: blob.Owner})
		}
		d.Components[i].Bytes += blob.Size
		d.Components[i].Blobs++
	}
	slices.SortStableFunc(d.Components, func(a, b custody.Component) int { return int(max(-1, min(1, b.Bytes-a.Bytes))) })
	return d, nil
}

// lacking says which releases were asked for and did not come onto the drive.
func (e *evidence) lacking() {
	r := &e.report
	lacking := slices.DeleteFunc(slices.Clone(e.asked), func(tag string) bool {
		return slices.ContainsFunc(r.Drives, func(d custody.DriveReport) bool {
			return slices.ContainsFunc(d.Releases, func(rel custody.ReleaseReport) bool { return rel.Release == tag })
		})
	})
	if len(lacking) > 0 {
		r.Verdict.Sentence += " Not on the drive: " + strings.Join(lacking, ", ") + "."
	}
}

// vouched says who vouches for what is on the drives.
func (e *evidence) vouched() {
	r := &e.report
	if r.Verdict.Vouched != "" {
		return
	}
	releases, additional, unsigned := 0, 0, []string(nil)
	for _, d := range r.Drives {
		additional += len(d.Additional)
		for _, rel := range d.Releases {
			releases++
			if rel.Signature != bundle.SignatureVerified {
				unsigned = append(unsigned, rel.Release)
			}
		}
	}
	for _, rel := range r.Carried() {
		releases++
		if rel.Signature != bundle.SignatureVerified {
			unsigned = append(unsigned, rel.Release)
		}
	}
	v := &r.Verdict.Vouched
	switch {
	case len(e.refused) > 0 && len(unsigned) == 0:
		*v = "Nobody trusted vouches for " + strings.Join(e.refused, ", ") + ", which was refused."
	case len(unsigned) > 0:
		*v = "Nobody trusted vouches for " + strings.Join(unsigned, ", ") + "."
	case releases > 0 && len(e.onDrive) > 0:
		*v = "Every release is signed, but a key that was named as trusted travels on the drive itself: what it signs proves nothing."
	case releases > 0:
		*v = "Every release is signed by somebody trusted; the signature covers every byte of it through digests."
	default:
		*v = "There is no release whose signature could be judged."
	}
	if additional > 0 {
		*v += " No signature is checked for additional images."
	}
	if len(e.onDrive) > 0 {
		*v += " But beware: the key in " + onDriveText(e.onDrive) + "."
	}
	if e.signers != nil {
		e.vouchedLogs()
	}
}

// vouchedLogs says whether trusted signers vouch for the custody logs of the drives.
func (e *evidence) vouchedLogs() {
	trusted := !slices.ContainsFunc(e.report.Drives, func(d custody.DriveReport) bool { return !d.Custody.Trusted })
	text := " The custody log is signed to its end by somebody whom --trusted-signers names."
	if !trusted || len(e.report.Drives) == 0 {
		text = " Nobody whom --trusted-signers names vouches for the whole custody log."
	}
	e.report.Verdict.Vouched += text
}

// keysText says what keys signatures were checked against.
func (e *evidence) keysText() string {
	switch {
	case len(e.onDrive) > 0:
		return "against known keys, of which " + strings.Join(e.onDrive, ", ") + " lies on the drive itself"
	case len(e.keyrings) == 0:
		return "against Red Hat's keys, as far as they are at hand; no key was given with --keyring"
	case len(e.media) == 0:
		return "against Red Hat's keys, and those that --keyring names"
	}
	return "against keys that were not read from the drive"
}

// redact leaves out what names this machine, its people and its places.
func (e *evidence) redact() {
	names := append([]string{e.flags.report, e.s.env("HOME")}, e.keyrings...)
	for _, m := range e.media {
		names = append(names, m, filepath.Clean(m))
		if abs, err := filepath.Abs(m); err == nil {
			names = append(names, abs)
		}
	}
	if d := e.report.Delivery; d != nil {
		for _, c := range d.Contacts {
			host, _, _ := strings.Cut(c, " ")
			names = append(names, host)
		}
	}
	e.report.Redact(names...)
}

// write writes the report beside its place and renames it, so that there is never half of one.
func (e *evidence) write() error {
	var b bytes.Buffer
	var err error
	switch filepath.Ext(e.flags.report) {
	case ".html":
		err = e.report.HTML(&b)
	case ".txt":
		err = e.report.Text(&b)
	default:
		var text string
		text, err = jsonText(&e.report)
		b.WriteString(text)
	}
	if err != nil {
		return err
	}
	return replaceFile(e.flags.report, b.Bytes())
}
