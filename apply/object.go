package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/store"
)

// size counts the components of a release, and the bytes of its blobs, each once.
func (u *unpacker) size(tag string) (images int, bytes int64) {
	seen := map[digest.Digest]bool{}
	for _, img := range u.images {
		if img.own || img.record.Release != tag {
			continue
		}
		if img.record.Kind == store.KindComponent {
			images++
		}
		for _, d := range img.blobs {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				bytes += d.Size
			}
		}
	}
	return images, bytes
}

// render lists the releases, and renders what the cluster needs to use those that are
// complete, in the order in which it must be applied: signatures first, then mirror sets. A
// release of which anything was refused gets no objects: a cluster that is told of it would
// fail half-way.
func (u *unpacker) render() error {
	var complete []*selected
	for _, s := range u.releases {
		r := UnpackedRelease{
			Tag: s.record.Tag, Digest: s.record.Descriptor.Digest.String(), Signature: s.verdict,
			Image:    u.nodes().String() + "@" + s.record.Descriptor.Digest.String(),
			Complete: u.complete(s.record.Tag),
		}
		r.Images, r.Bytes = u.size(s.record.Tag)
		if r.Complete {
			complete = append(complete, s)
		}
		u.res.Releases = append(u.res.Releases, r)
	}
	if err := u.order(complete); err != nil {
		return err
	}
	for _, s := range complete {
		if len(s.verdict.Accepted) == 0 {
			continue
		}
		cm, err := objects.SignatureConfigMap(s.record.Descriptor.Digest, s.record.Version, s.verdict.Accepted)
		if err != nil {
			return fmt.Errorf("release %s: %w", s.record.Tag, err)
		}
		u.res.Objects = append(u.res.Objects, cm)
	}
	if err := u.renderMirrorSets(complete); err != nil {
		return err
	}
	if len(u.res.Objects) > 0 && objects.IsLoopback(u.nodes().Registry) {
		u.warn("the objects name the registry %s, which on a node is the node itself; give --cluster-registry the name by which the nodes know it", u.nodes().Registry)
	}
	return u.renderReleaseJSON(complete)
}

// order notes which of the complete releases follows which on a recorded path of updates.
func (u *unpacker) order(complete []*selected) error {
	for _, s := range complete {
		updates, err := s.from.Contents.Updates(s.record.Tag)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(u.res.Releases, func(r UnpackedRelease) bool { return r.Tag == s.record.Tag })
		for _, before := range complete {
			if before.record.Arch == s.record.Arch && slices.ContainsFunc(updates, func(up objects.Update) bool { return up.From == before.record.Version }) {
				u.res.Releases[i].After = before.record.Tag
			}
		}
	}
	return nil
}

// nodes is the destination by the name that the nodes know.
func (u *unpacker) nodes() objects.Destination {
	if u.opts.Cluster != nil {
		return *u.opts.Cluster
	}
	return u.opts.Destination
}

// kind chooses the kind of the mirror sets: what was asked for, else ICSP if any release can
// be reached from a version that knows nothing else.
func (u *unpacker) kind(releases []*selected) objects.Kind {
	if u.opts.MirrorSet != "" {
		return u.opts.MirrorSet
	}
	for _, s := range releases {
		if k := objects.PreferredKind(s.record.Previous, s.record.Version); k == objects.ICSP {
			return k
		}
	}
	return objects.IDMS
}

func (u *unpacker) renderMirrorSets(releases []*selected) error {
	kind := u.kind(releases)
	other := objects.ICSP
	if kind == objects.ICSP {
		other = objects.IDMS
	}
	digests, tags := u.additionalMirrors()
	var sources []string
	for _, s := range releases {
		list, err := s.from.Contents.Sources(s.record.Tag)
		if err != nil {
			return err
		}
		sources = append(sources, u.signedSource(s, list)...)
	}
	slices.Sort(sources)
	mirrors := objects.MirrorsTo(u.nodes(), slices.Compact(sources)...)
	add := func(to *[]objects.Object, kind objects.Kind, name string, m []objects.Mirror) error {
		obj, err := objects.MirrorSet(kind, name, m)
		if errors.Is(err, objects.ErrNoMirror) {
			return nil
		}
		if err == nil {
			*to = append(*to, obj)
		}
		return err
	}
	for _, e := range []struct {
		to      *[]objects.Object
		kind    objects.Kind
		name    string
		mirrors []objects.Mirror
	}{
		{&u.res.Objects, kind, objects.ReleaseName, mirrors},
		{&u.res.Objects, kind, objects.AdditionalName, digests},
		{&u.res.Objects, objects.ITMS, objects.AdditionalName, tags},
		{&u.res.Alternatives, other, objects.ReleaseName, mirrors},
		{&u.res.Alternatives, other, objects.AdditionalName, digests},
	} {
		if err := add(e.to, e.kind, e.name, e.mirrors); err != nil {
			return err
		}
	}
	if len(tags) > 0 && kind == objects.ICSP {
		u.warn("images that came by tag need an ImageTagMirrorSet, which clusters have from 4.13 on; older ones pull them by the registry's own name")
	}
	u.compareRendered(releases, kind)
	if len(mirrors) == 0 {
		return nil
	}
	var err error
	u.res.InstallConfig, err = objects.InstallConfig(kind, mirrors)
	return err
}

// signedSource puts the name that a release was signed by in place of the one that it was
// packed from, if they differ: that is the name by which clusters know it, and unlike the
// other it was signed.
func (u *unpacker) signedSource(s *selected, sources []string) []string {
	ref, err := release.ParseImageReference(s.verdict.Reference)
	if s.verdict.Status != bundle.SignatureVerified || err != nil || ref.Repository == s.record.Source {
		return sources
	}
	u.warn("release %s was taken from %s and signed as %s; the mirror set names the latter", s.record.Tag, s.record.Source, ref.Repository)
	out := slices.DeleteFunc(slices.Clone(sources), func(src string) bool { return src == s.record.Source })
	return append(out, ref.Repository)
}

// additionalMirrors are the mirrors of the additional images, those that came by digest and
// those that came by tag apart.
func (u *unpacker) additionalMirrors() (digests, tags []objects.Mirror) {
	for _, img := range u.images {
		if img.record.Kind != store.KindAdditional || !u.good(img) {
			continue
		}
		ref, err := release.ParseImageReference(img.record.Tag)
		if err != nil {
			continue
		}
		m := objects.Mirror{Source: ref.Repository, Mirrors: []string{u.nodes().Additional(u.opts.Prefix, ref.Repository)}}
		if ref.Digest != "" {
			digests = append(digests, m)
		} else {
			tags = append(tags, m)
		}
	}
	return digests, tags
}

// compareRendered says where the mirror set that was rendered when the drive was packed
// differs from the one rendered now, which is the one that counts.
func (u *unpacker) compareRendered(releases []*selected, kind objects.Kind) {
	for _, s := range releases {
		was, ok := s.from.Contents.RenderedMirrorSet(s.record.Tag)
		if !ok {
			continue
		}
		sources, err := s.from.Contents.Sources(s.record.Tag)
		if err != nil {
			continue
		}
		now, err := bundle.MirrorSetFor(s.record, sources, kind, u.nodes())
		if err != nil || string(now.YAML) == string(was.YAML) {
			continue
		}
		wasKind, _, mirrors, err := objects.ParseMirrorSet(was.YAML)
		to := "something unreadable"
		if err == nil && len(mirrors) > 0 {
			to = strings.Join(mirrors[0].Mirrors, ", ")
		}
		u.warn("release %s: when the drive was packed, %s for %s was rendered; the one printed now is %s for %s, and is the one to apply", s.record.Tag, wasKind, to, kind, u.nodes())
	}
}

// renderReleaseJSON lists the complete releases for scripts.
func (u *unpacker) renderReleaseJSON(releases []*selected) error {
	var infos []objects.ReleaseInfo
	for _, s := range releases {
		rel := s.record
		info := objects.ReleaseInfo{
			Version: rel.Version, Arch: rel.Arch, Digest: rel.Descriptor.Digest,
			Image: u.nodes().String() + "@" + rel.Descriptor.Digest.String(),
			Tags:  []string{rel.Tag}, Previous: rel.Previous, Signature: s.verdict.Status,
		}
		var err error
		if info.Sources, err = s.from.Contents.Sources(rel.Tag); err != nil {
			return err
		}
		if info.Updates, err = s.from.Contents.Updates(rel.Tag); err != nil {
			return err
		}
		for _, img := range u.images {
			if img.record.Release == rel.Tag && img.record.Kind == store.KindComponent && !img.own {
				info.Tags = append(info.Tags, img.tag)
			}
		}
		infos = append(infos, info)
	}
	if len(infos) == 0 {
		return nil
	}
	u.res.Infos = infos
	var err error
	u.res.ReleaseJSON, err = objects.ReleaseJSON(infos...)
	return err
}

// writeObjects writes what was rendered.
func (u *unpacker) writeObjects() error {
	return writeObjects(u.opts.ObjectsDir, u.res.Objects, u.res.Alternatives, u.res.ReleaseJSON)
}

// WriteObjects writes a delivery into a folder, as [Unpack] does with ObjectsDir.
func (d *Delivery) WriteObjects(dir string) error {
	var raw []byte
	if len(d.Releases) > 0 {
		var err error
		if raw, err = objects.ReleaseJSON(d.Releases...); err != nil {
			return err
		}
	}
	return writeObjects(dir, d.Objects, d.Alternatives, raw)
}

// writeObjects writes the objects, release.json and, in a folder of their own, the mirror
// sets in their other form. Files of an earlier run are written over, and those of the form
// that was chosen then are removed: the two never stand beside each other.
func writeObjects(dir string, list, alternatives []objects.Object, releaseJSON []byte) error {
	files, other := map[string][]byte{}, map[string][]byte{}
	for _, o := range list {
		files[o.FileName()] = o.YAML
	}
	if len(releaseJSON) > 0 {
		files[releaseFile] = releaseJSON
	}
	for _, o := range alternatives {
		other[o.FileName()] = o.YAML
	}
	beside := filepath.Join(dir, alternativesFolder)
	err := writeFiles(dir, files)
	if err == nil {
		err = writeFiles(beside, other)
	}
	if err == nil {
		err = removeFiles(dir, other)
	}
	if err == nil {
		err = removeFiles(beside, files)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrObjectsDir, err)
	}
	return nil
}

func writeFiles(dir string, files map[string][]byte) error {
	if len(files) == 0 {
		return nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, name), files[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

func removeFiles(dir string, files map[string][]byte) error {
	for name := range files {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
