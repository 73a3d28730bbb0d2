package bundle

import (
	"fmt"
	"maps"
	"pannier/bundle/objects"
	"pannier/store"
	"slices"
	"strings"
)

// writeObjects keeps readable copies of what was captured with every release in
// pannier/objects, and nothing else there.
func (p *packer) writeObjects() error {
	written := map[string]bool{}
	for _, rel := range p.allReleases() {
		objs, err := p.readable(rel)
		if err != nil {
			return err
		}
		for _, o := range objs {
			name := objectName(rel, o)
			if err := p.layout.ReplaceFile(name, o.YAML); err != nil {
				return err
			}
			written[name] = true
		}
	}
	entries, err := p.layout.List(dirObjects)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := dirObjects + "/" + e.Name; !written[name] && !SystemFile(e.Name) {
			if err := p.layout.RemoveFile(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// objectName is where the readable copy of an object of a release stands.
func objectName(rel store.Release, o objects.Object) string {
	return fmt.Sprintf("%s/%s-%s.yaml", dirObjects, rel.Tag, strings.ToLower(o.Kind))
}

// readable renders the objects of a release that can be rendered now: its signatures, and its
// mirror set if the destination is or was known.
func (p *packer) readable(rel store.Release) ([]objects.Object, error) {
	docs := map[string][]byte{}
	if i := slices.IndexFunc(p.releases, func(pr *plannedRelease) bool { return pr.record.Tag == rel.Tag }); i >= 0 {
		for _, d := range p.releases[i].docs {
			docs[d.name] = d.data
		}
	} else {
		for _, d := range rel.Documents {
			docs[d.Name], _ = p.base.Document(rel.Tag, d.Name)
		}
	}
	var objs []objects.Object
	var signatures [][]byte
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		if child, ok := isSignatureDocument(name); ok && child == "" {
			signatures = append(signatures, docs[name])
		}
	}
	if len(signatures) > 0 {
		cm, err := objects.SignatureConfigMap(rel.Descriptor.Digest, rel.Version, signatures)
		if err != nil {
			return nil, err
		}
		objs = append(objs, cm)
	}
	for _, kind := range []objects.Kind{objects.ICSP, objects.IDMS} {
		if data, ok := docs[renderedName(string(kind))]; ok {
			objs = append(objs, objects.Object{Kind: string(kind), YAML: data})
		}
	}
	return objs, nil
}
