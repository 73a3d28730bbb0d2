package clustertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"time"
)

// Authority signs certificates for the names of a site.
type Authority struct {
	PEM []byte // its own certificate

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority.
func NewAuthority(name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	a := &Authority{PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key: key}
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

// Certificate makes a certificate for a name, which the authority vouches for.
func (a *Authority) Certificate(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}, err
}

// Names is a proxy that stands for a site's DNS: what is asked for by name is led to an
// address on this machine, and nothing else is let through.
type Names struct {
	URL *url.URL

	server *httptest.Server
	mu     sync.Mutex
	lead   map[string]string // host:port -> address
}

// NewNames starts a proxy that knows no name yet.
func NewNames() *Names {
	n := &Names{lead: map[string]string{}}
	n.server = httptest.NewServer(http.HandlerFunc(n.serve))
	n.URL, _ = url.Parse(n.server.URL)
	return n
}

// Lead makes host:port lead to an address.
func (n *Names) Lead(name, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lead[name] = address
}

// Close ends the proxy.
func (n *Names) Close() { n.server.Close() }

// Proxy sends the requests for names that are known through the proxy, as an option.
func (n *Names) Proxy(r *http.Request) (*url.URL, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	host := r.URL.Host
	if r.URL.Port() == "" {
		host = net.JoinHostPort(host, "443")
	}
	if n.lead[host] == "" {
		return nil, nil
	}
	return n.URL, nil
}

func (n *Names) serve(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	address := n.lead[r.Host]
	n.mu.Unlock()
	if r.Method != http.MethodConnect || address == "" {
		http.Error(w, "no such host: "+r.Host, http.StatusBadGateway)
		return
	}
	far, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		io.Copy(far, buf)
		far.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(near, far)
}

// Monitoring plays what answers behind the route of thanos-querier. It lets in who may get
// namespaces, as the real one does, which it asks the plane.
type Monitoring struct {
	Host      string
	Authority *Authority

	plane  *Plane
	server *httptest.Server

	mu     sync.Mutex
	answer func(w http.ResponseWriter)
	asked  int
}

// MonitoringHost is the name of the route.
const MonitoringHost = "thanos-querier-openshift-monitoring.apps.site.example"

// NewMonitoring serves alerts under MonitoringHost, to which names lead.
func NewMonitoring(plane *Plane, names *Names) (*Monitoring, error) {
	a, err := NewAuthority("ingress-operator")
	if err != nil {
		return nil, err
	}
	cert, err := a.Certificate(MonitoringHost)
	if err != nil {
		return nil, err
	}
	m := &Monitoring{Host: MonitoringHost, Authority: a, plane: plane}
	m.server = httptest.NewUnstartedServer(http.HandlerFunc(m.serve))
	m.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	m.server.StartTLS()
	m.Fire()
	names.Lead(m.Host+":443", m.server.Listener.Addr().String())
	return m, nil
}

// Close ends the server.
func (m *Monitoring) Close() { m.server.Close() }

// Alert is one alert as the monitoring tells it.
type Alert struct{ Name, Severity, State, About string }

// Fire makes these the alerts, beside the Watchdog, which is always among them.
func (m *Monitoring) Fire(all ...Alert) {
	list := []Object{}
	for _, a := range append([]Alert{{Name: "Watchdog", Severity: "none", State: "firing"}}, all...) {
		labels := Object{"alertname": a.Name, "severity": a.Severity, "namespace": "openshift-monitoring"}
		if a.About != "" {
			labels["name"] = a.About
		}
		list = append(list, Object{
			"labels": labels, "annotations": Object{"summary": "what " + a.Name + " is about", "description": "more of it"},
			"state": a.State, "activeAt": "2026-01-01T00:00:00.123456789Z", "value": "1e+00", "partialResponseStrategy": "WARN",
		})
	}
	body, err := json.Marshal(Object{"status": "success", "data": Object{"alerts": list}})
	if err != nil {
		panic(err) // nothing in it can fail
	}
	m.Answer(http.StatusOK, string(body))
}

// Answer makes this the answer to those who are let in.
func (m *Monitoring) Answer(code int, body string) {
	m.Serve(func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		io.WriteString(w, body)
	})
}

// Serve answers those who are let in.
func (m *Monitoring) Serve(answer func(http.ResponseWriter)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = answer
}

// Asked is how often the alerts were asked for.
func (m *Monitoring) Asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

func (m *Monitoring) serve(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	if r.URL.Path != "/api/v1/alerts" {
		http.NotFound(w, r)
		return
	}
	switch may, err := m.plane.as(bearer(r)).Can(r.Context(), "get", "", "namespaces", ""); {
	case err != nil:
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	case !may:
		http.Error(w, "Forbidden", http.StatusForbidden)
	default:
		m.answer(w)
	}
}

// Build writes the route and the authority of a monitoring into its plane.
func (m *Monitoring) Build(ctx context.Context) error {
	_, err := m.plane.Load(ctx, []byte(fmt.Sprintf(`
apiVersion: route.openshift.io/v1
kind: Route
metadata: {name: thanos-querier, namespace: openshift-monitoring}
spec: {host: %[1]s, path: /api, to: {kind: Service, name: thanos-querier}, port: {targetPort: web}, tls: {termination: reencrypt, insecureEdgeTerminationPolicy: Redirect}}
status: {ingress: [{host: %[1]s, routerName: default, conditions: [{type: Admitted, status: "True"}]}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: default-ingress-cert, namespace: openshift-config-managed}
data: {ca-bundle.crt: %[2]q}
`, m.Host, m.Authority.PEM)))
	return err
}
