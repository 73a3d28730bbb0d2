package objects

import (
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Mirror says where else to pull from what is named by Source.
type Mirror struct {
	Source  string   `json:"source"`  // repository, or a registry, or *.domain
	Mirrors []string `json:"mirrors"` // in order of trial
}

// MirrorsTo returns one [Mirror] to dest for each of sources.
func MirrorsTo(dest Destination, sources ...string) []Mirror {
	var out []Mirror
	for _, s := range sources {
		out = append(out, Mirror{Source: s, Mirrors: []string{dest.String()}})
	}
	return out
}

type mirrorSetSpec struct {
	ICSP []entry `json:"repositoryDigestMirrors,omitempty"`
	IDMS []entry `json:"imageDigestMirrors,omitempty"`
	ITMS []entry `json:"imageTagMirrors,omitempty"`
}

type entry struct {
	Mirrors []string `json:"mirrors"`
	Source  string   `json:"source"`
	Policy  string   `json:"mirrorSourcePolicy,omitempty"` // read only: pannier sets none
}

type mirrorSet struct {
	typeMeta `json:",inline"`
	Spec     mirrorSetSpec `json:"spec"`
}

// MirrorSet renders one object of kind. Entries of one source are merged, mirrors that are
// the source itself are left out, sources are sorted. Errors wrap [ErrInvalid] for what the
// cluster would refuse (a tag, a digest, a scheme, a trailing slash), [ErrNoMirror] if
// nothing is left.
func MirrorSet(kind Kind, name string, mirrors []Mirror) (Object, error) {
	if err := checkName(name); err != nil {
		return Object{}, err
	}
	entries, err := merge(mirrors)
	if err != nil {
		return Object{}, fmt.Errorf("%s %s: %w", kind, name, err)
	}
	doc := mirrorSet{typeMeta: typeMeta{APIVersion: "config.openshift.io/v1", Kind: string(kind), Metadata: metadata{
		Name: name, Labels: map[string]string{ManagedByLabel: ManagedBy},
	}}}
	switch kind {
	case ICSP:
		doc.APIVersion, doc.Spec.ICSP = "operator.openshift.io/v1alpha1", entries
	case IDMS:
		doc.Spec.IDMS = entries
	case ITMS:
		doc.Spec.ITMS = entries
	default:
		return Object{}, fmt.Errorf("%w: %q is no kind of mirror set", ErrInvalid, kind)
	}
	return render(doc.typeMeta, doc)
}

// ParseMirrorSet reads an object that [MirrorSet] rendered, or any other of its kinds.
// Errors wrap [ErrInvalid].
func ParseMirrorSet(data []byte) (kind Kind, name string, mirrors []Mirror, err error) {
	var doc mirrorSet
	if err := Decode(data, &doc); err != nil {
		return "", "", nil, err
	}
	var entries []entry
	switch Kind(doc.Kind) {
	case ICSP:
		entries = doc.Spec.ICSP
	case IDMS:
		entries = doc.Spec.IDMS
	case ITMS:
		entries = doc.Spec.ITMS
	default:
		return "", "", nil, fmt.Errorf("%w: %q is no kind of mirror set", ErrInvalid, doc.Kind)
	}
	for _, e := range entries {
		mirrors = append(mirrors, Mirror{Source: e.Source, Mirrors: e.Mirrors})
	}
	return Kind(doc.Kind), doc.Metadata.Name, mirrors, nil
}

func merge(mirrors []Mirror) ([]entry, error) {
	bySource := map[string][]string{}
	for _, m := range mirrors {
		if !sourceRule.MatchString(m.Source) {
			return nil, fmt.Errorf("%w: source %q is no repository without tag, digest and scheme", ErrInvalid, m.Source)
		}
		for _, to := range m.Mirrors {
			if !mirrorRule.MatchString(to) {
				return nil, fmt.Errorf("%w: mirror %q is no repository without tag, digest and scheme", ErrInvalid, to)
			}
			if to != m.Source && !slices.Contains(bySource[m.Source], to) {
				bySource[m.Source] = append(bySource[m.Source], to)
			}
		}
	}
	var entries []entry
	for source, to := range bySource {
		entries = append(entries, entry{Source: source, Mirrors: to})
	}
	if len(entries) == 0 {
		return nil, ErrNoMirror
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Source < entries[j].Source })
	return entries, nil
}

// InstallConfig renders the lines of install-config.yaml that make a new cluster use the
// mirrors: imageContentSources for ICSP, imageDigestSources otherwise. Errors are those of
// [MirrorSet]; tags cannot be mirrored there, so [ITMS] is refused.
func InstallConfig(kind Kind, mirrors []Mirror) ([]byte, error) {
	key := "imageDigestSources"
	switch kind {
	case ICSP:
		key = "imageContentSources"
	case IDMS:
	default:
		return nil, fmt.Errorf("%w: install-config.yaml has no place for %q", ErrInvalid, kind)
	}
	entries, err := merge(mirrors)
	if err != nil {
		return nil, err
	}
	raw, err := yaml.Marshal(map[string][]entry{key: entries})
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", key, err)
	}
	return raw, nil
}

var minorRule = regexp.MustCompile(`^v?([0-9]{1,6})\.([0-9]{1,6})(?:\.|$)`)

// PreferredKind says which kind of mirror set to render when no cluster can be asked: ICSP
// if a cluster below 4.13, which knows nothing else, may have to read it, because one of
// previous or version itself is that old; IDMS otherwise. Every 4.x honours ICSP. Texts
// that are no versions count for nothing.
func PreferredKind(previous []string, version string) Kind {
	for _, v := range append([]string{version}, previous...) {
		m := minorRule.FindStringSubmatch(v)
		if m == nil {
			continue
		}
		major, _ := strconv.Atoi(m[1])
		minor, _ := strconv.Atoi(m[2])
		if major < 4 || major == 4 && minor < 13 {
			return ICSP
		}
	}
	return IDMS
}

// ParseKind reads what people write for a kind: icsp, idms, itms or the full name, in any
// case. Errors wrap [ErrInvalid].
func ParseKind(s string) (Kind, error) {
	switch strings.ToLower(s) {
	case "icsp", strings.ToLower(string(ICSP)):
		return ICSP, nil
	case "idms", strings.ToLower(string(IDMS)):
		return IDMS, nil
	case "itms", strings.ToLower(string(ITMS)):
		return ITMS, nil
	}
	return "", fmt.Errorf("%w: %q is no kind of mirror set: icsp or idms", ErrInvalid, s)
}
