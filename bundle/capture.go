package bundle

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/store"
)

// capture makes the documents of a planned release: what unpack and audit need on the other
// side and cannot ask anybody for. Its manifest and the documents are planned as blobs.
func (p *packer) capture(pr *plannedRelease) error {
	rec := &pr.record
	pr.docs = append(pr.docs, payloadDocuments(pr.payload)...)
	sources, err := json.MarshalIndent(mirrorSources{Sources: payloadSources(rec.Source, pr.payload), Previous: rec.Previous}, "", "  ")
	if err != nil {
		return err
	}
	pr.docs = append(pr.docs, document{DocumentSources, mediaTypeJSON, append(sources, '\n')})
	if p.opts.Destination != nil {
		obj, err := p.render(*rec, payloadSources(rec.Source, pr.payload))
		if err != nil {
			return err
		}
		pr.docs = append(pr.docs, document{renderedName(obj.Kind), mediaTypeYAML, obj.YAML})
	}
	rd, err := p.describe(pr)
	if err != nil {
		return err
	}
	pr.docs = append(pr.docs, document{DocumentRelease, mediaTypeRelease, rd})
	for _, d := range pr.docs {
		if len(d.data) > maxDocument {
			return fmt.Errorf("%w: %s has %d bytes, at most %d are carried", release.ErrPayload, d.name, len(d.data), maxDocument)
		}
	}
	sortDocuments(pr.docs)
	rec.Documents = captured(pr.docs)
	return p.planDocuments(pr)
}

// payloadDocuments are the documents that are taken from the payload as they are.
func payloadDocuments(p *release.Payload) []document {
	docs := []document{
		{DocumentReferences, mediaTypeJSON, p.References},
		{DocumentMetadata, mediaTypeJSON, p.Metadata},
	}
	for i, k := range p.Keys {
		docs = append(docs, document{fmt.Sprintf("%s%d", prefixKey, i+1), mediaTypeKey, k.Data})
	}
	for i, f := range p.ImagePolicies {
		docs = append(docs, document{fmt.Sprintf("%s%d", prefixPolicy, i+1), mediaTypeYAML, f.Data})
	}
	return docs
}

// describe makes release.json: the release and all its images as planned.
func (p *packer) describe(pr *plannedRelease) ([]byte, error) {
	rec := pr.record
	rd := releaseDocument{
		Format: FormatVersion, Tag: rec.Tag, Version: rec.Version, Arch: rec.Arch, Source: rec.Source,
		Descriptor: rec.Descriptor, Created: rec.Created, Previous: rec.Previous,
	}
	for _, tag := range slices.Sorted(maps.Keys(p.images)) {
		if img := p.images[tag]; img.Release == rec.Tag {
			rd.Images = append(rd.Images, imageDocument{Tag: tag, Image: img})
		}
	}
	return rd.encode()
}

// planDocuments plans the documents of a release and the manifest that holds them.
func (p *packer) planDocuments(pr *plannedRelease) error {
	tag := documentsTag(pr.record.Tag)
	desc, raw, err := documentsManifest(pr.record, pr.docs)
	if err != nil {
		return err
	}
	var size int64
	for _, d := range pr.docs {
		m := captured([]document{d})[0]
		size += m.Size
		if err := p.want(documentDescriptor(m), d.data, nil, tag); err != nil {
			return err
		}
	}
	if err := p.want(emptyConfig, emptyConfigData, nil, tag); err != nil {
		return err
	}
	if err := p.want(desc, raw, nil, tag); err != nil {
		return err
	}
	p.images[tag] = store.Image{
		Tag: tag, Kind: store.KindDocuments, Release: pr.record.Tag, Descriptor: plain(desc),
		Bytes: size + desc.Size + emptyConfig.Size,
	}
	return nil
}

// signatureDocuments names the accepted signatures of a release and those found for the
// children of a list.
func signatureDocuments(accepted [][]byte, children map[digest.Digest][][]byte) []document {
	var docs []document
	for i, m := range accepted {
		docs = append(docs, document{fmt.Sprintf("%s%d", prefixSignature, i+1), mediaTypeSignature, m})
	}
	for d, messages := range children {
		for i, m := range messages {
			docs = append(docs, document{fmt.Sprintf("%s%s-%d", prefixSignature, d.Encoded(), i+1), mediaTypeSignature, m})
		}
	}
	return docs
}

// payloadSources are the repositories that the images of a release are named by, which a
// mirror set must cover: sorted, without duplicates.
func payloadSources(source string, payload *release.Payload) []string {
	out := append([]string{source}, payload.Repositories()...)
	slices.Sort(out)
	return slices.Compact(out)
}

// Sources returns the repositories that a release's images are named by, as captured.
func (c *Contents) Sources(tag string) ([]string, error) {
	data, ok := c.Document(tag, DocumentSources)
	if !ok {
		return nil, fmt.Errorf("%s: %s is not among the captured documents", tag, DocumentSources)
	}
	var m mirrorSources
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", tag, DocumentSources, err)
	}
	return m.Sources, nil
}

// MirrorSetFor renders the mirror set of a release for a destination. With an empty kind it
// is the one that objects.PreferredKind chooses.
func MirrorSetFor(rel store.Release, sources []string, kind objects.Kind, dest objects.Destination) (objects.Object, error) {
	if kind == "" {
		kind = objects.PreferredKind(rel.Previous, rel.Version)
	}
	return objects.MirrorSet(kind, objects.ReleaseName, objects.MirrorsTo(dest, sources...))
}

func (p *packer) render(rel store.Release, sources []string) (objects.Object, error) {
	return MirrorSetFor(rel, sources, p.opts.MirrorSet, *p.opts.Destination)
}

// renderedName is the name of the document that holds a rendered mirror set.
func renderedName(kind string) string { return strings.ToLower(kind) + ".yaml" }

// RenderedMirrorSet returns the mirror set that was rendered when the release was packed, if
// its destination was known.
func (c *Contents) RenderedMirrorSet(tag string) (objects.Object, bool) {
	for _, kind := range []objects.Kind{objects.ICSP, objects.IDMS} {
		if data, ok := c.Document(tag, renderedName(string(kind))); ok {
			return objects.Object{Kind: string(kind), Name: objects.ReleaseName, YAML: data}, true
		}
	}
	return objects.Object{}, false
}

// rendered reports whether the drive carries the mirror set of a sealed release for the
// destination that this run names, if it names one.
func (p *packer) rendered(rel store.Release) bool {
	if p.opts.Destination == nil || p.recalled {
		return true
	}
	sources, err := p.base.Sources(rel.Tag)
	if err != nil {
		return false
	}
	want, err := p.render(rel, sources)
	if err != nil {
		return false
	}
	have, ok := p.base.RenderedMirrorSet(rel.Tag)
	return ok && have.Kind == want.Kind && string(have.YAML) == string(want.YAML)
}
