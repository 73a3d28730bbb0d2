//go:build unix

package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"pannier/bundle/content"
)

// readAsNobody is run in another process, which may read the drive and no more.
func readAsNobody(dir string) error {
	l, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	defer l.Close()
	ctx := context.Background()
	b, desc := blob(5000)
	if _, err := content.ReadAll(ctx, l, desc, desc.Size); err != nil {
		return err
	}
	if _, err := l.Verify(ctx, desc, nil); err != nil {
		return err
	}
	if err := l.ReadBack(ctx, desc, sums(b), nil); err != nil {
		return err
	}
	more, moreDesc := blob(5001)
	if _, err := l.IngestBytes(ctx, moreDesc, more); !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("ingest: %w", err)
	}
	if _, err := l.Lock("nobody"); !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

// TestSomebodyElseReads: written by one user with a strict umask, read by another.
func TestSomebodyElseReads(t *testing.T) {
	top := t.TempDir()
	if !hasModes(t, top) {
		t.Skip("no permissions on this file system")
	}
	old := unix.Umask(0o077)
	l, err := Create(filepath.Join(top, "media"), Options{})
	if err == nil {
		b, desc := blob(5000)
		err = ingest(t, l, desc, b)
		err = errors.Join(err, l.WriteFile("pannier/objects/a.yaml", []byte("a")), l.Close())
	}
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(top, "media"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if want := map[bool]fs.FileMode{true: 0o755, false: 0o644}[d.IsDir()]; fi.Mode().Perm() != want {
			t.Errorf("%s: %v", path, fi.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		t.Skip("another user can be had by root only")
	}
	// The test binary itself lies where nobody else may look.
	for dir := top; dir != filepath.Dir(dir) && strings.HasPrefix(dir, os.TempDir()+string(filepath.Separator)); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(top, "test"), raw, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(top, "test"))
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "LAYOUT_TEST_READ="+l.Dir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
