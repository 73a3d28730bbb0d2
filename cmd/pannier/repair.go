package main

import (
	"fmt"
	"io"
	"os"

	"pannier/bundle"
	"pannier/bundle/layout"
	"pannier/bundle/objects"
	"pannier/bundle/ocdir"
	"pannier/bundle/remote"
)

// repairSources opens what --from names; done closes it.
func (s *session) repairSources(f *auditFlags) (sources []bundle.RepairSource, done func(), err error) {
	var open []io.Closer
	done = func() {
		for _, c := range open {
			c.Close()
		}
	}
	for _, other := range f.from.Value() {
		source, closer, err := s.repairSource(f, other)
		if err != nil {
			done()
			return nil, func() {}, err
		}
		if closer != nil {
			open = append(open, closer)
		}
		sources = append(sources, source)
	}
	return sources, done, nil
}

// repairSource opens one of them: a folder that oc wrote, another drive, or else REGISTRY/REPO.
func (s *session) repairSource(f *auditFlags, other string) (bundle.RepairSource, io.Closer, error) {
	path := s.env.expandHome(other)
	if bundle.IsDirectory(path) {
		t, err := ocdir.Open(path)
		if err != nil {
			return bundle.RepairSource{}, nil, fmt.Errorf("--from %s: %w", other, err)
		}
		return bundle.RepairSource{Name: other, Blobs: t}, t, nil
	}
	if _, err := os.Stat(path); err == nil || looksLikePath(other) {
		l, err := layout.Open(path, layout.Options{Damaged: true})
		if err != nil {
			return bundle.RepairSource{}, nil, fmt.Errorf("--from %s: %w", other, err)
		}
		return bundle.RepairSource{Name: other, Blobs: l, Files: l}, l, nil
	}
	dest, err := objects.ParseDestination(other)
	if err != nil {
		return bundle.RepairSource{}, nil, usagef(s.command, "--from %s: there is no such folder, and it is no REGISTRY/REPO: %v", other, err)
	}
	registry, err := f.registryFlags.options(s)
	if err != nil {
		return bundle.RepairSource{}, nil, err
	}
	client, err := remote.New(registry)
	if err != nil {
		return bundle.RepairSource{}, nil, err
	}
	repo, err := client.Repository(dest.String())
	if err != nil {
		return bundle.RepairSource{}, nil, usagef(s.command, "--from %s: %v", other, err)
	}
	return bundle.RepairSource{Name: other, Blobs: repo}, nil, nil
}
