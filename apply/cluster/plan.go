package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/objects"
)

// Action is what is done with one object.
type Action string

// The actions. An object that is unchanged or covered is not written, so that no rollout is
// caused.
const (
	Create    Action = "create"
	Update    Action = "update"
	Unchanged Action = "unchanged" // pannier's own object says all that is wanted
	Covered   Action = "covered"   // other objects say all that is wanted
)

// Change is one object and what is done with it.
type Change struct {
	Object objects.Object // as given, or in the other form if the cluster needs that
	Action Action
	Reason string // what it is covered by, why it has another name; "" if there is nothing to say
	Diff   string // lines that begin with "+ ", for people; nothing is ever removed
}

// Writes reports whether the change writes anything.
func (c Change) Writes() bool { return c.Action == Create || c.Action == Update }

// Plan is what applying does, found out by reading alone.
type Plan struct {
	Changes    []Change
	Kind       objects.Kind // of the digest mirror sets, as chosen
	KindReason string
	NodeEffect string // what the changes do to the nodes of this cluster's version
	Pools      []PoolState
	Nodes      []NodeState
	Warnings   []string

	steps []step
}

// Writes reports whether anything is written.
func (p *Plan) Writes() bool { return slices.ContainsFunc(p.Changes, Change.Writes) }

// step is a change with what the API server is to be sent for it.
type step struct {
	change    Change
	resource  resource
	namespace string
	name      string
	body      map[string]any // the object to create, or the merge patch
}

// planObject compares one wanted object with the cluster.
func (c *Cluster) planObject(ctx context.Context, o objects.Object, s *surroundings) (step, []string, error) {
	if o.Kind == "ConfigMap" {
		st, err := c.planSignature(ctx, o)
		return st, nil, err
	}
	return c.planMirrorSet(o, s)
}

func (c *Cluster) planMirrorSet(o objects.Object, s *surroundings) (step, []string, error) {
	want, err := c.parseWanted(o)
	if err != nil {
		return step{}, nil, err
	}
	r := mirrorResources[want.kind]
	st := step{change: Change{Object: o}, resource: r.resource, name: want.meta.Name}
	live, exists := s.find(want.kind, want.meta.Name)
	notes, policy, hidden := s.collisions(want)
	if hidden != nil && c.on("hidden-mirrors") {
		return st, nil, hidden
	}
	own := exists && live.meta.ours()
	if names, ok := s.coveredBy(want); ok && !own && c.on("covered") {
		st.change.Action, st.change.Reason = Covered, strings.Join(names, ", ")
		return st, nil, nil
	}
	if policy != nil && c.on("mirror-policies") {
		return st, nil, policy
	}
	if own && len(missing(live.pairs(), want.pairs())) == 0 {
		st.change.Action = Unchanged
		return st, nil, nil
	}
	if names, ok := s.coveredBy(want); ok && c.on("covered") {
		st.change.Action, st.change.Reason = Covered, strings.Join(names, ", ")
		return st, nil, nil
	}
	if !exists {
		st.change.Action = Create
		st.change.Diff = added(want.pairs())
		st.body, err = newObject(o)
		return st, notes, err
	}
	if !live.meta.ours() && c.on("foreign") {
		return st, nil, fmt.Errorf("%w: %s exists without the label %s=%s, and lacks %s; rename it, add the mirrors to it by hand, or label it to hand it over",
			ErrForeign, live, objects.ManagedByLabel, objects.ManagedBy, missing(live.pairs(), want.pairs())[0])
	}
	st.change.Action = Update
	st.change.Diff = added(missing(live.pairs(), want.pairs()))
	st.body = map[string]any{
		"metadata": map[string]any{"resourceVersion": live.meta.ResourceVersion},
		"spec":     map[string]any{r.field: union(live, want)},
	}
	return st, notes, nil
}

// newObject is what is sent for an object that does not exist yet: what its file says, so
// that strict validation sees all of it, with our label.
func newObject(o objects.Object) (map[string]any, error) {
	var doc map[string]any
	if err := objects.Decode(o.YAML, &doc); err != nil {
		return nil, fmt.Errorf("%s %s: %w", o.Kind, o.Name, err)
	}
	var head struct {
		Metadata meta `json:"metadata"`
	}
	if err := objects.Decode(o.YAML, &head); err != nil {
		return nil, fmt.Errorf("%s %s: %w", o.Kind, o.Name, err)
	}
	labels := map[string]string{}
	maps.Copy(labels, head.Metadata.Labels)
	labels[objects.ManagedByLabel] = objects.ManagedBy
	metadata := map[string]any{"name": o.Name, "labels": labels}
	if o.Namespace != "" {
		metadata["namespace"] = o.Namespace
	}
	if len(head.Metadata.Annotations) > 0 {
		metadata["annotations"] = head.Metadata.Annotations
	}
	doc["metadata"] = metadata
	delete(doc, "status")
	return doc, nil
}

// missing are the pairs of want that have does not have.
func missing(have, want []pair) []pair {
	var out []pair
	for _, p := range want {
		if !slices.Contains(have, p) {
			out = append(out, p)
		}
	}
	return out
}

func added[T fmt.Stringer](lines []T) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "+ %s\n", l)
	}
	return b.String()
}

// managedSignatures is the cluster version operator's own store: it writes over it.
const managedSignatures = "signatures-managed"

// planSignature compares one signature ConfigMap with all that the cluster has: it takes
// signatures from any labelled ConfigMap, whatever its name.
func (c *Cluster) planSignature(ctx context.Context, o objects.Object) (step, error) {
	st := step{change: Change{Object: o}, resource: configMaps, namespace: o.Namespace, name: o.Name}
	wanted, err := objects.ParseSignatureConfigMap(o.YAML)
	if err != nil {
		return st, fmt.Errorf("%s %s: %w", o.Kind, o.Name, err)
	}
	if o.Namespace != objects.SignatureNamespace || o.Name == managedSignatures || len(wanted) == 0 {
		return st, fmt.Errorf("%s %s in namespace %q: %w: release signatures belong into %s, under a name of their own", o.Kind, o.Name, o.Namespace, objects.ErrInvalid, objects.SignatureNamespace)
	}
	live, err := list[configMap](ctx, c, configMaps, objects.SignatureNamespace, objects.SignatureLabel)
	if err != nil {
		return st, err
	}
	if names, ok := signaturesIn(live, wanted); ok && c.on("covered") {
		st.change.Action, st.change.Reason = Covered, strings.Join(names, ", ")
		if len(names) == 1 && names[0] == "ConfigMap "+o.Name && slices.ContainsFunc(live, func(m configMap) bool { return m.Metadata.Name == o.Name && m.Metadata.ours() }) {
			st.change.Action, st.change.Reason = Unchanged, ""
		}
		return st, nil
	}
	for {
		var there configMap
		err := c.get(ctx, configMaps, st.namespace, st.name, &there)
		switch {
		case isNotFound(err):
			return st, st.create(wanted)
		case err != nil:
			return st, err
		case there.Metadata.ours() || !c.on("foreign"):
			st.update(there, wanted)
			return st, nil
		case st.name != o.Name:
			return st, fmt.Errorf("%w: ConfigMap %s in %s exists without the label %s=%s", ErrForeign, st.name, st.namespace, objects.ManagedByLabel, objects.ManagedBy)
		}
		// The name is of no meaning to the cluster: somebody else's stays as it is.
		st.change.Reason = fmt.Sprintf("ConfigMap %s is not pannier's, so another name is used", st.name)
		st.name = "pannier-" + o.Name
	}
}

// signaturesIn names the ConfigMaps that hold all wanted signatures. The operator's own store
// does not count: it forgets.
func signaturesIn(live []configMap, wanted map[digest.Digest][][]byte) (names []string, ok bool) {
	for d, sigs := range wanted {
		for _, sig := range sigs {
			i := slices.IndexFunc(live, func(m configMap) bool { return m.Metadata.Name != managedSignatures && m.holds(d, sig) })
			if i < 0 {
				return nil, false
			}
			if name := "ConfigMap " + live[i].Metadata.Name; !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, true
}

// keyPrefix is what a key must begin with to hold a signature of d.
func keyPrefix(d digest.Digest) string { return string(d.Algorithm()) + "-" + d.Encoded() }

func (m configMap) holds(d digest.Digest, sig []byte) bool {
	for k, v := range m.BinaryData {
		if strings.HasPrefix(k, keyPrefix(d)) && bytes.Equal(v, sig) {
			return true
		}
	}
	return false
}

// entries chooses free keys for the signatures that a ConfigMap lacks.
func (m configMap) entries(wanted map[digest.Digest][][]byte) (data map[string]any, diff string) {
	data = map[string]any{}
	var lines []string
	for d, sigs := range wanted {
		n := 0
		for _, sig := range sigs {
			if m.holds(d, sig) {
				continue
			}
			var key string
			for used := true; used; {
				n++
				key = keyPrefix(d) + "-" + strconv.Itoa(n)
				_, used = m.BinaryData[key]
			}
			data[key] = sig
			lines = append(lines, signatureLine(key, sig))
		}
	}
	slices.Sort(lines)
	return data, strings.Join(lines, "")
}

func signatureLine(key string, sig []byte) string {
	sum := sha256.Sum256(sig)
	return fmt.Sprintf("+ %s: %d bytes (sha256 %x…)\n", key, len(sig), sum[:6])
}

func (st *step) create(wanted map[digest.Digest][][]byte) error {
	o := st.change.Object
	o.Name = st.name
	body, err := newObject(o)
	if err != nil {
		return err
	}
	st.change.Action, st.body = Create, body
	st.body["binaryData"], st.change.Diff = configMap{}.entries(wanted)
	return nil
}

// update adds what is missing, and the label without which the cluster does not look at it.
func (st *step) update(live configMap, wanted map[digest.Digest][][]byte) {
	data, diff := live.entries(wanted)
	if _, ok := live.Metadata.Labels[objects.SignatureLabel]; !ok {
		diff += "+ label " + objects.SignatureLabel + "\n"
	}
	st.change.Action, st.change.Diff = Update, diff
	st.body = map[string]any{
		"metadata": map[string]any{"resourceVersion": live.Metadata.ResourceVersion,
			"labels": map[string]any{objects.SignatureLabel: ""}},
		"binaryData": data,
	}
}
