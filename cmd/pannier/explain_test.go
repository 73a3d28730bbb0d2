package main

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pannier/bundle"
)

var update = flag.Bool("update", false, "renew docs/errors.md, and add new codes to testdata/codes.txt")

// handled are sentinels that no person meets: the callers of their packages deal with them.
var handled = map[string]string{
	"store.ErrNotFound":   "an index without an entry is an answer",
	"objects.ErrNoMirror": "then no mirror set is made",

	"custody.ErrAttachment":   "attach makes a usage error of it",
	"custody.ErrEncryptedKey": "a usage error of --sign-key",
}

// props raise errors for tests only.
var props = []string{"bundle/release/sample", "bundle/remote/faultproxy", "verify/signature/sign", "apply/trip", "apply/cluster/clustertest"}

// Every sentinel that a library package exports stands in the catalogue, and so has a code.
func TestEverySentinelHasACode(t *testing.T) {
	listed := selectors(t, "advice.go")
	found := 0
	for _, name := range sentinels(t) {
		found++
		_, excused := handled[name]
		switch {
		case !slices.Contains(listed, name) && !excused:
			t.Errorf("%s is in no line of the catalogue: give it a code, or say in this test who deals with it", name)
		case slices.Contains(listed, name) && excused:
			t.Errorf("%s is in the catalogue: it needs no excuse", name)
		}
	}
	if found < 50 {
		t.Errorf("only %d sentinels were found", found)
	}
}

// sentinels returns the exported variables Err… of the library packages, "layout.ErrGone".
func sentinels(t *testing.T) []string {
	var out []string
	for _, layer := range []string{"store", "bundle", "verify", "apply"} {
		err := filepath.WalkDir(filepath.Join("../..", layer), func(path string, d fs.DirEntry, err error) error {
			dir, _ := filepath.Rel("../..", filepath.Dir(path))
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
				slices.Contains(props, filepath.ToSlash(dir)) {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			for _, decl := range file.Decls {
				vars, ok := decl.(*ast.GenDecl)
				if !ok || vars.Tok != token.VAR {
					continue
				}
				for _, spec := range vars.Specs {
					for _, name := range spec.(*ast.ValueSpec).Names {
						if regexp.MustCompile(`^Err[A-Z]`).MatchString(name.Name) {
							out = append(out, file.Name.Name+"."+name.Name)
						}
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// selectors returns what a file uses of packages, "layout.ErrGone".
func selectors(t *testing.T, name string) []string {
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if pkg, ok := s.X.(*ast.Ident); ok {
				out = append(out, pkg.Name+"."+s.Sel.Name)
			}
		}
		return true
	})
	return out
}

// A code is of the form P1234, stands for one class, and has all its text.
func TestCodesAreWhole(t *testing.T) {
	seen, said := map[string]bool{}, map[string]bool{}
	for _, a := range allAdvice() {
		subject := slices.IndexFunc(subjects, func(s struct{ digit, name string }) bool { return strings.HasPrefix(a.code, "P"+s.digit) })
		switch {
		case !regexp.MustCompile(`^P\d{4}$`).MatchString(a.code), subject < 0:
			t.Errorf("%q is no code", a.code)
		case seen[a.code]:
			t.Errorf("%s stands twice", a.code)
		case said[a.what]:
			t.Errorf("%s: %q is said of another code too", a.code, a.what)
		case a.what == "" || a.cause == "" || a.todo == "" || a.rerun == "":
			t.Errorf("%s has a gap", a.code)
		}
		seen[a.code], said[a.what] = true, true
	}
	for _, line := range codes {
		for _, err := range line.any {
			if code := adviceFor(err).code; code == unknownAdvice.code || !seen[code] {
				t.Errorf("%v of the exit table has the code %q", err, code)
			}
		}
	}
}

// The codes that were ever given, with what they mean, are in testdata/codes.txt: none
// changes its meaning, none is given again. One that is no longer used keeps its line, which
// then ends in "(retired)". docs/errors.md says what the program says.
func TestErrorCodes(t *testing.T) {
	const name, document = "testdata/codes.txt", "../../docs/errors.md"
	given := map[string]string{}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		code, what, _ := strings.Cut(line, " ")
		if given[code] != "" {
			t.Errorf("%s has %s twice", name, code)
		}
		given[code] = what
	}
	used := map[string]bool{}
	for _, a := range allAdvice() {
		used[a.code] = true
		switch given[a.code] {
		case a.what:
		case "":
			if !*update {
				t.Errorf("%s (%s) is not in %s: run this test with -update", a.code, a.what, name)
			}
			given[a.code] = a.what
		default:
			t.Errorf("%s means %q, and now it would mean %q: take a new code", a.code, given[a.code], a.what)
		}
	}
	for code, what := range given {
		if !used[code] && !strings.HasSuffix(what, "(retired)") {
			t.Errorf("%s (%s) is gone: say in %s that it is retired", code, what, name)
		}
	}
	want := errorsDocument()
	if *update && !t.Failed() {
		var lines []string
		for code, what := range given {
			lines = append(lines, code+" "+what+"\n")
		}
		slices.Sort(lines)
		if err := errors.Join(os.WriteFile(name, []byte(strings.Join(lines, "")), 0o644), os.WriteFile(document, []byte(want), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(document); err != nil || string(have) != want {
		t.Errorf("%s is not what the program says: run this test with -update (%v)", document, err)
	}
}

func TestFindAdvice(t *testing.T) {
	list := allAdvice()
	for _, typed := range []string{"P2007", "p2007", "2007", "P2007:"} {
		if a, err := findAdvice(list, typed); err != nil || a.code != "P2007" || a.exit != exitSpace {
			t.Errorf("%s: %+v, %v", typed, a, err)
		}
	}
	for typed, near := range map[string]string{"P2907": "P2007", "P2070": "P2007", "P201": "P2012", "x": "lists all", "": "lists all", "P": "lists all"} {
		if _, err := findAdvice(list, typed); err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), near) {
			t.Errorf("%q: %v", typed, err)
		}
	}
}

// Codes stand in every form of output: with the error, in the events, and in the result.
func TestCodesArePrinted(t *testing.T) {
	err := fmt.Errorf("x: %w", bundle.ErrUnsealed)
	if text := told(err, func(s string) string { return s }); !strings.HasPrefix(text, "error P2013: x: ") {
		t.Errorf("%s", text)
	}
	if got := codesOf(errors.Join(err, usagef("pack", "no"), statusError("damaged"))); !slices.Equal(got, []string{"P2013", "P1001", "P2014"}) {
		t.Errorf("%v", got)
	}
	var b strings.Builder
	c := &console{stderr: &b, events: true}
	c.fail(err)
	if !strings.Contains(b.String(), `"code":"P2013"`) {
		t.Errorf("%s", b.String())
	}
}

// What is told of a class's exit code holds for each of its errors, not for the first alone.
func TestExitCodesOfClasses(t *testing.T) {
	for _, line := range catalogue {
		i := slices.IndexFunc(allAdvice(), func(a classified) bool { return a.code == line.code })
		for _, err := range line.is {
			if want := allAdvice()[i].exit; exitCode(err) != want {
				t.Errorf("%s: %v has exit code %d, and %d is told", line.code, err, exitCode(err), want)
			}
		}
	}
	for code, want := range map[string]int{"P3010": exitRegistry, "P4001": exitRegistry, "P4007": exitUntrusted} {
		if a, err := findAdvice(allAdvice(), code); err != nil || a.exit != want {
			t.Errorf("%s: exit code %d, want %d (%v)", code, a.exit, want, err)
		}
	}
}
