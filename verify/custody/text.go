package custody

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"pannier/bundle"
	"pannier/bundle/content"
)

// Text writes the report as plain text, for a printer or a mail.
func (r *Report) Text(w io.Writer) error {
	t := &textReport{r: r.plain()}
	t.answers()
	t.run()
	t.found()
	for _, d := range t.r.Drives {
		t.drive(d)
	}
	t.delivery()
	t.list("NOTES", t.r.Notes)
	_, err := w.Write(t.out.Bytes())
	return err
}

type textReport struct {
	r   *Report
	out bytes.Buffer
}

func (t *textReport) say(format string, args ...any) { fmt.Fprintf(&t.out, format+"\n", args...) }

func (t *textReport) head(title string) { t.say("\n%s\n%s", title, strings.Repeat("-", len(title))) }

func (t *textReport) list(title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	t.head(title)
	for _, l := range lines {
		t.say("- %s", l)
	}
}

func (t *textReport) table(rows ...[]string) {
	w := tabwriter.NewWriter(&t.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, "  "+strings.Join(row, "\t"))
	}
	w.Flush()
}

// answers are the four questions of whoever signs.
func (t *textReport) answers() {
	r := t.r
	t.say("REPORT OF A CROSSING: pannier %s, %s UTC", r.Command, r.Ended.UTC().Format(time.DateTime))
	t.say("\n%s\n%s", strings.ToUpper(r.Verdict.Headline), r.Verdict.Sentence)
	t.head(strings.ToUpper(r.Crossed()))
	for _, d := range r.Drives {
		for _, rel := range d.Releases {
			t.say("OpenShift %s, %s, %s\n  %s", rel.Release, content.Plural(rel.Images, "image", "images"), content.SizeText(rel.Bytes), rel.Digest)
		}
		for _, a := range d.Additional {
			t.say("image %s\n  %s", a.Reference, a.Digest)
		}
		state := ""
		if text := d.Unsealed(); text != "" {
			state = ", NOT SEALED: " + text
		}
		t.say("%d blobs and manifests, %s%s", d.Blobs, content.SizeText(d.Bytes), state)
		t.beside(d)
		if d.Bundle != "" {
			t.say("bundle id\n  %s", d.Bundle)
		}
	}
	for _, rel := range r.Carried() {
		t.say("OpenShift %s, %s, %s\n  %s", rel.Release, content.Plural(rel.Images, "image", "images"), content.SizeText(rel.Bytes), rel.Digest)
	}
	if nothing := r.Nothing(); nothing != "" {
		t.say("%s", nothing)
	}
	t.head("IS IT WHOLE")
	for _, c := range r.Checks {
		t.say("%s: %s (%s)", c.What, c.Result, c.How)
	}
	if len(r.Checks) == 0 {
		t.say("Nothing was checked: the command ended before it came to that.")
	}
	open, repaired := r.counts()
	for _, text := range []string{open, repaired} {
		if text != "" {
			t.say("%s", text)
		}
	}
	t.head("WHO VOUCHES FOR IT")
	t.say("%s", r.Verdict.Vouched)
	for _, d := range r.Drives {
		for _, rel := range d.Releases {
			t.say("%s: signature %s", rel.Release, signedBy(rel.Signature, rel.Key, rel.Fingerprint))
		}
		if d.Custody != nil && d.Custody.Lines > 0 {
			t.say("custody log:")
			for _, s := range d.Custody.Signed {
				t.say("- %s", s)
			}
		} else if d.Sealed {
			t.say("there is no custody log on the drive, although pack begins one: it was removed, or it could not be written")
		}
	}
	for _, rel := range r.Carried() {
		t.say("%s: signature %s", rel.Release, signedBy(rel.Signature, rel.Key, rel.Fingerprint))
	}
	t.head("WHAT TO DO")
	for _, e := range r.Errors {
		t.say("error: %s", e)
	}
	for _, todo := range r.Verdict.ToDo {
		t.say("- %s", todo)
	}
	if len(r.Verdict.ToDo) == 0 {
		t.say("Nothing: go on.")
	}
}

// signedBy says who made a signature, if that is known.
func signedBy(status, key, fingerprint string) string {
	if who := strings.TrimSpace(key + " " + fingerprint); who != "" {
		return status + " by " + who
	}
	return status
}

// beside are what is on a drive beside blobs.
func (t *textReport) beside(d DriveReport) {
	if p := d.Presumed; p != nil {
		t.say("NOT ON THE DRIVE, although its images need it: %s, %s, presumed at %s; unpack proves that first", content.Plural(p.Blobs, "blob", "blobs"), content.SizeText(p.Bytes), strings.Join(p.At, ", "))
	}
	for _, tool := range d.Tools {
		note := "before it is run, compare its SHA-256 with what the sender says another way"
		if t.r.ToolsUnread() {
			note = "NOT READ IN THIS RUN; " + note
		}
		if tool.Changed {
			note = "IT IS NOT AS IT WAS SEALED: do not run it"
		}
		t.say("the program pannier for %s; %s\n  %s\n  as sealed: %s", tool.Platform, note, tool.Path, tool.Digest)
	}
	if d.Custody == nil {
		return
	}
	for _, a := range d.Custody.Attached {
		note := ""
		if !a.Whole {
			note = "; IT IS NOT AS IT WAS ATTACHED"
		}
		t.say("attached file, as the sender claims and not checked here: %s%s\n  %s", a.As, note, a.Path)
	}
}

func (t *textReport) run() {
	r := t.r
	t.head("THE RUN")
	who := "left out"
	if !r.Redacted {
		who = fmt.Sprintf("host %s, user %s", r.Host, r.User)
	}
	t.table([]string{"command", r.Typed}, []string{"program", strings.TrimSpace(r.Program + " " + r.Commit + " " + r.Platform)},
		[]string{"where and who", who},
		[]string{"when", fmt.Sprintf("%s to %s UTC, %.1f seconds", r.Started.UTC().Format(time.DateTime), r.Ended.UTC().Format(time.DateTime), r.Seconds)},
		[]string{"exit code", fmt.Sprint(r.ExitCode)})
	for _, p := range r.Phases {
		t.table([]string{p.Name, fmt.Sprintf("%.1f seconds", p.Seconds), content.SizeText(p.Bytes)})
	}
}

func (t *textReport) found() {
	if len(t.r.Findings) == 0 {
		return
	}
	t.head("WHAT WAS FOUND, REPAIRED OR REFUSED")
	for _, f := range t.r.Findings {
		where := f.Path
		if where == "" {
			where = f.Digest
		}
		t.say("%s: %s: %s", f.State(), where, f.Detail)
	}
}

func (t *textReport) drive(d DriveReport) {
	t.head(strings.TrimSpace("THE DRIVE " + d.Media))
	for _, rel := range d.Releases {
		t.say("OpenShift %s", rel.Release)
		t.table([]string{"digest", rel.Digest}, []string{"source", rel.Source})
		if rel.Delivered != "" {
			t.table([]string{"at the registry", rel.Delivered})
		}
		for _, p := range rel.Parts {
			t.table([]string{"  " + p.Name, p.Digest, content.SizeText(p.Bytes)})
		}
	}
	for _, l := range legendOf(d.Map) {
		t.say("%d blobs %s, %s", l.Count, l.Label, content.SizeText(l.Bytes))
	}
	for i, e := range d.Entries {
		if i == 0 {
			t.head("CUSTODY LOG")
		}
		who := strings.Trim(e.User+"@"+e.Host, "@")
		text := e.Detail
		if e.File != nil {
			text = fmt.Sprintf("%s, as claimed by the sender: %s %s", e.File.As, e.File.Path, e.File.Digest)
		}
		when := ""
		if !e.Time.IsZero() {
			when = e.Time.UTC().Format(time.DateTime)
		}
		t.table([]string{when, strings.Trim(e.Event+": "+e.Outcome, ": "), who, text})
	}
	if d.Custody != nil {
		t.list("WHAT IS WRONG WITH THE CUSTODY LOG", d.Custody.Problems)
	}
}

func (t *textReport) delivery() {
	d := t.r.Delivery
	if d == nil {
		return
	}
	t.head("WHERE IT WENT")
	for _, rel := range t.r.Carried() {
		t.table([]string{"release", rel.Delivered})
	}
	t.table([]string{"registry", d.Registry})
	for _, row := range []struct {
		what   string
		totals bundle.Totals
		always bool
		more   string
	}{
		{"pushed", d.Pushed, true, "read, verified and pushed"},
		{"mounted", d.Mounted, false, "taken over from a repository of the registry's own, not read"},
		{"there already", d.Present, true, "read and verified, not pushed"},
		{"not read", d.Skipped, true, "the registry has them"},
		{"presumed", d.Presumed, false, "on no drive, the registry has them"},
		{"documents", d.Documents, false, "read and verified, they stay on the drive"},
	} {
		if row.always || row.totals.Blobs > 0 {
			t.table([]string{row.what, fmt.Sprintf("%s, %s: %s", content.Plural(row.totals.Blobs, "blob", "blobs"), content.SizeText(row.totals.Bytes), row.more)})
		}
	}
	t.table([]string{"refused", fmt.Sprint(d.Refused)},
		[]string{"cluster objects", strings.Join(d.Objects, ", ")},
		[]string{"contacted", strings.Join(d.Contacts, ", ")})
}
