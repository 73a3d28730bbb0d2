package remote

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// kind is a sentinel that may be a special case of another.
type kind struct {
	text   string
	parent error
}

func (k *kind) Error() string { return k.text }
func (k *kind) Unwrap() error { return k.parent }

// Sentinels of this package; every error of a call to a host is an [Error] that is one of
// them, or else the context's.
var (
	// ErrAuth: credentials are missing, wrong or not sufficient (401, 403, 407).
	ErrAuth error = &kind{text: "access denied"}
	// ErrNotFound: the registry has no such repository, manifest or blob.
	ErrNotFound error = &kind{text: "not found"}
	// ErrAuthFile: an auth file cannot be read, or is none. It is no [Error].
	ErrAuthFile error = &kind{text: "unusable auth file"}
	// ErrUnreachable: the host never answered.
	ErrUnreachable error = &kind{text: "cannot be reached"}
	// ErrRefused: the host answered no, and will again.
	ErrRefused error = &kind{text: "refused"}
	// ErrInterrupted: the host answered and then stopped; the same call may work later.
	ErrInterrupted error = &kind{text: "interrupted"}

	// ErrQuota, an ErrRefused: the registry has no room for more, by its disk or by a rule.
	ErrQuota error = &kind{text: "the registry has no room", parent: ErrRefused}
	// ErrNotRegistry, an ErrRefused: the host answers with a web page.
	ErrNotRegistry error = &kind{text: "answers with a web page, is it a registry?", parent: ErrRefused}
	// ErrCertificate, an ErrUnreachable: the host's certificate is not trusted.
	ErrCertificate error = &kind{text: "certificate is not trusted", parent: ErrUnreachable}
	// ErrPlainHTTP, an ErrUnreachable: the host speaks plain http where TLS is needed.
	ErrPlainHTTP error = &kind{text: "speaks plain http, not TLS", parent: ErrUnreachable}
	// ErrConfined, an ErrRefused: a redirect or token server that may not be followed.
	ErrConfined error = &kind{text: "not followed", parent: ErrRefused}
)

// Error is a call that failed. Its text has no secret, no query and no control character.
type Error struct {
	Op         string // "resolve", "fetch blob", "push manifest" …
	Host       string // that failed: the registry, its token server or where it redirected to
	Repository string // as named
	Endpoint   string // what was really asked, if it is another
	Reference  string // tag or digest
	Status     int    // HTTP status, 0 if there was no answer
	Code       string // the registry's error code, "MANIFEST_UNKNOWN"
	Message    string // the registry's words, at most 300 bytes, or advice
	Err        error  // the cause, if it was none of the registry's making

	kinds []error // sentinels

	transient  bool          // not proven permanent
	maxTries   int           // if transient: at most so many without progress; 0 is no limit
	retryAfter time.Duration // asked for by the host
	soon       bool          // no long pause is needed
}

// Unwrap returns the sentinels that the error is, and its cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return e.kinds
	}
	return append(append([]error(nil), e.kinds...), e.Err)
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Repository != "" {
		b.WriteString(" " + e.Repository)
		if e.Reference != "" {
			sep := ":"
			if strings.Contains(e.Reference, ":") {
				sep = "@"
			}
			b.WriteString(sep + e.Reference)
		}
	}
	if e.Endpoint != "" {
		fmt.Fprintf(&b, " (at %s)", e.Endpoint)
	}
	where := e.Repository
	if e.Endpoint != "" {
		where = e.Endpoint
	}
	if e.Host != "" && !strings.HasPrefix(where, e.Host+"/") {
		b.WriteString(": " + e.Host)
	}
	for _, k := range e.kinds {
		b.WriteString(": " + k.Error())
	}
	if d := e.detail(); d != "" {
		b.WriteString(": " + d)
	}
	return b.String()
}

// detail is the part of the text that is not said by the other fields.
func (e *Error) detail() string {
	var parts []string
	if e.Status != 0 {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.Status, e.Code)))
	} else if e.Code != "" {
		parts = append(parts, e.Code)
	}
	if e.Message != "" {
		parts = append(parts, e.Message)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// scrubbed is an error whose text was cleaned; errors.Is and As still see the original.
type scrubbed struct {
	text string
	err  error
}

func (s *scrubbed) Error() string { return s.text }
func (s *scrubbed) Unwrap() error { return s.err }

// scrub cleans the text of err, which may name addresses with signatures or users in them.
func scrub(err error) error {
	if err == nil {
		return nil
	}
	return &scrubbed{text: clean(scrubText(err.Error())), err: err}
}

var (
	urlUser  = regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://)[^\s/?#"'<>]*@`)
	urlQuery = regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://[^\s?"'<>#]*)[?#][^\s"'<>]*`)
	secrets  = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[a-z0-9+/._~=-]{8,}`)
)

// scrubText removes user parts, queries and fragments of the addresses in s, and what looks
// like an Authorization header.
func scrubText(s string) string {
	s = urlUser.ReplaceAllString(s, "$1")
	s = urlQuery.ReplaceAllString(s, "$1")
	return secrets.ReplaceAllString(s, "$1 …")
}

// maxMessage bounds, in bytes, what is kept of a registry's words.
const maxMessage = 300

// clean makes a foreign text fit for a terminal and a line: no control characters, valid
// UTF-8, bounded.
func clean(s string) string {
	if len(s) > 4*maxMessage {
		s = s[:4*maxMessage]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return -1
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxMessage {
		cut := maxMessage - len("…")
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}

// parseErrorBody reads what registries say with an error status: the distribution-spec's
// {"errors":[…]}, or what token servers and proxies write instead. Both results are clean.
func parseErrorBody(contentType string, body []byte) (code, message string) {
	var spec struct {
		Errors []struct {
			Code    json.RawMessage `json:"code"`
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &spec) == nil && len(spec.Errors) > 0 {
		first := spec.Errors[0]
		if json.Unmarshal(first.Code, &code) != nil {
			code = string(first.Code)
		}
		message = first.Message
		if d := string(bytes.TrimSpace(first.Detail)); d != "" && d != "null" && d != "{}" && d != `""` && len(d) < maxMessage {
			message = strings.TrimSpace(message + " " + d)
		}
		return clean(code), clean(scrubText(message))
	}
	var other map[string]json.RawMessage
	if json.Unmarshal(body, &other) == nil {
		for _, k := range []string{"error_description", "message", "details", "detail", "error"} {
			var s string
			if json.Unmarshal(other[k], &s) == nil && s != "" {
				return "", clean(scrubText(s))
			}
		}
		return "", ""
	}
	if isHTML(contentType, body) || len(body) == 0 {
		return "", ""
	}
	return "", clean(scrubText(string(body[:min(len(body), maxMessage)])))
}

// isHTML reports whether an answer is a web page, by its type or its first byte. XML, as of
// object stores, counts too: no registry says anything in it.
func isHTML(contentType string, body []byte) bool {
	mt, _, _ := mime.ParseMediaType(contentType)
	if mt == "text/html" || mt == "application/xhtml+xml" {
		return true
	}
	b := bytes.TrimLeft(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), " \t\r\n")
	return len(b) > 0 && b[0] == '<'
}

// noRoom is how registries say that a quota or a disk is full.
var noRoom = regexp.MustCompile(`(?i)quota|no space left|storage resource,? .*exceed|exceeds? the (configured )?(upper|storage) limit|"Err": ?28\b`)

// statusError makes the error of an answer whose status was not hoped for. foreign says
// that it came from another host than the registry; push that something was to be written.
func statusError(resp *http.Response, body []byte, foreign, push bool) *Error {
	e := &Error{Status: resp.StatusCode, Host: resp.Request.URL.Host}
	ct := resp.Header.Get("Content-Type")
	e.Code, e.Message = parseErrorBody(ct, body)
	page := isHTML(ct, body) && resp.Header.Get("Docker-Distribution-Api-Version") == ""
	s := resp.StatusCode
	switch {
	case push && s == http.StatusInsufficientStorage,
		push && s >= 400 && s != http.StatusUnauthorized && s != http.StatusTooManyRequests && noRoom.MatchString(e.Message):
		// Many say it as a refusal of access, which it is not, or as a failure of their own,
		// which is not over in a minute.
		e.kinds = []error{ErrQuota}
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s == http.StatusTooEarly || e.Code == "TOOMANYREQUESTS",
		s >= 500 && s != http.StatusNotImplemented && s != http.StatusHTTPVersionNotSupported:
		e.transient = true
		e.retryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	case foreign && s >= 400 && s < 500 && s != http.StatusProxyAuthRequired:
		// An expired signature most likely: the registry gives a new one. About a minute.
		e.transient, e.maxTries = true, 2*maxOdd
		e.kinds = []error{ErrRefused}
	case s == http.StatusProxyAuthRequired:
		e.kinds = []error{ErrAuth}
		e.Message = "the proxy wants credentials"
	case s == http.StatusUnauthorized, s == http.StatusForbidden, e.Code == "DENIED", e.Code == "UNAUTHORIZED":
		e.kinds = []error{ErrAuth}
	case s == http.StatusNotFound && page:
		e.kinds = []error{ErrNotFound, ErrNotRegistry}
	case s == http.StatusNotFound && !push:
		e.kinds = []error{ErrNotFound}
	case page:
		e.kinds = []error{ErrNotRegistry}
	default:
		e.kinds = []error{ErrRefused}
	}
	return e
}
