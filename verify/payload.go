package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/store"
)

// Payload compares what a drive says of a release with what the release image says itself,
// which is what the signature vouches for: version, architecture, the repositories that a
// mirror set must cover, and, name by name, which images the release is made of. A drive
// that was sealed again by somebody else can leave out or exchange a component and still be
// whole in itself; here it is found.
//
// It returns one error for each contradiction, wrapping [bundle.ErrDamaged]. If the release
// image cannot be read it returns one error, of which [Unread] reports true.
func Payload(ctx context.Context, f content.Fetcher, drive *bundle.Contents, tag string) []error {
	rel, ok := drive.Release(tag)
	if !ok {
		return []error{fmt.Errorf("%w: %s", bundle.ErrNoRelease, tag)}
	}
	p, err := release.Read(ctx, f, rel.Descriptor)
	if err != nil {
		if !errors.Is(err, release.ErrPayload) && !errors.Is(err, content.ErrInvalid) {
			err = &unreadError{err}
		}
		return []error{fmt.Errorf("release image %s: %w: %w", rel.Descriptor.Digest, bundle.ErrDamaged, err)}
	}
	var out []error
	wrong := func(format string, args ...any) {
		out = append(out, fmt.Errorf("%w: release %s: %s", bundle.ErrDamaged, tag, fmt.Sprintf(format, args...)))
	}
	if p.Version != rel.Version || p.Arch != rel.Arch {
		wrong("the release image says that it is %s for %s", p.Version, p.Arch)
		return out
	}
	if !slices.Equal(p.Previous, rel.Previous) {
		wrong("the release image can be reached from other versions than the drive says")
	}
	if sources, err := drive.Sources(tag); err != nil {
		wrong("%v", err)
	} else if want := sorted(append(p.Repositories(), rel.Source)); !slices.Equal(sources, want) {
		wrong("its images come from %v, and the drive says %v", want, sources)
	}
	images := map[string]store.Image{}
	for _, img := range drive.Images {
		images[img.Tag] = img
	}
	if img := images[tag]; img.Kind != store.KindRelease || img.Descriptor.Digest != rel.Descriptor.Digest {
		wrong("its tag stands for %s, and the release is %s", img.Descriptor.Digest, rel.Descriptor.Digest)
	}
	for _, c := range p.Images {
		name := release.ComponentTag(p.Version, p.Arch, c.Name)
		img, there := images[name]
		switch {
		case !there:
			wrong("component %s is not on the drive", c.Name)
		case img.Descriptor.Digest != c.Digest:
			wrong("component %s is %s, and the drive has %s", c.Name, c.Digest, img.Descriptor.Digest)
		case img.Kind != store.KindComponent || img.Release != tag || img.Reference != c.Repository+"@"+c.Digest.String():
			wrong("component %s is described otherwise on the drive", c.Name)
		}
	}
	if n := drive.Components(tag); n != len(p.Images) {
		wrong("it is made of %d components, and the drive names %d", len(p.Images), n)
	}
	return out
}

// unreadError says that a release image could not be read, so that nothing is known of it.
type unreadError struct{ err error }

func (e *unreadError) Error() string { return e.err.Error() }
func (e *unreadError) Unwrap() error { return e.err }

// Unread reports whether errors of [Payload] say only that the release image could not be
// read, which its blobs will show as well.
func Unread(errs []error) bool {
	return slices.ContainsFunc(errs, func(err error) bool { return errors.As(err, new(*unreadError)) })
}

func sorted(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// contradictions reports what a sealed drive says otherwise than the release image itself. A
// release image that cannot be read is reported where its blobs are.
func (a *audit) contradictions(ctx context.Context, tag string) {
	if a.b.Seal == nil {
		return
	}
	wrong := Payload(ctx, a.l, a.b.Contents, tag)
	if ctx.Err() != nil || Unread(wrong) && len(a.report.Findings) > 0 {
		return
	}
	for _, err := range wrong {
		a.find(Finding{Kind: KindCorrupt, Path: "index.json", Images: []string{tag}, Detail: err.Error()})
	}
}
