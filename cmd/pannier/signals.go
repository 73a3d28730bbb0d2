package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// onSignals returns a context that the first Ctrl-C, or SIGTERM, ends with errInterrupted as
// its cause, so that the command saves its state and returns. The second one ends the
// program at once: what was saved up to then is kept all the same, by the order of writing.
// The function that it returns must be called when the command is over.
func onSignals(ctx context.Context, c *console, quit func(code int)) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	over := make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		first := true
		for {
			select {
			case <-over:
				return
			case <-signals:
				if !first {
					sayAndGo(c, "interrupted again: ended at once; the same command continues all the same")
					quit(exitInterrupted)
					return
				}
				first = false
				cancel(errInterrupted)
				// Only now: a terminal that takes no more output must not keep the state
				// from being saved.
				// What the terminal shows of Ctrl-C, "^C", is written over.
				c.say("%s", trusted(c.home()+c.stopText("")))
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(over)
		cancel(nil)
	}
}

// sayAndGo prints a message, and waits for a terminal that takes no more output only shortly.
func sayAndGo(c *console, text string) {
	said := make(chan struct{})
	go func() {
		c.say("%s", trusted(c.home()+text))
		close(said)
	}()
	select {
	case <-said:
	case <-time.After(300 * time.Millisecond):
	}
}

// commandLine renders a command as a person would type it, quoted for a shell.
func commandLine(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

// programName is how this program was called: as a plugin it is "oc pannier".
func programName(arg0 string) string {
	name := strings.TrimSuffix(filepath.Base(arg0), ".exe")
	switch name {
	case "oc-pannier":
		return "oc pannier"
	case "kubectl-pannier":
		return "kubectl pannier"
	}
	if strings.ContainsRune(arg0, filepath.Separator) && name == "pannier" && !filepath.IsAbs(arg0) {
		return arg0
	}
	return "pannier"
}

// isPlugin reports whether a name of the program is that of a plugin, "oc pannier".
func isPlugin(name string) bool { return strings.HasSuffix(name, " pannier") }

// ownCommand is a command line of this program within a text, and what stands before it if it
// is a plugin's or a path's.
var ownCommand = regexp.MustCompile(`((?:oc|kubectl) |[\w.-]*[/-])?\bpannier ([a-z]{3,}|COMMAND|--help)`)

// asCalled writes commands of this program in a text the way it was called, if it was called
// as a plugin; name is from programName.
func asCalled(name, text string) string {
	if !isPlugin(name) {
		return text
	}
	return ownCommand.ReplaceAllStringFunc(text, func(s string) string {
		word, ours := strings.CutPrefix(s, "pannier ")
		if _, known := examples[word]; !ours || !known && word != "COMMAND" && word != "--help" {
			return s
		}
		return name + " " + word
	})
}

// quote quotes a word for a POSIX shell where it needs it. Words that are not printable are
// left to be shown, not to be copied.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./_-", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
