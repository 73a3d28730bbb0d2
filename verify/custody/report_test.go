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

// A name cannot become part of the page, reach out of it, or change how it reads.
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

// A run that is over at once has no peak below its average.
func TestRate(t *testing.T) {
	r := full("name")
	r.Phases = []custody.Phase{{Name: "audit", Seconds: 0.3, Bytes: 100 << 20, Samples: []custody.Sample{{}, {At: 0.2, Bytes: 100 << 20}, {At: 0.3, Bytes: 100 << 20}}}, {Name: "flush", Start: 0.3, Seconds: 1}}
	if page := html(t, r); !strings.Contains(page, "Average 333.3 MiB/s; 1.3 seconds") || strings.Contains(page, "Peak") {
		t.Error("a short run has a peak")
	}
	r.Phases = []custody.Phase{{Name: "audit", Seconds: 20, Bytes: 100 << 20, Samples: []custody.Sample{{}, {At: 5, Bytes: 75 << 20}, {At: 20, Bytes: 100 << 20}}}}
	if page := html(t, r); !strings.Contains(page, "Peak 15.0 MiB/s, average 5.0 MiB/s; 20.0 seconds") {
		t.Error("a long run lacks its peak")
	}
}

// What is typed is told from what is said, and stays whole.
func TestSteps(t *testing.T) {
	r := full("name")
	r.Verdict.ToDo = []string{`With --refetch-list FILE, or "pannier inspect MEDIA"; else: pannier audit --repair 'a <b>' --from OTHER`}
	const want = `<li>With <code><span class="word">--refetch-list</span></code> FILE, or <code><span class="word">pannier</span> <span class="word">inspect</span> <span class="word">MEDIA</span></code>; ` +
		`else: <code><span class="word">pannier</span> <span class="word">audit</span> <span class="word">--repair</span> <span class="word">&#39;a</span> <span class="word">&lt;b&gt;&#39;</span> <span class="word">--from</span> <span class="word">OTHER</span></code></li>`
	if page := html(t, r); !strings.Contains(page, want) {
		t.Error(page)
	}
}

// The first page names the first of long lists, and says where the rest is; what was not looked
// at is not called good.
func TestFirstPage(t *testing.T) {
	r := full("name")
	r.Command = "unpack"
	for i := range 9 {
		r.Verdict.ToDo = append(r.Verdict.ToDo, fmt.Sprintf("step %d", i))
		r.Errors = append(r.Errors, fmt.Sprintf("error %d of sha256:%064x %s", i, i, strings.Repeat("x", 300)))
		r.Checks = append(r.Checks, custody.Check{What: fmt.Sprintf("check %d", i)})
		r.Phases = append(r.Phases, custody.Phase{Name: fmt.Sprintf("phase %d", i)})
	}
	r.Drives[0].Tools = []custody.Tool{{Platform: "linux/amd64", Digest: "abc"}}
	page := html(t, r)
	first, appendix, _ := strings.Cut(page, `<article class="sheet appendix"`)
	for _, want := range []string{"and 4 more steps, in the appendix", "and 8 more errors", "and 5 more checks, in the appendix", "and 4 more phases", "The program pannier, <strong>not read in this run</strong>", "error 0 of sha256:000000000000… x"} {
		if !strings.Contains(first, want) {
			t.Errorf("the first page lacks %q", want)
		}
	}
	for _, want := range []string{"step 8", "error 8", "check 8"} {
		if strings.Contains(first, want) || !strings.Contains(appendix, want) {
			t.Errorf("%q does not stand in the appendix alone", want)
		}
	}
	r.Command, r.Phases = "audit", nil
	r.Drives[0].Tools[0].Changed = true
	if page := html(t, r); strings.Contains(page, "not read in this run</strong>") || !strings.Contains(page, "do not run it</strong>; as sealed:") || strings.Contains(page, ">phase<") {
		t.Error("an audit read the programs, and no phase is an empty table")
	}
}

// The first page names what is wrong, as far as there is room.
func TestFirstFindings(t *testing.T) {
	blob := custody.Finding{Kind: "missing", Digest: "sha256:" + strings.Repeat("ab", 32), Path: "blobs/sha256/" + strings.Repeat("ab", 32)}
	start, healed := custody.Finding{Kind: "corrupt", Path: "START-HERE.txt"}, custody.Finding{Kind: "corrupt", Path: "SHA256SUMS", Repaired: true}
	for want, findings := range map[string][]custody.Finding{
		"1 finding: corrupt START-HERE.txt. The appendix has all of it.":                                     {healed, start},
		"2 findings: corrupt START-HERE.txt and missing blob sha256:abababababab…. The appendix lists them.": {start, blob},
		"3 findings, the first: missing blob sha256:abababababab…. The appendix lists them.":                 {blob, start, start},
	} {
		var b bytes.Buffer
		if err := (&custody.Report{Command: "audit", Findings: findings}).HTML(&b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}
