package main

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle/layout/baddrive"
	"pannier/bundle/release/sample"
)

// drives has what the program needs to pack onto a drive and to unpack it, in this process.
type drives struct {
	o    *trip.Origin
	site *trip.Site
	keys string // file
	home string
}

func newDrives(t *testing.T, releases ...*sample.Release) *drives {
	t.Helper()
	f := &drives{o: trip.NewOrigin(t, releases...), site: trip.NewSite(t), home: t.TempDir()}
	f.keys = filepath.Join(f.home, "key.asc")
	if err := os.WriteFile(f.keys, trip.Key().Public(), 0o644); err != nil {
		t.Fatal(err)
	}
	return f
}

// run runs the program and returns its exit code and what it printed.
func (f *drives) run(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	env := func(name string) string {
		if name == "HOME" {
			return f.home
		}
		return ""
	}
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), append([]string{"pannier"}, args...), env, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String() + stderr.String()
}

func (f *drives) pack(t *testing.T, media, version string, more ...string) (int, string) {
	t.Helper()
	args := []string{"pack", version, media, "--registry-mirror", "quay.io=" + f.o.Registry.Host, "--signature-store", f.o.Store,
		"--keyring", f.keys, "--jobs", "1", "--progress", "quiet", "--give-up-after", "20s"}
	return f.run(t, append(args, more...)...)
}

func (f *drives) audit(t *testing.T, media string) (int, string) {
	t.Helper()
	return f.run(t, "audit", media, "--keyring", f.keys, "--progress", "quiet", "--jobs", "1")
}

func (f *drives) inspect(t *testing.T, media string) (int, string) {
	t.Helper()
	return f.run(t, "inspect", media, "--keyring", f.keys)
}

func (f *drives) unpack(t *testing.T, media string) (int, string) {
	t.Helper()
	return f.run(t, "unpack", media, f.site.Registry.Host+"/"+trip.Repository, "--keyring", f.keys, "--jobs", "1", "--progress", "quiet", "--insecure")
}

// must fails unless code is 0.
func must(t *testing.T) func(code int, said string) {
	t.Helper()
	return func(code int, said string) {
		t.Helper()
		if code != 0 {
			t.Fatalf("exit code %d\n%s", code, said)
		}
	}
}

// case of a fault: what is done to one call, and to those after it.
type faultCase struct {
	op      baddrive.Op
	errno   syscall.Errno
	forever bool
}

func (c faultCase) String() string {
	return fmt.Sprintf("%v at %s, for ever %v", c.errno, c.op, c.forever)
}

// fault is armed on a drive.
func (c faultCase) fault() baddrive.Fault {
	f := baddrive.Fault{Errno: c.errno, At: func(o baddrive.Op) bool { return o.Kind == c.op.Kind && o.Path == c.op.Path && o.Nth == c.op.Nth }}
	if c.forever {
		f.Then = map[syscall.Errno]func(baddrive.Op) bool{
			syscall.EIO:    func(baddrive.Op) bool { return true }, // the drive is gone
			syscall.ENOSPC: baddrive.Op.Takes,
			syscall.EROFS:  baddrive.Op.Writes,
			syscall.EFBIG:  func(o baddrive.Op) bool { return o.Path == c.op.Path && o.Kind == "write" },
		}[c.errno]
	}
	return f
}

var hexes = regexp.MustCompile(`[0-9a-f]{64}|-\d+\.`)

// faultCases are all that can go wrong with calls that a real run made. Without the build
// tag faults there is one case for every eighth kind of call on a kind of file, the errors
// taking turns.
func faultCases(ops []baddrive.Op) []faultCase {
	var all []faultCase
	turn, seen := 0, map[string]bool{}
	for _, op := range ops {
		errnos := []syscall.Errno{syscall.EIO}
		if op.Takes() {
			errnos = append(errnos, syscall.ENOSPC)
		}
		if op.Writes() {
			errnos = append(errnos, syscall.EROFS)
		}
		if op.Kind == "write" || op.Kind == "truncate" {
			errnos = append(errnos, syscall.EFBIG)
		}
		var cases []faultCase
		for _, errno := range errnos {
			cases = append(cases, faultCase{op, errno, false}, faultCase{op, errno, true})
		}
		if !allFaults {
			class := op.Kind + hexes.ReplaceAllString(op.Path, "*")
			// When the names are gathered for the seal, none may be passed over.
			gathered := op.Kind == "getattr" && strings.Contains(op.Path, "/objects/")
			if seen[class] && !gathered {
				continue
			}
			seen[class] = true
			if turn++; turn%8 != 0 && !gathered {
				continue
			}
			cases = cases[turn/8%len(cases):][:1]
		}
		all = append(all, cases...)
	}
	return all
}

// problems says what is wrong with how a command ended that met a fault.
func problems(c faultCase, media string, code int, said string) []string {
	var out []string
	want := map[syscall.Errno][]int{
		syscall.EIO: {exitUntrusted}, syscall.ENOSPC: {exitSpace}, syscall.EROFS: {exitSpace}, syscall.EFBIG: {exitSpace},
	}[c.errno]
	if c.errno == syscall.EIO && c.forever {
		want = []int{exitIncomplete}
	}
	if !slices.Contains(want, code) {
		out = append(out, fmt.Sprintf("exit code %d, want %v", code, want))
	}
	if strings.Contains(said, "goroutine ") || strings.Contains(said, "panic") {
		out = append(out, "a trace of Go")
	}
	if strings.Contains(said, "error:") && !strings.Contains(said, "what to do:") {
		out = append(out, "no advice")
	}
	if !strings.Contains(said, media) && !strings.Contains(said, path.Base(c.op.Path)) {
		out = append(out, "neither drive nor file is named")
	}
	return out
}

// What a full, failing, write-protected or limited drive does to any call of a pack: the
// right exit code, words that name it, nothing that is called whole and is not, and the same
// command continues once the drive works again.
func TestEveryFaultOfPack(t *testing.T) {
	f := newDrives(t, trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22"))
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed %v", sealed), func(t *testing.T) {
			from := baddrive.New(t, baddrive.Options{})
			if sealed {
				must(t)(f.pack(t, filepath.Join(from.Plug(), "drive"), "4.8.21"))
				from.Pull()
			}
			traced := from.Crash(baddrive.Kept, 0)
			must(t)(f.pack(t, filepath.Join(traced.Plug(), "drive"), "4.8.22"))
			cases := faultCases(traced.Take())
			traced.Pull()
			missed, survived := 0, 0
			for _, c := range cases {
				d := from.Crash(baddrive.Kept, 0)
				media := filepath.Join(d.Plug(), "drive")
				d.Fail(c.fault())
				code, said := f.pack(t, media, "4.8.22")
				hit := d.Hit()
				d.Fail(baddrive.Fault{})
				if hit == nil {
					missed++
				} else if code == 0 {
					survived++
				} else {
					for _, p := range problems(c, media, code, said) {
						t.Errorf("%v: %s\n%s", c, p, said)
					}
				}
				acode, asaid := f.audit(t, media)
				if code == 0 && acode != 0 {
					t.Errorf("%v: packed, and yet audit says %d\n%s", c, acode, asaid)
				}
				if acode != 0 && acode != exitIncomplete && (sealed || acode != exitUsage) {
					t.Errorf("%v: audit says %d\n%s\n%s", c, acode, asaid, said)
				}
				if sealed {
					if ucode, usaid := f.unpack(t, media); ucode != 0 && ucode != exitIncomplete {
						t.Errorf("%v: unpack says %d\n%s", c, ucode, usaid)
					}
				}
				if code, said := f.pack(t, media, "4.8.22"); code != 0 {
					t.Errorf("%v: once more: %d\n%s", c, code, said)
				}
				if code, said := f.audit(t, media); code != 0 {
					t.Errorf("%v: once more, audit: %d\n%s", c, code, said)
				}
				d.Pull()
			}
			t.Logf("%d cases, %d survived, %d calls were not made again", len(cases), survived, missed)
			if missed > len(cases)/20 {
				t.Errorf("%d of %d calls were not made again", missed, len(cases))
			}
		})
	}
}

// The same for those who read.
func TestEveryFaultOfReaders(t *testing.T) {
	f := newDrives(t, trip.Small(t, "4.8.21"))
	from := baddrive.New(t, baddrive.Options{})
	must(t)(f.pack(t, filepath.Join(from.Plug(), "drive"), "4.8.21"))
	from.Pull()
	for name, command := range map[string]func(*testing.T, string) (int, string){"audit": f.audit, "inspect": f.inspect, "unpack": f.unpack} {
		t.Run(name, func(t *testing.T) {
			media := filepath.Join(from.Plug(), "drive")
			defer from.Pull()
			must(t)(command(t, media))
			ops := from.Take()
			if i := slices.IndexFunc(ops, baddrive.Op.Writes); i >= 0 {
				t.Errorf("it writes: %v", ops[i])
			}
			survived := 0
			for _, c := range faultCases(ops) {
				from.Pull() // what the kernel holds of it is gone
				from.Plug()
				from.Fail(c.fault())
				code, said := command(t, media)
				hit := from.Hit()
				from.Fail(baddrive.Fault{})
				if hit == nil || code == 0 {
					survived++
					continue
				}
				for _, p := range problems(c, media, code, said) {
					t.Errorf("%v: %s\n%s", c, p, said)
				}
			}
			from.Pull()
			from.Plug()
			must(t)(command(t, media))
			t.Logf("%d calls, %d survived", len(ops), survived)
		})
	}
}
