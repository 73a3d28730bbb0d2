//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/bundle/release/sample/olareg"
)

// bench is the stage: a source registry that is full, places to write to, and the programs.
type bench struct {
	options
	self    string
	release *sample.Release
	blobs   int64 // bytes of the blobs, manifests not among them
	count   int
	list    string // file with the digests of all blobs
	fetched string // folder with all blobs, by their hex digits
	source  *distribution
	target  *distribution // of the run that is under way; nil if it needs none
	fast    *sample.Registry
	scratch string // emptied before each run
	keep    string // a drive that stays
}

func prepare(ctx context.Context, o options) (*bench, error) {
	b := &bench{options: o, scratch: filepath.Join(o.dir, "scratch"), keep: filepath.Join(o.dir, "keep"),
		list: filepath.Join(o.dir, "blobs.txt"), fetched: filepath.Join(o.dir, "blobs")}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.release, err = workload(o.small); err != nil {
		return nil, err
	}
	if b.source, err = startDistribution(ctx, filepath.Join(o.dir, "source")); err != nil {
		return nil, err
	}
	if err := b.stock(ctx); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// stock fills the source, and takes the blobs from it for the floors that read files.
func (b *bench) stock(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "filling the source registry")
	blobs, err := fill(ctx, b.source.host, b.release)
	if err != nil {
		return err
	}
	var lines strings.Builder
	for _, d := range blobs {
		b.count++
		b.blobs += d.Size
		fmt.Fprintln(&lines, d.Digest)
	}
	if err := os.WriteFile(b.list, []byte(lines.String()), 0o644); err != nil {
		return err
	}
	if err := os.Mkdir(b.fetched, 0o755); err != nil {
		return err
	}
	_, _, err = launch(ctx, nil, b.self, rawCommand, "get", b.source.host, componentPath, b.list, b.fetched)
	return err
}

func (b *bench) close() {
	b.source.stop()
	if b.target != nil {
		b.target.stop()
	}
	if b.fast != nil {
		b.fast.Close()
	}
}

// work is one thing to be done, by the floor and by each tool.
type work struct {
	name, floorName string
	bar             float64 // the most that pannier may take, as a multiple of the floor; 0 if there is none
	floor           tool
	tools           []tool
}

// tool does a work once. before makes the stage ready and is not measured.
type tool struct {
	name   string
	before func(ctx context.Context) error
	run    func(ctx context.Context) (figures, error)
}

// result is a work's figures: those of the floor and each tool, a round after the other.
type result struct {
	Work  string
	Bar   float64 `json:",omitempty"`
	Floor string
	Tools []string             // in the order of the table, the floor not among them
	Runs  map[string][]figures // by tool; the floor under its name
}

func (b *bench) measure(ctx context.Context) ([]result, error) {
	var results []result
	for _, w := range b.works() {
		if !strings.Contains(w.name, b.only) {
			continue
		}
		r := result{Work: w.name, Bar: w.bar, Floor: w.floorName, Runs: map[string][]figures{}}
		for _, t := range w.tools {
			r.Tools = append(r.Tools, t.name)
		}
		all := append([]tool{w.floor}, w.tools...)
		for round := range b.rounds {
			for i := range all {
				t := all[(i+round)%len(all)]
				fmt.Fprintf(os.Stderr, "%s, round %d of %d: %s\n", w.name, round+1, b.rounds, t.name)
				if t.before != nil {
					if err := t.before(ctx); err != nil {
						return results, fmt.Errorf("%s: %s: make ready: %w", w.name, t.name, err)
					}
				}
				syscall.Sync()
				if err := warmMemory(b.blobs * 3 / 2); err != nil {
					return results, err
				}
				f, err := t.run(ctx)
				if err != nil {
					return results, fmt.Errorf("%s: %s: %w", w.name, t.name, err)
				}
				r.Runs[t.name] = append(r.Runs[t.name], f)
			}
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		return nil, errors.New("no work has such a name")
	}
	return results, nil
}

// empty makes an empty folder of scratch.
func (b *bench) empty(context.Context) error {
	return errors.Join(os.RemoveAll(b.scratch), os.Mkdir(b.scratch, 0o755))
}

// newTarget gives the run an empty docker-registry.
func (b *bench) newTarget(ctx context.Context) error {
	if b.target != nil {
		b.target.stop()
	}
	dir := filepath.Join(b.dir, "target")
	err := os.RemoveAll(dir)
	if err == nil {
		b.target, err = startDistribution(ctx, dir)
	}
	return err
}

// newFast gives the run an empty olareg, in this process, on the same disk.
func (b *bench) newFast(context.Context) error {
	if b.fast != nil {
		b.fast.Close()
		b.fast = nil
	}
	dir := filepath.Join(b.dir, "fast")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		return err
	}
	var err error
	b.fast, err = olareg.Serve(olareg.Options{Dir: dir})
	return err
}

// pannier runs the program and takes the time of each phase from its own report of progress.
func (b *bench) pannier(ctx context.Context, args ...string) (figures, error) {
	command := append([]string{filepath.Join(b.bin, "pannier")}, args...)
	f, out, err := launch(ctx, []string{"XDG_CACHE_HOME=" + filepath.Join(b.dir, "cache")},
		append(command, "--progress", "json", "--signature-policy", "warn")...)
	f.Phases = phases(out)
	return f, err
}

// phases reads how long each phase took from the events of --progress json.
func phases(out []byte) map[string]float64 {
	took := map[string]float64{}
	for line := range strings.Lines(string(out)) {
		var e struct {
			Event, Phase string
			Seconds      float64
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.Event == "end" {
			took[e.Phase] += e.Seconds
		}
	}
	return took
}

func (b *bench) rawTool(name string, before func(context.Context) error, args func() []string) tool {
	return tool{name, before, func(ctx context.Context) (figures, error) {
		f, _, err := launch(ctx, nil, append([]string{b.self, rawCommand}, args()...)...)
		f.Disk = usage(b.scratch)
		return f, err
	}}
}

// peer finds another tool, in the folder of programs or on the PATH; false if it is not there or
// not wanted.
func (b *bench) peer(name string) (string, bool) {
	if b.alone {
		return "", false
	}
	path := filepath.Join(b.bin, name)
	if _, err := os.Stat(path); err == nil {
		return path, true
	}
	path, err := exec.LookPath(name)
	return path, err == nil
}

// machine says where the figures are from.
func machine() string {
	model := "unknown processor"
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s/%s, %s, %s", runtime.NumCPU(), model, runtime.GOOS, runtime.GOARCH, runtime.Version(), time.Now().Format(time.DateOnly))
}

func (b *bench) tag() string { return release.Tag(b.release.Version, b.release.Arch) }
