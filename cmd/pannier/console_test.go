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

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 17179869184: "16.0 GiB", -1: "unknown"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestMeter(t *testing.T) {
	start := time.Unix(0, 0)
	m := newMeter(bundle.Event{Phase: bundle.PhaseDownload, Total: 1 << 30, Reused: 256 << 20, TotalBlobs: 10}, start)
	for i := int64(1); i <= 20; i++ {
		m.update(bundle.Event{Phase: bundle.PhaseDownload, Total: 1 << 30, Reused: 256 << 20, Done: i * 8 << 20, Blobs: 1, TotalBlobs: 10})
		m.tick(start.Add(time.Duration(i) * time.Second))
	}
	if got := m.figures(); got != "416.0 MiB of 1.0 GiB (40%), 1 of 10 blobs, 8.0 MiB/s, 1m16s left" {
		t.Error(got)
	}
	m.update(bundle.Event{Phase: bundle.PhaseDownload, Total: 1 << 30, Reused: 256 << 20, Done: 8 << 20})
	if m.position() != 416<<20 {
		t.Error("an event that came late turned the clock back")
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
	last := events[len(events)-3]
	if last.Event != "end" || last.Phase != bundle.PhaseDownload || last.Done != 600 || last.Total != 1000 {
		t.Errorf("the last event of the download is %+v", last)
	}

	text = drive(progressPlain)
	for _, want := range []string{"download: 0 B of 1000 B (0%)", "warning: something", "flush: begins", "over"} {
		if !strings.Contains(text, want) {
			t.Errorf("plain: %q is missing in\n%s", want, text)
		}
	}
	text = drive(progressTTY)
	for _, want := range []string{"600 B of 1000 B (60%)", "warning: something", "over"} {
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
