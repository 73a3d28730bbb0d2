package baddrive_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"pannier/bundle/layout/baddrive"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create writes a file and syncs it.
func create(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.Create(path)
	ok(t, err)
	_, err = f.WriteString(text)
	ok(t, errors.Join(err, f.Sync(), f.Close()))
}

// resync opens a file or folder and syncs it.
func resync(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	ok(t, err)
	ok(t, errors.Join(f.Sync(), f.Close()))
}

// found is what is on a drive: names with contents, or the error.
func found(t *testing.T, d *baddrive.Drive) string {
	t.Helper()
	dir := d.Plug()
	defer d.Pull()
	var out []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		text := string(raw)
		if err != nil {
			text = err.(*fs.PathError).Err.Error()
		}
		rel, _ := filepath.Rel(dir, path)
		out = append(out, rel+"="+text)
		return nil
	})
	ok(t, err)
	return strings.Join(out, " ")
}

func TestHonest(t *testing.T) {
	d := baddrive.New(t, baddrive.Options{})
	dir := d.Plug()
	ok(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	big := bytes.Repeat([]byte("0123456789abcdef"), 10_001)
	ok(t, os.WriteFile(filepath.Join(dir, "a/b/big"), big, 0o640))
	ok(t, os.WriteFile(filepath.Join(dir, "a/gone"), big[:5000], 0o644))
	ok(t, os.Rename(filepath.Join(dir, "a/gone"), filepath.Join(dir, "a/here")))
	ok(t, os.Truncate(filepath.Join(dir, "a/here"), 4097))
	ok(t, os.WriteFile(filepath.Join(dir, "x"), nil, 0o600))
	ok(t, os.Remove(filepath.Join(dir, "x")))
	for range 2 { // from the cache of the kernel, and without
		if got, err := os.ReadFile(filepath.Join(dir, "a/b/big")); err != nil || !bytes.Equal(got, big) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "a/here")); err != nil || !bytes.Equal(got, big[:4097]) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if fi, err := os.Stat(filepath.Join(dir, "a/b/big")); err != nil || fi.Mode() != 0o640 || fi.Size() != int64(len(big)) {
			t.Fatal(fi, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "a/gone")); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		ok(t, fstest.TestFS(os.DirFS(dir), "a/b/big", "a/here"))
		d.Pull()
		d.Plug()
	}
	if err := os.Link(filepath.Join(dir, "a/here"), filepath.Join(dir, "link")); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

// What the kernel's drivers were seen to leave after a power cut (docs/decisions/0002).
func TestPowerCut(t *testing.T) {
	type scene struct {
		name string
		do   func(t *testing.T, in func(string) string)
		// what is found on POSIX and on FAT
		posix, fat string
	}
	for _, sc := range []scene{
		{"written in place", func(t *testing.T, in func(string) string) { create(t, in("a/n"), "new") }, "", "a/n=new"},
		{"and the folder", func(t *testing.T, in func(string) string) { create(t, in("a/n"), "new"); resync(t, in("a")) }, "a/n=new", "a/n=new"},
		{"not synced", func(t *testing.T, in func(string) string) {
			ok(t, os.WriteFile(in("a/n"), []byte("new"), 0o644))
			resync(t, in("a"))
		}, "a/n=", "a/n="},
		{"renamed", func(t *testing.T, in func(string) string) {
			create(t, in("a/t"), "new")
			resync(t, in("a"))
			ok(t, os.Rename(in("a/t"), in("a/n")))
		}, "a/t=new", "a/t=new"},
		{"renamed, folder", func(t *testing.T, in func(string) string) {
			create(t, in("a/t"), "new")
			ok(t, os.Rename(in("a/t"), in("a/n")))
			resync(t, in("a"))
		}, "a/n=new", "a/t=new"},
		{"renamed into another folder, both", func(t *testing.T, in func(string) string) {
			create(t, in("a/t"), "new")
			resync(t, in("a"))
			ok(t, os.Rename(in("a/t"), in("b/n")))
			resync(t, in("b"))
			resync(t, in("a"))
		}, "b/n=new", "b/n="},
		{"replaced, folder", func(t *testing.T, in func(string) string) {
			create(t, in("a/n"), "old")
			resync(t, in("a"))
			create(t, in("a/t"), "new")
			ok(t, os.Rename(in("a/t"), in("a/n")))
			resync(t, in("a"))
		}, "a/n=new", "a/n=input/output error a/t=new"},
		{"renamed, file again", func(t *testing.T, in func(string) string) {
			create(t, in("a/t"), "new")
			resync(t, in("a"))
			ok(t, os.Rename(in("a/t"), in("b/n")))
			resync(t, in("b/n"))
		}, "a/t=new", "b/n=new"},
		{"replaced, file again and folder", func(t *testing.T, in func(string) string) {
			create(t, in("a/n"), "old")
			create(t, in("a/t"), "new")
			ok(t, os.Rename(in("a/t"), in("a/n")))
			resync(t, in("a/n"))
			resync(t, in("a"))
		}, "a/n=new", "a/n=new"},
	} {
		t.Run(sc.name, func(t *testing.T) {
			for _, rules := range []baddrive.Rules{baddrive.POSIX, baddrive.FAT32} {
				d := baddrive.New(t, baddrive.Options{Rules: rules})
				dir := d.Plug()
				in := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
				ok(t, os.Mkdir(in("a"), 0o755))
				ok(t, os.Mkdir(in("b"), 0o755))
				resync(t, dir)
				sc.do(t, in)
				d.Pull()
				want := sc.posix
				if rules.FAT {
					want = sc.fat
				}
				if got := found(t, d.Crash(baddrive.Lost, 0)); got != want {
					t.Errorf("%s: %q, want %q", rules.Name, got, want)
				}
				kept := found(t, d.Crash(baddrive.Kept, 0))
				d.Sync()
				if got := found(t, d.Crash(baddrive.Lost, 0)); got != kept {
					t.Errorf("%s: after syncfs %q, want %q", rules.Name, got, kept)
				}
			}
		})
	}
}

// Part of what was not synced survives, which part is a matter of the seed.
func TestPowerCutByChance(t *testing.T) {
	d := baddrive.New(t, baddrive.Options{})
	dir := d.Plug()
	create(t, filepath.Join(dir, "synced"), "here")
	resync(t, dir)
	for _, n := range []string{"p", "q", "r"} {
		ok(t, os.WriteFile(filepath.Join(dir, n), bytes.Repeat([]byte(n), 20_000), 0o644))
	}
	d.Pull()
	seen := map[string]bool{}
	for seed := range uint64(20) {
		a, b := d.Crash(baddrive.Random, seed), d.Crash(baddrive.Random, seed)
		if a.Print() != b.Print() {
			t.Fatal("one seed, two drives")
		}
		seen[a.Print()] = true
		if got := found(t, a); !strings.Contains(got, "synced=here") {
			t.Errorf("lost what was synced: %.100q", got)
		}
	}
	if len(seen) < 15 {
		t.Errorf("only %d outcomes of 20", len(seen))
	}
	if got := found(t, d.Crash(baddrive.NamesOnly, 0)); len(got) != len("synced=here")+3*(20_000+len(" p=")) || strings.Contains(got, "pp") {
		t.Errorf("names only: %.100q", got)
	}
}

func TestFaults(t *testing.T) {
	d := baddrive.New(t, baddrive.Options{})
	dir := d.Plug()
	path := filepath.Join(dir, "f")
	create(t, path, "text")
	write := func(o baddrive.Op) bool { return o.Kind == "write" }
	d.Fail(baddrive.Fault{Errno: syscall.ENOSPC, At: write})
	if err := os.WriteFile(path, []byte("other"), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if hit := d.Hit(); hit == nil || hit.String() != "write f (2)" {
		t.Errorf("%v", hit)
	}
	ok(t, os.WriteFile(path, []byte("other"), 0o644))
	d.Fail(baddrive.Fault{Errno: syscall.EROFS, At: write, Then: baddrive.Op.Writes})
	for range 2 {
		if err := os.WriteFile(path, []byte("other"), 0o644); !errors.Is(err, syscall.EROFS) {
			t.Error(err)
		}
	}
	if err := os.Remove(path); !errors.Is(err, syscall.EROFS) {
		t.Error(err)
	}
	d.Fail(baddrive.Fault{})
	ops := d.Take()
	if !slices.ContainsFunc(ops, func(o baddrive.Op) bool { return o.String() == "unlink f (1)" }) {
		t.Errorf("the trace lacks the removal: %v", ops)
	}
	ok(t, os.Remove(path))
}

func TestCapacity(t *testing.T) {
	d := baddrive.New(t, baddrive.Options{Size: 64 << 10})
	dir := d.Plug()
	if err := os.WriteFile(filepath.Join(dir, "f"), bytes.Repeat([]byte("x"), 80<<10), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	ok(t, os.Remove(filepath.Join(dir, "f")))
	d.Leave(8 << 10)
	if err := os.WriteFile(filepath.Join(dir, "f"), bytes.Repeat([]byte("x"), 9<<10), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	d.Leave(40 << 10)
	d.Set(func(o *baddrive.Options) { o.RealSize = 16 << 10 })
	data := bytes.Repeat([]byte("y"), 32<<10)
	create(t, filepath.Join(dir, "f"), string(data))
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the cache: %v", err)
	}
	d.Pull()
	d.Plug()
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || len(got) != len(data) || bytes.Equal(got, data) {
		t.Errorf("a false capacity holds everything: %v", err)
	}
}

func TestRules(t *testing.T) {
	for _, rules := range []baddrive.Rules{baddrive.FAT32, baddrive.ExFAT, baddrive.NTFS} {
		d := baddrive.New(t, baddrive.Options{Rules: rules})
		dir := d.Plug()
		path := filepath.Join(dir, "Name")
		create(t, path, "text")
		if _, err := os.OpenFile(filepath.Join(dir, "nAME"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: names differ by case: %v", rules.Name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "a:b"), nil, 0o644); !errors.Is(err, rules.BadName) {
			t.Errorf("%s: %v", rules.Name, err)
		}
		ok(t, os.Chmod(path, 0o600))
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v %v", rules.Name, fi.Mode(), err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		ok(t, err)
		_, err = f.WriteAt([]byte("xy"), 1<<32-2)
		if rules.MaxFile > 0 && !errors.Is(err, syscall.EFBIG) || rules.MaxFile == 0 && err != nil {
			t.Errorf("%s: across 4 GiB: %v", rules.Name, err)
		}
		ok(t, f.Close())
	}
}
