package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

type servingKey struct{}

// serving is a process that serves until it is told to stop.
type serving struct {
	cmd  *exec.Cmd
	errs bytes.Buffer
	over chan error
}

// cmdServing runs pannier in the background and sets $NAME to the first line that it prints,
// its address: serving NAME pannier serve ARG...
func cmdServing(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: serving NAME pannier serve ARG...")
	}
	path, err := exec.LookPath(args[1])
	ts.Check(err)
	s := &serving{cmd: exec.Command(path, args[2:]...), over: make(chan error, 1)}
	s.cmd.Dir = ts.MkAbs(".")
	s.cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "PATH=" + ts.Getenv("PATH"), "TMPDIR=" + ts.Getenv("TMPDIR")}
	s.cmd.Stderr = &s.errs
	out, err := s.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(s.cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() { s.over <- s.cmd.Wait() }()
	if err != nil {
		<-s.over
		ts.Fatalf("it did not begin: %v\n%s", err, s.errs.String())
	}
	ts.Defer(func() { s.cmd.Process.Kill() })
	ts.Setenv(args[0], strings.TrimSpace(line))
	ts.Value(servingKey{}).(map[string]*serving)[args[0]] = s
}

// cmdStopped interrupts what serves and wants its exit code; its stderr goes to NAME.err:
// stopped NAME CODE.
func cmdStopped(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: stopped NAME CODE")
	}
	s := ts.Value(servingKey{}).(map[string]*serving)[args[0]]
	if s == nil {
		ts.Fatalf("nothing serves as %s", args[0])
	}
	ts.Check(s.cmd.Process.Signal(os.Interrupt))
	select {
	case <-s.over:
	case <-time.After(time.Minute):
		s.cmd.Process.Kill()
		ts.Fatalf("it did not stop")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".err"), s.errs.Bytes(), 0o644))
	if code := strconv.Itoa(s.cmd.ProcessState.ExitCode()); code != args[1] {
		ts.Fatalf("exit code %s, want %s\n%s", code, args[1], s.errs.String())
	}
}
