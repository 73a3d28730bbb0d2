// Package pannier_test keeps the house straight: which package may import which, where each
// dependency lives, and what library code leaves to the command. docs/architecture.md draws
// it; the reasons stand beside each rule here.
package pannier_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "pannier"

// layers, from the bottom up. A package belongs to the layer of its first path element and
// imports only from its own layer and those below.
var layers = []string{"store", "bundle", "verify", "apply", "cmd"}

// vocabulary is free to every layer although it stands in one: packages that hold words
// (small types and interfaces over descriptors) and import nothing of ours. store keeps the
// slice sums of a blob and takes their size and encoding from bundle/content, so that writer
// and index cannot drift apart.
var vocabulary = []string{"bundle/content"}

// props are made for the demo and for tests: only the command and tests import them, and
// they each other.
var props = []string{"bundle/release/sample", "bundle/release/sample/olareg", "bundle/remote/faultproxy", "bundle/layout/baddrive", "bundle/throttle", "verify/signature/sign", "apply/trip", "apply/cluster/clustertest"}

// homes says which packages import a dependency, so that it can be judged, upgraded or
// replaced in one place; "*" is free to all. The longest prefix that matches an import path
// counts. A new line here needs a page in docs/decisions.
var homes = map[string][]string{
	"github.com/opencontainers/go-digest":  {"*"}, // vocabulary: what a digest is
	"github.com/opencontainers/image-spec": {"*"}, // vocabulary: what a descriptor is
	"golang.org/x/sync":                    {"*"}, // errgroup and semaphore, by the Go project

	"go.etcd.io/bbolt": {"store"},

	"github.com/zeebo/xxh3":            {"bundle/content"},
	"golang.org/x/sys":                 {"bundle/layout"}, // flush, lock, ask the file system
	"oras.land/oras-go":                {"bundle/remote"},
	"github.com/klauspost/compress":    {"bundle/release", "bundle/release/sample"}, // read; written
	"github.com/klauspost/reedsolomon": {"bundle/parity"},
	"github.com/olareg/olareg":         {"bundle/release/sample/olareg"},

	"github.com/google/go-containerregistry": {"bundle/release/sample"},
	"github.com/hanwen/go-fuse":              {"bundle/layout/baddrive"},
	"sigs.k8s.io/yaml":                       {"bundle/objects"},

	"golang.org/x/crypto/openpgp": {"verify/signature", "verify/signature/sign"},
	"golang.org/x/crypto/ssh":     {"verify/custody"},

	"k8s.io": {"apply/cluster"},

	"github.com/urfave/cli":  {"cmd/pannier"},
	"github.com/vbauerster/": {"cmd/pannier"}, // bars
	"golang.org/x/term":      {"cmd/pannier"},
}

// left says what library code (all but cmd and the props) leaves to the command, and why.
// A name that ends in "." stands for the whole package.
var left = map[string]string{
	"flag.":                     "flags stop at cmd: take an option",
	"os/signal.":                "signals are cmd's: take a context",
	"os.Exit":                   "return an error",
	"os.Getenv":                 "the environment is read by cmd: take an option",
	"os.LookupEnv":              "the environment is read by cmd: take an option",
	"os.Environ":                "the environment is read by cmd: take an option",
	"os.ExpandEnv":              "the environment is read by cmd: take an option",
	"os.UserHomeDir":            "reads the environment: take an option",
	"os.UserCacheDir":           "reads the environment: take an option",
	"os.UserConfigDir":          "reads the environment: take an option",
	"os.TempDir":                "reads the environment: take an option",
	"os.Stdin":                  "the terminal is cmd's",
	"os.Stdout":                 "the terminal is cmd's",
	"os.Stderr":                 "the terminal is cmd's",
	"fmt.Print":                 "the terminal is cmd's: return it, or log to the option's logger",
	"fmt.Printf":                "the terminal is cmd's: return it, or log to the option's logger",
	"fmt.Println":               "the terminal is cmd's: return it, or log to the option's logger",
	"log.":                      "take a *slog.Logger option",
	"log/slog.Default":          "take a *slog.Logger option",
	"context.Background":        "take the caller's context",
	"context.TODO":              "take the caller's context",
	"net/http.DefaultClient":    "takes proxies from the environment: use the configured client",
	"net/http.DefaultTransport": "takes proxies from the environment: build one with the option's proxy",
	"net/http.Get":              "uses the default client",
	"net/http.Head":             "uses the default client",
	"net/http.Post":             "uses the default client",

	"net/http.ProxyFromEnvironment": "the environment is read by cmd: take an option",
}

// room is one package of the tree. Files that the build leaves out on this system are
// parsed all the same: the rules hold on every platform.
type room struct {
	name    string // without the module, "bundle/layout"
	product []source
	inside  []source // tests in the package
	outside []source // tests beside it, package x_test: free of the rules on layers
}

type source struct {
	path    string
	ast     *ast.File
	imports map[string]string // name in the file -> import path
}

func TestLayers(t *testing.T) {
	for _, r := range rooms(t) {
		for path := range importsOf(t, r, false) {
			checkLayer(t, r.name, path, "")
		}
		for path := range importsOf(t, r, true) {
			checkLayer(t, r.name, path, " in a test (an external test package, "+filepath.Base(r.name)+"_test, may)")
		}
	}
}

func checkLayer(t *testing.T, from, importPath, how string) {
	t.Helper()
	to, ours := strings.CutPrefix(importPath, module+"/")
	switch {
	case !ours:
	case slices.Contains(vocabulary, from):
		t.Errorf("%s imports %s%s: a vocabulary package imports nothing of ours, since every layer imports it", from, to, how)
	case slices.Contains(vocabulary, to):
	case layer(t, to) > layer(t, from):
		t.Errorf("%s imports %s%s: arrows point down (%s); declare a small interface here and let cmd wire it",
			from, to, how, strings.Join(reversed(layers), " > "))
	case from != to && strings.HasPrefix(from, to+"/") && !slices.Contains(props, from):
		// A layer's own package is made of its rooms, so a room that imports it would be
		// half of a circle. Rooms of rooms (release/sample) likewise, but for the props,
		// which imitate what stands above them.
		t.Errorf("%s imports %s%s: what stands in a room does not import the room; move the shared piece down", from, to, how)
	}
}

func TestPropsStayBackstage(t *testing.T) {
	for _, r := range rooms(t) {
		if strings.HasPrefix(r.name, "cmd/") || slices.Contains(props, r.name) {
			continue
		}
		for path := range importsOf(t, r, false) {
			if to := strings.TrimPrefix(path, module+"/"); slices.Contains(props, to) {
				t.Errorf("%s imports %s: that package is for the demo and for tests", r.name, to)
			}
		}
	}
}

func TestDependenciesHaveOneHome(t *testing.T) {
	for _, r := range rooms(t) {
		for path := range importsOf(t, r, false) {
			if first, _, _ := strings.Cut(path, "/"); first == module || !strings.Contains(first, ".") {
				continue // ours, or the standard library
			}
			switch prefix, allowed := home(path); {
			case prefix == "":
				t.Errorf("%s imports %s, which has no home: a new dependency needs a page in docs/decisions and a line in homes", r.name, path)
			case !slices.Contains(allowed, "*") && !slices.Contains(allowed, r.name):
				t.Errorf("%s imports %s, whose home is %s: ask that package for what you need", r.name, path, strings.Join(allowed, " and "))
			}
		}
	}
}

// The program is started for every command, and what a package computes when it is loaded
// each of them waits for, whether it is used or not. olareg computes a password hash: 70 ms,
// most of what `pannier version` took. Packages of tests and of cmd/bench may import it.
func TestProgramStartsWithoutOlareg(t *testing.T) {
	const heavy = "github.com/olareg/olareg"
	watchTree(t)
	carries := func(pkg string) bool {
		out, err := exec.Command("go", "list", "-deps", pkg).CombinedOutput()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, out)
		}
		return slices.ContainsFunc(strings.Fields(string(out)), func(p string) bool { return p == heavy || strings.HasPrefix(p, heavy+"/") })
	}
	if carries("./cmd/pannier") {
		t.Errorf("cmd/pannier carries %s into every command (`go mod why -m` names the way): only tests and cmd/bench may import bundle/release/sample/olareg", heavy)
	}
	if !carries("./bundle/release/sample/olareg") {
		t.Errorf("%s is not found where it is: this test proves nothing", heavy)
	}
}

func TestLibrariesLeaveTheProcessAlone(t *testing.T) {
	for _, r := range rooms(t) {
		if strings.HasPrefix(r.name, "cmd/") || slices.Contains(props, r.name) {
			continue
		}
		for _, s := range r.product {
			for _, p := range s.imports {
				if why, ok := left[p+"."]; ok {
					t.Errorf("%s imports %s: %s", s.path, p, why)
				}
			}
			ast.Inspect(s.ast, func(n ast.Node) bool {
				name := qualified(s, n)
				if why, ok := left[name]; ok {
					t.Errorf("%s uses %s: %s", s.path, name, why)
				}
				return true
			})
		}
	}
}

func TestEveryPackageIsInTheArchitecture(t *testing.T) {
	const file = "docs/architecture.md"
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s does not exist", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		words := strings.FieldsFunc(line, func(c rune) bool { return strings.ContainsRune(" \t|`\r\n", c) })
		if len(words) > 1 {
			documented[words[0]] = true
		}
	}
	for _, r := range rooms(t) {
		if !documented[r.name] {
			t.Errorf("%s has no line in the table of %s: say in a sentence what it owns", r.name, file)
		}
	}
}

// rooms lists the packages of the tree, with every file parsed.
func rooms(t *testing.T) []room {
	t.Helper()
	watchTree(t)
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Name,GoFiles,CgoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles", "./...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var list []room
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath, Dir, Name                                        string
			GoFiles, CgoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		r := room{name: strings.TrimPrefix(p.ImportPath, module+"/")}
		if p.ImportPath == module {
			continue // this test
		}
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles) {
			s := parse(t, filepath.Join(p.Dir, name))
			switch {
			case !strings.HasSuffix(name, "_test.go"):
				r.product = append(r.product, s)
			case strings.HasSuffix(s.ast.Name.Name, "_test"):
				r.outside = append(r.outside, s)
			default:
				r.inside = append(r.inside, s)
			}
		}
		list = append(list, r)
	}
	if len(list) < 5 {
		t.Fatalf("go list found %d packages: these tests would prove nothing", len(list))
	}
	return list
}

// watchTree reads the folders of the tree in this process. `go test` reuses a result while
// the files that the test opened are the same, and it does not see what `go list` opens:
// without this a new package would go unchecked.
func watchTree(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != "." && (d.Name()[0] == '.' || d.Name() == "testdata" || d.Name() == "bin" || d.Name() == "dist") {
			return filepath.SkipDir
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func parse(t *testing.T, file string) source {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, file); err == nil {
			file = rel
		}
	}
	s := source{path: file, ast: f, imports: map[string]string{}}
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		name := path.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "_" || name == "." {
			name = fmt.Sprintf("%s %s", name, p) // several may share it; the name is never looked up
		}
		s.imports[name] = p
	}
	return s
}

// importsOf is the set of paths imported by the product files of r or, with tests, by the
// tests that stand inside the package.
func importsOf(t *testing.T, r room, tests bool) map[string]bool {
	t.Helper()
	set := map[string]bool{}
	files := r.product
	if tests {
		files = r.inside
	}
	for _, s := range files {
		for _, p := range s.imports {
			set[p] = true
		}
	}
	return set
}

// qualified is "os.Exit" where n is a use of a name of an imported package, "" elsewhere.
// An identifier that the parser could resolve is a local variable that hides the package.
func qualified(s source, n ast.Node) string {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok || id.Obj != nil || s.imports[id.Name] == "" {
		return ""
	}
	return s.imports[id.Name] + "." + sel.Sel.Name
}

func layer(t *testing.T, name string) int {
	t.Helper()
	first, _, _ := strings.Cut(name, "/")
	i := slices.Index(layers, first)
	if i < 0 {
		t.Fatalf("%s belongs to no layer: the tree has %s", name, strings.Join(layers, ", "))
	}
	return i
}

func home(importPath string) (prefix string, allowed []string) {
	for p, where := range homes {
		if len(p) > len(prefix) && strings.HasPrefix(importPath, p) {
			prefix, allowed = p, where
		}
	}
	return prefix, allowed
}

func reversed(s []string) []string {
	r := slices.Clone(s)
	slices.Reverse(r)
	return r
}

// TestClusterTestsAreNamed sees to it that `make test-cluster`, which picks the tests of the
// command by name, runs every one that is behind the build tag.
func TestClusterTestsAreNamed(t *testing.T) {
	files, err := filepath.Glob("cmd/pannier/*_cluster_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "Test") && !strings.HasPrefix(fn.Name.Name, "TestCluster") {
				t.Errorf("%s: %s would not run: its name must begin with TestCluster", name, fn.Name.Name)
			}
		}
	}
}
