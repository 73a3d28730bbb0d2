package objects

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Risk is a reason for which an update is not recommended to some clusters.
type Risk struct {
	Name    string `json:"name"`
	URL     string `json:"url,omitempty"`
	Message string `json:"message,omitempty"`
	// Rules say which clusters it concerns; any one that matches is enough. Queries can be
	// evaluated by the cluster alone.
	Rules []Rule `json:"matchingRules,omitempty"`
}

// Rule is one rule of a [Risk].
type Rule struct {
	Type   string  `json:"type"` // "Always" or "PromQL"
	PromQL *PromQL `json:"promql,omitempty"`
}

// PromQL is a query whose result 1 says that a risk concerns the cluster.
type PromQL struct {
	Query string `json:"promql"`
}

// Queries are the queries by which a cluster finds out whether the risk concerns it, each in
// one line.
func (r Risk) Queries() []string {
	var out []string
	for _, rule := range r.Rules {
		if rule.PromQL != nil {
			out = append(out, strings.Join(strings.Fields(rule.PromQL.Query), " "))
		}
	}
	return out
}

const maxText = 64 << 10 // bytes of the texts of a risk

// CheckRisks refuses risks without name, and more or longer ones than any graph has. Errors
// wrap [ErrInvalid].
func CheckRisks(risks []Risk) error {
	if len(risks) > maxRisks {
		return fmt.Errorf("%w: %d risks of one update", ErrInvalid, len(risks))
	}
	for _, r := range risks {
		n := len(r.Name) + len(r.URL) + len(r.Message)
		for _, rule := range r.Rules {
			if rule.PromQL != nil {
				n += len(rule.PromQL.Query)
			}
		}
		if r.Name == "" || n > maxText || len(r.Rules) > maxRisks {
			return fmt.Errorf("%w: a risk without name, or of %d bytes", ErrInvalid, n)
		}
	}
	return nil
}

// Update is an edge of a path of updates that was packed, as the release that it leads to has it.
type Update struct {
	From  string `json:"from"`
	Risks []Risk `json:"risks,omitempty"` // if any, it is conditional
}

const (
	maxUpdates = 1000 // recorded for one release
	maxRisks   = 100  // of one update
)

type updatesDocument struct {
	Updates []Update `json:"updates"`
}

// EncodeUpdates renders the recorded updates to a release (docs/format.md, "Captured
// documents"), sorted: the same updates give the same bytes.
func EncodeUpdates(updates []Update) ([]byte, error) {
	updates = slices.Clone(updates)
	slices.SortFunc(updates, func(a, b Update) int { return strings.Compare(a.From, b.From) })
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(updatesDocument{updates}); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// ParseUpdates reads what [EncodeUpdates] wrote. Errors wrap [ErrInvalid].
func ParseUpdates(raw []byte) ([]Update, error) {
	if len(raw) > MaxDocument {
		return nil, fmt.Errorf("%w: %d bytes of updates", ErrInvalid, len(raw))
	}
	var doc updatesDocument
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(doc.Updates) > maxUpdates {
		return nil, fmt.Errorf("%w: %d updates to one release", ErrInvalid, len(doc.Updates))
	}
	seen := map[string]bool{}
	for _, u := range doc.Updates {
		if u.From == "" || seen[u.From] {
			return nil, fmt.Errorf("%w: an update from %q, or two", ErrInvalid, u.From)
		}
		seen[u.From] = true
		if err := CheckRisks(u.Risks); err != nil {
			return nil, err
		}
	}
	return doc.Updates, nil
}
