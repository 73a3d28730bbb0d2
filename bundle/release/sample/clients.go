package sample

import (
	"archive/tar"
	"slices"
	"time"

	"pannier/bundle/release"
)

// clientComponents are the components that hold clients.
var clientComponents = []string{"cli-artifacts", "installer", "installer-artifacts"}

// clientLayer is the layer of a component that holds clients, as in real releases: kubectl and
// oc are one file under two names, and one folder is a link's.
func (m *maker) clientLayer(component, arch string) (layer, error) {
	var entries []Entry
	add := func(name string, flag byte, link string, data []byte) {
		h := tar.Header{Name: name, Typeflag: flag, Linkname: link, Mode: 0o755, ModTime: time.Unix(0, 0)}
		entries = append(entries, Entry{h, data})
	}
	for _, p := range release.Platforms() {
		for _, c := range release.Clients(p, arch) {
			if c.Component != component {
				continue
			}
			data := noise(m.LayerSize, m.Seed, c.Path, component, arch, m.Version)
			m.r.Clients[release.ComponentTag(m.Version, arch, component)+"/"+c.Path] = data
			other := c.Path[:len(c.Path)-len(c.Name)] + "kubectl"
			switch {
			case c.Name == "oc" && p.Arch == "s390x":
				add("usr/bin/oc-"+p.Arch, tar.TypeReg, "", data)
				add(c.Path, tar.TypeSymlink, "../../../bin/oc-"+p.Arch, nil)
			case c.Name == "oc":
				add(other, tar.TypeReg, "", data)
				add("./"+c.Path, tar.TypeLink, other, nil)
			default:
				add(c.Path, tar.TypeReg, "", data)
			}
		}
	}
	return m.layer(entries)
}

func isClientComponent(name string) bool { return slices.Contains(clientComponents, name) }
