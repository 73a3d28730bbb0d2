package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"pannier/apply"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/release"
	"pannier/verify"
	"pannier/verify/custody"
)

// What each command tells of itself: in the custody log of a drive that it wrote to, and in
// its report.

// packed takes in what a pack did.
func (e *evidence) packed(ctx context.Context, f *packFlags, opts bundle.PackOptions, r *bundle.PackResult, failure error) {
	if r == nil || opts.DryRun {
		return
	}
	if wrote := r.Moved+r.Resumed > 0 || r.Sealed; wrote && !r.Unchanged {
		e.enterPacked(ctx, opts, r, failure)
	}
	rep := &e.report
	rep.Notes = append(rep.Notes, r.Warnings...)
	e.cell = func(drive *verify.Inspection, blob verify.InspectedBlob) string {
		switch {
		case !blob.Complete:
			return custody.CellPartial
		case r.Sealed && !r.Unchanged && blob.Sealed == drive.Generation:
			return custody.CellReadBack
		}
		return custody.CellKept
	}
	if r.ReadBack.Blobs > 0 {
		rep.Checks = append(rep.Checks, custody.Check{What: "everything that was written, read back and compared",
			How: layout.CacheMethod(r.ReadBack.Method).Text(), Result: fmt.Sprintf("%s, %s, and what else was written (small files, parity, programs): all right", content.Plural(r.ReadBack.Blobs, "blob", "blobs"), content.SizeText(r.ReadBack.Bytes))})
	}
	for _, rel := range r.Releases {
		rep.Checks = append(rep.Checks, custody.Check{What: "signature of " + rel.Tag, How: e.keysText(), Result: rel.Signature.Status})
	}
	if failure != nil || !r.Sealed {
		for _, rel := range r.Releases {
			e.asked = append(e.asked, rel.Tag)
		}
		return
	}
	rep.Verdict = custody.Verdict{State: custody.StateGood, Headline: "Packed and sealed",
		Sentence: fmt.Sprintf("%d blobs and manifests, %s, were fetched or there before; each was accepted by its digest. What was written was flushed, read back and sealed.", r.Blobs, content.SizeText(r.Bytes)),
		ToDo:     packedSteps(f, opts, r)}
	if r.Unchanged {
		rep.Verdict.Headline = "Sealed before, nothing to do"
		rep.Verdict.Sentence = "Everything that was asked for was on the drive already. Nothing was written, and what the seal covers was not read again."
	}
	if t := r.Plan.Presumed; t.Blobs > 0 {
		rep.Verdict.Sentence += " It is not all that its images need; not on the drive: " + presumedText(t) + "."
	}
}

// packedSteps say how what was packed comes to the other side, as the terminal does.
func packedSteps(f *packFlags, opts bundle.PackOptions, r *bundle.PackResult) (steps []string) {
	switch {
	case inMemory(r):
		steps = append(steps, "This is in the computer's memory (tmpfs): copy the folder to a drive before power off, or mount the drive and pack again.")
	case r.SameDisk:
		steps = append(steps, "This is the system's own disk: copy the folder to a drive, or mount the drive and pack again.")
	default:
		steps = append(steps, "Unmount the drive, and carry it over.")
	}
	command, note := nextCommand(f, opts, r)
	if note != "" {
		steps = append(steps, note)
	}
	if opts.Only == nil {
		steps = append(steps, "On the other side \"pannier audit\" reads every byte again.")
	}
	return append(steps, "Then, on the other side: "+command)
}

// enterPacked continues the log of the drive.
func (e *evidence) enterPacked(ctx context.Context, opts bundle.PackOptions, r *bundle.PackResult, failure error) {
	packed := e.entry(custody.Packed)
	packed.Outcome = "finished"
	if failure != nil || !r.Sealed {
		packed.Outcome = "not finished"
	}
	packed.Detail = fmt.Sprintf("%s fetched, %s resumed", content.SizeText(r.Moved), content.SizeText(r.Resumed))
	if t := r.Plan.Presumed; t.Blobs > 0 {
		packed.Detail += ", " + presumedText(t)
	}
	for _, rel := range r.Releases {
		packed.Releases = append(packed.Releases, custody.Release{Release: rel.Tag, Digest: rel.Digest, Signature: rel.Signature.Status})
	}
	entries := []custody.Entry{packed}
	if in, err := e.inspect(ctx, opts.Media); err == nil && r.Sealed {
		sealed := e.entry(custody.Sealed)
		sealed.Bundle, sealed.Generation = in.BundleID, in.Generation
		sealed.Detail = fmt.Sprintf("%d blobs and manifests, %s; %d read back, past the cache by: %s", r.Blobs, content.SizeText(r.Bytes), r.ReadBack.Blobs, orWord(r.ReadBack.Method, "none"))
		entries = append(entries, sealed)
	}
	e.record(opts.Media, entries...)
}

// repaired continues the log of a drive that was healed, and brings the report up to that.
func (e *evidence) repaired(ctx context.Context, opts verify.AuditOptions, r *verify.Report) {
	healed := 0
	for _, f := range r.Findings {
		if f.Repaired {
			healed++
		}
	}
	if healed == 0 {
		return
	}
	entry := e.entry(custody.Repaired)
	entry.Outcome, entry.Detail = string(r.Status), fmt.Sprintf("%s repaired, %d left", content.Plural(healed, "finding", "findings"), len(r.Findings)-healed)
	if in, err := e.inspect(ctx, opts.Media); err == nil {
		entry.Bundle, entry.Generation = in.BundleID, in.Generation
	}
	e.record(opts.Media, entry)
	if err := r.Retell(context.WithoutCancel(ctx), opts); err != nil {
		e.s.log.Warn("the custody log could not be looked at again", "media", opts.Media, "err", err)
	}
}

// audited takes in what an audit found.
func (e *evidence) audited(ctx context.Context, opts verify.AuditOptions, trust []string, r *verify.Report, failure error) {
	if r == nil {
		return
	}
	rep := &e.report
	states := map[string]string{}
	for _, f := range r.Findings {
		rep.Findings = append(rep.Findings, custody.Finding{Kind: string(f.Kind), Path: f.Path, Digest: f.Digest, Images: f.Images, Detail: f.Detail, Repaired: f.Repaired})
		state := custody.CellDamaged
		switch {
		case f.Repaired:
			state = custody.CellRepaired
		case f.Kind == verify.KindUntrusted:
			continue
		case f.Kind == verify.KindPartial || f.Awaited > 0:
			state = custody.CellPartial
		case f.Kind == verify.KindMissing:
			state = custody.CellMissing
		}
		if f.Digest != "" {
			states[f.Digest] = state
		}
	}
	e.enterAudited(ctx, opts, r)
	e.cell = func(_ *verify.Inspection, blob verify.InspectedBlob) string {
		switch {
		case states[blob.Digest] != "":
			return states[blob.Digest]
		case len(opts.Releases) > 0 && !slices.ContainsFunc(blob.Releases, func(tag string) bool { return selects(opts.Releases, tag) }):
			return custody.CellKept
		}
		return custody.CellProven
	}
	rep.Notes = append(rep.Notes, r.Notes...)
	rep.Checks = append(rep.Checks, e.auditChecks(opts, r)...)
	if failure != nil {
		return
	}
	said := auditVerdict(opts.Media, trust, e.onDrive, r)
	v := custody.Verdict{State: custody.StateGood, Headline: strings.ToUpper(said.word[:1]) + strings.ToLower(said.word[1:]), Sentence: said.meaning, ToDo: said.steps}
	if said.doubt != "" {
		v.State, v.Headline = custody.StateIncomplete, said.doubt
	}
	if r.Status != verify.StatusComplete {
		v.State, v.Sentence = custody.StateBad, countText(r.Findings)+". "+said.meaning
	}
	if r.Status == verify.StatusIncomplete {
		v.State = custody.StateIncomplete
	}
	rep.Verdict = v
}

// auditChecks are what an audit checked, each with what it found and no other did.
func (e *evidence) auditChecks(opts verify.AuditOptions, r *verify.Report) []custody.Check {
	var ofBlobs, ofFiles, ofCustody []verify.Finding // those of signatures are told release by release
	awaited := 0
	for _, f := range r.Findings {
		switch {
		case f.Kind == verify.KindUntrusted && f.Path == custody.LogName:
			ofCustody = append(ofCustody, f)
		case f.Kind == verify.KindUntrusted:
		case f.Awaited > 0:
			awaited++
		case r.Directory || strings.HasPrefix(f.Path, "blobs/") || strings.HasPrefix(f.Path, "pannier/partial/"):
			ofBlobs = append(ofBlobs, f)
		default:
			ofFiles = append(ofFiles, f)
		}
	}
	what, result := "every blob read and hashed", fmt.Sprintf("%s, %s", content.Plural(r.Blobs.Count, "blob or manifest", "blobs and manifests"), content.SizeText(r.Blobs.Bytes))
	if r.Selected != nil {
		what, result = "every blob of "+strings.Join(r.Selected, ", ")+" read and hashed", fmt.Sprintf("%d of %d blobs and manifests", r.Read, r.Blobs.Count)
	}
	result += ", " + countText(ofBlobs)
	if awaited > 0 {
		result += fmt.Sprintf("; %d more are not fetched yet", awaited)
	}
	checks := []custody.Check{
		{What: what, How: "SHA-256; through the operating system, whose cache may have answered for what was read or written just before: plug the drive in anew to be sure", Result: result},
	}
	how, files := "against the list of sums, which the seal vouches for, and in the bundle's own folders whether it belongs there", countText(ofFiles)
	switch {
	case !r.Sealed:
		how = "only whether it belongs there: there is no seal, which would vouch for what is in it"
	case r.Uncompared > 0:
		files += fmt.Sprintf(", and %d could not be compared, for no good list of sums is left", r.Uncompared)
	}
	if !r.Directory { // which has no seal
		checks = append(checks, custody.Check{What: "every other file", How: how, Result: files})
	}
	for _, rel := range r.Releases {
		checks = append(checks, custody.Check{What: "signature of " + release.Tag(rel.Version, rel.Arch), How: e.keysText(), Result: rel.Signature})
	}
	if opts.Signers != nil {
		checks = append(checks, custody.Check{What: "custody log", How: "whole, and signed to its end by somebody whom --trusted-signers names", Result: countText(ofCustody)})
	}
	return checks
}

// enterAudited continues the log beside the drive.
func (e *evidence) enterAudited(ctx context.Context, opts verify.AuditOptions, r *verify.Report) {
	if e.flags.custody == "" {
		return
	}
	entry := e.entry(custody.Audited)
	entry.Outcome, entry.Detail = string(r.Status), countText(r.Findings)
	if r.Selected != nil {
		entry.Detail = "only " + strings.Join(r.Selected, ", ") + ": " + entry.Detail
	}
	for _, rel := range r.Releases {
		entry.Releases = append(entry.Releases, custody.Release{Release: release.Tag(rel.Version, rel.Arch), Digest: rel.Digest, Signature: rel.Signature})
	}
	if e.nameDrive(ctx, &entry, opts.Media) {
		e.recordBeside(entry)
	}
}

// nameDrive notes in an entry which drive it is of, and the last line of that drive's log. It reports false of
// one that cannot be looked at: of that there is nothing to enter.
func (e *evidence) nameDrive(ctx context.Context, entry *custody.Entry, media string) bool {
	in, err := e.inspect(ctx, media)
	if in == nil {
		e.s.log.Warn("a drive could not be looked at for the custody log", "media", media, "err", err)
		return false
	}
	entry.Bundle, entry.Generation, entry.Instance = in.BundleID, in.Generation, in.Instance
	if in.Custody != nil {
		entry.Drive = in.Custody.Last
	}
	return true
}

// selects reports whether --release names a release tag, by its version or in full.
func selects(selection []string, tag string) bool {
	return slices.ContainsFunc(selection, func(s string) bool { return s == tag || strings.HasPrefix(tag, s+"-") })
}

// unpacked takes in what an unpack or a mirror did.
func (e *evidence) unpacked(opts apply.UnpackOptions, r *apply.UnpackResult, failure error) {
	if r == nil || opts.DryRun {
		return
	}
	rep := &e.report
	refused, proven := map[string]string{}, map[string]bool{} // what the map shows of those refused
	for _, one := range r.Refused {
		refused[one.Digest] = custody.CellDamaged
		if errors.Is(one.Err, fs.ErrNotExist) {
			refused[one.Digest] = custody.CellMissing
		}
		rep.Findings = append(rep.Findings, custody.Finding{Kind: "refused", Digest: one.Digest, Images: one.Images, Detail: oneLine(one.Err)})
	}
	for _, d := range r.Proven {
		proven[d.String()] = true
	}
	e.cell = func(_ *verify.Inspection, blob verify.InspectedBlob) string {
		switch {
		case refused[blob.Digest] != "":
			return refused[blob.Digest]
		case proven[blob.Digest]:
			return custody.CellProven
		}
		return custody.CellKept
	}
	rep.Notes = append(rep.Notes, r.Warnings...)
	d := &custody.Delivery{Registry: opts.Destination.String(), Pushed: r.Pushed, Mounted: r.Mounted, Present: r.Present, Skipped: r.Skipped, Presumed: r.Presumed, Documents: r.Documents, Refused: len(r.Refused)}
	for _, o := range r.Objects {
		d.Objects = append(d.Objects, fmt.Sprintf("%s %s", o.Kind, o.Name))
	}
	for _, c := range r.Contacts {
		text := c.Host + " (" + c.Why
		if c.Proxy != "" {
			text += ", through the proxy " + c.Proxy
		}
		d.Contacts = append(d.Contacts, text+")")
	}
	rep.Delivery = d
	read := r.Pushed.Blobs + r.Present.Blobs + r.Documents.Blobs
	from := "the drive"
	if len(opts.Media) == 0 {
		from = "their registries"
	}
	rep.Checks = append(rep.Checks, custody.Check{What: "what was read from " + from + " and hashed while it passed", How: "SHA-256; a bad blob is never committed at the registry",
		Result: fmt.Sprintf("%s, %s, and %s", content.Plural(read, "blob", "blobs"), content.SizeText(r.Pushed.Bytes+r.Present.Bytes+r.Documents.Bytes), content.Plural(r.Manifests, "manifest", "manifests"))})
	left := 0
	for _, rel := range r.Releases {
		rep.Checks = append(rep.Checks, custody.Check{What: "signature of " + rel.Tag, How: e.keysText(), Result: rel.Signature.Status})
		one := custody.DeliveredRelease{Release: rel.Tag, Digest: rel.Digest, Images: rel.Images, Bytes: rel.Bytes, Signature: rel.Signature.Status, Key: rel.Signature.Key, Fingerprint: rel.Signature.Fingerprint}
		if rel.Complete {
			one.Delivered, e.images[rel.Tag] = rel.Image, rel.Image
		} else {
			left++
		}
		d.Releases = append(d.Releases, one)
	}
	if failure != nil {
		rep.Verdict = refusedVerdict(r, d.Nothing(), failure)
		return
	}
	rep.Verdict = custody.Verdict{State: custody.StateGood, Headline: "Delivered", Sentence: deliveredText(r)}
	if len(r.Objects) > 0 && left == 0 {
		rep.Verdict.ToDo = []string{"Apply the cluster objects, if that has not been done, then ask the cluster for the release: pannier apply, pannier upgrade."}
	}
}

// refusedVerdict is of a run that refused something; of another failure it is empty. nothing
// says that the registry was given nothing.
func refusedVerdict(r *apply.UnpackResult, nothing bool, failure error) custody.Verdict {
	n := len(r.Refused)
	switch {
	case n == 0:
		return custody.Verdict{}
	case nothing && errors.Is(failure, bundle.ErrPresumed):
		return custody.Verdict{State: custody.StateIncomplete, Headline: "Nothing delivered",
			Sentence: fmt.Sprintf("The registry lacks %s that the drive presumes there, so nothing was pushed.", content.Plural(n, "blob", "blobs"))}
	case nothing:
		return custody.Verdict{State: custody.StateBad, Headline: "Nothing delivered",
			Sentence: content.Plural(n, "blob or image was", "blobs or images were") + " refused, and nothing was pushed."}
	}
	return custody.Verdict{State: custody.StateBad, Headline: "Not delivered whole",
		Sentence: content.Plural(n, "blob or image was", "blobs or images were") + " refused, and nothing that names them was pushed; the rest was." + notComplete(r)}
}

// notComplete names the releases that are not complete at the registry.
func notComplete(r *apply.UnpackResult) string {
	var left []string
	for _, rel := range r.Releases {
		if !rel.Complete {
			left = append(left, rel.Tag)
		}
	}
	if len(left) == 0 {
		return ""
	}
	return " Not complete at the registry: " + content.Few(left) + "."
}

// deliveredText says what is at the registry now, and how it came there.
func deliveredText(r *apply.UnpackResult) string {
	text := fmt.Sprintf("Everything that was selected is at the registry: %s pushed, %d were there.",
		content.Plural(r.Pushed.Blobs, "blob was", "blobs were"), r.Mounted.Blobs+r.Present.Blobs+r.Skipped.Blobs)
	if t := r.Presumed; t.Blobs > 0 {
		text += fmt.Sprintf(" No drive carried %s, %s, which the registry was asked for and holds.", content.Plural(t.Blobs, "more blob", "more blobs"), content.SizeText(t.Bytes))
	}
	return text
}
