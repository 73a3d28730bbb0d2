package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// Each flag that takes one of a few values has them completed, and its help names them.
func TestEnumerated(t *testing.T) {
	words := []string{"KIND", "POLICY", "HOW", "FORMAT", "ARCH", "SIDE"}
	seen := map[string]bool{}
	for _, c := range testCommands() {
		for _, f := range c.Flags {
			doc, ok := f.(cli.DocGenerationFlag)
			if !ok {
				continue
			}
			value, usage := placeholder(doc.GetUsage())
			name := f.Names()[0]
			seen[name] = true
			if slices.Contains(words, value) && enumerated[name] == nil {
				t.Errorf("%s --%s: no values to complete", c.Name, name)
			}
			for _, v := range enumerated[name] {
				if !strings.Contains(usage, v) {
					t.Errorf("%s --%s: %s is completed, and not in its help: %s", c.Name, name, v, usage)
				}
			}
		}
	}
	for name := range enumerated {
		if !seen[name] {
			t.Errorf("there is no flag --%s", name)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, test := range []struct {
		line, want string
		more       int
	}{
		{"pa", "pack", completeNothing},
		{"-v pa", "pack", completeNothing},
		{"--arch pack pa", "pack", completeNothing}, // a value is no command
		{"pack --arch=s", "--arch=s390x", completeNothing},
		{"audit -vo j", "json", completeNothing},
		{"audit ", "", completeFolders},
		{"audit -- --k", "", completeFolders},
		{"audit --key", "--keyring", completeNothing},
		{"audit --keyring ", "", completeFiles},
		{"pack --adopt ", "", completeFolders},
		{"pack --for ", "", completeNothing},
		{"help unp", "unpack", completeNothing},
		{"nonsense --wa", "--wait", completeNothing},
	} {
		words := strings.Split(test.line, " ")
		list, more := candidates(testCommands(), words[:len(words)-1], words[len(words)-1])
		first := ""
		if len(list) > 0 {
			first, _, _ = strings.Cut(list[0], "\t")
		}
		if first != test.want || more != test.more {
			t.Errorf("%q: %q and %d, wanted %q and %d", test.line, first, more, test.want, test.more)
		}
	}
}
