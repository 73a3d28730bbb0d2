package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

type explainFlags struct {
	logFlags
	outputFlags
}

func (s *session) explainCommand() *cli.Command {
	f := &explainFlags{}
	return &cli.Command{
		Name: "explain", Usage: "what an error code means, and what to do about it", ArgsUsage: "[CODE]",
		Description: "Every error is printed with a code, as P2007, which never changes its meaning. This tells its\n" +
			"likely cause, what to do, and whether it is safe to run the command again. Without CODE it lists all.",
		Flags:  append(f.outputFlags.flags("`FORMAT` of stdout: text (default) or json"), f.logFlags.flags()...),
		Action: func(c *cli.Context) error { return s.explain(c.Context, f, c.Args().Slice()) },
	}
}

// explanation is the JSON form of what is known about a class of errors.
type explanation struct {
	Code     string `json:"code"`
	What     string `json:"what"`
	Cause    string `json:"cause"`
	Todo     string `json:"todo"`
	Rerun    string `json:"rerun"`
	ExitCode int    `json:"exitCode"` // where nothing else goes wrong
}

func (s *session) explain(_ context.Context, f *explainFlags, args []string) error {
	asJSON, err := f.json(s.command)
	if err != nil {
		return err
	}
	if err := s.start(&f.logFlags, nil); err != nil {
		return err
	}
	list := allAdvice()
	if len(args) > 0 {
		var some []classified
		for _, code := range args {
			found, err := findAdvice(list, code)
			if err != nil {
				return err
			}
			some = append(some, found)
		}
		list = some
	}
	if asJSON {
		doc := []explanation{}
		for _, a := range list {
			doc = append(doc, explanation{a.code, a.what, a.cause, a.todo, a.rerun, a.exit})
		}
		return s.console.json(doc)
	}
	if len(args) == 0 {
		return s.console.print("%s", trusted(listText(list)))
	}
	for i, a := range list {
		if i > 0 {
			if err := s.console.print("\n"); err != nil {
				return err
			}
		}
		if err := s.console.print("%s", trusted(asCalled(s.console.name, a.text()))); err != nil {
			return err
		}
	}
	return nil
}

// findAdvice finds a class by its code, however it is written: P2007, p2007, 2007, "P2007:".
func findAdvice(list []classified, typed string) (classified, error) {
	code := "P" + strings.TrimLeft(strings.ToUpper(strings.TrimRight(strings.TrimSpace(typed), ":.,")), "P")
	var near []string
	for _, a := range list {
		if a.code == code {
			return a, nil
		}
		if oneLetterApart(a.code, code) {
			near = append(near, a.code+" ("+a.what+")")
		}
	}
	if len(near) == 0 {
		return classified{}, usagef("explain", "there is no code %q; \"pannier explain\" lists all", typed)
	}
	return classified{}, usagef("explain", "there is no code %q; near it are %s", typed, strings.Join(near[:min(len(near), 5)], ", "))
}

// oneLetterApart reports whether one letter of two codes differs, or two neighbours were
// exchanged.
func oneLetterApart(a, b string) bool {
	if len(a) != len(b) {
		return len(a)-len(b) == 1 && strings.HasPrefix(a, b)
	}
	var at []int
	for i := range len(a) {
		if a[i] != b[i] {
			at = append(at, i)
		}
	}
	return len(at) < 2 || len(at) == 2 && at[1] == at[0]+1 && a[at[0]] == b[at[1]] && a[at[1]] == b[at[0]]
}

// text is all about one class, for a terminal.
func (a classified) text() string {
	const indent = "                "
	return fmt.Sprintf("%s  %s\n\n", a.code, a.what) +
		fill(a.cause, "  likely cause  ", indent, helpWidth) +
		fill(a.todo, "  what to do    ", indent, helpWidth) +
		fill(a.rerun, "  run again     ", indent, helpWidth) +
		fill(fmt.Sprintf("%d, where nothing else is wrong", a.exit), "  exit code     ", indent, helpWidth)
}

// listText lists classes by subject.
func listText(list []classified) string {
	var b strings.Builder
	for _, subject := range subjects {
		fmt.Fprintf(&b, "%s\n", subject.name)
		for _, a := range list {
			if strings.HasPrefix(a.code, "P"+subject.digit) {
				fmt.Fprintf(&b, "  %s  %s\n", a.code, a.what)
			}
		}
	}
	return b.String()
}

// errorsDocument is docs/errors.md.
func errorsDocument() string {
	var b strings.Builder
	b.WriteString("# Errors\n\n" +
		"Every error is printed with a code, which never changes its meaning. `pannier explain CODE` tells what is here without a network;\n" +
		"`pannier explain` lists all codes. With `--progress json` the codes are in the messages and in the last line. The exit code is that of an\n" +
		"error that comes alone; which one wins of several, [cli.md](cli.md#exit-codes) says.\n\n" +
		"This page is written by the program; `go test ./cmd/pannier -run TestErrorCodes -update` renews it.\n")
	all := allAdvice()
	for _, subject := range subjects {
		fmt.Fprintf(&b, "\n## P%s: %s\n", subject.digit, subject.name)
		for _, a := range all {
			if !strings.HasPrefix(a.code, "P"+subject.digit) {
				continue
			}
			fmt.Fprintf(&b, "\n### %s\n\n%s. Exit code %d.\n\n- Likely cause: %s.\n- What to do: %s.\n- Run again: %s.\n",
				a.code, capital(a.what), a.exit, markdown(a.cause), markdown(a.todo), markdown(a.rerun))
		}
	}
	return b.String()
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// markdown keeps words like <hex> from being taken for marks, and shows commands as such.
func markdown(s string) string {
	s = strings.NewReplacer("<", "\\<", "\"", "`").Replace(s)
	return strings.TrimSuffix(s, ".")
}

// maxShown bounds how many errors of one kind are printed; a dead drive has thousands.
const maxShown = 20

// failure is one class of what went wrong in a run.
type failure struct {
	advice
	errs []error
}

// failures takes an error apart, by what is to be done about each part.
func failures(err error) []failure {
	var out []failure
	for _, e := range leaves(err) {
		a := adviceFor(e)
		i := slices.IndexFunc(out, func(f failure) bool { return f.advice == a })
		if i < 0 {
			out = append(out, failure{advice: a})
			i = len(out) - 1
		}
		if !slices.ContainsFunc(out[i].errs, func(told error) bool { return told.Error() == e.Error() }) {
			out[i].errs = append(out[i].errs, e)
		}
	}
	return out
}

// codesOf returns the codes of what went wrong, for programs; none if nothing did.
func codesOf(err error) []string {
	out := []string{}
	for _, f := range failures(err) {
		out = append(out, f.code)
	}
	return out
}

// text renders what went wrong for people: what failed, on which image and host (the error's
// own words), the likely cause, what to do, and whether to run it again. Usage errors point
// at the help.
func (f failure) text(mark func(string) string) string {
	var b strings.Builder
	label := mark("error " + f.code + ":")
	var usage *usageError
	if errors.As(f.errs[0], &usage) {
		help := "pannier --help"
		if usage.command != "" {
			help = "pannier " + usage.command + " --help"
		}
		return fmt.Sprintf("%s %s\n  see: %s\n", label, printable(usage.text), help)
	}
	for i, e := range f.errs {
		if i == maxShown {
			fmt.Fprintf(&b, "%s and %d more of this kind\n", label, len(f.errs)-i)
			break
		}
		fmt.Fprintf(&b, "%s %s\n", label, printable(oneLine(e)))
	}
	fmt.Fprintf(&b, "  likely cause: %s\n  what to do:   %s\n  run again:    %s\n", f.cause, f.todo, f.rerun)
	return b.String()
}

// oneLine is an error's text; what was joined inside it stands in one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
