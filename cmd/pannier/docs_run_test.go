package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// pages are the documents whose commands are tried.
var pages = []string{"tutorial.md", "howto.md"}

// elsewhere are programs that documents name and that no test here can run: they want a
// drive, a cluster, or a machine of their own.
var elsewhere = []string{"mkfs.exfat", "mount", "umount", "export", "skopeo", "oc", "mkdir"}

// fenced returns the commands in the code blocks of one kind; lines that end in a backslash
// go on.
func fenced(t *testing.T, page, kind string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(string(data), -1) {
		out = append(out, strings.Split(strings.TrimSpace(strings.ReplaceAll(m[1], "\\\n", " ")), "\n")...)
	}
	return out
}

// Blocks of the kind "console" are run, as they stand, in their order, with a drive, a
// registry and a release that are made for it. What cannot be known to a document is added:
// where the release really is, and the key that signed it.
func TestDocumentedConsole(t *testing.T) {
	dir := t.TempDir()
	for _, page := range pages {
		var b strings.Builder
		b.WriteString("sample SRC\nregistry DST\nmkdir usb\ncp secret pull-secret.json\n")
		if page == "howto.md" { // begins where the tutorial ends
			b.WriteString("exits 0 pannier pack 4.8.21 $WORK/usb/mirror --registry-mirror quay.io=$SRC --signature-store sigs --keyring key.asc\n")
		}
		for _, line := range fenced(t, page, "console") {
			command, typed := strings.CutPrefix(line, "$ ")
			if !typed {
				continue // what was printed
			}
			words := strings.Fields(command)
			if words[0] != "pannier" {
				t.Fatalf("%s: %q: only pannier is run", page, command)
			}
			command = strings.ReplaceAll(command, "/media/usb", "$WORK/usb")
			command = strings.ReplaceAll(command, "registry.example:5000", "$DST")
			command += " --keyring key.asc"
			if words[1] == "pack" {
				command += " --registry-mirror quay.io=$SRC --signature-store sigs"
			}
			fmt.Fprintf(&b, "exits 0 %s\n", command)
		}
		b.WriteString("-- secret --\n{\"auths\":{}}\n")
		name := strings.TrimSuffix(page, ".md") + ".txt"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, scriptParams(dir))
}

// Blocks of the kind "sh" want more than a test has; their commands must at least be ones
// that the program understands.
func TestDocumentedShell(t *testing.T) {
	for _, page := range pages {
		for _, line := range fenced(t, page, "sh") {
			words := strings.Fields(line)
			if words[0] != "pannier" {
				if !slices.Contains(elsewhere, words[0]) {
					t.Errorf("%s: %q is known to no test", page, line)
				}
				continue
			}
			if _, _, err := arrange(words[1:], testCommands()); err != nil {
				t.Errorf("%s: %q: %v", page, line, err)
			}
		}
	}

	// The Job's command; that the API server takes it is tested with the cluster side.
	job, err := os.ReadFile("../../docs/job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, m := range regexp.MustCompile(`(?m)^            - ([^{].*)$`).FindAllStringSubmatch(string(job), -1) {
		words = append(words, m[1])
	}
	if command, _, err := arrange(words, testCommands()); command != "unpack" || err != nil {
		t.Errorf("job.yaml: %q: %q, %v", words, command, err)
	}
}

// Links between the documents lead somewhere.
func TestDocumentedLinks(t *testing.T) {
	list, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(list, "../../README.md") {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllStringSubmatch(string(data), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}
