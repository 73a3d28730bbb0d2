package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"

	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/bundle/release/sample/olareg"
	"pannier/verify/signature/sign"
)

// The scripts in testdata/script run the real program as a process of its own, against
// registries inside the test's process.

func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){"pannier": main})
}

// atEnd is called when all tests are over: for what several share.
var atEnd []func()

type suite struct{ *testing.M }

func (s suite) Run() int {
	defer func() {
		for _, end := range atEnd {
			end()
		}
	}()
	return s.M.Run()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, scriptParams("testdata/script"))
}

// scriptParams is what the scripts of a folder run with.
func scriptParams(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Values[registriesKey{}] = map[string]*scriptRegistry{}
			env.Values[servingKey{}] = map[string]*serving{}
			return os.Mkdir(home, 0o755)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "mounts" {
				return canMount(), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":     cmdExits,
			"sample":    cmdSample,
			"registry":  cmdRegistry,
			"fault":     cmdFault,
			"interrupt": cmdInterrupt,
			"killed":    cmdKilled,
			"holds":     cmdHolds,
			"flip":      cmdFlip,
			"tree":      cmdTree,
			"lastline":  cmdLastLine,
			"newer":     cmdNewer,
			"ocdir":     cmdOCDir,
			"serving":   cmdServing,
			"stopped":   cmdStopped,
		},
	}
}

// canMount reports whether a script may mount a small file system in a namespace of its own.
var canMount = sync.OnceValue(func() bool {
	return exec.Command("unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "none", os.TempDir()).Run() == nil
})

type registriesKey struct{}

// scriptRegistry is a registry of a script, with what may be put between it and its clients.
type scriptRegistry struct {
	*sample.Registry
	releases []*sample.Release

	mu      sync.Mutex
	faults  map[string]string // by name, with their parameter
	blobs   int               // how many were asked for
	slowed  chan struct{}     // closed when a slow blob is under way
	slowing sync.Once
}

func registries(ts *testscript.TestScript) map[string]*scriptRegistry {
	return ts.Value(registriesKey{}).(map[string]*scriptRegistry)
}

func registryOf(ts *testscript.TestScript, name string) *scriptRegistry {
	r, ok := registries(ts)[name]
	if !ok {
		ts.Fatalf("no registry %q", name)
	}
	return r
}

// signingKey makes the key that signs all samples: making one takes a while.
var signingKey = sync.OnceValues(func() (*sign.Key, error) {
	return sign.NewKey(sign.KeyOptions{Name: "script key <script@example.com>"})
})

// cmdExits runs a program and wants an exact exit code: exits CODE PROGRAM ARG...
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	// Wherever an error is printed, so is what to do about it.
	stderr := ts.ReadFile("stderr")
	if want != 0 && strings.Contains(stderr, "error P") && !strings.Contains(stderr, "what to do:") && !strings.Contains(stderr, "see: pannier") {
		ts.Fatalf("an error without advice")
	}
	for _, stream := range []string{stderr, ts.ReadFile("stdout")} {
		if strings.Contains(stream, "\x1b") {
			ts.Fatalf("an escape of the terminal was printed where there is no terminal")
		}
	}
}

// cmdSample makes a release and serves it: sample NAME [flags]. It sets $NAME to the
// registry's host and $NAME_DIGEST to the release's digest, and writes key.asc and the
// signature store sigs.
func cmdSample(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: sample NAME [flags]")
	}
	f := flag.NewFlagSet("sample", flag.ContinueOnError)
	var opts sample.Options
	f.StringVar(&opts.Version, "version", "4.8.21", "")
	f.StringVar(&opts.Arch, "arch", "", "")
	f.BoolVar(&opts.Multi, "multi", false, "")
	f.IntVar(&opts.Components, "components", 5, "")
	f.IntVar(&opts.LayerSize, "layer", 0, "")
	f.Int64Var(&opts.LargeLayer, "large", 0, "")
	f.StringVar(&opts.Compression, "compression", "", "")
	f.BoolVar(&opts.Clients, "clients", false, "with oc and openshift-install in it")
	previous := f.String("previous", "", "")
	mutate := f.String("mutate", "", "truncated, versions")
	unsigned := f.Bool("unsigned", false, "")
	named := f.String("signed-as", "", "version that the signature names")
	tls := f.Bool("tls", false, "")
	into := f.String("into", "", "registry that serves it, instead of a new one")
	ts.Check(f.Parse(args[1:]))
	if *previous != "" {
		opts.Previous = strings.Split(*previous, ",")
	}
	switch *mutate {
	case "":
	case "truncated":
		opts.Mutate = func(d *sample.Draft) {
			d.Edit("image-references", func(b []byte) []byte { return b[:len(b)/2] })
		}
	case "versions":
		opts.Mutate = func(d *sample.Draft) { d.Replace("release-metadata", opts.Version, "4.8.99") }
	default:
		ts.Fatalf("unknown mutation %q", *mutate)
	}
	rel, err := sample.Make(opts)
	ts.Check(err)

	key, err := signingKey()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("key.asc"), key.Public(), 0o644))
	ts.Check(os.MkdirAll(ts.MkAbs("sigs"), 0o755))
	if !*unsigned {
		if *named == "" {
			*named = rel.Version
		}
		writeSignature(ts, key, rel.Descriptor.Digest, rel.Repository+":"+release.Tag(*named, rel.Arch))
		for i, child := range rel.Children {
			writeSignature(ts, key, child.Digest, rel.Repository+":"+release.Tag(*named, "multi-"+strconv.Itoa(i)))
		}
	}
	ts.Setenv(args[0]+"_DIGEST", rel.Descriptor.Digest.String())
	if *into != "" {
		r := registryOf(ts, *into)
		ts.Check(r.Load(rel))
		r.releases = append(r.releases, rel)
		registries(ts)[args[0]] = r
		ts.Setenv(args[0], r.Host)
		return
	}
	startRegistry(ts, args[0], olareg.Options{TLS: *tls}, rel)
}

func writeSignature(ts *testscript.TestScript, key *sign.Key, d digest.Digest, reference string) {
	dir := filepath.Join(ts.MkAbs("sigs"), "sha256="+d.Encoded())
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.WriteFile(filepath.Join(dir, "signature-1"), key.Message(sign.Payload(d, reference), sign.Options{}), 0o644))
}

// cmdRegistry serves an empty registry: registry NAME [-tls].
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: registry NAME [-tls]")
	}
	startRegistry(ts, args[0], olareg.Options{TLS: slices.Contains(args, "-tls")})
}

func startRegistry(ts *testscript.TestScript, name string, opts olareg.Options, releases ...*sample.Release) {
	r := &scriptRegistry{faults: map[string]string{}, releases: releases, slowed: make(chan struct{})}
	opts.Wrap = r.wrap
	var err error
	r.Registry, err = olareg.Serve(opts, releases...)
	ts.Check(err)
	ts.Defer(func() { r.Close() })
	registries(ts)[name] = r
	ts.Setenv(name, r.Host)
	if r.CA != nil {
		ts.Check(os.WriteFile(ts.MkAbs(name+"-ca.pem"), r.CA, 0o644))
	}
}

// cmdFault puts something between a registry and its clients, or takes it away:
//
//	fault NAME auth=user:password   basic authentication
//	fault NAME html                 a web page for every answer
//	fault NAME slow=N               after N blobs they come a few bytes at a time
//	fault NAME dead-after=N         after N blobs every connection is cut
//	fault NAME corrupt=SUFFIX       a byte of blobs whose digest ends so is changed
//	fault NAME corrupt-in=REPO      the same of blobs of that repository
//	fault NAME lost                 no blob is there
//	fault NAME refuse               pushes are refused, for good
//	fault NAME none
func cmdFault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fault NAME FAULT")
	}
	r := registryOf(ts, args[0])
	name, value, _ := strings.Cut(args[1], "=")
	r.mu.Lock()
	defer r.mu.Unlock()
	if name == "none" {
		r.faults = map[string]string{}
		return
	}
	r.faults[name], r.blobs = value, 0
}

func (r *scriptRegistry) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		isBlob := strings.Contains(req.URL.Path, "/blobs/sha256:") && req.Method == http.MethodGet
		r.mu.Lock()
		if isBlob {
			r.blobs++
		}
		faults, blobs := map[string]string{}, r.blobs
		for k, v := range r.faults {
			faults[k] = v
		}
		r.mu.Unlock()

		if want, ok := faults["auth"]; ok {
			user, password, _ := req.BasicAuth()
			if user+":"+password != want {
				w.Header().Set("WWW-Authenticate", `Basic realm="script"`)
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
				return
			}
		}
		if _, ok := faults["html"]; ok {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, "<!DOCTYPE html><html><body>Welcome to the console</body></html>")
			return
		}
		if after, ok := faults["dead-after"]; ok {
			if blobs > atoi(after) {
				panic(http.ErrAbortHandler)
			}
		}
		if _, ok := faults["refuse"]; ok && req.Method != http.MethodGet && req.Method != http.MethodHead {
			http.Error(w, `{"errors":[{"code":"NAME_INVALID","message":"no such project"}]}`, http.StatusBadRequest)
			return
		}
		if _, ok := faults["lost"]; ok && strings.Contains(req.URL.Path, "/blobs/sha256:") {
			http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}`, http.StatusNotFound)
			return
		}
		if suffix, ok := faults["corrupt"]; ok && isBlob && strings.HasSuffix(req.URL.Path, suffix) {
			w = &corruptWriter{ResponseWriter: w}
		}
		if repo, ok := faults["corrupt-in"]; ok && isBlob && strings.Contains(req.URL.Path, repo+"/blobs/") {
			w = &corruptWriter{ResponseWriter: w}
		}
		if after, ok := faults["slow"]; ok && isBlob && blobs > atoi(after) {
			w = &slowWriter{ResponseWriter: w, ctx: req.Context(), begun: func() { r.slowing.Do(func() { close(r.slowed) }) }}
		}
		next.ServeHTTP(w, req)
	})
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// corruptWriter changes the first byte of every body that passes.
type corruptWriter struct {
	http.ResponseWriter
	done bool
}

func (w *corruptWriter) Write(p []byte) (int, error) {
	if !w.done && len(p) > 0 {
		w.done = true
		p = slices.Clone(p)
		p[0] ^= 0xff
	}
	return w.ResponseWriter.Write(p)
}

// slowWriter lets a few bytes a moment pass, so that there is time to interrupt.
type slowWriter struct {
	http.ResponseWriter
	ctx   context.Context
	begun func()
}

func (w *slowWriter) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		n, err := w.ResponseWriter.Write(p[sent:min(sent+64, len(p))])
		sent += n
		if err != nil {
			return sent, err
		}
		w.ResponseWriter.(http.Flusher).Flush()
		w.begun()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-w.ctx.Done():
			return sent, w.ctx.Err()
		}
	}
	return sent, nil
}

// cmdInterrupt runs pannier, sends it an interrupt as soon as a slow blob of the registry is
// under way, and wants exit code 130: interrupt NAME pannier ARG... Its output goes to
// interrupt.out and interrupt.err.
func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: interrupt NAME pannier ARG...")
	}
	if code, errs := stopped(ts, os.Interrupt, args); code != 130 {
		ts.Fatalf("exit code %d, want 130\n%s", code, errs)
	}
}

// cmdKilled does the same with a signal that cannot be caught: killed NAME pannier ARG...
func cmdKilled(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: killed NAME pannier ARG...")
	}
	stopped(ts, os.Kill, args)
}

// stopped runs a program, and ends it by a signal as soon as a slow blob is under way.
func stopped(ts *testscript.TestScript, signal os.Signal, args []string) (code int, errors string) {
	r := registryOf(ts, args[0])
	path, err := exec.LookPath(args[1])
	ts.Check(err)
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "PATH=" + ts.Getenv("PATH"), "TMPDIR=" + ts.Getenv("TMPDIR")}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	ts.Check(cmd.Start())
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	select {
	case <-r.slowed:
	case err := <-over:
		ts.Fatalf("it was over before it could be interrupted: %v\n%s", err, errs.String())
	case <-time.After(time.Minute):
		cmd.Process.Kill()
		ts.Fatalf("no slow blob was asked for\n%s", errs.String())
	}
	ts.Check(cmd.Process.Signal(signal))
	select {
	case <-over:
	case <-time.After(time.Minute):
		cmd.Process.Kill()
		ts.Fatalf("it did not stop\n%s", errs.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs("interrupt.out"), out.Bytes(), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("interrupt.err"), errs.Bytes(), 0o644))
	return cmd.ProcessState.ExitCode(), errs.String()
}

// cmdHolds wants a registry to hold, byte for byte, what another one's releases consist of:
// holds NAME REPOSITORY SOURCE [TAG...]; the tags must be there as well.
func cmdHolds(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: holds NAME REPOSITORY SOURCE [TAG...]")
	}
	r, source := registryOf(ts, args[0]), registryOf(ts, args[2])
	var lacking []string
	for _, rel := range source.releases {
		for _, placed := range rel.Images {
			desc, raw, err := r.Manifest(args[1], placed.Descriptor.Digest.String())
			if err != nil || desc.Digest != placed.Descriptor.Digest || desc.MediaType != placed.Descriptor.MediaType || !bytes.Equal(raw, rel.Blobs[desc.Digest]) {
				lacking = append(lacking, "manifest "+placed.Descriptor.Digest.String())
			}
		}
		for _, d := range rel.Digests() {
			if !r.Has(args[1], d) {
				lacking = append(lacking, d.String())
			}
		}
	}
	tags, _ := r.Tags(args[1])
	for _, tag := range args[3:] {
		if !slices.Contains(tags, tag) {
			lacking = append(lacking, "tag "+tag)
		}
	}
	if neg != (len(lacking) > 0) {
		ts.Fatalf("lacking: %v", lacking)
	}
}

// cmdFlip changes one byte in the middle of a file, keeping its times: flip PATTERN. The
// largest match is taken, which among blobs is a layer; flipping it again undoes it. $FLIPPED
// is its name.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip PATTERN")
	}
	names, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	var name string
	var info os.FileInfo
	for _, n := range names {
		fi, err := os.Stat(n)
		ts.Check(err)
		if info == nil || fi.Size() > info.Size() {
			name, info = n, fi
		}
	}
	if info == nil || info.Size() == 0 {
		ts.Fatalf("nothing to flip in %v", names)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	ts.Check(err)
	var b [1]byte
	_, err = f.ReadAt(b[:], info.Size()/2)
	ts.Check(err)
	b[0] ^= 0x40
	_, err = f.WriteAt(b[:], info.Size()/2)
	ts.Check(err)
	ts.Check(f.Close())
	ts.Check(os.Chtimes(name, info.ModTime(), info.ModTime()))
	ts.Setenv("FLIPPED", name)
}

// cmdTree writes what a folder holds to a file, for cmp: names, sizes, digests and times of
// change: tree DIR FILE.
func cmdTree(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tree DIR FILE")
	}
	var b strings.Builder
	root := ts.MkAbs(args[0])
	ts.Check(filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		sum := ""
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			sum = digest.FromBytes(data).String()
		}
		rel, _ := filepath.Rel(root, name)
		fmt.Fprintf(&b, "%s %v %d %s %s\n", rel, info.Mode(), info.ModTime().UnixNano(), strconv.FormatInt(info.Size(), 10), sum)
		return nil
	}))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b.String()), 0o644))
}

// cmdOCDir writes what oc adm release mirror --to-dir would write of a registry's releases,
// with the signatures of sigs: ocdir NAME DIR.
func cmdOCDir(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ocdir NAME DIR")
	}
	signature := func(d digest.Digest) []byte {
		return []byte(ts.ReadFile(filepath.Join("sigs", "sha256="+d.Encoded(), "signature-1")))
	}
	ts.Check(sample.WriteOC(ts.MkAbs(args[1]), sample.OCOptions{Signature: signature}, registryOf(ts, args[0]).releases...))
}

// cmdLastLine wants the last line of a stream to be this: lastline stdout|stderr TEXT.
func cmdLastLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lastline stdout|stderr TEXT")
	}
	lines := strings.Split(strings.TrimRight(ts.ReadFile(args[0]), "\n"), "\n")
	if got := lines[len(lines)-1]; got != args[1] {
		ts.Fatalf("the last line is %q", got)
	}
}

// cmdNewer makes a drive look as if a newer version had written it: newer DIR.
func cmdNewer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: newer DIR")
	}
	seals, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "pannier", "seal-*.json"))
	ts.Check(err)
	if len(seals) == 0 {
		ts.Fatalf("no seal")
	}
	checksum := regexp.MustCompile(`("checksum": "sha256:)[0-9a-f]{64}"`)
	for _, name := range seals {
		text := strings.Replace(ts.ReadFile(name), `"format": 1`, `"format": 2`, 1)
		text = checksum.ReplaceAllString(text, "${1}"+strings.Repeat("0", 64)+`"`)
		sum := digest.FromString(text).Encoded()
		text = checksum.ReplaceAllString(text, "${1}"+sum+`"`)
		ts.Check(os.WriteFile(name, []byte(text), 0o644))
	}
}
