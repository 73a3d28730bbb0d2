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
var elsewhere = []string{"mkfs.exfat", "mount", "umount", "export", "mkdir", "oc"}

// abroad is what asks the public signature stores, for ten seconds where they are not there: it
// is only held to be understood. Others of the kind are run.
const abroad = "pannier preflight /media/usb/mirror --release"

// archives makes released archives of a program for two platforms.
const archives = `exec mkdir -p $WORK/dist/pannier_1.0
exec sh -c 'cd $WORK/dist && echo program > pannier_1.0/pannier && tar czf pannier_1.0_linux_amd64.tar.gz pannier_1.0 && tar czf pannier_1.0_windows_amd64.tar.gz pannier_1.0 && rm -r pannier_1.0 && sha256sum * > SHA256SUMS'`

// staged says what a documented command is preceded by, where the documents tell a story in
// which something has happened before, and how it ends if that is not well.
var staged = map[string]struct {
	before string
	code   int
}{
	"pannier pack 4.8.21 /media/usb/mirror --with-tool linux/amd64,windows": {archives, 0},
	"pannier audit --repair /media/usb/mirror --from /media/other": {
		"exec mkdir -p $WORK/other $WORK/small $WORK/old\nexec cp -r $WORK/usb/mirror $WORK/other/mirror\nexec cp -r $WORK/usb/mirror $WORK/old/mirror\nexec rm -r $WORK/usb/mirror/pannier/parity\nflip usb/mirror/blobs/sha256/*", 0},
	"pannier audit --refetch-list": {"exec rm -r $WORK/usb/mirror/pannier/parity\nflip usb/mirror/blobs/sha256/*", 4},
	"pannier pack 4.8.21 /media/usb/mirror --additional-image": {
		"exits 0 pannier pack $WORK/image --additional-image $SRC/openshift-release-dev/ocp-release:4.8.21-x86_64", 0},
}

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

// Commands of the documents are run, as they stand, in their order, with drives, a registry and
// releases that are made for it. What cannot be known to a document is added: where the release
// really is, and the key that signed it. Those of blocks of the kind "sh cluster" are run with
// the cluster side.
func TestDocumentedRun(t *testing.T) {
	dir := t.TempDir()
	for _, page := range pages {
		var b strings.Builder
		b.WriteString("sample SRC\nsample NEXT -version 4.8.22 -into SRC\nregistry DST\nmkdir usb\n")
		if page == "howto.md" { // begins where the tutorial ends
			b.WriteString("exits 0 pannier pack 4.8.21 $WORK/usb/mirror --registry-mirror quay.io=$SRC --signature-store sigs --keyring key.asc\n")
		}
		ran := 0
		for _, line := range fenced(t, page, "(?:console|sh)") {
			command := strings.TrimPrefix(line, "$ ")
			words := strings.Fields(command)
			if words[0] != "pannier" {
				if !slices.Contains(elsewhere, words[0]) {
					t.Errorf("%s: %q is known to no test", page, line)
				}
				continue
			}
			if ran++; strings.HasPrefix(command, abroad) {
				if _, _, err := arrange(words[1:], testCommands()); err != nil {
					t.Errorf("%s: %q: %v", page, line, err)
				}
				continue
			}
			code := 0
			for start, stage := range staged {
				if strings.HasPrefix(command, start) {
					b.WriteString(stage.before + "\n")
					code = stage.code
				}
			}
			fmt.Fprintf(&b, "exits %d %s\n", code, documented(words[1], command))
		}
		if ran < 5 {
			t.Errorf("%s: only %d commands were found", page, ran)
		}
		b.WriteString("-- pull-secret.json --\n{\"auths\":{}}\n-- robot.json --\n{\"auths\":{}}\n")
		name := strings.TrimSuffix(page, ".md") + ".txt"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, scriptParams(dir))
}

// documented is a command of the documents in the world of the test.
func documented(verb, command string) string {
	command = strings.NewReplacer(
		"/media/", "$WORK/", "registry.example:5000", "$DST", "harbor.example", "$DST", "--certificate-authority ca.pem", "",
		"quay.io=proxy.example:5000/quay", "quay.io=$SRC", "oci:image", "oci:$WORK/image", "--tool-dir dist", "--tool-dir $WORK/dist",
	).Replace(command)
	switch verb {
	case "inventory":
		return command
	case "pack":
		if !strings.Contains(command, "--registry-mirror") {
			command += " --registry-mirror quay.io=$SRC"
		}
		command += " --signature-store sigs"
	case "preflight":
		command += " --registry-mirror quay.io=$SRC"
	}
	return command + " --keyring key.asc"
}

// The Job of the documents runs a command that there is; that the API server takes the Job is
// tested with the cluster side.
func TestDocumentedJob(t *testing.T) {
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
