package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
)

// Where the cluster's monitoring answers, and where the ingress operator publishes the
// authority of that route, which the installer puts into the kubeconfig too.
const (
	monitoringNamespace = "openshift-monitoring"
	monitoringRoute     = "thanos-querier"
	ingressNamespace    = "openshift-config-managed"
	ingressAuthority    = "default-ingress-cert"
)

// maxAlerts bounds the answer of the monitoring, in bytes.
const maxAlerts = 32 << 20

// obstructive are alerts below critical that tell of what holds an update up.
var obstructive = []string{
	"KubeNodeNotReady", "KubeNodeReadinessFlapping", "KubeNodeUnreachable",
	"PodDisruptionBudgetAtLimit", "PodDisruptionBudgetLimit",
}

// noAlerts is the outcome where nobody would say which alerts fire.
func noAlerts(why, remedy string) Check {
	if remedy == "" {
		remedy = "look at Observe > Alerting in the web console"
	}
	return warn("not looked at: "+why, remedy)
}

// checkAlerts asks the cluster's monitoring which alerts fire. It is the one check that asks
// a host beside the API server and the registry, so whatever comes in between is a warning.
func checkAlerts(ctx context.Context, in *inspection) Check {
	host, err := in.c.monitoringHost(ctx)
	switch {
	case isNotFound(err):
		return noAlerts(fmt.Sprintf("there is no route %s in %s", monitoringRoute, monitoringNamespace), "")
	case err != nil:
		return unseen(err)
	case host == "":
		return noAlerts(fmt.Sprintf("the route %s in %s has no host that it is served under", monitoringRoute, monitoringNamespace), "")
	}
	roots, problem := in.ingressRoots(ctx)
	raw, err := in.c.askMonitoring(ctx, host, roots)
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted):
		why := fmt.Sprintf("the certificate of %s is not trusted: %v", host, untrusted.Err)
		if problem != nil {
			why += fmt.Sprintf(" (its authority could not be read: %v)", problem)
		}
		return noAlerts(why, fmt.Sprintf("add the authority of the cluster's routes to this machine: oc -n %s get configmap %s", ingressNamespace, ingressAuthority))
	case errors.Is(err, errNoToken):
		return noAlerts(err.Error(), "log in with a token (oc login), or look at Observe > Alerting in the web console")
	case errors.Is(err, ErrForbidden):
		return noAlerts(err.Error(), "let an administrator grant the role cluster-monitoring-view")
	case err != nil:
		return noAlerts(err.Error(), "")
	}
	all, err := parseAlerts(raw)
	if err != nil {
		return noAlerts(fmt.Sprintf("the answer of %s is not understood: %v", host, err), "")
	}
	return judgeAlerts(all)
}

// alert is one alert, firing or about to.
type alert struct {
	Labels map[string]string `json:"labels"`
	State  string            `json:"state"` // firing, pending
}

// name is the alert with what it is about.
func (a alert) name() string {
	name := a.Labels["alertname"]
	for _, label := range []string{"name", "node", "poddisruptionbudget", "controller", "pod", "namespace"} {
		if about := a.Labels[label]; about != "" {
			return name + " (" + about + ")"
		}
	}
	return name
}

// parseAlerts reads an answer of Prometheus' /api/v1/alerts.
func parseAlerts(raw []byte) ([]alert, error) {
	var answer struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   *struct {
			Alerts []alert `json:"alerts"`
		} `json:"data"`
	}
	switch err := json.Unmarshal(raw, &answer); {
	case err != nil:
		return nil, err
	case answer.Status != "success" || answer.Data == nil:
		return nil, fmt.Errorf("status %q: %s", answer.Status, answer.Error)
	}
	return answer.Data.Alerts, nil
}

func judgeAlerts(all []alert) Check {
	firing := 0
	var critical, other []string
	add := func(to *[]string, name string) {
		if !slices.Contains(*to, name) {
			*to = append(*to, name)
		}
	}
	for _, a := range all {
		if a.State != "firing" || a.Labels["alertname"] == "Watchdog" { // which fires always
			continue
		}
		firing++
		switch {
		case a.Labels["severity"] == "critical":
			add(&critical, a.name())
		case slices.Contains(obstructive, a.Labels["alertname"]):
			add(&other, a.name())
		}
	}
	var parts []string
	if len(critical) > 0 {
		parts = append(parts, "critical alerts fire: "+names(critical))
	}
	if len(other) > 0 {
		parts = append(parts, "alerts fire that hold up an update: "+names(other))
	}
	if len(parts) > 0 {
		return warn(strings.Join(parts, "; "), "settle what they tell of before the update: Observe > Alerting in the web console describes each")
	}
	return pass(fmt.Sprintf("no critical alert fires, %d of less weight", firing))
}

// hostRule is a name in DNS: what a route is served under, and what a token may be sent to.
var hostRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// monitoringHost is the name that the route is served under, "" if there is none.
func (c *Cluster) monitoringHost(ctx context.Context) (string, error) {
	var r struct {
		Status struct {
			Ingress []struct {
				Host       string     `json:"host"`
				Conditions conditions `json:"conditions"`
			} `json:"ingress"`
		} `json:"status"`
	}
	if err := c.get(ctx, routes, monitoringNamespace, monitoringRoute, &r); err != nil {
		return "", err
	}
	for _, i := range r.Status.Ingress {
		if i.Conditions.get("Admitted").Status != "False" && hostRule.MatchString(i.Host) {
			return i.Host, nil
		}
	}
	return "", nil
}

// ingressRoots are the authorities that the cluster's routes are judged by: this machine's,
// the kubeconfig's, which oc goes by, and the one that the cluster publishes. problem says
// why the last is missing.
func (in *inspection) ingressRoots(ctx context.Context) (roots *x509.CertPool, problem error) {
	roots = in.systemRoots()
	own := rest.CopyConfig(in.c.config)
	if err := rest.LoadTLSFiles(own); err == nil {
		roots.AppendCertsFromPEM(own.CAData)
	}
	var cm configMap
	if err := in.c.get(ctx, configMaps, ingressNamespace, ingressAuthority, &cm); err != nil {
		return roots, err
	}
	if !roots.AppendCertsFromPEM([]byte(cm.Data["ca-bundle.crt"])) {
		return roots, fmt.Errorf("configmap %s in %s holds no certificate", ingressAuthority, ingressNamespace)
	}
	return roots, nil
}

// errNoToken says that there is nothing to log in at the monitoring with.
var errNoToken = errors.New("the kubeconfig holds no token, and the monitoring knows no client certificates")

// askMonitoring asks for the alerts. The token of the kubeconfig, and nothing else of it,
// goes to that host, over a connection that roots vouch for, and to no other: a redirect is
// not followed. Errors: errNoToken, [ErrForbidden], those of the connection.
func (c *Cluster) askMonitoring(ctx context.Context, host string, roots *x509.CertPool) ([]byte, error) {
	login := rest.AnonymousClientConfig(c.config)
	login.BearerToken, login.BearerTokenFile, login.ExecProvider = c.config.BearerToken, c.config.BearerTokenFile, c.config.ExecProvider
	if login.BearerToken == "" && login.BearerTokenFile == "" && login.ExecProvider == nil {
		return nil, errNoToken
	}
	transport, err := rest.HTTPWrappersForConfig(login, &http.Transport{
		Proxy: c.config.Proxy, TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
	})
	if err != nil {
		return nil, err
	}
	client := &http.Client{
		Transport: transport, Timeout: c.timing.Request,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/api/v1/alerts", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.agent)
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", host, bare(err))
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAlerts+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s does not answer: %w", host, bare(err))
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden || resp.StatusCode/100 == 3:
		return nil, fmt.Errorf("%w: %s answers %s to the kubeconfig's token", ErrForbidden, host, resp.Status)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s", host, resp.Status)
	case len(raw) > maxAlerts:
		return nil, fmt.Errorf("%s answers more than %d bytes", host, maxAlerts)
	}
	return raw, nil
}
