package verify

import (
	"fmt"
	"path"
	"strings"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/verify/custody"
)

// Status is the outcome of an audit. Of several, damaged wins over untrusted over incomplete.
type Status string

const (
	StatusComplete   Status = "complete"
	StatusIncomplete Status = "incomplete"
	StatusDamaged    Status = "damaged"
	StatusUntrusted  Status = "untrusted"
)

// Kind says what is wrong in a [Finding].
type Kind string

const (
	KindMissing   Kind = "missing"   // a blob or file that is named is not there
	KindTruncated Kind = "truncated" // it is there, and shorter than it must be
	KindCorrupt   Kind = "corrupt"   // its bytes are not what its digest says, or there are more of them
	KindPartial   Kind = "partial"   // a download in progress
	KindExtra     Kind = "extra"     // a file that does not belong
	KindUnsealed  Kind = "unsealed"  // packing has not finished
	KindUntrusted Kind = "untrusted" // a release that nobody trusted signed
	KindIndex     Kind = "index"     // the index or the layout index contradicts the rest
)

// Finding is one thing that is wrong on the drive.
type Finding struct {
	Kind     Kind     `json:"kind"`
	Digest   string   `json:"digest,omitempty"`
	Path     string   `json:"path"`             // below MEDIA, with slashes
	Images   []string `json:"images,omitempty"` // tags of the images that need it
	Detail   string   `json:"detail"`
	Repaired bool     `json:"repaired"`
	Healable bool     `json:"healable"`        // by a repair with nothing but this drive
	Bytes    int64    `json:"bytes,omitempty"` // size of a blob that is damaged, as it should be

	// Awaited is the size of a blob that pack has not fetched yet; 0 of any other finding.
	Awaited int64 `json:"-"`

	// Blocked says that a folder that is not empty stands where a blob belongs. What is in it may
	// be somebody's: a person takes it away. Freed says that a repair heals the blob then, with
	// nothing but this drive.
	Blocked bool `json:"-"`
	Freed   bool `json:"-"`
}

// ByHand reports whether a finding is a file that only a person removes: nobody knows whose
// it is.
func (f *Finding) ByHand() bool { return f.Kind == KindExtra && !f.Healable && !f.Repaired }

// Tool reports whether a finding is about the program on the drive, which is nowhere else on
// it: another drive or pack heals it.
func (f *Finding) Tool() bool {
	return strings.HasPrefix(f.Path, "pannier/bin/") && path.Base(f.Path) != "sha256sum.txt" && f.Kind != KindExtra && !f.Healable && !f.Repaired
}

// Blobs counts the files in blobs/sha256, manifests included.
type Blobs struct {
	Count   int   `json:"count"`
	Bytes   int64 `json:"bytes"`
	Partial int   `json:"partial"`
}

// Release is one release on the drive. Images counts its component images.
type Release struct {
	Version   string `json:"version"`
	Arch      string `json:"arch"`
	Digest    string `json:"digest"`
	Images    int    `json:"images"`
	Signature string `json:"signature"`

	Key         string `json:"key,omitempty"`         // whose signature it is, if it is verified
	Fingerprint string `json:"fingerprint,omitempty"` // of that key
	KeySource   string `json:"-"`                     // the file or manifest that the key was read from
}

// Presumption is what images of a drive need and the drive does not hold, since the registry
// that it was packed for is said to.
type Presumption struct {
	bundle.Totals
	At []string `json:"at"` // REGISTRY/REPO
}

func (p *Presumption) String() string {
	return fmt.Sprintf("presumes %s, %s, at %s, which are not on the drive; unpack proves first what is there", content.Plural(p.Blobs, "blob", "blobs"), content.SizeText(p.Bytes), strings.Join(p.At, ", "))
}

// presumption is nil of contents that presume nothing.
func presumption(c *bundle.Contents) *Presumption {
	if len(c.Presumed) == 0 {
		return nil
	}
	return &Presumption{Totals: c.PresumedTotals(), At: c.PresumedAt()}
}

// Report is what an audit found; its JSON form is part of the command line's contract.
type Report struct {
	Status   Status    `json:"status"`
	Blobs    Blobs     `json:"blobs"`
	Releases []Release `json:"releases"`
	Findings []Finding `json:"findings"`
	Notes    []string  `json:"notes"`

	// Directory says that oc adm release mirror wrote what was audited.
	Directory bool `json:"-"`

	Custody *custody.State `json:"custody,omitempty"` // what the custody log tells
	Beside  *custody.State `json:"beside,omitempty"`  // what the custody log beside the drive tells

	Presumes *Presumption `json:"presumes,omitempty"` // what the drive does not hold, since a registry does

	// Additional counts the images of no release, for which no signature is checked.
	Additional int `json:"-"`

	// Selected are the tags of the releases that alone were looked at; nil means the whole
	// drive. Read counts the blobs and manifests that were hashed for them.
	Selected []string `json:"-"`
	Read     int      `json:"-"`

	// Uncompared counts the files that nothing is known of, since no good list of sums is left.
	Uncompared int `json:"-"`

	lost    *bundle.RefetchList // what cannot be healed here, for the internet side
	nowhere int                 // blobs among that which no registry has

	custodyNotes [2]int // where in Notes those of the custody logs begin and end

	// Sealed says that a seal vouches for what is there; Unfinished, that a later pack which did
	// not finish has left something beside that.
	Sealed     bool `json:"-"`
	Unfinished bool `json:"-"`

	// Bundle is the id of what is sealed; "" without a seal.
	Bundle string `json:"-"`

	// CustodyWrong counts what is wrong with the custody logs and with what was attached, where
	// that is told in notes.
	CustodyWrong int `json:"-"`
}

// Refetch lists the damaged blobs that cannot be healed with what is on the drive, for the
// internet side. Captured documents, which no registry has, are left out and counted: packing
// their release again restores them.
func (r *Report) Refetch() (list *bundle.RefetchList, without int) { return r.lost, r.nowhere }
