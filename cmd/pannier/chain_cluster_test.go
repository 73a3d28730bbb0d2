//go:build cluster

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pannier/apply/cluster"
	"pannier/apply/cluster/clustertest"
	"pannier/apply/trip"
	"pannier/bundle/release/sample"
)

// The real program against a real registry and a real API server, on which the tests play
// the operators. The program is this test binary under another name, so that init counts for
// it too.
func init() {
	pace = cluster.Timing{
		Poll: 100 * time.Millisecond, Denied: time.Second, GiveUp: 2 * time.Minute,
		Degraded: 500 * time.Millisecond, Refusal: 5 * time.Second, Accept: time.Minute, Render: time.Minute,
		Probe: 8 * time.Second,
	}
}

const (
	fromVersion = "4.16.3"
	toVersion   = "4.16.9"
	nodesKnow   = "reg.example:5000/ocp4/openshift4"
)

// yard is a packed drive, an empty registry and a healthy cluster.
type yard struct {
	t       *testing.T
	media   string
	origin  *trip.Origin
	release *sample.Release
	site    *trip.Site
	cluster *clustertest.Site
	names   *clustertest.Names
	home    string
	key     string
	stop    func() // the operators: two plays on one cluster would never end
}

var sharedPlane = sync.OnceValues(func() (*clustertest.Plane, error) {
	p, err := clustertest.Launch(clustertest.Options{})
	if err == nil {
		atEnd = append(atEnd, p.Close)
	}
	return p, err
})

// newYard starts from nothing; change may alter the cluster before the operators begin.
func newYard(t *testing.T, change func(*clustertest.Site)) *yard {
	t.Helper()
	return newYardOf(t, trip.Make(t, sample.Options{Version: toVersion, Components: 3, Previous: []string{fromVersion}}), fromVersion, "v1.29.6", change)
}

// newYardOf is newYard with another release, and a cluster of another version.
func newYardOf(t *testing.T, r *sample.Release, from, kubelet string, change func(*clustertest.Site)) *yard {
	t.Helper()
	return newYardPacked(t, []*sample.Release{r}, func(y *yard) { y.origin.Pack(y.media, r.Reference()) }, from, kubelet, change)
}

// newYardPacked is newYardOf with releases of which pack puts on the drive what it will. The
// cluster can read them all; the last one is what the yard is about.
func newYardPacked(t *testing.T, releases []*sample.Release, pack func(*yard), from, kubelet string, change func(*clustertest.Site)) *yard {
	t.Helper()
	plane, err := sharedPlane()
	if err != nil {
		t.Fatal(err)
	}
	if !plane.Running() {
		if err := plane.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	if err := plane.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	y := &yard{t: t, media: trip.Drive(t), site: trip.NewSite(t), release: releases[len(releases)-1], names: clustertest.NewNames(), home: t.TempDir()}
	t.Cleanup(y.names.Close)
	y.origin = trip.NewOrigin(t, releases...)
	y.key = filepath.Join(y.home, "key.asc")
	if err := os.WriteFile(y.key, trip.Key().Public(), 0o644); err != nil {
		t.Fatal(err)
	}
	pack(y)
	y.cluster = &clustertest.Site{Plane: plane, Version: from, Kubelet: kubelet, Releases: map[string]string{}}
	for _, r := range releases {
		y.cluster.Releases[r.Descriptor.Digest.String()] = r.Version
	}
	if err := y.cluster.Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(y.cluster)
	}
	y.stop = y.cluster.Operate(context.WithoutCancel(t.Context()))
	t.Cleanup(y.stop)
	return y
}

// registry is REGISTRY/REPO.
func (y *yard) registry() string { return y.site.Registry.Host + "/" + trip.Repository }

// command is a run of the program; "…" among args stands for what every command here needs.
func (y *yard) command(args ...string) *exec.Cmd {
	y.t.Helper()
	path, err := exec.LookPath("pannier")
	if err != nil {
		y.t.Fatal(err)
	}
	var all []string
	for _, a := range args {
		if a == "…" {
			all = append(all, y.registry(), "--cluster-registry", nodesKnow, "--keyring", y.key, "--kubeconfig", y.cluster.Plane.Kubeconfig)
			continue
		}
		all = append(all, a)
	}
	cmd := exec.Command(path, all...)
	cmd.Dir = y.home
	cmd.Env = []string{"HOME=" + y.home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + y.home,
		"HTTPS_PROXY=" + y.names.URL.String()} // which this machine's own names pass by
	return cmd
}

// run runs the program, wants an exit code, and returns what it printed.
func (y *yard) run(code int, args ...string) (stdout, stderr string) {
	y.t.Helper()
	cmd := y.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		y.t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		y.t.Fatalf("pannier %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func (y *yard) state() string {
	y.t.Helper()
	s, err := y.cluster.State(y.t.Context())
	if err != nil {
		y.t.Fatal(err)
	}
	return s
}

func wants(t *testing.T, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("nothing says %q:\n%s", want, text)
		}
	}
}

// done fails unless the cluster is at the release, with its mirrors and signature.
func (y *yard) done() string {
	y.t.Helper()
	s := y.state()
	image := nodesKnow + "@" + y.release.Descriptor.Digest.String()
	wants(y.t, s, "desired "+image, "history Completed "+image, "imagedigestmirrorsets pannier-release generation 1",
		"configmaps sha256-"+y.release.Descriptor.Digest.Encoded())
	for line := range strings.Lines(s) {
		if f := strings.Fields(line); f[0] == "pool" && f[2] != f[3] {
			y.t.Errorf("not rolled out: %s", line)
		}
	}
	return s
}

func (y *yard) chain() []string {
	return []string{"unpack", y.media, "…", "--apply", "--upgrade", "--wait", "--etcd-backup", "1h"}
}

// TestClusterChain goes the whole way by one command, and again, which changes nothing.
func TestClusterChain(t *testing.T) {
	y := newYard(t, nil)
	before := y.state()
	out, _ := y.run(0, append(y.chain(), "--dry-run")...)
	wants(t, out, "create ConfigMap", "create ImageDigestMirrorSet pannier-release", "+ quay.io/openshift-release-dev/ocp-release -> "+nodesKnow, "would be asked for "+toVersion)
	if got := y.state(); got != before {
		t.Fatalf("the dry run changed the cluster:\n%s\n%s", before, got)
	}

	receipt := filepath.Join(t.TempDir(), "receipt")
	_, errs := y.run(0, append(y.chain(), "--receipt", receipt)...)
	if raw, err := os.ReadFile(receipt); err != nil || !strings.Contains(string(raw), `"cluster":{"version":"`+toVersion+`"}`) {
		t.Errorf("the receipt: %s (%v)", raw, err)
	}
	wants(t, errs, "it holds them", "no drain and no reboot", "pool worker:", "POOL", "Asking ", "accepted", "Cluster is at "+toVersion)
	done := y.done()
	_, errs = y.run(0, y.chain()...)
	wants(t, errs, "Cluster is already at "+toVersion, "unchanged ImageDigestMirrorSet")
	if again := y.state(); again != done {
		t.Errorf("the second run changed something:\n%s\n%s", done, again)
	}
	out, _ = y.run(0, "unpack", y.media, "…", "--apply", "--dry-run", "-o", "json")
	var doc planDocument
	if err := json.Unmarshal([]byte(out), &doc); err != nil || doc.Cluster == nil || len(doc.Cluster.Changes) != 2 || doc.Cluster.Changes[1].Action != "unchanged" {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestClusterChainOfMirror goes the same way where this side has both: no drive is written.
func TestClusterChainOfMirror(t *testing.T) {
	y := newYard(t, nil)
	chain := []string{"mirror", y.release.Version, "…", "--registry-mirror", "quay.io=" + y.origin.Registry.Host, "--signature-store", y.origin.Store,
		"--apply", "--upgrade", "--wait", "--etcd-backup", "1h"}
	_, errs := y.run(0, chain...)
	wants(t, errs, "it holds them", "pool worker:", "accepted", "Cluster is at "+toVersion)
	done := y.done()
	_, errs = y.run(0, chain...)
	wants(t, errs, "Cluster is already at "+toVersion, "unchanged ImageDigestMirrorSet")
	if again := y.state(); again != done {
		t.Errorf("the second run changed something:\n%s\n%s", done, again)
	}
}

// TestClusterFromFolder applies from a folder that unpack wrote, as another person on a later day would.
func TestClusterFromFolder(t *testing.T) {
	y := newYard(t, nil)
	dir := filepath.Join(y.home, "objects")
	y.run(0, "unpack", y.media, y.registry(), "--cluster-registry", nodesKnow, "--keyring", y.key, "--objects-dir", dir)
	before := y.state()

	out, _ := y.run(0, "apply", dir, "…", "--dry-run", "-o", "json")
	var doc applyDocument
	if err := json.Unmarshal([]byte(out), &doc); err != nil || len(doc.Objects) != 2 || doc.Cluster.MirrorSet != "ImageDigestMirrorSet" || len(doc.Cluster.Pools) != 2 {
		t.Errorf("%v\n%s", err, out)
	}
	if got := y.state(); got != before {
		t.Fatalf("the dry run changed the cluster:\n%s\n%s", before, got)
	}
	// Objects of one registry are not applied for another.
	_, errs := y.run(2, "apply", dir, "other.example/a/b", "--kubeconfig", y.cluster.Plane.Kubeconfig)
	wants(t, errs, "another registry", "--cluster-registry "+nodesKnow)
	y.run(2, "apply", dir, y.registry(), "--kubeconfig", y.cluster.Plane.Kubeconfig) // a loopback name

	// Without --wait one table; then the wait, by the same command.
	out, errs = y.run(0, "apply", dir, "…")
	wants(t, out, "POOL", "worker", "NODE")
	wants(t, errs, "create ImageDigestMirrorSet", "CRI-O reloads", "--wait follows it")
	out, _ = y.run(0, "apply", dir, "…", "--wait")
	wants(t, out, "up to date")

	_, errs = y.run(8, "upgrade", dir, "…")
	wants(t, errs, "etcd-backup", "no evidence of a backup", "what to do:")
	out, _ = y.run(8, "upgrade", dir, "…", "--dry-run", "-o", "json")
	wants(t, out, `"ready": false`, `"name": "etcd-backup"`)
	out, errs = y.run(0, "upgrade", dir, "…", "--etcd-backup", "2h", "--dry-run")
	wants(t, out+errs, "would be asked for "+toVersion, "none failed")
	wants(t, y.state(), "desired \n")
	out, errs = y.run(0, "upgrade", dir, "…", "--etcd-backup", "2h", "--wait", "--progress", "json")
	wants(t, out, "Cluster is at "+toVersion)
	for line := range strings.Lines(errs) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	wants(t, errs, `"event":"cluster"`, `"kind":"version"`)
	y.done()
	out, _ = y.run(0, "upgrade", y.media, "…", "--wait")
	wants(t, out, "Cluster is already at "+toVersion)
}

// TestClusterKilled kills the program at each step; the same command goes on to the same end.
func TestClusterKilled(t *testing.T) {
	y := newYard(t, nil)
	y.run(0, y.chain()...)
	want := y.done()
	y.stop()
	for _, at := range []string{
		"push:", "it holds them", "Cluster https", "ConfigMap created", "ImageDigestMirrorSet created",
		"pool master: ", "pool worker: done", "ask the registry:", "Asking ", "asked for " + toVersion, "accepted", "completed",
	} {
		t.Run(at, func(t *testing.T) {
			y := newYard(t, nil)
			cmd := y.command(append(y.chain(), "--progress", "plain")...) // short phases are said too
			cmd.Stdout = io.Discard
			pipe, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			killed := false
			var log strings.Builder
			lines := bufio.NewScanner(pipe)
			for lines.Scan() {
				log.WriteString(lines.Text() + "\n")
				if !killed && strings.Contains(lines.Text(), at) {
					killed = true
					cmd.Process.Kill()
				}
			}
			cmd.Wait()
			if !killed {
				t.Fatalf("%q was never said:\n%s", at, log.String())
			}
			y.run(0, y.chain()...)
			if got := y.done(); got != want {
				t.Errorf("another end:\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestClusterSaysNo: exit code 8, with the reason, and nothing asked.
func TestClusterSaysNo(t *testing.T) {
	t.Run("degraded pool", func(t *testing.T) {
		y := newYard(t, func(s *clustertest.Site) { s.Degrade("worker") })
		_, errs := y.run(8, "unpack", y.media, "…", "--apply", "--wait")
		wants(t, errs, "pool worker", "no space left on device", "what to do:")
		y.cluster.Degrade("")
		y.run(0, y.chain()...)
		y.done()
	})
	t.Run("refused payload", func(t *testing.T) {
		y := newYard(t, func(s *clustertest.Site) { s.Refuse("The update cannot be verified") })
		_, errs := y.run(8, y.chain()...)
		wants(t, errs, "The update cannot be verified", "refused")
		y.cluster.Refuse("")
		y.run(0, y.chain()...)
		y.done()
	})
	t.Run("paused pool", func(t *testing.T) {
		y := newYard(t, func(s *clustertest.Site) {
			if err := s.Pause(t.Context(), "worker"); err != nil {
				t.Fatal(err)
			}
		})
		_, errs := y.run(8, y.chain()...)
		wants(t, errs, "paused-pools", "worker", "is paused")
		wants(t, y.state(), "desired \n")
		_, errs = y.run(0, append(y.chain(), "--allow-paused-pool", "worker")...)
		wants(t, errs, "Cluster is at "+toVersion, "pool worker: paused")
	})
	t.Run("no evidence of a backup", func(t *testing.T) {
		y := newYard(t, nil)
		y.run(8, "unpack", y.media, "…", "--apply", "--upgrade")
		wants(t, y.state(), "desired \n")
		_, errs := y.run(8, "unpack", y.media, "…", "--upgrade", "--etcd-backup", "absent.db")
		wants(t, errs, "absent.db")
	})
	t.Run("not applied", func(t *testing.T) {
		y := newYard(t, nil)
		_, errs := y.run(8, "unpack", y.media, "…", "--upgrade", "--etcd-backup", "1h")
		wants(t, errs, "signature", "mirror-sets", "pannier apply")
		wants(t, y.state(), "desired \n")
	})
	t.Run("not permitted", func(t *testing.T) {
		y := newYard(t, nil)
		u, err := y.cluster.Plane.CreateUser(t.Context(), "onlooker", clustertest.Rule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"get", "list"}})
		if err != nil {
			t.Fatal(err)
		}
		_, errs := y.run(8, "apply", y.media, y.registry(), "--cluster-registry", nodesKnow, "--keyring", y.key, "--kubeconfig", u.Kubeconfig)
		wants(t, errs, "cannot create resource", "oc login")
	})
	t.Run("registry lacks a blob", func(t *testing.T) {
		y := newYard(t, nil)
		y.run(0, "unpack", y.media, "…", "--apply", "--wait")
		_, raw, err := y.site.Registry.Manifest(trip.Repository, y.release.Components[1].Digest.String())
		if err != nil {
			t.Fatal(err)
		}
		var m struct{ Layers []struct{ Digest string } }
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		lost := m.Layers[len(m.Layers)-1].Digest
		y.site.Log.Before(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, lost) {
				return false
			}
			http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}`, http.StatusNotFound)
			return true
		})
		_, errs := y.run(8, "upgrade", y.media, "…", "--etcd-backup", "1h")
		wants(t, errs, "not everything is at the registry", lost, "unpack MEDIA REGISTRY/REPO --check-all")
		wants(t, y.state(), "desired \n")
	})
}

// TestClusterWaitOutlivesTheServer: an API server that is killed and started again while a rollout
// is followed is waited for.
func TestClusterWaitOutlivesTheServer(t *testing.T) {
	y := newYard(t, nil)
	cmd := y.command(y.chain()...)
	var log bytes.Buffer
	cmd.Stdout = io.Discard
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	restarted := false
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		log.WriteString(lines.Text() + "\n")
		if !restarted && strings.Contains(lines.Text(), "accepted") {
			restarted = true
			if err := y.cluster.Plane.Restart(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !restarted {
		t.Fatalf("%v, restarted %v\n%s", err, restarted, log.String())
	}
	y.done()
}

// TestClusterPreflight: all sides in one report.
func TestClusterPreflight(t *testing.T) {
	y := newYard(t, nil)
	m, err := clustertest.NewMonitoring(y.cluster.Plane, y.names)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, _ := y.run(8, "preflight", y.media, "…", "-o", "json")
	var doc struct {
		Ready  bool
		Checks []struct{ Name, Status, Detail, Remedy string }
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || doc.Ready {
		t.Fatalf("%v\n%s", err, out)
	}
	got := map[string]string{}
	for _, c := range doc.Checks {
		got[c.Name] = c.Status
		if c.Status == "fail" && (c.Detail == "" || c.Remedy == "") {
			t.Errorf("%+v", c)
		}
	}
	for name, want := range map[string]string{
		"bundle-sealed": "pass", "registry-push": "pass", "machine-config-pools": "pass", "permissions": "pass",
		"etcd-backup": "fail", "update-path": "pass", "skipped-minor": "pass", "alerts": "pass",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	out, _ = y.run(0, "preflight", y.media, "…", "--etcd-backup", "1h")
	wants(t, out, "\nREADY: ", "PASS  etcd-backup")
	// What fires is told, and stops nobody.
	m.Fire(clustertest.Alert{Name: "etcdMembersDown", Severity: "critical", State: "firing"})
	out, _ = y.run(0, "preflight", y.media, "…", "--etcd-backup", "1h")
	wants(t, flat(out), "WARN alerts critical alerts fire: etcdMembersDown", " READY: ")
	if err := y.cluster.Pause(t.Context(), "worker"); err != nil {
		t.Fatal(err)
	}
	out, _ = y.run(8, "preflight", y.media, "…", "--etcd-backup", "1h")
	wants(t, out, "FAIL  paused-pools", "NOT READY")
	y.run(0, "preflight", y.media, "…", "--etcd-backup", "1h", "--allow-paused-pool", "worker")
}
