package custody

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pannier/bundle/content"
)

// SignedEntries are the entries of a log that one key signed directly, or none did. A signature
// vouches for every line before it, too.
type SignedEntries struct {
	Name        string   `json:"name,omitempty"`        // as the trusted signers name the key; "" if they do not
	Fingerprint string   `json:"fingerprint,omitempty"` // "" of what nobody signed
	Entries     int      `json:"entries"`
	Events      []string `json:"events"` // of these entries, each once, oldest first
}

// String says it in words: "3 entries (packed, sealed, attached) signed by officer@example.com".
func (s SignedEntries) String() string {
	entries := content.Plural(s.Entries, "entry", "entries")
	by := "signed by nobody"
	switch {
	case s.Name != "":
		by = fmt.Sprintf("signed by %s (%s)", s.Name, s.Fingerprint)
	case s.Fingerprint != "":
		by = fmt.Sprintf("signed by the key %s, for which nobody vouches", s.Fingerprint)
	}
	return fmt.Sprintf("%s (%s) %s", entries, strings.Join(s.Events, ", "), by)
}

// signed sums up who signed the entries of a log, in the order in which they first did.
func (l *Log) signed(trusted *Signers, now time.Time) (out []SignedEntries) {
	at := map[string]int{} // by fingerprint
	for _, line := range l.Lines {
		if line.Err != nil || line.Event == Signed {
			continue
		}
		one := SignedEntries{}
		if line.Signer != nil {
			one.Fingerprint = line.Signer.Fingerprint
			one.Name, _ = trusted.Name(line.Signer, now)
		}
		i, known := at[one.Fingerprint]
		if !known {
			i = len(out)
			at[one.Fingerprint], out = i, append(out, one)
		}
		out[i].Entries++
		if !slices.Contains(out[i].Events, line.Event) {
			out[i].Events = append(out[i].Events, line.Event)
		}
	}
	return out
}
