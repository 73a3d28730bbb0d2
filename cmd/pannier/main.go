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
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// version is set by the linker: -X main.version=…
var version string

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
	// progress is started by commands that move bytes; nil shows nothing.
	progress *progress
	mode     string // how progress is shown, once that is known
	quit     func(code int)
}

// run is the program: it returns the exit code.
func run(ctx context.Context, argv []string, env environ, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &console{
		stdout: stdout, stderr: stderr,
		color: env("NO_COLOR") == "" && isTerminal(stderr, env),
	}
	s := &session{argv: argv, env: env, stdin: stdin, console: c, log: slog.New(slog.DiscardHandler), quit: os.Exit}

	ctx, over := onSignals(ctx, c, func(code int) { s.quit(code) })
	defer over()
	err := s.run(ctx)
	s.progress.close()
	var usage *usageError
	if errors.As(err, &usage) && usage.command == "" {
		usage.command = s.command
	}
	if err == nil {
		return exitDone
	}
	interrupted := errors.Is(context.Cause(ctx), errInterrupted)
	if interrupted {
		// A stopped command fails in many ways at once; that it was stopped is what counts.
		// Whatever else is wrong is said as well.
		err = interruption(err)
	}
	var coded *codedError
	if !errors.As(err, &coded) || coded.text != "" {
		c.fail(err)
	}
	if interrupted {
		c.say("to continue:\n  %s", trusted(printable(s.typed())))
	}
	return exitCode(err)
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

// typed is the command line as it was typed.
func (s *session) typed() string {
	return commandLine(append([]string{programName(s.argv[0])}, s.argv[1:]...)...)
}

func (s *session) run(ctx context.Context) error {
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
		_, err := io.WriteString(s.console.stdout, helpText(c))
		return err
	}
	return app.RunContext(ctx, append([]string{s.argv[0], command}, rest...))
}

func (s *session) app() *cli.App {
	app := &cli.App{
		Name:  "pannier",
		Usage: "carry an OpenShift release across an air gap on a drive, and prove that it arrived whole",
		Description: "pack puts releases on a drive, audit proves the drive whole, unpack puts them into a\n" +
			"disconnected registry. Flags may stand before or after arguments. Data goes to stdout,\n" +
			"messages to stderr. Running the same command again is always safe and continues.",
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		Writer:                    s.console.stdout,
		ErrWriter:                 s.console.stderr,
		Reader:                    s.stdin,
		// The exit code is run's to decide.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usagef("", "%v", err) },
		Commands: []*cli.Command{
			s.packCommand(), s.auditCommand(), s.unpackCommand(),
			s.applyCommand(), s.upgradeCommand(), s.preflightCommand(),
			s.inspectCommand(), s.demoCommand(), s.versionCommand(),
		},
	}
	for _, c := range app.Commands {
		c.HideHelpCommand = true
		c.Flags = append(c.Flags, cli.HelpFlag)
		c.CustomHelpTemplate = helpText(c)
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
			return usagef(c.Name, "%s", strings.ReplaceAll(err.Error(), "for flag -", "for --"))
		}
	}
	return app
}
