package preflight_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pannier/apply/preflight"
)

// want is what one check of a report must say.
type want struct {
	row    string
	status preflight.Status
	is     error  // what its error must be; nil for any
	text   string // what its detail must contain
}

// judge says what of w is not so; nil if all is.
func (w want) judge(r preflight.Report) error {
	i := slices.IndexFunc(r.Checks, func(c preflight.Check) bool { return c.Name == w.row })
	if i < 0 {
		return fmt.Errorf("no check %s", w.row)
	}
	c := r.Checks[i]
	switch {
	case c.Status != w.status:
		return fmt.Errorf("%s is %s: %s", c.Name, c.Status, c.Detail)
	case !strings.Contains(c.Detail, w.text):
		return fmt.Errorf("%s says %q, not %q", c.Name, c.Detail, w.text)
	case w.is != nil && !errors.Is(c.Err, w.is):
		return fmt.Errorf("%s has the error %v, which is not %v", c.Name, c.Err, w.is)
	case w.is != nil && c.Status == preflight.Fail && !errors.Is(r.Err(), w.is):
		return fmt.Errorf("the report's error %v is not %v", r.Err(), w.is)
	case r.Ready != (r.Err() == nil) || r.Ready && c.Status == preflight.Fail:
		return fmt.Errorf("%s is %s and the report says ready %v", c.Name, c.Status, r.Ready)
	}
	return nil
}

// whole checks what holds of every report.
func whole(t *testing.T, r preflight.Report, names []string) {
	t.Helper()
	var have []string
	for _, c := range r.Checks {
		have = append(have, c.Name)
		if c.Detail == "" {
			t.Errorf("%s has no evidence", c.Name)
		}
		if (c.Status == preflight.Fail || c.Status == preflight.Warn) && c.Remedy == "" {
			t.Errorf("%s is %s and has no remedy: %s", c.Name, c.Status, c.Detail)
		}
		if c.Status == preflight.Pass && (c.Remedy != "" || c.Err != nil) {
			t.Errorf("%s passes with remedy %q, error %v", c.Name, c.Remedy, c.Err)
		}
	}
	if !slices.Equal(have, names) {
		t.Errorf("checks %v, rows %v", have, names)
	}
}

func show(t *testing.T, r preflight.Report) {
	t.Helper()
	for _, c := range r.Checks {
		t.Logf("%-4s %-26s %s | %s", c.Status, c.Name, c.Detail, c.Remedy)
	}
}

// covered sees to it that no row goes without a guard in which it does not pass.
func covered(t *testing.T, rows []string, guards []want) {
	t.Helper()
	for _, name := range rows {
		bad := slices.ContainsFunc(guards, func(w want) bool {
			return w.row == name && (w.status == preflight.Fail || w.status == preflight.Warn)
		})
		if !bad {
			t.Errorf("row %s has no guard in which it fails or warns", name)
		}
	}
}

func TestReport(t *testing.T) {
	cause := errors.New("cause")
	r := preflight.NewReport(
		[]preflight.Check{{Name: "a", Status: preflight.Pass, Detail: "d"}, {Name: "b", Status: preflight.Warn, Err: errors.New("w")}},
		[]preflight.Check{{Name: "c", Status: preflight.Fail, Remedy: "do", Err: cause}, {Name: "d", Status: preflight.Fail}, {Name: "e", Status: preflight.Skip}},
	)
	if err := r.Err(); r.Ready || !errors.Is(err, cause) || err.Error() != "not ready: c, d" {
		t.Errorf("ready %v, %v", r.Ready, err)
	}
	raw, err := json.Marshal(preflight.NewReport())
	if err != nil || string(raw) != `{"ready":true,"checks":[]}` {
		t.Errorf("%s, %v", raw, err)
	}
	raw, err = json.Marshal(r.Checks[2])
	if err != nil || string(raw) != `{"name":"c","status":"fail","detail":"","remedy":"do"}` {
		t.Errorf("%s, %v", raw, err)
	}
	if ok := preflight.NewReport(r.Checks[:2]); !ok.Ready || ok.Err() != nil {
		t.Errorf("ready %v, %v", ok.Ready, ok.Err())
	}
}
