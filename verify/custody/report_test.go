package custody_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pannier/bundle"
	"pannier/verify/custody"
)

// full is a report with everything in it; s stands wherever a name from outside does.
func full(s string) *custody.Report {
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	state := &custody.State{Lines: 2, Vouched: s, Problems: []string{s}, Attached: []custody.AttachedFile{{File: custody.File{Path: s, As: s}}}}
	r := &custody.Report{
		Command: "audit", Typed: "pannier audit " + s, Program: "pannier 1", Host: "host " + s, User: "user " + s, Started: at, Ended: at.Add(9 * time.Second), Seconds: 9, ExitCode: 4,
		Verdict:  custody.Verdict{State: custody.StateBad, Headline: s, Sentence: s, Vouched: s, ToDo: []string{s}},
		Errors:   []string{s},
		Checks:   []custody.Check{{What: s, How: s, Result: s}},
		Findings: []custody.Finding{{Kind: "corrupt", Path: s, Images: []string{s}, Detail: s}, {Kind: "missing", Detail: s, Repaired: true}},
		Delivery: &custody.Delivery{Registry: s, Refused: 1, Objects: []string{s}, Contacts: []string{s}},
		Notes:    []string{s},
	}
	d := custody.DriveReport{
		Media: s, Bundle: s, SealedBy: s, Sealed: true, Blobs: 7, Custody: state,
		Releases:   []custody.ReleaseReport{{Release: s, Digest: s, Source: s, Signature: s, Key: s, Fingerprint: s, KeySource: s, Delivered: s, Parts: []custody.Image{{Name: s, Digest: s}}}},
		Additional: []custody.AdditionalImage{{Reference: s, Digest: s}},
		Entries:    []custody.Entry{{Event: s, Host: s, User: s, Detail: s, Outcome: s}, {Event: custody.Attached, File: &custody.File{Path: s, As: s, Name: s}}},
		Components: []custody.Component{{Name: s, Bytes: 5}},
	}
	for i, st := range []string{custody.CellProven, custody.CellReadBack, custody.CellRepaired, custody.CellKept, custody.CellPartial, custody.CellDamaged, custody.CellMissing} {
		d.Map = append(d.Map, custody.Cell{Digest: s, Size: int64(i) << 20, State: st})
	}
	r.Drives = []custody.DriveReport{d}
	r.Phases = []custody.Phase{{Name: s, Seconds: 9, Bytes: 100, Samples: []custody.Sample{{}, {At: 5, Bytes: 30}, {At: 9, Bytes: 100}}}}
	r.Normalize()
	return r
}

func html(t *testing.T, r *custody.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A name can not become part of the page, reach out of it, or change how it reads.
func TestHostileNames(t *testing.T) {
	const evil = `</title></style><script>alert(1)</script><img src=x onerror=alert(2)>" onload="x` + "\x1b[2J\u202e\u2028"
	r := full(evil)
	page := html(t, r)
	for _, bad := range []string{"<script", "<img", "\x1b", "\u202e", "\u2028", `" onload`} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	if n := strings.Count(page, "&lt;script&gt;"); n < 30 {
		t.Errorf("the name is shown %d times only", n)
	}
	if strings.Contains(page, "http:") || strings.Contains(page, "https:") || strings.Contains(page, "url(") {
		t.Error("the page names something outside of itself")
	}
	var text bytes.Buffer
	if err := r.Text(&text); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(text.String(), "\x1b\u202e\u2028") {
		t.Error("the text holds control characters")
	}
	if r.Verdict.Headline != evil {
		t.Error("rendering changed the report")
	}
}

func TestEmptyReport(t *testing.T) {
	r := &custody.Report{}
	r.Normalize()
	if page := html(t, r); !strings.Contains(page, "Nothing can be said of the drive") {
		t.Error(page)
	}
}

// Names of hosts, users and places go; what crossed keeps its name.
func TestRedact(t *testing.T) {
	const secret = "kiosk-7.site.example"
	r := full(secret)
	r.Drives[0].Releases[0].Release = "4.8.21-x86_64"
	r.Errors = []string{"open " + secret + "/drive/x: no such file", secret + "," + secret + " " + secret}
	r.Redact()
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), secret) || strings.Contains(string(raw), `"host"`) {
		t.Errorf("%s", raw)
	}
	if !strings.Contains(string(raw), "4.8.21-x86_64") || !strings.Contains(string(raw), "[left out]/drive/x") {
		t.Errorf("too much is left out: %s", raw)
	}
	if page := html(t, r); strings.Contains(page, secret) {
		t.Error("the page has it")
	}
}

// The map has a cell for each blob, each state told by words and bad ones by a mark.
func TestMap(t *testing.T) {
	page := html(t, full("name"))
	for _, want := range []string{"1 read and hashed in this run", "1 damaged or refused", "1 missing", "1 healed in this run", `class="mark"`, `class="mark hollow"`, `role="img"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	r := full("name")
	r.Drives[0].Map = nil
	for i := range 20000 {
		r.Drives[0].Map = append(r.Drives[0].Map, custody.Cell{State: custody.CellProven, Size: int64(i)})
	}
	r.Drives[0].Map[12345].State = custody.CellMissing
	page = html(t, r)
	if !strings.Contains(page, "3 blobs share one") || strings.Count(page, `class="cell missing"`) != 2 || len(page) > 1<<20 {
		t.Errorf("20000 blobs: %d bytes of page", len(page))
	}
}

func TestTimeline(t *testing.T) {
	tl := custody.NewTimeline()
	for i := range 100000 {
		tl.Event(bundle.Event{Phase: "download", Done: int64(i), Blobs: i / 1000})
	}
	tl.Event(bundle.Event{Phase: "flush"})
	tl.Event(bundle.Event{Phase: "download", Done: 5}) // late
	p := tl.Phases()
	if len(p) != 2 || p[0].Name != "download" || p[0].Bytes != 99999 || p[0].Blobs != 99 || p[1].Name != "flush" {
		t.Fatalf("%+v", p)
	}
	if p[0].Start > p[1].Start || len(p[0].Samples) > 500 || p[0].Samples[len(p[0].Samples)-1].Bytes != 99999 {
		t.Errorf("%+v", p)
	}
	for i := range 200 {
		tl.Event(bundle.Event{Phase: fmt.Sprint(i)})
	}
	if n := len(tl.Phases()); n > 60 {
		t.Errorf("%d phases", n)
	}
}
