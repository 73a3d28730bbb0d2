package main

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"pannier/bundle"
	"pannier/bundle/content"
)

// meter follows one phase: how far it is, how fast it goes, how long it will take.
type meter struct {
	last    bundle.Event
	started time.Time
	sampled time.Time // when rate was last brought up to date
	done    int64     // bytes moved at that time
	rate    float64   // bytes a second, smoothed over about ten seconds

	waitEnd  time.Time // when a wait that is shown is over
	ended    time.Time // zero while the phase goes on
	complete bool      // it came to its end
}

func newMeter(e bundle.Event, now time.Time) *meter {
	return &meter{last: e, started: now, sampled: now, done: e.Done}
}

// update takes in an event. Events of several goroutines may come out of order; figures are
// totals, so that an older one is told by the smaller one.
func (m *meter) update(e bundle.Event) {
	if !m.ended.IsZero() {
		e.Item, e.Wait = "", ""
	}
	if e.Done+e.Reused <= m.position() && e.Wait == "" {
		e.Wait = m.last.Wait // nothing has moved
	}
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
	if m.last.Wait != "" && now.After(m.waitEnd) {
		m.last.Wait = ""
	}
	passed := now.Sub(m.sampled).Seconds()
	if passed < 0.5 {
		return
	}
	// At first the mean since the beginning, so that what buffers swallow in the first moment
	// is not taken for the rate; then smoothed over about ten seconds.
	current := float64(m.last.Done-m.done) / passed
	weight := passed / min(10, max(passed, now.Sub(m.started).Seconds()))
	m.rate += min(weight, 1) * (current - m.rate)
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
	return time.Duration(math.Ceil(seconds)) * time.Second, true
}

func (m *meter) percent() int {
	if m.last.Total <= 0 {
		return 0
	}
	return int(100 * float64(m.position()) / float64(m.last.Total))
}

// waits notes what the phase waits for, for about so long; it is forgotten as soon as
// something moves, or when that time is well over.
func (m *meter) waits(what string, now time.Time, d time.Duration) {
	m.last.Wait, m.waitEnd = what, now.Add(d+2*time.Second)
}

// end closes the phase. followed says that another one has begun, so that it came to its end.
func (m *meter) end(now time.Time, followed bool) {
	e := m.last
	m.ended, m.last.Item, m.last.Wait = now, "", ""
	m.complete = followed || e.Total > 0 && m.position() >= e.Total ||
		e.Total == 0 && e.TotalBlobs > 0 && e.Blobs >= e.TotalBlobs
}

// figures renders the state in words, what matters most first:
// "7%, 5m12s left, 1.2 GiB of 16.0 GiB, 45.3 MiB/s, 12 of 700 blobs".
func (m *meter) figures() string { return strings.Join(m.parts(), ", ") }

// fitting is figures that leaves out the last of them for want of room.
func (m *meter) fitting(room int) string {
	parts := m.parts()
	for len(parts) > 1 && utf8.RuneCountInString(strings.Join(parts, ", ")) > room {
		parts = parts[:len(parts)-1]
	}
	return strings.Join(parts, ", ")
}

func (m *meter) parts() (parts []string) {
	if !m.ended.IsZero() {
		return []string{m.ending()}
	}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	e := m.last
	if e.Total > 0 {
		add("%d%%", m.percent())
	}
	if e.Wait != "" {
		add("waiting: %s", printable(e.Wait))
	} else if left, ok := m.left(); ok {
		add("%s left", left)
	}
	switch {
	case e.Total > 0:
		add("%s of %s", content.SizeText(m.position()), content.SizeText(e.Total))
	case e.Done > 0:
		add("%s", content.SizeText(e.Done))
	}
	if m.rate >= 1 && e.Wait == "" {
		add("%s/s", content.SizeText(int64(m.rate)))
	}
	if e.TotalBlobs > 0 {
		add("%d of %d blobs", e.Blobs, e.TotalBlobs)
	}
	if e.Total > 0 && e.Reused > 0 {
		add("%s were there", content.SizeText(e.Reused))
	}
	if e.Item != "" && e.Wait == "" {
		add("%s", printable(e.Item))
	}
	return parts
}

// ending renders how a phase ended: "done, 12.5 MiB in 3s".
func (m *meter) ending() string {
	e := m.last
	if !m.complete {
		if e.Total > 0 {
			return fmt.Sprintf("stopped at %d%%, %s of %s", m.percent(), content.SizeText(m.position()), content.SizeText(e.Total))
		}
		return "ended"
	}
	took := max(m.ended.Sub(m.started), 100*time.Millisecond)
	if took >= 10*time.Second {
		took = took.Round(time.Second)
	} else {
		took = took.Round(100 * time.Millisecond)
	}
	switch {
	case e.Done > 0 && e.Reused > 0:
		return fmt.Sprintf("done, %s in %s, %s were there", content.SizeText(e.Done), took, content.SizeText(e.Reused))
	case e.Done > 0:
		return fmt.Sprintf("done, %s in %s", content.SizeText(e.Done), took)
	case e.Reused > 0:
		return fmt.Sprintf("done, %s were there", content.SizeText(e.Reused))
	}
	return fmt.Sprintf("done in %s", took)
}
