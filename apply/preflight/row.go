package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// row is one check of the side S. Rows share what they find out through S, which asks once
// and remembers, so that each can be left out without changing the others.
type row[S any] struct {
	name string
	run  func(ctx context.Context, s S) Check
}

// runRows makes the checks but those in off. Once ctx has ended the rest is skipped.
func runRows[S any](ctx context.Context, rows []row[S], s S, off []string) []Check {
	checks := []Check{}
	for _, r := range rows {
		if slices.Contains(off, r.name) {
			continue
		}
		var c Check
		if ctx.Err() == nil {
			c = r.run(ctx, s)
		}
		if ctx.Err() != nil {
			c = skip("interrupted")
		}
		c.Name = r.name
		checks = append(checks, c)
	}
	return checks
}

// once is a value that is found out when it is first asked for.
type once[T any] struct {
	done  bool
	value T
	err   error
}

func (o *once[T]) get(find func() (T, error)) (T, error) {
	if !o.done {
		o.value, o.err = find()
		o.done = true
	}
	return o.value, o.err
}

func pass(format string, args ...any) Check {
	return Check{Status: Pass, Detail: fmt.Sprintf(format, args...)}
}

func skip(format string, args ...any) Check {
	return Check{Status: Skip, Detail: fmt.Sprintf(format, args...)}
}

// skipAfter is a skip because the check of that name says why already.
func skipAfter(name string) Check {
	return Check{Status: Skip, Detail: "could not be looked at: see " + name, Remedy: "settle " + name + " first, then run preflight again"}
}

// warn is a Warn; err may be nil.
func warn(err error, remedy, format string, args ...any) Check {
	return Check{Status: Warn, Detail: fmt.Sprintf(format, args...), Remedy: remedy, Err: err}
}

func fail(err error, remedy, format string, args ...any) Check {
	return Check{Status: Fail, Detail: fmt.Sprintf(format, args...), Remedy: remedy, Err: err}
}

// worst makes one check of several that are of one name: the worst status, and the details,
// remedies and errors of those that are not passed over by it.
func worst(checks ...Check) Check {
	rank := map[Status]int{Pass: 1, Skip: 0, Warn: 2, Fail: 3}
	out := Check{Status: Skip}
	var details, remedies []string
	var errs []error
	for _, c := range checks {
		if rank[c.Status] > rank[out.Status] {
			out.Status = c.Status
		}
		if c.Detail != "" && !slices.Contains(details, c.Detail) {
			details = append(details, c.Detail)
		}
		if c.Remedy != "" && !slices.Contains(remedies, c.Remedy) {
			remedies = append(remedies, c.Remedy)
		}
		if c.Err != nil {
			errs = append(errs, c.Err)
		}
	}
	out.Detail, out.Remedy = strings.Join(details, "; "), strings.Join(remedies, "; ")
	if len(errs) > 0 {
		out.Err = &several{errs}
	}
	return out
}

// several is a number of errors in one line.
type several struct{ errs []error }

func (s *several) Error() string {
	texts := make([]string, len(s.errs))
	for i, err := range s.errs {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (s *several) Unwrap() []error { return s.errs }

// maxNamed bounds how many of many things a detail names.
const maxNamed = 5

// listed joins names, and says how many more there are.
func listed(names []string) string {
	if n := len(names) - maxNamed; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), n)
	}
	return strings.Join(names, ", ")
}

// counted writes a number with its noun.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// clockCheck compares a host's clock with ours. Certificates, tokens and signed addresses
// have times in them, so that clocks which differ by much make them fail.
func clockCheck(host string, date, asked time.Time) Check {
	if date.IsZero() {
		return skip("%s does not tell its time", host)
	}
	skew := date.Sub(asked)
	// The header is cut to the second.
	size := max(0, skew.Abs()-time.Second).Round(time.Second)
	dir := "ahead of"
	if skew < 0 {
		dir = "behind"
	}
	const remedy = "set the clocks right (chronyc tracking, timedatectl), on this machine, the registry and the nodes, from one time source: certificates and tokens are only valid by the clock"
	switch {
	case size > maxSkew:
		return fail(nil, remedy, "the clock of %s is %s %s this machine's", host, size, dir)
	case size > goodSkew:
		return warn(nil, remedy, "the clock of %s is %s %s this machine's", host, size, dir)
	}
	return pass("the clock of %s agrees with this machine's within %s", host, max(size, time.Second))
}

const (
	goodSkew = 5 * time.Minute // tokens live about as long
	maxSkew  = time.Hour
)
