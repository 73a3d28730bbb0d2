//go:build faults

package main

const allFaults = true
