package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pannier/bundle/objects"
)

// ApplyOptions say what to apply.
type ApplyOptions struct {
	Objects      []objects.Object // signature ConfigMaps and mirror sets, in any order
	Alternatives []objects.Object // the mirror sets in their other form; what is missing there is rendered
	Kind         objects.Kind     // ICSP or IDMS; "" lets the cluster decide
	DryRun       bool             // the API server checks every write and keeps none

	// Planned is called once it is known what will be done, before the first write; may be nil.
	Planned func(*Plan)
}

// Plan finds out what [Cluster.Apply] would do, by reading alone. Conflicts, objects of
// others in the way, and mirrors that name the node itself are errors.
func (c *Cluster) Plan(ctx context.Context, opts ApplyOptions) (*Plan, error) {
	signatures, sets, err := sortObjects(opts.Objects)
	if err != nil {
		return nil, err
	}
	p := &Plan{}
	s := &surroundings{}
	if len(sets) > 0 {
		if s, err = c.surroundings(ctx); err != nil {
			return nil, err
		}
		if sets, err = c.chooseForms(sets, opts, s, p); err != nil {
			return nil, err
		}
	}
	for _, o := range slices.Concat(signatures, sets) {
		st, notes, err := c.planObject(ctx, o, s)
		if err != nil {
			return nil, err
		}
		p.steps = append(p.steps, st)
		p.Changes = append(p.Changes, st.change)
		p.Warnings = append(p.Warnings, notes...)
	}
	return p, c.survey(ctx, p, s)
}

// Apply brings the objects to the cluster: signatures first, then mirror sets. What the
// cluster already says is left alone, so that applying twice writes once. A write that meets
// somebody else's is compared again. On an error the plan is returned too: what stands
// before the failing object is done, and the same call continues.
func (c *Cluster) Apply(ctx context.Context, opts ApplyOptions) (*Plan, error) {
	p, err := c.Plan(ctx, opts)
	if err != nil {
		return p, err
	}
	if opts.Planned != nil {
		opts.Planned(p)
	}
	for i := range p.steps {
		st, err := c.perform(ctx, p.steps[i], opts.DryRun)
		if err != nil {
			return p, fmt.Errorf("apply %s %s: %w", st.change.Object.Kind, st.name, err)
		}
		p.Changes[i] = st.change
		if st.change.Writes() && !opts.DryRun {
			c.event("object", st.name, "%s %sd", st.change.Object.Kind, st.change.Action)
		}
	}
	return p, nil
}

// writeTries is how often a write is tried that a restarting API server or another writer
// keeps from happening.
const writeTries = 8

func (c *Cluster) perform(ctx context.Context, st step, dryRun bool) (step, error) {
	for try := 1; ; try++ {
		var err error
		switch st.change.Action {
		case Create:
			err = c.create(ctx, st.resource, st.namespace, st.name, st.body, dryRun, nil)
		case Update:
			err = c.patch(ctx, st.resource, st.namespace, st.name, st.body, dryRun, nil)
		}
		if err == nil {
			return st, nil
		}
		if try == writeTries || ctx.Err() != nil || !transient(err) && !isConflict(err) {
			return st, err
		}
		if err := sleep(ctx, min(time.Duration(try)*time.Second, c.timing.Poll)); err != nil {
			return st, err
		}
		again, err := c.again(ctx, st.change.Object)
		switch {
		case err == nil:
			st = again
		case !transient(err):
			return st, err
		}
	}
}

// again compares an object with the cluster as it is by now.
func (c *Cluster) again(ctx context.Context, o objects.Object) (step, error) {
	s := &surroundings{}
	if o.Kind != "ConfigMap" {
		var err error
		if s, err = c.surroundings(ctx); err != nil {
			return step{}, err
		}
	}
	st, _, err := c.planObject(ctx, o, s)
	return st, err
}

// sortObjects tells signatures from mirror sets, and refuses everything else: a folder of
// objects is not trusted to be only what pannier wrote.
func sortObjects(all []objects.Object) (signatures, sets []objects.Object, err error) {
	for _, o := range all {
		r, isSet := mirrorResources[objects.Kind(o.Kind)]
		switch {
		case o.Kind == "ConfigMap" && o.APIVersion == "v1":
			signatures = append(signatures, o)
		case isSet && o.APIVersion == r.apiVersion() && o.Namespace == "":
			sets = append(sets, o)
		default:
			return nil, nil, fmt.Errorf("%s %s (%s): %w: only signature ConfigMaps and mirror sets are applied", o.Kind, o.Name, o.APIVersion, objects.ErrInvalid)
		}
	}
	return signatures, sets, nil
}

// chooseForms gives every mirror set for digests the one kind that suits the cluster.
func (c *Cluster) chooseForms(sets []objects.Object, opts ApplyOptions, s *surroundings, p *Plan) ([]objects.Object, error) {
	var names []string
	tags := false
	for _, o := range sets {
		if o.Kind == string(objects.ITMS) {
			tags = tags || s.served[objects.ITMS]
		} else {
			names = append(names, o.Name)
		}
	}
	var err error
	if len(names) > 0 {
		p.Kind, p.KindReason, err = s.chooseKind(opts.Kind, names, tags)
	} else if tags && len(s.sets[objects.ICSP]) > 0 && !s.together() {
		err = s.apart(objects.ITMS)
	}
	if errors.Is(err, ErrConflict) && !c.on("mirror-set-kinds") {
		if p.Kind, err = opts.Kind, nil; p.Kind == "" {
			p.Kind = objects.IDMS
		}
	}
	if err != nil {
		return nil, err
	}
	var out []objects.Object
	for _, o := range sets {
		switch {
		case o.Kind != string(objects.ITMS):
			form, err := otherForm(o, p.Kind, opts.Alternatives)
			if err != nil {
				return nil, err
			}
			out = append(out, form)
		case s.served[objects.ITMS]:
			out = append(out, o)
		default:
			p.Warnings = append(p.Warnings, fmt.Sprintf("%s %s is left out: the cluster has no such kind, which came with 4.13; images that came by tag are pulled by the registry's own name", o.Kind, o.Name))
		}
	}
	return out, nil
}

// otherForm is a mirror set in the wanted kind: itself, its alternative, or rendered anew.
func otherForm(o objects.Object, kind objects.Kind, alternatives []objects.Object) (objects.Object, error) {
	if o.Kind == string(kind) {
		return o, nil
	}
	for _, a := range alternatives {
		if a.Kind == string(kind) && a.Name == o.Name {
			return a, nil
		}
	}
	_, name, mirrors, err := objects.ParseMirrorSet(o.YAML)
	if err != nil {
		return o, fmt.Errorf("%s %s: %w", o.Kind, o.Name, err)
	}
	return objects.MirrorSet(kind, name, mirrors)
}
