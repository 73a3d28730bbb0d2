//go:build e2e && linux

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	_ "image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pannier/verify/custody"
)

// axeVersion is the accessibility checker that looks at the report, from the npm registry.
const axeVersion = "4.10.3"

// browser runs a headless Chromium that asks nobody for anything.
func browser(t *testing.T, args ...string) []byte {
	t.Helper()
	chromium := need(t, "chromium", "apt-get install chromium")
	args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1", "--user-data-dir=" + t.TempDir()}, args...)
	return newUser(t).must(t, chromium, args...)
}

// axe is the source of axe-core, fetched once into a folder that is kept.
func axe(t *testing.T) string {
	t.Helper()
	npm := need(t, "npm", "apt-get install npm")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "pannier-e2e", "axe-"+axeVersion)
	file := filepath.Join(dir, "node_modules", "axe-core", "axe.min.js")
	if _, err := os.Stat(file); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		// With the environment of the test: it says how the registry is reached.
		install := exec.Command(npm, "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "axe-core@"+axeVersion)
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return string(readFile(t, file))
}

// crossing is a report in which much is wrong.
func crossing() *custody.Report {
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	hexes := func(n int) string { return fmt.Sprintf("sha256:%064x", n) }
	d := custody.DriveReport{
		Media: "/media/usb/mirror", Bundle: hexes(1), Sealed: true, SealedAt: at, SealedBy: "pannier 1.0", Generation: 3, Blobs: 712, Bytes: 17 << 30,
		Custody: &custody.State{Lines: 2, Vouched: "nobody signed it", Attached: []custody.AttachedFile{{File: custody.File{As: "ClamAV 1.4 on kiosk 3"}}}},
		Entries: []custody.Entry{{Event: custody.Packed, Time: at, Host: "kiosk", User: "ops"}, {Event: custody.Sealed, Time: at}},
		Releases: []custody.ReleaseReport{{Release: "4.8.21-x86_64", Digest: hexes(2), Source: "quay.io/openshift-release-dev/ocp-release", Images: 164, Bytes: 16 << 30,
			Signature: "verified", Key: "Red Hat, Inc. (release key 2)", Fingerprint: "567E347AD0044ADE55BA8A5F199E2F91FD431D51", Parts: []custody.Image{{Name: "etcd", Digest: hexes(3), Bytes: 1 << 28}}}},
	}
	for i := range 712 {
		c := custody.Cell{Digest: hexes(i), Size: int64(712-i) << 16, State: custody.CellProven}
		switch {
		case i%97 == 5:
			c.State = custody.CellDamaged
		case i%101 == 7:
			c.State = custody.CellMissing
		case i%50 == 3:
			c.State = custody.CellRepaired
		}
		d.Map = append(d.Map, c)
	}
	for i := range 12 {
		d.Components = append(d.Components, custody.Component{Name: fmt.Sprintf("component-%d", i), Bytes: int64(12-i) << 28})
	}
	r := &custody.Report{
		Command: "audit", Typed: "pannier audit /media/usb/mirror", Program: "pannier 1.0", Commit: "0123456", Platform: "linux/amd64", Host: "kiosk", User: "ops",
		Started: at, Ended: at.Add(10 * time.Minute), Seconds: 600, ExitCode: 4,
		Verdict: custody.Verdict{State: custody.StateBad, Headline: "Damaged", Sentence: "15 findings.", Vouched: "Every release is signed by somebody trusted.",
			ToDo: []string{"Do not rely on this drive. Try another port or reader first.", "Then pannier audit --repair heals it."}},
		Checks:   []custody.Check{{What: "every blob read and hashed", How: "SHA-256", Result: "712 blobs, 17.0 GiB"}},
		Findings: []custody.Finding{{Kind: "corrupt", Path: "blobs/sha256/" + strings.Repeat("ab", 32), Images: []string{"4.8.21-x86_64-etcd"}, Detail: "its bytes are not what its digest says"}},
		Phases:   []custody.Phase{{Name: "audit", Seconds: 600, Bytes: 17 << 30}},
		Notes:    []string{"a note"},
		Drives:   []custody.DriveReport{d},
	}
	for i := range 100 {
		r.Phases[0].Samples = append(r.Phases[0].Samples, custody.Sample{At: float64(i) * 6.06, Bytes: int64(i) * (17 << 30) / 99})
	}
	r.Normalize()
	return r
}

// page writes the report, and what script finds out of it into the page, and returns its address.
func page(t *testing.T, r *custody.Report, scripts ...string) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if len(scripts) > 0 {
		// The page forbids itself every script: it is let in for the test alone.
		text = regexp.MustCompile(`<meta http-equiv="Content-Security-Policy"[^>]*>`).ReplaceAllString(text, "")
		text = strings.Replace(text, "</body>", "<script>"+strings.Join(scripts, "</script><script>")+"</script></body>", 1)
	}
	file := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return "file://" + file
}

// found runs a script in the page, which puts JSON into document.title.
func found(t *testing.T, address string, out any, flags ...string) {
	t.Helper()
	dom := browser(t, append(flags, "--virtual-time-budget=20000", "--dump-dom", address)...)
	m := regexp.MustCompile(`(?s)<title>FOUND(.*?)</title>`).FindSubmatch(dom)
	if m == nil {
		t.Fatalf("the script said nothing: %.600s", dom)
	}
	text := strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(string(m[1]))
	if err := json.Unmarshal([]byte(text), out); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

// Nobody is kept from reading the report: axe-core finds nothing against it, in both colours.
func TestReportAccessible(t *testing.T) {
	address := page(t, crossing(), axe(t), `axe.run().then(r => document.title = "FOUND" + JSON.stringify({passes: r.passes.length,
		violations: r.violations.map(v => v.id + ": " + v.help + ": " + v.nodes.map(n => n.html).slice(0, 3).join(" "))}))`)
	for name, flags := range map[string][]string{"light": nil, "dark": {"--blink-settings=preferredColorScheme=0"}} {
		t.Run(name, func(t *testing.T) {
			var r struct {
				Passes     int
				Violations []string
			}
			found(t, address, &r, flags...)
			if r.Passes < 15 {
				t.Errorf("only %d rules passed: did it look?", r.Passes)
			}
			for _, v := range r.Violations {
				t.Error(v)
			}
		})
	}
}

// The page stands as it is meant to, wide and narrow: nothing overflows, the answers stand in
// two columns or one, the verdict above them, in a colour scheme's own colours.
func TestReportLayout(t *testing.T) {
	const measure = `const box = s => document.querySelector(s).getBoundingClientRect(), q = ["what", "whole", "vouch", "todo"].map(id => box("#" + id));
		document.title = "FOUND" + JSON.stringify({over: document.documentElement.scrollWidth - innerWidth, verdict: box(".verdict").bottom, x: q.map(b => b.x), y: q.map(b => b.y),
		map: box(".map").width, paper: getComputedStyle(document.querySelector(".sheet")).backgroundColor})`
	address := page(t, crossing(), measure)
	for _, c := range []struct {
		name, size, scheme string
		columns            int
	}{{"wide", "1000,1400", "", 2}, {"narrow", "500,1400", "", 1}, {"dark", "1000,1400", "--blink-settings=preferredColorScheme=0", 2}} {
		t.Run(c.name, func(t *testing.T) {
			flags := []string{"--window-size=" + c.size}
			if c.scheme != "" {
				flags = append(flags, c.scheme)
			}
			var m struct {
				Over, Verdict, Map float64
				X, Y               []float64
				Paper              string
			}
			found(t, address, &m, flags...)
			if m.Over > 0 {
				t.Errorf("it is %v wider than the window", m.Over)
			}
			if two := m.X[1] > m.X[0]+100 && m.Y[0] == m.Y[1]; two != (c.columns == 2) {
				t.Errorf("the answers stand at %v, %v", m.X, m.Y)
			}
			if m.Verdict > m.Y[0] || m.Map < 300 || (m.Paper == "rgb(255, 255, 255)") != (c.scheme == "") {
				t.Errorf("%+v", m)
			}
		})
	}
}

// It looks as it did when somebody looked at it: the screenshot, made coarse, is near the one that is kept.
// PANNIER_UPDATE=1 keeps the new one.
func TestReportLooks(t *testing.T) {
	shot := filepath.Join(t.TempDir(), "shot.png")
	browser(t, "--window-size=1000,1300", "--screenshot="+shot, page(t, crossing()))
	got := coarse(t, shot)
	const kept = "testdata/report.txt"
	if os.Getenv("PANNIER_UPDATE") != "" {
		if err := os.WriteFile(kept, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := string(readFile(t, kept))
	if len(got) != len(want) {
		t.Fatalf("%d cells, not %d", len(got), len(want))
	}
	differ := 0
	for i := range got {
		if d := int(got[i]) - int(want[i]); d > 2 || d < -2 { // of ten shades
			differ++
		}
	}
	if limit := len(want) / 12; differ > limit {
		t.Errorf("%d of %d cells look different (at most %d); look at it, and keep it with PANNIER_UPDATE=1 if it is right:\n%s", differ, len(want), limit, got)
	}
}

// coarse renders a picture in 50 by 65 cells of ten shades.
func coarse(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, _, err := image.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	const columns, rows = 50, 65
	w, h := img.Bounds().Dx()/columns, img.Bounds().Dy()/rows
	var b strings.Builder
	for y := range rows {
		for x := range columns {
			sum := 0
			for i := range w * h {
				r, g, bl, _ := img.At(x*w+i%w, y*h+i/w).RGBA()
				sum += int(r+g+bl) / 3 >> 8
			}
			b.WriteByte('0' + byte(min(9, sum/(w*h)*10/256)))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Printed, the answers are one page, and the appendix begins on the next.
func TestReportPrinted(t *testing.T) {
	text := need(t, "pdftotext", "apt-get install poppler-utils")
	pdf := filepath.Join(t.TempDir(), "report.pdf")
	browser(t, "--no-pdf-header-footer", "--print-to-pdf="+pdf, page(t, crossing()))
	pages := strings.Split(strings.TrimRight(string(newUser(t).must(t, text, "-layout", pdf, "-")), "\f"), "\f")
	if len(pages) < 2 {
		t.Fatalf("%d pages", len(pages))
	}
	for _, want := range []string{"Damaged", "What crossed", "Is it whole", "Who vouches for it", "What to do", "Map of the drive", "Transfer rate over time", "signature"} {
		if !strings.Contains(pages[0], want) {
			t.Errorf("the first page lacks %q:\n%s", want, pages[0])
		}
	}
	if strings.Contains(pages[0], "Appendix") || !strings.Contains(pages[1], "Appendix") {
		t.Errorf("the appendix does not begin on the second page:\n%s", pages[1])
	}
}

// laden is a report of a drive with much on it and much wrong with it: two releases, two
// programs, three attached files, and more errors and steps than anybody reads.
func laden(command string) *custody.Report {
	r := crossing()
	r.Command = command
	d := &r.Drives[0]
	second := d.Releases[0]
	second.Release = "4.8.22-x86_64"
	d.Releases = append(d.Releases, second)
	d.Custody.Attached = nil
	for i := range 3 {
		d.Custody.Attached = append(d.Custody.Attached, custody.AttachedFile{File: custody.File{
			As: fmt.Sprintf("ClamAV 1.4.%d on the kiosk of building %d, nothing found", i, i), Path: fmt.Sprintf("pannier/attached/162eaaefe012a37%d-scan.txt", i)}})
	}
	d.Custody.Signed, d.Custody.Problems = []custody.SignedEntries{{Events: []string{"packed", "sealed", "attached"}}}, []string{"a", "b"}
	d.Tools = nil
	for _, platform := range []string{"linux/amd64", "windows/amd64"} {
		d.Tools = append(d.Tools, custody.Tool{Platform: platform, Path: "pannier/bin/x", Digest: "sha256:" + strings.Repeat("ab", 32), Changed: command == "audit"})
	}
	how := "SHA-256; through the operating system, whose cache may have answered for what was read or written just before: plug the drive in anew to be sure"
	r.Checks = []custody.Check{{What: "every blob read and hashed", How: how, Result: "712 blobs, 17.0 GiB, 14 findings"},
		{What: "every other file", How: "against SHA256SUMS, which the seal vouches for, and whether it belongs there", Result: "1 finding"}}
	for _, rel := range d.Releases {
		r.Checks = append(r.Checks, custody.Check{What: "signature of " + rel.Release, How: "against keys that do not come from the drive", Result: "verified"})
	}
	for range 10 {
		r.Findings = append(r.Findings, r.Findings[0])
	}
	r.Verdict.ToDo = []string{"Try another port or reader first.", "The damage is healed from another drive, a supplement (--refetch-list FILE asks for one) or a REGISTRY/REPO: pannier audit --repair /media/usb/mirror --keyring release-key.asc --from OTHER",
		"Or pack again with --verify on the internet side: only what is bad is fetched.", "Do not run the program that is on the drive: it is not the one that was sealed. Another drive that has it heals it: pannier audit --repair /media/usb/mirror --keyring release-key.asc --from DRIVE"}
	if command == "unpack" {
		r.Verdict.ToDo = r.Verdict.ToDo[:3]
		for i := range 12 {
			r.Errors = append(r.Errors, fmt.Sprintf("4.8.22-x86_64-%d: not pushed: blob sha256:%064x on /media/usb/mirror: damaged: digest mismatch: the bytes hash to sha256:%064x; the parity of it: more is damaged than parity can heal", i, i, i))
		}
		r.Delivery = &custody.Delivery{Registry: "registry.site.example:5000/ocp4/openshift4", Refused: 10}
		r.Delivery.Pushed.Blobs = 24
	}
	r.Normalize()
	return r
}

// The first page holds its own also where there is much to say, and the signature stands on it.
func TestReportPrintedLaden(t *testing.T) {
	text := need(t, "pdftotext", "apt-get install poppler-utils")
	for _, command := range []string{"pack", "audit", "unpack"} {
		t.Run(command, func(t *testing.T) {
			pdf := filepath.Join(t.TempDir(), "report.pdf")
			browser(t, "--no-pdf-header-footer", "--print-to-pdf="+pdf, page(t, laden(command)))
			pages := strings.Split(string(newUser(t).must(t, text, "-layout", pdf, "-")), "\f")
			for _, want := range []string{"What to do", "Attached, as the sender claims", "windows/amd64", "Map of the drive", "Bytes by component", "Transfer rate over time", "date"} {
				if !strings.Contains(pages[0], want) {
					t.Errorf("the first page lacks %q:\n%s", want, pages[0])
				}
			}
			if !strings.HasPrefix(strings.TrimSpace(pages[1]), "Appendix") {
				t.Errorf("the appendix does not begin on the second page:\n%s", pages[1])
			}
		})
	}
}

// ssh-keygen makes the keys, and verifies without pannier what the log's lines are signed with.
func TestCustodySignedForSSHKeygen(t *testing.T) {
	keygen := need(t, "ssh-keygen", "apt-get install openssh-client")
	for _, kind := range []string{"ed25519", "rsa", "ecdsa"} {
		t.Run(kind, func(t *testing.T) {
			u := newUser(t)
			u.must(t, keygen, "-q", "-t", kind, "-N", "", "-C", "officer", "-f", "key")
			key, err := custody.ParseKey(readFile(t, filepath.Join(u.home, "key")))
			if err != nil {
				t.Fatal(err)
			}
			message := []byte(`{"event":"sealed"}` + "\n")
			sig, err := key.Sign(custody.Namespace, message)
			if err != nil {
				t.Fatal(err)
			}
			public := strings.TrimSpace(string(readFile(t, filepath.Join(u.home, "key.pub"))))
			for name, data := range map[string][]byte{"message": message, "sig": sig, "allowed": []byte("officer " + public + "\n")} {
				if err := os.WriteFile(filepath.Join(u.home, name), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			verify := keygen + " -Y verify -f allowed -I officer -n " + custody.Namespace + " -s sig < message"
			u.must(t, "sh", "-c", verify)
			if o := u.run(t, "sh", "-c", "echo >> message; "+verify); o.code == 0 {
				t.Errorf("ssh-keygen takes another message: %v", o)
			}
			// And the other way: what ssh-keygen signed is good here.
			u.must(t, keygen, "-Y", "sign", "-f", "key", "-n", custody.Namespace, "message")
			who, err := custody.VerifySignature(custody.Namespace, append(message, '\n'), readFile(t, filepath.Join(u.home, "message.sig")))
			if err != nil || who.Fingerprint != key.Fingerprint() {
				t.Errorf("%v %v", who, err)
			}
			signers, err := custody.ParseSigners([]byte("officer " + public + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			if name, ok := signers.Name(who, time.Now()); !ok || name != "officer" {
				t.Errorf("%q %v", name, ok)
			}
		})
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
