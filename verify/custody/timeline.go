package custody

import (
	"sync"
	"time"

	"pannier/bundle"
)

// Phase is one phase of the work. It begins with its first event and ends where the next one
// begins.
type Phase struct {
	Name    string   `json:"name"`
	Start   float64  `json:"start"`   // seconds after the command began
	Seconds float64  `json:"seconds"` // that it took
	Bytes   int64    `json:"bytes"`   // moved
	Reused  int64    `json:"reused"`
	Blobs   int      `json:"blobs"`
	Samples []Sample `json:"samples"`
}

// Sample says how many bytes a phase had moved at a time.
type Sample struct {
	At    float64 `json:"at"` // seconds after the command began
	Bytes int64   `json:"bytes"`
}

const (
	sampleEvery = 200 * time.Millisecond
	maxSamples  = 400 // of a phase; then they are thinned
	maxPhases   = 50
)

// Timeline notes how the work went. Its zero value is not ready: see [NewTimeline].
type Timeline struct {
	began time.Time
	now   func() time.Time

	mu     sync.Mutex
	phases []*phase
}

type phase struct {
	Phase
	every time.Duration // between samples
	last  time.Time     // sample
}

// NewTimeline begins now.
func NewTimeline() *Timeline { return &Timeline{began: time.Now(), now: time.Now} }

// Began is when that was.
func (t *Timeline) Began() time.Time { return t.began }

// Event takes in an event; it is a [bundle.ProgressFunc].
func (t *Timeline) Event(e bundle.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	var p *phase
	for _, known := range t.phases {
		if known.Name == e.Phase {
			p = known
		}
	}
	if p == nil {
		if len(t.phases) == maxPhases {
			return
		}
		t.end(now)
		p = &phase{Phase: Phase{Name: e.Phase, Start: t.at(now)}, every: sampleEvery}
		t.phases = append(t.phases, p)
		p.sample(t.at(now), now)
	}
	// Events of several goroutines come out of order; figures are totals.
	p.Bytes, p.Reused, p.Blobs = max(p.Bytes, e.Done), max(p.Reused, e.Reused), max(p.Blobs, e.Blobs)
	if p == t.phases[len(t.phases)-1] && now.Sub(p.last) >= p.every {
		p.sample(t.at(now), now)
	}
}

func (t *Timeline) at(now time.Time) float64 { return now.Sub(t.began).Seconds() }

// end ends the phase that goes on.
func (t *Timeline) end(now time.Time) {
	if n := len(t.phases); n > 0 {
		p := t.phases[n-1]
		p.Seconds = t.at(now) - p.Start
		p.sample(t.at(now), now)
	}
}

func (p *phase) sample(at float64, now time.Time) {
	p.last = now
	p.Samples = append(p.Samples, Sample{At: at, Bytes: p.Bytes})
	if len(p.Samples) <= maxSamples {
		return
	}
	kept := p.Samples[:0]
	for i, s := range p.Samples {
		if i%2 == 0 {
			kept = append(kept, s)
		}
	}
	p.Samples, p.every = kept, 2*p.every
}

// Phases ends the work and returns its phases.
func (t *Timeline) Phases() []Phase {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end(t.now())
	out := []Phase{}
	for _, p := range t.phases {
		out = append(out, p.Phase)
	}
	return out
}
