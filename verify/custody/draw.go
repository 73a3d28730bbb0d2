package custody

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"

	"pannier/bundle/content"
)

// The drawings of the report are SVG that is made here of numbers alone: no text of a drive
// or a registry is ever put into it.

const drawWidth = 720 // of every drawing, in its own units

// cellStates are the states of a map's cells, with how the legend names them.
var cellStates = []struct{ state, label string }{
	{CellProven, "read and hashed in this run"},
	{CellReadBack, "written and read back in this run"},
	{CellRepaired, "healed in this run"},
	{CellKept, "not read in this run"},
	{CellPartial, "not all there yet"},
	{CellDamaged, "damaged or refused"},
	{CellMissing, "missing"},
}

// legend is one line of a map's legend.
type legend struct {
	State, Label string
	Count        int
	Bytes        int64
}

func legendOf(cells []Cell) []legend {
	var out []legend
	for _, s := range cellStates {
		l := legend{State: s.state, Label: s.label}
		for _, c := range cells {
			if c.State == s.state {
				l.Count++
				l.Bytes += c.Size
			}
		}
		if l.Count > 0 {
			out = append(out, l)
		}
	}
	return out
}

// maxCells bounds the cells that are drawn; of more blobs, several share a cell, which has
// the worst state of them.
const maxCells = 8000

// mapDrawing draws the cells in their order. Bad cells are told by a mark too, not by colour alone.
func mapDrawing(cells []Cell) template.HTML {
	if len(cells) == 0 {
		return ""
	}
	states := make([]int, len(cells))
	for i, c := range cells {
		states[i] = slices.IndexFunc(cellStates, func(s struct{ state, label string }) bool { return s.state == c.State })
	}
	if per := (len(states) + maxCells - 1) / maxCells; per > 1 {
		var fewer []int
		for part := range slices.Chunk(states, per) {
			fewer = append(fewer, slices.Max(part))
		}
		states = fewer
	}
	const most, room = 16.0, 76.0 // side of a cell, and height of the drawing
	side := math.Min(most, math.Floor(math.Sqrt(drawWidth*room/float64(len(states)))*2)/2)
	side = math.Max(side, 3)
	columns := int(drawWidth / side)
	rows := (len(states) + columns - 1) / columns
	gap := math.Max(0.5, side/8)
	fills := make([]strings.Builder, len(cellStates))
	var marks, hollow strings.Builder // on cells that are filled, and on those that are not
	for i, s := range states {
		if s < 0 {
			continue
		}
		x, y, w := float64(i%columns)*side, float64(i/columns)*side, side-gap
		fmt.Fprintf(&fills[s], "M%s %sh%sv%sh-%sz", num(x), num(y), num(w), num(w), num(w))
		switch cellStates[s].state {
		case CellDamaged:
			fmt.Fprintf(&marks, "M%s %sl%s %sm0-%sl-%s %s", num(x+w/4), num(y+w/4), num(w/2), num(w/2), num(w/2), num(w/2), num(w/2))
		case CellMissing:
			fmt.Fprintf(&hollow, "M%s %sh%s", num(x+w/4), num(y+w/2), num(w/2))
		case CellPartial:
			fmt.Fprintf(&marks, "M%s %sh%s", num(x+w/4), num(y+w/2), num(w/2))
		case CellRepaired:
			fmt.Fprintf(&marks, "M%s %sv%sm-%s-%sh%s", num(x+w/2), num(y+w/4), num(w/2), num(w/4), num(w/4), num(w/2))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="map" viewBox="0 0 %d %s" role="img" aria-labelledby="TITLE DESC"><title id="TITLE">Map of the drive</title><desc id="DESC">`, drawWidth, num(float64(rows)*side))
	for i, l := range legendOf(cells) {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%d blobs %s", l.Count, l.Label)
	}
	b.WriteString("</desc>")
	for s := range cellStates {
		if fills[s].Len() > 0 {
			fmt.Fprintf(&b, `<path class="cell %s" d="%s"/>`, cellStates[s].state, fills[s].String())
		}
	}
	if marks.Len() > 0 {
		fmt.Fprintf(&b, `<path class="mark" d="%s"/>`, marks.String())
	}
	if hollow.Len() > 0 {
		fmt.Fprintf(&b, `<path class="mark hollow" d="%s"/>`, hollow.String())
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// swatch is a cell as the legend shows it.
func swatch(state string) template.HTML {
	one := string(mapDrawing([]Cell{{State: state}}))
	at := strings.Index(one, "<path")
	return template.HTML(`<svg class="swatch" viewBox="0 0 16 16" aria-hidden="true">` + one[at:])
}

// num writes a number shortly.
func num(f float64) string {
	s := fmt.Sprintf("%.2f", f)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// rate is the bytes a second of a run, over time.
type rate struct {
	bins    []float64 // bytes a second, in steps of step
	step    float64   // seconds
	length  float64   // seconds
	peak    float64
	moved   int64
	working float64 // seconds of the phases that moved something
}

const rateBins = 120

// rateOf spreads what was moved between samples over equal steps of time; nil if nothing
// worth drawing was moved.
func rateOf(phases []Phase) *rate {
	r := &rate{}
	for _, p := range phases {
		r.length = math.Max(r.length, p.Start+p.Seconds)
		if p.Bytes > 0 {
			r.moved += p.Bytes
			r.working += p.Seconds
		}
	}
	if r.moved == 0 || r.length <= 0 {
		return nil
	}
	n := int(math.Max(8, math.Min(rateBins, math.Ceil(r.length/sampleEvery.Seconds()/2))))
	r.step, r.bins = r.length/float64(n), make([]float64, n)
	for _, p := range phases {
		for i := 1; i < len(p.Samples); i++ {
			r.spread(p.Samples[i-1], p.Samples[i])
		}
	}
	for i := range r.bins {
		r.bins[i] /= r.step
		r.peak = math.Max(r.peak, r.bins[i])
	}
	if r.peak == 0 {
		return nil
	}
	return r
}

// spread adds what was moved between two samples to the bins between them.
func (r *rate) spread(from, to Sample) {
	moved, passed := float64(to.Bytes-from.Bytes), to.At-from.At
	if moved <= 0 {
		return
	}
	if passed <= 0 {
		passed = r.step / 1000
	}
	for i := max(0, int(from.At/r.step)); i < len(r.bins); i++ {
		begin, end := float64(i)*r.step, float64(i+1)*r.step
		if begin >= from.At+passed {
			break
		}
		share := (math.Min(end, from.At+passed) - math.Max(begin, from.At)) / passed
		r.bins[i] += moved * math.Max(0, math.Min(1, share))
	}
}

// average is over the phases that moved something.
func (r *rate) average() float64 { return float64(r.moved) / math.Max(r.working, 0.001) }

// figures are the average and the peak. The peak is left out of a run that was over within a few
// steps: what moved within a part of a step is spread over all of it, and looks slower than it was.
func (r *rate) figures() string {
	average := "average " + content.SizeText(int64(r.average())) + "/s"
	if r.working < 5*r.step || r.peak < r.average() {
		return capital(average)
	}
	return fmt.Sprintf("Peak %s/s, %s", content.SizeText(int64(r.peak)), average)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// rateDrawing draws the rate, with a line where each phase begins.
func rateDrawing(phases []Phase) template.HTML {
	r := rateOf(phases)
	if r == nil {
		return ""
	}
	const height, top = 96.0, 8.0
	var area strings.Builder
	fmt.Fprintf(&area, "M0 %s", num(height))
	for i, v := range r.bins {
		y := height - (height-top)*v/r.peak
		x0, x1 := float64(i)*drawWidth/float64(len(r.bins)), float64(i+1)*drawWidth/float64(len(r.bins))
		fmt.Fprintf(&area, "L%s %sL%s %s", num(x0), num(y), num(x1), num(y))
	}
	fmt.Fprintf(&area, "L%d %sz", drawWidth, num(height))
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="rate" viewBox="0 0 %d %s" role="img" aria-label="Bytes a second over the time of the run; the figures stand below">`, drawWidth, num(height+4))
	fmt.Fprintf(&b, `<path class="area" d="%s"/><path class="axis" d="M0 %sH%d"/>`, area.String(), num(height), drawWidth)
	for _, p := range phases[min(1, len(phases)):] {
		x := math.Min(drawWidth-0.5, p.Start/r.length*drawWidth)
		fmt.Fprintf(&b, `<path class="begin" d="M%s 0V%s"/>`, num(x), num(height+4))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}
