package main

// The tests read the CRDs of OpenShift from this module in the module cache: the import pins
// its version in go.mod, and none of its YAML is ever copied into the tree.
import _ "github.com/openshift/api/config/v1/zz_generated.crd-manifests"
