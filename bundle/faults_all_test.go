//go:build faults

package bundle_test

const allFaults = true
