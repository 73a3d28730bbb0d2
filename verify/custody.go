package verify

import (
	"context"
	"slices"
	"time"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/verify/custody"
)

// custody says what the custody log tells. It stands outside the seal and nothing depends on
// it: what is wrong with it is a note. Who names trusted signers asks for a log that they
// vouch for, and then it is a finding.
func (a *audit) custody() {
	from := len(a.report.Notes)
	defer func() { a.report.custodyNotes = [2]int{from, len(a.report.Notes)} }()
	s := custody.Look(a.l, a.opts.Signers, time.Now())
	a.report.Custody = s
	problems := s.Problems
	if a.b.Seal != nil && s.Lines > 0 && !tellsOf(s.Log, a.b.Seal.Generation, a.b.Seal.Bundle.String()) {
		problems = append(problems, "it does not tell of the seal that is on the drive")
	}
	if a.b.Seal != nil && s.Lines == 0 && len(s.Problems) == 0 && a.opts.Signers == nil { // who asks for signers is told by them
		problems = append(problems, noLog)
	}
	a.tellLog("", s, problems)
	if len(a.opts.Beside) > 0 {
		a.report.Beside = custody.LookBeside(a.opts.Beside, a.instance(), s.Log, a.opts.Signers, time.Now())
		a.tellLog("beside the drive: ", a.report.Beside, a.report.Beside.Problems)
	}
	for _, name := range s.Unlisted {
		if a.opts.Signers == nil {
			a.note("%s is not named by the custody log: nobody says what it is", name)
			a.report.CustodyWrong++
			continue
		}
		a.find(Finding{Kind: KindUntrusted, Path: name, Detail: "the custody log does not name it: nobody vouches for it"})
	}
	for _, f := range s.Attached {
		a.note("attached, as claimed by the sender and not checked here: %s (%s)", f.As, f.Path)
	}
}

// noLog is said of a sealed drive without a log.
const noLog = "there is none, although pack begins one: it was removed, or it could not be written"

// Retell looks at the custody logs again, after an entry was made of what the report is about,
// and puts what they tell now in the place of what they told. Errors are those of [Audit].
func (r *Report) Retell(ctx context.Context, opts AuditOptions) error {
	b, err := bundle.Open(ctx, opts.Media, bundle.OpenOptions{Cache: opts.Cache, Logger: opts.Logger})
	if err != nil {
		return err
	}
	defer b.Close()
	a := &audit{opts: opts, b: b, l: b.Layout, report: &Report{}}
	a.custody()
	said := r.custodyNotes
	r.Notes = slices.Replace(r.Notes, said[0], said[1], a.report.Notes...)
	r.custodyNotes = [2]int{said[0], said[0] + len(a.report.Notes)}
	r.Custody, r.Beside, r.CustodyWrong = a.report.Custody, a.report.Beside, a.report.CustodyWrong
	r.Findings = slices.DeleteFunc(r.Findings, func(f Finding) bool { return f.Kind == KindUntrusted && f.Path == custody.LogName })
	r.Findings = append(r.Findings, a.report.Findings...)
	a.report = r
	a.conclude()
	return nil
}

// instance is the name of the drive, which stays when releases are added; "" of one without a seal.
func (a *audit) instance() string {
	if a.b.Seal == nil {
		return ""
	}
	return a.b.Seal.Instance
}

// tellLog tells of one log, that of the drive or another, which where says.
func (a *audit) tellLog(where string, s *custody.State, problems []string) {
	if a.opts.Signers != nil && !s.Trusted {
		problems = append(problems, s.Vouched)
	}
	for _, p := range problems {
		if a.opts.Signers == nil {
			a.note("custody log: %s%s", where, p)
			a.report.CustodyWrong++
			continue
		}
		a.find(Finding{Kind: KindUntrusted, Path: custody.LogName, Detail: where + p})
	}
	if s.Lines > 0 {
		a.note("custody log: %s%s; %s", where, lastText(s.Log), s.Vouched)
	}
}

// tellsOf reports whether the log says that this bundle was sealed.
func tellsOf(l *custody.Log, generation uint64, bundle string) bool {
	for _, line := range l.Lines {
		if (line.Event == custody.Sealed || line.Event == custody.Repaired) && line.Generation == generation && line.Bundle == bundle {
			return true
		}
	}
	return false
}

// lastText says how many lines there are and what the last of them tells.
func lastText(l *custody.Log) string {
	text := content.Plural(len(l.Lines), "line", "lines")
	for i := len(l.Lines) - 1; i >= 0; i-- {
		line := l.Lines[i]
		if line.Err != nil || line.Event == custody.Signed {
			continue
		}
		text += ", the last tells that it was " + line.Event
		if !line.Time.IsZero() {
			text += " on " + line.Time.UTC().Format(time.DateTime) + " UTC"
		}
		if line.User != "" || line.Host != "" {
			text += " by " + line.User + "@" + line.Host
		}
		break
	}
	return text
}
