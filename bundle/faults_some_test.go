//go:build !faults

package bundle_test

// allFaults has the tests go through every power cut and every kill, not only some of each
// (make faults).
const allFaults = false
