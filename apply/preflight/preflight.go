// Package preflight finds out, before the work begins, whether a drive and the registries are
// fit for it: the near side (internet registry to drive, [Near]) and the far side (drive to
// local registry, [Far]).
//
// Every check tells what it has seen and what to do about it, in words for somebody without
// internet. Invariants: a check that could not look is a warn or a skip with the reason, never
// a pass; nothing that a check does stays behind, on a drive or at a registry, without being
// said; no check ends the run.
package preflight

import "strings"

// Status is what came of a check. The values are those of the JSON form.
type Status string

// What can come of a check.
const (
	Pass Status = "pass" // looked, and it is as it must be
	Warn Status = "warn" // it may go wrong, or it could not be looked at
	Fail Status = "fail" // it will go wrong
	Skip Status = "skip" // does not apply, or another check's failure makes it pointless
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"` // stable, kebab-case: "drive-writable"
	Status Status `json:"status"`
	Detail string `json:"detail"` // the evidence: what was seen, one line or several
	Remedy string `json:"remedy"` // what to do about it; "" on a pass
	Err    error  `json:"-"`      // the error behind a fail or a warn, for the exit code; may be nil
}

// Report is a list of checks, in the order in which they were made.
type Report struct {
	Ready  bool    `json:"ready"` // no check failed
	Checks []Check `json:"checks"`
}

// NewReport makes a Report of checks, of several sides one after the other. Checks is never
// nil, so that its JSON form is a list.
func NewReport(lists ...[]Check) Report {
	r := Report{Ready: true, Checks: []Check{}}
	for _, checks := range lists {
		for _, c := range checks {
			r.Ready = r.Ready && c.Status != Fail
			r.Checks = append(r.Checks, c)
		}
	}
	return r
}

// Failed is the error of a [Report] that has failures: one error that is each of theirs, for
// the exit code.
type Failed struct{ Checks []Check }

// Error implements error.
func (f *Failed) Error() string {
	names := make([]string, len(f.Checks))
	for i, c := range f.Checks {
		names[i] = c.Name
	}
	return "not ready: " + strings.Join(names, ", ")
}

// Unwrap returns the errors behind the failures that have one.
func (f *Failed) Unwrap() []error {
	var errs []error
	for _, c := range f.Checks {
		if c.Err != nil {
			errs = append(errs, c.Err)
		}
	}
	return errs
}

// Err returns nil if nothing failed, else a [Failed].
func (r Report) Err() error {
	var failed []Check
	for _, c := range r.Checks {
		if c.Status == Fail {
			failed = append(failed, c)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return &Failed{failed}
}
