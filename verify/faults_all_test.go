//go:build faults

package verify_test

const allFaults = true
