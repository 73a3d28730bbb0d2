//go:build cluster

package cluster

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pannier/bundle/objects"
)

const (
	idmsAPI = configAPI + "/imagedigestmirrorsets"
	itmsAPI = configAPI + "/imagetagmirrorsets"
	icspAPI = "/apis/operator.openshift.io/v1alpha1/imagecontentsourcepolicies"
	cmAPI   = "/api/v1/namespaces/openshift-config-managed/configmaps"
)

func actions(p *Plan) string {
	var out []string
	for _, c := range p.Changes {
		out = append(out, string(c.Action))
	}
	return strings.Join(out, " ")
}

func TestApply(t *testing.T) {
	w := newWorld(t)
	c := w.cluster()
	opts := ApplyOptions{Objects: releaseObjects(t, objects.ICSP)}

	dry := opts
	dry.DryRun = true
	p, err := c.Apply(w.ctx, dry)
	if err != nil || actions(p) != "create create" {
		t.Fatalf("dry run: %v, %v", p, err)
	}
	if p.Changes[0].Object.Kind != "ConfigMap" || p.Kind != objects.IDMS || !strings.Contains(p.Changes[1].Diff, "+ "+testSource+" -> "+testMirror) {
		t.Errorf("signatures first, then an IDMS with its pairs: %+v", p)
	}
	if !strings.Contains(p.NodeEffect, "no drain and no reboot") || len(p.Pools) != 2 || p.Pools[0].Machines != 3 || len(p.Nodes) != 5 {
		t.Errorf("effect %q, pools %+v", p.NodeEffect, p.Pools)
	}
	if _, err := w.plane.Get(w.ctx, idmsAPI+"/"+objects.ReleaseName); err == nil {
		t.Error("the dry run wrote")
	}

	planned := false
	opts.Planned = func(*Plan) {
		planned = true
		if _, err := w.plane.Get(w.ctx, idmsAPI+"/"+objects.ReleaseName); err == nil {
			t.Error("planned is called after the write")
		}
	}
	if p, err = c.Apply(w.ctx, opts); err != nil || actions(p) != "create create" || !planned {
		t.Fatalf("%v, %v", p, err)
	}
	set := w.get(idmsAPI + "/" + objects.ReleaseName)
	if set.Text("metadata", "labels", objects.ManagedByLabel) != objects.ManagedBy || len(set.Objects("spec", "imageDigestMirrors")) != 2 {
		t.Errorf("%v", set)
	}
	cm := w.get(cmAPI + "/sha256-" + newDigest.Encoded())
	if cm.Text("binaryData", "sha256-"+newDigest.Encoded()+"-1") != base64.StdEncoding.EncodeToString(signature) {
		t.Errorf("%v", cm)
	}

	opts.Planned = nil
	p, err = c.Apply(w.ctx, opts)
	if err != nil || actions(p) != "unchanged unchanged" || p.Writes() {
		t.Fatalf("again: %v, %v", actions(p), err)
	}
	if v := w.get(idmsAPI+"/"+objects.ReleaseName).Text("metadata", "resourceVersion"); v != set.Text("metadata", "resourceVersion") {
		t.Error("it was written again")
	}
}

func TestApplyAddsAndNeverRemoves(t *testing.T) {
	w := newWorld(t)
	c := w.cluster()
	const more = "quay.io/custom/release"
	for _, o := range [][]objects.Object{
		{mirrorObject(t, objects.IDMS, objects.ReleaseName, "old.example/a/b", testSource, more)},
		releaseObjects(t, objects.IDMS),
	} {
		if _, err := c.Apply(w.ctx, ApplyOptions{Objects: o}); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for _, e := range w.get(idmsAPI+"/"+objects.ReleaseName).Objects("spec", "imageDigestMirrors") {
		got[e.Text("source")] = strings.Join(strings.Fields(strings.Trim(strings.ReplaceAll(fmt.Sprint(e.At("mirrors")), "[", " "), "]")), " ")
	}
	if got[testSource] != testMirror+" old.example/a/b" || got[more] != "old.example/a/b" || got[testParts] != testMirror {
		t.Errorf("%v", got)
	}

	// A ConfigMap of ours that holds another release too, and a second signature.
	other := "sha256-" + oldDigest.Encoded()
	w.patch(cmAPI+"/sha256-"+newDigest.Encoded(), map[string]any{"binaryData": map[string]any{other: []byte("x")}})
	second := append(bytes.Clone(signature), 2)
	p, err := c.Apply(w.ctx, ApplyOptions{Objects: []objects.Object{signatureObject(t, newDigest, second, signature)}})
	if err != nil || actions(p) != "update" {
		t.Fatalf("%v, %v", p, err)
	}
	data, _ := w.get(cmAPI + "/sha256-" + newDigest.Encoded()).At("binaryData").(map[string]any)
	if len(data) != 3 || data[other] == nil {
		t.Errorf("%v", data)
	}
}

func TestApplyLeavesOthersAlone(t *testing.T) {
	w := newWorld(t)
	c := w.cluster()
	w.load(`
apiVersion: v1
kind: ConfigMap
metadata: {name: release-image-4.16.9, namespace: openshift-config-managed, labels: {release.openshift.io/verification-signatures: ""}}
binaryData: {sha256-%s: %s}
---
apiVersion: operator.openshift.io/v1alpha1
kind: ImageContentSourcePolicy
metadata: {name: by-hand}
spec:
  repositoryDigestMirrors:
  - {source: %s, mirrors: [%s]}
  - {source: %s, mirrors: [other.example/x, %s]}
`, newDigest.Encoded(), base64.StdEncoding.EncodeToString(signature), testSource, testMirror, testParts, testMirror)
	p, err := c.Apply(w.ctx, ApplyOptions{Objects: releaseObjects(t, objects.IDMS)})
	if err != nil || actions(p) != "covered covered" {
		t.Fatalf("%v, %v", p, err)
	}
	if p.Changes[0].Reason != "ConfigMap release-image-4.16.9" || p.Changes[1].Reason != "ImageContentSourcePolicy by-hand" || !strings.Contains(p.NodeEffect, "stay as they are") {
		t.Errorf("%+v", p)
	}

	// The same name, made by somebody else, with less in it.
	w = newWorld(t)
	w.load(`
apiVersion: v1
kind: ConfigMap
metadata: {name: sha256-%s, namespace: openshift-config-managed}
binaryData: {x: AQ==}
`, newDigest.Encoded())
	p, err = c.Apply(w.ctx, ApplyOptions{Objects: []objects.Object{signatureObject(t, newDigest, signature)}})
	if err != nil || actions(p) != "create" {
		t.Fatalf("%v, %v", p, err)
	}
	if data, _ := w.get(cmAPI + "/sha256-" + newDigest.Encoded()).At("binaryData").(map[string]any); len(data) != 1 {
		t.Errorf("somebody else's object was changed: %v", data)
	}
	w.get(cmAPI + "/pannier-sha256-" + newDigest.Encoded())
	if p, err = c.Apply(w.ctx, ApplyOptions{Objects: []objects.Object{signatureObject(t, newDigest, signature)}}); err != nil || p.Writes() {
		t.Errorf("again: %v, %v", p, err)
	}

	for name, o := range map[string]objects.Object{
		"another kind":         {APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRoleBinding", Name: "x", YAML: []byte("kind: ClusterRoleBinding")},
		"the operator's store": {APIVersion: "v1", Kind: "ConfigMap", Name: managedSignatures, Namespace: objects.SignatureNamespace, YAML: signatureObject(t, newDigest, signature).YAML},
		"another namespace":    {APIVersion: "v1", Kind: "ConfigMap", Name: "x", Namespace: "openshift-config", YAML: signatureObject(t, newDigest, signature).YAML},
	} {
		if _, err := c.Apply(w.ctx, ApplyOptions{Objects: []objects.Object{o}}); !errors.Is(err, objects.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// guardCase is a cluster in which applying must be refused by one guard; done says whether
// the harm that the guard keeps away has happened.
type applyCase struct {
	guard   string
	version string
	setup   string
	kind    objects.Kind
	objects func(*testing.T) []objects.Object
	want    error // nil: refused by doing nothing
}

func applyCases() []applyCase {
	usual := func(t *testing.T) []objects.Object { return releaseObjects(t, objects.IDMS)[:1] }
	return []applyCase{
		{guard: "loopback", want: ErrLoopback, objects: func(t *testing.T) []objects.Object {
			return []objects.Object{mirrorObject(t, objects.IDMS, objects.ReleaseName, "localhost:5000/a/b", testSource)}
		}},
		{guard: "covered", setup: `
apiVersion: config.openshift.io/v1
kind: ImageDigestMirrorSet
metadata: {name: by-hand}
spec: {imageDigestMirrors: [{source: %[1]s, mirrors: [%[3]s]}, {source: %[2]s, mirrors: [%[3]s]}]}`, objects: usual},
		{guard: "foreign", want: ErrForeign, setup: `
apiVersion: config.openshift.io/v1
kind: ImageDigestMirrorSet
metadata: {name: pannier-release}
spec: {imageDigestMirrors: [{source: %[1]s, mirrors: [other.example/x]}]}`, objects: usual},
		{guard: "mirror-policies", want: ErrConflict, setup: `
apiVersion: config.openshift.io/v1
kind: ImageDigestMirrorSet
metadata: {name: by-hand}
spec: {imageDigestMirrors: [{source: %[1]s, mirrors: [other.example/x], mirrorSourcePolicy: NeverContactSource}]}`, objects: usual},
		{guard: "hidden-mirrors", want: ErrConflict, setup: `
apiVersion: config.openshift.io/v1
kind: ImageDigestMirrorSet
metadata: {name: by-hand}
spec: {imageDigestMirrors: [{source: %[1]s, mirrors: [other.example/x]}]}`, objects: func(t *testing.T) []objects.Object {
			return []objects.Object{mirrorObject(t, objects.IDMS, objects.ReleaseName, "reg.example:5000/mirror", "quay.io/openshift-release-dev")}
		}},
		{guard: "mirror-set-kinds", version: "4.14.1", want: ErrConflict, kind: objects.IDMS, setup: `
apiVersion: operator.openshift.io/v1alpha1
kind: ImageContentSourcePolicy
metadata: {name: by-hand}
spec: {repositoryDigestMirrors: [{source: %[1]s, mirrors: [other.example/x]}]}`, objects: usual},
	}
}

// TestApplyGuards shows of each guard that it refuses, before anything is written, and that
// without it the harm is done.
func TestApplyGuards(t *testing.T) {
	covered := map[string]bool{}
	for _, tc := range applyCases() {
		covered[tc.guard] = true
		for _, off := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s off %v", tc.guard, off), func(t *testing.T) {
				w := newWorld(t)
				if tc.version != "" {
					w.build(tc.version)
				}
				if tc.setup != "" {
					w.load(tc.setup, testSource, testParts, testMirror)
				}
				c := w.cluster()
				if off {
					c = w.cluster(tc.guard)
				}
				p, err := c.Apply(w.ctx, ApplyOptions{Objects: append(tc.objects(t), signatureObject(t, newDigest, signature)), Kind: tc.kind})
				wrote := err == nil && p.Changes[len(p.Changes)-1].Writes()
				refused := tc.want == nil && err == nil && !wrote || tc.want != nil && errors.Is(err, tc.want)
				if refused == off || wrote != off {
					t.Errorf("error %v, wrote %v", err, wrote)
				}
				if err != nil {
					if _, err := w.plane.Get(w.ctx, cmAPI+"/sha256-"+newDigest.Encoded()); err == nil {
						t.Error("the signature was written before the refusal")
					}
				}
			})
		}
	}
	for _, name := range applyGuards {
		if !covered[name] {
			t.Errorf("guard %s has no case", name)
		}
	}
}

func TestKindByCoexistence(t *testing.T) {
	const icsp, idms = `
apiVersion: operator.openshift.io/v1alpha1
kind: ImageContentSourcePolicy
metadata: {name: by-hand}
spec: {repositoryDigestMirrors: [{source: quay.io/a/b, mirrors: [other.example/x]}]}
`, `
apiVersion: config.openshift.io/v1
kind: ImageDigestMirrorSet
metadata: {name: by-hand}
spec: {imageDigestMirrors: [{source: quay.io/a/b, mirrors: [other.example/x]}]}
`
	own := string(mirrorObject(t, objects.ICSP, objects.ReleaseName, "old.example/x", testSource).YAML)
	tags := mirrorObject(t, objects.ITMS, objects.AdditionalName, "reg.example:5000/ubi", "registry.example/ubi")
	for _, tc := range []struct {
		name, version, exist string
		ask                  objects.Kind
		tags                 bool
		want                 objects.Kind
		err                  error
	}{
		{name: "nothing there", version: "4.14.1", want: objects.IDMS},
		{name: "an ICSP below 4.15", version: "4.14.1", exist: icsp, want: objects.ICSP},
		{name: "an ICSP from 4.15 on", version: "4.15.0", exist: icsp, want: objects.IDMS},
		{name: "an ICSP of ours from 4.15 on", version: "4.16.3", exist: own, want: objects.ICSP},
		{name: "an IDMS below 4.15", version: "4.13.2", exist: idms, want: objects.IDMS},
		{name: "both below 4.15", version: "4.13.2", exist: icsp + "---" + idms, want: objects.IDMS},
		{name: "ICSP asked for", version: "4.16.3", ask: objects.ICSP, want: objects.ICSP},
		{name: "ICSP asked for beside an IDMS", version: "4.14.1", ask: objects.ICSP, exist: idms, err: ErrConflict},
		{name: "tags beside an ICSP below 4.15", version: "4.14.1", exist: icsp, tags: true, err: ErrConflict},
		{name: "tags beside an ICSP", version: "4.15.2", exist: icsp, tags: true, want: objects.IDMS},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.build(tc.version)
			if tc.exist != "" {
				w.load("%s", tc.exist)
			}
			all := releaseObjects(t, objects.ICSP)[:1]
			if tc.tags {
				all = append(all, tags)
			}
			p, err := w.cluster().Apply(w.ctx, ApplyOptions{Objects: all, Kind: tc.ask, Alternatives: releaseObjects(t, objects.IDMS)[:1]})
			if !errors.Is(err, tc.err) || err == nil && p.Kind != tc.want {
				t.Fatalf("%+v, %v", p, err)
			}
			if err == nil && !strings.Contains(p.NodeEffect, map[bool]string{true: "are drained", false: "no drain"}[tc.tags]) {
				t.Errorf("effect: %s", p.NodeEffect)
			}
		})
	}
}

// TestNodePolicy: what an administrator has decided of the file that mirrors come in is said
// before the write, and also that it may not be read.
func TestNodePolicy(t *testing.T) {
	w := newWorld(t)
	w.load("apiVersion: operator.openshift.io/v1\nkind: MachineConfiguration\nmetadata: {name: cluster}\nspec: {managementState: Managed, nodeDisruptionPolicy: {files: [{path: /etc/containers/registries.conf, actions: [{type: Reboot}]}]}}")
	opts := ApplyOptions{Objects: releaseObjects(t, objects.IDMS), DryRun: true}
	p, err := w.cluster().Apply(w.ctx, opts)
	if err != nil || !strings.Contains(p.NodeEffect, "a policy of its own for /etc/containers/registries.conf: Reboot") {
		t.Errorf("%+v, %v", p, err)
	}
	s, err := w.cluster().surroundings(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err = w.user(rules(needed(s))...).Apply(w.ctx, opts)
	if err != nil || !strings.Contains(p.NodeEffect, "may not be read") {
		t.Errorf("%+v, %v", p, err)
	}
}
