//go:build !linux

package preflight_test

import "testing"

func tmpfs(t *testing.T, _ string) string {
	t.Helper()
	t.Skip("SKIPPED: a tmpfs is mounted on Linux only")
	return ""
}
