//go:build e2e && linux

package e2e_test

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pannier/bundle/release/sample"
)

// confined carries a trip into a process that has a network of its own.
type confined struct {
	Media, Keyring, Objects string
}

// The disconnected side, taken literally: unpack runs in a network in which the registry's
// loopback address is the only one that answers, the resolver included.
func TestUnpackWithoutANetwork(t *testing.T) {
	if raw := os.Getenv("E2E_CONFINED"); raw != "" {
		unpackConfined(t, raw)
		return
	}
	c := newCargo(t, sample.Options{})
	source := startDistribution(t, gate{})
	c.stock(t, source, nil)
	x := newTrip(t, c, source.host, source)
	x.pack(t, 0)

	raw, err := json.Marshal(confined{Media: x.media, Keyring: x.keyring, Objects: filepath.Join(t.TempDir(), "objects")})
	if err != nil {
		t.Fatal(err)
	}
	exe := mustProgram(t) // built here, where modules can be fetched
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestUnpackWithoutANetwork$", "-test.v")
	cmd.Env = append(os.Environ(), "E2E_CONFINED="+string(raw), "E2E_PROGRAM="+exe)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		unavailable(t, "a network namespace: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: TestUnpackWithoutANetwork") {
		t.Fatalf("the confined test did not run:\n%s", out)
	}
}

func unpackConfined(t *testing.T, raw string) {
	var c confined
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(need(t, "ip", "apt-get install iproute2"), "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// The control: this network really has nothing else.
	for _, address := range []string{"192.0.2.1:443", "1.1.1.1:53", "169.254.169.254:80"} {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			conn.Close()
			t.Fatalf("%s answers in here", address)
		}
	}
	target := startDistribution(t, gate{})
	u := newUser(t)
	args := []string{"unpack", c.Media, target.host + "/" + destination, "--keyring", c.Keyring, "--objects-dir", c.Objects}
	began := time.Now()
	u.pannier(t, 0, args...)
	if took := time.Since(began); took > time.Minute {
		t.Errorf("unpack waited for somebody: %v", took)
	}
	u.pannier(t, 0, args...)
}
