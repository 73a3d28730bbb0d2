package main

import (
	"io"
	"sync"
	"time"

	"github.com/vbauerster/cupwriter"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"pannier/bundle"
)

// Ways to show progress, the values of --progress.
const (
	progressAuto  = "auto"
	progressPlain = "plain"
	progressTTY   = "tty"
	progressJSON  = "json"
	progressQuiet = "quiet"

	progressPiped = "piped" // what auto comes to where no terminal is: plain, without short phases
)

var progressModes = []string{progressAuto, progressPlain, progressTTY, progressJSON, progressQuiet}

// plainEvery is how often plain progress prints a line: often enough to see that it lives,
// seldom enough for a log.
const plainEvery = 30 * time.Second

// plainPatience is how long a phase may take without a line.
const plainPatience = time.Second

// isTerminal reports whether w is a terminal that can draw bars. Serial consoles and some
// containers have terminals that know no width: those get lines.
func isTerminal(w io.Writer, env environ) bool { return terminalWidth(w, env) > 0 }

// terminalWidth is the width of such a terminal; 0 if w is none.
func terminalWidth(w io.Writer, env environ) int {
	t := cupwriter.New(w, false)
	if env("TERM") == "dumb" || !t.IsTerminal() {
		return 0
	}
	width, _, err := t.GetTermSize()
	if err != nil || width < 40 {
		return 0
	}
	return width
}

// view shows the phases of a command. Its methods are called one at a time.
type view interface {
	// begin is called once for each phase, when it is first heard of.
	begin(m *meter)
	// show is called several times a second while there is news.
	show(m *meter, now time.Time)
	// end is called once for each phase, when the next one begins or the command is over.
	end(m *meter, now time.Time)
	close()
}

// progress collects the events of a command and shows them through a view. A nil progress
// shows nothing.
type progress struct {
	view   view
	stop   chan struct{}
	done   sync.WaitGroup
	closed bool // used by the command's own goroutine alone

	mu      sync.Mutex
	phases  map[string]*meter
	current *meter // the phase that goes on

	succeeded bool // the work is done: so is its last phase
}

// startProgress begins to show progress in the given mode; quiet gives nil.
func startProgress(mode string, c *console) *progress {
	var v view
	switch mode {
	case progressQuiet:
		return nil
	case progressTTY:
		v = newBars(c)
	case progressJSON:
		v = &eventView{console: c}
	case progressPiped:
		v = &plainView{console: c, every: plainEvery, patience: plainPatience}
	default:
		v = &plainView{console: c, every: plainEvery}
	}
	return startView(v)
}

func startView(v view) *progress {
	p := &progress{view: v, stop: make(chan struct{}), phases: map[string]*meter{}}
	p.done.Add(1)
	go p.loop()
	return p
}

// event takes in an event; it is a bundle.ProgressFunc.
func (p *progress) event(e bundle.Event) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m, known := p.phases[e.Phase]
	if known {
		m.update(e) // also late ones, of a phase that has ended
		return
	}
	now := time.Now()
	if p.current != nil {
		p.current.end(now, true)
		p.view.end(p.current, now)
	}
	m = newMeter(e, now)
	p.phases[e.Phase], p.current = m, m
	p.view.begin(m)
}

func (p *progress) loop() {
	defer p.done.Done()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			p.mu.Lock()
			if p.current != nil {
				p.current.tick(now)
				p.view.show(p.current, now)
			}
			p.mu.Unlock()
		}
	}
}

// finish is close for a command that knows how its work ended.
func (p *progress) finish(err error) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.succeeded = err == nil
	p.mu.Unlock()
	p.close()
}

// close ends the showing; what is printed afterwards stands below it. Closing again is
// nothing.
func (p *progress) close() {
	if p == nil || p.closed {
		return
	}
	p.closed = true
	close(p.stop)
	p.done.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil {
		now := time.Now()
		p.current.end(now, p.succeeded)
		p.view.end(p.current, now)
	}
	p.view.close()
}

// plainView prints a line when a phase has begun and every so often. A phase that is over
// within its patience leaves none, unless it was stopped.
type plainView struct {
	console  *console
	every    time.Duration
	patience time.Duration
	told     bool // that the phase began
	printed  time.Time
	waiting  string
}

func (v *plainView) begin(m *meter) {
	v.printed, v.told = m.started, false
	if v.patience == 0 {
		v.tell(m)
	}
}

// tell says that the phase has begun.
func (v *plainView) tell(m *meter) {
	v.told = true
	v.console.say("%s: %s", m.last.Phase, trusted(orWord(m.figures(), "begins")))
}

func (v *plainView) show(m *meter, now time.Time) {
	if !v.told {
		if now.Sub(m.started) >= v.patience || m.last.Wait != "" {
			v.printed, v.waiting = now, m.last.Wait
			v.tell(m)
		}
		return
	}
	// A wait is news at once, though not each time that it comes back.
	news := m.last.Wait != "" && m.last.Wait != v.waiting && now.Sub(v.printed) >= v.every/10
	if !news && now.Sub(v.printed) < v.every {
		return
	}
	v.printed, v.waiting = now, m.last.Wait
	v.console.say("%s: %s", m.last.Phase, trusted(orWord(m.figures(), "still at it")))
}

func (v *plainView) end(m *meter, _ time.Time) {
	v.waiting = ""
	if !v.told && m.complete {
		return
	}
	v.console.say("%s: %s", m.last.Phase, trusted(m.figures()))
}
func (v *plainView) close() {}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return s
}

// eventView prints one JSON object a line: at the beginning and the end of each phase, and
// once a second between.
type eventView struct {
	console *console
	printed time.Time
}

// progressEvent is the JSON form of progress.
type progressEvent struct {
	Event      string  `json:"event"` // "begin", "progress", "end"
	Time       string  `json:"time"`
	Phase      string  `json:"phase"`
	Item       string  `json:"item,omitempty"`
	Done       int64   `json:"done"`
	Reused     int64   `json:"reused"`
	Total      int64   `json:"total"`
	Blobs      int     `json:"blobs"`
	TotalBlobs int     `json:"totalBlobs"`
	Rate       int64   `json:"rate"`           // bytes a second
	Left       float64 `json:"left,omitempty"` // seconds
	Wait       string  `json:"wait,omitempty"`
	Seconds    float64 `json:"seconds,omitempty"` // that the phase took, at its end
}

func (v *eventView) print(event string, m *meter, now time.Time) {
	e := m.last
	doc := progressEvent{
		Event: event, Time: now.UTC().Format(time.RFC3339), Phase: e.Phase, Item: printable(e.Item),
		Done: e.Done, Reused: e.Reused, Total: e.Total, Blobs: e.Blobs, TotalBlobs: e.TotalBlobs,
		Wait: printable(e.Wait),
	}
	if e.Wait == "" { // nobody knows how long that takes
		doc.Rate = int64(m.rate)
		if left, ok := m.left(); ok {
			doc.Left = left.Seconds()
		}
	}
	if !m.ended.IsZero() {
		doc.Seconds = m.ended.Sub(m.started).Seconds()
	}
	v.console.event(doc)
}

func (v *eventView) begin(m *meter) { v.printed = m.started; v.print("begin", m, m.started) }

func (v *eventView) show(m *meter, now time.Time) {
	if now.Sub(v.printed) >= time.Second {
		v.printed = now
		v.print("progress", m, now)
	}
}

func (v *eventView) end(m *meter, now time.Time) { v.print("end", m, now) }
func (v *eventView) close()                      {}

// barView draws a bar for each phase.
type barView struct {
	console *console
	bars    *mpb.Progress
	width   int // of a bar
	name    int // of the longest name so far: the library aligns them
	drawn   map[*meter]*drawnBar
}

// drawnBar holds what its decorators show; they run on the goroutine of the bars' library.
type drawnBar struct {
	bar  *mpb.Bar
	mu   sync.Mutex
	text string
}

func newBars(c *console) *barView {
	c.mu.Lock()
	out := c.stderr
	c.mu.Unlock()
	bars := mpb.New(mpb.WithOutput(out), mpb.WithRefreshRate(200*time.Millisecond), mpb.WithAutoRefresh())
	c.draw(bars)
	v := &barView{console: c, bars: bars, width: 30, drawn: map[*meter]*drawnBar{}}
	switch { // the figures say more than the bar does
	case c.width == 0: // no terminal: it was asked for by name
	case c.width < 100:
		v.width = 0
	case c.width < 120:
		v.width = 14
	}
	return v
}

// figures are those that have room beside the name and the bar: the library would cut a longer
// text anywhere.
func (v *barView) figures(m *meter) string {
	if v.console.width == 0 {
		return m.figures()
	}
	return m.fitting(v.console.width - v.name - v.width - 3) // blanks between them
}

func (v *barView) begin(m *meter) {
	v.name = max(v.name, len(m.last.Phase))
	b := &drawnBar{text: v.figures(m)}
	var style mpb.BarFillerBuilder = mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]")
	if m.last.Total == 0 || v.width == 0 {
		style = mpb.NopStyle() // a phase without bytes has nothing to fill
	}
	// Made without a total, or the bar would take itself for done, and be drawn no more, as soon
	// as it is full: what comes of the phase is not known then.
	b.bar = v.bars.New(0, style,
		mpb.BarWidth(v.width),
		mpb.PrependDecorators(decor.Name(m.last.Phase, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			b.mu.Lock()
			defer b.mu.Unlock()
			return " " + b.text
		})),
	)
	b.bar.SetTotal(m.last.Total, false)
	v.drawn[m] = b
}

func (v *barView) show(m *meter, _ time.Time) {
	b := v.drawn[m]
	b.mu.Lock()
	b.text = orWord(v.figures(m), "…")
	b.mu.Unlock()
	b.bar.SetTotal(m.last.Total, false)
	b.bar.SetCurrent(m.position())
}

func (v *barView) end(m *meter, now time.Time) {
	v.show(m, now)
	// A phase that was cut short keeps its bar as far as it came.
	v.drawn[m].bar.Abort(false)
}

func (v *barView) close() {
	v.bars.Wait()
	v.console.draw(nil)
}

// waiting shows that a host is waited for until something moves again; registry clients
// call it.
func (p *progress) waiting(host, why string, d time.Duration) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil {
		p.current.waits(host+": "+why+", again in "+max(time.Second, d.Round(time.Second)).String(), time.Now(), d)
	}
}
