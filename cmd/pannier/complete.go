package main

import (
	"embed"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completeCommand asks for candidates; the shells' scripts call it. Its protocol is the one
// that kubectl and oc want of plugins: the words that follow, the last one unfinished; one
// candidate a line, with a tab before what it is; last a colon and one of the numbers below.
const completeCommand = "__complete"

// completerName is how kubectl, and oc with it, calls the program that completes a plugin's
// words: a link of that name to this program will do.
const completerName = "kubectl_complete-pannier"

// What a shell adds to the candidates.
const (
	completeFiles   = 0
	completeNothing = 4
	completeFolders = 16
)

// enumerated are the values of flags that take one of a few.
var enumerated = map[string][]string{
	"arch":             {"x86_64", "aarch64", "ppc64le", "s390x", "multi"},
	"mirror-set":       {"auto", "icsp", "idms"},
	"signature-policy": {"require", "warn"},
	"progress":         progressModes,
	"output":           {"text", "json"},
	"side":             {"auto", "near", "far", "both"},
}

//go:embed completion
var completionScripts embed.FS

var shells = []string{"bash", "zsh", "fish"}

func (s *session) completionCommand() *cli.Command {
	f := &logFlags{}
	return &cli.Command{
		Name: "completion", Usage: "what makes a shell complete commands, flags and values", ArgsUsage: "SHELL",
		Description: "SHELL is bash, zsh or fish. It completes oc-pannier and kubectl-pannier too. For \"oc pannier\" and\n" +
			"\"kubectl pannier\", link " + completerName + " to this program in a folder of the PATH.",
		Flags: f.flags(),
		Action: func(c *cli.Context) error {
			if err := s.start(f, nil); err != nil {
				return err
			}
			if c.NArg() != 1 || !slices.Contains(shells, c.Args().First()) {
				return usagef(s.command, "SHELL is one of %s", strings.Join(shells, ", "))
			}
			script, err := completionScripts.ReadFile("completion/pannier." + c.Args().First())
			if err != nil {
				return err
			}
			return s.console.print("%s", trusted(script))
		},
	}
}

// completes returns the words to complete, if that is what the program was called for.
func completes(argv []string) (words []string, asked bool) {
	if strings.TrimSuffix(filepath.Base(argv[0]), ".exe") == completerName {
		return argv[1:], true
	}
	if len(argv) > 1 && argv[1] == completeCommand {
		return argv[2:], true
	}
	return nil, false
}

// complete prints the candidates for the last word.
func (s *session) complete(words []string) error {
	if len(words) == 0 {
		words = []string{""}
	}
	list, more := candidates(s.app().Commands, words[:len(words)-1], words[len(words)-1])
	for _, line := range list {
		if err := s.console.print("%s\n", trusted(line)); err != nil {
			return err
		}
	}
	return s.console.print(":%d\n", more)
}

// candidates returns what the word begun may become behind the words before, each with a tab
// and a few words on it, and what the shell is to add.
func candidates(commands []*cli.Command, before []string, begun string) (list []string, more int) {
	command, flag, bare := readLine(commands, before)
	add := func(word, about string) {
		if strings.HasPrefix(word, begun) {
			list = append(list, word+"\t"+about)
		}
	}
	var flags []cli.Flag
	if command != nil {
		flags = command.Flags
	} else {
		for _, c := range commands {
			flags = append(flags, c.Flags...)
		}
	}
	name, value, joined := strings.Cut(begun, "=")
	switch {
	case flag != nil:
		return valuesOf(flag, "", begun)
	case !bare && joined && strings.HasPrefix(begun, "-"):
		for _, f := range flags {
			if slices.Contains(f.Names(), strings.TrimLeft(name, "-")) {
				return valuesOf(f, name+"=", value)
			}
		}
		return nil, completeNothing
	case !bare && strings.HasPrefix(begun, "-"):
		seen := map[string]bool{}
		for _, f := range flags {
			usage := ""
			if doc, ok := f.(cli.DocGenerationFlag); ok {
				_, usage = placeholder(doc.GetUsage())
			}
			for _, n := range f.Names() {
				if len(n) > 1 && !seen[n] {
					seen[n] = true
					add("--"+n, firstWords(usage))
				}
			}
		}
		slices.Sort(list)
		return list, completeNothing
	case command == nil:
		for _, c := range commands {
			add(c.Name, c.Usage)
		}
		add("help", "about the program, or about a command")
		return list, completeNothing
	}
	switch command.Name {
	case "explain":
		for _, a := range allAdvice() {
			add(a.code, a.what)
		}
	case "completion":
		for _, shell := range shells {
			add(shell, "")
		}
	case "help", "man":
		for _, c := range commands {
			add(c.Name, c.Usage)
		}
	default:
		if command.ArgsUsage != "" {
			return nil, completeFolders // MEDIA, FROM; a registry's name is nobody's to guess
		}
	}
	return list, completeNothing
}

// readLine finds the command of an unfinished line, and the flag whose value comes next; bare
// says that flags are over.
func readLine(commands []*cli.Command, words []string) (command *cli.Command, flag cli.Flag, bare bool) {
	takers := map[string]cli.Flag{} // a name means one shape, whichever command has it
	for _, c := range commands {
		for _, f := range c.Flags {
			if _, ok := f.(*cli.BoolFlag); !ok {
				for _, n := range f.Names() {
					takers[n] = f
				}
			}
		}
	}
	for _, w := range words {
		switch {
		case flag != nil:
			flag = nil
		case bare, !strings.HasPrefix(w, "-"), w == "-":
			if command == nil && w == "help" {
				command = &cli.Command{Name: "help"}
			}
			for _, c := range commands {
				if command == nil && c.Name == w {
					command = c
				}
			}
		case w == "--":
			bare = true
		case strings.HasPrefix(w, "--"):
			flag = takers[w[2:]]
		case len(w) > 1:
			flag = takers[w[len(w)-1:]] // -vo: the last letter may want a value
		}
	}
	return command, flag, bare
}

// valuesOf returns the values that a flag may have; prefix stands before each.
func valuesOf(f cli.Flag, prefix, begun string) (list []string, more int) {
	if values := enumerated[f.Names()[0]]; values != nil {
		for _, v := range values {
			if strings.HasPrefix(v, begun) {
				list = append(list, prefix+v+"\t")
			}
		}
		return list, completeNothing
	}
	value := ""
	if doc, ok := f.(cli.DocGenerationFlag); ok {
		value, _ = placeholder(doc.GetUsage())
	}
	switch {
	case strings.Contains(value, "FILE"):
		return nil, completeFiles
	case value == "DIR" || value == "MEDIA" || value == "OTHER":
		return nil, completeFolders
	case value == "SOURCE" || value == "URL": // an address, or a file or folder
		return nil, completeFiles
	}
	return nil, completeNothing
}

// firstWords shortens a description to what a line of a menu holds.
func firstWords(s string) string {
	s, _, _ = strings.Cut(s, ";")
	s, _, _ = strings.Cut(s, " (")
	if words := strings.Fields(s); len(words) > 9 {
		s = fmt.Sprintf("%s …", strings.Join(words[:9], " "))
	}
	return printable(s)
}
