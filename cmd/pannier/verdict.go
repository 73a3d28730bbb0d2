package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/verify"
)

// statusWords are the outcomes of an audit.
var statusWords = map[verify.Status]string{
	verify.StatusComplete:   "whole",
	verify.StatusIncomplete: "INCOMPLETE",
	verify.StatusDamaged:    "DAMAGED",
	verify.StatusUntrusted:  "NOT TRUSTED",
}

// fromElsewhere is how that is healed for which the drive itself is not enough.
const fromElsewhere = "from another drive, a supplement (--refetch-list) or a registry with --from; or pack again with --verify on the internet side: only what is bad is fetched."

// verdict is what an audit comes to: what was looked at, in a word how it is, what that means,
// and what to do about it.
type verdict struct {
	subject string
	word    string
	meaning string
	remedy  string // "" if there is nothing to do
}

func (v verdict) sentence() string { return strings.TrimSpace(v.meaning + " " + v.remedy) }

// auditVerdict puts the outcome of an audit of media into words. trust are the flags that an
// audit of it needs.
func auditVerdict(media string, trust []string, r *verify.Report) verdict {
	v := verdict{subject: media, word: statusWords[r.Status]}
	if r.Selected != nil {
		v.subject = strings.Join(r.Selected, ", ") + " on " + media
	}
	left := tallyFindings(media, r)
	repair := commandLine(append([]string{"pannier", "audit", "--repair", media}, trust...)...)
	switch r.Status {
	case verify.StatusComplete:
		v.meaning = "Every blob is what its digest says" + vouched(r)
		if r.Selected != nil {
			v.meaning = fmt.Sprintf("%d of %d blobs and manifests were read; the rest of it was not looked at. Every blob that was read is what its digest says", r.Read, r.Blobs.Count) + vouched(r)
		}
	case verify.StatusIncomplete:
		v.meaning, v.remedy = left.incomplete(r, repair)
	case verify.StatusUntrusted:
		v.meaning, v.remedy = left.untrusted(r, repair)
	default:
		v.meaning, v.remedy = left.damaged(r, repair)
	}
	if len(left.byHand) > 0 && r.Status != verify.StatusComplete {
		v.remedy = strings.TrimSpace(v.remedy + " Remove by hand: " + left.byHandText())
	}
	return v
}

// tally counts the findings that are left.
type tally struct {
	findings int // but those about trust
	healable int // with what is on the drive
	sealLost bool
	byHand   []string // what only a person removes
}

func tallyFindings(media string, r *verify.Report) tally {
	var t tally
	for _, f := range r.Findings {
		if f.Repaired || f.Kind == verify.KindUntrusted {
			continue
		}
		t.findings++
		switch {
		case f.Healable:
			t.healable++
			t.sealLost = t.sealLost || f.Kind == verify.KindUnsealed
		case f.ByHand():
			t.byHand = append(t.byHand, filepath.Join(media, filepath.FromSlash(f.Path)))
		}
	}
	return t
}

// byHandText names the first few of what a person removes; the findings have all.
func (t tally) byHandText() string {
	const shown = 3
	text := printable(strings.Join(t.byHand[:min(len(t.byHand), shown)], ", "))
	if n := len(t.byHand) - shown; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

func (t tally) incomplete(r *verify.Report, repair string) (meaning, remedy string) {
	switch {
	case r.Directory:
		return "oc adm release mirror has not finished, or not all of it was copied.",
			"Run it again, or take the folder over with pannier pack RELEASE MEDIA --adopt DIR, which fetches what is missing."
	case t.sealLost && t.healable == t.findings:
		return "The seal is lost, and all that it covered is here or can be healed here.", "This puts it back: " + repair
	case t.sealLost:
		return "The seal is lost, and so is something that it covered.",
			fmt.Sprintf("%d of the findings can be healed with what is on the drive: %s. The rest is healed by the same command %s", t.healable, repair, fromElsewhere)
	}
	remedy = "Run the same pack command again on the internet side: it continues."
	if t.healable > 0 {
		remedy += fmt.Sprintf(" Of the findings %d can be healed here: %s", t.healable, repair)
	}
	return "Packing has not finished.", remedy
}

func (t tally) untrusted(r *verify.Report, repair string) (meaning, remedy string) {
	meaning = "The bytes may be whole, but nobody trusted vouches for them."
	remedy = "A key of your own is given with --keyring FILE, a signature that the drive lacks with --signature-store DIR."
	if t.findings > 0 {
		lacking, todo := t.incomplete(r, repair)
		meaning = fmt.Sprintf("Nobody trusted vouches for it, and it is not whole either: %d of the findings are of what is missing or not finished. %s", t.findings, lacking)
		remedy += " " + todo
	} else if r.Directory {
		remedy += " On the internet side pannier pack RELEASE MEDIA --adopt DIR takes the folder over and fetches it."
	}
	return meaning, remedy
}

func (t tally) damaged(r *verify.Report, repair string) (meaning, remedy string) {
	toHeal := t.findings - len(t.byHand)
	switch {
	case toHeal == 0:
		return "What is pannier's own is whole, but something stands beside it that does not belong there and that no program removes.", ""
	case r.Directory:
		return "Do not rely on this folder.", "Try another port or reader; then take it over with pannier pack RELEASE MEDIA --adopt DIR on the internet side: only what is bad is fetched."
	}
	meaning, remedy = "Do not rely on this drive.", "Try another port or reader first."
	switch {
	case t.healable == toHeal:
		remedy += " All of it can be healed with what is on the drive: " + repair
	case t.healable > 0:
		remedy += fmt.Sprintf(" %d of the findings can be healed with what is on the drive: %s. The rest is healed by the same command %s", t.healable, repair, fromElsewhere)
	default:
		remedy += " Then " + repair + " heals it " + fromElsewhere
	}
	return meaning, remedy
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
	if p := r.Presumes; p != nil {
		text += fmt.Sprintf(" It is not all that its images need: %d blobs, %s, are presumed at %s, and unpack proves first that they are there.", p.Blobs, content.SizeText(p.Bytes), strings.Join(p.At, ", "))
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
	text := fmt.Sprintf("%d findings", len(findings)-repaired)
	if len(findings)-repaired == 1 {
		text = "1 finding"
	}
	if repaired > 0 {
		text += fmt.Sprintf(", and %d repaired", repaired)
	}
	return text
}
