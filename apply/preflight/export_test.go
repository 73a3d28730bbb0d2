package preflight

import (
	"time"

	"pannier/bundle/layout"
)

// NearNames and FarNames list the rows.
func NearNames() []string { return names(nearRows()) }
func FarNames() []string  { return names(farRows()) }

func names[S any](rows []row[S]) []string {
	var out []string
	for _, r := range rows {
		out = append(out, r.name)
	}
	return out
}

// Without leaves rows out.
func (o NearOptions) Without(names ...string) NearOptions { o.off = names; return o }
func (o FarOptions) Without(names ...string) FarOptions   { o.off = names; return o }

// On has the drive answer as another file system would.
func (o NearOptions) On(change func(*layout.Space)) NearOptions {
	o.stat = func(dir string) (layout.Space, error) {
		s, err := layout.StatSpace(dir)
		change(&s)
		return s, err
	}
	return o
}

// At sets the clock by which certificates are judged.
func (o FarOptions) At(t time.Time) FarOptions { o.now = func() time.Time { return t }; return o }

const ProbeFolder = probeFolder
