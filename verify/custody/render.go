package custody

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"pannier/bundle/content"
)

//go:embed report.html.tmpl
var reportTemplate string

var reportHTML = template.Must(template.New("report").Funcs(template.FuncMap{
	"bytes":   content.SizeText,
	"plural":  content.Plural,
	"seconds": func(s float64) string { return fmt.Sprintf("%.1f", s) },
	"clock":   func(t time.Time) string { return t.UTC().Format(time.DateTime) },
	"day":     func(t time.Time) string { return t.UTC().Format(time.DateOnly) },
	"first":   first,
	"last":    last,
	"over":    func(n, have int) int { return max(0, have-n) },
	"swatch":  swatch,
	"short":   short,
	"brief":   brief,
	"step":    step,
}).Parse(reportTemplate))

// first returns the first n elements of a list of the report.
func first(n int, list any) (any, error) {
	return part(list, func(have int) (int, int) { return 0, min(n, have) })
}

// last returns the last n.
func last(n int, list any) (any, error) {
	return part(list, func(have int) (int, int) { return max(0, have-n), have })
}

func part(list any, of func(have int) (from, to int)) (any, error) {
	l := reflect.ValueOf(list)
	if l.Kind() != reflect.Slice {
		return nil, fmt.Errorf("no part of a %T", list)
	}
	from, to := of(l.Len())
	return l.Slice(from, to).Interface(), nil
}

// short cuts a text that would take too much of the first page.
func short(n int, text string) string {
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n]) + "…"
	}
	return text
}

// digests finds those that are written in full; the first page has room for their beginnings alone.
var digests = regexp.MustCompile(`(sha256:[0-9a-f]{12})[0-9a-f]{52}`)

// brief keeps of every digest its beginning.
func brief(text string) string { return digests.ReplaceAllString(text, "$1…") }

// commands finds what is typed in a piece of advice: a command at its end, one in quotation marks,
// a flag.
var commands = regexp.MustCompile(`: (?:pannier|oc) .+$|"(?:pannier|oc) [^"]+"|--[a-z][a-z-]*[a-z]`)

// step shows a piece of advice, with what is typed in the type of code. A line of that is broken
// between words alone, and not within a flag.
func step(text string) template.HTML {
	var b strings.Builder
	for at := 0; at < len(text); {
		found := commands.FindStringIndex(text[at:])
		if found == nil {
			b.WriteString(template.HTMLEscapeString(text[at:]))
			break
		}
		typed := text[at+found[0] : at+found[1]]
		b.WriteString(template.HTMLEscapeString(text[at : at+found[0]]))
		if rest, ok := strings.CutPrefix(typed, ": "); ok {
			b.WriteString(": ")
			typed = rest
		}
		b.WriteString("<code>")
		for i, word := range strings.Fields(strings.Trim(typed, `"`)) {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(`<span class="word">` + template.HTMLEscapeString(word) + "</span>")
		}
		b.WriteString("</code>")
		at += found[1]
	}
	return template.HTML(b.String())
}

// ToolsUnread reports whether the programs on the drives were not looked at in the run.
func (r *Report) ToolsUnread() bool { return r.Command == "unpack" }

// page is what the template shows beside the report's own fields.
type page struct {
	*Report
	Maps       []driveMap
	Components []bar
	Rate       template.HTML
	RateText   string
	Open       string // how much is wrong
	Repaired   string
}

type driveMap struct {
	Media   string
	Drawing template.HTML
	Legend  []legend
	Shared  string
}

type bar struct {
	Component
	Width string // percent
}

// HTML writes the report as one page that needs nothing beside it.
func (r *Report) HTML(w io.Writer) error {
	r = r.plain()
	p := page{Report: r, Rate: rateDrawing(r.Phases), Components: bars(r.Drives)}
	if t := rateOf(r.Phases); t != nil {
		p.RateText = fmt.Sprintf("%s; %.1f seconds from left to right. A dotted line is where a phase begins.", t.figures(), t.length)
	}
	p.Open, p.Repaired = r.counts()
	for i, d := range r.Drives {
		m := driveMap{Drawing: mapDrawing(d.Map), Legend: legendOf(d.Map)}
		if m.Drawing == "" {
			continue
		}
		// Several drawings on one page need names of their own.
		m.Drawing = template.HTML(strings.NewReplacer(`"TITLE DESC"`, fmt.Sprintf(`"map%d mapdesc%d"`, i, i), `"TITLE"`, fmt.Sprintf(`"map%d"`, i), `"DESC"`, fmt.Sprintf(`"mapdesc%d"`, i)).Replace(string(m.Drawing)))
		if len(r.Drives) > 1 {
			m.Media = d.Media
		}
		if len(d.Map) > maxCells {
			m.Shared = fmt.Sprintf("%d blobs share one, which has the worst state of them", (len(d.Map)+maxCells-1)/maxCells)
		}
		p.Maps = append(p.Maps, m)
	}
	return reportHTML.Execute(w, p)
}

// counts says how much is wrong, and how much was.
func (r *Report) counts() (open, repaired string) {
	var left []Finding
	for _, f := range r.Findings {
		if !f.Repaired {
			left = append(left, f)
		}
	}
	switch len(left) {
	case 0:
	case 1:
		open = "1 finding: " + left[0].brief() + ". The appendix has all of it."
	case 2:
		open = fmt.Sprintf("2 findings: %s and %s. The appendix lists them.", left[0].brief(), left[1].brief())
	default:
		open = fmt.Sprintf("%d findings, the first: %s. The appendix lists them.", len(left), left[0].brief())
	}
	if n := len(r.Findings) - len(left); n > 0 {
		repaired = content.Plural(n, "was", "were") + " repaired in this run."
	}
	return open, repaired
}

// brief names a finding in a few words: "corrupt START-HERE.txt", "missing blob sha256:162eaaefe012…".
func (f Finding) brief() string {
	what := f.Path
	switch {
	case f.Digest != "":
		what = "blob " + brief(f.Digest)
	case what == "":
		what = f.Detail
	}
	return f.Kind + " " + short(60, what)
}

// maxBars is how many components are drawn; the others are one bar.
const maxBars = 5

// bars are the largest components of all drives together.
func bars(drives []DriveReport) []bar {
	byName := map[string]*Component{}
	var all []*Component
	for _, d := range drives {
		for _, c := range d.Components {
			if byName[c.Name] == nil {
				byName[c.Name] = &Component{Name: c.Name}
				all = append(all, byName[c.Name])
			}
			byName[c.Name].Bytes += c.Bytes
			byName[c.Name].Blobs += c.Blobs
		}
	}
	slices.SortStableFunc(all, func(a, b *Component) int { return int(max(-1, min(1, b.Bytes-a.Bytes))) })
	if len(all) > maxBars+1 {
		rest := &Component{Name: fmt.Sprintf("the other %d", len(all)-maxBars)}
		for _, c := range all[maxBars:] {
			rest.Bytes += c.Bytes
			rest.Blobs += c.Blobs
		}
		all = append(all[:maxBars:maxBars], rest)
	}
	most := int64(1)
	for _, c := range all {
		most = max(most, c.Bytes)
	}
	var out []bar
	for _, c := range all {
		out = append(out, bar{Component: *c, Width: num(100 * float64(c.Bytes) / float64(most))})
	}
	return out
}
