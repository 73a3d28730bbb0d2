package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pannier/apply"
	"pannier/apply/cluster"
	"pannier/apply/preflight"
	"pannier/bundle/objects"
	"pannier/bundle/remote"
)

// pace is how patient the cluster is followed with; the zero value is what people get, and
// tests are less patient.
var pace cluster.Timing

// clusterFlags is how the cluster is reached.
type clusterFlags struct{ kubeconfig, context string }

func (f *clusterFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "kubeconfig", Destination: &f.kubeconfig, TakesFile: true,
			Usage: "`FILE` that says how to reach the cluster (default: $KUBECONFIG, ~/.kube/config)"},
		&cli.StringFlag{Name: "context", Destination: &f.context, Usage: "`NAME` of the kubeconfig's context (default: its current one)"},
	}
}

// files are the kubeconfigs that count; nil if there is none.
func (f *clusterFlags) files(env environ) []string {
	if f.kubeconfig != "" {
		return []string{env.expandHome(f.kubeconfig)}
	}
	return env.kubeconfigs()
}

// connect reads the kubeconfig; the cluster is not asked yet.
func (f *clusterFlags) connect(s *session) (*cluster.Cluster, error) {
	files := f.files(s.env)
	if len(files) == 0 {
		return nil, usagef(s.command, "no kubeconfig: give --kubeconfig FILE, or set KUBECONFIG")
	}
	return cluster.Connect(cluster.Options{
		Kubeconfig: files, Context: f.context, Proxy: http.ProxyFromEnvironment,
		UserAgent: "pannier/" + buildVersion(), Timing: pace, Logger: s.log, Progress: s.clusterEvent,
	})
}

// updateFlags is what an update needs beside.
type updateFlags struct {
	etcdBackup string
	paused     cli.StringSlice
}

func (f *updateFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "etcd-backup", Destination: &f.etcdBackup,
			Usage: "evidence of a backup of etcd younger than 24 hours, `FILE|TIME`: of a FILE it is looked at whether it is a snapshot, a TIME (2026-01-31T15:04, or an age as 3h) is believed"},
		&cli.StringSliceFlag{Name: "allow-paused-pool", Destination: &f.paused,
			Usage: "machine config pool `NAME` that may be paused, as workers are for an EUS update; it is not waited for; repeatable"},
	}
}

func waitFlag(wait *bool) cli.Flag {
	return &cli.BoolFlag{Name: "wait", Destination: wait, Usage: "follow the cluster until it is done, one line for each change"}
}

// registryOptions are how the registry is looked at for a cluster.
func registryOptions(client *remote.Client, opts remote.Options, dest objects.Destination, nodes *objects.Destination, jobs int) apply.RegistryOptions {
	return apply.RegistryOptions{
		Client: client, Destination: dest, Cluster: nodes, Jobs: jobs,
		Login: func(pullSecret []byte) (*remote.Client, error) {
			if len(pullSecret) == 0 {
				pullSecret = []byte("{}")
			}
			o := opts
			o.AuthFiles, o.AuthExplicit, o.AuthData = nil, false, pullSecret
			return remote.New(o)
		},
	}
}

// refuseLoopback refuses a name of the registry that on a node is the node itself.
func (s *session) refuseLoopback(what string, dest objects.Destination, nodes *objects.Destination) error {
	if nodes != nil {
		dest = *nodes
	}
	if !objects.IsLoopback(dest.Registry) {
		return nil
	}
	return usagef(s.command, "%s: %s names on every node the node itself; give the name by which the nodes know the registry with --cluster-registry REGISTRY/REPO", what, dest.Registry)
}

// clusterEvent prints one change in the cluster as one line.
func (s *session) clusterEvent(e cluster.Event) {
	c := s.console
	switch {
	case c.events:
		line, err := json.Marshal(map[string]string{
			"event": "cluster", "time": e.Time.UTC().Format(time.RFC3339), "kind": e.Kind, "name": printable(e.Name), "text": printable(e.Message),
		})
		if err == nil {
			c.Write(append(line, '\n'))
		}
	case e.Kind == "warning":
		c.warn("%s", strings.TrimPrefix(e.Name+": "+e.Message, ": "))
	case s.mode != progressQuiet:
		what := strings.TrimSpace(e.Kind + " " + e.Name)
		c.say("%s %s: %s", e.Time.Format(time.TimeOnly), what, e.Message)
	}
}

// clusterPlanText renders what applying does.
func clusterPlanText(server string, p *cluster.Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Cluster %s:\n", printable(server))
	for _, c := range p.Changes {
		fmt.Fprintf(&b, "  %s %s %s", c.Action, printable(c.Object.Kind), printable(c.Object.Name))
		if c.Reason != "" {
			fmt.Fprintf(&b, " (%s)", printable(c.Reason))
		}
		b.WriteByte('\n')
		for line := range strings.Lines(c.Diff) {
			fmt.Fprintf(&b, "    %s\n", printable(strings.TrimRight(line, "\n")))
		}
	}
	var rows [][]string
	if p.Kind != "" {
		rows = append(rows, []string{"mirror set", strings.TrimSuffix(string(p.Kind)+": "+p.KindReason, ": ")})
	}
	rows = append(rows, []string{"nodes", p.NodeEffect})
	b.WriteString(table(rows) + "\n")
	if p.Writes() && len(p.Pools) > 0 {
		b.WriteString(poolsText(p.Pools) + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

// poolsText is the table of machine config pools.
func poolsText(pools []cluster.PoolState) string {
	rows := [][]string{{"POOL", "NODES", "UPDATED", "READY", "STATE"}}
	for _, p := range pools {
		state := "rolling out"
		switch {
		case p.Degraded != "":
			state = "DEGRADED: " + p.Degraded
		case p.Paused:
			state = "paused"
		case p.Settled:
			state = "up to date"
		}
		rows = append(rows, []string{p.Name, fmt.Sprint(p.Machines), fmt.Sprint(p.Updated), fmt.Sprint(p.Ready), state})
	}
	return table(rows)
}

// nodesText is the table of nodes.
func nodesText(nodes []cluster.NodeState) string {
	rows := [][]string{{"NODE", "POOL", "READY", "STATE"}}
	for _, n := range nodes {
		ready := "yes"
		if !n.Ready {
			ready = "NO"
		}
		rows = append(rows, []string{n.Name, n.Pool, ready, n.State})
	}
	return table(rows)
}

// statesText is the table of pools and nodes; "" where the cluster shows neither.
func statesText(pools []cluster.PoolState, nodes []cluster.NodeState) string {
	var parts []string
	if len(pools) > 0 {
		parts = append(parts, poolsText(pools))
	}
	if len(nodes) > 0 {
		parts = append(parts, nodesText(nodes))
	}
	return strings.Join(parts, "\n\n")
}

// clusterPlanDocument is a plan for the cluster as JSON.
type clusterPlanDocument struct {
	Server     string           `json:"server"`
	Changes    []changeDocument `json:"changes"`
	MirrorSet  string           `json:"mirrorSet,omitempty"` // the kind that was chosen
	Reason     string           `json:"reason,omitempty"`    // why that one
	NodeEffect string           `json:"nodeEffect"`
	Pools      []poolDocument   `json:"pools"`
	Warnings   []string         `json:"warnings"`
}

type changeDocument struct {
	Action string `json:"action"` // create, update, unchanged, covered
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Reason string `json:"reason,omitempty"`
	Diff   string `json:"diff,omitempty"`
}

type poolDocument struct {
	Name     string `json:"name"`
	Nodes    int    `json:"nodes"`
	Updated  int    `json:"updated"`
	Ready    int    `json:"ready"`
	Paused   bool   `json:"paused"`
	Degraded string `json:"degraded,omitempty"`
	Settled  bool   `json:"settled"`
}

func planDocumentOf(server string, p *cluster.Plan, more []string) *clusterPlanDocument {
	doc := &clusterPlanDocument{
		Server: server, Changes: []changeDocument{}, MirrorSet: string(p.Kind), Reason: p.KindReason, NodeEffect: p.NodeEffect,
		Pools: []poolDocument{}, Warnings: append(append([]string{}, more...), p.Warnings...),
	}
	for _, c := range p.Changes {
		doc.Changes = append(doc.Changes, changeDocument{string(c.Action), c.Object.Kind, c.Object.Name, c.Reason, c.Diff})
	}
	for _, s := range p.Pools {
		doc.Pools = append(doc.Pools, poolDocument{s.Name, s.Machines, s.Updated, s.Ready, s.Paused, s.Degraded, s.Settled})
	}
	return doc
}

// checksText is the table of checks: the state, the name, the evidence, and below it what to
// do. Details may be long, so that they are wrapped rather than laid out in columns.
func checksText(checks []preflight.Check) string {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "%-4s  %s\n", strings.ToUpper(string(c.Status)), printable(c.Name))
		for _, line := range strings.Split(c.Detail, "\n") {
			b.WriteString(wrap(printable(line), "      "))
		}
		if c.Remedy != "" && c.Status != preflight.Pass {
			b.WriteString(wrap("to do: "+printable(c.Remedy), "      "))
		}
	}
	return b.String()
}
