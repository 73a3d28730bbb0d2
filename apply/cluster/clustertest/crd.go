package clustertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const crdPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// CRDs are what a cluster of today has of the kinds that pannier reads or writes, the
// ImageContentSourcePolicy that came before the mirror sets included.
var CRDs = []string{
	"apirequestcounts.apiserver.openshift.io",
	"clusterimagepolicies.config.openshift.io",
	"clusteroperators.config.openshift.io",
	"clusterversions.config.openshift.io",
	"etcds.operator.openshift.io",
	"imagecontentsourcepolicies.operator.openshift.io",
	"imagedigestmirrorsets.config.openshift.io",
	"images.config.openshift.io",
	"imagetagmirrorsets.config.openshift.io",
	"infrastructures.config.openshift.io",
	"machineconfigpools.machineconfiguration.openshift.io",
	"machineconfigs.machineconfiguration.openshift.io",
	"machineconfigurations.operator.openshift.io",
	"machinehealthchecks.machine.openshift.io",
	"proxies.config.openshift.io",
	"routes.route.openshift.io",
}

// Without is CRDs but for those named.
func Without(names ...string) []string {
	for _, name := range names {
		if !slices.Contains(CRDs, name) {
			panic("clustertest: no CRD " + name + " to go without")
		}
	}
	return slices.DeleteFunc(slices.Clone(CRDs), func(name string) bool { return slices.Contains(names, name) })
}

// Old is a cluster of 4.8: ImageContentSourcePolicy alone, and no field that came later and
// that pannier could be tempted to write or to count on.
func Old() Options {
	return Options{
		CRDs: Without("clusterimagepolicies.config.openshift.io", "machineconfigurations.operator.openshift.io",
			"imagedigestmirrorsets.config.openshift.io", "imagetagmirrorsets.config.openshift.io"),
		CutRules: true,
		Cut: map[string][]string{
			"clusterversions.config.openshift.io": {
				"spec.capabilities",
				"spec.desiredUpdate.architecture",
				"status.availableUpdates.architecture",
				"status.capabilities",
				"status.conditionalUpdates",
				"status.desired.architecture",
				"status.history.acceptedRisks",
			},
			"machineconfigpools.machineconfiguration.openshift.io": {
				"spec.pinnedImageSets",
				"status.certExpirys",
				"status.poolSynchronizersStatus",
			},
		},
	}
}

// WithoutICSP is a cluster whose only mirror sets are IDMS and ITMS.
func WithoutICSP() Options {
	return Options{CRDs: Without("imagecontentsourcepolicies.operator.openshift.io")}
}

// install makes the CRDs of o be served.
func (p *Plane) install(ctx context.Context, o Options) error {
	names := o.CRDs
	if names == nil {
		names = CRDs
	}
	for name := range o.Cut {
		if !slices.Contains(names, name) {
			return fmt.Errorf("CRD %s: has fields to cut, but is not to be installed", name)
		}
	}
	dir := ""
	for _, name := range names {
		if dir == "" {
			var err error
			if dir, err = moduleDir(ctx, "github.com/openshift/api"); err != nil {
				return err
			}
		}
		crd, err := readCRD(dir, name)
		if err != nil {
			return err
		}
		for _, field := range o.Cut[name] {
			if err := cutField(crd, field); err != nil {
				return fmt.Errorf("CRD %s: %w", name, err)
			}
		}
		if o.CutRules {
			cutRules(crd["spec"])
		}
		if _, err := p.Create(ctx, crd); err != nil {
			return fmt.Errorf("CRD %s: %w", name, err)
		}
	}
	for _, name := range names {
		if err := p.waitServed(ctx, name); err != nil {
			return fmt.Errorf("CRD %s: %w", name, err)
		}
	}
	return nil
}

// InstallCRD adds one more CRD of OpenShift: "etcdbackups.operator.openshift.io".
func (p *Plane) InstallCRD(ctx context.Context, name string) error {
	return p.install(ctx, Options{CRDs: []string{name}})
}

// RemoveCRD removes a CRD with all its objects, and returns when it is served no more.
func (p *Plane) RemoveCRD(ctx context.Context, name string) error {
	crd, err := p.Get(ctx, crdPath+"/"+name)
	if err != nil {
		return err
	}
	if err := p.Delete(ctx, crdPath+"/"+name); err != nil {
		return err
	}
	for _, path := range append(crdCollections(crd), crdPath+"/"+name) {
		if err := poll(ctx, func() (bool, error) {
			_, err := p.Get(ctx, path)
			if errors.Is(err, ErrNotFound) {
				return true, nil
			}
			return false, err
		}); err != nil {
			return err
		}
	}
	return nil
}

// readCRD finds the CRD in the module of OpenShift's API: as a cluster without feature gates
// has it, or, for what stands behind a gate only, as the technology preview has it.
func readCRD(dir, name string) (Object, error) {
	plural, _, _ := strings.Cut(name, ".")
	for _, set := range []string{"", "-Default", "-TechPreviewNoUpgrade", "-CustomNoUpgrade"} {
		files, err := filepath.Glob(filepath.Join(dir, "*", "*", "zz_generated.crd-manifests", "*"+plural+set+".crd.yaml"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			list, err := Decode(raw)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			if len(list) == 1 && list[0].Name() == name {
				delete(list[0], "status")
				return list[0], nil
			}
		}
	}
	return nil, fmt.Errorf("no CRD %s in %s", name, dir)
}

// waitServed returns when the server takes objects of the kind.
func (p *Plane) waitServed(ctx context.Context, name string) error {
	return poll(ctx, func() (bool, error) {
		crd, err := p.Get(ctx, crdPath+"/"+name)
		if err != nil {
			return false, err
		}
		if c := crd.Condition("NonStructuralSchema"); c.Text("status") == "True" {
			return false, errors.New(c.Text("message"))
		}
		if crd.Condition("Established").Text("status") != "True" {
			return false, nil
		}
		for _, path := range crdCollections(crd) {
			// Established is said a moment before the handler knows.
			if _, err := p.Get(ctx, path); errors.Is(err, ErrNotFound) {
				return false, nil
			} else if err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// crdCollections are the paths of all objects of a CRD, for the version that is stored.
func crdCollections(crd Object) []string {
	var paths []string
	for _, v := range crd.Objects("spec", "versions") {
		if v["storage"] == true {
			paths = append(paths, "/apis/"+crd.Text("spec", "group")+"/"+v.Text("name")+"/"+crd.Text("spec", "names", "plural"))
		}
	}
	return paths
}

// cutField takes a field out of the schemas of all versions of the CRD.
func cutField(crd Object, field string) error {
	steps := strings.Split(field, ".")
	last := steps[len(steps)-1]
	for _, version := range crd.Objects("spec", "versions") {
		schema := Object(version).At("schema", "openAPIV3Schema")
		for _, step := range steps[:len(steps)-1] {
			schema = property(schema, step)
		}
		if property(schema, last) == nil {
			return fmt.Errorf("version %s has no field %s to cut", version.Text("name"), field)
		}
		parent := elements(schema)
		delete(parent["properties"].(map[string]any), last)
		if required, ok := parent["required"].([]any); ok {
			parent["required"] = slices.DeleteFunc(required, func(v any) bool { return v == last })
		}
	}
	return nil
}

// elements is the schema of the elements of an array, or the schema itself.
func elements(schema any) map[string]any {
	m, _ := schema.(map[string]any)
	if items, ok := m["items"].(map[string]any); ok {
		return items
	}
	return m
}

func property(schema any, name string) any {
	properties, _ := elements(schema)["properties"].(map[string]any)
	return properties[name]
}

// cutRules removes the CEL rules everywhere below.
func cutRules(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "x-kubernetes-validations")
		for _, below := range v {
			cutRules(below)
		}
	case []any:
		for _, below := range v {
			cutRules(below)
		}
	}
}

// poll asks until it is done, an error stands in the way or ctx ends.
func poll(ctx context.Context, ask func() (bool, error)) error {
	for {
		if done, err := ask(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
