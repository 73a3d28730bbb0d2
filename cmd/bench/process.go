//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// figures are what one process cost, with all that it started.
type figures struct {
	Wall   float64            `json:"wall"`             // seconds
	CPU    float64            `json:"cpu"`              // seconds, user and system
	Memory int64              `json:"memory"`           // bytes, the most that one process held
	Sync   float64            `json:"sync"`             // seconds until all that it left was on the disk
	Disk   int64              `json:"disk,omitempty"`   // bytes of the files that it left
	Phases map[string]float64 `json:"phases,omitempty"` // seconds, of pannier

	// CPUBefore is what it had cost by the beginning of each phase, in seconds, of pannier.
	CPUBefore map[string]float64 `json:"cpuBefore,omitempty"`
}

// timeCommand makes this program a small one between, that runs another and writes its
// figures to descriptor 3: a child begins with the memory of its parent on its account.
const timeCommand = "time"

func timed(command []string) error {
	cmd := exec.Command(command[0], command[1:]...)
	watch := &phaseWatch{cmd: cmd, cpu: map[string]float64{}}
	cmd.Stdout, cmd.Stderr = os.Stdout, watch
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return err
	}
	return json.NewEncoder(os.NewFile(3, "figures")).Encode(figures{
		Wall:      time.Since(began).Seconds(),
		CPU:       (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(),
		Memory:    cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10,
		CPUBefore: watch.cpu,
	})
}

// phaseWatch hands on what a command prints, and looks at what the command has cost so far
// when it tells that a phase begins (--progress json).
type phaseWatch struct {
	cmd  *exec.Cmd
	rest []byte // of a line that is not whole yet
	cpu  map[string]float64
}

func (w *phaseWatch) Write(p []byte) (int, error) {
	for line := range bytes.Lines(append(w.rest, p...)) {
		if w.rest = nil; line[len(line)-1] != '\n' {
			w.rest = bytes.Clone(line)
			break
		}
		var e struct{ Event, Phase string }
		if json.Unmarshal(line, &e) == nil && e.Event == "begin" {
			w.cpu[e.Phase] = processCPU(w.cmd.Process.Pid)
		}
	}
	return os.Stderr.Write(p)
}

// processCPU is what a process has cost so far, in seconds: fields 14 and 15 of proc_pid_stat(5),
// in hundredths. 0 if it is not there any more.
func processCPU(pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, ok := bytes.Cut(raw, []byte(") "))
	fields := bytes.Fields(after)
	if err != nil || !ok || len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(string(fields[11]))
	system, _ := strconv.Atoi(string(fields[12]))
	return float64(user+system) / 100
}

// launch runs a program to its end.
func launch(ctx context.Context, env []string, command ...string) (figures, []byte, error) {
	self, err := os.Executable()
	if err != nil {
		return figures{}, nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return figures{}, nil, err
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, self, append([]string{timeCommand}, command...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	w.Close()
	if err != nil {
		return figures{}, out.Bytes(), fmt.Errorf("%v: %w\n%s", command, err, tail(out.Bytes()))
	}
	var f figures
	if err := json.NewDecoder(r).Decode(&f); err != nil {
		return f, out.Bytes(), err
	}
	began := time.Now()
	syscall.Sync()
	f.Sync = time.Since(began).Seconds()
	return f, out.Bytes(), nil
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }

// usage sums up the files below dir.
func usage(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if fi, err := e.Info(); err == nil {
				n += fi.Size()
			}
		}
		return nil
	})
	return n
}
