package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pannier/bundle/objects"
)

// mirrorSet is one ICSP, IDMS or ITMS of a cluster, or one that is wanted there.
type mirrorSet struct {
	kind    objects.Kind
	meta    meta
	entries []mirrorEntry
}

type mirrorEntry struct {
	Source  string   `json:"source"`
	Mirrors []string `json:"mirrors"`
	Policy  string   `json:"mirrorSourcePolicy,omitempty"`
}

type mirrorSetDocument struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		ICSP []mirrorEntry `json:"repositoryDigestMirrors"`
		IDMS []mirrorEntry `json:"imageDigestMirrors"`
		ITMS []mirrorEntry `json:"imageTagMirrors"`
	} `json:"spec"`
}

func (d *mirrorSetDocument) set(kind objects.Kind) mirrorSet {
	return mirrorSet{kind: kind, meta: d.Metadata, entries: slices.Concat(d.Spec.ICSP, d.Spec.IDMS, d.Spec.ITMS)}
}

// mirrorResources says for each kind of mirror set where it is served and which field of its
// spec holds the entries.
var mirrorResources = map[objects.Kind]struct {
	resource
	field string
}{
	objects.ICSP: {icspResource, "repositoryDigestMirrors"},
	objects.IDMS: {idmsResource, "imageDigestMirrors"},
	objects.ITMS: {itmsResource, "imageTagMirrors"},
}

func (s mirrorSet) String() string { return string(s.kind) + " " + s.meta.Name }

// ours reports whether pannier made an object.
func (m meta) ours() bool { return m.Labels[objects.ManagedByLabel] == objects.ManagedBy }

// policy is what the operator takes an entry's policy for: unset is allowed, and an ICSP
// cannot say anything else.
func (e mirrorEntry) policy() string {
	if e.Policy == "" {
		return "AllowContactingSource"
	}
	return e.Policy
}

// pair is one mirror for one source.
type pair struct{ source, mirror string }

func (p pair) String() string { return p.source + " -> " + p.mirror }

func (s mirrorSet) pairs() []pair {
	var out []pair
	for _, e := range s.entries {
		for _, m := range e.Mirrors {
			if p := (pair{e.Source, m}); m != e.Source && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// parseWanted reads a mirror set that is to be applied, with all that its file says.
func (c *Cluster) parseWanted(o objects.Object) (mirrorSet, error) {
	var doc mirrorSetDocument
	if err := objects.Decode(o.YAML, &doc); err != nil {
		return mirrorSet{}, fmt.Errorf("%s %s: %w", o.Kind, o.Name, err)
	}
	set := doc.set(objects.Kind(o.Kind))
	if set.meta.Name == "" || len(set.pairs()) == 0 {
		return mirrorSet{}, fmt.Errorf("%s %s: %w: it mirrors nothing", o.Kind, o.Name, objects.ErrInvalid)
	}
	for _, p := range set.pairs() {
		host, _, _ := strings.Cut(p.mirror, "/")
		if objects.IsLoopback(host) && c.on("loopback") {
			return mirrorSet{}, fmt.Errorf("%s %s: mirror %s: %w; it needs the name by which the nodes know the registry", o.Kind, o.Name, p.mirror, ErrLoopback)
		}
	}
	return set, nil
}

// surroundings are the mirror sets of a cluster and what decides how they live together.
type surroundings struct {
	served  map[objects.Kind]bool
	sets    map[objects.Kind][]mirrorSet
	version semver
	known   bool // the version could be read
}

func (c *Cluster) surroundings(ctx context.Context) (*surroundings, error) {
	s := &surroundings{served: map[objects.Kind]bool{}, sets: map[objects.Kind][]mirrorSet{}}
	for kind, r := range mirrorResources {
		docs, err := list[mirrorSetDocument](ctx, c, r.resource, "", "")
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.served[kind] = true
		for i := range docs {
			s.sets[kind] = append(s.sets[kind], docs[i].set(kind))
		}
	}
	var cv clusterVersion
	if err := c.get(ctx, clusterVersions, "", "version", &cv); err == nil {
		s.version, s.known = parseVersion(cv.current())
	} else if !isNotFound(err) && !errors.Is(err, ErrForbidden) {
		return nil, err
	}
	return s, nil
}

// together reports whether ICSP may stand beside IDMS and ITMS. Some clusters below 4.15 then
// take up nothing at all, and say so nowhere but in a log; which of them do is a matter of
// patch releases, so none is trusted with it.
func (s *surroundings) together() bool { return s.known && !s.version.before(4, 15) }

func (s *surroundings) find(kind objects.Kind, name string) (mirrorSet, bool) {
	for _, set := range s.sets[kind] {
		if set.meta.Name == name {
			return set, true
		}
	}
	return mirrorSet{}, false
}

// all returns every mirror set of the cluster, in a fixed order.
func (s *surroundings) all() []mirrorSet {
	return slices.Concat(s.sets[objects.ICSP], s.sets[objects.IDMS], s.sets[objects.ITMS])
}

// chooseKind decides between ICSP and IDMS, and says why. want is "" if nobody asked for one;
// tags says that an ITMS is to be applied too.
func (s *surroundings) chooseKind(want objects.Kind, names []string, tags bool) (objects.Kind, string, error) {
	old := len(s.sets[objects.ICSP]) > 0
	young := len(s.sets[objects.IDMS])+len(s.sets[objects.ITMS]) > 0
	if want != "" {
		return s.checkKind(want, old, young, tags)
	}
	switch {
	case !s.served[objects.ICSP] && !s.served[objects.IDMS]:
		return "", "", fmt.Errorf("%w: the cluster serves neither ImageContentSourcePolicy nor ImageDigestMirrorSet; is it OpenShift 4?", ErrConflict)
	case !s.served[objects.IDMS]:
		return objects.ICSP, "the cluster has no ImageDigestMirrorSet, which came with 4.13", nil
	case !s.served[objects.ICSP]:
		return objects.IDMS, "the cluster has no ImageContentSourcePolicy any more", nil
	}
	var ownOld bool
	for _, name := range names {
		set, ok := s.find(objects.ICSP, name)
		ownOld = ownOld || ok && set.meta.ours()
	}
	switch {
	case s.together() && ownOld:
		return objects.ICSP, "pannier made one here before", nil
	case s.together():
		return objects.IDMS, "the cluster has it, and it stands beside any other", nil
	case old && young && ownOld:
		return objects.ICSP, "both kinds exist, and pannier made one of this kind before", nil
	case old && !young && tags:
		return "", "", s.apart(objects.ITMS)
	case old && !young:
		return objects.ICSP, "the cluster has such objects, and below 4.15 they must not meet the other kind", nil
	case young:
		return objects.IDMS, "the cluster has such objects", nil
	}
	return objects.IDMS, "the cluster has it, and no mirror sets yet", nil
}

func (s *surroundings) checkKind(want objects.Kind, old, young, tags bool) (objects.Kind, string, error) {
	switch {
	case !s.served[want]:
		return "", "", fmt.Errorf("%w: the cluster has no %s", ErrConflict, want)
	case s.together() || old && young:
	case want == objects.IDMS && old, want == objects.ICSP && (young || tags):
		return "", "", s.apart(want)
	}
	return want, "it was asked for", nil
}

// apart is the error of a kind that must not be written beside what exists.
func (s *surroundings) apart(want objects.Kind) error {
	other := s.sets[objects.ICSP]
	if want == objects.ICSP {
		other = slices.Concat(s.sets[objects.IDMS], s.sets[objects.ITMS])
	}
	what := "an ImageTagMirrorSet that is to be applied with it"
	if len(other) > 0 {
		what = other[0].String()
	}
	return fmt.Errorf("%w: %s beside %s: clusters below 4.15 may then take up no mirror set at all, without a word; use the kind that exists (--mirror-set auto does)", ErrConflict, want, what)
}

// nested reports whether scope lies below super, so that its entry wins over super's.
func nested(scope, super string) bool {
	if rest, ok := strings.CutPrefix(super, "*."); ok {
		host, _, _ := strings.Cut(scope, "/")
		host, _, _ = strings.Cut(host, ":")
		return scope != super && strings.HasSuffix(host, "."+rest)
	}
	return strings.HasPrefix(scope, super+"/")
}

// collisions looks for what would make a wanted set useless, or worse: another policy for the
// same source, for which the operator takes up nothing at all, and a more specific source,
// which hides ours. notes are what a person should know.
func (s *surroundings) collisions(want mirrorSet) (notes []string, policy, hidden error) {
	for _, live := range s.all() {
		if live.kind == want.kind && live.meta.Name == want.meta.Name {
			continue
		}
		for _, e := range live.entries {
			for _, w := range want.entries {
				switch {
				case e.Source == w.Source && e.policy() != w.policy():
					policy = fmt.Errorf("%w: %s says %s for %s, and %s would say %s: the machine-config operator then takes up no mirror set at all; give both the same mirrorSourcePolicy, or add the mirror to %s by hand",
						ErrConflict, live, e.policy(), e.Source, want, w.policy(), live)
				case nested(e.Source, w.Source) && !live.meta.ours() && !mapped(e, w):
					hidden = fmt.Errorf("%w: %s has the more specific source %s with other mirrors (%s), so that %s would not count for what lies there; add a mirror to it by hand, or remove that entry",
						ErrConflict, live, e.Source, strings.Join(e.Mirrors, ", "), want)
				case nested(w.Source, e.Source) && !live.meta.ours():
					notes = append(notes, fmt.Sprintf("%s mirrors %s; for %s, which is more specific, only the new entry will count", live, e.Source, w.Source))
				}
			}
		}
	}
	return notes, policy, hidden
}

// mapped reports whether a more specific entry leads to the same places as the wider one.
func mapped(specific, wide mirrorEntry) bool {
	rest := strings.TrimPrefix(specific.Source, wide.Source)
	for _, m := range wide.Mirrors {
		if !slices.Contains(specific.Mirrors, m+rest) {
			return false
		}
	}
	return true
}

// coveredBy names the live objects that together say all that a wanted set says; ok is false
// if they do not.
func (s *surroundings) coveredBy(want mirrorSet) (names []string, ok bool) {
	group := slices.Concat(s.sets[objects.ICSP], s.sets[objects.IDMS])
	if want.kind == objects.ITMS {
		group = s.sets[objects.ITMS]
	}
	for _, p := range want.pairs() {
		by := ""
		for _, live := range group {
			if slices.Contains(live.pairs(), p) {
				by = live.String()
				break
			}
		}
		if by == "" {
			return nil, false
		}
		if !slices.Contains(names, by) {
			names = append(names, by)
		}
	}
	return names, true
}

// union is a live set of ours with what is wanted added: wanted mirrors are tried first,
// nothing is taken out, since other releases may still need it and since taking out a mirror
// drains nodes.
func union(live, want mirrorSet) []mirrorEntry {
	out := slices.Clone(live.entries)
	for _, w := range want.entries {
		i := slices.IndexFunc(out, func(e mirrorEntry) bool { return e.Source == w.Source })
		if i < 0 {
			out = append(out, w)
			continue
		}
		merged := slices.Clone(w.Mirrors)
		for _, m := range out[i].Mirrors {
			if !slices.Contains(merged, m) {
				merged = append(merged, m)
			}
		}
		out[i].Mirrors = merged
	}
	slices.SortFunc(out, func(a, b mirrorEntry) int { return strings.Compare(a.Source, b.Source) })
	return out
}
