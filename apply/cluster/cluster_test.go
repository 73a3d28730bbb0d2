package cluster

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pannier/bundle/objects"
)

func TestConnect(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", `{"apiVersion":"v1","kind":"Config","current-context":"a",
"clusters":[{"name":"c","cluster":{"server":"https://api.example:6443"}}],
"users":[{"name":"u","user":{"token":"secret"}}],
"contexts":[{"name":"a","context":{"cluster":"c","user":"u"}},{"name":"b","context":{"cluster":"gone","user":"u"}}]}`)
	c, err := Connect(Options{Kubeconfig: []string{good}})
	if err != nil || c.Server() != "https://api.example:6443/" && c.Server() != "https://api.example:6443" {
		t.Fatalf("%v, %v", c, err)
	}
	if c, err := Connect(Options{Kubeconfig: []string{filepath.Join(dir, "none"), good}, Context: "a"}); err != nil || c == nil {
		t.Errorf("one of two files missing: %v", err)
	}
	for name, tc := range map[string]struct {
		opts Options
		text string
	}{
		"no file named":           {Options{}, "no kubeconfig"},
		"a missing file":          {Options{Kubeconfig: []string{filepath.Join(dir, "none")}}, "none"},
		"no YAML":                 {Options{Kubeconfig: []string{write("bad", "\x00{")}}, "bad"},
		"an unknown context":      {Options{Kubeconfig: []string{good}, Context: "x"}, `no context "x"; there are a, b`},
		"a context of no cluster": {Options{Kubeconfig: []string{good}, Context: "b"}, "context b"},
		"an empty file":           {Options{Kubeconfig: []string{write("empty", "")}}, "no cluster"},
	} {
		if _, err := Connect(tc.opts); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVersions(t *testing.T) {
	order := []string{"4.7.99", "4.8.0-fc.1", "4.8.0-rc.2", "4.8.0-rc.10", "4.8.0", "v4.8.21", "4.10.3+x", "5.0.0"}
	for i, a := range order {
		for j, b := range order {
			v, ok1 := parseVersion(a)
			w, ok2 := parseVersion(b)
			if got := v.compare(w); !ok1 || !ok2 || got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%s against %s: %d", a, b, got)
			}
		}
	}
	for _, bad := range []string{"", "4", "latest", "4.x.1", "4.8.21 ", "99999999.1.1"} {
		if v, ok := parseVersion(bad); ok {
			t.Errorf("%q: %v", bad, v)
		}
	}
	if v, _ := parseVersion("4.9.0"); v.kubeMinor() != 22 {
		t.Errorf("kube 1.%d", v.kubeMinor())
	}
}

func TestNodeEffect(t *testing.T) {
	for version, want := range map[string]string{"4.6.60": "rebooted", "4.7.1": "no reboot", "4.8.0": "no drain", "4.20.1": "no drain", "": "not known"} {
		v, ok := parseVersion(version)
		if got := nodeEffect(v, ok, false); !strings.Contains(got, want) {
			t.Errorf("%s: %s", version, got)
		}
	}
	if v, _ := parseVersion("4.16.0"); !strings.Contains(nodeEffect(v, true, true), "are drained") {
		t.Error("mirrors for tags drain")
	}
}

const registriesText = `unqualified-search-registries = ["registry.access.redhat.com", "docker.io"]
short-name-mode = ""

[[registry]]
  prefix = ""
  location = "quay.io/openshift-release-dev/ocp-release"
  mirror-by-digest-only = true

  [[registry.mirror]]
    location = "reg.example:5000/ocp4/openshift4"

  [[registry.mirror]]
    location = "second.example/x"
    pull-from-mirror = "digest-only"

[[registry]]
  prefix = "*.apps.example"
  blocked = true

  [[registry.mirror]]
    location = 'reg.example:5000'
`

func TestRegistriesOfMachineConfig(t *testing.T) {
	want := []pair{
		{"quay.io/openshift-release-dev/ocp-release", "reg.example:5000/ocp4/openshift4"},
		{"quay.io/openshift-release-dev/ocp-release", "second.example/x"},
		{"*.apps.example", "reg.example:5000"},
	}
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	g.Write([]byte(registriesText))
	g.Close()
	for name, tc := range map[string]struct{ source, compression string }{
		"percent":             {"data:," + url.PathEscape(registriesText), ""},
		"with a type":         {"data:text/plain;charset=utf-8," + url.PathEscape(registriesText), ""},
		"base64":              {"data:text/plain;charset=utf-8;base64," + base64.StdEncoding.EncodeToString([]byte(registriesText)), ""},
		"gzip":                {"data:;base64," + base64.StdEncoding.EncodeToString(z.Bytes()), "gzip"},
		"gzip that is unsaid": {"data:;base64," + base64.StdEncoding.EncodeToString(z.Bytes()), ""},
	} {
		got, err := configWith(tc.source, tc.compression).registries()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, tc := range map[string]struct{ source, compression string }{
		"no data URL": {"https://example/x", ""}, "no comma": {"data:x", ""}, "bad base64": {"data:;base64,!!", ""}, "no gzip": {"data:,x", "gzip"},
	} {
		if got, err := configWith(tc.source, tc.compression).registries(); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got, err := new(machineConfig).registries(); err != nil || got != nil {
		t.Errorf("without the file: %v, %v", got, err)
	}
}

func configWith(source, compression string) *machineConfig {
	var m machineConfig
	text := fmt.Sprintf(`{"spec":{"config":{"storage":{"files":[{"path":"/etc/x","contents":{"source":"data:,y"}},{"path":%q,"contents":{"source":%q,"compression":%q}}]}}}}`, registriesFile, source, compression)
	if err := objects.Decode([]byte(text), &m); err != nil {
		panic(err)
	}
	return &m
}

func FuzzRegistries(f *testing.F) {
	f.Add("data:,"+url.PathEscape(registriesText), "")
	f.Add("data:;base64,H4sI", "gzip")
	f.Add("data:,[[registry.mirror]]%0Alocation=%22x%22", "")
	f.Fuzz(func(t *testing.T, source, compression string) {
		var m machineConfig
		m.Spec.Config.Storage.Files = configWith("data:,x", "").Spec.Config.Storage.Files
		m.Spec.Config.Storage.Files[1].Contents.Source = source
		m.Spec.Config.Storage.Files[1].Contents.Compression = compression
		m.registries()
	})
}

// snapshot is what etcdctl writes: a database, and its checksum behind it.
func snapshot(pages int) []byte {
	db := make([]byte, pages*4096)
	binary.LittleEndian.PutUint32(db[boltMagicAt:], boltMagic)
	sum := sha256.Sum256(db)
	return append(db, sum[:]...)
}

func TestSnapshot(t *testing.T) {
	ctx, now, dir := t.Context(), time.Now(), t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := snapshot(4)
	damaged := bytes.Clone(good)
	damaged[9000]++
	noBolt := make([]byte, 8192)
	sum := sha256.Sum256(noBolt)
	stamp := now.UTC().Add(-time.Hour).Format("2006-01-02_150405")
	old := now.UTC().Add(-48 * time.Hour).Format("2006-01-02_150405")
	write("static_kuberesources_"+stamp+".tar.gz", nil)
	for name, tc := range map[string]struct {
		file string
		want Status
		text string
	}{
		"fresh, with its companion":  {write("snapshot_"+stamp+".db", good), Pass, "whole by its checksum"},
		"named otherwise":            {write("backup.db", good), Pass, "whole"},
		"old by its name":            {write("snapshot_"+old+".db", good), Fail, "48h0m"},
		"damaged":                    {write("damaged.db", damaged), Fail, "do not match the checksum"},
		"without checksum":           {write("live.db", good[:4*4096]), Fail, "checksum at its end is missing"},
		"cut short":                  {write("cut.db", good[:9001]), Fail, "size"},
		"cut to the right remainder": {write("cut2.db", good[:8192+32]), Fail, "checksum"},
		"no database":                {write("zero.db", append(noBolt, sum[:]...)), Fail, "does not begin"},
		"empty":                      {write("empty.db", nil), Fail, "0 bytes"},
		"missing":                    {filepath.Join(dir, "none.db"), Fail, "none.db"},
		"a folder":                   {dir, Fail, "no usable"},
		"an age":                     {"3h", Pass, "attested"},
		"too old an age":             {"30h", Fail, "younger than"},
		"a time":                     {now.Add(-2 * time.Hour).Format("2006-01-02T15:04"), Pass, "attested"},
		"a time with zone":           {now.UTC().Add(-2 * time.Hour).Format(time.RFC3339), Pass, "attested"},
		"the future":                 {now.Add(2 * time.Hour).Format(time.RFC3339), Fail, "future"},
	} {
		in := &inspection{opts: PreflightOptions{EtcdBackup: tc.file}, now: now}
		if got := checkEtcdBackup(ctx, in); got.Status != tc.want || !strings.Contains(got.Detail, tc.text) || got.Status == Fail && got.Remedy == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	alone := filepath.Join(t.TempDir(), "snapshot_"+stamp+".db")
	if err := os.WriteFile(alone, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := checkEtcdBackup(ctx, &inspection{opts: PreflightOptions{EtcdBackup: alone}, now: now}); got.Status != Warn || !strings.Contains(got.Detail, "static_kuberesources_") {
		t.Errorf("without its companion: %+v", got)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := InspectSnapshot(ended, alone); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestCredentialFor(t *testing.T) {
	const doc = `{"auths":{"reg:5000":{"auth":"x"},"reg:5000/ocp4/openshift4":{"auth":"y"},"https://old.example/v1/":{"auth":"z"},"empty.example":{}}}`
	for repository, want := range map[string]string{
		"reg:5000/ocp4/openshift4": "reg:5000/ocp4/openshift4", "reg:5000/ocp4": "reg:5000", "reg:5000/ocp4/openshift40": "reg:5000",
		"old.example/a": "https://old.example/v1/", "empty.example/a": "", "reg/x": "", "reg:50001/x": "",
	} {
		if got, err := credentialFor([]byte(doc), repository); err != nil || got != want {
			t.Errorf("%s: %q, %v", repository, got, err)
		}
	}
	if _, err := credentialFor([]byte(`{"auths":{"a":{"auth":"hunter2"`), "a"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	if got, err := credentialFor(nil, "a"); got != "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNested(t *testing.T) {
	for _, tc := range []struct {
		scope, super string
		want         bool
	}{
		{"quay.io/a/b", "quay.io/a", true}, {"quay.io/a", "quay.io/a", false}, {"quay.io/ab", "quay.io/a", false}, {"quay.io/a", "quay.io/a/b", false},
		{"x.quay.io/a", "*.quay.io", true}, {"quay.io/a", "*.quay.io", false}, {"x.quay.io:443/a", "*.quay.io", true},
	} {
		if got := nested(tc.scope, tc.super); got != tc.want {
			t.Errorf("%s in %s: %v", tc.scope, tc.super, got)
		}
	}
}

func TestErrorsAreOfTheCluster(t *testing.T) {
	for _, err := range []error{ErrUnreachable, ErrForbidden, ErrRefused, ErrForeign, ErrConflict, ErrDegraded, ErrStalled, ErrGuard, ErrPayload,
		&APIError{Status: 403}, &APIError{Status: 500}} {
		if !errors.Is(fmt.Errorf("x: %w", err), ErrCluster) {
			t.Errorf("%v is none of the cluster", err)
		}
	}
	if errors.Is(ErrForeign, ErrConflict) || errors.Is(ErrConfig, ErrCluster) || errors.Is(&APIError{Status: 403}, ErrRefused) || !errors.Is(&APIError{Status: 401}, ErrForbidden) {
		t.Error("kinds are not told apart")
	}
}

func FuzzAlerts(f *testing.F) {
	f.Add([]byte(`{"status":"success","data":{"alerts":[{"labels":{"alertname":"X","severity":"critical","node":"n"},"state":"firing"}]}}`))
	f.Add([]byte(`{"status":"success","data":{"alerts":[{"labels":{"alertname":"KubeNodeNotReady"},"state":"firing"},{"state":"pending"},{}]}}`))
	f.Add([]byte(`{"status":"error","error":"no"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, err := parseAlerts(raw)
		if err != nil {
			return
		}
		got := judgeAlerts(all)
		critical := slices.ContainsFunc(all, func(a alert) bool {
			return a.State == "firing" && a.Labels["severity"] == "critical" && a.Labels["alertname"] != "Watchdog"
		})
		if got.Status != Pass && got.Status != Warn || critical && got.Status != Warn {
			t.Errorf("%+v", got)
		}
	})
}
