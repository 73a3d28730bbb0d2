//go:build cluster

package clustertest

import (
	"strings"
	"testing"
)

// TestCutField: a field that is not there cannot be cut, so that a list of fields that has
// gone stale does not pass for an older cluster.
func TestCutField(t *testing.T) {
	dir, err := moduleDir(t.Context(), "github.com/openshift/api")
	if err != nil {
		t.Fatal(err)
	}
	for field, ok := range map[string]bool{
		"spec.channel":                 true,
		"status.history.acceptedRisks": true, // through an array
		"spec.desiredUpdate.colour":    false,
		"spec.colour.red":              false,
	} {
		crd, err := readCRD(dir, "clusterversions.config.openshift.io")
		if err != nil {
			t.Fatal(err)
		}
		if err := cutField(crd, field); (err == nil) != ok {
			t.Errorf("cut %s: %v", field, err)
		}
		if err := cutField(crd, field); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("cut %s once more: %v", field, err)
		}
	}
	if _, err := readCRD(dir, "trees.wood.example"); err == nil {
		t.Error("found a CRD that nobody made")
	}
}
