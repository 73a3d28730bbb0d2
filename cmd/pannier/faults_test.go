package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/release/sample"
	"pannier/bundle/remote"
	"pannier/bundle/remote/faultproxy"
	"pannier/verify"
)

// Every fault of a registry happens once for each thing that is asked for, and for ever. What
// passes must not be noticed. What does not must end with its exit code and with words that a
// person can act on, must leave nothing wrong behind, and once it is gone the same command
// must finish, without fetching or pushing anything a second time.

// hasty waits for nothing that a test would have to wait for.
func hasty(t *testing.T, p *faultproxy.Proxy, patience, stall time.Duration, opts remote.Options) *remote.Client {
	t.Helper()
	dir := t.TempDir()
	auth := filepath.Join(dir, "auth.json")
	user, password, _ := strings.Cut(faultproxy.Credential, ":")
	write(t, auth, `{"auths":{"`+p.Host+`":{"username":"`+user+`","password":"`+password+`"}}}`)
	opts.AuthFiles = []string{auth}
	if p.CA != nil {
		opts.CAFiles = []string{filepath.Join(dir, "ca.pem")}
		write(t, opts.CAFiles[0], string(p.CA))
	}
	opts.GiveUpAfter, opts.StallAfter = patience, stall
	opts.FirstPause, opts.LongestPause = 5*time.Millisecond, 50*time.Millisecond
	c, err := remote.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// limits are short only where a fault is to outlast them: the machine may be slow.
func limits(f faultproxy.Fault, want outcome) (patience, stall time.Duration) {
	patience, stall = time.Minute, 20*time.Second
	if want.code == exitIncomplete {
		patience = 500 * time.Millisecond
	}
	if strings.Contains(f.Name, "stall") || strings.Contains(f.Name, "drip") {
		stall = time.Second
	}
	return patience, stall
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// outcome is how a fault that does not end ends a command: an exit code, and what the message
// must say. Code 0: it is survived all the same.
type outcome struct {
	code int
	says string // regular expression
}

// downloads says what comes of each fault that happens for ever.
var downloads = map[string]outcome{
	"cut after n bytes":                  {},
	"reset in the middle":                {},
	"stall in the middle":                {3, `interrupted.*next to nothing`},
	"drip":                               {3, `interrupted.*next to nothing`},
	"throttle":                           {},
	"truncated, Content-Length right":    {3, `interrupted.*unexpected EOF`},
	"truncated, Content-Length as short": {4, `fewer bytes than it should`},
	"Content-Length too large":           {},
	"another range":                      {},
	"range of other bytes":               {},
	"range ignored":                      {},
	"a byte too many":                    {},
	"no end":                             {},
	"flipped bit":                        {4, `the bytes hash to`},
	"web page":                           {7, `web page`},
	"error with escapes":                 {3, `interrupted.*HTTP 500 UNKNOWN.*good news`},
	"refusal with escapes":               {7, `refused.*HTTP 400.*good news`},
	"denied":                             {5, `HTTP 403 DENIED.*not for you`},
	"gone":                               {7, `not found.*BLOB_UNKNOWN`},
	"redirect loop":                      {7, `more than 10 redirects`},
	"redirect to another scheme":         {7, `scheme "file"`},
	"header without end":                 {3, `interrupted`},
	"token expires in the middle":        {},
	"address expires in the middle":      {},
	"address does not work":              {7, `HTTP 403`},
	"blob: reset":                        {3, `interrupted`},
	"blob: stall":                        {3, `interrupted`},
	"blob: 429":                          {3, `interrupted.*HTTP 429`},
	"blob: 429, Retry-After seconds":     {3, `interrupted.*HTTP 429`},
	"blob: 429, Retry-After date":        {3, `interrupted.*HTTP 429`},
	"blob: 429, Retry-After a year":      {3, `interrupted.*HTTP 429`},
	"blob: 503":                          {3, `interrupted.*HTTP 503`},
	"blob: 500":                          {3, `interrupted.*HTTP 500`},
	"manifest: reset":                    {3, `interrupted`},
	"manifest: stall":                    {3, `interrupted`},
	"manifest: 429":                      {3, `interrupted.*HTTP 429`},
	"manifest: 429, Retry-After seconds": {3, `interrupted.*HTTP 429`},
	"manifest: 429, Retry-After date":    {3, `interrupted.*HTTP 429`},
	"manifest: 429, Retry-After a year":  {3, `interrupted.*HTTP 429`},
	"manifest: 503":                      {3, `interrupted.*HTTP 503`},
	"manifest: 500":                      {3, `interrupted.*HTTP 500`},
	"manifest: cut":                      {3, `interrupted.*unexpected EOF`},
	"manifest: flipped bit":              {4, `digest`},
	"manifest: web page":                 {7, `web page`},
	"manifest: no end":                   {7, `more than [0-9]+ bytes`},
	"token: 503":                         {3, `interrupted.*HTTP 503.*token server`},
	"token: no end":                      {3, `interrupted`},
	"TLS alert":                          {7, `cannot be reached.*tls`},
	"reset before any answer":            {7, `cannot be reached`},
}

// final are faults that end a command even if they happen once for each thing: what is said
// so is for good.
var final = []string{"refusal with escapes", "denied", "gone", "redirect to another scheme", "manifest: no end", "manifest: web page"}

func TestPackMeetsEveryFault(t *testing.T) {
	t.Parallel()
	r := trip.Make(t, sample.Options{Version: "4.8.21", Components: 3, LayerSize: 64 << 10})
	o := trip.NewOrigin(t, r)
	whole := trip.Drive(t)
	o.Pack(whole, "4.8.21")
	names := map[string]bool{}
	for _, f := range faultproxy.Downloads() {
		names[f.Name] = true
		want, known := downloads[f.Name]
		if !known {
			t.Errorf("%s: nobody says what comes of it", f.Name)
		}
		for _, how := range []faultproxy.How{faultproxy.Each, faultproxy.Always} {
			t.Run(f.Name+[]string{", once", ", each", ", always"}[how], func(t *testing.T) {
				t.Parallel()
				want := want
				if how == faultproxy.Each && !slices.Contains(final, f.Name) {
					want = outcome{}
					if strings.Contains(f.Name, "Retry-After") || f.Shake != nil {
						how = faultproxy.Once // a second each is enough
					}
				}
				p := faultproxy.Start(o.Registry.URL(), f.Options)
				t.Cleanup(p.Close)
				pack := func(media string, patience, stall time.Duration) error {
					opts := o.Options(media, "4.8.21")
					opts.Client = hasty(t, p, patience, stall, remote.Options{Mirrors: []remote.Mirror{{From: "quay.io", To: p.Host}}})
					_, err := bundle.Pack(t.Context(), opts)
					return err
				}
				media := trip.Drive(t)
				p.Inject(&f, how)
				patience, stall := limits(f, want)
				err := pack(media, patience, stall)
				judge(t, p, err, want)
				had := blobsOn(t, media)
				if err == nil {
					trip.Whole(t, media)
					return
				}
				if len(had) > 0 {
					if a := trip.Audit(t, media); a.Status != verify.StatusIncomplete {
						t.Errorf("audit: %s %+v", a.Status, a.Findings)
					}
				}
				p.Inject(nil, 0)
				if err := pack(media, time.Minute, 20*time.Second); err != nil {
					t.Fatalf("again, without the fault: %v", err)
				}
				trip.Whole(t, media)
				for _, q := range p.Take() {
					_, d, _ := strings.Cut(q.Path, "/blobs/")
					if q.Method == http.MethodGet && had[d] && !strings.Contains(string(r.Blobs[r.Descriptor.Digest]), d) {
						t.Errorf("%s was complete and is fetched again", d) // those of the release image are read for the plan
					}
				}
			})
		}
	}
	for name := range downloads {
		if !names[name] {
			t.Errorf("%s is no fault any more", name)
		}
	}
}

// judge compares what a command ended with.
func judge(t *testing.T, p *faultproxy.Proxy, err error, want outcome) {
	t.Helper()
	if p.Fired() == 0 {
		t.Error("the fault was never met")
	}
	if got := exitCode(err); got != want.code {
		t.Errorf("exit code %d, want %d: %v", got, want.code, err)
	}
	if leaked := p.Astray(); len(leaked) > 0 {
		t.Errorf("sent to another host: %q", leaked)
	}
	if err == nil {
		return
	}
	text := told(err, func(s string) string { return s })
	if !regexp.MustCompile(want.says).MatchString(text) || !strings.Contains(text, p.Host) && !strings.Contains(text, p.Store) {
		t.Errorf("it does not say %q, or not of whom:\n%s", want.says, text)
	}
	if strings.Contains(text, unknownAdvice.cause) {
		t.Errorf("nobody knows what to do:\n%s", text)
	}
	for _, line := range leaves(err) {
		if strings.ContainsAny(line.Error(), "\x1b\x07\u009b\u202e") || strings.Contains(line.Error(), "secret-") || strings.Contains(line.Error(), "hush") {
			t.Errorf("it prints what it must not: %q", line.Error())
		}
	}
}

// blobsOn lists the blobs that stand on a drive, each of which must be what it is called.
func blobsOn(t *testing.T, media string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	entries, err := os.ReadDir(filepath.Join(media, "blobs", "sha256"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(media, "blobs", "sha256", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if d := digest.FromBytes(raw); d.Encoded() != e.Name() {
			t.Errorf("%s stands there and is %s", e.Name(), d)
		} else {
			out[d.String()] = true
		}
	}
	return out
}

// uploads says what comes of each fault that happens for ever.
var uploads = map[string]outcome{
	"begin: reset":                           {3, `interrupted`},
	"begin: stall":                           {3, `interrupted`},
	"begin: 429":                             {3, `interrupted.*HTTP 429`},
	"begin: 429, Retry-After seconds":        {3, `interrupted.*HTTP 429`},
	"begin: 429, Retry-After date":           {3, `interrupted.*HTTP 429`},
	"begin: 429, Retry-After a year":         {3, `interrupted.*HTTP 429`},
	"begin: 503":                             {3, `interrupted.*HTTP 503`},
	"begin: 500":                             {3, `interrupted.*HTTP 500`},
	"put: reset":                             {3, `interrupted`},
	"put: stall":                             {3, `interrupted`},
	"put: 429":                               {3, `interrupted.*HTTP 429`},
	"put: 429, Retry-After seconds":          {3, `interrupted.*HTTP 429`},
	"put: 429, Retry-After date":             {3, `interrupted.*HTTP 429`},
	"put: 429, Retry-After a year":           {3, `interrupted.*HTTP 429`},
	"put: 503":                               {3, `interrupted.*HTTP 503`},
	"put: 500":                               {3, `interrupted.*HTTP 500`},
	"manifest put: reset":                    {3, `interrupted`},
	"manifest put: stall":                    {3, `interrupted`},
	"manifest put: 429":                      {3, `interrupted.*HTTP 429`},
	"manifest put: 429, Retry-After seconds": {3, `interrupted.*HTTP 429`},
	"manifest put: 429, Retry-After date":    {3, `interrupted.*HTTP 429`},
	"manifest put: 429, Retry-After a year":  {3, `interrupted.*HTTP 429`},
	"manifest put: 503":                      {3, `interrupted.*HTTP 503`},
	"manifest put: 500":                      {3, `interrupted.*HTTP 500`},
	"answer to put lost":                     {},
	"put kept by nobody":                     {7, `MANIFEST_BLOB_UNKNOWN`},
	"put cut in the middle":                  {},
	"put stalls in the middle":               {},
	"digest invalid":                         {7, `DIGEST_INVALID`},
	"put refused with escapes":               {5, `DENIED.*good news`},
	"413":                                    {},
	"413, then the upload is forgotten":      {7, `BLOB_UPLOAD_UNKNOWN`},
	"413, then the offset is forgotten":      {7, `0 bytes of the upload`},
	"token expires in the middle of put":     {},
	"Location absolute":                      {},
	"Location relative to the request":       {},
	"Location with state":                    {},
	"Location at another host":               {},
	"Location missing":                       {7, `no Location`},
	"Location of another scheme":             {7, `scheme "file"`},
	"web page for uploads":                   {7, `web page`},
	"claims to have every blob":              {},
}

// finalUploads are those that are believed at once.
var finalUploads = []string{"put kept by nobody", "put refused with escapes", "Location missing", "Location of another scheme", "web page for uploads"}

func TestUnpackMeetsEveryFault(t *testing.T) {
	t.Parallel()
	r := trip.Make(t, sample.Options{Version: "4.8.21", Components: 2, LayerSize: 700 << 10})
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	o.Pack(media, "4.8.21")
	names := map[string]bool{}
	for _, f := range faultproxy.Uploads() {
		names[f.Name] = true
		want, known := uploads[f.Name]
		if !known {
			t.Errorf("%s: nobody says what comes of it", f.Name)
		}
		for _, how := range []faultproxy.How{faultproxy.Each, faultproxy.Always} {
			t.Run(f.Name+[]string{", once", ", each", ", always"}[how], func(t *testing.T) {
				t.Parallel()
				want := want
				if how == faultproxy.Each && !slices.Contains(finalUploads, f.Name) {
					want = outcome{}
					how = faultproxy.Once
				}
				site := trip.NewSite(t)
				p := faultproxy.Start(site.Registry.URL(), f.Options)
				t.Cleanup(p.Close)
				unpack := func(patience, stall time.Duration) error {
					opts := site.Options(media)
					opts.Destination.Registry = p.Host
					opts.Client = hasty(t, p, patience, stall, remote.Options{})
					_, err := apply.Unpack(t.Context(), opts)
					return err
				}
				p.Inject(&f, how)
				err := unpack(limits(f, want))
				judge(t, p, err, want)
				had := map[digest.Digest]bool{}
				for d := range r.Blobs {
					if raw, err := site.Registry.Blob(trip.Repository, d); err == nil {
						had[d] = true
						if digest.FromBytes(raw) != d {
							t.Errorf("%s is at the registry, with other bytes", d)
						}
					}
				}
				if err != nil {
					if _, _, err := site.Registry.Manifest(trip.Repository, "4.8.21-x86_64"); err == nil {
						t.Error("the release has its tag")
					}
					p.Inject(nil, 0)
					if err := unpack(time.Minute, 20*time.Second); err != nil {
						t.Fatalf("again, without the fault: %v", err)
					}
					for _, q := range p.Take() {
						for d := range had {
							if q.Method == http.MethodPut && strings.Contains(q.Query, d.Encoded()) {
								t.Errorf("%s was there and is pushed again", d)
							}
						}
					}
				}
				for _, d := range r.Digests() {
					if !site.Registry.Has(trip.Repository, d) {
						t.Errorf("%s did not arrive", d)
					}
				}
				if _, _, err := site.Registry.Manifest(trip.Repository, "4.8.21-x86_64"); err != nil {
					t.Errorf("the release has no tag: %v", err)
				}
			})
		}
	}
	for name := range uploads {
		if !names[name] {
			t.Errorf("%s is no fault any more", name)
		}
	}
}
