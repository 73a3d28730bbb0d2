package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// helpWidth is the longest line of help: that of the narrowest usual terminal.
const helpWidth = 80

// examples are shown in the help of each command: the usual call, and one that needs a flag.
var examples = map[string][]string{
	"pack": {
		"pannier pack 4.8.21 /media/usb/mirror -a pull-secret.json",
		"pannier pack 4.8.21 4.8.22 /media/usb/mirror --for reg.example/ocp4/openshift4",
		"pannier pack 4.8.22 /media/usb/mirror --have receipt.json",
		"pannier pack /media/usb/pannier --adopt /media/usb/mirror",
	},
	"audit": {
		"pannier audit /media/usb/mirror",
		"pannier audit /media/usb/mirror --keyring release-key.asc -o json",
		"pannier audit --repair /media/usb/mirror --from /media/other/mirror",
		"pannier audit --refetch-list lost.json /media/usb/mirror",
	},
	"unpack": {
		"pannier unpack /media/usb/mirror reg.example/ocp4/openshift4 \\",
		"    -a pull-secret.json --objects-dir objects",
		"pannier unpack /media/usb/mirror reg.example/ocp4/openshift4 | oc apply -f -",
	},
	"mirror": {
		"pannier mirror 4.8.21 reg.example/ocp4/openshift4 -a pull-secret.json",
		"pannier mirror 4.8.21 reg.example/ocp4/openshift4 --objects-dir objects",
	},
	"apply": {
		"pannier apply /media/usb/mirror reg.example/ocp4/openshift4 --dry-run",
		"pannier apply objects reg.example/ocp4/openshift4 --wait",
	},
	"upgrade": {
		"pannier upgrade /media/usb/mirror reg.example/ocp4/openshift4 --wait",
		"pannier upgrade objects reg.example/ocp4/openshift4 --release 4.8.22",
	},
	"preflight": {
		"pannier preflight /media/usb --release 4.8.21",
		"pannier preflight /media/usb/mirror reg.example/ocp4/openshift4",
	},
	"inspect": {
		"pannier inspect /media/usb/mirror",
		"pannier inspect /media/usb/mirror --images -o json",
	},
	"inventory": {
		"pannier inventory registry.example:5000/ocp4/openshift4 --receipt held.json",
	},
	"attach": {
		"pannier attach /media/usb/mirror clamav.log --as \"ClamAV 1.4 on kiosk 3\"",
		"pannier attach /media/usb/mirror clamav.log --as \"ClamAV 1.4\" --sign-key kiosk",
	},
	"serve": {
		"pannier serve /media/usb/mirror",
		"pannier serve /media/usb/mirror --listen :5000 --tls --tls-save drive.pem",
	},
	"demo":    {"pannier demo"},
	"explain": {"pannier explain P2007", "pannier explain"},
	"completion": {
		"source <(pannier completion bash)",
		"pannier completion fish >~/.config/fish/completions/pannier.fish",
		"ln -s pannier /usr/local/bin/kubectl_complete-pannier",
	},
	"man":     {"pannier man pack | man -l -"},
	"version": {"pannier version", "pannier version -o json"},
}

// exitCodes stands at the end of the program's help.
const exitCodes = `
EXIT CODES:
     0  done; audit: whole
     1  an error with no better code
     2  usage, or MEDIA is not a bundle
     3  incomplete: the same command continues
     4  verification failed: damage, or an untrusted or missing signature
     5  authentication or authorization
     6  no space, write protection, or a limit of the file system
     7  the registry refused or cannot be reached
     8  the cluster refused, cannot be reached, or is in no state to accept
   130  interrupted; the state is saved

   pannier COMMAND --help shows flags and examples.
`

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
		b.WriteString("\n" + wrap(c.Description, ""))
	}
	if list := examples[c.Name]; len(list) > 0 {
		b.WriteString("\nExamples:\n")
		for _, e := range list {
			fmt.Fprintf(&b, "  %s\n", e)
		}
	}
	b.WriteString("\nFlags, before or after arguments:\n")
	for _, f := range c.Flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		value, usage := placeholder(doc.GetUsage())
		line := flagNames(f)
		if value != "" {
			line += " " + value
		}
		fmt.Fprintf(&b, "  %s\n%s", line, wrap(usage, "      "))
	}
	return b.String()
}

// flagNames lists the names of a flag with their dashes.
func flagNames(f cli.Flag) string {
	names := make([]string, 0, 3)
	for _, name := range f.Names() {
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		names = append(names, dashes+name)
	}
	return strings.Join(names, ", ")
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
