package cluster

import (
	"fmt"
	"strings"
	"time"
)

// Of each object only the fields that are used are read; whatever else a cluster's version
// has or lacks disturbs nobody.

type meta struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	Labels          map[string]string `json:"labels"`
	Annotations     map[string]string `json:"annotations"`
	ResourceVersion string            `json:"resourceVersion"`
	Generation      int64             `json:"generation"`
}

type condition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"`
	Reason             string    `json:"reason"`
	Message            string    `json:"message"`
	LastTransitionTime time.Time `json:"lastTransitionTime"`
}

// text is reason and message for people.
func (c condition) text() string {
	message := strings.Join(strings.Fields(c.Message), " ")
	switch {
	case c.Reason == "":
		return message
	case message == "":
		return c.Reason
	}
	return c.Reason + ": " + message
}

// same reports whether nothing about a condition has changed.
func (c condition) same(d condition) bool {
	return c.Type == d.Type && c.Status == d.Status && c.Reason == d.Reason && c.Message == d.Message &&
		c.LastTransitionTime.Equal(d.LastTransitionTime)
}

type conditions []condition

// get returns the condition of a type, the zero condition if there is none.
func (cs conditions) get(name string) condition {
	for _, c := range cs {
		if c.Type == name {
			return c
		}
	}
	return condition{}
}

func (cs conditions) isTrue(name string) bool { return cs.get(name).Status == "True" }

// configMap holds both kinds of data; values of BinaryData are decoded.
type configMap struct {
	Metadata   meta              `json:"metadata"`
	Data       map[string]string `json:"data"`
	BinaryData map[string][]byte `json:"binaryData"`
}

type secret struct {
	Data map[string][]byte `json:"data"`
}

type releaseRef struct {
	Version string `json:"version"`
	Image   string `json:"image"`
}

type historyEntry struct {
	State          string     `json:"state"`
	StartedTime    time.Time  `json:"startedTime"`
	CompletionTime *time.Time `json:"completionTime"`
	Version        string     `json:"version"`
	Image          string     `json:"image"`
}

type clusterVersion struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		ClusterID     string         `json:"clusterID"`
		Channel       string         `json:"channel"`
		DesiredUpdate *desiredUpdate `json:"desiredUpdate"`
		Overrides     []struct {
			Kind      string `json:"kind"`
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
			Unmanaged bool   `json:"unmanaged"`
		} `json:"overrides"`
	} `json:"spec"`
	Status struct {
		Desired            releaseRef     `json:"desired"`
		History            []historyEntry `json:"history"`
		ObservedGeneration int64          `json:"observedGeneration"`
		Conditions         conditions     `json:"conditions"`
		AvailableUpdates   []releaseRef   `json:"availableUpdates"`
		ConditionalUpdates []struct {
			Release    releaseRef `json:"release"`
			Conditions conditions `json:"conditions"`
		} `json:"conditionalUpdates"`
	} `json:"status"`
}

type desiredUpdate struct {
	Architecture string `json:"architecture"`
	Version      string `json:"version"`
	Image        string `json:"image"`
	Force        bool   `json:"force"`
}

// current is the version that the cluster runs: the newest that was completed, else the
// oldest entry of the history, which is the installation.
func (cv *clusterVersion) current() string {
	for _, h := range cv.Status.History {
		if h.State == "Completed" {
			return h.Version
		}
	}
	if n := len(cv.Status.History); n > 0 {
		return cv.Status.History[n-1].Version
	}
	return cv.Status.Desired.Version
}

type pool struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		Paused        bool          `json:"paused"`
		Configuration configuration `json:"configuration"`
		NodeSelector  struct {
			MatchLabels map[string]string `json:"matchLabels"`
		} `json:"nodeSelector"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration int64         `json:"observedGeneration"`
		Configuration      configuration `json:"configuration"`
		Machines           int           `json:"machineCount"`
		Updated            int           `json:"updatedMachineCount"`
		Ready              int           `json:"readyMachineCount"`
		Unavailable        int           `json:"unavailableMachineCount"`
		Degraded           int           `json:"degradedMachineCount"`
		Conditions         conditions    `json:"conditions"`
	} `json:"status"`
}

type configuration struct {
	Name string `json:"name"`
}

// degraded is why a pool is degraded, "" if it is not.
func (p *pool) degraded() string {
	for _, t := range []string{"RenderDegraded", "NodeDegraded", "Degraded"} {
		if c := p.Status.Conditions.get(t); c.Status == "True" {
			if text := c.text(); text != "" {
				return t + ": " + text
			}
			if t == "Degraded" {
				return t
			}
		}
	}
	if p.Status.Degraded > 0 {
		return fmt.Sprintf("%d of %d nodes are degraded", p.Status.Degraded, p.Status.Machines)
	}
	return ""
}

// settled reports whether every machine of a pool has the configuration that the pool asks
// for, as far as its status has taken notice of that.
func (p *pool) settled() bool {
	s := p.Status
	return s.ObservedGeneration == p.Metadata.Generation && p.Spec.Configuration.Name == s.Configuration.Name &&
		s.Conditions.isTrue("Updated") && !s.Conditions.isTrue("Updating") &&
		s.Machines == s.Updated && s.Machines == s.Ready && p.degraded() == ""
}

type node struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		Unschedulable bool `json:"unschedulable"`
	} `json:"spec"`
	Status struct {
		Conditions conditions `json:"conditions"`
		NodeInfo   struct {
			Architecture   string `json:"architecture"`
			KubeletVersion string `json:"kubeletVersion"`
		} `json:"nodeInfo"`
	} `json:"status"`
}

// Annotations by which the machine-config daemon tells how far a node is.
const (
	nodeState         = "machineconfiguration.openshift.io/state"
	nodeReason        = "machineconfiguration.openshift.io/reason"
	nodeCurrentConfig = "machineconfiguration.openshift.io/currentConfig"
	nodeDesiredConfig = "machineconfiguration.openshift.io/desiredConfig"
)

// state is a node in a few words.
func (n *node) state() string {
	var words []string
	a := n.Metadata.Annotations
	switch s := a[nodeState]; {
	case s == "Degraded" || s == "Unreconcilable":
		words = append(words, strings.ToLower(s)+": "+strings.Join(strings.Fields(a[nodeReason]), " "))
	case a[nodeCurrentConfig] != a[nodeDesiredConfig]:
		words = append(words, "updating to "+a[nodeDesiredConfig])
	case s == "Working":
		words = append(words, "working")
	case s == "Done":
		words = append(words, "up to date")
	}
	if n.Spec.Unschedulable {
		words = append(words, "cordoned")
	}
	if !n.Status.Conditions.isTrue("Ready") {
		words = append(words, "not ready")
	}
	if len(words) == 0 {
		return "ready"
	}
	return strings.Join(words, ", ")
}

// in reports whether a node belongs to a pool. A node with a role of its own beside worker
// belongs to the pool of that role; where labels cannot tell, its configuration does.
func (n *node) in(p *pool, others []pool) bool {
	if !matches(n, p) {
		return false
	}
	if p.Metadata.Name != "worker" {
		return true
	}
	for i := range others {
		if others[i].Metadata.Name != "worker" && matches(n, &others[i]) {
			return false
		}
	}
	return true
}

func matches(n *node, p *pool) bool {
	if len(p.Spec.NodeSelector.MatchLabels) == 0 {
		return false
	}
	for k, v := range p.Spec.NodeSelector.MatchLabels {
		if got, ok := n.Metadata.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

type clusterOperator struct {
	Metadata meta `json:"metadata"`
	Status   struct {
		Conditions conditions `json:"conditions"`
		Versions   []struct {
			Name    string `json:"name"`
			Version string `json:"version"`
		} `json:"versions"`
	} `json:"status"`
}

type imageConfig struct {
	Spec struct {
		AdditionalTrustedCA named `json:"additionalTrustedCA"`
		RegistrySources     struct {
			Allowed  []string `json:"allowedRegistries"`
			Blocked  []string `json:"blockedRegistries"`
			Insecure []string `json:"insecureRegistries"`
		} `json:"registrySources"`
	} `json:"spec"`
}

type proxyConfig struct {
	Spec struct {
		TrustedCA named  `json:"trustedCA"`
		HTTPS     string `json:"httpsProxy"`
		NoProxy   string `json:"noProxy"`
	} `json:"spec"`
}

type named struct {
	Name string `json:"name"`
}
