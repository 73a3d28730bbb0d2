// Command pannier carries an OpenShift release across an air gap on a USB drive and proves
// that it arrived whole. It turns flags, arguments and the environment into one call of a
// library package for each command, prints what that returns, and maps errors to exit codes;
// all of that, and nothing else, is here.
package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// version and commit are set by the linker: -X main.version=…
var version, commit string

func main() {
	os.Exit(run(context.Background(), os.Args, os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// session is one run of one command: what it needs of the world around it.
type session struct {
	command string
	argv    []string // as typed, with the program's name
	env     environ
	stdin   io.Reader
	console *console
	log     *slog.Logger
	journal *journal // what --log-file names; nil writes nothing
	// progress is started by commands that move bytes; nil shows nothing.
	progress *progress
	drives   []string // MEDIA, once it is known: no flag writes there
	mode     string   // how progress is shown, once that is known
	quit     func(code int)
	verbose  bool // -v
	saves    bool // the command has begun to write what continuing it takes over
	endless  bool // the command runs until it is interrupted: that is how it ends well
	// result is what pack, audit and unpack came to, for the last event of --progress json and for
	// the log file.
	result map[string]any

	scratch    string // the cache of this run, where there is no home; removed at its end
	scratchErr error  // why there is none
}

// run is the program: it returns the exit code.
func run(ctx context.Context, argv []string, env environ, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &console{
		stdout: stdout, stderr: stderr,
		width: terminalWidth(stderr, env), outWidth: terminalWidth(stdout, env), name: programName(argv[0]),
	}
	c.color = env("NO_COLOR") == "" && c.width > 0
	s := &session{argv: argv, env: env, stdin: stdin, console: c, log: slog.New(slog.DiscardHandler), quit: os.Exit}

	ctx, over := onSignals(ctx, c, func(code int) { s.quit(code) })
	defer over()
	defer func() {
		if s.scratch != "" {
			os.RemoveAll(s.scratch)
		}
	}()
	err := s.run(ctx)
	if err != nil && s.scratchErr != nil {
		err = s.scratchErr // whatever came of it
	}
	s.progress.close()
	var usage *usageError
	if errors.As(err, &usage) && usage.command == "" {
		usage.command = s.command
	}
	code := s.conclude(ctx, err)
	s.sayResult(code, err)
	s.journal.close(code, err, s.result)
	return code
}

// conclude prints what went wrong, if anything did, and returns the exit code.
func (s *session) conclude(ctx context.Context, err error) int {
	c := s.console
	if err == nil {
		return exitDone
	}
	interrupted := errors.Is(context.Cause(ctx), errInterrupted) && !s.endless
	if interrupted {
		// A stopped command fails in many ways at once; that it was stopped is what counts.
		// Whatever else is wrong is said as well.
		err = interruption(err)
	}
	var coded *codedError
	switch {
	case interrupted:
		if rest := besides(err, errInterrupted); rest != nil {
			c.fail(rest)
		}
		c.say("%s", s.interruptedText())
		c.say("to continue: %s", trusted(printable(s.typed())))
	case !errors.As(err, &coded) || coded.text != "":
		c.fail(err)
	}
	return exitCode(err)
}

// interruptedText tells what an interrupt has left.
func (s *session) interruptedText() string {
	switch {
	case s.saves:
		return "interrupted; the state is saved"
	case slices.Contains([]string{"pack", "audit", "unpack", "mirror"}, s.command):
		return "interrupted; nothing had been written"
	}
	return "interrupted"
}

// saving notes that from now on an interrupt leaves something behind, which is continued.
func (s *session) saving() {
	s.saves = true
	s.console.stopText("interrupted: saving the state; once more ends at once")
}

// sayResult ends a stream of events with what came of it.
func (s *session) sayResult(code int, err error) {
	if !s.console.events {
		return
	}
	doc := map[string]any{"event": "result", "time": time.Now().UTC().Format(time.RFC3339), "command": s.command, "exitCode": code, "codes": codesOf(err)}
	maps.Copy(doc, s.result)
	s.console.event(doc)
}

// besides returns the errors joined in err without one of them; nil if there are no others.
func besides(err, without error) error {
	var out []error
	for _, e := range leaves(err) {
		if !errors.Is(e, without) {
			out = append(out, e)
		}
	}
	return errors.Join(out...)
}

// interruption returns errInterrupted joined with those parts of err that are not just the
// echo of the context's end.
func interruption(err error) error {
	out := []error{errInterrupted}
	for _, e := range leaves(err) {
		if !errors.Is(e, context.Canceled) && !errors.Is(e, errInterrupted) {
			out = append(out, e)
		}
	}
	return errors.Join(out...)
}

// typed is the command line as it was typed, but for the secrets of addresses: it may be
// logged, or read over a shoulder.
func (s *session) typed() string {
	words := []string{programName(s.argv[0])}
	for _, w := range s.argv[1:] {
		words = append(words, redact(w))
	}
	return commandLine(words...)
}

var (
	addressUser  = regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*://)([^\s/?#]*)@`) // to the last @: passwords may hold one
	addressQuery = regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*://[^\s?#]*)[?#].*`)
)

// redact replaces the password and the query of addresses in a word by stars.
func redact(word string) string {
	word = addressUser.ReplaceAllStringFunc(word, func(s string) string {
		m := addressUser.FindStringSubmatch(s)
		user, _, password := strings.Cut(m[2], ":")
		if !password {
			return m[1] + "***@" // a user alone may be a token
		}
		return m[1] + user + ":***@"
	})
	return addressQuery.ReplaceAllString(word, "${1}?***")
}

func (s *session) run(ctx context.Context) error {
	if words, asked := completes(s.argv); asked {
		return s.complete(words)
	}
	app := s.app()
	args := s.argv[1:]
	if len(args) == 1 && args[0] == "--version" {
		args = []string{"version"}
	}
	command, rest, err := arrange(args, app.Commands)
	if err != nil {
		return err
	}
	if command == "" {
		// Asked for, help is an answer; in place of a command it is a usage error, so that a
		// script with an empty variable does not pass for done.
		asked := slices.Contains(rest, "--help=true")
		if !asked {
			app.Writer = s.console.stderr
		}
		err := app.RunContext(ctx, []string{s.argv[0], "--help"})
		if err == nil && !asked {
			err = &codedError{code: exitUsage}
		}
		return err
	}
	s.command = command
	if command == "help" {
		if len(rest) > 0 && app.Command(rest[0]) == nil {
			return unknownCommand(rest[0], app.Commands)
		}
	}
	if c := app.Command(command); c != nil && slices.Contains(rest, "--help=true") {
		// With arguments beside it, the library takes the first for a topic.
		_, err := io.WriteString(s.console.stdout, c.CustomHelpTemplate)
		return err
	}
	return app.RunContext(ctx, append([]string{s.argv[0], command}, rest...))
}

// badValue says what the library says of a flag's value in words, with an example.
func badValue(err error) string {
	text := strings.ReplaceAll(err.Error(), "for flag -", "for --")
	if what, ok := strings.CutSuffix(text, ": parse error"); ok {
		return what + ": it takes a number, as 4, or, where it is a time, one with its unit, as 5m or 30s"
	}
	return text
}

func (s *session) app() *cli.App {
	name := programName(s.argv[0])
	if !isPlugin(name) {
		name = "pannier"
	}
	app := &cli.App{
		Name: "pannier", HelpName: name,
		Usage: "carry OpenShift releases across an air gap, and prove them whole",
		Description: "pack puts releases on a drive, audit proves the drive whole, unpack puts\n" +
			"them into a disconnected registry. Flags may stand before or after arguments.\n" +
			"Data goes to stdout, messages to stderr. Running the same command again is\n" +
			"always safe and continues.",
		CustomAppHelpTemplate:     cli.AppHelpTemplate + asCalled(name, exitCodes),
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		Writer:                    s.console.stdout,
		ErrWriter:                 s.console.stderr,
		Reader:                    s.stdin,
		// The exit code is run's to decide.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usagef("", "%v", err) },
		Commands: []*cli.Command{
			s.packCommand(), s.auditCommand(), s.unpackCommand(), s.mirrorCommand(),
			s.applyCommand(), s.upgradeCommand(), s.preflightCommand(),
			s.inspectCommand(), s.inventoryCommand(), s.attachCommand(), s.serveCommand(), s.demoCommand(),
			s.explainCommand(), s.completionCommand(), s.manCommand(), s.versionCommand(),
		},
	}
	for _, c := range app.Commands {
		c.HideHelpCommand = true
		c.Flags = append(c.Flags, cli.HelpFlag)
		c.CustomHelpTemplate = asCalled(name, helpText(c))
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
			return usagef(c.Name, "%s", badValue(err))
		}
	}
	return app
}
