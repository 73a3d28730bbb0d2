// Package clustertest starts a real kube-apiserver for tests, with the CRDs of OpenShift, on
// loopback, in seconds. No controllers run in it: a test plays the operators it needs.
//
// The server is the program of testdata/kubeplane, made by `make bin/kubeplane`; without it
// tests fail, they do not skip. Tests that use this package carry the build tag cluster, so
// that `go test ./...` needs nothing but Go.
//
// Everything is JSON over HTTPS and nothing here imports client-go, so that a test does not
// judge the product by the library the product uses.
package clustertest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options says what a Plane is made of. The zero value is a cluster with all of CRDs.
type Options struct {
	// CRDs are installed at the start, by name: "machineconfigpools.machineconfiguration.openshift.io".
	// nil is all of the variable CRDs; an empty slice that is not nil is plain Kubernetes.
	CRDs []string
	// Cut takes fields out of the schema of a CRD, as an older cluster would not have them:
	// "spec.desiredUpdate.architecture"; arrays are passed through. A field that is not
	// there is an error.
	Cut map[string][]string
	// CutRules takes all CEL rules out of the schemas: clusters before 4.12 had none.
	CutRules bool
	// Flags are given to the kube-apiserver behind our own, and win.
	Flags []string
}

// Plane is a running kube-apiserver. Its Client is the user admin, who may do everything.
// Methods may be called from several goroutines, but for Kill, Restart and Close, which want
// to be called by one at a time.
type Plane struct {
	*Client
	// Kubeconfig is a file, admin in it. It stays the same over a restart.
	Kubeconfig string

	dir   string
	flags []string
	proc  *process
}

type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{}
}

// Start gives a new Plane to one test, and takes it away after it.
func Start(t testing.TB, o Options) *Plane {
	t.Helper()
	p, err := Launch(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// Launch is Start for a TestMain whose tests share a Plane; see Reset. The caller closes it.
func Launch(o Options) (*Plane, error) {
	// The path is short: etcd listens on a socket in there, and the name of a socket holds
	// some 100 bytes, less than t.TempDir of a long test name takes.
	dir, err := os.MkdirTemp("", "kubeplane-")
	if err != nil {
		return nil, err
	}
	p := &Plane{dir: dir, flags: o.Flags}
	if err := p.launch(o); err != nil {
		err = fmt.Errorf("%w%s", err, p.logTail())
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Plane) launch(o Options) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := p.start(ctx); err != nil {
		return err
	}
	if err := p.install(ctx, o); err != nil {
		return err
	}
	// The namespaces that OpenShift itself brings.
	for _, name := range []string{"openshift-config", "openshift-config-managed", "openshift-cluster-version", "openshift-etcd", "openshift-machine-config-operator"} {
		if err := p.ensureNamespace(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the server and removes what it kept.
func (p *Plane) Close() {
	p.Kill()
	os.RemoveAll(p.dir)
}

// Kill ends the server as a power cut would, by SIGKILL, and returns when it is gone: its
// port refuses connections. Objects stay.
func (p *Plane) Kill() {
	if p.proc == nil {
		return
	}
	p.proc.cmd.Process.Kill()
	<-p.proc.ended
	p.proc.stdin.Close()
	p.proc = nil
}

// Restart starts the server that Kill ended (or kills it first), on the same objects, address
// and users, and returns when it is ready.
func (p *Plane) Restart() error {
	p.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := p.start(ctx); err != nil {
		return fmt.Errorf("%w%s", err, p.logTail())
	}
	return nil
}

// Running says whether the server's process is there.
func (p *Plane) Running() bool {
	if p.proc == nil {
		return false
	}
	select {
	case <-p.proc.ended:
		return false
	default:
		return true
	}
}

func (p *Plane) start(ctx context.Context) error {
	binary, err := find()
	if err != nil {
		return err
	}
	args := append([]string{"-dir", p.dir, "-until-eof", "--"}, p.flags...)
	cmd := exec.Command(binary, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe() // held open: it ends with this process, and the server with it
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	proc := &process{cmd: cmd, stdin: stdin, ended: make(chan struct{})}
	p.proc = proc
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
				ready <- rest
			}
		}
		cmd.Wait()
		close(proc.ended)
	}()
	select {
	case line := <-ready:
		if p.Client != nil {
			return nil // a restart: address and token are the same
		}
		_, p.Kubeconfig, _ = strings.Cut(line, " ")
	case <-proc.ended:
		return fmt.Errorf("%s ended before it was ready: %s", binary, strings.TrimSpace(stderr.String()))
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s was not ready in time: %w", binary, ctx.Err())
	}
	p.Client, err = Connect(p.Kubeconfig)
	return err
}

// logTail is the end of the server's log, for an error message.
func (p *Plane) logTail() string {
	raw, err := os.ReadFile(filepath.Join(p.dir, "kube-apiserver.log"))
	if err != nil || len(raw) == 0 {
		return ""
	}
	if cut := len(raw) - 4000; cut > 0 {
		raw = raw[cut:]
	}
	return "\nlog of the server:\n" + string(raw)
}

// find is the path of the program kubeplane: what PANNIER_KUBEPLANE names, else
// bin/kubeplane of the tree.
func find() (string, error) {
	path := os.Getenv("PANNIER_KUBEPLANE")
	if path == "" {
		root, err := root()
		if err != nil {
			return "", err
		}
		path = filepath.Join(root, "bin", "kubeplane")
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the tests of the cluster side need a real API server: run `make bin/kubeplane`, or name one in PANNIER_KUBEPLANE: %w", err)
	}
	return path, nil
}

// root is the folder of the main module: tests run in the folder of their package.
var root = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "testdata", "kubeplane", "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no folder above holds testdata/kubeplane")
		}
		dir = up
	}
})

// moduleDir is where the module cache holds a module that testdata/kubeplane requires. It is
// downloaded where it is missing.
func moduleDir(ctx context.Context, module string) (string, error) {
	root, err := root()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir = filepath.Join(root, "testdata", "kubeplane")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s%s", err, exit.Stderr, out)
		}
		return "", fmt.Errorf("find module %s: %w", module, err)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		return "", fmt.Errorf("find module %s: %w", module, err)
	}
	return m.Dir, nil
}
