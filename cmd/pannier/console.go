package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"
)

// console is where a command prints: data to stdout, messages to stderr. Names that come
// from a drive or a registry pass through it made printable, so that none can move the
// cursor, recolour a terminal or answer to it.
type console struct {
	stdout io.Writer
	color  bool // messages may be coloured
	width  int  // of the terminal that messages go to; 0 if they go elsewhere

	outWidth int // the same of stdout

	name   string // by which the program was called, "oc pannier"
	events bool   // stderr is a stream of JSON, one event a line
	// journal takes down what is said, beside showing it; nil is silent.
	journal *slog.Logger

	mu     sync.Mutex
	stderr io.Writer
	above  io.Writer // while bars are drawn, messages go above them through this
	stop   string    // what is said when an interrupt ends the command; see stopText
}

// stopText returns what is said when an interrupt ends the command, and changes it if it is
// given another text.
func (c *console) stopText(text string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if text != "" {
		c.stop = text
	}
	if c.stop == "" {
		return "interrupted: ending; once more ends at once"
	}
	return c.stop
}

// Write writes to stderr as it is; loggers use it.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.above != nil {
		if n, err := c.above.Write(p); err == nil {
			return n, nil
		}
	}
	return c.stderr.Write(p)
}

// draw makes messages go through w until it is called with nil.
func (c *console) draw(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.above = w
}

// say prints a message to stderr. Text of the arguments is made printable.
func (c *console) say(format string, args ...any) {
	c.message("info", fmt.Sprintf(format, clean(args)...))
}

// warn prints a warning to stderr.
func (c *console) warn(format string, args ...any) {
	text := fmt.Sprintf(format, clean(args)...)
	if !c.events {
		text = c.mark("warning:") + " " + text
	}
	c.message("warning", c.fold(text))
}

func (c *console) message(level, text string) {
	c.note(level, text)
	if c.events {
		c.event(map[string]string{"event": "message", "level": level, "text": text})
		return
	}
	c.Write([]byte(text + "\n"))
}

// note takes a message down in the journal.
func (c *console) note(level, text string) {
	if c.journal != nil {
		c.journal.Info("said", "level", level, "text", text)
	}
}

// event prints one JSON document as a line of stderr.
func (c *console) event(doc any) {
	if line, err := json.Marshal(doc); err == nil {
		c.Write(append(line, '\n'))
	}
}

// prose prints a message of whole sentences, wrapped where there is a terminal.
func (c *console) prose(format string, args ...any) {
	c.message("info", c.fold(fmt.Sprintf(format, clean(args)...)))
}

// fold wraps lines that are longer than the terminal is wide; what continues a line is
// indented a little more than that line is.
func (c *console) fold(text string) string {
	if c.events {
		return text
	}
	return foldTo(c.width, text)
}

// foldTo wraps what is longer than width, if that is known.
func foldTo(width int, text string) string {
	if width == 0 {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if utf8.RuneCountInString(line) <= width {
			continue
		}
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		rest := indent
		if indent != "" || strings.Contains(line, "error P") || strings.Contains(line, "warning:") || strings.HasPrefix(line, "note: ") {
			rest += "  "
		}
		lines[i] = strings.TrimSuffix(fill(line, indent, rest, width), "\n")
	}
	return strings.Join(lines, "\n")
}

// fail prints an error with its advice to stderr.
func (c *console) fail(err error) {
	for _, f := range failures(err) {
		text := c.fold(asCalled(c.name, strings.TrimSuffix(f.text(c.mark), "\n")))
		if c.events {
			c.note("error", text)
			c.event(map[string]string{"event": "message", "level": "error", "code": f.code, "text": text})
			continue
		}
		c.message("error", text)
	}
}

// home moves the cursor of a terminal to the beginning of its line.
func (c *console) home() string {
	if c.width == 0 || c.events {
		return ""
	}
	return "\r"
}

// print prints text to stdout. Text of the arguments is made printable.
func (c *console) print(format string, args ...any) error {
	_, err := fmt.Fprintf(c.stdout, format, clean(args)...)
	return err
}

// tell is print of sentences, which are wrapped where stdout is a terminal.
func (c *console) tell(format string, args ...any) error {
	_, err := io.WriteString(c.stdout, foldTo(c.outWidth, fmt.Sprintf(format, clean(args)...)))
	return err
}

// mark makes the first word of a message stand out, on terminals that may be coloured.
func (c *console) mark(word string) string {
	if !c.color || c.events {
		return word
	}
	return "\x1b[1m" + word + "\x1b[0m"
}

// json prints one document to stdout.
func (c *console) json(doc any) error {
	text, err := jsonText(doc)
	if err == nil {
		_, err = io.WriteString(c.stdout, text)
	}
	return err
}

// jsonText renders a document. Control characters that encoding/json leaves alone are escaped
// too: it may be shown on a terminal.
func jsonText(doc any) (string, error) {
	raw, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, r := range string(raw) {
		if r != '\n' && hostile(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
			continue
		}
		b.WriteRune(r)
	}
	b.WriteByte('\n')
	return b.String(), nil
}

// table lays rows out in columns. Cells are made printable.
func table(rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = printable(cell)
		}
		fmt.Fprintln(w, "  "+strings.Join(cells, "\t"))
	}
	w.Flush()
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.Join(lines, "\n")
}

// clean makes the text among arguments printable.
func clean(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case string:
			out[i] = printable(a)
		case trusted:
			out[i] = string(a)
		case error:
			out[i] = printable(a.Error())
		case fmt.Stringer:
			out[i] = printable(a.String())
		default:
			out[i] = a
		}
	}
	return out
}

// trusted is text that this program made of printable parts, line breaks included.
type trusted string

// printable returns s with control characters, marks that change the direction of writing,
// and bytes that are no UTF-8 shown as escapes. Line breaks become escapes too: a name with
// one could otherwise forge a line of its own.
func printable(s string) string {
	if strings.IndexFunc(s, hostile) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case hostile(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// hostile reports whether a terminal would do something else with r than show it.
func hostile(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
}
