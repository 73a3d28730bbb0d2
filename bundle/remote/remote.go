// Package remote talks to registries and signature stores: it resolves, fetches from an
// offset, probes and pushes, with credentials, redirects, retries and resumption.
//
// Invariants: what is fetched here is not yet verified (only manifests, which are read whole,
// are); a credential goes to the registry it was found for and to the token server which that
// registry names, and to nobody else, whatever a redirect says; no secret, no user part and
// no query of an address ever reaches an error or a log; every failure that is not proven
// permanent is tried again, from the registry's own address, until nothing has moved for
// [Options].GiveUpAfter.
package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"pannier/bundle/content"
)

// Mirror says that what is named From (a host, or a host and the beginning of a path) is
// asked for at To.
type Mirror struct{ From, To string }

// ParseMirror reads FROM=TO, "quay.io=proxy.example:5000/quay".
func ParseMirror(s string) (Mirror, error) {
	if strings.Contains(s, "@") {
		return Mirror{}, errMirrorUser
	}
	from, to, found := strings.Cut(s, "=")
	if !found || from == "" || to == "" {
		return Mirror{}, fmt.Errorf("%q: it is written FROM=TO, as quay.io=proxy.example:5000/quay", s)
	}
	return Mirror{From: from, To: to}.checked()
}

// errMirrorUser does not say what was written: it may hold a password.
var errMirrorUser = errors.New("a mirror is named without user and password; those belong into the auth file")

// checked returns m without slashes at the ends, if both sides can be asked.
func (m Mirror) checked() (Mirror, error) {
	m.From, m.To = strings.Trim(m.From, "/"), strings.Trim(m.To, "/")
	for _, side := range []string{m.From, m.To} {
		if strings.Contains(side, "@") {
			return Mirror{}, errMirrorUser
		}
		h, path, _ := strings.Cut(side, "/")
		if err := content.CheckHost(h); err != nil {
			return Mirror{}, fmt.Errorf("%q: %w; it is a host, or a host and the beginning of a path, without scheme", side, err)
		}
		if path != "" && !pathGrammar.MatchString(path) {
			return Mirror{}, fmt.Errorf("%q: %q is no path", side, path)
		}
	}
	return m, nil
}

// Options configure a [Client]. The zero value is anonymous, verifies TLS with the system's
// roots, uses no proxy and discards its log.
type Options struct {
	// AuthFiles are auth files in the order of search; the first with a matching entry
	// wins. Files that do not exist are passed over, malformed ones are an error.
	AuthFiles []string
	// AuthExplicit says that AuthFiles was named by the user: each must be readable.
	AuthExplicit bool
	// AuthData is the content of an auth file that is searched before AuthFiles: for a pull
	// secret that must not lie on a disk. nil is none.
	AuthData []byte
	// CAFiles are PEM files of authorities that are trusted beside the system's.
	CAFiles []string
	// Insecure allows unverified TLS and plain http, for InsecureHosts ("host" for every
	// port, or "host:port"), or for every host if there are none.
	Insecure      bool
	InsecureHosts []string
	// Mirrors are asked instead of what they mirror; the longest matching From wins.
	Mirrors []Mirror
	// Proxy names the proxy for a request, as [http.Transport] understands it; nil is none.
	Proxy func(*http.Request) (*url.URL, error)
	// GiveUpAfter is how long nothing may move before [ErrInterrupted]; 0 is five minutes.
	GiveUpAfter time.Duration
	// StallAfter is how long nothing, or next to nothing (fewer than 8 KiB), may arrive before
	// a connection is given up and made anew; 0 is 60 seconds.
	StallAfter time.Duration
	// FirstPause is how long is waited after a first failure, about; it doubles from failure
	// to failure up to LongestPause. 0 are half a second and 30 seconds.
	FirstPause, LongestPause time.Duration
	// Confined refuses token servers and redirects at loopback, link-local and cloud
	// metadata addresses, unless the registry that names them is at such an address too.
	Confined bool
	// UserAgent is sent with every request; "" is "pannier".
	UserAgent string
	Logger    *slog.Logger
	// OnWait is called before a pause: which host is waited for, why, and how long. It may
	// be called from several goroutines.
	OnWait func(host, why string, d time.Duration)
}

// Contact is a host that was really asked for something.
type Contact struct {
	Host  string // host, with a port if one was named
	Proxy string // host:port of the proxy in between, "" for none
	Why   string // WhyRegistry, WhyToken, WhyRedirect, WhyStore or WhyDocument
}

// Reasons for a [Contact].
const (
	WhyRegistry = "registry"        // the user named it
	WhyToken    = "token"           // a registry named it as its token server
	WhyRedirect = "redirect"        // a registry, or a store, sent us there
	WhyStore    = "signature store" // the user named it as a store of signatures
	WhyDocument = "document"        // the user named it as the place of a graph, or of a release.txt
)

// timing holds the limits that tests shorten.
type timing struct {
	dial      time.Duration // for one connection, and for one answer while reaching
	reach     time.Duration // for all tries at a host that never answered
	maxAsked  time.Duration // longest pause that Retry-After can ask for
	storeWait time.Duration // GiveUpAfter for signature stores
}

// Client asks registries and signature stores. It is safe for concurrent use.
type Client struct {
	opts   Options
	log    *slog.Logger
	creds  *credentials
	timing timing

	verified, unverified *http.Transport

	mu       sync.Mutex
	hosts    map[string]*host
	repos    map[string]*Repository
	contacts map[Contact]bool
	proxies  map[string]bool // host:port of every proxy in use
}

// New returns a Client. It reads the auth files and the authorities; errors name the file,
// never what is in it. No host is contacted.
func New(opts Options) (*Client, error) {
	if opts.GiveUpAfter <= 0 {
		opts.GiveUpAfter = 5 * time.Minute
	}
	if opts.StallAfter <= 0 {
		opts.StallAfter = time.Minute
	}
	if opts.FirstPause <= 0 {
		opts.FirstPause = 500 * time.Millisecond
	}
	if opts.LongestPause <= 0 {
		opts.LongestPause = 30 * time.Second
	}
	if opts.UserAgent == "" {
		opts.UserAgent = "pannier"
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		opts: opts,
		log:  opts.Logger,
		timing: timing{
			dial: 3 * time.Second, reach: 10 * time.Second,
			maxAsked:  min(2*time.Minute, opts.GiveUpAfter),
			storeWait: 30 * time.Second,
		},
		hosts:    map[string]*host{},
		repos:    map[string]*Repository{},
		contacts: map[Contact]bool{},
		proxies:  map[string]bool{},
	}
	c.opts.Mirrors = slices.Clone(opts.Mirrors)
	for i, m := range c.opts.Mirrors {
		m, err := m.checked()
		if err != nil {
			return nil, fmt.Errorf("registry mirror: %w", err)
		}
		c.opts.Mirrors[i] = m
	}
	creds, err := loadCredentials(opts.AuthFiles, opts.AuthExplicit, c.log)
	if err != nil {
		return nil, err
	}
	if opts.AuthData != nil {
		f, err := parseAuthFile(opts.AuthData)
		if err != nil {
			return nil, fmt.Errorf("pull secret: %w: %w", ErrAuthFile, err)
		}
		f.name = "the pull secret that was given"
		creds.files = append([]authFile{*f}, creds.files...)
	}
	c.opts.AuthData = nil // parsed: one copy of the secret is enough
	c.creds = creds
	if err := c.makeTransports(); err != nil {
		return nil, err
	}
	return c, nil
}

// Repository is a repository of a registry. Repositories of one name are the same value, so
// that they share their token.
type Repository struct {
	c        *Client
	name     string // as named
	host     *host  // of the endpoint
	path     string // of the endpoint, without the host
	mirrored bool
	session  *session
}

var pathGrammar = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

// Repository returns the repository of that name: a host, with a port if need be, and a path
// (distribution-spec, "Pulling manifests"). No host is contacted.
func (c *Client) Repository(name string) (*Repository, error) {
	h, path, _ := strings.Cut(name, "/")
	if len(name) > 512 || content.CheckHost(h) != nil || !pathGrammar.MatchString(path) {
		return nil, fmt.Errorf("repository %q: not HOST[:PORT]/PATH", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.repos[name]; r != nil {
		return r, nil
	}
	endpoint := c.endpoint(name)
	h, path, _ = strings.Cut(endpoint, "/")
	if !pathGrammar.MatchString(path) {
		return nil, fmt.Errorf("repository %q: its mirror %q has no path", name, endpoint)
	}
	if isDockerHub(h) {
		h = "registry-1.docker.io"
		if !strings.Contains(path, "/") {
			path = "library/" + path
		}
	}
	r := &Repository{c: c, name: name, host: c.hostLocked(h), path: path, mirrored: endpoint != name}
	r.session = c.newSession(r.host, h+"/"+path)
	c.repos[name] = r
	return r, nil
}

// endpoint applies the longest matching mirror to name, on whole segments.
func (c *Client) endpoint(name string) string {
	best := -1
	for i, m := range c.opts.Mirrors {
		if (name == m.From || strings.HasPrefix(name, m.From+"/")) && (best < 0 || len(m.From) > len(c.opts.Mirrors[best].From)) {
			best = i
		}
	}
	if best < 0 {
		return name
	}
	return c.opts.Mirrors[best].To + strings.TrimPrefix(name, c.opts.Mirrors[best].From)
}

// Name returns the repository as it was named: "quay.io/a/b".
func (r *Repository) Name() string { return r.name }

// Endpoint returns what is really asked, host and path; it differs from Name for a mirror.
func (r *Repository) Endpoint() string { return r.host.name + "/" + r.path }

// Contacts returns every host that was asked for something so far, sorted.
func (c *Client) Contacts() []Contact {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Contact, 0, len(c.contacts))
	for k := range c.contacts {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Contact) int {
		return strings.Compare(a.Host+"\x00"+a.Why+"\x00"+a.Proxy, b.Host+"\x00"+b.Why+"\x00"+b.Proxy)
	})
	return out
}

// Answered reports whether a [Contact].Host has given an HTTP answer so far, be it a refusal.
func (c *Client) Answered(host string) bool { return c.host(host).hasAnswered() }

// sleep waits for d or the end of ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
