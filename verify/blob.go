package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/store"
)

// blobs hashes every file in blobs/sha256 and compares what is there with what must be.
func (a *audit) blobs(ctx context.Context) error {
	files, err := a.l.Blobs()
	if err != nil {
		a.find(Finding{Kind: KindCorrupt, Path: "blobs/sha256", Detail: err.Error()})
	}
	ev := bundle.Event{Phase: bundle.PhaseAudit}
	there := map[digest.Digest]bool{}
	var todo []layout.BlobFile
	for _, f := range files {
		if a.dropping("blobs/sha256/" + f.Name) {
			continue
		}
		a.report.Blobs.Count++
		a.report.Blobs.Bytes += f.Size
		if _, expected := a.expected[f.Digest]; expected && !f.Regular {
			there[f.Digest] = true
			a.inPlace(f)
			continue
		}
		if f.Digest == "" || !f.Regular {
			a.find(Finding{Kind: KindExtra, Path: "blobs/sha256/" + f.Name, Detail: "this is no blob of the bundle"})
			continue
		}
		there[f.Digest] = true
		if a.selected != nil && !a.concerns(a.images(f.Digest)) {
			continue
		}
		todo = append(todo, f)
		ev.Total += f.Size
		ev.TotalBlobs++
	}
	a.report.Read = len(todo)
	slices.SortStableFunc(todo, func(x, y layout.BlobFile) int { return int(max(-1, min(1, y.Size-x.Size))) })

	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(a.opts.Jobs)
	for _, f := range todo {
		g.Go(func() error {
			finding, err := a.blob(gctx, f, func(n int64) {
				mu.Lock()
				ev.Done += n
				e := ev
				mu.Unlock()
				a.opts.Progress(e)
			})
			if gctx.Err() != nil {
				return gctx.Err()
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			ev.Blobs++
			if finding != nil {
				a.find(*finding)
			}
			a.opts.Progress(ev)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	a.absent(there)
	return a.partials()
}

// inPlace reports what stands in the place of a blob and is no file. A link, a special file or
// an empty folder is no use to anybody there, and whatever writes the blob replaces it; what a
// folder holds may be somebody's.
func (a *audit) inPlace(f layout.BlobFile) {
	if images := a.images(f.Digest); a.concerns(images) {
		finding := Finding{Kind: KindCorrupt, Digest: f.Digest.String(), Path: layout.BlobPath(f.Digest), Images: images,
			Detail: "a link, a special file or an empty folder stands in its place, which gives way to it when it is put back"}
		if a.b.Blocked(finding.Path) {
			finding.Blocked = true
			finding.Detail = "a folder that is not empty stands in its place"
		}
		a.find(finding)
	}
}

// blob hashes one file in blobs/sha256. It returns an error only if the drive is gone.
func (a *audit) blob(ctx context.Context, f layout.BlobFile, progress func(int64)) (*Finding, error) {
	path := layout.BlobPath(f.Digest)
	want, expected := a.expected[f.Digest]
	pending, isPending := a.pending[f.Digest]
	finding := &Finding{Digest: f.Digest.String(), Path: path, Images: a.images(f.Digest)}
	covered := expected && a.b.Seal != nil
	if expected && f.Size != want.Size {
		finding.Kind = KindCorrupt // longer than it must be
		if f.Size < want.Size {
			finding.Kind = KindTruncated
		}
		finding.Detail = fmt.Sprintf("%d bytes, and it must have %d", f.Size, want.Size)
		return a.excuse(finding, covered), nil
	}
	_, err := a.l.Verify(ctx, ocispec.Descriptor{Digest: f.Digest, Size: f.Size}, progress)
	if gone := a.pulse.Feel(err); gone != nil {
		return nil, fmt.Errorf("%s: %w", a.opts.Media, gone)
	}
	switch {
	case err != nil && errors.Is(err, content.ErrDigest) && !expected && !isPending && !a.unfinished():
		finding.Kind, finding.Detail = KindExtra, "no image on the drive needs it, and its bytes are not what its name says; it can be removed"
		return finding, nil
	case err != nil && errors.Is(err, content.ErrDigest):
		finding.Kind, finding.Detail = KindCorrupt, "its bytes are not what its digest says"
		return a.excuse(finding, covered), nil
	case err != nil:
		finding.Kind, finding.Detail = KindCorrupt, "it cannot be read: "+err.Error()
	case expected:
		return nil, nil
	case isPending || a.unfinished():
		finding.Kind = KindPartial
		finding.Detail = "it is whole, but belongs to something that is not sealed yet, or no longer"
		finding.Images = pending.Images
	default:
		finding.Kind, finding.Detail = KindExtra, "no image on the drive needs it; it can be removed"
	}
	return finding, nil
}

// excuse makes a blob that is wrong, but that no seal covers, what it is: work in progress. A
// power cut leaves such files, and pack hashes them before it trusts them.
func (a *audit) excuse(f *Finding, covered bool) *Finding {
	if _, pending := a.pending[digest.Digest(f.Digest)]; !covered && (pending || a.unfinished()) {
		f.Kind = KindPartial
		f.Detail += "; no seal covers it, and the same pack command fetches it again"
	}
	return f
}

// unfinished reports whether blobs that nothing names may stand here: those of a pack that
// has not come to its seal, or was interrupted while it cleaned up after it.
func (a *audit) unfinished() bool { return a.b.Seal == nil || a.b.Interrupted || a.b.Leftovers }

// images names the images that need a blob.
func (a *audit) images(d digest.Digest) []string {
	if r, ok := a.expected[d]; ok {
		return r.Images
	}
	return a.pending[d].Images
}

// absent reports the blobs that must be there and are not.
func (a *audit) absent(there map[digest.Digest]bool) {
	for d, r := range a.expected {
		if there[d] || !a.concerns(r.Images) {
			continue
		}
		f := Finding{Kind: KindMissing, Digest: d.String(), Path: layout.BlobPath(d), Images: r.Images, Detail: "it is not there"}
		if a.b.Seal == nil && r.State != store.StateComplete {
			f.Detail, f.Awaited = "it has not been fetched yet", r.Size
		}
		a.find(f)
	}
}

// partials reports downloads in progress.
func (a *audit) partials() error {
	files, err := a.l.Partials()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.find(Finding{Kind: KindCorrupt, Path: "pannier/partial", Detail: err.Error()})
	}
	for _, f := range files {
		path := "pannier/partial/" + f.Name
		if a.dropping(path) {
			continue
		}
		if f.Digest == "" || !f.Regular {
			a.find(Finding{Kind: KindExtra, Path: path, Detail: "this is no download of the bundle"})
			continue
		}
		a.report.Blobs.Partial++
		size := "an unknown number of"
		if r, ok := a.expected[f.Digest]; ok {
			size = fmt.Sprint(r.Size)
		} else if r, ok := a.pending[f.Digest]; ok {
			size = fmt.Sprint(r.Size)
		}
		a.find(Finding{Kind: KindPartial, Digest: f.Digest.String(), Path: path, Images: a.images(f.Digest),
			Detail: fmt.Sprintf("a download in progress: %d of %s bytes; the same pack command continues it", f.Size, size)})
	}
	return nil
}
