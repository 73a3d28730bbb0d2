package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/verify"
	"pannier/verify/custody"
)

// statusWords are the outcomes of an audit.
var statusWords = map[verify.Status]string{
	verify.StatusComplete:   "whole",
	verify.StatusIncomplete: "INCOMPLETE",
	verify.StatusDamaged:    "DAMAGED",
	verify.StatusUntrusted:  "NOT TRUSTED",
}

// verdict is what an audit comes to: what was looked at, in a word how it is, what that means,
// and what to do about it. A command stands at the end of its step, where it can be copied.
type verdict struct {
	subject string
	word    string
	meaning string
	steps   []string // empty if there is nothing to do
	doubt   string   // why nobody vouches for what is whole; "" of all else
}

func (v *verdict) step(format string, args ...any) {
	v.steps = append(v.steps, fmt.Sprintf(format, args...))
}

// auditVerdict puts the outcome of an audit of media into words. trust are the flags that an
// audit of it needs, onDrive the key files among them that travel on the drive.
func auditVerdict(media string, trust, onDrive []string, r *verify.Report) verdict {
	v := verdict{subject: media, word: statusWords[r.Status]}
	if r.Selected != nil {
		v.subject = strings.Join(r.Selected, ", ") + " on " + media
	}
	t := tallyFindings(media, r)
	t.repair = append([]string{"pannier", "audit", "--repair", media}, trust...)
	switch r.Status {
	case verify.StatusComplete:
		v.meaning = everyBlob(r) + vouched(r)
		if by := vouchedByDrive(r, onDrive); by != "" {
			v.doubt = "Whole, but nobody vouches for it"
			v.meaning = everyBlob(r) + ". But the key " + by + " that its releases are signed with came from the drive itself: that proves nothing of who signed them." + besideReleases(r)
			v.step("Audit again with a key that came another way: %s", commandLine("pannier", "audit", media, "--keyring", "FILE"))
		}
		custodyStep(r, &v)
		return v
	case verify.StatusIncomplete:
		t.incomplete(r, &v)
	case verify.StatusUntrusted:
		t.untrusted(r, &v)
	default:
		t.damaged(r, &v)
	}
	if len(t.byHand) > 0 {
		v.step("Look at what does not belong there, and remove it by hand: %s", pathsText(t.byHand))
	}
	return v
}

// vouchedByDrive names the key file on the drive that alone makes a release of the report a signed
// one; "" if there is none.
func vouchedByDrive(r *verify.Report, onDrive []string) string {
	for _, rel := range r.Releases {
		for _, name := range onDrive {
			if rel.Signature == bundle.SignatureVerified && rel.KeySource == name {
				return printable(name)
			}
		}
	}
	return ""
}

// custodyStep says whom to ask where the custody log, or what was attached, is not as it should
// be, and nobody asked for trusted signers.
func custodyStep(r *verify.Report, v *verdict) {
	if r.CustodyWrong > 0 {
		v.step("Ask those who had the drive in hand about its custody log and what is attached to it: %s wrong with that, and the notes say what. What was sealed does not depend on it.",
			content.Plural(r.CustodyWrong, "thing is", "things are"))
	}
}

// everyBlob says what was read and is right.
func everyBlob(r *verify.Report) string {
	if r.Selected != nil {
		return fmt.Sprintf("%d of %d blobs and manifests were read; the rest of it was not looked at. Every blob that was read is what its digest says", r.Read, r.Blobs.Count)
	}
	return "Every blob is what its digest says"
}

// tally counts the findings that are left.
type tally struct {
	findings int // but those about trust
	healable int // with what is on the drive
	tools    int // programs, which only another drive or pack heals
	gone     int // those of them that are not there at all
	unsigned int // releases for which nobody vouches
	sealLost bool
	byHand   []string // what only a person removes
	blocking []string // folders in the place of blobs, which a person takes away first
	freed    int      // how many of those blobs can be healed then with what is on the drive
	unlike   int      // files that nothing is known of, which are no findings

	repair []string // the command that heals
}

func tallyFindings(media string, r *verify.Report) tally {
	t := tally{unlike: r.Uncompared}
	for _, f := range r.Findings {
		if f.Repaired {
			continue
		}
		if f.Kind == verify.KindUntrusted {
			if f.Path != custody.LogName && !strings.HasPrefix(f.Path, custody.Folder+"/") {
				t.unsigned++
			}
			continue
		}
		t.findings++
		switch {
		case f.Blocked:
			t.blocking = append(t.blocking, filepath.Join(media, filepath.FromSlash(f.Path)))
			if f.Freed {
				t.freed++
			}
		case f.Healable:
			t.healable++
			t.sealLost = t.sealLost || f.Kind == verify.KindUnsealed
		case f.Tool():
			t.tools++
			if f.Kind == verify.KindMissing {
				t.gone++
			}
		case f.ByHand():
			t.byHand = append(t.byHand, filepath.Join(media, filepath.FromSlash(f.Path)))
		}
	}
	return t
}

// pathsText names the first few of what a person looks at; the findings have all.
func pathsText(paths []string) string {
	const shown = 3
	text := printable(strings.Join(paths[:min(len(paths), shown)], ", "))
	if n := len(paths) - shown; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

func (t tally) incomplete(r *verify.Report, v *verdict) {
	switch {
	case r.Directory:
		v.meaning = "oc adm release mirror has not finished, or not all of it was copied."
		v.step("Run it again, or take the folder over, which fetches what is missing: pannier pack RELEASE MEDIA --adopt DIR")
	case t.sealLost && t.healable == t.findings:
		v.meaning = "The seal is lost, and all that it covered is here or can be healed here."
		v.step("This puts it back: %s", commandLine(t.repair...))
	case t.sealLost:
		v.meaning = "The seal is lost, and so is something that it covered."
		t.heal(v)
	default:
		v.meaning = "Packing has not finished."
		v.step("Run the same pack command again on the internet side: it continues.")
		if t.healable > 0 {
			v.step("Of the findings %d can be healed here: %s", t.healable, commandLine(t.repair...))
		}
		if r.Unfinished && r.Selected == nil {
			v.step("If it was given up, this removes what it has left beside what is sealed, which stays as it is: %s", commandLine(append(t.repair, "--drop-unfinished")...))
		}
	}
}

func (t tally) untrusted(r *verify.Report, v *verdict) {
	if t.unsigned > 0 {
		v.step("A key of your own is given with --keyring FILE, a signature that the drive lacks with --signature-store DIR.")
	} else {
		v.step("Ask those who had the drive in hand about what the findings say of its custody log.")
	}
	switch {
	case t.findings > 0:
		t.incomplete(r, v)
		v.meaning = fmt.Sprintf("Nobody trusted vouches for it, and it is not whole either: %d of the findings are of what is missing or not finished. %s", t.findings, v.meaning)
	case t.unsigned == 0:
		v.meaning = everyBlob(r) + vouched(r) + " But nobody whom --trusted-signers names vouches for the whole custody log."
	default:
		v.meaning = everyBlob(r) + ", but nobody trusted vouches for all of it."
		if r.Directory {
			v.step("On the internet side this takes the folder over, and fetches the signature: pannier pack RELEASE MEDIA --adopt DIR")
		}
	}
}

func (t tally) damaged(r *verify.Report, v *verdict) {
	switch {
	case t.findings == len(t.byHand):
		v.meaning = "What is pannier's own is whole, but something stands beside it that does not belong there and that no program removes."
	case r.Directory:
		v.meaning = "Do not rely on this folder."
		v.step("Try another port or reader; then take it over on the internet side, where only what is bad is fetched: pannier pack RELEASE MEDIA --adopt DIR")
	default:
		v.meaning = "Do not rely on this drive."
		v.step("Try another port or reader first.")
		t.heal(v)
	}
}

// heal says how what is damaged is healed: with what is on the drive, or from elsewhere.
func (t tally) heal(v *verdict) {
	toHeal, healable := t.findings-len(t.byHand), t.healable+t.freed
	rest := toHeal - healable - t.tools
	if len(t.blocking) > 0 {
		v.step("First look at the folder that stands where a blob belongs, and take it away by hand: %s", pathsText(t.blocking))
	}
	if t.unlike > 0 {
		v.step("Whether %s beside the blobs as sealed is not known, since no good list of sums is left: run no program from this drive. A copy of the drive has the list: %s --from COPY",
			content.Plural(t.unlike, "file is", "files are"), commandLine(t.repair...))
	}
	it := "The damage"
	switch {
	case healable == 0:
	case healable == t.findings && t.unlike > 0:
		v.step("Without a copy, what was found can be healed with what is on the drive, which then goes without such programs: %s", commandLine(t.repair...))
	case healable == t.findings:
		v.step("All of it can be healed with what is on the drive: %s", commandLine(t.repair...))
	case healable == toHeal:
		v.step("All but what does not belong there can be healed with what is on the drive: %s", commandLine(t.repair...))
	default:
		it = "The rest"
		v.step("Of the findings %d can be healed with what is on the drive: %s", healable, commandLine(t.repair...))
	}
	if rest > 0 {
		v.step("%s is healed from another drive, a supplement (--refetch-list FILE asks for one) or a REGISTRY/REPO: %s --from OTHER", it, commandLine(t.repair...))
		v.step("Or pack again with --verify on the internet side: only what is bad is fetched.")
	}
	t.program(v)
}

// program says what to do about the program on the drive.
func (t tally) program(v *verdict) {
	switch {
	case t.tools == 0:
		return
	case t.gone == t.tools:
		v.step("The program that was sealed is not on the drive any more. Another drive that has it heals it: %s --from DRIVE", commandLine(t.repair...))
	default:
		v.step("Do not run the program that is on the drive: it is not the one that was sealed. Another drive that has it heals it: %s --from DRIVE", commandLine(t.repair...))
	}
	v.step("Or put it there anew on the internet side, with pack --verify --with-tool.")
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
	return text + besideReleases(r)
}

// besideReleases says what on a whole drive no signature of a release covers.
func besideReleases(r *verify.Report) (text string) {
	if p := r.Presumes; p != nil {
		text += fmt.Sprintf(" It is not all that its images need: %s, %s, presumed at %s, and unpack proves first what is there.", content.Plural(p.Blobs, "blob", "blobs"), content.SizeText(p.Bytes), strings.Join(p.At, ", "))
	}
	if r.Additional > 0 {
		text += fmt.Sprintf(" No signature is checked for additional images, of which there are %d.", r.Additional)
	}
	return text
}

// countText counts findings, those that were repaired apart.
func countText(findings []verify.Finding) string {
	repaired := 0
	for _, f := range findings {
		if f.Repaired {
			repaired++
		}
	}
	text := content.Plural(len(findings)-repaired, "finding", "findings")
	if repaired > 0 {
		text += fmt.Sprintf(", and %d repaired", repaired)
	}
	return text
}
