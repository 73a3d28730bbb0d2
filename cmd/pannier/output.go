package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"pannier/apply"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/parity"
	"pannier/bundle/release"
	"pannier/verify"
)

// start applies the flags that say how a command shows its work.
func (s *session) start(logs *logFlags, shown *progressFlags) error {
	if shown != nil {
		if err := shown.check(s.command); err != nil {
			return err
		}
		mode := shown.mode
		if mode == progressAuto {
			mode = progressPiped
			if isTerminal(s.console.stderr, s.env) {
				mode = progressTTY
			}
		}
		s.console.events = mode == progressJSON
		s.mode = mode
		if err := s.openLog(logs); err != nil {
			return err
		}
		s.progress = startProgress(mode, s.console)
		return nil
	}
	return s.openLog(logs)
}

// openLog makes the logger: to stderr, to the file that was named, to both or nowhere.
func (s *session) openLog(logs *logFlags) error {
	s.verbose = logs.verbose > 0
	handler := logs.handler(s.console)
	if err := s.offDrive("--log-file", logs.file); err != nil {
		return err
	}
	if logs.file != "" {
		j, err := openJournal(s.env.expandHome(logs.file), logs.level())
		if err != nil {
			return usagef(s.command, "--log-file: %v", err)
		}
		j.log.Info("began", "version", buildVersion(), "command", s.typed(), "pid", os.Getpid())
		s.journal, s.console.journal = j, j.log
		handler = slog.NewMultiHandler(handler, j.log.Handler())
	}
	s.log = slog.New(handler)
	return nil
}

func (s *session) warnAll(warnings []string) {
	for _, w := range warnings {
		s.console.warn("%s", w)
	}
}

// planDocument is what a dry run prints as JSON.
type planDocument struct {
	Blobs     bundle.Count      `json:"blobs"`
	Bytes     bundle.Count      `json:"bytes"`
	Manifests int               `json:"manifests"`
	Tags      []string          `json:"tags"`
	Objects   []json.RawMessage `json:"objects"`
	Resumed   int64             `json:"resumed,omitempty"`  // of bytes.present, those of downloads that had begun
	Parity    *parityDocument   `json:"parity,omitempty"`   // of pack, unless there is nothing to cover
	Path      []updateDocument  `json:"path,omitempty"`     // with --upgrade-from
	Presumed  *bundle.Totals    `json:"presumed,omitempty"` // of pack with --have

	Cluster *clusterPlanDocument `json:"cluster,omitempty"` // with --apply
}

func (s *session) printPlanJSON(p bundle.Plan, c *clusterPlanDocument) error {
	doc := planDocument{Cluster: c, Blobs: p.Blobs, Bytes: p.Bytes, Manifests: p.Manifests, Tags: p.Tags, Objects: []json.RawMessage{}, Resumed: p.Resumed, Parity: parityOf(p.Parity), Path: pathDocument(p.Path)}
	if p.Presumed.Blobs > 0 {
		doc.Presumed = &p.Presumed
	}
	if doc.Tags == nil {
		doc.Tags = []string{}
	}
	for _, o := range p.Objects {
		var raw json.RawMessage
		if err := objects.Decode(o.YAML, &raw); err != nil {
			return fmt.Errorf("object %s %s: %w", o.Kind, o.Name, err)
		}
		doc.Objects = append(doc.Objects, raw)
	}
	return s.console.json(doc)
}

// parityDocument is the parity of a plan.
type parityDocument struct {
	Share  string               `json:"share"`
	Blobs  int                  `json:"blobs"`
	Bytes  int64                `json:"bytes"`
	Heals  int                  `json:"heals"`  // damaged slices in each group
	Slices int                  `json:"slices"` // that a group has, at most
	Groups int                  `json:"groups"`
	Beyond []largerBlobDocument `json:"beyond"`
}

type largerBlobDocument struct {
	Digest string   `json:"digest"`
	Size   int64    `json:"size"`
	Images []string `json:"images"`
}

func parityOf(p bundle.PlannedParity) *parityDocument {
	if p.Blobs == 0 {
		return nil
	}
	doc := &parityDocument{Share: p.Share.String(), Blobs: p.Blobs, Bytes: p.Bytes, Heals: p.Strength.Heals, Slices: p.Strength.Slices, Groups: p.Strength.Groups, Beyond: []largerBlobDocument{}}
	for _, l := range p.Beyond {
		doc.Beyond = append(doc.Beyond, largerBlobDocument{Digest: l.Digest.String(), Size: l.Size, Images: l.Images})
	}
	return doc
}

// printPlan prints the plan of a dry run to stdout.
func (s *session) printPlan(p bundle.Plan, transfer, free string) error {
	if err := s.console.print("%s\n", trusted(planText(p, transfer, free))); err != nil {
		return err
	}
	if len(p.Tags) > 0 {
		what := "tags"
		if free != "" {
			what = "tags on the drive in the end"
		}
		if err := s.console.print("%s:\n", what); err != nil {
			return err
		}
	}
	for _, tag := range p.Tags {
		if err := s.console.print("    %s\n", tag); err != nil {
			return err
		}
	}
	for _, o := range p.Objects {
		if err := s.console.print("---\n# %s %s\n%s", o.Kind, o.Name, trusted(document(o.YAML))); err != nil {
			return err
		}
	}
	return s.console.print("# Nothing was written: this was a dry run.\n")
}

// sayPlan tells the plan before the work begins.
func (s *session) sayPlan(p bundle.Plan, transfer, free string) {
	s.console.say("%s", trusted(planText(p, transfer, free)))
}

// planText renders a plan; free names the row of the space on the drive, none if empty.
func planText(p bundle.Plan, transfer, free string) string {
	rows := [][]string{
		{"", "total", "there already", transfer},
		{"blobs", fmt.Sprint(p.Blobs.Total), fmt.Sprint(p.Blobs.Present), fmt.Sprint(p.Blobs.Transfer)},
		{"bytes", content.SizeText(p.Bytes.Total), content.SizeText(p.Bytes.Present), content.SizeText(p.Bytes.Transfer)},
	}
	if p.Begun > 0 {
		rows = append(rows, []string{"resumed", fmt.Sprintf("%s of %s, which are hashed again", content.SizeText(p.Resumed), content.Plural(p.Begun, "download that had begun", "downloads that had begun"))})
	}
	// Only cells that others follow take part in a column: one table keeps all rows in line.
	tags := "tags"
	if free != "" { // those that were there too: what is asked for is told above
		tags = "tags on the drive"
	}
	rows = append(rows, []string{"manifests", fmt.Sprint(p.Manifests)}, []string{tags, fmt.Sprint(len(p.Tags))})
	if p.Presumed.Blobs > 0 {
		rows = append(rows, []string{"presumed", presumedText(p.Presumed)})
	}
	if p.Parity.Blobs > 0 {
		rows = append(rows, []string{"parity", fmt.Sprintf("%s, %s", content.SizeText(p.Parity.Bytes), p.Parity.Share)})
	}
	if len(p.Hosts) > 0 {
		rows = append(rows, []string{"hosts", strings.Join(p.Hosts, ", ")})
	}
	if free != "" {
		space := "not known"
		if p.Free >= 0 {
			space = content.SizeText(p.Free)
		}
		if p.Filesystem != "" {
			space += " (" + p.Filesystem + ")"
		}
		if p.Missing > 0 {
			space += ": " + content.SizeText(p.Missing) + " are lacking"
		}
		rows = append(rows, []string{free, space})
	}
	return pathText(p.Path) + table(rows) + strengthText(p.Parity.Strength) + beyondText(p.Parity)
}

// presumedText tells of blobs that are left out of a drive.
func presumedText(t bundle.Totals) string {
	return fmt.Sprintf("%s, %s, that the other side holds", content.Plural(t.Blobs, "blob", "blobs"), content.SizeText(t.Bytes))
}

// strengthText says how much damage the parity of a plan heals; "" if there is none.
func strengthText(s parity.Strength) string {
	if s.Groups == 0 {
		return ""
	}
	where := "the one group that there is, of " + content.Plural(s.Slices, "slice", "slices")
	if s.Groups > 1 {
		where = fmt.Sprintf("each of the %d groups, of up to %d slices", s.Groups, s.Slices)
	}
	return fmt.Sprintf("\nparity heals %s of 1 MiB in %s: one bad byte damages its slice, in whichever blob", content.Plural(s.Heals, "damaged slice", "damaged slices"), where)
}

// beyondText names the blobs that are too large to be healed if all of one is lost; the
// plan is where something can be done about it.
func beyondText(p bundle.PlannedParity) string {
	if len(p.Beyond) == 0 {
		return ""
	}
	const most = 5
	var b strings.Builder
	fmt.Fprintf(&b, "\nlarger than the parity, so that the loss of the whole blob could not be healed: %d (--parity PERCENT makes it larger)\n", len(p.Beyond))
	for _, l := range p.Beyond[:min(most, len(p.Beyond))] {
		fmt.Fprintf(&b, "    %s  %s", content.SizeText(l.Size), l.Digest)
		if len(l.Images) > 0 {
			fmt.Fprintf(&b, "  %s", printable(l.Images[0]))
		}
		if len(l.Images) > 1 {
			fmt.Fprintf(&b, " and %d more", len(l.Images)-1)
		}
		b.WriteByte('\n')
	}
	if more := len(p.Beyond) - most; more > 0 {
		fmt.Fprintf(&b, "    and %d more\n", more)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// printObjects prints cluster objects to stdout as one YAML stream that "oc apply -f -"
// takes; nothing else is ever on stdout beside it.
func (s *session) printObjects(list []objects.Object, note string) error {
	for _, o := range list {
		if err := s.console.print("---\n# %s %s, %s\n%s", o.Kind, o.Name, note, trusted(document(o.YAML))); err != nil {
			return err
		}
	}
	return nil
}

// document returns one YAML document with its last line ended and without a marker of its own.
func document(yaml []byte) string {
	text := strings.TrimPrefix(string(yaml), "---\n")
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}

// signatureText renders a verdict in words.
func signatureText(v bundle.SignatureVerdict) string {
	text := v.Status
	switch {
	case v.Key != "" && v.Fingerprint != "":
		text += " by " + v.Key + " (" + v.Fingerprint + ")"
	case v.Key != "" || v.Fingerprint != "":
		text += " by " + v.Key + v.Fingerprint
	}
	if v.Status != bundle.SignatureVerified && len(v.Problems) > 0 {
		text += ": " + strings.Join(v.Problems, "; ")
	}
	if len(v.Notes) > 0 {
		text += "; " + strings.Join(v.Notes, "; ")
	}
	return text
}

// packResult is what the last event of a stream says of a pack.
func packResult(r *bundle.PackResult) map[string]any {
	releases := []map[string]any{}
	for _, rel := range r.Releases {
		releases = append(releases, map[string]any{
			"release": rel.Tag, "digest": rel.Digest, "images": rel.Images, "signature": rel.Signature.Status, "kept": rel.Kept,
		})
	}
	return map[string]any{
		"sealed": r.Sealed, "unchanged": r.Unchanged, "bundleID": r.BundleID, "blobs": r.Blobs, "manifests": r.Manifests, "bytes": r.Bytes,
		"fetched": r.Moved, "resumed": r.Resumed, "adopted": r.Adopted, "presumed": r.Plan.Presumed, "releases": releases,
	}
}

// auditResult is the same of an audit.
func auditResult(r *verify.Report) map[string]any {
	releases := []map[string]any{}
	for _, rel := range r.Releases {
		releases = append(releases, map[string]any{
			"release": release.Tag(rel.Version, rel.Arch), "digest": rel.Digest, "images": rel.Images, "signature": rel.Signature, "fingerprint": rel.Fingerprint,
		})
	}
	findings, repaired := map[verify.Kind]int{}, 0
	for _, f := range r.Findings {
		if f.Repaired {
			repaired++
		} else {
			findings[f.Kind]++
		}
	}
	return map[string]any{
		"status": r.Status, "sealed": r.Sealed, "bundleID": r.Bundle, "blobs": r.Blobs, "releases": releases, "findings": findings, "repaired": repaired,
	}
}

// unpackResult is the same of an unpack.
func unpackResult(r *apply.UnpackResult) map[string]any {
	releases := []map[string]any{}
	for _, rel := range r.Releases {
		releases = append(releases, map[string]any{
			"release": rel.Tag, "digest": rel.Digest, "image": rel.Image, "complete": rel.Complete, "signature": rel.Signature.Status,
		})
	}
	return map[string]any{
		"pushed": r.Pushed, "present": r.Present, "skipped": r.Skipped, "presumed": r.Presumed, "documents": r.Documents,
		"refused": len(r.Refused), "objects": len(r.Objects), "releases": releases,
	}
}
