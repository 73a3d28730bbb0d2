//go:build cluster

package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"pannier/apply/cluster/clustertest"
	"pannier/bundle/objects"
)

// shared is the API server of all tests that neither kill it nor need other schemas.
var shared *clustertest.Plane

func TestMain(m *testing.M) {
	var err error
	if shared, err = clustertest.Launch(clustertest.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	shared.Close()
	os.Exit(code)
}

const (
	testVersion = "4.16.3"
	testSource  = "quay.io/openshift-release-dev/ocp-release"
	testParts   = "quay.io/openshift-release-dev/ocp-v4.0-art-dev"
	testMirror  = "reg.example:5000/ocp4/openshift4"

	configAPI = "/apis/config.openshift.io/v1"
	poolAPI   = "/apis/machineconfiguration.openshift.io/v1"
	cvPath    = configAPI + "/clusterversions/version"
)

var (
	oldDigest = digest.FromString("the release that runs")
	newDigest = digest.FromString("the release that is wanted")
	signature = []byte{0xa3, 0x01, 's', 'i', 'g'}
)

// world is a cluster in an API server, healthy unless a test spoils it.
type world struct {
	t          *testing.T
	ctx        context.Context
	plane      *clustertest.Plane
	names      *clustertest.Names
	monitoring *clustertest.Monitoring
	cert       *x509.Certificate

	mu     sync.Mutex
	events []Event
}

// newWorld builds a healthy cluster in the shared API server.
func newWorld(t *testing.T) *world {
	t.Helper()
	if err := shared.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := emptyWorld(t, shared)
	w.build(testVersion)
	return w
}

func emptyWorld(t *testing.T, plane *clustertest.Plane) *world {
	t.Helper()
	w := &world{t: t, ctx: t.Context(), plane: plane, cert: testCertificate(t), names: clustertest.NewNames()}
	t.Cleanup(w.names.Close)
	var err error
	if w.monitoring, err = clustertest.NewMonitoring(plane, w.names); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.monitoring.Close)
	return w
}

// load writes objects given as YAML, status included.
func (w *world) load(text string, args ...any) {
	w.t.Helper()
	if _, err := w.plane.Load(w.ctx, []byte(fmt.Sprintf(text, args...))); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(path string) clustertest.Object {
	w.t.Helper()
	o, err := w.plane.Get(w.ctx, path)
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *world) patch(path string, patch any) {
	w.t.Helper()
	if _, err := w.plane.Patch(w.ctx, path, patch); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) patchStatus(path, status string) {
	w.t.Helper()
	if _, err := w.plane.PatchStatus(w.ctx, path, json.RawMessage(status)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) delete(path string) {
	w.t.Helper()
	if err := w.plane.Delete(w.ctx, path); err != nil {
		w.t.Fatal(err)
	}
}

// build writes a cluster of three masters and two workers that has the mirrors already.
func (w *world) build(version string) {
	w.t.Helper()
	v, _ := parseVersion(version)
	site := clustertest.Site{Plane: w.plane, Version: version, Kubelet: fmt.Sprintf("v1.%d.6+aba1e8d", v.kubeMinor())}
	if err := site.Build(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	if err := w.monitoring.Build(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	for _, p := range []struct {
		name string
		n    int
	}{{"master", 3}, {"worker", 2}} {
		config, path := w.render(p.name, wantedTestPairs(), "controller-1"), poolAPI+"/machineconfigpools/"+p.name
		w.patch(path, map[string]any{"spec": map[string]any{"configuration": map[string]any{"name": config}}})
		w.patchStatus(path, fmt.Sprintf(`{"observedGeneration":%d,"configuration":{"name":%q}}`, w.get(path).Generation(), config))
		for i := range p.n {
			w.patch(fmt.Sprintf("/api/v1/nodes/%s-%d", p.name, i), map[string]any{"metadata": map[string]any{"annotations": map[string]any{nodeCurrentConfig: config, nodeDesiredConfig: config}}})
		}
	}
	w.load(`
apiVersion: v1
kind: Secret
metadata: {name: pull-secret, namespace: openshift-config}
type: kubernetes.io/dockerconfigjson
data: {.dockerconfigjson: %s}
---
apiVersion: config.openshift.io/v1
kind: Image
metadata: {name: cluster}
spec: {additionalTrustedCA: {name: registry-ca}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: registry-ca, namespace: openshift-config}
data: {reg.example..5000: %q}
`, base64.StdEncoding.EncodeToString([]byte(`{"auths":{"reg.example:5000":{"auth":"dTpw"}}}`)),
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.cert.Raw})))
}

func wantedTestPairs() []pair {
	return []pair{{testSource, testMirror}, {testParts, testMirror}}
}

// render writes the machine config that holds mirrors, as the operator does, and returns its
// name. Half of the pools get their file compressed: both forms are in use.
func (w *world) render(pool string, mirrors []pair, controller string) string {
	var conf strings.Builder
	conf.WriteString("unqualified-search-registries = [\"registry.access.redhat.com\"]\n")
	slices.SortFunc(mirrors, func(a, b pair) int { return strings.Compare(a.String(), b.String()) })
	for i, p := range mirrors {
		if i == 0 || mirrors[i-1].source != p.source {
			fmt.Fprintf(&conf, "\n[[registry]]\n  prefix = \"\"\n  location = %q\n", p.source)
		}
		fmt.Fprintf(&conf, "\n  [[registry.mirror]]\n    location = %q\n    pull-from-mirror = \"digest-only\"\n", p.mirror)
	}
	name := fmt.Sprintf("rendered-%s-%s", pool, digest.FromString(conf.String() + controller).Encoded()[:12])
	source, compression := "data:,"+url.PathEscape(conf.String()), ""
	if pool == "worker" {
		var z bytes.Buffer
		g := gzip.NewWriter(&z)
		g.Write([]byte(conf.String()))
		g.Close()
		source, compression = "data:;base64,"+base64.StdEncoding.EncodeToString(z.Bytes()), "gzip"
	}
	_, err := w.plane.Apply(w.ctx, clustertest.Object{
		"apiVersion": "machineconfiguration.openshift.io/v1", "kind": "MachineConfig",
		"metadata": clustertest.Object{"name": name, "annotations": clustertest.Object{"machineconfiguration.openshift.io/generated-by-controller-version": controller}},
		"spec": clustertest.Object{"config": clustertest.Object{"ignition": clustertest.Object{"version": "3.2.0"},
			"storage": clustertest.Object{"files": []any{
				clustertest.Object{"path": "/etc/other", "contents": clustertest.Object{"source": "data:,x"}},
				clustertest.Object{"path": registriesFile, "contents": clustertest.Object{"source": source, "compression": compression}},
			}}}},
	})
	if err != nil && w.ctx.Err() == nil && w.plane.Running() {
		w.t.Logf("render %s: %v", name, err)
	}
	return name
}

var fast = Timing{
	Poll: 40 * time.Millisecond, Request: 20 * time.Second, GiveUp: 2 * time.Minute, Denied: time.Second,
	Render: 20 * time.Second, Degraded: 300 * time.Millisecond, Refusal: 2 * time.Second,
	Accept: 20 * time.Second, Backup: 20 * time.Second, Probe: 10 * time.Second,
}

// cluster connects as the administrator, with guards switched off.
func (w *world) cluster(off ...string) *Cluster { return w.connect(w.plane.Kubeconfig, fast, off...) }

func (w *world) connect(kubeconfig string, timing Timing, off ...string) *Cluster {
	w.t.Helper()
	c, err := Connect(Options{Kubeconfig: []string{kubeconfig}, Timing: timing, Proxy: w.names.Proxy, Progress: func(e Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	c.disable = map[string]bool{}
	for _, name := range off {
		c.disable[name] = true
	}
	return c
}

// said reports whether an event's message contains text.
func (w *world) said(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.events, func(e Event) bool { return strings.Contains(e.Message, text) })
}

func (w *world) log() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, e := range w.events {
		fmt.Fprintf(&b, "%s %s: %s\n", e.Kind, e.Name, e.Message)
	}
	return b.String()
}

func signatureObject(t *testing.T, d digest.Digest, sigs ...[]byte) objects.Object {
	t.Helper()
	o, err := objects.SignatureConfigMap(d, "4.16.9", sigs)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func mirrorObject(t *testing.T, kind objects.Kind, name, mirror string, sources ...string) objects.Object {
	t.Helper()
	var all []objects.Mirror
	for _, s := range sources {
		all = append(all, objects.Mirror{Source: s, Mirrors: []string{mirror}})
	}
	o, err := objects.MirrorSet(kind, name, all)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// release is the usual set of objects, in the wrong order.
func releaseObjects(t *testing.T, kind objects.Kind) []objects.Object {
	return []objects.Object{
		mirrorObject(t, kind, objects.ReleaseName, testMirror, testSource, testParts),
		signatureObject(t, newDigest, signature),
	}
}

// arrived brings the usual objects to the cluster, so that it can be updated.
func (w *world) arrived() {
	w.t.Helper()
	if _, err := w.cluster().Apply(w.ctx, ApplyOptions{Objects: releaseObjects(w.t, objects.IDMS)}); err != nil {
		w.t.Fatal(err)
	}
}

// options are those of an update that nothing stands against.
func (w *world) options() UpgradeOptions {
	return UpgradeOptions{
		Target: Target{Image: testMirror + "@" + newDigest.String(), Version: "4.16.9", Arch: "x86_64",
			Previous: []string{testVersion}, Sources: []string{testSource, testParts}},
		Preflight: PreflightOptions{EtcdBackup: "1h", Handshake: func(context.Context, string) (tls.ConnectionState, error) {
			return tls.ConnectionState{PeerCertificates: []*x509.Certificate{w.cert}}, nil
		}},
	}
}

// asked is the image that the cluster has been asked for, "" for none.
func (w *world) asked() string { return w.get(cvPath).Text("spec", "desiredUpdate", "image") }

func testCertificate(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "reg.example"}, DNSNames: []string{"reg.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
