//go:build !faults

package verify_test

// allFaults has the tests go through every byte and number, not only some (make faults).
const allFaults = false
