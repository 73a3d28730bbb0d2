package custody

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"pannier/bundle"
)

// Report is the report of one run of a command, for whoever signs for a drive: what crossed,
// whether it is whole, who vouches for it, and what to do if not. Its JSON form is part of the
// command line's contract (docs/cli.md, "Reports").
type Report struct {
	Format   int       `json:"format"` // 1
	Command  string    `json:"command"`
	Typed    string    `json:"typed,omitempty"` // the whole command line, without secrets
	Program  string    `json:"program"`
	Commit   string    `json:"commit,omitempty"`
	Platform string    `json:"platform"`
	Host     string    `json:"host,omitempty"`
	User     string    `json:"user,omitempty"`
	Redacted bool      `json:"redacted"` // names of hosts, users and paths were left out
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended"`
	Seconds  float64   `json:"seconds"`
	ExitCode int       `json:"exitCode"`
	Verdict  Verdict   `json:"verdict"`
	Errors   []string  `json:"errors"` // why the command failed

	// Untouched says that nothing was written where a drive was to be.
	Untouched bool `json:"-"`

	Drives   []DriveReport `json:"drives"`
	Checks   []Check       `json:"checks"`
	Findings []Finding     `json:"findings"`
	Delivery *Delivery     `json:"delivery,omitempty"` // unpack: where it went
	Phases   []Phase       `json:"phases"`
	Notes    []string      `json:"notes"`
}

// Verdict is the answer in a few words.
type Verdict struct {
	State    string   `json:"state"` // one of the State constants
	Headline string   `json:"headline"`
	Sentence string   `json:"sentence"`
	Vouched  string   `json:"vouched"` // who vouches for it
	ToDo     []string `json:"toDo"`    // what to do; empty if nothing is
}

// States of a verdict.
const (
	StateGood       = "good"
	StateIncomplete = "incomplete"
	StateBad        = "bad"    // damaged or not trusted
	StateFailed     = "failed" // the command did not come to its end
)

// DriveReport is what one drive holds.
type DriveReport struct {
	Media      string            `json:"media,omitempty"`
	Bundle     string            `json:"bundle,omitempty"` // id
	Sealed     bool              `json:"sealed"`
	SealedAt   time.Time         `json:"sealedAt,omitzero"`
	SealedBy   string            `json:"sealedBy,omitempty"` // program
	Generation uint64            `json:"generation,omitempty"`
	Blobs      int               `json:"blobs"`
	Bytes      int64             `json:"bytes"`
	Presumed   *Presumed         `json:"presumed,omitempty"` // what is not on it, although its images need it
	Releases   []ReleaseReport   `json:"releases"`
	Additional []AdditionalImage `json:"additionalImages"`
	Tools      []Tool            `json:"tools"`
	Entries    []Entry           `json:"custody"` // of the custody log
	Custody    *State            `json:"custodyState,omitempty"`
	Map        []Cell            `json:"map"`
	Components []Component       `json:"components"` // by what is theirs alone, the largest first
}

// ReleaseReport is a release on a drive.
type ReleaseReport struct {
	Release     string    `json:"release"`
	Digest      string    `json:"digest"`
	Source      string    `json:"source"`
	Created     time.Time `json:"created,omitzero"`
	Images      int       `json:"images"`
	Bytes       int64     `json:"bytes"`
	Signature   string    `json:"signature"`
	Key         string    `json:"key,omitempty"`         // that signed
	Fingerprint string    `json:"fingerprint,omitempty"` // of that key
	KeySource   string    `json:"keySource,omitempty"`
	Delivered   string    `json:"delivered,omitempty"` // unpack: its name at the registry, if all of it is there
	Parts       []Image   `json:"parts"`
}

// Image is a component of a release. Bytes counts its blobs, also those that others share.
type Image struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Bytes  int64  `json:"bytes"`
}

// AdditionalImage is an image of no release.
type AdditionalImage struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
}

// Presumed is what a drive does not hold, since a registry is said to.
type Presumed struct {
	Blobs int      `json:"blobs"`
	Bytes int64    `json:"bytes"`
	At    []string `json:"at"` // REGISTRY/REPO
}

// Tool is the program pannier on a drive, for one platform.
type Tool struct {
	Platform string `json:"platform"`
	Path     string `json:"path"`
	Digest   string `json:"digest"`            // as it was sealed
	Changed  bool   `json:"changed,omitempty"` // it was read in this run, and is not that, or not there
}

// Component is how much of a drive one component takes, without what others share.
type Component struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	Blobs int    `json:"blobs"`
}

// Cell is one blob on the map of a drive.
type Cell struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	State  string `json:"state"` // one of the Cell constants
}

// States of a cell, from good to bad.
const (
	CellProven   = "proven"   // read and hashed in this run
	CellReadBack = "readback" // written in this run, and read back
	CellRepaired = "repaired" // healed in this run
	CellKept     = "kept"     // sealed before, and not read in this run
	CellPartial  = "partial"  // not all there yet
	CellDamaged  = "damaged"  // there, and not what its digest says; or refused
	CellMissing  = "missing"
)

// Check is one thing that was checked.
type Check struct {
	What   string `json:"what"`
	How    string `json:"how"`
	Result string `json:"result"`
}

// Finding is one thing that was found, repaired or refused.
type Finding struct {
	Kind     string   `json:"kind"`
	Path     string   `json:"path,omitempty"`
	Digest   string   `json:"digest,omitempty"`
	Images   []string `json:"images,omitempty"`
	Detail   string   `json:"detail"`
	Repaired bool     `json:"repaired"`
}

// State is the kind, and what became of it: "corrupt, repaired".
func (f Finding) State() string {
	switch {
	case f.Repaired && f.Kind == "extra":
		return f.Kind + ", removed"
	case f.Repaired:
		return f.Kind + ", repaired"
	}
	return f.Kind
}

// Delivery is where it went.
type Delivery struct {
	Registry  string        `json:"registry,omitempty"`
	Pushed    bundle.Totals `json:"pushed"`
	Mounted   bundle.Totals `json:"mounted"` // taken over by the registry from a repository of its own, not read
	Present   bundle.Totals `json:"present"`
	Skipped   bundle.Totals `json:"skipped"`
	Presumed  bundle.Totals `json:"presumed"` // on no drive, and there
	Documents bundle.Totals `json:"documents"`
	Refused   int           `json:"refused"`
	Objects   []string      `json:"objects"`
	Contacts  []string      `json:"contacts,omitempty"` // hosts that were talked to, and why

	Releases []DeliveredRelease `json:"releases"` // what was to be delivered, from drives or without
}

// DeliveredRelease is a release that went to a registry.
type DeliveredRelease struct {
	Release     string `json:"release"`
	Digest      string `json:"digest"`
	Images      int    `json:"images"` // components
	Bytes       int64  `json:"bytes"`  // of its blobs, each once
	Signature   string `json:"signature"`
	Key         string `json:"key,omitempty"` // that signed
	Fingerprint string `json:"fingerprint,omitempty"`
	Delivered   string `json:"delivered,omitempty"` // its name at the registry, if all of it is there
}

// Redact leaves out the names of hosts and users, and paths of this machine: fields that hold
// nothing else become empty, and the names given are struck out wherever they stand in a sentence. What
// the drive holds keeps its name.
func (r *Report) Redact(names ...string) {
	names = append(names, r.Host, r.User)
	r.Redacted, r.Host, r.User, r.Typed = true, "", "", ""
	for i := range r.Drives {
		d := &r.Drives[i]
		names, d.Media = append(names, d.Media), ""
		if d.Presumed != nil {
			names = append(names, d.Presumed.At...)
		}
		if d.Custody != nil {
			for _, s := range d.Custody.Signed {
				names = append(names, s.Name)
			}
		}
		for k := range d.Entries {
			names = append(names, d.Entries[k].Host, d.Entries[k].User)
			d.Entries[k].Host, d.Entries[k].User, d.Entries[k].Signature = "", "", ""
		}
	}
	if r.Delivery != nil {
		names = append(names, r.Delivery.Registry)
		r.Delivery.Registry, r.Delivery.Contacts = "", nil
	}
	names = slices.DeleteFunc(names, func(n string) bool { return len(n) < 2 })
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) })
	var patterns []string
	for _, n := range slices.Compact(names) {
		patterns = append(patterns, regexp.QuoteMeta(n))
	}
	if len(patterns) == 0 {
		return
	}
	struck := regexp.MustCompile(`(^|[^A-Za-z0-9])(` + strings.Join(patterns, "|") + `)($|[^A-Za-z0-9])`)
	eachString(reflect.ValueOf(r).Elem(), func(s string) string {
		for range 3 { // names that share what stands between them
			s = struck.ReplaceAllString(s, "${1}[left out]${3}")
		}
		return s
	})
}

// plain makes every text of the report harmless to show: without control characters and
// marks that change the direction of writing.
func (r *Report) plain() *Report {
	out := *r
	v := reflect.ValueOf(&out).Elem()
	v.Set(deepCopy(v))
	eachString(v, func(s string) string {
		return strings.Map(func(c rune) rune {
			if unicode.IsControl(c) || unicode.Is(unicode.Cf, c) || c == '\u2028' || c == '\u2029' {
				return unicode.ReplacementChar
			}
			return c
		}, strings.ToValidUTF8(s, "\uFFFD"))
	})
	return &out
}

// deepCopy copies what the report's structs, slices and pointers hold.
func deepCopy(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && reportType(v.Type().Elem()) {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(deepCopy(v.Elem()))
		}
	case reflect.Slice:
		if !v.IsNil() {
			out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				out.Index(i).Set(deepCopy(v.Index(i)))
			}
		}
	case reflect.Struct:
		if reportType(v.Type()) {
			for i := range v.NumField() {
				if out.Field(i).CanSet() {
					out.Field(i).Set(deepCopy(v.Field(i)))
				}
			}
		}
	}
	return out
}

// eachString applies fn to every text in what the report's structs, slices and pointers hold.
func eachString(v reflect.Value, fn func(string) string) {
	switch v.Kind() {
	case reflect.String:
		if v.CanSet() {
			v.SetString(fn(v.String()))
		}
	case reflect.Pointer:
		if !v.IsNil() && reportType(v.Type().Elem()) {
			eachString(v.Elem(), fn)
		}
	case reflect.Slice:
		for i := range v.Len() {
			eachString(v.Index(i), fn)
		}
	case reflect.Struct:
		if reportType(v.Type()) {
			for i := range v.NumField() {
				eachString(v.Field(i), fn)
			}
		}
	}
}

// reportType tells the report's own structs from times and the like, and from the log as it was read.
func reportType(t reflect.Type) bool {
	return t.PkgPath() == reflect.TypeFor[Report]().PkgPath() && t != reflect.TypeFor[Log]()
}

// Normalize makes empty lists of absent ones: whoever reads the JSON can count on them.
func (r *Report) Normalize() {
	r.Errors, r.Checks, r.Findings = orEmpty(r.Errors), orEmpty(r.Checks), orEmpty(r.Findings)
	r.Drives, r.Phases, r.Notes, r.Verdict.ToDo = orEmpty(r.Drives), orEmpty(r.Phases), orEmpty(r.Notes), orEmpty(r.Verdict.ToDo)
	for i := range r.Drives {
		d := &r.Drives[i]
		d.Tools, d.Releases, d.Additional, d.Entries, d.Map, d.Components = orEmpty(d.Tools), orEmpty(d.Releases), orEmpty(d.Additional), orEmpty(d.Entries), orEmpty(d.Map), orEmpty(d.Components)
	}
	if r.Delivery != nil {
		r.Delivery.Objects, r.Delivery.Releases = orEmpty(r.Delivery.Objects), orEmpty(r.Delivery.Releases)
	}
}

// Crossed is the heading of what is on the drives, or was carried without any: an unpack or a
// mirror has to have brought something to the registry, and the whole of one release if there
// were any.
func (r *Report) Crossed() string {
	if r.Command != "unpack" && r.Command != "mirror" {
		return "What crossed"
	}
	d := r.Delivery
	if d == nil || d.Nothing() || len(d.Releases) > 0 && !slices.ContainsFunc(d.Releases, func(rel DeliveredRelease) bool { return rel.Delivered != "" }) {
		return "What was to cross"
	}
	return "What crossed"
}

// Unsealed says why a drive is not sealed as a whole; "" if it is.
func (d DriveReport) Unsealed() string {
	switch {
	case d.Sealed:
		return ""
	case d.Bundle != "":
		return "a later pack onto it has not finished; what was sealed before has the bundle id and is judged by its own seal"
	}
	return "packing has not finished"
}

// Nothing reports that nothing was brought to the registry or found there.
func (d *Delivery) Nothing() bool {
	return d.Pushed.Blobs+d.Mounted.Blobs+d.Present.Blobs+d.Skipped.Blobs+d.Presumed.Blobs == 0
}

// Nothing says why no drive is described, and nothing delivered; "" if something is.
func (r *Report) Nothing() string {
	switch {
	case len(r.Drives) > 0 || r.Delivery != nil:
		return ""
	case r.Untouched:
		return "Nothing: no drive was written to."
	case r.Command == "mirror":
		return "Nothing: the command ended before it came to that."
	}
	return "Nothing can be said of the drive: it could not be read."
}

// Carried are the releases of a run without a drive.
func (r *Report) Carried() []DeliveredRelease {
	if len(r.Drives) > 0 || r.Delivery == nil {
		return nil
	}
	return r.Delivery.Releases
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
