// Package cluster is the cluster's side of a delivery: it compares and applies signature
// ConfigMaps and mirror sets, follows their rollout to the nodes, looks whether a cluster is
// fit for an update, asks for the update by digest and follows it.
//
// Invariants: an object that pannier did not make is never changed; nothing that stands in
// one of its own is removed; everything that can be judged by reading is judged before the
// first write; nothing is acknowledged, forced or paused in a person's place. Nothing here
// prints, and no host is contacted but the API server, the registry that is named, what the
// kubeconfig names, and for the alerts the cluster's own monitoring, by its route.
package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// FieldManager is the name under which the API server records what pannier wrote.
const FieldManager = "pannier"

// Options say which cluster is meant and how patient to be with it.
type Options struct {
	Kubeconfig []string // files, merged as oc does: of what stands twice the first counts; those that do not exist are passed over if there are several
	Context    string   // "" is the current context

	// Proxy finds the proxy for a request where the kubeconfig names none; nil uses none.
	Proxy func(*http.Request) (*url.URL, error)

	UserAgent string
	Timing    Timing
	Logger    *slog.Logger // nil discards
	Progress  func(Event)  // told of every change while something is followed; may be nil; called from one goroutine at a time
}

// Timing holds the times that waiting uses. Zero values are the defaults.
type Timing struct {
	Poll     time.Duration // between two looks at the cluster; 5 s
	Request  time.Duration // for one answer; 30 s
	GiveUp   time.Duration // without any answer of the API server while waiting; 20 min
	Denied   time.Duration // of nothing but 401 and 403 while waiting, as a restarting API server gives; 3 min
	Render   time.Duration // for the machine-config operator to take up a mirror set; 10 min
	Degraded time.Duration // that a pool must stay degraded to be given up; 2 min
	Refusal  time.Duration // that a refusal that stood before asking is taken for an old one; 5 min
	Accept   time.Duration // for the cluster to decide on a release; 15 min
	Backup   time.Duration // for the cluster's own etcd backup at acceptance (4.8 to 4.14); 45 min
	Probe    time.Duration // for one pod of a node probe; 3 min
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&t.Poll, 5 * time.Second}, {&t.Request, 30 * time.Second}, {&t.GiveUp, 20 * time.Minute},
		{&t.Denied, 3 * time.Minute}, {&t.Render, 10 * time.Minute}, {&t.Degraded, 2 * time.Minute},
		{&t.Refusal, 5 * time.Minute}, {&t.Accept, 15 * time.Minute}, {&t.Backup, 45 * time.Minute},
		{&t.Probe, 3 * time.Minute},
	} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	return t
}

// Event is one change seen while something is followed, for one line of text.
type Event struct {
	Time    time.Time
	Kind    string // "api", "object", "pool", "node", "operator", "version", "warning"
	Name    string // of what changed, "" for the cluster as a whole
	Message string // what is so now
}

// Cluster is one cluster, reached through its API server. It is safe for concurrent use.
type Cluster struct {
	server  string // URL, for messages
	user    string // name in the kubeconfig, for messages
	base    *url.URL
	client  *http.Client
	config  *rest.Config
	agent   string
	timing  Timing
	log     *slog.Logger
	tell    func(Event)
	disable map[string]bool // guards and checks that a test has switched off
}

// Connect reads the kubeconfig. It does not call the cluster: the first request does. Errors
// wrap [ErrConfig].
func Connect(opts Options) (*Cluster, error) {
	if len(opts.Kubeconfig) == 0 {
		return nil, fmt.Errorf("%w: no kubeconfig is named", ErrConfig)
	}
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: opts.Kubeconfig, WarnIfAllMissing: true}
	if len(opts.Kubeconfig) == 1 {
		rules = &clientcmd.ClientConfigLoadingRules{ExplicitPath: opts.Kubeconfig[0]}
	}
	files := strings.Join(opts.Kubeconfig, ", ")
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules,
		&clientcmd.ConfigOverrides{CurrentContext: opts.Context})
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrConfig, files, err)
	}
	name, err := contextName(raw, opts.Context)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrConfig, files, err)
	}
	cfg, err := clientcmd.NewNonInteractiveClientConfig(raw, name, &clientcmd.ConfigOverrides{}, rules).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: context %s: %w", ErrConfig, files, name, err)
	}
	return connect(cfg, raw.Contexts[name].AuthInfo, opts)
}

// contextName is the context that is meant; client-go's own messages for a wrong one do not
// say which there are.
func contextName(raw api.Config, want string) (string, error) {
	name := want
	if name == "" {
		name = raw.CurrentContext
	}
	if raw.Contexts[name] != nil {
		return name, nil
	}
	var names []string
	for n := range raw.Contexts {
		names = append(names, n)
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return "", errors.New("it names no cluster")
	case name == "":
		return "", fmt.Errorf("no current context is set; there are %s", strings.Join(names, ", "))
	}
	return "", fmt.Errorf("there is no context %q; there are %s", name, strings.Join(names, ", "))
}

func connect(cfg *rest.Config, user string, opts Options) (*Cluster, error) {
	cfg = rest.CopyConfig(cfg)
	if cfg.Proxy == nil {
		cfg.Proxy = opts.Proxy
		if cfg.Proxy == nil { // client-go would take one from the environment
			cfg.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
		}
	}
	cfg.WarningHandler = rest.NoWarnings{}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	base, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c := &Cluster{
		server: base.String(), user: user, base: base, client: client, config: cfg, agent: opts.UserAgent,
		timing: opts.Timing.withDefaults(), log: opts.Logger, tell: opts.Progress,
	}
	if c.agent == "" {
		c.agent = FieldManager
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Server is the URL of the API server.
func (c *Cluster) Server() string { return c.server }

// event tells the caller of a change.
func (c *Cluster) event(kind, name, format string, args ...any) {
	e := Event{Time: time.Now(), Kind: kind, Name: name, Message: fmt.Sprintf(format, args...)}
	c.log.Debug("cluster", "kind", e.Kind, "name", e.Name, "message", e.Message)
	if c.tell != nil {
		c.tell(e)
	}
}
