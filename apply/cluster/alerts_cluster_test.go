//go:build cluster

package cluster

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"pannier/apply/cluster/clustertest"
)

// TestAlerts asks a real TLS server for the alerts, and shows that whatever stands in the way
// of it is said and is a warning, and that the token goes nowhere else.
func TestAlerts(t *testing.T) {
	const (
		routePath = "/apis/route.openshift.io/v1/namespaces/openshift-monitoring/routes/thanos-querier"
		caPath    = "/api/v1/namespaces/openshift-config-managed/configmaps/default-ingress-cert"
	)
	var strayed atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		strayed.Add(1)
		if r.Header.Get("Authorization") != "" {
			t.Error("the token went to another host")
		}
	}))
	defer elsewhere.Close()
	for _, tc := range []struct {
		name    string
		spoil   func(*world)
		connect func(*world) *Cluster
		roots   func(*world) *x509.CertPool
		status  Status
		text    string
		remedy  string
		unasked bool // the monitoring gets no request, so no token either
	}{
		{name: "nothing fires", status: Pass, text: "no critical alert fires, 0 of less weight"},
		{name: "alerts of less weight", spoil: func(w *world) {
			w.monitoring.Fire(clustertest.Alert{Name: "CannotRetrieveUpdates", Severity: "warning", State: "firing"})
		}, status: Pass, text: "no critical alert fires, 1 of less weight"},
		{name: "one that holds up drains", spoil: func(w *world) {
			w.monitoring.Fire(clustertest.Alert{Name: "PodDisruptionBudgetAtLimit", Severity: "warning", State: "firing", About: "tight"})
		}, status: Warn, text: "hold up an update: PodDisruptionBudgetAtLimit (tight)", remedy: "Alerting"},
		{name: "the authority is trusted by this machine", spoil: func(w *world) { w.delete(caPath) }, roots: func(w *world) *x509.CertPool {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(w.monitoring.Authority.PEM)
			return pool
		}, status: Pass},
		{name: "the authority is in the kubeconfig", spoil: func(w *world) { w.delete(caPath) }, connect: func(w *world) *Cluster {
			return w.connect(w.kubeconfig(func(cluster, _ map[string]any) {
				cluster["certificate-authority-data"] = append(w.authority(), w.monitoring.Authority.PEM...)
			}), fast)
		}, status: Pass},
		{name: "the authority is not known", spoil: func(w *world) { w.delete(caPath) },
			status: Warn, text: "is not trusted: x509: certificate signed by unknown authority (its authority could not be read", remedy: "configmap default-ingress-cert", unasked: true},
		{name: "unverified for the API server is verified here", spoil: func(w *world) { w.delete(caPath) }, connect: func(w *world) *Cluster {
			return w.connect(w.kubeconfig(func(cluster, _ map[string]any) {
				delete(cluster, "certificate-authority-data")
				cluster["insecure-skip-tls-verify"] = true
			}), fast)
		}, status: Warn, text: "is not trusted", unasked: true},
		{name: "another authority", spoil: func(w *world) {
			w.patch(caPath, map[string]any{"data": map[string]any{"ca-bundle.crt": "nothing"}})
		}, status: Warn, text: "holds no certificate", unasked: true},
		{name: "no route", spoil: func(w *world) { w.delete(routePath) }, status: Warn, text: "there is no route thanos-querier", remedy: "Alerting", unasked: true},
		{name: "a route that is not served", spoil: func(w *world) {
			w.patchStatus(routePath, `{"ingress":[{"host":"`+w.monitoring.Host+`","conditions":[{"type":"Admitted","status":"False"}]}]}`)
		}, status: Warn, text: "no host", unasked: true},
		{name: "a host that is none", spoil: func(w *world) {
			w.patchStatus(routePath, `{"ingress":[{"host":"elsewhere.example/x?"}]}`)
		}, status: Warn, text: "no host", unasked: true},
		{name: "may not see the route", connect: func(w *world) *Cluster { return w.user() },
			status: Warn, text: "for lack of permission", unasked: true},
		{name: "may not see alerts", connect: func(w *world) *Cluster {
			return w.user(clustertest.Rule{APIGroups: []string{"route.openshift.io"}, Resources: []string{"routes"}, Verbs: []string{"get"}},
				clustertest.Rule{Namespace: "openshift-config-managed", Resources: []string{"configmaps"}, Verbs: []string{"get"}})
		}, status: Warn, text: "403 Forbidden", remedy: "cluster-monitoring-view"},
		{name: "no token", connect: func(w *world) *Cluster {
			c := w.cluster()
			c.config.BearerToken = "" // as in the installer's kubeconfig, which has a client certificate
			return c
		}, status: Warn, text: "holds no token", remedy: "oc login", unasked: true},
		{name: "sent elsewhere", spoil: func(w *world) {
			w.monitoring.Serve(func(rw http.ResponseWriter) {
				rw.Header().Set("Location", elsewhere.URL)
				rw.WriteHeader(http.StatusFound)
			})
		}, status: Warn, text: "302 Found"},
		{name: "out of order", spoil: func(w *world) { w.monitoring.Answer(503, "no server is available") }, status: Warn, text: "503 Service Unavailable"},
		{name: "not its answer", spoil: func(w *world) { w.monitoring.Answer(200, "<html>") }, status: Warn, text: "is not understood"},
		{name: "it has an error", spoil: func(w *world) { w.monitoring.Answer(200, `{"status":"error","error":"too busy"}`) }, status: Warn, text: "too busy"},
		{name: "no server", spoil: func(w *world) { w.monitoring.Close() }, status: Warn, text: "does not answer", unasked: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			if tc.spoil != nil {
				tc.spoil(w)
			}
			c := w.cluster()
			if tc.connect != nil {
				c = tc.connect(w)
			}
			opts := PreflightOptions{EtcdBackup: "1h", Roots: x509.NewCertPool()}
			if tc.roots != nil {
				opts.Roots = tc.roots(w)
			}
			got := checkAlerts(w.ctx, c.inspect(opts))
			if got.Status != tc.status || !strings.Contains(got.Detail, tc.text) || !strings.Contains(got.Remedy, tc.remedy) {
				t.Errorf("%+v", got)
			}
			if got.Status == Warn && got.Remedy == "" {
				t.Error("nothing says what to do")
			}
			if asked := w.monitoring.Asked(); (asked == 0) != tc.unasked {
				t.Errorf("asked %d times", asked)
			}
		})
	}
	if strayed.Load() > 0 {
		t.Error("a redirect was followed")
	}
}

// kubeconfig is the administrator's, changed.
func (w *world) kubeconfig(change func(cluster, user map[string]any)) string {
	w.t.Helper()
	raw, err := os.ReadFile(w.plane.Kubeconfig)
	if err != nil {
		w.t.Fatal(err)
	}
	var doc struct {
		APIVersion     string           `json:"apiVersion"`
		Kind           string           `json:"kind"`
		Clusters       []map[string]any `json:"clusters"`
		Users          []map[string]any `json:"users"`
		Contexts       []any            `json:"contexts"`
		CurrentContext string           `json:"current-context"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		w.t.Fatal(err)
	}
	change(doc.Clusters[0]["cluster"].(map[string]any), doc.Users[0]["user"].(map[string]any))
	if raw, err = json.Marshal(doc); err != nil {
		w.t.Fatal(err)
	}
	name := filepath.Join(w.t.TempDir(), "kubeconfig")
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return name
}

// authority is what the administrator's kubeconfig trusts.
func (w *world) authority() []byte {
	w.t.Helper()
	var ca []byte
	w.kubeconfig(func(cluster, _ map[string]any) {
		if err := json.Unmarshal([]byte(`"`+cluster["certificate-authority-data"].(string)+`"`), &ca); err != nil {
			w.t.Fatal(err)
		}
	})
	return ca
}

// user connects as somebody who has these permissions alone.
func (w *world) user(rules ...clustertest.Rule) *Cluster {
	w.t.Helper()
	u, err := w.plane.CreateUser(w.ctx, "onlooker", rules...)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.connect(u.Kubeconfig, fast)
}
