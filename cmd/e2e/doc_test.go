//go:build e2e && linux

// Package e2e_test drives the real program as a user would, against neighbours that nobody
// here wrote: Debian's docker-registry as source and target, with every kind of
// authentication it knows; skopeo, oras and regctl as readers of what arrives; sha256sum;
// and file systems as they are found on drives.
//
// `make e2e` runs it, and .ci/run installs what it needs. A neighbour that is missing skips
// its tests loudly; with CI=true it fails them.
package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// bin is where make puts the foreign readers; scratch goes when the tests end.
var bin, scratch string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if bin, err = filepath.Abs("../../bin"); err == nil {
			scratch, err = os.MkdirTemp("", "pannier-e2e-")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(scratch)
		return m.Run()
	}())
}

// program builds the pannier that is tested, once, as it is released.
var program = sync.OnceValues(func() (string, error) {
	if exe := os.Getenv("E2E_PROGRAM"); exe != "" {
		return exe, nil // of the test that started this one where nothing can be built
	}
	exe := filepath.Join(scratch, "pannier")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=e2e", "-o", exe, "pannier/cmd/pannier")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build pannier: %w\n%s", err, out)
	}
	return exe, nil
})

// inCI says whether a missing neighbour is a failure.
func inCI() bool { return os.Getenv("CI") == "true" }

// unavailable skips the test, loudly, or fails it where nothing may be skipped.
func unavailable(t *testing.T, format string, args ...any) {
	t.Helper()
	if inCI() {
		t.Fatalf("not available here: "+format, args...)
	}
	fmt.Fprintf(os.Stderr, "*** %s SKIPPED: not available here: %s\n", t.Name(), fmt.Sprintf(format, args...))
	t.Skipf("not available here: "+format, args...)
}

// need finds a program of the machine, or of bin/ where make builds the foreign readers.
func need(t *testing.T, name, origin string) string {
	t.Helper()
	if p := filepath.Join(bin, name); executable(p) {
		return p
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if p := filepath.Join(dir, name); executable(p) {
			return p
		}
	}
	unavailable(t, "%s (%s)", name, origin)
	return ""
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// outcome is what a command left behind.
type outcome struct {
	code   int
	stdout []byte
	stderr string
}

func (o outcome) String() string {
	return fmt.Sprintf("exit %d\nstdout: %s\nstderr: %s", o.code, o.stdout, o.stderr)
}

// user is somebody at a shell: a home of their own and an environment that holds nothing
// else, so that neither the proxies nor the pull secrets of this machine play a part.
type user struct {
	home string
	env  []string
}

func newUser(t *testing.T) *user {
	t.Helper()
	return &user{home: t.TempDir()}
}

// command prepares a command without starting it.
func (u *user) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = u.home
	cmd.Env = append([]string{"HOME=" + u.home, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}, u.env...)
	return cmd
}

// run runs a command to its end, whatever its exit code.
func (u *user) run(t *testing.T, name string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := u.command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	o := outcome{stdout: stdout.Bytes(), stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		o.code = exit.ExitCode()
	case err != nil:
		t.Fatalf("%s: %v", name, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %s: did not end in five minutes\n%v", filepath.Base(name), strings.Join(args, " "), o)
	}
	return o
}

// must runs a command that has to succeed and gives its stdout.
func (u *user) must(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	o := u.run(t, name, args...)
	if o.code != 0 {
		t.Fatalf("%s %s: %v", filepath.Base(name), strings.Join(args, " "), o)
	}
	return o.stdout
}

// pannier runs the program, expecting an exit code.
func (u *user) pannier(t *testing.T, code int, args ...string) outcome {
	t.Helper()
	exe, err := program()
	if err != nil {
		t.Fatal(err)
	}
	o := u.run(t, exe, args...)
	if o.code != code {
		t.Fatalf("pannier %s: want exit %d, got %v", strings.Join(args, " "), code, o)
	}
	return o
}
