package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"pannier/bundle"
)

func TestPrintable(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"quay.io/a/b:4.8.21", "quay.io/a/b:4.8.21"},
		{"ümläut 日本", "ümläut 日本"},
		{"a\x1b[2Jb", `a\u001b[2Jb`},
		{"a\nb\tc", `a\nb\u0009c`},
		{"a\u009b31mb", `a\u009b31mb`},
		{"a\u202eb", `a\u202eb`},
		{"a\xffb", `a\xffb`},
		{"a\x7fb", `a\u007fb`},
		{"a\u2028b", `a\u2028b`},
	} {
		if got := printable(test.in); got != test.want {
			t.Errorf("%q: %q, want %q", test.in, got, test.want)
		}
	}
}

// Whatever a name holds, nothing that a terminal obeys reaches either stream.
func TestConsoleNeverPrintsEscapes(t *testing.T) {
	const name = "etcd\x1b]0;owned\x07\u009b31m\u202e\nerror: forged"
	var out, errs bytes.Buffer
	c := &console{stdout: &out, stderr: &errs}
	c.say("%s %v", name, io.EOF)
	c.warn("%s", name)
	c.fail(&codedError{code: 1, text: name})
	if err := c.print("%s\n", name); err != nil {
		t.Fatal(err)
	}
	if err := c.json(map[string]string{"name": name}); err != nil {
		t.Fatal(err)
	}
	c.say("%s", trusted(table([][]string{{"a", name}})))
	for _, text := range []string{out.String(), errs.String()} {
		if strings.ContainsAny(text, "\x1b\x07\u009b\u202e") || strings.Contains(text, "\nerror: forged") {
			t.Errorf("%q", text)
		}
	}

	out.Reset()
	c.json(map[string]string{"name": name})
	var doc map[string]string
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil || doc["name"] != name {
		t.Errorf("the document lost its meaning: %v %q", err, doc["name"])
	}
}

// What the buffers of a system swallow in the first moment is not the rate of a slow registry.
func TestMeterBurst(t *testing.T) {
	start := time.Unix(0, 0)
	m := newMeter(bundle.Event{Phase: bundle.PhasePush, Total: 100 << 20}, start)
	for i := int64(1); i <= 6; i++ {
		m.update(bundle.Event{Phase: bundle.PhasePush, Total: 100 << 20, Done: (20 + i) << 20})
		m.tick(start.Add(time.Duration(i) * time.Second))
	}
	if left, ok := m.left(); !ok || left < 15*time.Second {
		t.Errorf("%s left of 74 MiB, at a MiB a second after the first moment", left)
	}
}

func TestMeter(t *testing.T) {
	start := time.Unix(0, 0)
	m := newMeter(bundle.Event{Phase: bundle.PhaseDownload, Total: 1 << 30, Reused: 256 << 20, TotalBlobs: 10}, start)
	for i := int64(1); i <= 20; i++ {
		m.update(bundle.Event{Phase: bundle.PhaseDownload, Total: 1 << 30, Reused: 256 << 20, Done: i * 8 << 20, Blobs: 1, TotalBlobs: 10})
		m.tick(start.Add(time.Duration(i) * time.Second))
	}
	if got := m.figures(); got != "40%, 1m16s left, 416.0 MiB of 1.0 GiB, 8.0 MiB/s, 1 of 10 blobs, 256.0 MiB were there" {
		t.Error(got)
	}
	for room, want := range map[int]string{
		84: "40%, 1m16s left, 416.0 MiB of 1.0 GiB, 8.0 MiB/s, 1 of 10 blobs",
		37: "40%, 1m16s left, 416.0 MiB of 1.0 GiB", 36: "40%, 1m16s left", 0: "40%",
	} {
		if got := m.fitting(room); got != want {
			t.Errorf("%q in %d columns", got, room)
		}
	}
	m.update(bundle.Event{Phase: bundle.PhaseDownload, Total: 1 << 30, Reused: 256 << 20, Done: 8 << 20})
	if m.position() != 416<<20 {
		t.Error("an event that came late turned the clock back")
	}
}

// A wait stands in place of rate and time, until something moves, or it must be over; an
// ended phase waits for nothing.
func TestMeterWaits(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	moved := func(done int64) bundle.Event {
		return bundle.Event{Phase: bundle.PhaseDownload, Total: 1 << 20, Done: done}
	}
	m := newMeter(moved(0), start)
	m.update(moved(256 << 10))
	m.tick(at(1))
	m.waits("quay.io: HTTP 503, again in 5s", at(1), 5*time.Second)
	m.update(moved(256 << 10))
	m.tick(at(3))
	if got := m.figures(); got != "25%, waiting: quay.io: HTTP 503, again in 5s, 256.0 KiB of 1.0 MiB" {
		t.Error(got)
	}
	m.update(moved(512 << 10))
	if got := m.figures(); strings.Contains(got, "waiting") || !strings.Contains(got, "left") {
		t.Error(got)
	}
	m.waits("quay.io: HTTP 503", at(4), time.Second)
	m.tick(at(10))
	if got := m.figures(); strings.Contains(got, "waiting") {
		t.Error(got)
	}
	m.waits("quay.io: HTTP 503", at(11), time.Second)
	m.end(at(12), false)
	if got := m.figures(); got != "stopped at 50%, 512.0 KiB of 1.0 MiB" {
		t.Error(got)
	}
	m.update(moved(1 << 20))
	m.end(at(12), false)
	if got := m.figures(); got != "done, 1.0 MiB in 12s" {
		t.Error(got)
	}
}

func TestFold(t *testing.T) {
	c := &console{width: 40}
	got := c.fold("short\n  what to do:   check the name and the port, and whether a proxy stands between\n" + strings.Repeat("x", 60))
	want := "short\n  what to do: check the name and the\n    port, and whether a proxy stands\n    between\n" + strings.Repeat("x", 60)
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if c.width = 0; c.fold(got) != got {
		t.Error("where there is no terminal, lines are left alone")
	}
}

// All views are driven the same way; each must end with the state of every phase shown, and
// stderr as JSON must be JSON line by line, messages included.
func TestProgressViews(t *testing.T) {
	drive := func(mode string) string {
		var errs bytes.Buffer
		c := &console{stdout: io.Discard, stderr: &errs, events: mode == progressJSON}
		p := startProgress(mode, c)
		p.event(bundle.Event{Phase: bundle.PhaseDownload, Total: 1000, TotalBlobs: 2})
		p.event(bundle.Event{Phase: bundle.PhaseDownload, Total: 1000, Done: 600, Blobs: 1, TotalBlobs: 2, Item: "etcd\x1b[2J"})
		p.waiting("quay.io", "HTTP 503", 5*time.Second)
		c.warn("something")
		p.event(bundle.Event{Phase: bundle.PhaseFlush})
		p.close()
		p.close()
		c.say("over")
		return errs.String()
	}
	text := drive(progressJSON)
	var events []progressEvent
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		var e progressEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		events = append(events, e)
	}
	// A phase ends where the next one begins.
	last := events[len(events)-4]
	if last.Event != "end" || last.Phase != bundle.PhaseDownload || last.Done != 600 || last.Total != 1000 || last.Wait != "" {
		t.Errorf("the last event of the download is %+v", last)
	}
	if next := events[len(events)-3]; next.Event != "begin" || next.Phase != bundle.PhaseFlush {
		t.Errorf("behind it comes %+v", next)
	}

	text = drive(progressPlain)
	for _, want := range []string{"download: 0%, 0 B of 1000 B", "warning: something", "download: done, 600 B in", "flush: begins", "over"} {
		if !strings.Contains(text, want) {
			t.Errorf("plain: %q is missing in\n%s", want, text)
		}
	}
	text = drive(progressTTY)
	for _, want := range []string{"download", "done, 600 B in", "warning: something", "over"} {
		if !strings.Contains(text, want) {
			t.Errorf("tty: %q is missing in\n%q", want, text)
		}
	}
	if strings.Contains(text, "\x1b[2J") {
		t.Errorf("tty: a name cleared the screen: %q", text)
	}
	if text = drive(progressQuiet); text != "warning: something\nover\n" {
		t.Errorf("quiet: %q", text)
	}
}
