package custody

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// MaxSigners bounds a file of trusted signers, in bytes.
const MaxSigners = 1 << 20

// Signers says whose signatures are trusted. It comes from a file, never from the drive.
type Signers struct{ lines []allowed }

// allowed is one line of a file of signers.
type allowed struct {
	principals    string
	key           ssh.PublicKey
	namespaces    []string // patterns; none allows all
	after, before time.Time
}

// ParseSigners reads a file in the format of allowed_signers (ssh-keygen(1)): principals,
// options, key. What it does not know is an error, since an option that is passed over could
// be the one that forbids; authorities of certificates are such an option.
func ParseSigners(data []byte) (*Signers, error) {
	out := &Signers{}
	for i, line := range bytes.Split(data, []byte{'\n'}) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		a, err := parseAllowed(string(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		out.lines = append(out.lines, a)
	}
	return out, nil
}

func parseAllowed(line string) (allowed, error) {
	var a allowed
	rest := ""
	if strings.HasPrefix(line, `"`) {
		a.principals, rest, _ = strings.Cut(line[1:], `"`)
	} else if at := strings.IndexAny(line, " \t"); at > 0 {
		a.principals, rest = line[:at], line[at:]
	}
	if a.principals == "" {
		return a, fmt.Errorf("no principals, options and key")
	}
	key, _, options, more, err := ssh.ParseAuthorizedKey([]byte(strings.TrimSpace(rest)))
	if err != nil || len(more) > 0 {
		return a, fmt.Errorf("no key as ssh-keygen writes it")
	}
	a.key = key
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		value = strings.Trim(value, `"`)
		switch strings.ToLower(name) {
		case "namespaces":
			a.namespaces = strings.Split(value, ",")
		case "valid-after":
			a.after, err = parseTime(value)
		case "valid-before":
			a.before, err = parseTime(value)
		default:
			err = fmt.Errorf("option %q is not known here", name)
		}
		if err != nil {
			return a, err
		}
	}
	return a, nil
}

// parseTime reads YYYYMMDD[HHMM[SS]][Z]; without Z it is local time.
func parseTime(s string) (time.Time, error) {
	zone := time.Local
	if t, utc := strings.CutSuffix(s, "Z"); utc {
		s, zone = t, time.UTC
	}
	for _, form := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(s) == len(form) {
			return time.ParseInLocation(form, s, zone)
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time as YYYYMMDDHHMM", s)
}

// Name returns the principals of the line that trusts a signer at that time.
func (s *Signers) Name(who *Signer, now time.Time) (string, bool) {
	if s == nil || who == nil {
		return "", false
	}
	for _, a := range s.lines {
		if bytes.Equal(a.key.Marshal(), who.Key.Marshal()) && a.valid(who.Namespace, now) {
			return a.principals, true
		}
	}
	return "", false
}

func (a allowed) valid(namespace string, now time.Time) bool {
	if !a.after.IsZero() && now.Before(a.after) || !a.before.IsZero() && !now.Before(a.before) {
		return false
	}
	for _, pattern := range a.namespaces {
		if ok, err := path.Match(strings.TrimSpace(pattern), namespace); ok && err == nil {
			return true
		}
	}
	return len(a.namespaces) == 0
}
