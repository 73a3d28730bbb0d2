package preflight_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pannier/apply/preflight"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/parity"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/bundle/remote"
)

// client asks host in place of quay.io, and does not wait long.
func client(t *testing.T, o remote.Options, host string) *remote.Client {
	t.Helper()
	o.GiveUpAfter = time.Second
	if host != "" {
		o.Mirrors = []remote.Mirror{{From: "quay.io", To: host}}
	}
	c, err := remote.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// origin is the internet: a release at a registry, signed.
func origin(t *testing.T) (*trip.Origin, *sample.Release) {
	r := trip.Small(t, "4.8.21")
	return trip.NewOrigin(t, r), r
}

// nearOptions asks whether refs can be packed from o onto a new folder.
func nearOptions(t *testing.T, o *trip.Origin, refs ...string) preflight.NearOptions {
	t.Helper()
	opts := preflight.NearOptions{
		Media: trip.Drive(t), Client: client(t, remote.Options{}, o.Registry.Host),
		Signatures: o.Verifier, Stores: []string{o.Store}, Cache: t.TempDir(),
	}
	for _, text := range refs {
		ref, err := release.ParseReference(text, release.Defaults{})
		if err != nil {
			t.Fatal(err)
		}
		opts.Releases = append(opts.Releases, ref)
	}
	return opts
}

// on is a drive of its own with room for everything, as StatSpace would tell of one.
func on(s *layout.Space) { s.SameDeviceAsRoot = false; s.Filesystem = "exfat" }

// fat is one with limits.
func fat(file int64, names int) func(*layout.Space) {
	return func(s *layout.Space) {
		s.SameDeviceAsRoot, s.Filesystem, s.MaxFile, s.MaxNames = false, "vfat", file, names
	}
}

// status answers every request whose path contains part.
func status(code int, body string, part ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		for _, p := range part {
			if !strings.Contains(r.Method+" "+r.URL.Path, p) {
				return false
			}
		}
		w.WriteHeader(code)
		w.Write([]byte(body))
		return true
	}
}

// late sets the clock of a registry.
func late(d time.Duration) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Date", time.Now().Add(d).UTC().Format(http.TimeFormat))
		return false
	}
}

// web is a site that is no registry.
func web(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<html>welcome"))
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// nobody is an address at which nothing listens.
func nobody(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// liar is a drive that gives back other bytes than were written to it.
func liar(dir string) (layout.FS, error) {
	f, err := layout.OpenFS(dir)
	return &liarFS{f}, err
}

type liarFS struct{ layout.FS }

func (l *liarFS) OpenFile(name string, flag int, perm os.FileMode) (layout.File, error) {
	f, err := l.FS.OpenFile(name, flag, perm)
	if err == nil && flag == os.O_RDONLY && strings.HasPrefix(name, "blobs/sha256/") {
		return liarFile{f}, nil
	}
	return f, err
}

type liarFile struct{ layout.File }

func (l liarFile) Read(p []byte) (int, error) {
	n, err := l.File.Read(p)
	if n > 0 {
		p[0] ^= 1
	}
	return n, err
}

type nearGuard struct {
	name string
	want
	options func(t *testing.T) preflight.NearOptions
}

func nearGuards() []nearGuard {
	const version = "4.8.21"
	// scene makes options for a release of an origin at which something is wrong.
	scene := func(change func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions)) func(t *testing.T) preflight.NearOptions {
		return func(t *testing.T) preflight.NearOptions {
			o, r := origin(t)
			opts := nearOptions(t, o, version)
			change(t, o, r, &opts)
			return opts
		}
	}
	denied := func(part ...string) func(t *testing.T) preflight.NearOptions {
		return scene(func(t *testing.T, o *trip.Origin, _ *sample.Release, opts *preflight.NearOptions) {
			o.Log.Before(status(http.StatusForbidden, `{"errors":[{"code":"DENIED"}]}`, part...))
		})
	}
	fine := scene(func(t *testing.T, o *trip.Origin, _ *sample.Release, opts *preflight.NearOptions) {
		*opts = opts.On(on)
	})
	// drive makes options with a drive in some state.
	drive := func(change func(t *testing.T, media string)) func(t *testing.T) preflight.NearOptions {
		return scene(func(t *testing.T, o *trip.Origin, _ *sample.Release, opts *preflight.NearOptions) {
			o.Pack(opts.Media, version)
			change(t, opts.Media)
		})
	}
	fail, warn, pass, skip := preflight.Fail, preflight.Warn, preflight.Pass, preflight.Skip
	return []nearGuard{
		{"registry answers", want{"source-registry", pass, nil, "answers over http"}, fine},
		{"web page", want{"source-registry", fail, remote.ErrNotRegistry, ""}, scene(func(t *testing.T, o *trip.Origin, _ *sample.Release, opts *preflight.NearOptions) {
			opts.Client = client(t, remote.Options{}, web(t))
		})},
		{"nobody there", want{"source-registry", fail, remote.ErrUnreachable, ""}, scene(func(t *testing.T, o *trip.Origin, _ *sample.Release, opts *preflight.NearOptions) {
			opts.Client = client(t, remote.Options{}, nobody(t))
		})},
		{"clock right", want{"source-clock", pass, nil, "agrees"}, fine},
		{"clock ten minutes off", want{"source-clock", warn, nil, "behind"}, scene(func(t *testing.T, o *trip.Origin, _ *sample.Release, opts *preflight.NearOptions) {
			o.Log.Before(late(-10 * time.Minute))
		})},
		{"clock two hours off", want{"source-clock", fail, nil, "ahead"}, scene(func(t *testing.T, o *trip.Origin, _ *sample.Release, opts *preflight.NearOptions) {
			o.Log.Before(late(2 * time.Hour))
		})},
		{"all may be read", want{"source-access", pass, nil, "ocp-v4.0-art-dev"}, fine},
		{"release repository denied", want{"source-access", fail, remote.ErrAuth, "ocp-release"}, denied("/ocp-release/manifests/")},
		{"component repository denied", want{"source-access", fail, remote.ErrAuth, "ocp-v4.0-art-dev"}, denied("/ocp-v4.0-art-dev/manifests/")},
		{"component blobs denied", want{"source-access", fail, remote.ErrAuth, "ocp-v4.0-art-dev"}, denied("/ocp-v4.0-art-dev/blobs/")},
		{"no such version", want{"source-access", fail, remote.ErrNotFound, "4.8.99"}, func(t *testing.T) preflight.NearOptions {
			o, _ := origin(t)
			return nearOptions(t, o, "4.8.99")
		}},
		{"no release, repositories open", want{"source-access", pass, nil, "ocp-v4.0-art-dev may be read"}, func(t *testing.T) preflight.NearOptions {
			o, _ := origin(t)
			return nearOptions(t, o)
		}},
		{"no release, repository denied", want{"source-access", fail, remote.ErrAuth, "ocp-release"}, func(t *testing.T) preflight.NearOptions {
			o, _ := origin(t)
			o.Log.Before(status(http.StatusUnauthorized, "", "/ocp-release/"))
			return nearOptions(t, o)
		}},
		{"additional image missing", want{"source-access", fail, remote.ErrNotFound, "team/app"}, scene(func(t *testing.T, o *trip.Origin, _ *sample.Release, opts *preflight.NearOptions) {
			opts.Additional = []release.Reference{trip.Image(t, o.Registry.Host+"/team/app:1.0")}
		})},
		{"signature there", want{"signature-stores", pass, nil, "found 1"}, fine},
		{"signature missing", want{"signature-stores", fail, bundle.ErrSignature, "404"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			o.PutSignature(r.Descriptor.Digest, nil)
		})},
		{"signature missing, policy warn", want{"signature-stores", warn, bundle.ErrSignature, "404"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			o.PutSignature(r.Descriptor.Digest, nil)
			opts.Policy = bundle.PolicyWarn
		})},
		{"one store of two gone", want{"signature-stores", warn, nil, "found 1"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			opts.Stores = append(opts.Stores, filepath.Join(o.Store, "gone"))
		})},
		{"no store answers", want{"signature-stores", fail, remote.ErrUnreachable, "error"}, func(t *testing.T) preflight.NearOptions {
			o, _ := origin(t)
			opts := nearOptions(t, o)
			opts.Stores = []string{"http://" + nobody(t) + "/signatures"}
			return opts
		}},
		{"store answers, no release named", want{"signature-stores", pass, nil, "404"}, func(t *testing.T) preflight.NearOptions {
			o, _ := origin(t)
			return nearOptions(t, o)
		}},
		{"plan", want{"release-plan", pass, nil, "to be fetched"}, fine},
		{"a component is missing", want{"release-plan", fail, remote.ErrNotFound, ""}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			p, err := release.Read(t.Context(), r, r.Descriptor)
			if err != nil {
				t.Fatal(err)
			}
			last := p.Images[len(p.Images)-1]
			o.Log.Before(status(http.StatusNotFound, "", "/manifests/"+last.Digest.String()))
		})},
		{"no plan without release", want{"release-plan", skip, nil, "no release"}, func(t *testing.T) preflight.NearOptions {
			o, _ := origin(t)
			return nearOptions(t, o)
		}},
		{"no plan where no drive is", want{"release-plan", skip, nil, "see drive-mounted"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			opts.Media = filepath.Join(opts.Media, "mirror")
		})},
		{"signed by a trusted key", want{"release-signature", pass, nil, "signed by"}, fine},
		{"signed by a stranger", want{"release-signature", fail, bundle.ErrSignature, "unverified"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			o.Sign(trip.Stranger(), r)
		})},
		{"drive of its own", want{"drive-mounted", pass, nil, "device of its own"}, fine},
		{"not mounted", want{"drive-mounted", warn, nil, "same device"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			*opts = opts.On(func(s *layout.Space) { s.SameDeviceAsRoot = true })
		})},
		{"folder above missing", want{"drive-mounted", fail, bundle.ErrNotBundle, "folder above"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			opts.Media = filepath.Join(opts.Media, "mirror")
		})},
		{"a file", want{"drive-mounted", fail, bundle.ErrNotBundle, "it is a file"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			if err := os.WriteFile(opts.Media, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		})},
		{"nothing there", want{"drive-bundle", pass, nil, "nothing"}, fine},
		{"sealed bundle", want{"drive-bundle", pass, nil, "4.8.21-x86_64, sealed"}, drive(func(*testing.T, string) {})},
		{"something else there", want{"drive-bundle", fail, bundle.ErrNotBundle, ""}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			if err := os.MkdirAll(filepath.Join(opts.Media, "photos"), 0o755); err != nil {
				t.Fatal(err)
			}
		})},
		{"unsealed bundle", want{"drive-bundle", warn, nil, "not sealed"}, drive(unseal)},
		{"damaged seal", want{"drive-bundle", warn, nil, "seal-"}, drive(func(t *testing.T, media string) { trip.Flip(t, sealOf(t, media), 20) })},
		{"damaged index", want{"drive-bundle", warn, nil, "index"}, drive(damageIndex)},
		{"layout index lost", want{"drive-bundle", warn, bundle.ErrDamaged, "layout index"}, drive(loseLayout)},
		{"writable", want{"drive-writable", pass, nil, "removed"}, fine},
		{"read-only mount", want{"drive-writable", fail, layout.ErrReadOnly, ""}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			opts.Media = tmpfs(t, "remount,ro")
		})},
		{"driver that cannot create", want{"drive-writable", fail, layout.ErrReadOnly, ""}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			opts.FS = (&trip.Cut{At: 1, Err: syscall.EROFS}).FS
		})},
		{"full", want{"drive-writable", fail, layout.ErrNoSpace, ""}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			opts.Media = tmpfs(t, "")
			if err := os.WriteFile(filepath.Join(opts.Media, "photos"), make([]byte, 900<<10), 0o644); err != nil {
				t.Fatal(err)
			}
		})},
		{"dying", want{"drive-writable", fail, syscall.EIO, ""}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			opts.FS = (&trip.Cut{At: 8}).FS
		})},
		{"reads back", want{"drive-read-back", pass, nil, "read from the medium"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			if s, err := layout.StatSpace(opts.Media); err == nil && (s.Filesystem == "tmpfs" || s.Filesystem == "fuse") {
				t.Skip("SKIPPED: temporary files are on " + s.Filesystem)
			}
		})},
		{"gives back other bytes", want{"drive-read-back", fail, nil, "read back"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			opts.FS = liar
		})},
		{"memory is no medium", want{"drive-read-back", warn, nil, "in memory"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			opts.Media, opts.Releases = tmpfs(t, ""), nil
		})},
		{"no limits", want{"drive-file-system", pass, nil, "exfat"}, fine},
		{"temporary file system", want{"drive-file-system", warn, nil, "tmpfs"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			*opts = opts.On(func(s *layout.Space) { s.Filesystem = "tmpfs" })
		})},
		{"FAT, and it fits", want{"drive-file-system", pass, nil, "the largest of"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			*opts = opts.On(fat(1<<32-1, 10900))
		})},
		{"FAT, nothing to compare", want{"drive-file-system", warn, nil, "not compared"}, func(t *testing.T) preflight.NearOptions {
			o, _ := origin(t)
			return nearOptions(t, o).On(fat(1<<32-1, 10900))
		}},
		{"a blob too large", want{"drive-file-system", fail, layout.ErrTooLarge, ""}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			*opts = opts.On(fat(500, 10900))
		})},
		{"too many blobs", want{"drive-file-system", fail, layout.ErrTooLarge, ""}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			*opts = opts.On(fat(1<<32-1, 5))
		})},
		{"room enough", want{"drive-space", pass, nil, "are needed with parity"}, fine},
		{"room unknown without release", want{"drive-space", skip, nil, "free of"}, func(t *testing.T) preflight.NearOptions {
			o, _ := origin(t)
			return nearOptions(t, o)
		}},
		{"too little room", want{"drive-space", fail, layout.ErrNoSpace, "too few"}, scene(func(t *testing.T, o *trip.Origin, r *sample.Release, opts *preflight.NearOptions) {
			opts.Media = tmpfs(t, "")
		})},
		{"hosts are told", want{"source-hosts", pass, nil, "(registry)"}, fine},
		{"no host answers", want{"source-hosts", fail, remote.ErrUnreachable, "no host answered"}, scene(func(t *testing.T, o *trip.Origin, _ *sample.Release, opts *preflight.NearOptions) {
			opts.Client = client(t, remote.Options{}, nobody(t))
		})},
		{"one host of two is silent", want{"source-hosts", warn, nil, "(signature store); answered"}, scene(func(t *testing.T, o *trip.Origin, _ *sample.Release, opts *preflight.NearOptions) {
			opts.Stores = append(opts.Stores, "http://"+nobody(t)+"/signatures")
		})},
	}
}

func sealOf(t *testing.T, media string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(media, "pannier", "seal-*.json"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	return names[0]
}

func unseal(t *testing.T, media string) {
	if err := os.Remove(sealOf(t, media)); err != nil {
		t.Fatal(err)
	}
}

func damageIndex(t *testing.T, media string) {
	names, err := filepath.Glob(filepath.Join(media, "pannier", "index-*.db"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, n := range names {
		if err := os.Truncate(n, 100); err != nil {
			t.Fatal(err)
		}
	}
}

func loseLayout(t *testing.T, media string) {
	for _, pattern := range []string{"index.json", "pannier/layout-*.json"} {
		names, _ := filepath.Glob(filepath.Join(media, pattern))
		for _, n := range names {
			if err := os.Remove(n); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestNearNeedsWhatPackNeeds: the room that is compared is what pack with its defaults compares,
// parity included, so that nobody is told READY who is refused a minute later.
func TestNearNeedsWhatPackNeeds(t *testing.T) {
	t.Parallel()
	o, _ := origin(t)
	opts := nearOptions(t, o, "4.8.21")
	need := func(share parity.Share) int64 {
		plan, err := bundle.Pack(t.Context(), bundle.PackOptions{
			DryRun: true, Policy: bundle.PolicyWarn, Releases: opts.Releases, Media: opts.Media,
			Client: opts.Client, Parity: share,
		})
		if err != nil {
			t.Fatal(err)
		}
		return plan.Plan.Need
	}
	with, without := need(parity.DefaultShare), need(0)
	if with <= without {
		t.Fatalf("pack needs %d bytes with parity and %d without", with, without)
	}
	report, err := preflight.Near(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Checks {
		if c.Name == "drive-space" && !strings.Contains(c.Detail, content.SizeText(with)+" are needed") {
			t.Errorf("%s, and pack needs %s", c.Detail, content.SizeText(with))
		}
	}
}

// TestNear looks at what each check says of each state of the world, and then that it says
// so no more when it is switched off: no check hides behind another.
func TestNear(t *testing.T) {
	for _, g := range nearGuards() {
		t.Run(g.row+"/"+g.name, func(t *testing.T) {
			t.Parallel()
			opts := g.options(t)
			var before map[string]trip.State
			if info, err := os.Stat(opts.Media); err == nil && info.IsDir() {
				before = trip.Tree(t, opts.Media)
			}
			r, err := preflight.Near(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			whole(t, r, preflight.NearNames())
			if err := g.judge(r); err != nil {
				t.Error(err)
				show(t, r)
			}
			if before != nil {
				if after := trip.Tree(t, opts.Media); !maps.Equal(before, after) && opts.FS == nil {
					t.Errorf("the drive is not as it was: %v, %v", before, after)
				}
			} else if info, err := os.Stat(opts.Media); err == nil && info.IsDir() {
				t.Error("a folder was left")
			}
			if r, err = preflight.Near(t.Context(), opts.Without(g.row)); err != nil {
				t.Fatal(err)
			}
			if g.judge(r) == nil {
				t.Errorf("%s is switched off and nothing is missed", g.row)
			}
		})
	}
}

func TestNearGuardsAreAll(t *testing.T) {
	var all []want
	for _, g := range nearGuards() {
		all = append(all, g.want)
	}
	covered(t, preflight.NearNames(), all)
}

// TestDriveIsLeftAsItWas cuts the drive at every write, and looks what stays.
func TestDriveIsLeftAsItWas(t *testing.T) {
	o, _ := origin(t)
	count := &trip.Cut{}
	opts := nearOptions(t, o)
	opts.FS = count.FS
	if _, err := preflight.Near(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	if count.Calls() < 5 {
		t.Fatalf("%d writes", count.Calls())
	}
	o.Pack(opts.Media, "4.8.21")
	before := trip.Tree(t, opts.Media)
	for at := 1; at <= count.Calls(); at++ {
		cut := &trip.Cut{At: at}
		opts.FS = cut.FS
		r, err := preflight.Near(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := (want{"drive-writable", preflight.Fail, syscall.EIO, ""}).judge(r); err != nil {
			t.Errorf("cut at %s: %v", cut.Call, err)
		}
		if after := trip.Tree(t, opts.Media); !maps.Equal(before, after) {
			t.Errorf("cut at %s: the drive is not as it was", cut.Call)
		}
	}
	trip.Whole(t, opts.Media)
}

// TestDriveAfterKill finds what a killed preflight left, and a link that somebody put there.
func TestDriveAfterKill(t *testing.T) {
	o, _ := origin(t)
	opts := nearOptions(t, o)
	outside := filepath.Join(t.TempDir(), "outside")
	left := filepath.Join(opts.Media, preflight.ProbeFolder)
	for _, make := range []func() error{
		func() error { return os.MkdirAll(filepath.Join(left, "blobs", "sha256"), 0o755) },
		func() error { return errors.Join(os.Mkdir(outside, 0o755), os.Symlink(outside, left)) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		r, err := preflight.Near(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := (want{"drive-writable", preflight.Pass, nil, ""}).judge(r); err != nil && !strings.Contains(err.Error(), "ready") {
			t.Error(err)
		}
		if _, err := os.Lstat(left); err == nil {
			t.Error("it is still there")
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestNearInterrupted ends at once and says so of what it did not look at.
func TestNearInterrupted(t *testing.T) {
	o, _ := origin(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := preflight.Near(ctx, nearOptions(t, o, "4.8.21"))
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, c := range r.Checks {
		if c.Status != preflight.Skip {
			t.Errorf("%s is %s", c.Name, c.Status)
		}
	}
}
