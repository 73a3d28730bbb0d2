package apply

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/content"
)

// presume reports whether a source presumes a blob at the registry.
func (s sources) presume(desc ocispec.Descriptor) bool {
	return slices.ContainsFunc(s, func(d *bundle.Source) bool {
		r, ok := d.Contents.Presumed[desc.Digest]
		return ok && r.Size == desc.Size
	})
}

// provePresumed refuses everything if the registry lacks something that no drive holds and one
// presumes there. It has been asked by now. A repository that lacks a blob which another one of
// it has is no hindrance: the registry is asked to take it over.
func (u *unpacker) provePresumed() error {
	var missing []*wantedBlob
	for _, b := range u.wanted() {
		if u.presumed[b.desc.Digest] && len(b.having) == 0 {
			missing = append(missing, b)
		}
	}
	return u.lacks(missing, "nothing was pushed")
}

// lostPresumed looks whether a push failed because the registry has lost since it was asked what is
// presumed there: then that is told, and what the registry said of it is part of the sentence.
func (u *unpacker) lostPresumed(ctx context.Context, failure error) error {
	var missing []*wantedBlob
	for _, b := range u.wanted() {
		if !u.presumed[b.desc.Digest] {
			continue
		}
		for _, repo := range b.having {
			ok, err := u.holds(ctx, repo, b.desc)
			if err != nil {
				return failure
			}
			if !ok {
				missing = append(missing, b)
				break
			}
		}
	}
	if err := u.lacks(missing, fmt.Sprintf("it had them when the push began, which failed (%v)", failure)); err != nil {
		return err
	}
	return failure
}

// lacks is the error that lists what the registry lacks of what is presumed there, and then
// says something; nil if that is nothing.
func (u *unpacker) lacks(missing []*wantedBlob, then string) error {
	if len(missing) == 0 {
		return nil
	}
	slices.SortFunc(missing, func(a, b *wantedBlob) int { return cmp.Compare(a.desc.Digest, b.desc.Digest) })
	var bytes int64
	var lines []string
	for _, b := range missing {
		bytes += b.desc.Size
		var names []string
		for _, img := range u.images {
			if !img.own && slices.ContainsFunc(img.blobs, func(d ocispec.Descriptor) bool { return d.Digest == b.desc.Digest }) {
				names = append(names, img.record.Tag)
			}
		}
		u.res.Refused = append(u.res.Refused, Refusal{Digest: b.desc.Digest.String(), Images: names,
			Err: fmt.Errorf("%s lacks it: %w", u.opts.Destination, bundle.ErrPresumed)})
		lines = append(lines, fmt.Sprintf("%s (%s, for %s)", b.desc.Digest, content.SizeText(b.desc.Size), few(names)))
	}
	const shown = 5 // the result has all
	if more := len(lines) - shown; more > 1 {
		lines = append(lines[:shown], fmt.Sprintf("and %d more", more))
	}
	var at []string
	for _, s := range u.sources {
		at = append(at, s.Contents.PresumedAt()...)
	}
	slices.Sort(at)
	return fmt.Errorf("%s lacks %s, %s, and %s: %w (%s): %s", u.opts.Destination, content.Plural(len(missing), "blob", "blobs"), content.SizeText(bytes), then,
		bundle.ErrPresumed, strings.Join(slices.Compact(at), ", "), strings.Join(lines, ", "))
}

// few names the first of several.
func few(names []string) string {
	if len(names) > 2 {
		return fmt.Sprintf("%s and %d others", names[0], len(names)-1)
	}
	return strings.Join(names, ", ")
}

// presumed brings a blob that no drive holds to the repositories that lack it, from one that
// has it.
func (p *blobPush) presumed(ctx context.Context, b *wantedBlob) error {
	for _, repo := range b.lacking {
		ok, err := repo.Mount(ctx, b.desc, b.having[0].Endpoint())
		if err != nil {
			return fmt.Errorf("blob %s: %w", b.desc.Digest, err)
		}
		if !ok {
			return fmt.Errorf("%s: blob %s: %w: %s has it, and the registry does not take it over from there", repo.Name(), b.desc.Digest, bundle.ErrPresumed, b.having[0].Name())
		}
	}
	p.u.count(&p.u.res.Presumed, b.desc.Size)
	p.reuse(b)
	return nil
}
