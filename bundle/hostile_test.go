package bundle_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/layout"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/bundle/remote"
	"pannier/store"
	"pannier/verify"
)

// Whatever small file of a sealed drive is damaged, cut, emptied or gone: the same pack again
// makes the drive whole, and then leaves it alone.
func TestPackHealsSmallFiles(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	o.Pack(media, r.Reference())
	damage := map[string]func(t *testing.T, path string){
		"flipped": func(t *testing.T, path string) { trip.Flip(t, path, 20) },
		"emptied": func(t *testing.T, path string) { truncate(t, path, 0) },
		"gone":    func(t *testing.T, path string) { remove(t, path) },
		"other": func(t *testing.T, path string) {
			write(t, path, `{"imageLayoutVersion":"9.9.9"}`+strings.Repeat(" ", 5000))
		},
		"foreign": func(t *testing.T, path string) { write(t, path, `{"imageLayoutVersion":"2.0.0"}`) },
	}
	objects := 0
	for name, state := range trip.Tree(t, media) {
		if !state.Mode.IsRegular() || strings.HasPrefix(name, "blobs") || strings.HasPrefix(name, "pannier/seal-") || filepath.Ext(name) == "" && name != "oci-layout" && name != "SHA256SUMS" {
			continue
		}
		if strings.HasPrefix(name, "pannier/objects/") {
			objects++
		}
		for how, fn := range damage {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				media := trip.Copy(t, media)
				fn(t, filepath.Join(media, filepath.FromSlash(name)))
				if a := trip.Audit(t, media); a.Status != verify.StatusDamaged {
					t.Errorf("before: %s", a.Status)
				}
				if res := o.Pack(media, r.Reference()); res.Unchanged || res.Moved > 0 {
					t.Errorf("%+v", res)
				}
				trip.Whole(t, media)
				if res := o.Pack(media, r.Reference()); !res.Unchanged {
					t.Errorf("once more: %+v", res)
				}
			})
		}
	}
	if objects == 0 {
		t.Error("the drive has no readable objects")
	}
}

func truncate(t *testing.T, path string, n int64) {
	t.Helper()
	if err := os.Truncate(path, n); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// An image layout of another version that is not ours is left alone.
func TestPackForeignLayout(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "oci-layout"), `{"imageLayoutVersion":"2.0.0"}`)
	if _, err := layout.Create(dir, layout.Options{}); !errors.Is(err, layout.ErrNotLayout) {
		t.Errorf("%v", err)
	}
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	dir = t.TempDir()
	write(t, filepath.Join(dir, "oci-layout"), `{"imageLayoutVersion":"2.0.0"}`)
	if _, err := bundle.Pack(t.Context(), o.Options(dir, r.Reference())); !errors.Is(err, bundle.ErrNotBundle) {
		t.Errorf("%v", err)
	}
}

// What was sealed by somebody else, and is not what the release image says, is packed anew
// when it is asked for, and the drive is whole then.
func TestPackHealsResealed(t *testing.T) {
	type edit = trip.Edit
	const tag = "4.8.21-x86_64"
	const tool = "quay.io/extra/tool:v1"
	r := trip.Small(t, "4.8.21")
	if _, err := r.AddImage("quay.io/extra/tool", "v1", sample.Image{}); err != nil {
		t.Fatal(err)
	}
	o := trip.NewOrigin(t, r)
	pack := func(media string) *bundle.PackResult {
		opts := o.Options(media, r.Reference())
		opts.Additional = []release.Reference{trip.Image(t, tool)}
		return trip.Pack(t, opts)
	}
	media := trip.Drive(t)
	pack(media)
	etcd := tag + "-" + r.Components[0].Name
	mediaType := func(name, mt string) func(*edit) {
		return func(e *edit) { e.Put(name, func(i *store.Image) { i.Descriptor.MediaType = mt }) }
	}
	for name, change := range map[string]func(*edit){
		"swapped component":            func(e *edit) { e.Put(etcd, func(i *store.Image) { i.Descriptor = e.Foreign("x") }) },
		"component left out":           func(e *edit) { delete(e.Images, etcd) },
		"component is no manifest":     mediaType(etcd, "application/octet-stream"),
		"component without media type": mediaType(etcd, ""),
		"component called a list":      mediaType(etcd, ocispec.MediaTypeImageIndex),
		"release is no manifest":       mediaType(tag, "application/octet-stream"),
		"additional is no manifest":    mediaType(tool, "application/octet-stream"),
		"junk references":              func(e *edit) { e.Documents[tag]["image-references.json"] = []byte("{}") },
		"other totals":                 func(e *edit) { e.Seal = func(s *bundle.Seal) { s.Totals.Blobs++ } },
		"other bundle id":              func(e *edit) { e.Seal = func(s *bundle.Seal) { s.Bundle = r.Descriptor.Digest } },
		"index says otherwise":         func(e *edit) { e.KeepDB = true; e.Documents[tag]["x.json"] = []byte("{}") },
		"index describes it otherwise": func(e *edit) {
			e.Store = func(x *store.Index) {
				img := e.Images[tool]
				img.Reference = "quay.io/other/tool:v1"
				if err := x.PutImages(img); err != nil {
					t.Error(err)
				}
			}
		},
		"invalid index.json": func(e *edit) { e.Raw = func([]byte) []byte { return []byte("{}") } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, media)
			trip.Reseal(t, media, change)
			if a := trip.Audit(t, media); a.Status != verify.StatusDamaged {
				t.Errorf("before: %s %+v", a.Status, a.Findings)
			}
			if res := pack(media); res.Unchanged {
				t.Errorf("unchanged: %q", res.Warnings)
			}
			trip.Whole(t, media)
			if res := pack(media); !res.Unchanged {
				t.Errorf("once more: %+v", res)
			}
		})
	}
	// A broken image that nobody asks for is told, and left out of the seal with its release.
	other := trip.Small(t, "4.8.22")
	o.Sign(trip.Key(), other)
	if err := o.Registry.Load(other); err != nil {
		t.Fatal(err)
	}
	broken := trip.Copy(t, media)
	trip.Reseal(t, broken, mediaType(etcd, "application/octet-stream"))
	res := o.Pack(broken, other.Reference())
	if !slices.ContainsFunc(res.Warnings, func(w string) bool { return strings.Contains(w, etcd) }) {
		t.Errorf("%q", res.Warnings)
	}
	if a := trip.Audit(t, broken); a.Status != verify.StatusIncomplete || len(a.Releases) != 1 {
		t.Errorf("%s: %+v", a.Status, a.Findings)
	}
}

// Files with absurd generations: the pack ends in a drive that can be read, or says why not.
func TestPackPlantedGenerations(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	sealed := trip.Drive(t)
	o.Pack(sealed, r.Reference())
	other := trip.Small(t, "4.8.22")
	o.Sign(trip.Key(), other)
	if err := o.Registry.Load(other); err != nil {
		t.Fatal(err)
	}
	for name, refused := range map[string]bool{
		"index-9223372036854775807.db":     false,
		"seal-9223372036854775807.json":    false,
		"layout-18446744073709551615.json": false,
		"index-007.db":                     false,
		"index-2147483648.db":              false,
		"index-2147483647.db":              true,
		"seal-2147483647.json":             true,
		"layout-1073741824.json":           true,
		"layout-9.json":                    false,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, fresh := range []bool{false, true} {
				media := trip.Drive(t)
				if !fresh {
					media = trip.Copy(t, sealed)
				} else if _, err := layout.Create(media, layout.Options{}); err != nil {
					t.Fatal(err)
				}
				planted := filepath.Join(media, "pannier", name)
				write(t, planted, "")
				_, err := bundle.Pack(t.Context(), o.Options(media, r.Reference(), other.Reference()))
				if refused && (!errors.Is(err, bundle.ErrDamaged) || !strings.Contains(err.Error(), "generation")) || !refused && err != nil {
					t.Fatalf("%v", err)
				}
				os.Remove(planted) // what is not ours, pack may not
				if refused && fresh {
					continue
				}
				if refused {
					b := open(t, media)
					if b.Seal == nil || len(b.Contents.Releases) != 1 {
						t.Errorf("the drive cannot be read any more: %+v", b.SealProblems)
					}
					o.Pack(media, r.Reference(), other.Reference())
				}
				trip.Whole(t, media)
			}
		})
	}
}

// Additional images that would have one name at the destination, on the drive or asked for.
func TestPackImagesOfOneName(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	for _, repository := range []string{"quay.io/extra/tool", "quay.io/other/extra/tool"} {
		if _, err := r.AddImage(repository, "v1", sample.Image{Layers: [][]byte{[]byte(repository)}}); err != nil {
			t.Fatal(err)
		}
	}
	o := trip.NewOrigin(t, r)
	options := func(media string, images ...string) bundle.PackOptions {
		opts := o.Options(media, r.Reference())
		c, err := remote.New(remote.Options{Mirrors: []remote.Mirror{{From: "quay.io", To: o.Registry.Host}, {From: "registry.example.com", To: o.Registry.Host + "/other"}}})
		if err != nil {
			t.Fatal(err)
		}
		opts.Client = c
		for _, i := range images {
			opts.Additional = append(opts.Additional, trip.Image(t, i))
		}
		return opts
	}
	const one, two = "quay.io/extra/tool:v1", "registry.example.com/extra/tool:v1"
	media := trip.Drive(t)
	if _, err := bundle.Pack(t.Context(), options(media, one, two)); !errors.Is(err, bundle.ErrConflict) {
		t.Errorf("both: %v", err)
	}
	trip.Pack(t, options(media, one))
	if _, err := bundle.Pack(t.Context(), options(media, two)); !errors.Is(err, bundle.ErrConflict) {
		t.Errorf("one after the other: %v", err)
	}
	trip.Whole(t, media)
}

// Failures of the local disk are no damage of the drive.
func TestOpenCacheUnusable(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	o.Pack(media, r.Reference())
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	cache := filepath.Join(file, "cache")
	opts := o.Options(media, r.Reference())
	opts.Cache = cache
	_, packed := bundle.Pack(t.Context(), opts)
	_, opened := bundle.Open(t.Context(), media, bundle.OpenOptions{Cache: cache})
	_, audited := verify.Audit(t.Context(), verify.AuditOptions{Media: media, Cache: cache})
	fresh := o.Options(trip.Drive(t), r.Reference())
	fresh.Cache = cache
	_, begun := bundle.Pack(t.Context(), fresh)
	for name, err := range map[string]error{"pack": packed, "open": opened, "audit": audited, "first pack": begun} {
		if err == nil || errors.Is(err, bundle.ErrDamaged) || errors.Is(err, store.ErrCorrupt) || errors.Is(err, bundle.ErrUnsealed) || !strings.Contains(err.Error(), "working copy") {
			t.Errorf("%s: %v", name, err)
		}
	}
	trip.Whole(t, media)
}

// Two first packs at once, in step until each has begun: one wins, the other says that it was
// not alone.
func TestTwoFirstPacks(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	for i := range 12 {
		media := trip.Drive(t)
		b := &barrier{n: 2, open: make(chan struct{})}
		var wg sync.WaitGroup
		errs := make([]error, 2)
		for k := range errs {
			opts := o.Options(media, r.Reference())
			opts.Cache = t.TempDir()
			opts.FS = func(dir string) (layout.FS, error) {
				f, err := layout.OpenFS(dir)
				return &stepFS{FS: f, b: b, at: []string{"create oci-layout.new", "rename oci-layout", "none"}[i%3]}, err
			}
			wg.Go(func() { _, errs[k] = bundle.Pack(t.Context(), opts) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, layout.ErrLocked):
				t.Errorf("round %d: %v", i, err)
			}
		}
		if won == 0 {
			t.Errorf("round %d: nobody won: %v", i, errs)
		}
		trip.Whole(t, media)
	}
}

// barrier lets nobody go on until n have come.
type barrier struct {
	mu   sync.Mutex
	n    int
	open chan struct{}
}

func (b *barrier) wait(ctx context.Context) {
	b.mu.Lock()
	if b.n--; b.n == 0 {
		close(b.open)
	}
	b.mu.Unlock()
	select {
	case <-b.open:
	case <-ctx.Done():
	}
}

// stepFS waits at one call for the other pack.
type stepFS struct {
	layout.FS
	b    *barrier
	at   string
	once sync.Once
}

func (f *stepFS) step(call string) {
	if call == f.at {
		f.once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
			defer cancel()
			f.b.wait(ctx)
		})
	}
}

func (f *stepFS) OpenFile(name string, flag int, perm os.FileMode) (layout.File, error) {
	if flag&os.O_CREATE != 0 {
		f.step("create " + name)
	}
	return f.FS.OpenFile(name, flag, perm)
}

func (f *stepFS) Rename(from, to string) error {
	f.step("rename " + to)
	return f.FS.Rename(from, to)
}

// Nothing that a pack says, at any level, has user, password or query of a signature store.
func TestPackStoreSecrets(t *testing.T) {
	t.Parallel()
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	status := http.StatusNotFound
	o.Log.Before(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/signatures/") {
			return false
		}
		w.WriteHeader(status)
		return true
	})
	for _, store := range []string{
		"http://me:hunter2@" + o.Registry.Host + "/signatures?token=hunter3",
		"http://me:hunter2@127.0.0.1:1/signatures?token=hunter3",
		"ftp://me:hunter2@127.0.0.1:1/signatures?token=hunter3",
		"http://me:hunter2@%zz/signatures?token=hunter3",
		"http://me:hunter2@127.0.0.1:99999999/?token=hunter3",
	} {
		for _, status = range []int{404, 403, 301} {
			var log bytes.Buffer
			logger := slog.New(slog.NewTextHandler(&lockedWriter{w: &log}, &slog.HandlerOptions{Level: slog.LevelDebug - 4}))
			opts := o.Options(trip.Drive(t), r.Reference())
			opts.Stores, opts.Logger = []string{store}, logger
			c, err := remote.New(remote.Options{Mirrors: []remote.Mirror{{From: "quay.io", To: o.Registry.Host}}, Logger: logger, GiveUpAfter: storePatience})
			if err != nil {
				t.Fatal(err)
			}
			opts.Client = c
			res, err := bundle.Pack(t.Context(), opts)
			if err == nil {
				t.Error("packed without signature")
			}
			said := log.String() + err.Error() + strings.Join(res.Warnings, " ")
			for _, contact := range c.Contacts() {
				said += contact.Host + contact.Proxy
			}
			if strings.Contains(said, "hunter") {
				t.Errorf("%s: %s", store, said)
			}
			if strings.Contains(store, ":1/") || strings.Contains(store, "99999999") || strings.Contains(store, "ftp") || strings.Contains(store, "%zz") {
				break // no answer, no status
			}
		}
	}
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

const (
	stepTimeout   = 200 * time.Millisecond
	storePatience = 5 * time.Second
)
