package apply

import (
	"context"
	"slices"

	"pannier/bundle/objects"
)

// Next is the release of a delivery that a cluster is to be asked for: the only one, or of
// several the next of a path that was packed with "pack --upgrade-from". current says which
// version the cluster runs; it is asked only if there is something to choose. Errors are those
// of [Delivery.Candidate] and of current.
func (d *Delivery) Next(ctx context.Context, current func(context.Context) (string, error)) (objects.ReleaseInfo, error) {
	onPath := func(r objects.ReleaseInfo) bool { return len(r.Updates) > 0 }
	if len(d.Releases) < 2 || !slices.ContainsFunc(d.Releases, onPath) {
		return d.Candidate()
	}
	version, err := current(ctx)
	if err != nil {
		return objects.ReleaseInfo{}, err
	}
	return next(d.Releases, version)
}

// next chooses the one release that a recorded update leads to from a version. At the end of a
// path it is the release of that version itself, which the cluster then has. Everything else is
// a [*SeveralError].
func next(releases []objects.ReleaseInfo, version string) (objects.ReleaseInfo, error) {
	var to, at []objects.ReleaseInfo
	for _, r := range releases {
		if slices.ContainsFunc(r.Updates, func(u objects.Update) bool { return u.From == version }) {
			to = append(to, r)
		}
		if r.Version == version && len(r.Updates) > 0 {
			at = append(at, r)
		}
	}
	switch {
	case len(to) == 1:
		return to[0], nil
	case len(to) == 0 && len(at) == 1:
		return at[0], nil
	case len(to) > 1:
		releases = to
	}
	return objects.ReleaseInfo{}, &SeveralError{Releases: slices.Clone(releases), Current: version}
}
