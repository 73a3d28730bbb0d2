package objects

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestUpdates(t *testing.T) {
	risk := Risk{Name: "R", Message: "it may happen", Rules: []Rule{{Type: "PromQL", PromQL: &PromQL{"a\n  or <b>"}}, {Type: "Always"}}}
	in := []Update{{From: "4.8.2"}, {From: "4.8.1", Risks: []Risk{risk}}}
	raw, err := EncodeUpdates(in)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(in)
	if again, _ := EncodeUpdates(in); string(again) != string(raw) {
		t.Error("the order of arrival shows")
	}
	out, err := ParseUpdates(raw)
	if err != nil || len(out) != 2 || out[0].From != "4.8.1" || out[0].Risks[0].Queries()[0] != "a or <b>" || out[1].Risks != nil {
		t.Errorf("%v: %+v", err, out)
	}
	for _, bad := range []string{
		"", `{"updates":[{"from":""}]}`, `{"updates":[{"from":"4.8.1"},{"from":"4.8.1"}]}`, `{"updates":[{"from":"4.8.1","risks":[{}]}]}`,
		`{"updates":[{"from":"4.8.1","risks":[` + strings.Repeat(`{"name":"R"},`, maxRisks) + `{"name":"R"}]}]}`,
		`{"updates":[{"from":"4.8.1","risks":[{"name":"R","message":"` + strings.Repeat("x", maxText) + `"}]}]}`,
	} {
		if _, err := ParseUpdates([]byte(bad)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.100s: %v", bad, err)
		}
	}
}

func FuzzParseUpdates(f *testing.F) {
	f.Add([]byte(`{"updates":[{"from":"4.8.1","risks":[{"name":"R","matchingRules":[{"type":"PromQL","promql":{"promql":"x"}}]}]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		updates, err := ParseUpdates(raw)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
			return
		}
		again, err := EncodeUpdates(updates)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseUpdates(again); err != nil && len(again) <= MaxDocument {
			t.Errorf("what was written is not read: %v", err)
		}
	})
}
