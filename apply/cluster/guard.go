package cluster

// on reports whether a guard or check is switched on. All are, but for tests that show that
// each is needed.
func (c *Cluster) on(name string) bool { return !c.disable[name] }

// applyGuards are the rules that keep apply from doing harm.
var applyGuards = []string{
	"loopback",         // a mirror that on a node is the node itself
	"covered",          // what the cluster already says is not written again
	"foreign",          // objects of others are not changed
	"mirror-set-kinds", // kinds that must not stand together do not
	"mirror-policies",  // no two policies for one source
	"hidden-mirrors",   // no more specific source that makes ours useless
}
