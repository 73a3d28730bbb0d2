package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pannier/bundle"
	"pannier/verify"
)

// section returns the part of docs/cli.md below a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(data), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/cli.md has no section %q", heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// rows returns the cells of the table lines in a text, without its head.
func rows(text string) [][]string {
	var out [][]string
	for _, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		for i := range cells {
			cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), `\|`, "|")
		}
		out = append(out, cells)
	}
	return out[1:]
}

// The table of flags says of every flag of every command what the program says: its names,
// its value, the commands that have it; and nothing that the program does not have.
func TestDocumentedFlags(t *testing.T) {
	var program []string
	for _, c := range testCommands() {
		for _, f := range c.Flags {
			value := ""
			if doc, ok := f.(interface{ GetUsage() string }); ok {
				value, _ = placeholder(doc.GetUsage())
			}
			names := slices.Clone(f.Names())
			slices.Sort(names)
			program = append(program, fmt.Sprintf("%s %s %s", c.Name, strings.Join(names, ","), value))
		}
	}

	var documented []string
	name := regexp.MustCompile(`(?:^|[ ` + "`" + `])--?([a-z][a-z-]*)`)
	for _, cells := range rows(section(t, "Flags")) {
		var names []string
		for _, m := range name.FindAllStringSubmatch(cells[0], -1) {
			names = append(names, m[1])
		}
		slices.Sort(names)
		value := ""
		if words := strings.Fields(strings.Trim(cells[0], "`")); len(words) > 1 && !strings.HasPrefix(words[len(words)-1], "-") {
			value = words[len(words)-1]
		}
		for _, command := range strings.Split(cells[1], ", ") {
			documented = append(documented, fmt.Sprintf("%s %s %s", command, strings.Join(names, ","), value))
		}
	}
	for _, line := range program {
		if !slices.Contains(documented, line) {
			t.Errorf("the program has %q, docs/cli.md has not", line)
		}
	}
	for _, line := range documented {
		if !slices.Contains(program, line) {
			t.Errorf("docs/cli.md has %q, the program has not", line)
		}
	}
}

func TestDocumentedCommands(t *testing.T) {
	data, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "```\n")
	synopsis, _, _ := strings.Cut(rest, "```")
	var documented []string
	for _, line := range strings.Split(strings.TrimSpace(synopsis), "\n") {
		documented = append(documented, strings.Fields(line)[1])
	}
	var program []string
	for _, c := range testCommands() {
		program = append(program, c.Name)
		if !strings.Contains(synopsis, c.ArgsUsage) {
			t.Errorf("the arguments of %s, %q, are not documented", c.Name, c.ArgsUsage)
		}
	}
	slices.Sort(documented)
	slices.Sort(program)
	if !slices.Equal(documented, program) {
		t.Errorf("documented are %v, there are %v", documented, program)
	}
}

func TestDocumentedExitCodes(t *testing.T) {
	want := []int{exitDone, exitError, exitUsage}
	for _, line := range codes {
		want = append(want, line.code)
	}
	slices.Sort(want)
	want = slices.Compact(want)
	var documented []int
	for _, cells := range rows(section(t, "Exit codes")) {
		documented = append(documented, atoi(cells[0]))
	}
	if !slices.Equal(documented, want) {
		t.Errorf("documented are %v, there are %v", documented, want)
	}
}

// Every word that the JSON of a report may hold is in the document.
func TestDocumentedWords(t *testing.T) {
	text := section(t, "JSON")
	words := []string{bundle.SignatureVerified, bundle.SignatureUnverified, bundle.SignatureMissing}
	for _, s := range []verify.Status{verify.StatusComplete, verify.StatusIncomplete, verify.StatusDamaged, verify.StatusUntrusted} {
		words = append(words, string(s))
	}
	for _, k := range []verify.Kind{verify.KindMissing, verify.KindTruncated, verify.KindCorrupt, verify.KindPartial, verify.KindExtra, verify.KindUnsealed, verify.KindUntrusted, verify.KindIndex} {
		words = append(words, string(k))
	}
	for _, w := range words {
		if !strings.Contains(text, `"`+w+`"`) {
			t.Errorf("%q is not documented", w)
		}
	}
}

// Every variable that the program looks at is in the document.
func TestDocumentedEnvironment(t *testing.T) {
	text := section(t, "Environment")
	seen := map[string]bool{}
	env := environ(func(name string) string { seen[name] = true; return "" })
	env.release()
	env.repository()
	env.media()
	env.destination()
	env.authFiles()
	env.cacheDir()
	env.kubeconfigs()
	seen["ARCHITECTURE"], seen["NO_COLOR"], seen["TERM"] = true, true, true
	for name := range seen {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("%s is not documented", name)
		}
	}
}
