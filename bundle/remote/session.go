package remote

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// session is what the calls to one repository share: its credential and its tokens. There is
// one per repository, since keys of auth files may be scoped by path while the tokens that
// oras caches are told apart by host alone.
type session struct {
	c      *Client
	target string       // host/path that the credential is for
	plain  *http.Client // follows redirects by our rules, knows no credential
	auth   *auth.Client // on top of plain

	// A request to read, and one to write, was accepted: a token refused later has expired
	// rather than being too weak.
	servedPull, servedPush atomic.Bool

	mu     sync.Mutex
	looked bool
	cred   auth.Credential
	from   found
}

// served is the mark for the kind of request.
func (s *session) served(push bool) *atomic.Bool {
	if push {
		return &s.servedPush
	}
	return &s.servedPull
}

// newSession makes the session of a repository. For registries with no path, target is the
// host alone.
func (c *Client) newSession(h *host, target string) *session {
	s := &session{c: c, target: target}
	s.plain = &http.Client{
		Transport:     &hop{c: c, origin: h, why: WhyRegistry},
		CheckRedirect: c.checkRedirect(h),
	}
	s.auth = &auth.Client{
		Client:     s.plain,
		Cache:      auth.NewCache(),
		ClientID:   "pannier",
		Credential: func(ctx context.Context, _ string) (auth.Credential, error) { return s.credential(ctx) },
		// Realms are judged when they are dialled, see hop and controlDial: a name may
		// resolve to another address then, and may resolve only at the proxy.
		BlockedRealmPrefixes: []netip.Prefix{},
	}
	return s
}

// credentialError is an auth file or helper that could not be used.
type credentialError struct{ err error }

func (e *credentialError) Error() string { return e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// credential looks up once and remembers; it says once, where anybody listens, which entry
// serves the repository.
func (s *session) credential(ctx context.Context) (auth.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looked {
		return s.cred, nil
	}
	cred, from, err := s.c.creds.lookup(ctx, s.target)
	if err != nil {
		return auth.EmptyCredential, &credentialError{err}
	}
	s.cred, s.from, s.looked = cred, from, true
	if from.file == "" {
		s.c.log.Info("no credential, asking anonymously", "repository", s.target)
	} else {
		s.c.log.Info("credential", "repository", s.target, "file", from.file, "key", from.key, "helper", from.helper)
	}
	return cred, nil
}

// advice says for an error which credential was refused.
func (s *session) advice() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.looked && s.from.file != "":
		return "with the credential of " + s.from.String()
	case len(s.c.creds.searched) == 0:
		return "no auth file was given"
	case len(s.c.creds.files) == 0:
		return "no auth file exists: " + strings.Join(s.c.creds.searched, ", ")
	}
	names := make([]string, len(s.c.creds.files))
	for i, f := range s.c.creds.files {
		names[i] = f.name
	}
	return "no entry for it in " + strings.Join(names, ", ")
}
