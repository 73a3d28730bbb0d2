package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func testCommands() []*cli.Command {
	s := &session{argv: []string{"pannier"}, env: func(string) string { return "" }, console: &console{}}
	return s.app().Commands
}

func TestArrange(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"pack 4.8.21 /m", "pack -- 4.8.21 /m"},
		{"unpack /m reg.example/a --dry-run", "unpack --dry-run=true -- /m reg.example/a"},
		{"--dry-run unpack /m", "unpack --dry-run=true -- /m"},
		{"pack --arch s390x 4.8.21 /m", "pack --arch=s390x -- 4.8.21 /m"},
		{"pack 4.8.21 --arch=s390x /m", "pack --arch=s390x -- 4.8.21 /m"},
		{"pack 4.8.21 /m -a f", "pack --registry-config=f -- 4.8.21 /m"},
		{"pack 4.8.21 /m -a=f", "pack --registry-config=f -- 4.8.21 /m"},
		{"pack 4.8.21 /m -af", "pack --registry-config=f -- 4.8.21 /m"},
		{"pack 4.8.21 /m --authfile f", "pack --registry-config=f -- 4.8.21 /m"},
		{"audit -ojson /m", "audit --output=json -- /m"},
		{"audit /m -vv", "audit -v=true -v=true -- /m"},
		{"audit /m -v --verbose", "audit -v=true -v=true -- /m"},
		{"audit -vo json /m", "audit -v=true --output=json -- /m"},
		{"audit -- --dry-run", "audit -- --dry-run"},
		{"audit --jobs 2 -- -v", "audit --jobs=2 -- -v"},
		{"audit -", "audit -- -"},
		{"pack --keyring a /m --keyring b", "pack --keyring=a --keyring=b -- /m"},
		{"pack --keyring a,b /m", "pack --keyring=a,b -- /m"},
		{"pack --arch x --arch x 1 /m", "pack --arch=x -- 1 /m"},
		{"pack --dry-run --dry-run=true /m", "pack --dry-run=true -- /m"},
		{"pack --dry-run=false /m", "pack --dry-run=false -- /m"},
		{"pack --additional-prefix=-x /m", "pack --additional-prefix=-x -- /m"},
		{"pack --jobs -1 /m", "pack --jobs=-1 -- /m"},
		{"help pack", "help pack"},
		{"pack /m -h", "pack --help=true -- /m"},
	} {
		command, out, err := arrange(strings.Fields(test.line), testCommands())
		if err != nil {
			t.Errorf("%s: %v", test.line, err)
			continue
		}
		if got := strings.Join(append([]string{command}, out...), " "); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.line, got, test.want)
		}
	}
}

func TestArrangeRefuses(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"pack 4.8.21 /m --dryrun", "did you mean --dry-run?"},
		{"pack 4.8.21 /m --no-such-thing", "unknown flag"},
		{"pack 4.8.21 /m -dry-run", "unknown flag -dry-run; did you mean --dry-run?"},
		{"pack 4.8.21 /m -x", "unknown flag -x"},
		{"pack 4.8.21 /m --a f", "unknown flag --a"},
		{"pack 4.8.21 /m --arch", "--arch needs a value"},
		{"pack 4.8.21 /m -a", "-a needs a value"},
		{"pack --arch --dry-run 4.8.21 /m", "--dry-run\" is a flag"},
		{"pack --arch -v 4.8.21 /m", "-v\" is a flag"},
		{"pack --arch= 4.8.21 /m", "empty value"},
		{"pack --dry-run=perhaps /m", "takes no value"},
		{"pack --dry-run --dry-run=false /m", "contradicts"},
		{"pack --arch x86_64 --arch s390x /m", "contradicts"},
		{"pack -a f --authfile g /m", "contradicts"},
		{"audit /m --dry-run", "belongs to: pack, unpack"},
		{"copy 4.8.21 reg.example/a", "unknown command \"copy\"; this version has: apply, "},
		{"/m pack", "unknown command"},
	} {
		_, out, err := arrange(strings.Fields(test.line), testCommands())
		var usage *usageError
		if !errors.As(err, &usage) {
			t.Errorf("%s: %q, %v: not a usage error", test.line, out, err)
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v: does not say %q", test.line, err, test.want)
		}
	}
	if _, _, err := arrange([]string{"pack", "4.8.21", "/m", "--bogus"}, testCommands()); err == nil || strings.Contains(err.Error(), "did you mean") {
		t.Errorf("a guess that is far off: %v", err)
	}
	if _, _, err := arrange([]string{"pack", "-a", "", "4.8.21", "/m"}, testCommands()); err == nil {
		t.Error("an empty value was accepted")
	}
}

// A flag may stand before the command, when it is not yet known which command's it is; so a
// name must mean the same shape, under the same names, everywhere.
func TestFlagsAgreeBetweenCommands(t *testing.T) {
	shapes := flagTable{}
	names := map[string][]string{}
	for _, c := range testCommands() {
		for name, shape := range tableOf(c.Flags) {
			if before, ok := shapes[name]; ok && before != shape {
				t.Errorf("--%s is %+v in %s and %+v elsewhere", name, shape, c.Name, before)
			}
			shapes[name] = shape
		}
		for _, f := range c.Flags {
			if before, ok := names[f.Names()[0]]; ok && !slices.Equal(before, f.Names()) {
				t.Errorf("%s: %v, elsewhere %v", c.Name, f.Names(), before)
			}
			names[f.Names()[0]] = f.Names()
		}
	}
}

// Every command has examples, and no line of help is wider than the narrowest usual terminal.
func TestHelp(t *testing.T) {
	for _, c := range testCommands() {
		if len(examples[c.Name]) == 0 {
			t.Errorf("%s has no example", c.Name)
		}
		for _, line := range strings.Split(helpText(c), "\n") {
			if len([]rune(line)) > helpWidth+2 {
				t.Errorf("%s: %d columns: %s", c.Name, len(line), line)
			}
		}
	}
}
