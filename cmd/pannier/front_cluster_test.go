//go:build cluster

package main

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"pannier/apply/cluster/clustertest"
	"pannier/apply/trip"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/verify/signature/sign"
)

// front is a docker-registry that asks for a password, under the name that the nodes know,
// with a certificate of an authority of its own.
type front struct{ ca, login string } // files

const frontUser, frontPassword = "nodes", "s3cret:with colon"

// startFront starts the registry; skipped, loudly and never in CI, where it is not installed.
func (y *yard) startFront() front {
	y.t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("CI") != "" {
			y.t.Fatal("docker-registry is not installed")
		}
		y.t.Skip("SKIPPED: docker-registry is not installed")
	}
	host, _, _ := strings.Cut(nodesKnow, "/")
	name, _, _ := strings.Cut(host, ":")
	authority, err := clustertest.NewAuthority("site")
	if err != nil {
		y.t.Fatal(err)
	}
	cert, err := authority.Certificate(name)
	if err != nil {
		y.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		y.t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(frontPassword), bcrypt.MinCost)
	if err != nil {
		y.t.Fatal(err)
	}
	dir := y.t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			y.t.Fatal(err)
		}
		return path
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		y.t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %q}\n  delete: {enabled: true}\nhttp:\n  addr: %q\n  tls: {certificate: %q, key: %q}\nauth:\n  htpasswd: {realm: site, path: %q}\n",
		filepath.Join(dir, "data"), address,
		file("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})),
		file("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		file("htpasswd", fmt.Appendf(nil, "%s:%s\n", frontUser, hash)))
	cmd := exec.Command(program, "serve", file("config.yml", []byte(conf)))
	if err := cmd.Start(); err != nil {
		y.t.Fatal(err)
	}
	y.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 1000 {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			break
		}
		time.Sleep(30 * time.Millisecond)
	}
	y.names.Lead(host, address)
	return front{ca: file("ca.pem", authority.PEM), login: file("auth.json", loginFor(host, frontPassword))}
}

// loginFor is a pull secret.
func loginFor(host, password string) []byte {
	return fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(frontUser+":"+password)))
}

// TestClusterPullSecret tries the cluster's pull secret at a registry that asks for a password, and
// that nodes and we know by one name.
func TestClusterPullSecret(t *testing.T) {
	y := newYard(t, nil)
	f := y.startFront()
	host, _, _ := strings.Cut(nodesKnow, "/")
	const path = "/api/v1/namespaces/openshift-config/secrets/pull-secret"
	args := func(words ...string) []string {
		return append(words, nodesKnow, "--keyring", y.key, "--kubeconfig", y.cluster.Plane.Kubeconfig, "-a", f.login, "--certificate-authority", f.ca, "--etcd-backup", "1h")
	}
	secret := func(text []byte) {
		t.Helper()
		if _, err := y.cluster.Plane.Patch(t.Context(), path, clustertest.Object{"data": clustertest.Object{".dockerconfigjson": text}}); err != nil {
			t.Fatal(err)
		}
	}
	secret(loginFor(host, frontPassword))

	// Before anything is there, the login is what can be tried.
	out, _ := y.run(0, args("preflight", y.media)...)
	wants(t, flat(out), `PASS pull-secret the cluster's pull secret has the entry "`+host+`"; reading from the registry with it works`)
	out, _ = y.run(0, args("preflight", "--side", "far")...)
	wants(t, flat(out), "PASS pull-secret")

	// Wrong and missing: the chain goes as far as the mirrors, and the cluster is not asked.
	secret(loginFor(host, "wrong"))
	_, errs := y.run(8, args("unpack", y.media, "--apply", "--upgrade")...)
	wants(t, errs, "pull-secret", "reading from the registry with it failed", "401")
	wants(t, y.state(), "desired \n")
	for name, text := range map[string]string{
		"another registry's": `{"auths":{"quay.io":{"auth":"eDp5"}}}`, "none": `{"auths":{}}`, "not a list of logins": `{"auths":["s3cret"]}`,
	} {
		secret([]byte(text))
		out, errs := y.run(8, args("preflight", y.media)...)
		wants(t, flat(out), "FAIL pull-secret", "openshift-config")
		if strings.Contains(out+errs, "eDp5") || strings.Contains(out+errs, "s3cret") {
			t.Errorf("%s: a part of the secret was told:\n%s%s", name, out, errs)
		}
	}
	if err := y.cluster.Plane.Delete(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	out, _ = y.run(8, args("preflight", y.media)...)
	wants(t, flat(out), "FAIL pull-secret the cluster's pull secret has no entry for "+nodesKnow)

	if _, err := y.cluster.Plane.Create(t.Context(), clustertest.Object{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
		"metadata": clustertest.Object{"name": "pull-secret", "namespace": "openshift-config"},
		"data":     clustertest.Object{".dockerconfigjson": loginFor(host, frontPassword)}}); err != nil {
		t.Fatal(err)
	}
	_, errs = y.run(0, args("unpack", y.media, "--apply", "--upgrade", "--wait")...)
	wants(t, errs, "Cluster is at "+toVersion)
	y.done()
}

// TestClusterSigstoreAtTheMirror: from 4.21 on a cluster runs no release image without a sigstore
// signature, from 4.22 on no component; that the registry has them is found out before the
// cluster is asked.
func TestClusterSigstoreAtTheMirror(t *testing.T) {
	for _, tc := range []struct {
		from, kubelet, to string
		components        bool // are signed, and asked for
	}{{"4.20.7", "v1.33.4", "4.21.2", false}, {"4.21.2", "v1.34.1", "4.22.1", true}} {
		t.Run(tc.to, func(t *testing.T) {
			key, err := trip.Cosign().PEM()
			if err != nil {
				t.Fatal(err)
			}
			r := trip.Make(t, sample.Options{Version: tc.to, Components: 3, Previous: []string{tc.from},
				ImagePolicy: sign.ImagePolicy("openshift", key, "quay.io/openshift-release-dev/ocp-release")})
			trip.AddSigstore(t, r, r.Repository, r.Descriptor.Digest)
			lacks := release.SigstoreTag(r.Descriptor.Digest)
			name := release.Tag(tc.to, "x86_64")
			if tc.components {
				for _, c := range r.Components {
					trip.AddSigstore(t, r, r.ComponentRepository, c.Digest)
				}
				lacks, name = release.SigstoreTag(r.Components[1].Digest), r.Components[1].Name
			}
			y := newYardOf(t, r, tc.from, tc.kubelet, nil)
			// Before anything is there nothing is held against it.
			out, _ := y.run(0, "preflight", y.media, "…", "--etcd-backup", "1h")
			wants(t, flat(out), "SKIP sigstore sigstore signatures are asked for by the release itself", "not at the registry yet")

			y.run(0, "unpack", y.media, "…", "--apply", "--wait")
			y.site.Log.Before(func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, "/manifests/"+lacks) {
					return false
				}
				http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`, http.StatusNotFound)
				return true
			})
			_, errs := y.run(8, "upgrade", y.media, "…", "--etcd-backup", "1h")
			wants(t, errs, "sigstore", "from 4.21 on", "the registry lacks those of "+name)
			wants(t, y.state(), "desired \n")
			out, _ = y.run(8, "preflight", y.media, "…", "--etcd-backup", "1h")
			wants(t, flat(out), "FAIL sigstore")

			y.site.Log.Before(nil)
			out, _ = y.run(0, "upgrade", y.media, "…", "--etcd-backup", "1h", "--wait")
			wants(t, out, "Cluster is at "+tc.to)
		})
	}
}
