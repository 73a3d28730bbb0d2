package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/trip"
	"pannier/bundle/layout/baddrive"
	"pannier/bundle/release/sample"
	"pannier/bundle/throttle"
)

// exits fails unless the command ended with code and said each of words.
func exits(t *testing.T, code int, words ...string) func(int, string) {
	t.Helper()
	return func(got int, said string) {
		t.Helper()
		if got != code {
			t.Errorf("exit code %d, want %d\n%s", got, code, said)
		}
		for _, w := range words {
			if !strings.Contains(said, w) {
				t.Errorf("%q is not said in\n%s", w, said)
			}
		}
	}
}

// The whole cycle under the rules of the file systems that drives have.
func TestFileSystems(t *testing.T) {
	f := newDrives(t, trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22"))
	for _, rules := range []baddrive.Rules{baddrive.POSIX, baddrive.FAT32, baddrive.ExFAT, baddrive.NTFS} {
		t.Run(rules.Name, func(t *testing.T) {
			d := baddrive.New(t, baddrive.Options{Rules: rules})
			media := filepath.Join(d.Plug(), "drive")
			exits(t, 0)(f.pack(t, media, "4.8.21"))
			exits(t, 0)(f.pack(t, media, "4.8.22"))
			for _, op := range d.Take() {
				if op.Kind == "other" {
					t.Errorf("a link or special file was tried: %v", op)
				}
			}
			d.Pull()
			d.Plug()
			exits(t, 0)(f.audit(t, media))
			exits(t, 0, "sealed")(f.inspect(t, media))
			exits(t, 0)(f.unpack(t, media))
			for _, op := range d.Take() {
				if op.Writes() {
					t.Errorf("a reader writes: %v", op)
				}
			}
		})
	}
}

// A file of 4 GiB less a byte fits onto FAT32 and a larger one does not, which is known
// before the first byte.
func TestFourGiB(t *testing.T) {
	for _, tc := range []struct {
		rules baddrive.Rules
		size  int64
		code  int
	}{
		{baddrive.FAT32, 1<<32 - 1, 0}, {baddrive.FAT32, 1 << 32, exitSpace}, {baddrive.FAT32, 1<<32 + 1, exitSpace},
		{baddrive.ExFAT, 1<<32 + 1, 0}, {baddrive.NTFS, 1<<32 + 1, 0}, {baddrive.POSIX, 1<<32 + 1, 0},
	} {
		t.Run(fmt.Sprintf("%s %d", tc.rules.Name, tc.size), func(t *testing.T) {
			r := trip.Make(t, sample.Options{Components: 3})
			layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.NewDigestFromEncoded(digest.SHA256, fmt.Sprintf("%064x", tc.size)), Size: tc.size}
			config := []byte(`{"architecture":"amd64","os":"linux"}`)
			raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
				ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, digest.FromBytes(config), len(config), layer.MediaType, layer.Digest, layer.Size)
			f := newDrives(t, r)
			f.o.Log.Before(func(w http.ResponseWriter, r *http.Request) bool {
				kind, ok := strings.CutPrefix(r.URL.Path, "/v2/large/image/")
				switch {
				case !ok:
				case strings.HasPrefix(kind, "manifests/"):
					w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
					w.Write(raw)
				default:
					w.Write(config)
				}
				return ok
			})
			d := baddrive.New(t, baddrive.Options{Rules: tc.rules})
			media := filepath.Join(d.Plug(), "drive")
			words := []string{"4.0 GiB"}
			if tc.code != 0 {
				words = []string{fmt.Sprintf("%064x", tc.size), "4.0 GiB", "exFAT"}
			}
			exits(t, tc.code, words...)(f.pack(t, media, "4.8.21", "--dry-run", "--additional-image", "quay.io/large/image:v1"))
			if tc.code != 0 {
				exits(t, tc.code, words...)(f.pack(t, media, "4.8.21", "--additional-image", "quay.io/large/image:v1"))
			}
			for _, op := range d.Take() {
				if op.Writes() {
					t.Errorf("refused, or a dry run, and yet: %v", op)
				}
			}
		})
	}
}

// What is needed is compared with what is free before the start; when others fill the drive
// meanwhile, pack ends with the same code, and goes on once there is room.
func TestFullDrive(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 3, LargeLayer: 6 << 20})
	f := newDrives(t, r)
	d := baddrive.New(t, baddrive.Options{Size: 64 << 20})
	media := filepath.Join(d.Plug(), "drive")
	d.Leave(4 << 20)
	exits(t, exitSpace, "are needed", "4.0 MiB are free", media)(f.pack(t, media, "4.8.21"))
	for _, op := range d.Take() {
		if op.Writes() {
			t.Errorf("it does not fit, and yet: %v", op)
		}
	}
	d.Leave(32 << 20)
	filling := 0
	d.Set(func(o *baddrive.Options) {
		o.OnWrite = func(k int) {
			if filling++; filling == 60 {
				d.Fill()
			}
		}
	})
	exits(t, exitSpace, "no space left", media)(f.pack(t, media, "4.8.21"))
	exits(t, exitIncomplete)(f.audit(t, media))
	d.Set(func(o *baddrive.Options) { o.OnWrite = nil })
	d.Leave(32 << 20)
	exits(t, 0)(f.pack(t, media, "4.8.21"))
	exits(t, 0)(f.audit(t, media))
}

// What is free is compared again while blobs arrive: pack ends long before the drive is full
// when another program takes the room that was there at the start.
func TestFullDriveMeanwhile(t *testing.T) {
	f := newDrives(t, trip.Make(t, sample.Options{Components: 3, LargeLayer: 100 << 20, LargeLayers: 2}))
	d := baddrive.New(t, baddrive.Options{Size: 512 << 20, Line: throttle.New(60<<20, 0)})
	media := filepath.Join(d.Plug(), "drive")
	calls := 0
	d.Set(func(o *baddrive.Options) {
		o.OnWrite = func(k int) {
			if calls++; calls == 30 {
				d.FillTo(80 << 20)
			}
		}
	})
	exits(t, exitSpace, "other programs write to it too", "are needed still", media)(f.pack(t, media, "4.8.21", "--parity", "0"))
	exits(t, exitIncomplete)(f.audit(t, media))
}

// A drive that holds less than it says, or has bad cells, is found out when what was written
// is read back, and never sealed. The page cache would have said otherwise.
func TestFalseDrive(t *testing.T) {
	f := newDrives(t, trip.Make(t, sample.Options{Components: 3, LayerSize: 64 << 10}))
	rotten := func(path string, off int64) bool { return strings.Contains(path, "partial/") && off == 20<<10 }
	for name, spoil := range map[string]func(*baddrive.Options){
		"false capacity": func(o *baddrive.Options) { o.RealSize = 300 << 10 },
		"bad cells":      func(o *baddrive.Options) { o.Rot = rotten },
	} {
		t.Run(name, func(t *testing.T) {
			d := baddrive.New(t, baddrive.Options{})
			media := filepath.Join(d.Plug(), "drive")
			d.Set(spoil)
			code, said := f.pack(t, media, "4.8.21")
			exits(t, exitUntrusted, "read back")(code, said)
			if seals, _ := filepath.Glob(filepath.Join(media, "pannier", "seal-*")); len(seals) > 0 {
				t.Errorf("it was sealed: %v", seals)
			}
			d.Pull()
			d.Plug()
			exits(t, exitIncomplete)(f.audit(t, media))
			d.Set(func(o *baddrive.Options) { o.RealSize, o.Rot = 1<<40, nil })
			exits(t, 0)(f.pack(t, media, "4.8.21"))
			d.Pull()
			d.Plug()
			exits(t, 0)(f.audit(t, media))
		})
	}
}

// Bad cells under the seal itself are found before pack says that it has finished; the same
// command seals again.
func TestFalseSeal(t *testing.T) {
	f := newDrives(t, trip.Make(t, sample.Options{Components: 3, LayerSize: 4 << 10}))
	for _, share := range []string{"0", "5%"} {
		d := baddrive.New(t, baddrive.Options{})
		media := filepath.Join(d.Plug(), "drive")
		d.Set(func(o *baddrive.Options) {
			o.Rot = func(path string, _ int64) bool { return strings.Contains(path, "seal-") }
		})
		exits(t, exitUntrusted, "read back", "seal-")(f.pack(t, media, "4.8.21", "--parity", share))
		d.Set(func(o *baddrive.Options) { o.Rot = nil })
		d.Pull()
		d.Plug()
		if code, said := f.audit(t, media); code == 0 {
			t.Errorf("parity %s: the drive is not bad at all\n%s", share, said)
		}
		exits(t, 0)(f.pack(t, media, "4.8.21", "--parity", share))
		exits(t, 0)(f.audit(t, media))
		d.Pull()
	}
}

// A drive that calls synced what is not, and loses power after pack has ended: whatever is
// lost, the audit says so, and the same command heals it.
func TestLyingDrive(t *testing.T) {
	f := newDrives(t, trip.Make(t, sample.Options{Components: 3, LayerSize: 16 << 10}))
	base := baddrive.New(t, baddrive.Options{})
	if err := os.Mkdir(filepath.Join(base.Plug(), "drive"), 0o755); err != nil {
		t.Fatal(err)
	}
	base.Pull()
	base.Sync()
	base.Set(func(o *baddrive.Options) { o.LyingSync = true })
	media := filepath.Join(base.Plug(), "drive")
	must(t)(f.pack(t, media, "4.8.21"))
	base.Pull()
	codes := map[int]int{}
	for _, how := range []baddrive.Survival{baddrive.Lost, baddrive.Random, baddrive.NamesOnly} {
		for seed := range uint64(12) {
			if seed > 0 && how != baddrive.Random {
				break
			}
			d := base.Crash(how, seed)
			media := filepath.Join(d.Plug(), "drive")
			code, said := f.audit(t, media)
			codes[code]++
			if code == 0 || strings.Contains(said, "goroutine ") {
				t.Errorf("%s (%d): %d\n%s", how, seed, code, said)
			}
			if code, said := f.unpack(t, media); code == 0 || strings.Contains(said, "goroutine ") {
				t.Errorf("%s (%d): unpack: %d\n%s", how, seed, code, said)
			}
			exits(t, 0)(f.pack(t, media, "4.8.21", "--verify"))
			exits(t, 0)(f.audit(t, media))
		}
	}
	t.Logf("exit codes of audit: %v", codes)
}

// The second pack onto a drive says who has it, and since when; a lock file that a dead
// process has left blocks nobody.
func TestTwoPacks(t *testing.T) {
	f := newDrives(t, trip.Small(t, "4.8.21"))
	d := baddrive.New(t, baddrive.Options{Rules: baddrive.ExFAT})
	media := filepath.Join(d.Plug(), "drive")
	must(t)(f.pack(t, media, "4.8.21"))
	holder := fmt.Appendf(nil, `{"holder":"pannier elsewhere","pid":%d,"host":"there","started":"2026-01-02T03:04:05Z"}`+"\n", os.Getpid())
	lock := filepath.Join(media, "pannier", "lock")
	if err := os.WriteFile(lock, holder, 0o644); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(lock)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	exits(t, exitError, "pannier elsewhere", fmt.Sprint(os.Getpid()), "2026-01-02T03:04:05Z", "another pannier is working")(f.pack(t, media, "4.8.21", "--refresh", "--for", "r.example/a/b"))
	held.Close()
	exits(t, 0)(f.pack(t, media, "4.8.21", "--refresh", "--for", "r.example/a/b"))
	if _, err := os.Stat(lock); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock stays: %v", err)
	}
	exits(t, 0)(f.audit(t, media))
}

// A drive packed under the strictest umask can be read by anybody else, from a drive that
// cannot be written to, and nobody tries to.
func TestReadByOthers(t *testing.T) {
	f := newDrives(t, trip.Small(t, "4.8.21"))
	d := baddrive.New(t, baddrive.Options{})
	media := filepath.Join(d.Plug(), "drive")
	old := syscall.Umask(0o077)
	code, said := f.pack(t, media, "4.8.21")
	syscall.Umask(old)
	exits(t, 0)(code, said)
	d.Pull()
	if err := os.Chmod(filepath.Dir(d.Plug()), 0o755); err != nil {
		t.Fatal(err)
	}
	d.Take()
	d.Fail(baddrive.Fault{Errno: syscall.EROFS, At: baddrive.Op.Writes, Then: baddrive.Op.Writes})
	for name, args := range map[string][]string{
		"audit":   {"audit", media, "--keyring", f.keys},
		"inspect": {"inspect", media, "--keyring", f.keys},
		"unpack":  {"unpack", media, f.site.Registry.Host + "/" + trip.Repository, "--keyring", f.keys},
	} {
		out, err := asNobody(t, f, args)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if hit := d.Hit(); hit != nil {
		t.Errorf("somebody tried %v", hit)
	}
}

// asNobody runs the program as a user who owns nothing, if this one may.
func asNobody(t *testing.T, f *drives, args []string) ([]byte, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		code, said := f.run(t, args...)
		if code != 0 {
			return []byte(said), fmt.Errorf("exit code %d", code)
		}
		return nil, nil
	}
	program, err := exec.LookPath("pannier")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(t.TempDir(), "pannier") // where others may go
	if err := os.WriteFile(program, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = []string{"HOME=/nonexistent"}
	err = cmd.Run()
	return out.Bytes(), err
}
