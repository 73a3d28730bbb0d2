package clustertest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Site is a small cluster in a Plane: three masters and two workers, healthy, and the
// operators that Operate plays on it.
type Site struct {
	Plane   *Plane
	Version string // that it runs, "4.16.3"
	Kubelet string // "v1.29.6"

	// Releases are the versions that the cluster version operator can read from a release
	// image, by digest; it refuses all others.
	Releases map[string]string

	mu         sync.Mutex
	degrade    string // pool that fails when it is rolled
	refuse     string // message with which releases are refused; "" accepts
	controller string // of the machine-config operator; changes with an update
	pulls      map[string]string
	errs       []string
}

const (
	siteVersionPath = "/apis/config.openshift.io/v1/clusterversions/version"
	sitePools       = "/apis/machineconfiguration.openshift.io/v1/machineconfigpools"
	siteThen        = "2026-01-01T00:00:00Z"
	mcoPrefix       = "machineconfiguration.openshift.io/"
)

// siteNodes is how many nodes each pool has.
var siteNodes = map[string]int{"master": 3, "worker": 2}

// Build makes the cluster. What is there of an earlier one must have been removed by Reset.
func (s *Site) Build(ctx context.Context) error {
	s.controller = "controller of " + s.Version
	var b strings.Builder
	image := "quay.io/openshift-release-dev/ocp-release@" + digest.FromString("the release that runs").String()
	fmt.Fprintf(&b, `
apiVersion: config.openshift.io/v1
kind: ClusterVersion
metadata: {name: version, generation: 1}
spec: {clusterID: 0a7e9a1c-3f9b-4a7d-9a52-1b6b7d6e1f11, channel: stable}
status:
  desired: {version: %[1]s, image: "%[2]s"}
  observedGeneration: 1
  versionHash: abc=
  availableUpdates: null
  history: [{state: Completed, startedTime: "%[3]s", completionTime: "%[3]s", version: %[1]s, image: "%[2]s", verified: true}]
  conditions:
  - {type: Available, status: "True", lastTransitionTime: "%[3]s"}
  - {type: Progressing, status: "False", lastTransitionTime: "%[3]s", message: Cluster version is %[1]s}
  - {type: Failing, status: "False", lastTransitionTime: "%[3]s"}
  - {type: ReleaseAccepted, status: "True", reason: PayloadLoaded, lastTransitionTime: "%[3]s", message: 'Payload loaded version="%[1]s" image="x" architecture="amd64"'}
---
apiVersion: v1
kind: Pod
metadata: {name: etcd-master-0, namespace: openshift-etcd, labels: {app: etcd}}
spec: {containers: [{name: etcd, image: "example.invalid/etcd"}]}
status: {phase: Running, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Secret
metadata: {name: pull-secret, namespace: openshift-config}
type: kubernetes.io/dockerconfigjson
data: {.dockerconfigjson: %[4]s}
`, s.Version, image, siteThen, base64.StdEncoding.EncodeToString([]byte(`{"auths":{}}`)))
	for _, name := range []string{"etcd", "machine-config", "kube-apiserver"} {
		fmt.Fprintf(&b, `
---
apiVersion: config.openshift.io/v1
kind: ClusterOperator
metadata: {name: %[1]s}
spec: {}
status:
  versions: [{name: operator, version: %[2]s}]
  conditions:
  - {type: Available, status: "True", lastTransitionTime: "%[3]s"}
  - {type: Degraded, status: "False", lastTransitionTime: "%[3]s"}
  - {type: Progressing, status: "False", lastTransitionTime: "%[3]s"}
  - {type: Upgradeable, status: "True", lastTransitionTime: "%[3]s"}
`, name, s.Version, siteThen)
	}
	for name, n := range siteNodes {
		config, err := s.render(ctx, name, "")
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, `
---
apiVersion: machineconfiguration.openshift.io/v1
kind: MachineConfigPool
metadata: {name: %[1]s, generation: 1}
spec:
  paused: false
  configuration: {name: %[2]s}
  machineConfigSelector: {matchLabels: {%[4]srole: %[1]s}}
  nodeSelector: {matchLabels: {node-role.kubernetes.io/%[1]s: ""}}
status:
  observedGeneration: 1
  configuration: {name: %[2]s}
  machineCount: %[3]d
  updatedMachineCount: %[3]d
  readyMachineCount: %[3]d
  unavailableMachineCount: 0
  degradedMachineCount: 0
  conditions: [{type: Updated, status: "True", lastTransitionTime: "%[5]s", reason: "", message: ""}]
`, name, config, n, mcoPrefix, siteThen)
		for i := range n {
			fmt.Fprintf(&b, `
---
apiVersion: v1
kind: Node
metadata:
  name: %[1]s-%[2]d
  labels: {node-role.kubernetes.io/%[1]s: ""}
  annotations: {%[5]sstate: Done, %[5]scurrentConfig: %[3]s, %[5]sdesiredConfig: %[3]s}
status:
  conditions: [{type: Ready, status: "True", reason: KubeletReady, message: ok, lastHeartbeatTime: "%[6]s", lastTransitionTime: "%[6]s"}]
  nodeInfo: {machineID: a, systemUUID: b, bootID: c, kernelVersion: d, osImage: RHCOS, containerRuntimeVersion: cri-o, kubeletVersion: %[4]s, kubeProxyVersion: %[4]s, operatingSystem: linux, architecture: amd64}
`, name, i, config, s.Kubelet, mcoPrefix, siteThen)
		}
	}
	_, err := s.Plane.Load(ctx, []byte(b.String()))
	return err
}

// Pause pauses a pool, or with "" none.
func (s *Site) Pause(ctx context.Context, pool string) error {
	for name := range siteNodes {
		if _, err := s.Plane.Patch(ctx, sitePools+"/"+name, Object{"spec": Object{"paused": name == pool}}); err != nil {
			return err
		}
	}
	return nil
}

// Degrade lets a pool fail when it is rolled; "" lets it go on.
func (s *Site) Degrade(pool string) { s.set(func() { s.degrade = pool }) }

// Refuse has the cluster refuse every release with a message; "" accepts again.
func (s *Site) Refuse(message string) { s.set(func() { s.refuse = message }) }

func (s *Site) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// Operate plays the machine-config operator and the cluster version operator until stop is
// called or ctx ends. Each looks at the API server every few milliseconds and makes one step
// of what it has to do; what fails, as it does while the server is away, is tried again.
func (s *Site) Operate(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() {
		for ctx.Err() == nil {
			s.mu.Lock()
			if err := s.rollPools(ctx); err == nil {
				s.update(ctx)
			}
			s.kubelets(ctx)
			s.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return func() { cancel(); ended.Wait() }
}

// mirrors are what all mirror sets say, as the lines of registries.conf.
func (s *Site) mirrors(ctx context.Context) (string, error) {
	bySource := map[string][]string{}
	for path, field := range map[string]string{
		"/apis/operator.openshift.io/v1alpha1/imagecontentsourcepolicies": "repositoryDigestMirrors",
		"/apis/config.openshift.io/v1/imagedigestmirrorsets":              "imageDigestMirrors",
	} {
		sets, err := s.Plane.List(ctx, path)
		if err != nil {
			return "", err
		}
		for _, set := range sets {
			for _, e := range set.Objects("spec", field) {
				list, _ := e["mirrors"].([]any)
				for _, m := range list {
					if text := fmt.Sprint(m); !slices.Contains(bySource[e.Text("source")], text) {
						bySource[e.Text("source")] = append(bySource[e.Text("source")], text)
					}
				}
			}
		}
	}
	var b strings.Builder
	for _, source := range slices.Sorted(maps.Keys(bySource)) {
		fmt.Fprintf(&b, "[[registry]]\n  location = %q\n", source)
		for _, m := range bySource[source] {
			fmt.Fprintf(&b, "  [[registry.mirror]]\n    location = %q\n    pull-from-mirror = \"digest-only\"\n", m)
		}
	}
	return b.String(), nil
}

// render writes the machine config of a pool, and returns its name.
func (s *Site) render(ctx context.Context, pool, registries string) (string, error) {
	name := fmt.Sprintf("rendered-%s-%s", pool, digest.FromString(registries + s.controller).Encoded()[:32])
	_, err := s.Plane.Apply(ctx, Object{
		"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfig",
		"metadata": Object{"name": name, "annotations": Object{mcoPrefix + "generated-by-controller-version": s.controller}},
		"spec": Object{"config": Object{"ignition": Object{"version": "3.2.0"}, "storage": Object{"files": []any{
			Object{"path": "/etc/containers/registries.conf", "contents": Object{"source": "data:," + url.PathEscape(registries)}},
		}}}},
	})
	return name, err
}

func siteCondition(kind, status, reason, message string) Object {
	return Object{"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time.Now().UTC().Format(time.RFC3339)}
}

// rollPools makes one step in every pool that does not have what it should.
func (s *Site) rollPools(ctx context.Context) error {
	registries, err := s.mirrors(ctx)
	if err != nil {
		return err
	}
	pools, err := s.Plane.List(ctx, sitePools)
	if err != nil {
		return err
	}
	for _, p := range pools {
		if err := s.rollPool(ctx, p, registries); err != nil {
			return err
		}
	}
	return nil
}

func (s *Site) rollPool(ctx context.Context, p Object, registries string) error {
	name, path := p.Name(), sitePools+"/"+p.Name()
	want, err := s.render(ctx, name, registries)
	if err != nil {
		return err
	}
	if p.Text("spec", "configuration", "name") != want {
		_, err := s.Plane.Patch(ctx, path, Object{"spec": Object{"configuration": Object{"name": want}}})
		return err
	}
	behind := p.Int("status", "observedGeneration") != p.Generation()
	if p.Text("status", "configuration", "name") == want && !behind {
		return nil
	}
	status := Object{"observedGeneration": p.Generation()}
	machines, updated := p.Int("status", "machineCount"), p.Int("status", "updatedMachineCount")
	switch {
	case p.At("spec", "paused") == true:
		if !behind {
			return nil
		}
	case p.Text("status", "configuration", "name") == want:
	case name == s.degrade:
		status["degradedMachineCount"] = 1
		status["conditions"] = []Object{siteCondition("Updated", "False", "", ""),
			siteCondition("NodeDegraded", "True", "1 nodes are reporting degraded status", "Node "+name+"-0 is reporting: no space left on device")}
	case p.Condition("Updating").Text("status") != "True":
		status["updatedMachineCount"], status["readyMachineCount"], status["degradedMachineCount"] = 0, 0, 0
		status["conditions"] = []Object{siteCondition("Updated", "False", "", ""), siteCondition("Updating", "True", "", "")}
	case updated < machines:
		node := fmt.Sprintf("/api/v1/nodes/%s-%d", name, updated)
		if _, err := s.Plane.Patch(ctx, node, Object{"metadata": Object{"annotations": Object{mcoPrefix + "currentConfig": want, mcoPrefix + "desiredConfig": want}}}); err != nil {
			return err
		}
		status["updatedMachineCount"], status["readyMachineCount"] = updated+1, updated+1
	default:
		status["configuration"] = Object{"name": want}
		status["conditions"] = []Object{siteCondition("Updated", "True", "", ""), siteCondition("Updating", "False", "", "")}
	}
	_, err = s.Plane.PatchStatus(ctx, path, status)
	return err
}

// update makes one step of what the cluster version operator does with a request: it looks
// for a signature and at the release, and either refuses, or goes through with it. The
// control plane's pool comes before the end, the workers' after it.
func (s *Site) update(ctx context.Context) {
	cv, err := s.Plane.Get(ctx, siteVersionPath)
	if err != nil {
		return
	}
	image := cv.Text("spec", "desiredUpdate", "image")
	status, _ := cv.At("status").(map[string]any)
	history, _ := status["history"].([]any)
	if status == nil || len(history) == 0 {
		return
	}
	_, dgst, _ := strings.Cut(image, "@")
	newest := cv.Objects("status", "history")[0]
	seen := cv.Int("status", "observedGeneration") == cv.Generation()
	next := Object{}
	maps.Copy(next, status)
	next["observedGeneration"] = cv.Generation()
	conditions := func(list ...Object) { next["conditions"] = list }
	calm := []Object{siteCondition("Available", "True", "", ""), siteCondition("Failing", "False", "", "")}
	accepted := siteCondition("ReleaseAccepted", "True", "PayloadLoaded", "Payload loaded")
	switch {
	case image == "" || newest.Text("image") == image && newest.Text("state") == "Completed":
		if seen {
			return
		}
	case newest.Text("image") == image:
		if !s.underway(ctx, newest.Text("version"), next, history) {
			return
		}
		conditions(append(calm, siteCondition("Progressing", "False", "", ""), accepted)...)
	case !seen:
		conditions(append(calm, siteCondition("Progressing", "False", "", ""), siteCondition("ReleaseAccepted", "Unknown", "RetrievePayload", "Retrieving"))...)
	default:
		if cv.Condition("ReleaseAccepted").Text("status") == "False" {
			return
		}
		if why := s.judge(ctx, dgst); why != "" {
			conditions(append(calm, siteCondition("Progressing", "False", "", ""),
				siteCondition("ReleaseAccepted", "False", "RetrievePayload", fmt.Sprintf("Retrieving payload failed version=\"\" image=%q failure=%s", image, why)))...)
			break
		}
		entry := Object{"state": "Partial", "startedTime": siteThen, "completionTime": nil, "version": s.Releases[dgst], "image": image, "verified": true}
		next["desired"] = Object{"version": s.Releases[dgst], "image": image}
		next["history"] = append([]any{entry}, history...)
		conditions(append(calm, siteCondition("Progressing", "True", "", "Working towards "+s.Releases[dgst]+": 1 of 2 done"), accepted)...)
		s.controller = "controller of " + s.Releases[dgst]
	}
	if _, err := s.Plane.PutStatus(ctx, siteVersionPath, next); err != nil && ctx.Err() == nil {
		s.errs = append(s.errs, err.Error())
	}
}

// underway ends an update once the control plane's nodes have the new configuration.
func (s *Site) underway(ctx context.Context, version string, next Object, history []any) bool {
	registries, err := s.mirrors(ctx)
	if err != nil {
		return false
	}
	want, err := s.render(ctx, "master", registries)
	if err != nil {
		return false
	}
	master, err := s.Plane.Get(ctx, sitePools+"/master")
	if err != nil || master.Text("status", "configuration", "name") != want {
		return false
	}
	for _, name := range []string{"etcd", "machine-config", "kube-apiserver"} {
		path := "/apis/config.openshift.io/v1/clusteroperators/" + name
		if _, err := s.Plane.PatchStatus(ctx, path, Object{"versions": []Object{{"name": "operator", "version": version}}}); err != nil {
			return false
		}
	}
	entry := Object{}
	first, _ := history[0].(map[string]any)
	maps.Copy(entry, first)
	entry["state"], entry["completionTime"] = "Completed", siteThen
	next["history"] = append([]any{entry}, history[1:]...)
	return true
}

// judge says why a release is refused, "" if it is not.
func (s *Site) judge(ctx context.Context, dgst string) string {
	if s.refuse != "" {
		return s.refuse
	}
	maps, err := s.Plane.List(ctx, "/api/v1/namespaces/openshift-config-managed/configmaps")
	if err != nil {
		return err.Error()
	}
	prefix := strings.Replace(dgst, ":", "-", 1)
	signed := slices.ContainsFunc(maps, func(m Object) bool {
		data, _ := m["binaryData"].(map[string]any)
		labels, _ := m.At("metadata", "labels").(map[string]any)
		_, labelled := labels["release.openshift.io/verification-signatures"]
		for key := range data {
			if labelled && strings.HasPrefix(key, prefix) {
				return true
			}
		}
		return false
	})
	switch {
	case !signed:
		return "The update cannot be verified: unable to verify " + dgst + " against keyrings: verifier-public-key-redhat"
	case s.Releases[dgst] == "":
		return "unable to pull " + dgst
	}
	return ""
}

// State is what there is to compare after runs that took different ways: the requested and
// the reached release, mirror sets and signatures, as text.
func (s *Site) State(ctx context.Context) (string, error) {
	var b strings.Builder
	cv, err := s.Plane.Get(ctx, siteVersionPath)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "desired %s\n", cv.Text("spec", "desiredUpdate", "image"))
	for _, h := range cv.Objects("status", "history") {
		fmt.Fprintf(&b, "history %s %s\n", h.Text("state"), h.Text("image"))
	}
	for _, collection := range []string{
		"/apis/operator.openshift.io/v1alpha1/imagecontentsourcepolicies", "/apis/config.openshift.io/v1/imagedigestmirrorsets",
		"/apis/config.openshift.io/v1/imagetagmirrorsets", "/api/v1/namespaces/openshift-config-managed/configmaps",
	} {
		list, err := s.Plane.List(ctx, collection)
		if err != nil {
			return "", err
		}
		for _, o := range list {
			data, _ := o["binaryData"].(map[string]any) // keys alone: a signature has the time in it
			raw, err := json.Marshal([]any{o["spec"], slices.Sorted(maps.Keys(data)), o.At("metadata", "labels")})
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "%s %s generation %d %s\n", path.Base(collection), o.Name(), o.Generation(), raw)
		}
	}
	pools, err := s.Plane.List(ctx, sitePools)
	if err != nil {
		return "", err
	}
	for _, p := range pools {
		fmt.Fprintf(&b, "pool %s %s %s\n", p.Name(), p.Text("spec", "configuration", "name"), p.Text("status", "configuration", "name"))
	}
	return b.String(), nil
}
