package remote

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestDistribution asks the reference registry the same; it needs Debian's docker-registry.
func TestDistribution(t *testing.T) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("docker-registry is not installed")
		}
		t.Skip("SKIPPED: docker-registry is not installed; olareg alone was asked")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	conf := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %q}\n  delete: {enabled: true}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), addr)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "serve", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 200 {
		if resp, err := http.Get("http://" + addr + "/v2/"); err == nil {
			resp.Body.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	r := newRepo(t, Options{}, addr+"/ocp4/openshift4")
	exercise(t, r)

	t.Run("chunked", func(t *testing.T) {
		r.host.setBodyLimit(300 << 10) // as after a 413
		defer r.host.setBodyLimit(0)
		b, d := randomBlob(2<<20 + 17)
		if err := r.PushBlob(testContext(t), d, opens(b, d)); err != nil {
			t.Fatal(err)
		}
		if ok, err := r.Exists(testContext(t), d); !ok || err != nil {
			t.Errorf("exists %v, %v", ok, err)
		}
	})
}
