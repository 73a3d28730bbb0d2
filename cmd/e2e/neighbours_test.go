//go:build e2e && linux

package e2e_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"

// The stage itself, tried with skopeo: what these registries ask of a client is what real
// ones ask, and a client that does it right gets through. Otherwise the trips prove nothing.

func TestNeighbourPasswords(t *testing.T) {
	skopeo := need(t, "skopeo", "apt-get install skopeo")
	d := startDistribution(t, gate{htpasswd: map[string]string{"alice": "s3:cret"}})
	img := newTestImage(d.host)
	img.login = func(r *http.Request, _ string) { r.SetBasicAuth("alice", "s3:cret") }
	img.image(t, "some/thing", img.digest, dockerManifest, "v1")

	u := newUser(t)
	reference := "docker://" + d.host + "/some/thing:v1"
	if o := u.run(t, skopeo, "inspect", "--raw", "--tls-verify=false", reference); o.code == 0 {
		t.Fatalf("the registry lets nobody in particular in: %v", o)
	}
	if o := u.run(t, skopeo, "inspect", "--raw", "--tls-verify=false", "--creds", "alice:wrong", reference); o.code == 0 {
		t.Fatalf("the registry takes a wrong password: %v", o)
	}
	auth := authFile(t, map[string]string{d.host: "alice:s3:cret"})
	if raw := u.must(t, skopeo, "inspect", "--raw", "--tls-verify=false", "--authfile", auth, reference); digestOf(raw) != img.digest {
		t.Fatalf("got %s", raw)
	}
}

func TestNeighbourTokens(t *testing.T) {
	skopeo := need(t, "skopeo", "apt-get install skopeo")
	tokens := startTokenServer(t, time.Minute, map[string]tokenUser{
		"alice": {password: "a", access: map[string]string{"some/thing": "pull"}},
		"bob":   {password: "b", access: map[string]string{"some/other": "pull"}},
	})
	d := startDistribution(t, gate{tokens: tokens})
	f := startFront(t, d, 0, 0)
	img := newTestImage(d.host)
	img.login = tokens.login
	img.image(t, "some/thing", img.digest, dockerManifest, "v1")
	img.image(t, "some/other", img.digest, dockerManifest, "v1")

	u := newUser(t)
	auth := authFile(t, map[string]string{f.host + "/some/thing": "alice:a", f.host + "/some/other": "bob:b"})
	for _, repository := range []string{"some/thing", "some/other"} {
		dir := "dir:" + t.TempDir()
		u.must(t, skopeo, "copy", "--src-tls-verify=false", "--authfile", auth, "docker://"+f.host+"/"+repository+":v1", dir)
	}
	if f.served == 0 || f.redirects != f.served {
		t.Errorf("blobs were served %d times after %d redirects: they should all go by way of the other host", f.served, f.redirects)
	}
	if len(f.forwarded) > 0 {
		t.Errorf("the control client forwards Authorization: %v", f.forwarded)
	}
	if tokens.count("alice") == 0 || tokens.count("bob") == 0 {
		t.Errorf("tokens: %+v", tokens.issued)
	}
	swapped := authFile(t, map[string]string{f.host: "alice:a"})
	if o := u.run(t, skopeo, "inspect", "--raw", "--tls-verify=false", "--authfile", swapped, "docker://"+f.host+"/some/other:v1"); o.code == 0 {
		t.Errorf("alice may read what only bob may: %v", o)
	}
}

// A token is refused when its life is over, although distribution is patient with clocks.
func TestNeighbourTokensExpire(t *testing.T) {
	tokens := startTokenServer(t, time.Second, nil)
	d := startDistribution(t, gate{tokens: tokens})
	img := newTestImage(d.host)
	img.login = tokens.login
	img.image(t, "some/thing", img.digest, dockerManifest, "v1")

	old := tokens.token("x", []tokenAccess{{Type: "repository", Name: "some/thing", Actions: []string{"pull"}}}, time.Second)
	img.login = func(r *http.Request, _ string) { r.Header.Set("Authorization", "Bearer "+old) }
	url := "http://" + d.host + "/v2/some/thing/manifests/v1"
	if status := img.do(t, "HEAD", url, "", dockerManifest, nil, 0).StatusCode; status != http.StatusOK {
		t.Fatalf("a fresh token: %d", status)
	}
	time.Sleep(2100 * time.Millisecond)
	if status := img.do(t, "HEAD", url, "", dockerManifest, nil, 0).StatusCode; status != http.StatusUnauthorized {
		t.Fatalf("a token of one second, after two: %d, want 401", status)
	}
}

// testImage is an image of one small layer, which need not be a layer.
type testImage struct {
	pusher
	digest string
}

func newTestImage(host string) testImage {
	blobs := map[string][]byte{}
	add := func(data string) map[string]any {
		blobs[digestOf([]byte(data))] = []byte(data)
		return map[string]any{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(data), "digest": digestOf([]byte(data))}
	}
	config := add(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	config["mediaType"] = "application/vnd.docker.container.image.v1+json"
	raw, _ := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": dockerManifest, "config": config,
		"layers": []any{add(strings.Repeat("layer", 1000))},
	})
	blobs[digestOf(raw)] = raw
	return testImage{pusher: pusher{host: host, source: func(d string) []byte { return blobs[d] }}, digest: digestOf(raw)}
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }
