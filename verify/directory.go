package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/ocdir"
)

// auditDirectory audits a folder that oc adm release mirror wrote. No seal promises anything
// there: what must be there, its release images say, and what is missing makes it incomplete.
func auditDirectory(ctx context.Context, opts AuditOptions) (*Report, error) {
	d, err := bundle.OpenDirectory(ctx, opts.Media)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	a := &directoryAudit{d: d, audit: &audit{
		opts: opts, b: &bundle.Bundle{Contents: d.Contents}, source: d.Tree, expected: d.Contents.Records,
		report: &Report{Releases: []Release{}, Findings: []Finding{}, Notes: []string{}, Directory: true},
	}}
	if err := a.selection(); err != nil {
		return nil, err
	}
	a.note("oc adm release mirror wrote this folder: there is no seal, and what must be there is what the release images name")
	for _, n := range d.Notes {
		a.note("%s", n)
	}
	if err := a.files(ctx); err != nil {
		return nil, err
	}
	a.absent()
	a.problems()
	if err := a.releases(ctx); err != nil {
		return nil, err
	}
	for _, rel := range a.report.Releases {
		a.payload(ctx, rel.Version+"-"+rel.Arch)
	}
	a.tellSelected()
	a.conclude()
	return a.report, nil
}

// directoryAudit is one audit of a folder that oc wrote.
type directoryAudit struct {
	*audit
	d     *bundle.Directory
	extra int   // whole blobs that no release needs
	bytes int64 // of them
}

// files hashes every file, one of several links to it, and reports those that are no blobs.
func (a *directoryAudit) files(ctx context.Context) error {
	ev := bundle.Event{Phase: bundle.PhaseAudit}
	var todo []ocdir.File
	for _, f := range a.d.Tree.Files() {
		switch {
		case bundle.SystemFile(path.Base(f.Path)):
			a.note("%s: left by an operating system", f.Path)
		case f.Partial:
			a.report.Blobs.Partial++
			a.find(Finding{Kind: KindPartial, Digest: f.Digest.String(), Path: f.Path, Images: a.images(f.Digest),
				Detail: fmt.Sprintf("a download that oc did not finish: %d bytes; oc begins it anew, and pack --adopt fetches it", f.Size)})
		case f.Err != nil && f.Digest == "":
			a.find(Finding{Kind: KindExtra, Path: f.Path, Detail: f.Err.Error()})
		case f.Err != nil:
			a.find(Finding{Kind: KindCorrupt, Digest: f.Digest.String(), Path: f.Path, Images: a.images(f.Digest), Detail: f.Err.Error()})
		case f.Linked:
		default:
			if !f.Again {
				a.report.Blobs.Count++
				a.report.Blobs.Bytes += f.Size
			}
			if a.selected == nil || a.concerns(a.images(f.Digest)) {
				todo = append(todo, f)
				ev.Total += f.Size
				ev.TotalBlobs++
			}
		}
	}
	a.report.Read = len(todo)
	slices.SortStableFunc(todo, func(x, y ocdir.File) int { return int(max(-1, min(1, y.Size-x.Size))) })

	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(a.opts.Jobs)
	for _, f := range todo {
		g.Go(func() error {
			err := a.d.Tree.Verify(gctx, f, func(n int64) {
				mu.Lock()
				ev.Done += n
				e := ev
				mu.Unlock()
				a.opts.Progress(e)
			})
			if gctx.Err() != nil {
				return gctx.Err()
			}
			if gone := a.pulse.Feel(err); gone != nil {
				return fmt.Errorf("%s: %w", a.opts.Media, gone)
			}
			mu.Lock()
			defer mu.Unlock()
			ev.Blobs++
			a.judge(f, err)
			a.opts.Progress(ev)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if a.extra > 0 {
		a.note("%d blobs, %d bytes, are whole and no release here needs them", a.extra, a.bytes)
	}
	return nil
}

// judge says what reading a file has shown.
func (a *directoryAudit) judge(f ocdir.File, err error) {
	want, expected := a.expected[f.Digest]
	finding := Finding{Kind: KindCorrupt, Digest: f.Digest.String(), Path: f.Path, Images: a.images(f.Digest)}
	switch {
	case err == nil && expected && f.Size != want.Size && !a.unread(f.Digest):
		finding.Detail = fmt.Sprintf("it has %d bytes, and what names it says %d", f.Size, want.Size)
	case err == nil && expected:
		return
	case err == nil:
		a.extra++
		a.bytes += f.Size
		return
	case errors.Is(err, content.ErrDigest) && expected && f.Size < want.Size:
		finding.Kind, finding.Detail = KindTruncated, fmt.Sprintf("%d bytes, and it must have %d", f.Size, want.Size)
	case errors.Is(err, content.ErrDigest):
		finding.Detail = "its bytes are not what its name says"
	default:
		finding.Detail = "it cannot be read: " + err.Error()
	}
	a.find(finding)
}

// unread reports whether a manifest could not be read, so that its size is not known.
func (a *directoryAudit) unread(d digest.Digest) bool {
	return slices.ContainsFunc(a.d.Contents.Broken(), func(m bundle.BrokenManifest) bool { return m.Descriptor.Digest == d })
}

// absent reports the blobs that a release needs and that are not there.
func (a *directoryAudit) absent() {
	for d, r := range a.expected {
		if _, err := a.d.Tree.Stat(d); !errors.Is(err, fs.ErrNotExist) || !a.concerns(r.Images) {
			continue
		}
		a.find(Finding{Kind: KindMissing, Digest: d.String(), Path: a.d.Tree.Path(d), Images: r.Images, Detail: "it is not there"})
	}
}

// problems reports what is wrong with tags, signatures and manifests, unless a blob of theirs
// has shown it.
func (a *directoryAudit) problems() {
	for _, p := range a.d.Problems {
		kind := KindCorrupt
		if errors.Is(p.Err, bundle.ErrIncomplete) {
			kind = KindMissing
		}
		a.find(Finding{Kind: kind, Path: p.Path, Detail: p.Err.Error()})
	}
	for _, m := range a.d.Contents.Broken() {
		d := m.Descriptor.Digest.String()
		if !a.concerns([]string{m.Image}) || slices.ContainsFunc(a.report.Findings, func(f Finding) bool { return f.Digest == d }) {
			continue
		}
		a.find(Finding{Kind: KindCorrupt, Digest: d, Path: a.d.Tree.Path(m.Descriptor.Digest), Images: []string{m.Image}, Detail: "what it needs is not known: " + m.Err.Error()})
	}
}

// payload reports what the tags say otherwise than the release image. One that cannot be read
// any more is reported where its blobs are.
func (a *directoryAudit) payload(ctx context.Context, tag string) {
	wrong := a.d.Contents.CheckPayload(ctx, a.d.Tree, tag)
	if ctx.Err() != nil || bundle.Unread(wrong) && len(a.report.Findings) > 0 {
		return
	}
	for _, err := range wrong {
		a.find(Finding{Kind: KindCorrupt, Path: "v2/openshift/release/manifests/" + tag, Images: []string{tag}, Detail: err.Error()})
	}
}

// inspectDirectory says what is in a folder that oc wrote: its release images and manifests
// are read, and no other blob.
func inspectDirectory(ctx context.Context, opts InspectOptions) (*Inspection, error) {
	d, err := bundle.OpenDirectory(ctx, opts.Media)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	out := &Inspection{Releases: []InspectedRelease{}, AdditionalImages: []AdditionalImage{}, Directory: true}
	for _, f := range d.Tree.Files() {
		switch {
		case f.Partial:
			out.Blobs.Partial++
		case f.Err == nil && !f.Again:
			out.Blobs.Count++
			out.Blobs.Bytes += f.Size
		}
	}
	lacking := 0
	for dgst, r := range d.Contents.Records {
		if n, err := d.Tree.Stat(dgst); err != nil || n != r.Size {
			lacking++
		}
	}
	out.Notes = append(out.Notes, "oc adm release mirror wrote this folder; there is no seal")
	if lacking > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d blobs are missing, or have not the size that they must have", lacking))
	}
	for _, p := range d.Problems {
		out.Notes = append(out.Notes, p.Path+": "+p.Err.Error())
	}
	out.Notes = append(out.Notes, d.Notes...)
	out.Lacking = lacking > 0 || len(d.Problems) > 0 || out.Blobs.Partial > 0
	for _, rel := range d.Contents.Releases {
		r, err := inspectRelease(ctx, d.Contents, d.Tree, rel, opts.Signatures)
		if err != nil {
			return nil, err
		}
		out.add(r)
	}
	return out, nil
}

// blobSource is where the blobs of what is audited are read.
func (a *audit) blobSource() bundle.Blobs {
	if a.source != nil {
		return a.source
	}
	return a.l
}

// blobPath is where a blob is, below what is audited.
func (a *audit) blobPath(d digest.Digest) string {
	if t, ok := a.source.(*ocdir.Tree); ok {
		return t.Path(d)
	}
	return layout.BlobPath(d)
}
