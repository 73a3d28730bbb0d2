package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// helpWidth is the longest line of help: that of the narrowest usual terminal.
const helpWidth = 80

// helpText renders a command's help: one flag a paragraph, since a table with a column of
// long names leaves no room for what they mean. It is used as a template; there is nothing
// to fill in.
func helpText(c *cli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pannier %s", c.Name)
	if c.ArgsUsage != "" {
		fmt.Fprintf(&b, " %s", c.ArgsUsage)
	}
	fmt.Fprintf(&b, " [flags]\n\n%s.\n", c.Usage)
	if c.Description != "" {
		fmt.Fprintf(&b, "\n%s\n", c.Description)
	}
	b.WriteString("\nFlags, before or after arguments:\n")
	for _, f := range c.Flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		value, usage := placeholder(doc.GetUsage())
		names := make([]string, 0, 3)
		for _, name := range f.Names() {
			dashes := "--"
			if len(name) == 1 {
				dashes = "-"
			}
			names = append(names, dashes+name)
		}
		line := strings.Join(names, ", ")
		if value != "" {
			line += " " + value
		}
		fmt.Fprintf(&b, "  %s\n%s", line, wrap(usage, "      "))
	}
	return b.String()
}

// placeholder takes the name of the value, `FILE`, out of a usage text.
func placeholder(usage string) (value, text string) {
	before, rest, found := strings.Cut(usage, "`")
	if !found {
		return "", usage
	}
	value, after, _ := strings.Cut(rest, "`")
	return value, before + value + after
}

func wrap(text, indent string) string { return fill(text, indent, indent, helpWidth) }

// fill sets text in lines of at most width letters, the first behind one indent and the rest
// behind another. A word that is longer stands alone, uncut: it can be copied.
func fill(text, first, rest string, width int) string {
	var b strings.Builder
	line, empty := first, true
	for _, word := range strings.Fields(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			b.WriteString(line + "\n")
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	b.WriteString(line + "\n")
	return b.String()
}
