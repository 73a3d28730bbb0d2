package layout

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain lets the test binary be the other process.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LAYOUT_TEST_LOCK"); dir != "" {
		os.Exit(lockAndWait(dir))
	}
	if dir := os.Getenv("LAYOUT_TEST_READ"); dir != "" {
		if err := readAsNobody(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// lockAndWait locks, says so, and unlocks when its input ends.
func lockAndWait(dir string) int {
	l, err := Open(dir, Options{})
	if err == nil {
		var unlock func()
		if unlock, err = l.Lock("the other pack"); err == nil {
			fmt.Println("locked")
			_, err = io.Copy(io.Discard, os.Stdin)
			unlock()
		}
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// startHolder runs another process and returns its first line.
func startHolder(t *testing.T, dir string) (*exec.Cmd, io.Closer, string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "LAYOUT_TEST_LOCK="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, in, strings.TrimSpace(line)
}

func TestLockBetweenProcesses(t *testing.T) {
	l := newLayout(t, Options{})

	// Another process has it: who, is said; after it ends properly, nothing is left.
	cmd, in, said := startHolder(t, l.Dir())
	if said != "locked" {
		t.Fatal(said)
	}
	_, err := l.Lock("pack")
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("%q, process %d", "the other pack", cmd.Process.Pid)) {
		t.Errorf("%v", err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.path(lockFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock file stays: %v", err)
	}

	// A holder that is killed leaves its file, which locks nothing.
	cmd, _, said = startHolder(t, l.Dir())
	if said != "locked" {
		t.Fatal(said)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as it says
	if _, err := os.Stat(l.path(lockFile)); err != nil {
		t.Errorf("the file of a killed holder: %v", err)
	}
	unlock, err := l.Lock("pack")
	if err != nil {
		t.Fatal(err)
	}

	// And the other way round.
	cmd, _, said = startHolder(t, l.Dir())
	if !strings.Contains(said, ErrLocked.Error()) || !strings.Contains(said, fmt.Sprintf("%q, process %d", "pack", os.Getpid())) {
		t.Errorf("the other process: %s", said)
	}
	if cmd.Wait() == nil {
		t.Error("it ended well")
	}
	unlock()
	unlock() // has no say over the next holder
	again, err := l.Lock("pack")
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestLockedBySomethingStrange(t *testing.T) {
	l := newLayout(t, Options{})
	unlock, err := l.Lock("pack\x1b[31m\n")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := l.Lock("pack"); !errors.Is(err, ErrLocked) || strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("%q", err)
	}
	if err := os.WriteFile(l.path(lockFile), []byte("no JSON"), 0o644); err != nil {
		t.Skip(err)
	}
	if _, err := l.Lock("pack"); !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
}
