package bundle

import (
	"pannier/bundle/objects"
)

// Destination is the one that the releases were packed for, as far as they were: that of the
// mirror sets that were rendered with them. It returns nil if there is none, or if they were
// packed for several.
func (c *Contents) Destination() *objects.Destination {
	var found *objects.Destination
	for _, rel := range c.Releases {
		obj, ok := c.RenderedMirrorSet(rel.Tag)
		if !ok {
			continue
		}
		_, _, mirrors, err := objects.ParseMirrorSet(obj.YAML)
		if err != nil {
			return nil // the audit says so
		}
		for _, m := range mirrors {
			for _, to := range m.Mirrors {
				d, err := objects.ParseDestination(to)
				if err != nil || found != nil && *found != d {
					return nil
				}
				found = &d
			}
		}
	}
	return found
}

// recall takes the destination that the drive was packed for before, if this run names none:
// START-HERE.txt and the releases that are added say it again.
func (p *packer) recall() {
	if p.opts.Destination == nil && p.base != nil && p.opts.Only == nil {
		p.opts.Destination = p.base.Destination()
		p.recalled = p.opts.Destination != nil
	}
}

// warnLoopback warns of a destination that is of no use to nodes, while that costs nothing.
func (p *packer) warnLoopback() {
	if d := p.opts.Destination; d != nil && objects.IsLoopback(d.Registry) {
		p.warn("%s names on every node the node itself: what is rendered for it, and START-HERE.txt, serve a rehearsal on this machine; name the registry as the nodes know it, or leave the destination to unpack, which takes --cluster-registry REGISTRY/REPO", d.Registry)
	}
}
