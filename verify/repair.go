package verify

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle"
	"pannier/store"
)

// RepairOptions says what [Repair] heals, and from where.
type RepairOptions struct {
	Audit  AuditOptions         // how the drive is audited before and after; Releases must be empty
	Repair bundle.RepairOptions // Media, Cache, Progress and Logger are taken from Audit
}

// Repair audits the drive, heals what can be healed, and audits it again: the report is the
// second one's, with the findings of the first that are gone marked as repaired. The drive is
// locked all the while. If the repair stopped half-way, the report says what the drive is like
// now, and the error why.
//
// Errors: those of [Audit] and [bundle.OpenRepair], [layout.ErrNoSpace] and its siblings.
func Repair(ctx context.Context, opts RepairOptions) (*Report, error) {
	if bundle.IsDirectory(opts.Audit.Media) {
		return nil, &bundle.DirectoryError{Dir: opts.Audit.Media} // nothing is ever written there
	}
	ro := opts.Repair
	ro.Media, ro.Cache, ro.Progress, ro.Logger = opts.Audit.Media, opts.Audit.Cache, opts.Audit.Progress, opts.Audit.Logger
	r, err := bundle.OpenRepair(ro)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	before, err := Audit(ctx, opts.Audit)
	if err != nil || len(before.Findings) == 0 && !(ro.Drop && before.Unfinished) {
		return before, err
	}
	healed, failure := r.Heal(ctx, before.bad())
	if ctx.Err() != nil {
		return nil, failure
	}
	after, err := Audit(ctx, opts.Audit)
	if err != nil {
		return nil, errors.Join(failure, err)
	}
	after.compare(before)
	after.explain(healed)
	return after, failure
}

// bad are the blobs that an audit found missing or wrong.
func (r *Report) bad() []digest.Digest {
	var out []digest.Digest
	for _, f := range r.Findings {
		switch f.Kind {
		case KindMissing, KindTruncated, KindCorrupt, KindPartial: // partial where the seal is lost
			if strings.HasPrefix(f.Path, "blobs/sha256/") && f.Digest != "" {
				out = append(out, digest.Digest(f.Digest))
			}
		}
	}
	return out
}

// compare adds the findings of an earlier report that are there no more.
func (r *Report) compare(before *Report) {
	still := map[[2]string]bool{}
	for _, f := range r.Findings {
		still[[2]string{string(f.Kind), f.Path}] = true
	}
	for _, f := range before.Findings {
		if still[[2]string{string(f.Kind), f.Path}] || f.Kind == KindUntrusted {
			continue
		}
		f.Repaired, f.Healable = true, false
		r.Findings = append(r.Findings, f)
	}
	sortFindings(r.Findings)
}

// explain says in the findings why a blob could not be healed.
func (r *Report) explain(healed *bundle.Healed) {
	for i, f := range r.Findings {
		if err := healed.Lost[digest.Digest(f.Digest)]; err != nil && !f.Repaired && !f.Blocked && strings.HasPrefix(f.Path, "blobs/sha256/") {
			r.Findings[i].Detail += "; not healed: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
	}
	if healed.Kept != "" {
		r.Notes = append(r.Notes, "the small files were put right only as far as they could be byte for byte: "+healed.Kept)
	}
	r.Notes = append(r.Notes, healed.Warnings...)
	if healed.Resealed {
		r.Notes = append(r.Notes, "a new generation of the same contents was published and sealed")
	}
}

// judge says of every finding whether a repair would heal it with nothing but the drive
// itself.
func (a *audit) judge(ctx context.Context) {
	r := a.report
	a.mendable = a.b.Mendable(ctx, a.expected, r.bad())
	sealed := a.b.Seal != nil || a.b.Resealable()
	whole := sealed && a.walked != nil && !slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return a.beyond(f)
	})
	for i, f := range r.Findings {
		switch {
		case a.blobFinding(f) || strings.HasPrefix(f.Path, "pannier/partial/") || f.Kind == KindUnsealed || f.Kind == KindUntrusted:
			f.Healable = a.healable(f)
		case f.Kind == KindExtra: // a link in the place of a file or folder of ours, perhaps
			f.Healable = sealed && bundle.SmallFolder(f.Path) || a.b.Restorable(ctx, f.Path, a.walked)
		case !sealed || a.b.Blocked(f.Path):
		case inPrograms(f.Path):
			f.Healable = a.b.Seal != nil && a.restorable(f.Path, whole)
		default:
			f.Healable = !a.beyond(f) && (whole || a.b.Restorable(ctx, f.Path, a.walked))
		}
		r.Findings[i].Healable = f.Healable
		if f.Tool() {
			r.Findings[i].Detail += "; audit --repair --from DRIVE takes it from another drive, pack --verify --with-tool puts it there anew"
		}
		if f.Blocked {
			d := digest.Digest(f.Digest)
			freed := sealed && (a.b.Carries(d) || a.mendable[d])
			r.Findings[i].Freed = freed
			r.Findings[i].Detail += "; pannier removes nothing that may be somebody's: take it away by hand, then "
			if freed {
				r.Findings[i].Detail += "audit --repair heals it with what is on this drive"
			} else {
				r.Findings[i].Detail += "it is healed from elsewhere"
			}
		}
		if f.ByHand() {
			r.Findings[i].Detail += "; pannier removes nothing that is not its own: remove it by hand"
		}
	}
	a.listLost()
}

// restorable judges a client or tool: a client is taken out of the images of its release again,
// and a list of sums is made again; a tool is nowhere else on the drive. whole says that all
// blobs are right or can be healed.
func (a *audit) restorable(name string, whole bool) bool {
	if path.Base(name) == "sha256sum.txt" {
		return a.unlike[name] == nil
	}
	if !strings.HasPrefix(name, "pannier/clients/") {
		return false
	}
	// What could not be compared, because a blob of the image is damaged, can be once it is healed.
	err := a.unlike[name]
	return err == nil || whole && !errors.Is(err, bundle.ErrDamaged)
}

// listLost notes what of the damage only others can heal.
func (a *audit) listLost() {
	var lost []store.Record
	for i, f := range a.report.Findings {
		rec, needed := a.expected[digest.Digest(f.Digest)]
		if !needed || !a.blobFinding(f) || f.Kind == KindPartial || f.Awaited > 0 {
			continue
		}
		a.report.Findings[i].Bytes = rec.Size
		if !f.Healable && !f.Freed {
			lost = append(lost, rec)
		}
	}
	a.report.lost, a.report.nowhere = a.b.Refetch(lost)
}

// beyond reports whether a finding keeps the contents from being sealed again.
func (a *audit) beyond(f Finding) bool {
	switch {
	case f.Kind != KindUnsealed && f.Kind != KindExtra && a.b.Blocked(f.Path): // those two are of folders
		return true
	case f.Path == "index.json" && f.Kind == KindCorrupt && len(f.Images) > 0: // a release that is not what its image says
		return true
	case a.blobFinding(f):
		_, needed := a.expected[digest.Digest(f.Digest)]
		return needed && !a.healable(f)
	}
	return false
}

// blobFinding reports whether f is about what stands, or must stand, in blobs/sha256.
func (a *audit) blobFinding(f Finding) bool {
	return strings.HasPrefix(f.Path, "blobs/sha256/") && f.Kind != KindUntrusted
}

// healable judges a finding that is about one file and nothing else.
func (a *audit) healable(f Finding) bool {
	d := digest.Digest(f.Digest)
	_, needed := a.expected[d]
	_, pending := a.pending[d]
	switch {
	case f.Kind == KindUntrusted:
		return false
	case f.Kind == KindUnsealed:
		return a.b.Resealable()
	case strings.HasPrefix(f.Path, "pannier/partial/"):
		return f.Kind == KindPartial && !pending && !a.b.Interrupted && (a.b.Seal != nil || !needed && a.b.IndexProblem == nil)
	case a.b.Seal == nil && !a.b.Resealable():
		return false
	case a.blobFinding(f) && needed:
		return (a.b.Carries(d) || a.mendable[d]) && !a.b.Blocked(f.Path)
	case a.blobFinding(f) && f.Digest != "": // nobody needs it: it can go
		return !pending && !a.b.Interrupted || a.b.Leftovers
	}
	return false
}

// tellUnfinished says what dropping an unfinished pack would remove.
func (a *audit) tellUnfinished() {
	if a.b.Seal == nil || !a.b.Interrupted && len(a.b.Pending) == 0 {
		return
	}
	a.report.Unfinished = true
	if a.selected != nil {
		a.note("a later pack did not finish: what it has left is no part of %s; the same pack command continues it, and "+
			"if it was given up, audit --repair --drop-unfinished removes what it has left", strings.Join(a.report.Selected, ", "))
		return
	}
	n, bytes, partial := 0, int64(0), 0
	for _, f := range a.report.Findings {
		d := digest.Digest(f.Digest)
		if _, needed := a.expected[d]; needed || f.Digest == "" {
			continue
		}
		switch {
		case strings.HasPrefix(f.Path, "blobs/sha256/"):
			n++
			if size, err := a.l.Stat(d); err == nil {
				bytes += size
			}
		case strings.HasPrefix(f.Path, "pannier/partial/"):
			partial++
		}
	}
	a.note("a pack that did not finish has left %d blobs (%d bytes) and %d partial downloads beside what is sealed; "+
		"if it was given up, audit --repair --drop-unfinished removes them and leaves what is sealed as it is", n, bytes, partial)
}
