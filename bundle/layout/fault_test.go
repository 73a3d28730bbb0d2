package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pannier/bundle/content"
)

// recorder is the real file system, whose calls are written down and one of which may fail.
// Files lose their speed-ups (it hides nothing else).
type recorder struct {
	mu     sync.Mutex
	calls  []string
	match  func(call string) bool // the call to fail, nil for none
	skip   int                    // matching calls that pass before
	err    error
	failed bool
	noFS   bool // syncfs is not to be had
}

func (r *recorder) open(dir string) (FS, error) {
	f, err := OpenFS(dir)
	if err != nil {
		return nil, err
	}
	return &recordedFS{FS: f, r: r}, nil
}

func (r *recorder) call(op, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	call := op + " " + name
	r.calls = append(r.calls, call)
	if r.match == nil || r.failed || !r.match(call) {
		return nil
	}
	if r.skip > 0 {
		r.skip--
		return nil
	}
	r.failed = true
	return &fs.PathError{Op: op, Path: name, Err: r.err}
}

// writes returns the calls that change something.
func (r *recorder) writes() []string {
	return slices.DeleteFunc(slices.Clone(r.calls), func(c string) bool {
		op, _, _ := strings.Cut(c, " ")
		return op == "open" || op == "lstat" || op == "readdir" || op == "read" || op == "closed"
	})
}

type recordedFS struct {
	FS
	r *recorder
}

func (f *recordedFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	op := "open"
	switch {
	case flag&os.O_CREATE != 0:
		op = "create"
	case flag&(os.O_RDWR|os.O_WRONLY) != 0:
		op = "openrw"
	}
	if err := f.r.call(op, name); err != nil {
		return nil, err
	}
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &recordedFile{File: file, name: name, r: f.r, writes: op != "open"}, nil
}

func (f *recordedFS) Mkdir(name string, perm fs.FileMode) error {
	if err := f.r.call("mkdir", name); err != nil {
		return err
	}
	return f.FS.Mkdir(name, perm)
}

func (f *recordedFS) Rename(from, to string) error {
	if err := f.r.call("rename", from+" "+to); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

func (f *recordedFS) Remove(name string) error {
	if err := f.r.call("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *recordedFS) SyncDir(name string) error {
	if err := f.r.call("syncdir", name); err != nil {
		return err
	}
	return f.FS.SyncDir(name)
}

func (f *recordedFS) SyncFS() error {
	if f.r.noFS {
		return errors.ErrUnsupported
	}
	if err := f.r.call("syncfs", ""); err != nil {
		return err
	}
	return f.FS.SyncFS()
}

type recordedFile struct {
	File
	name   string
	r      *recorder
	writes bool
}

func (f *recordedFile) Read(p []byte) (int, error) {
	if err := f.r.call("read", f.name); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f *recordedFile) Write(p []byte) (int, error) {
	if err := f.r.call("write", f.name); err != nil {
		n, _ := f.File.Write(p[:len(p)/2]) // as a full drive does
		return n, err
	}
	return f.File.Write(p)
}

func (f *recordedFile) Sync() error {
	if err := f.r.call("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *recordedFile) Truncate(size int64) error {
	if err := f.r.call("truncate", f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *recordedFile) Close() error {
	op := "close"
	if !f.writes { // nothing is lost with it
		op = "closed"
	}
	if err := f.r.call(op, f.name); err != nil {
		f.File.Close()
		return err
	}
	return f.File.Close()
}

// order checks that the calls come in this order.
func (r *recorder) order(t *testing.T, want ...string) {
	t.Helper()
	i := 0
	for _, c := range r.calls {
		if i < len(want) && strings.TrimSpace(c) == want[i] {
			i++
		}
	}
	if i < len(want) {
		t.Errorf("missing or too early: %q in\n%s", want[i], strings.Join(r.calls, "\n"))
	}
}

func TestOrderOfOperations(t *testing.T) {
	for _, noFS := range []bool{false, true} {
		t.Run(fmt.Sprintf("without syncfs %v", noFS), func(t *testing.T) {
			rec := &recorder{noFS: noFS}
			l := newLayout(t, Options{FS: rec.open})
			b, desc := blob(3 * stepSize)
			if _, err := l.Ingest(t.Context(), desc, from(b, nil), nil); err != nil {
				t.Fatal(err)
			}
			ingested := len(rec.calls)
			if err := l.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			part, final := PartialPath(desc.Digest), BlobPath(desc.Digest)
			first, second := []string{"syncfs"}, []string{"syncfs"}
			if noFS {
				first = []string{"open " + part, "sync " + part, "closed " + part}
				second = []string{"open " + final, "sync " + final, "closed " + final}
			}
			want := []string{"create " + part, "write " + part, "write " + part, "write " + part, "close " + part}
			want = append(append(want, first...), "rename "+part+" "+final)
			want = append(append(want, second...), "syncdir blobs/sha256", "syncdir pannier/partial")
			rec.order(t, want...)
			for _, c := range rec.calls[:ingested] {
				if strings.HasPrefix(c, "syncfs") || strings.HasPrefix(c, "rename") && strings.Contains(c, final) {
					t.Errorf("%q before Flush", c)
				}
			}
			n := len(rec.calls)
			if err := l.Flush(t.Context()); err != nil || len(rec.calls) != n {
				t.Errorf("a Flush with nothing to do: %v, %v", rec.calls[n:], err)
			}
		})
	}
}

func TestOrderOfFiles(t *testing.T) {
	rec := &recorder{}
	l := newLayout(t, Options{FS: rec.open})
	rec.calls = nil
	if err := l.WriteFile("pannier/objects/a.yaml", []byte("a")); err != nil {
		t.Fatal(err)
	}
	rec.order(t, "mkdir pannier/objects", "syncdir pannier", "create pannier/objects/a.yaml", "write pannier/objects/a.yaml",
		"sync pannier/objects/a.yaml", "syncdir pannier/objects", "open pannier/objects/a.yaml", "sync pannier/objects/a.yaml")
	rec.calls = nil
	if err := l.ReplaceFile("index.json", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	rec.order(t, "create index.json.new", "write index.json.new", "sync index.json.new", "close index.json.new",
		"rename index.json.new index.json", "sync index.json", "syncdir .")
}

// TestFaultsOnIngest lets every call of an ingest and its flush fail once. Nothing that is
// not whole is reported complete, the error says what it was, and the next try succeeds.
func TestFaultsOnIngest(t *testing.T) {
	faults := []struct {
		errno syscall.Errno
		want  error
	}{{syscall.ENOSPC, ErrNoSpace}, {syscall.EIO, syscall.EIO}, {syscall.EROFS, ErrReadOnly}, {syscall.EFBIG, ErrTooLarge}}
	rows := []struct {
		op     string
		skip   int
		resume bool // from a partial file
	}{
		{"create", 0, false}, {"write", 0, false}, {"write", 2, false}, {"sync pannier", 0, false}, {"close ", 0, false},
		{"rename", 0, false}, {"syncdir blobs", 0, false}, {"syncdir pannier", 0, false}, {"syncfs", 0, false}, {"syncfs", 1, false},
		{"openrw", 0, true}, {"sync pannier", 0, true}, {"read", 0, true}, {"write", 0, true}, {"sync pannier", 1, true}, {"rename", 0, true},
		{"truncate", 0, false}, {"sync blobs", 0, false},
	}
	for _, row := range rows {
		for _, fault := range faults {
			t.Run(fmt.Sprintf("%s %d %v %v", row.op, row.skip, row.resume, fault.errno), func(t *testing.T) {
				rec := &recorder{noFS: strings.HasPrefix(row.op, "sync ")}
				l := newLayout(t, Options{FS: rec.open})
				b, desc := blob(3*stepSize + 100)
				if row.resume {
					writePartial(t, l, desc.Digest, b[:stepSize+1])
				}
				rec.match = func(c string) bool { return strings.HasPrefix(c, row.op) }
				rec.skip, rec.err = row.skip, fault.errno
				_, err := l.Ingest(t.Context(), desc, from(b, nil), nil)
				if err == nil {
					err = l.Flush(t.Context())
					if err != nil && l.Flush(t.Context()) == nil {
						t.Error("a Flush after a failed one succeeded")
					}
				}
				if !rec.failed {
					t.Fatalf("never called: %q of\n%s", row.op, strings.Join(rec.calls, "\n"))
				}
				healed := row.op == "read" && fault.errno == syscall.EIO // starts over by itself
				if !healed && (!errors.Is(err, fault.want) || !errors.Is(err, fault.errno)) {
					t.Fatalf("error %v, want %v", err, fault.want)
				}
				if healed && err != nil {
					t.Fatal(err)
				}
				if _, err := l.Verify(t.Context(), desc, nil); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("under the final name: %v", err)
				}
				again, err := Open(l.Dir(), Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer again.Close()
				in, err := again.Ingest(t.Context(), desc, from(b, nil), nil)
				if err != nil || string(in.Slices) != string(sums(b)) {
					t.Fatalf("the next try: %v", err)
				}
				if err := again.Flush(t.Context()); err != nil {
					t.Error(err)
				}
				mustHold(t, again, desc, b)
			})
		}
	}
}

func TestFaultsOnFiles(t *testing.T) {
	old, data := []byte("old content"), []byte("new content")
	for _, op := range []string{"create", "write", "sync", "close", "rename", "syncdir", "mkdir"} {
		for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO} {
			rec := &recorder{}
			l := newLayout(t, Options{FS: rec.open})
			if err := l.WriteFile("index.json", old); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"new/file", "index.json"} {
				rec.failed, rec.err = false, errno
				rec.match = func(c string) bool { return strings.HasPrefix(c, op+" ") }
				write := l.WriteFile
				if name == "index.json" {
					write = l.ReplaceFile
				}
				err := write(name, data)
				if rec.failed && !errors.Is(err, errno) {
					t.Errorf("%s %s %v: %v", op, name, errno, err)
				}
				if !rec.failed && err != nil {
					t.Errorf("%s %s: %v", op, name, err)
				}
				got, err := os.ReadFile(l.path(name))
				switch {
				case errors.Is(err, fs.ErrNotExist) && name != "index.json":
				case err != nil:
					t.Errorf("%s %s %v: %v", op, name, errno, err)
				case string(got) != string(data) && (name != "index.json" || string(got) != string(old)):
					t.Errorf("%s %s %v left %q", op, name, errno, got)
				}
				rec.match = nil
				if err := write(name, data); err != nil {
					t.Errorf("%s %s %v, the next try: %v", op, name, errno, err)
				}
			}
		}
	}
}

// TestFolderSyncIsOptional: FUSE drivers and network file systems have none.
func TestFolderSyncIsOptional(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EINVAL, syscall.ENOTSUP, syscall.ENOTTY, syscall.EACCES} {
		rec := &recorder{}
		l := newLayout(t, Options{FS: func(dir string) (FS, error) {
			f, err := rec.open(dir)
			return &noDirSync{FS: f, err: errno}, err
		}})
		b, desc := blob(100)
		if err := ingest(t, l, desc, b); err != nil {
			t.Errorf("%v: %v", errno, err)
		}
		if err := l.Flush(t.Context()); err != nil {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

type noDirSync struct {
	FS
	err error
}

func (f *noDirSync) SyncDir(string) error { return f.err }

func TestCreateOnReadOnlyDriver(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSYS, syscall.EROFS} {
		rec := &recorder{err: errno, match: func(c string) bool { return strings.HasPrefix(c, "mkdir") }}
		if _, err := Create(t.TempDir(), Options{FS: rec.open}); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

func TestFailedReadBackNamesOffset(t *testing.T) {
	rec := &recorder{err: syscall.EIO}
	l := newLayout(t, Options{FS: rec.open})
	b, desc := blob(3 * content.SliceSize)
	if err := ingest(t, l, desc, b); err != nil {
		t.Fatal(err)
	}
	rec.match, rec.skip = func(c string) bool { return c == "read "+BlobPath(desc.Digest) }, 1
	err := l.ReadBack(t.Context(), desc, sums(b), nil)
	if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "offset 1048576") {
		t.Error(err)
	}
}
