package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// usageError is a command line that cannot be understood, or that cannot be meant. Nothing
// has been done when it is returned; its exit code is 2.
type usageError struct {
	command string // whose help to point at; "" for the program's
	text    string
}

func (e *usageError) Error() string { return e.text }

func usagef(command, format string, args ...any) error {
	return &usageError{command: command, text: fmt.Sprintf(format, args...)}
}

// flagShape is what must be known of a flag to find it among arguments.
type flagShape struct {
	name   string // the canonical one, by which it is passed on
	value  bool   // takes a value
	repeat bool   // may stand more than once

	bare string // its value where no platforms stand behind it; "" where one must be given
}

// flagTable finds a flag by any of its names, without dashes.
type flagTable map[string]flagShape

func tableOf(flags []cli.Flag) flagTable {
	table := flagTable{}
	for _, f := range flags {
		shape := flagShape{name: f.Names()[0], value: true}
		switch f := f.(type) {
		case *cli.BoolFlag:
			shape.value = false
			shape.repeat = f.Count != nil
		case *cli.StringSliceFlag:
			shape.repeat = true
		}
		if shape.name == "with-tool" {
			shape.bare = ownTool
		}
		for _, name := range f.Names() {
			table[name] = shape
		}
	}
	return table
}

// word is one flag of a command line with its value.
type word struct {
	flag  flagShape
	typed string // as it was typed, for messages
	value string
}

// arrange puts the flags of a command line before its arguments, in the one form that
// urfave/cli reads without surprises: "command --flag=value … -- argument …". That library
// stops at the first argument and takes every flag behind it for an argument, without a
// word; here a flag behind the arguments counts, an unknown one is an error, and only what
// stands behind "--" is never a flag. args are without the program's name.
func arrange(args []string, commands []*cli.Command) (command string, out []string, err error) {
	// The shape of a flag is needed before the command is known, as flags may stand before
	// it; a test keeps a name from meaning two shapes.
	all := flagTable{}
	tables := map[string]flagTable{}
	for _, c := range commands {
		tables[c.Name] = tableOf(c.Flags)
		for name, shape := range tables[c.Name] {
			all[name] = shape
		}
	}

	words, rest, err := split(args, all, commands)
	if err != nil {
		var usage *usageError
		if errors.As(err, &usage) {
			usage.command = firstCommand(args, tables)
		}
		return "", nil, err
	}
	if len(rest) > 0 {
		command, rest = rest[0], rest[1:]
	}
	table, known := tables[command]
	if !known {
		if command == "" || command == "help" {
			return command, append(flagWords(words), rest...), nil
		}
		return "", nil, unknownCommand(command, commands)
	}
	for _, w := range words {
		if _, ok := table[w.flag.name]; !ok {
			return "", nil, usagef(command, "%s is no flag of %q; it belongs to: %s", w.typed, command, strings.Join(owners(w.flag.name, commands), ", "))
		}
	}
	if err := checkRepeats(command, words); err != nil {
		return "", nil, err
	}
	out = append(flagWords(words), "--")
	return command, append(out, rest...), nil
}

// firstCommand guesses which command's help serves a line that cannot be read.
func firstCommand(args []string, tables map[string]flagTable) string {
	for _, arg := range args {
		if _, ok := tables[arg]; ok {
			return arg
		}
	}
	return ""
}

// split tells flags from arguments.
func split(args []string, all flagTable, commands []*cli.Command) (words []word, rest []string, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return words, append(rest, args[i+1:]...), nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			rest = append(rest, arg)
			continue
		}
		found, needsNext, err := readFlag(arg, all, commands)
		if err != nil {
			return nil, nil, err
		}
		if needsNext {
			last := &found[len(found)-1]
			if last.flag.bare != "" && (i+1 == len(args) || !readsPlatforms(args[i+1]) && !meansPlatform(args[i+1])) {
				last.value = last.flag.bare
				words = append(words, found...)
				continue
			}
			if i+1 == len(args) {
				return nil, nil, usagef("", "%s needs a value", last.typed)
			}
			i++
			// A forgotten value must not swallow the flag that follows.
			if isFlag(args[i], all) {
				return nil, nil, usagef("", "%s needs a value, and %q is a flag; if it is meant as the value, write %s=%s",
					last.typed, args[i], last.typed, args[i])
			}
			last.value = args[i]
		}
		for _, w := range found {
			if w.flag.value && w.value == "" {
				return nil, nil, usagef("", "%s was given an empty value (a variable that is not set?)", w.typed)
			}
		}
		words = append(words, found...)
	}
	return words, rest, nil
}

// readFlag reads one word that begins with a dash: --name, --name=value, -a, -a=value,
// -avalue, -vvv.
func readFlag(arg string, all flagTable, commands []*cli.Command) (words []word, needsNext bool, err error) {
	if name, ok := strings.CutPrefix(arg, "--"); ok {
		name, value, given := strings.Cut(name, "=")
		shape, known := all[name]
		if !known || len(name) == 1 {
			return nil, false, unknownFlag("--"+name, commands)
		}
		if given && !shape.value && value != "true" && value != "false" {
			return nil, false, usagef("", "--%s takes no value, or true or false", name)
		}
		if !given && !shape.value {
			value = "true"
		}
		return []word{{flag: shape, typed: "--" + name, value: value}}, shape.value && !given, nil
	}

	letters := arg[1:]
	for letters != "" {
		name := letters[:1]
		shape, known := all[name]
		if !known {
			return nil, false, unknownFlag(arg, commands)
		}
		letters = letters[1:]
		w := word{flag: shape, typed: "-" + name, value: "true"}
		if shape.value {
			value, equals := strings.CutPrefix(letters, "=")
			w.value = value
			return append(words, w), letters == "" && !equals, nil
		}
		words = append(words, w)
	}
	return words, false, nil
}

func isFlag(arg string, all flagTable) bool {
	name, ok := strings.CutPrefix(arg, "--")
	if !ok {
		name, ok = strings.CutPrefix(arg, "-")
		if !ok || len(name) != 1 {
			return false
		}
	}
	name, _, _ = strings.Cut(name, "=")
	_, known := all[name]
	return known
}

// checkRepeats refuses a flag that is given twice with two values where only one counts:
// whichever were dropped, it would be dropped silently.
func checkRepeats(command string, words []word) error {
	seen := map[string]word{}
	for _, w := range words {
		before, twice := seen[w.flag.name]
		if twice && !w.flag.repeat && before.value != w.value {
			return usagef(command, "%s %s contradicts %s %s: give it once", w.typed, w.value, before.typed, before.value)
		}
		seen[w.flag.name] = w
	}
	return nil
}

func flagWords(words []word) []string {
	out := make([]string, 0, len(words)+1)
	given := map[string]bool{}
	for _, w := range words {
		if given[w.flag.name] && !w.flag.repeat {
			continue
		}
		given[w.flag.name] = true
		dashes := "--"
		if len(w.flag.name) == 1 {
			dashes = "-"
		}
		out = append(out, dashes+w.flag.name+"="+w.value)
	}
	return out
}

func owners(flag string, commands []*cli.Command) []string {
	var names []string
	for _, c := range commands {
		for _, f := range c.Flags {
			if f.Names()[0] == flag {
				names = append(names, c.Name)
			}
		}
	}
	return names
}

func unknownFlag(typed string, commands []*cli.Command) error {
	var flags []cli.Flag
	for _, c := range commands {
		flags = append(flags, c.Flags...)
	}
	hint := ""
	// A long flag typed with one dash is common among those who know Go's own tools.
	name, _, _ := strings.Cut(strings.TrimLeft(typed, "-"), "=")
	if guess := cli.SuggestFlag(flags, name, true); guess != "" && near(name, strings.TrimLeft(guess, "-")) {
		hint = "; did you mean " + guess + "?"
	}
	return usagef("", "unknown flag %s%s", typed, hint)
}

// near reports whether two names differ in few enough letters to be one misspelt: one, or a
// third of them.
func near(a, b string) bool {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, before+1)
		}
	}
	return row[len(b)] <= max(1, len(a)/3)
}

func unknownCommand(typed string, commands []*cli.Command) error {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return usagef("", "unknown command %q; this version has: %s", typed, strings.Join(names, ", "))
}
