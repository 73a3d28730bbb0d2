//go:build e2e && linux

package e2e_test

import (
	"os"
	"os/exec"
	"testing"
)

// TestReadBackPastDrivers damages the medium behind the back of the FUSE drivers that people
// use, and has the layout's own test see that reading back finds it: dropping a file's pages
// is not enough there.
func TestReadBackPastDrivers(t *testing.T) {
	for _, fsys := range fileSystems {
		if fsys.name != "exfat" && fsys.name != "ntfs" {
			continue
		}
		t.Run(fsys.name, func(t *testing.T) {
			d := fsys.insert(t, 64<<20)
			if driverOf(d.dir) == "" {
				return // the kernel's own driver: its cache is the file's pages
			}
			cmd := exec.Command("go", "test", "-tags", "e2e", "-count=1", "-run", "^TestReadBackThroughDriver$", "pannier/bundle/layout")
			cmd.Env = append(os.Environ(), "LAYOUT_TEST_FUSE="+d.dir+":"+d.image)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
