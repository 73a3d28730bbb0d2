package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func (s *session) manCommand() *cli.Command {
	f := &logFlags{}
	return &cli.Command{
		Name: "man", Usage: "the manual page of the program, or of a command", ArgsUsage: "[COMMAND]",
		Description: "To read it: pannier man pack | man -l -",
		Flags:       f.flags(),
		Action: func(c *cli.Context) error {
			if err := s.start(f, nil); err != nil {
				return err
			}
			app := s.app()
			if c.NArg() > 1 {
				return usagef(s.command, "man takes one COMMAND")
			}
			if c.NArg() == 0 {
				return s.console.print("%s", trusted(programPage(app)))
			}
			command := app.Command(c.Args().First())
			if command == nil {
				return unknownCommand(c.Args().First(), app.Commands)
			}
			return s.console.print("%s", trusted(commandPage(command)))
		},
	}
}

// The pages are written with the man macros, which every reader of manuals knows.

// pageHead begins a page. It bears no date: the same program gives the same bytes.
func pageHead(b *strings.Builder, name, about string) {
	fmt.Fprintf(b, ".TH %s 1 \"\" \"pannier %s\" \"User Commands\"\n.nh\n.ad l\n", strings.ToUpper(name), roff(buildVersion()))
	fmt.Fprintf(b, ".SH NAME\n%s \\- %s\n", roff(name), roff(about))
}

func programPage(app *cli.App) string {
	var b strings.Builder
	pageHead(&b, "pannier", app.Usage)
	b.WriteString(".SH SYNOPSIS\n.B pannier\n.I COMMAND\n[\\fIargument\\fR ...] [\\fIflag\\fR ...]\n")
	b.WriteString(".SH DESCRIPTION\n" + paragraph(app.Description))
	b.WriteString(".SH COMMANDS\n")
	for _, c := range app.Commands {
		fmt.Fprintf(&b, ".TP\n.BR pannier\\-%s (1)\n%s\n", roff(c.Name), roff(capital(c.Usage)))
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, line := range strings.Split(exitCodes, "\n") {
		code, meaning, found := strings.Cut(strings.TrimSpace(line), "  ")
		if found {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(code), roff(capital(strings.TrimSpace(meaning))))
		}
	}
	b.WriteString(".SH ERRORS\n" + paragraph("Errors are printed with a code that never changes its meaning. \"pannier explain CODE\" tells cause and remedy."))
	var others []string
	for _, c := range app.Commands {
		others = append(others, c.Name)
	}
	seeAlso(&b, others)
	return b.String()
}

func commandPage(c *cli.Command) string {
	var b strings.Builder
	pageHead(&b, "pannier-"+c.Name, c.Usage)
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B pannier %s\n", roff(c.Name))
	if c.ArgsUsage != "" {
		fmt.Fprintf(&b, ".I %s\n", roff(c.ArgsUsage))
	}
	b.WriteString("[\\fIflag\\fR ...]\n")
	if c.Description != "" {
		b.WriteString(".SH DESCRIPTION\n" + paragraph(c.Description))
	}
	b.WriteString(".SH OPTIONS\nFlags may stand before or after arguments.\n")
	for _, f := range c.Flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		value, usage := placeholder(doc.GetUsage())
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fR", roff(flagNames(f)))
		if value != "" {
			fmt.Fprintf(&b, " \\fI%s\\fR", roff(value))
		}
		fmt.Fprintf(&b, "\n%s\n", roff(capital(strings.TrimSpace(usage))))
	}
	if list := examples[c.Name]; len(list) > 0 {
		b.WriteString(".SH EXAMPLES\n.nf\n")
		for _, e := range list {
			b.WriteString(roff(e) + "\n")
		}
		b.WriteString(".fi\n")
	}
	seeAlso(&b, []string{""})
	return b.String()
}

func seeAlso(b *strings.Builder, commands []string) {
	b.WriteString(".SH SEE ALSO\n")
	for i, name := range commands {
		page := "pannier"
		if name != "" {
			page += "\\-" + roff(name)
		}
		end := ","
		if i == len(commands)-1 {
			end = ""
		}
		fmt.Fprintf(b, ".BR %s (1)%s\n", page, end)
	}
}

// paragraph sets running text, whatever lines it was written in.
func paragraph(text string) string { return roff(strings.Join(strings.Fields(text), " ")) + "\n" }

// roff keeps text from being taken for requests: a backslash, a dash that is copied, a line
// that begins with a dot or a quote.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
