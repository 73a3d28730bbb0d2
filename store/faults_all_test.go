//go:build faults

package store

const allFaults = true
