//go:build !faults

package store

// allFaults has the tests go through every byte and number, not only some (make faults).
const allFaults = false
