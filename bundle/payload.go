package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/store"
)

// CheckPayload compares what a drive says of a release with what the release image says
// itself, which is what the signature vouches for: version, architecture, the documents that
// were captured from it, the repositories that a mirror set must cover, and, name by name,
// which images the release is made of. A drive that was sealed again by somebody else can
// leave out, exchange or add an image and still be whole in itself; here it is found. f reads
// the drive that c is the contents of.
//
// It returns one error for each contradiction, wrapping [ErrDamaged]. If the release image
// cannot be read it returns one error, of which [Unread] reports true.
func (c *Contents) CheckPayload(ctx context.Context, f content.Fetcher, tag string) []error {
	rel, ok := c.Release(tag)
	if !ok {
		return []error{fmt.Errorf("%w: %s", ErrNoRelease, tag)}
	}
	p, err := release.Read(ctx, f, rel.Descriptor)
	if err != nil {
		if !errors.Is(err, release.ErrPayload) && !errors.Is(err, content.ErrInvalid) {
			err = &unreadError{err}
		}
		return []error{fmt.Errorf("release image %s: %w: %w", rel.Descriptor.Digest, ErrDamaged, err)}
	}
	k := &payloadCheck{c: c, rel: rel, p: p}
	if p.Version != rel.Version || p.Arch != rel.Arch || p.Tag() != tag {
		k.wrong("the release image says that it is %s for %s", p.Version, p.Arch)
		return k.errs
	}
	k.documents()
	k.images()
	return k.errs
}

// payloadCheck is one call of CheckPayload.
type payloadCheck struct {
	c    *Contents
	rel  store.Release
	p    *release.Payload
	errs []error
}

func (k *payloadCheck) wrong(format string, args ...any) {
	k.errs = append(k.errs, fmt.Errorf("%w: release %s: %s", ErrDamaged, k.rel.Tag, fmt.Sprintf(format, args...)))
}

// documents compares what was captured from the payload, byte for byte.
func (k *payloadCheck) documents() {
	want := payloadDocuments(k.p)
	for _, d := range k.rel.Documents {
		ofPayload := strings.HasPrefix(d.Name, prefixKey) || strings.HasPrefix(d.Name, prefixPolicy)
		if ofPayload && !slices.ContainsFunc(want, func(w document) bool { return w.name == d.Name }) {
			k.wrong("document %s is not from the release image", d.Name)
		}
	}
	for _, w := range want {
		if have, ok := k.c.Document(k.rel.Tag, w.name); !ok || !bytes.Equal(have, w.data) {
			k.wrong("document %s is not what the release image holds", w.name)
		}
	}
	if t, err := k.c.text(k.rel.Tag); err != nil {
		k.wrong("%v", err)
	} else if t != nil {
		if err := checkText(t, k.rel, k.p.Children); err != nil {
			k.wrong("document %s: %v", DocumentText, err)
		}
	}
	if _, err := k.c.Updates(k.rel.Tag); err != nil {
		k.wrong("%v", err)
	}
	if !slices.Equal(k.p.Previous, k.rel.Previous) {
		k.wrong("the release image can be reached from other versions than the drive says")
	}
	// The release's own repository is nowhere in the payload: whether it is the one that was
	// signed is for the signature check to say.
	if ref, err := release.ParseImageReference(k.rel.Source + "@" + k.rel.Descriptor.Digest.String()); err != nil || ref.Repository != k.rel.Source {
		k.wrong("its source %q is no repository", k.rel.Source)
	}
	sources, err := k.c.Sources(k.rel.Tag)
	if want := payloadSources(k.rel.Source, k.p); err != nil {
		k.wrong("%v", err)
	} else if !slices.Equal(sources, want) {
		k.wrong("its images come from %v, and the drive says %v", want, sources)
	}
}

// images compares the images that the drive has for the release with those it is made of.
func (k *payloadCheck) images() {
	want := map[string]release.Image{}
	for _, c := range k.p.Images {
		want[release.ComponentTag(k.p.Version, k.p.Arch, c.Name)] = c
	}
	for _, img := range k.c.Images {
		if img.Release != k.rel.Tag || img.Kind == store.KindSignature || img.Kind == store.KindDocuments {
			continue
		}
		c, known := want[img.Tag]
		delete(want, img.Tag)
		switch {
		case img.Tag == k.rel.Tag:
			if img.Kind != store.KindRelease || img.Descriptor.Digest != k.rel.Descriptor.Digest {
				k.wrong("its tag stands for %s, and the release is %s", img.Descriptor.Digest, k.rel.Descriptor.Digest)
			}
			known = true
		case !known:
			k.wrong("image %s is no part of it", img.Tag)
		case img.Descriptor.Digest != c.Digest:
			k.wrong("component %s is %s, and the drive has %s", c.Name, c.Digest, img.Descriptor.Digest)
		case img.Kind != store.KindComponent || img.Name != c.Name || img.Reference != c.Repository+"@"+c.Digest.String():
			k.wrong("component %s is described otherwise on the drive", c.Name)
		}
	}
	for _, c := range want {
		k.wrong("component %s is not on the drive", c.Name)
	}
	if !slices.ContainsFunc(k.c.Images, func(i store.Image) bool { return i.Tag == k.rel.Tag }) {
		k.wrong("no image has its tag")
	}
}

// unreadError says that a release image could not be read, so that nothing is known of it.
type unreadError struct{ err error }

func (e *unreadError) Error() string { return e.err.Error() }
func (e *unreadError) Unwrap() error { return e.err }

// Unread reports whether errors of [Contents.CheckPayload] say only that the release image
// could not be read, which its blobs will show as well.
func Unread(errs []error) bool {
	return slices.ContainsFunc(errs, func(err error) bool { return errors.As(err, new(*unreadError)) })
}
