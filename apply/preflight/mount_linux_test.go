package preflight_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// tmpfs is a small file system in memory.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: mounting a tmpfs takes root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "preflight", dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no tmpfs can be mounted here: %s", out)
	}
	t.Cleanup(func() {
		syscall.Unmount(dir, syscall.MNT_DETACH) // a process that another test begins may have our files open until it runs
	})
	if options != "" {
		if out, err := exec.Command("mount", "-o", options, dir).CombinedOutput(); err != nil {
			t.Fatalf("remount: %s", out)
		}
	}
	return dir
}
