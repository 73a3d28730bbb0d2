package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// plane is what a folder keeps beside the objects: who may come in, and where.
type plane struct {
	dir  string
	kept kept
}

// kept is the file plane.json.
type kept struct {
	Port  int    `json:"port"`
	Token string `json:"token"` // of the user admin, group system:masters
}

func (p *plane) path(name string) string { return filepath.Join(p.dir, name) }
func (p *plane) address() string         { return "https://127.0.0.1:" + strconv.Itoa(p.kept.Port) }
func (p *plane) kubeconfig() string      { return p.path("kubeconfig") }

// openPlane reads the folder, or fills a new one.
func openPlane(dir string) (*plane, error) {
	p := &plane{dir: dir}
	raw, err := os.ReadFile(p.path("plane.json"))
	if err == nil {
		return p, json.Unmarshal(raw, &p.kept)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	secret := make([]byte, 16)
	rand.Read(secret)
	p.kept.Token = hex.EncodeToString(secret)
	if err := write(p.path("tokens.csv"), []byte(p.kept.Token+`,admin,admin,"system:masters"`+"\n")); err != nil {
		return nil, err
	}
	return p, writeKey(p.path("service-account.key"))
}

// listen takes the port and notes it. Free ports are sought below the range from which
// Linux serves outgoing connections, so that none of those sits on the port when a killed
// server wants it back.
func (p *plane) listen(ctx context.Context, port int) (net.Listener, error) {
	if port == 0 {
		port = p.kept.Port
	}
	seek := port == 0
	var lc net.ListenConfig
	for try := 0; ; try++ {
		if seek {
			port = 20000 + mathrand.IntN(12000)
		}
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			p.kept.Port = port
			raw, err := json.Marshal(p.kept)
			if err != nil {
				return nil, err
			}
			return l, write(p.path("plane.json"), raw)
		}
		if try == 100 || ctx.Err() != nil {
			return nil, err
		}
		if !seek {
			time.Sleep(50 * time.Millisecond) // the killed server is still on its way out
		}
	}
}

// waitReady returns when /readyz answers 200 or ctx ends, or with the reason why the server
// ended.
func (p *plane) waitReady(ctx context.Context, ended <-chan error) error {
	c := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	defer c.CloseIdleConnections()
	deadline := time.After(5 * time.Minute)
	for {
		if p.ready(ctx, c) {
			return nil
		}
		select {
		case err := <-ended:
			return errors.Join(errors.New("stopped before it was ready"), err)
		case <-ctx.Done():
			return nil
		case <-deadline:
			return errors.New("not ready after 5 minutes")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *plane) ready(ctx context.Context, c *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.address()+"/readyz", nil)
	if err != nil {
		return false
	}
	req.Header.Set("Authorization", "Bearer "+p.kept.Token)
	resp, err := c.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// flags of the kube-apiserver. Left out on purpose is what wants a controller or a kubelet
// that never comes: service accounts of pods, the taint of a node that is not ready yet.
func (p *plane) flags(etcd string) []string {
	key := p.path("service-account.key")
	return []string{
		"--etcd-servers=" + etcd,
		"--etcd-healthcheck-timeout=10s",
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(p.kept.Port),
		"--cert-dir=" + p.path("certs"),
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--service-account-issuer=https://kubeplane.invalid",
		"--service-account-signing-key-file=" + key,
		"--service-account-key-file=" + key,
		"--token-auth-file=" + p.path("tokens.csv"),
		"--authorization-mode=RBAC",
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
		"--enable-priority-and-fairness=false",
		"--profiling=false",
	}
}

// writeKubeconfig writes JSON, which is YAML as well: whoever reads it needs no YAML parser.
func (p *plane) writeKubeconfig() error {
	// The certificate signed itself, so it is its own authority.
	ca, err := os.ReadFile(p.path("certs/apiserver.crt"))
	if err != nil {
		return err
	}
	type object = map[string]any
	raw, err := json.MarshalIndent(object{
		"apiVersion":      "v1",
		"kind":            "Config",
		"clusters":        []object{{"name": "kubeplane", "cluster": object{"server": p.address(), "certificate-authority-data": ca}}},
		"users":           []object{{"name": "admin", "user": object{"token": p.kept.Token}}},
		"contexts":        []object{{"name": "admin", "context": object{"cluster": "kubeplane", "user": "admin"}}},
		"current-context": "admin",
	}, "", "  ")
	if err != nil {
		return err
	}
	return write(p.kubeconfig(), append(raw, '\n'))
}

func writeKey(name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return write(name, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

// write leaves the old file or the new one, also when the process is killed in between.
func write(name string, data []byte) error {
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(name+".new", name)
}
