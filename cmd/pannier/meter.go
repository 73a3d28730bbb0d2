package main

import (
	"fmt"
	"strings"
	"time"

	"pannier/bundle"
)

// meter follows one phase: how far it is, how fast it goes, how long it will take.
type meter struct {
	last    bundle.Event
	started time.Time
	sampled time.Time // when rate was last brought up to date
	done    int64     // bytes moved at that time
	rate    float64   // bytes a second, smoothed over about ten seconds
}

func newMeter(e bundle.Event, now time.Time) *meter {
	return &meter{last: e, started: now, sampled: now, done: e.Done}
}

// update takes in an event. Events of several goroutines may come out of order; figures are
// totals, so that an older one is told by the smaller one.
func (m *meter) update(e bundle.Event) {
	if e.Total == m.last.Total {
		if e.Done+e.Reused < m.last.Done+m.last.Reused {
			e.Done, e.Reused = m.last.Done, m.last.Reused
		}
		e.Blobs = max(e.Blobs, m.last.Blobs)
	}
	m.last = e
}

// tick brings the rate up to date.
func (m *meter) tick(now time.Time) {
	passed := now.Sub(m.sampled).Seconds()
	if passed < 0.5 {
		return
	}
	current := float64(m.last.Done-m.done) / passed
	if m.rate == 0 {
		m.rate = current
	} else {
		weight := min(passed/10, 1)
		m.rate += weight * (current - m.rate)
	}
	m.sampled, m.done = now, m.last.Done
}

func (m *meter) position() int64 { return m.last.Done + m.last.Reused }

// left returns how long the rest will take; false if that cannot be told.
func (m *meter) left() (time.Duration, bool) {
	rest := m.last.Total - m.position()
	if m.last.Total <= 0 || m.rate < 1 || rest <= 0 {
		return 0, false
	}
	seconds := float64(rest) / m.rate
	if seconds > 1000*3600 {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second), true
}

func (m *meter) percent() int {
	if m.last.Total <= 0 {
		return 0
	}
	return int(100 * float64(m.position()) / float64(m.last.Total))
}

// figures renders the state in words: "1.2 GiB of 16.0 GiB (7%), 45.3 MiB/s, 5m12s left".
func (m *meter) figures() string {
	var parts []string
	e := m.last
	switch {
	case e.Total > 0:
		parts = append(parts, fmt.Sprintf("%s of %s (%d%%)", bytesText(m.position()), bytesText(e.Total), m.percent()))
	case e.Done > 0:
		parts = append(parts, bytesText(e.Done))
	}
	if e.TotalBlobs > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d blobs", e.Blobs, e.TotalBlobs))
	}
	if m.rate >= 1 {
		parts = append(parts, bytesText(int64(m.rate))+"/s")
	}
	if left, ok := m.left(); ok {
		parts = append(parts, left.String()+" left")
	}
	if e.Wait != "" {
		parts = append(parts, "waiting: "+printable(e.Wait))
	} else if e.Item != "" {
		parts = append(parts, printable(e.Item))
	}
	return strings.Join(parts, ", ")
}
