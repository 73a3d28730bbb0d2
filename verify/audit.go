// Package verify proves a drive whole, or says exactly what is not.
//
// An audit looks at every file, goes on after every finding, and never writes to the drive.
// It trusts nothing that the drive says of itself without checking: digests accept blobs, the
// seal accepts the small files, and keys that do not come from the drive accept releases.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/layout"
	"pannier/bundle/remote"
	"pannier/store"
	"pannier/verify/custody"
)

// AuditOptions says what [Audit] looks at. Media must be set.
type AuditOptions struct {
	Media      string
	Releases   []string                 // only these, "4.8.21" or "4.8.21-x86_64"; nil means all
	Signatures bundle.SignatureVerifier // nil finds every signature unverified
	Policy     bundle.Policy
	Client     *remote.Client // asks Stores for signatures that the drive lacks; nil asks nobody
	Stores     []string
	Signers    *custody.Signers // if given, the custody log must be signed by one of them
	Beside     []byte           // the custody log beside the drive, if there is one; it is looked at too
	Jobs       int              // parallel readers; 0 means one for each processor, at most 4
	Cache      string           // folder on the local disk for a copy of the index; must be given
	Progress   bundle.ProgressFunc
	Logger     *slog.Logger
}

// Audit reads the whole drive and reports. It never stops at a finding and never writes to
// the drive; it returns an error only if it could not look: [bundle.ErrNotBundle],
// [bundle.ErrVersion], [bundle.ErrNoRelease], [layout.ErrGone], or ctx's error.
func Audit(ctx context.Context, opts AuditOptions) (*Report, error) {
	if opts.Jobs <= 0 {
		opts.Jobs = min(4, runtime.GOMAXPROCS(0))
	}
	if opts.Progress == nil {
		opts.Progress = func(bundle.Event) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if bundle.IsDirectory(opts.Media) {
		return auditDirectory(ctx, opts)
	}
	b, err := bundle.Open(ctx, opts.Media, bundle.OpenOptions{Cache: opts.Cache, Logger: opts.Logger})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	a := &audit{opts: opts, b: b, l: b.Layout, unlike: map[string]error{}, report: &Report{Releases: []Release{}, Findings: []Finding{}, Notes: []string{}}}
	if err := a.expect(ctx); err != nil {
		return nil, err
	}
	if a.b.Seal != nil {
		a.report.Sealed, a.report.Bundle = true, a.b.Seal.Bundle.String()
	}
	a.sealing()
	if err := a.blobs(ctx); err != nil {
		return nil, err
	}
	a.manifests()
	if err := a.files(ctx); err != nil {
		return nil, err
	}
	a.compareIndex()
	if err := a.releases(ctx); err != nil {
		return nil, err
	}
	a.custody()
	if len(a.report.Findings) > 0 {
		if err := a.l.Gone(); err != nil {
			return nil, err // what was found is that
		}
	}
	a.tellUnfinished()
	a.passOver()
	a.judge(ctx)
	a.tellSelected()
	a.conclude()
	return a.report, ctx.Err()
}

// audit is one run of Audit.
type audit struct {
	opts   AuditOptions
	b      *bundle.Bundle
	l      *layout.Layout
	report *Report
	source bundle.Blobs // of a folder that oc wrote, which has no layout; else nil

	pulse    layout.Pulse
	walked   *bundle.Contents               // what the layout itself says; nil without layout index
	expected map[digest.Digest]store.Record // blobs that must be there
	pending  map[digest.Digest]store.Record // blobs of what is not sealed yet
	mendable map[digest.Digest]bool         // damaged blobs that parity can heal
	unlike   map[string]error               // clients that are not those of the release, or could not be compared, by path
	selected map[string]bool                // tags that --release leaves in; nil means all
}

func (a *audit) find(f Finding) { a.report.Findings = append(a.report.Findings, f) }

func (a *audit) note(format string, args ...any) {
	a.report.Notes = append(a.report.Notes, fmt.Sprintf(format, args...))
}

// expect works out which blobs must be there: those that the layout index reaches, and those
// that the bbolt index says, which knows what a damaged manifest hides.
func (a *audit) expect(ctx context.Context) error {
	a.pending = map[digest.Digest]store.Record{}
	if a.b.Index != nil {
		var err error
		if a.walked, err = bundle.ContentsFromLayout(ctx, a.l, a.b.Index); err != nil {
			return err
		}
	}
	a.expected = a.b.Expected(a.walked)
	if a.b.Seal != nil {
		for d, r := range a.b.Pending {
			if _, ok := a.expected[d]; !ok {
				a.pending[d] = r
			}
		}
	}
	return a.selection()
}

// selection narrows the audit to the releases that were asked for.
func (a *audit) selection() error {
	if len(a.opts.Releases) == 0 {
		return nil
	}
	tags, err := a.b.Contents.Select(a.opts.Releases)
	if err != nil {
		return err
	}
	a.selected, a.report.Selected = map[string]bool{}, tags
	for _, img := range a.b.Contents.Images {
		// A sigstore image may sign what several releases have.
		if slices.Contains(tags, img.Release) || img.Kind == store.KindSignature {
			a.selected[img.Tag] = true
		}
	}
	return nil
}

// passOver leaves out of the findings what a pack that did not finish has left: the releases
// that were asked for are sealed, and no part of it. It is noted, see tellUnfinished.
func (a *audit) passOver() {
	if a.selected == nil || a.b.Seal == nil {
		return
	}
	a.report.Findings = slices.DeleteFunc(a.report.Findings, func(f Finding) bool {
		return f.Kind == KindPartial || f.Kind == KindUnsealed
	})
}

// tellSelected notes that not all of the drive was looked at.
func (a *audit) tellSelected() {
	if a.selected != nil {
		a.note("only %s was looked at: %d of %d blobs and manifests were read, and nothing is said of the rest",
			strings.Join(a.report.Selected, ", "), a.report.Read, a.report.Blobs.Count)
	}
}

// concerns reports whether what the images named need is part of this audit.
func (a *audit) concerns(images []string) bool {
	if a.selected == nil {
		return true
	}
	return slices.ContainsFunc(images, func(t string) bool { return a.selected[t] })
}

// sealing reports on the seal: whether there is one, and on those that are not valid.
func (a *audit) sealing() {
	for _, p := range a.b.SealProblems {
		kind := KindCorrupt
		if p.Path == ocispec.ImageIndexFile && !errors.Is(p.Err, bundle.ErrDamaged) { // no seal vouches for it: pack writes it again
			kind = KindPartial
		}
		a.find(Finding{Kind: kind, Path: p.Path, Detail: p.Err.Error()})
	}
	if a.b.Seal == nil {
		detail := "there is no valid seal: pack has not finished; the same pack command continues"
		if a.b.Resealable() {
			detail = "there is no valid seal, but what it covered is known: audit --repair puts it back once all of that is proved"
		}
		a.find(Finding{Kind: KindUnsealed, Path: "pannier", Detail: detail})
		return
	}
	if a.walked != nil {
		for _, wrong := range a.b.Seal.Differences(a.b.Index, a.walked) {
			a.find(Finding{Kind: KindCorrupt, Path: a.b.SealPath(), Detail: wrong})
		}
	}
	if a.b.Interrupted {
		a.find(Finding{Kind: KindUnsealed, Path: "pannier", Detail: "a later pack onto this sealed drive did not finish; what was sealed before is judged by its own seal, and the same pack command continues"})
	}
}

// manifests reports the manifests that could not be read for another reason than their bytes,
// which have been hashed by now: what lies below them was not looked at.
func (a *audit) manifests() {
	if a.walked == nil {
		return
	}
	for _, m := range a.walked.Broken() {
		d := m.Descriptor.Digest.String()
		if m.Image != "" && !a.concerns([]string{m.Image}) {
			continue
		}
		if slices.ContainsFunc(a.report.Findings, func(f Finding) bool { return f.Digest == d }) {
			continue
		}
		f := Finding{Kind: KindCorrupt, Digest: d, Path: "index.json", Detail: "what it needs is not known: " + m.Err.Error()}
		if m.Image != "" {
			f.Images = []string{m.Image}
		}
		if a.b.Seal == nil {
			f.Kind = KindPartial
		}
		a.find(f)
	}
}

// compareIndex compares the bbolt index with what the layout says: both must name the same
// images, blobs and documents.
func (a *audit) compareIndex() {
	switch {
	case a.b.Seal == nil && errors.Is(a.b.IndexProblem, fs.ErrNotExist):
		return // a pack that has hardly begun
	case errors.Is(a.b.IndexProblem, store.ErrByteOrder):
		a.note("the index was written on a machine of the other byte order; the layout was read instead, and says the same")
		return
	}
	if a.b.IndexProblem != nil {
		detail := "the index cannot be used: " + a.b.IndexProblem.Error()
		if a.walked != nil {
			detail += "; the layout was read instead"
		}
		if a.b.Seal == nil { // a pack that was interrupted early leaves none, or half of one
			a.note("%s: %s", a.b.IndexPath(), detail)
			return
		}
		a.find(Finding{Kind: KindIndex, Path: a.b.IndexPath(), Detail: detail})
		return
	}
	if a.walked == nil || a.b.Seal == nil || len(a.walked.Broken()) > 0 {
		return // what is missing in one of them is reported already
	}
	for _, d := range a.b.Contents.Differences(a.walked) {
		a.find(Finding{Kind: KindIndex, Path: a.b.IndexPath(), Detail: d})
	}
}

// conclude sums up: damaged wins over untrusted over incomplete.
func (a *audit) conclude() {
	sortFindings(a.report.Findings)
	rank := map[Status]int{StatusComplete: 0, StatusIncomplete: 1, StatusUntrusted: 2, StatusDamaged: 3}
	status := StatusComplete
	for _, f := range a.report.Findings {
		if f.Repaired {
			continue
		}
		s := StatusDamaged
		switch f.Kind {
		case KindPartial, KindUnsealed:
			s = StatusIncomplete
		case KindUntrusted:
			s = StatusUntrusted
		case KindMissing:
			if a.b.Seal == nil {
				s = StatusIncomplete
			}
		}
		if rank[s] > rank[status] {
			status = s
		}
	}
	a.report.Status = status
}

func sortFindings(all []Finding) {
	slices.SortStableFunc(all, func(x, y Finding) int {
		if c := strings.Compare(x.Path, y.Path); c != 0 {
			return c
		}
		return strings.Compare(string(x.Kind), string(y.Kind))
	})
}
