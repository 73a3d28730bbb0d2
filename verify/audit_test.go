package verify_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/release/sample"
	"pannier/store"
	"pannier/verify"
)

// packed is a sealed drive with the smallest release there can be.
func packed(t *testing.T, o sample.Options) (string, *sample.Release) {
	t.Helper()
	r := trip.Make(t, o)
	media := trip.Drive(t)
	trip.NewOrigin(t, r).Pack(media, r.Reference())
	trip.Whole(t, media)
	return media, r
}

func small(t *testing.T) (string, *sample.Release) {
	return packed(t, sample.Options{Components: 3, LayerSize: 64})
}

// files lists the regular files of a drive, by slash path.
func files(t *testing.T, media string) []string {
	t.Helper()
	var out []string
	for name, s := range trip.Tree(t, media) {
		if s.Mode.IsRegular() {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func about(r *verify.Report, path string) []verify.Finding {
	var out []verify.Finding
	for _, f := range r.Findings {
		if f.Path == path {
			out = append(out, f)
		}
	}
	return out
}

func at(media, name string) string { return filepath.Join(media, filepath.FromSlash(name)) }

// Every byte of every file but the bbolt index, a bit of it flipped: the audit finds each
// one, by path. Files that are judged apart from each other are damaged together.
func TestEveryByteOfEverySmallFile(t *testing.T) {
	media, _ := small(t)
	groups := map[string][]string{}
	for _, name := range files(t, media) {
		group := "judged by SHA256SUMS or their names"
		switch {
		case strings.HasPrefix(name, "pannier/index-"):
			continue // see TestEveryByteOfTheIndex
		case strings.HasPrefix(name, "pannier/seal-"):
			group = "the seal"
		case name == "SHA256SUMS" || strings.HasPrefix(name, "pannier/layout-"):
			group = "judged by the seal"
		}
		groups[group] = append(groups[group], name)
	}
	if len(groups) != 3 {
		t.Fatalf("groups: %v", groups)
	}
	for group, names := range groups {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, media)
			content := map[string][]byte{}
			longest := 0
			for _, name := range names {
				raw, err := os.ReadFile(at(media, name))
				if err != nil {
					t.Fatal(err)
				}
				content[name] = raw
				longest = max(longest, len(raw))
			}
			if longest > 32<<10 {
				t.Fatalf("a small file of %d bytes", longest)
			}
			step := 5
			if allFaults {
				step = 1
			}
			for i := 0; i < longest && !t.Failed(); i += step {
				for name, raw := range content {
					if i < len(raw) {
						flipped := slices.Clone(raw)
						flipped[i] ^= 1 << (i % 8)
						rewrite(t, at(media, name), flipped)
					}
				}
				r := trip.Audit(t, media)
				if r.Status != verify.StatusDamaged && group != "the seal" || r.Status == verify.StatusComplete {
					t.Errorf("byte %d: %s %+v", i, r.Status, r.Findings)
				}
				for name, raw := range content {
					if i >= len(raw) {
						continue
					}
					if len(about(r, name)) == 0 {
						t.Errorf("byte %d of %s: not found; %+v", i, name, r.Findings)
					}
					rewrite(t, at(media, name), raw)
				}
			}
			trip.Whole(t, media)
		})
	}
}

// rewrite puts other bytes of the same number into a file, in place.
func rewrite(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
}

// No byte of the bbolt index can be flipped without the seal's digest of it failing; and when
// it fails the audit says so, whatever byte it was.
func TestEveryByteOfTheIndex(t *testing.T) {
	media, _ := small(t)
	b, err := bundle.Open(t.Context(), media, bundle.OpenOptions{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	name, seal := b.IndexPath(), b.Seal
	b.Close()
	path := at(media, name)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed := seal.Files[name]
	if err := sealed.Check(raw); err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		raw[i] ^= 1 << (i % 8)
		if sealed.Check(raw) == nil {
			t.Fatalf("byte %d may be flipped", i)
		}
		raw[i] ^= 1 << (i % 8)
	}
	const step = 499
	for i := rand.Int64N(step); i < int64(len(raw)); i += step {
		trip.Flip(t, path, i)
		r := trip.Audit(t, media)
		if r.Status != verify.StatusDamaged || len(about(r, name)) != 1 || about(r, name)[0].Kind != verify.KindIndex {
			t.Errorf("byte %d: %s %+v", i, r.Status, r.Findings)
		}
		trip.Flip(t, path, i)
	}
	trip.Whole(t, media)
}

func TestThousandPlacesInBlobs(t *testing.T) {
	media, r := packed(t, sample.Options{Components: 4, LayerSize: 24 << 10})
	var names []digest.Digest
	var sizes []int64
	var total int64
	for _, d := range r.Digests() {
		names, sizes = append(names, d), append(sizes, int64(len(r.Blobs[d])))
		total += int64(len(r.Blobs[d]))
	}
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 1000 {
		at := rnd.Int64N(total)
		i := 0
		for at >= sizes[i] {
			at -= sizes[i]
			i++
		}
		path := trip.Blob(media, names[i])
		trip.Flip(t, path, at)
		report := trip.Audit(t, media)
		found := about(report, "blobs/sha256/"+names[i].Encoded())
		if report.Status != verify.StatusDamaged || len(found) != 1 || found[0].Kind != verify.KindCorrupt || found[0].Digest != names[i].String() || len(found[0].Images) == 0 {
			t.Fatalf("seed %d: %s byte %d: %s %+v", seed, names[i], at, report.Status, report.Findings)
		}
		trip.Flip(t, path, at)
	}
	trip.Whole(t, media)
}

func TestEveryFileCutOrDeleted(t *testing.T) {
	media, _ := small(t)
	for _, name := range files(t, media) {
		path := at(media, name)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for what, damage := range map[string]func() error{
			"cut by one":  func() error { return os.Truncate(path, int64(len(raw)-1)) },
			"cut to none": func() error { return os.Truncate(path, 0) },
			"one more":    func() error { return os.WriteFile(path, append(slices.Clone(raw), '\n'), 0o644) },
			"deleted":     func() error { return os.Remove(path) },
		} {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			r := trip.Audit(t, media)
			seal := strings.HasPrefix(name, "pannier/seal-")
			if r.Status == verify.StatusComplete || r.Status != verify.StatusDamaged && !seal {
				t.Errorf("%s %s: %s %+v", name, what, r.Status, r.Findings)
			}
			if found := about(r, name); len(found) != 1 && !seal {
				t.Errorf("%s %s: named %d times: %+v", name, what, len(found), r.Findings)
			}
			if strings.HasPrefix(name, "blobs/") {
				kind := verify.KindTruncated
				switch what {
				case "deleted":
					kind = verify.KindMissing
				case "one more":
					kind = verify.KindCorrupt
				}
				if f := about(r, name); len(f) != 1 || f[0].Kind != kind || f[0].Digest != "sha256:"+filepath.Base(name) || len(f[0].Images) == 0 {
					t.Errorf("%s %s: %+v", name, what, f)
				}
			}
			if err := os.WriteFile(path, raw, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	trip.Whole(t, media)
}

func TestExtraFiles(t *testing.T) {
	media, _ := small(t)
	before := trip.Tree(t, media)
	stray := digest.FromString("stray")
	for name, want := range map[string]verify.Kind{
		"notes.txt":                                        "",
		"holiday/one.jpg":                                  "",
		"blobs/notes.txt":                                  verify.KindExtra,
		"blobs/sha512/x":                                   verify.KindExtra,
		"blobs/sha256/notes.txt":                           verify.KindExtra,
		"blobs/sha256/" + stray.Encoded():                  verify.KindExtra,
		"pannier/notes.txt":                                verify.KindExtra,
		"pannier/more/notes.txt":                           verify.KindExtra,
		"pannier/objects/notes.yaml":                       verify.KindExtra,
		"pannier/partial/notes.txt":                        verify.KindExtra,
		"pannier/partial/" + stray.Encoded() + ".download": verify.KindPartial,
		// What operating systems leave is a note wherever it is.
		"System Volume Information/x":              "",
		".Trash-1000/info/x":                       "",
		".DS_Store":                                "",
		"pannier/.DS_Store":                        "",
		"blobs/._sha256":                           "",
		"blobs/sha256/.DS_Store":                   "",
		"blobs/sha256/._" + stray.Encoded()[:10]:   "",
		"pannier/partial/._" + stray.Encoded()[:9]: "",
	} {
		path := at(media, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("stray"), 0o644); err != nil {
			t.Fatal(err)
		}
		r := trip.Audit(t, media)
		switch {
		case want == "" && (r.Status != verify.StatusComplete || len(r.Notes) == 0 || len(r.Findings) > 0):
			t.Errorf("%s: %s %+v, notes %q", name, r.Status, r.Findings, r.Notes)
		case want == verify.KindPartial && r.Status != verify.StatusIncomplete:
			t.Errorf("%s: %s %+v", name, r.Status, r.Findings)
		case want == verify.KindExtra && (r.Status != verify.StatusDamaged || len(r.Findings) != 1 || r.Findings[0].Kind != want ||
			!strings.HasPrefix(name, r.Findings[0].Path)):
			t.Errorf("%s: %s %+v", name, r.Status, r.Findings)
		}
		for dir := path; ; dir = filepath.Dir(dir) {
			rel, _ := filepath.Rel(media, dir)
			if _, kept := before[filepath.ToSlash(rel)]; kept {
				break
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	trip.Whole(t, media)
}

func TestHostileDrive(t *testing.T) {
	media, r := small(t)
	d := r.Components[0].Digest
	for name, damage := range map[string]func(t *testing.T, media string){
		"a link for a blob": func(t *testing.T, media string) {
			replace(t, trip.Blob(media, d), func(path string) error { return os.Symlink("/etc/passwd", path) })
		},
		"a link to itself": func(t *testing.T, media string) {
			replace(t, trip.Blob(media, d), func(path string) error { return os.Symlink(path, path) })
		},
		"a pipe for a blob": func(t *testing.T, media string) { replace(t, trip.Blob(media, d), mkfifo) },
		"a pipe for START-HERE.txt": func(t *testing.T, media string) {
			replace(t, at(media, "START-HERE.txt"), mkfifo)
		},
		"a pipe for SHA256SUMS": func(t *testing.T, media string) { replace(t, at(media, "SHA256SUMS"), mkfifo) },
		"a folder for a blob": func(t *testing.T, media string) {
			replace(t, trip.Blob(media, d), func(path string) error { return os.Mkdir(path, 0o755) })
		},
		"an endless index.json": func(t *testing.T, media string) { truncate(t, at(media, "index.json"), 1<<36) },
		"an endless seal": func(t *testing.T, media string) {
			found, _ := filepath.Glob(at(media, "pannier/seal-*"))
			truncate(t, found[0], 1<<36)
		},
		"an endless manifest": func(t *testing.T, media string) { truncate(t, trip.Blob(media, d), 1<<36) },
		"an endless extra seal": func(t *testing.T, media string) {
			truncate(t, at(media, "pannier/seal-999999.json"), 1<<36)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" {
				t.Skip("no pipes or links here")
			}
			t.Parallel()
			media := trip.Copy(t, media)
			damage(t, media)
			done := make(chan *verify.Report, 1)
			go func() { done <- trip.Audit(t, media) }()
			select {
			case r := <-done:
				if r.Status == verify.StatusComplete || len(r.Findings) == 0 {
					t.Errorf("%s %+v", r.Status, r.Findings)
				}
			case <-time.After(time.Minute):
				t.Fatal("the audit hangs")
			}
		})
	}
}

func replace(t *testing.T, path string, with func(string) error) {
	t.Helper()
	if err := errors.Join(os.Remove(path), with(path)); err != nil {
		t.Fatal(err)
	}
}

// truncate makes a file that takes no space however large it is.
func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
}

// damaged wins over untrusted, and that over incomplete.
func TestStatusPrecedence(t *testing.T) {
	media, r := small(t)
	audit := func(v bundle.SignatureVerifier, policy bundle.Policy) *verify.Report {
		t.Helper()
		report, err := verify.Audit(t.Context(), verify.AuditOptions{Media: media, Signatures: v, Policy: policy, Cache: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	stranger := trip.Verifier(t, trip.Stranger())
	check := func(r *verify.Report, want verify.Status, kinds ...verify.Kind) {
		t.Helper()
		var got []verify.Kind
		for _, f := range r.Findings {
			got = append(got, f.Kind)
		}
		slices.Sort(got)
		if got = slices.Compact(got); r.Status != want || !slices.Equal(got, kinds) {
			t.Errorf("%s %v, want %s %v", r.Status, got, want, kinds)
		}
	}
	report := audit(stranger, bundle.PolicyRequire)
	check(report, verify.StatusUntrusted, verify.KindUntrusted)
	if report.Releases[0].Signature != bundle.SignatureUnverified {
		t.Errorf("%+v", report.Releases)
	}
	check(audit(nil, bundle.PolicyRequire), verify.StatusUntrusted, verify.KindUntrusted)
	if r := audit(stranger, bundle.PolicyWarn); r.Status != verify.StatusComplete || len(r.Notes) == 0 {
		t.Errorf("warn: %s %q", r.Status, r.Notes)
	}

	partial := at(media, "pannier/partial/"+digest.FromString("x").Encoded()+".download")
	if err := os.WriteFile(partial, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	check(trip.Audit(t, media), verify.StatusIncomplete, verify.KindPartial)
	check(audit(stranger, bundle.PolicyRequire), verify.StatusUntrusted, verify.KindPartial, verify.KindUntrusted)
	blob := trip.Blob(media, r.Components[1].Digest)
	trip.Flip(t, blob, 3)
	check(audit(stranger, bundle.PolicyRequire), verify.StatusDamaged, verify.KindCorrupt, verify.KindPartial, verify.KindUntrusted)
	trip.Flip(t, blob, 3)

	// Without seal a missing blob is what has not come yet.
	seals, _ := filepath.Glob(at(media, "pannier/seal-*"))
	if err := errors.Join(os.Remove(seals[0]), os.Remove(partial)); err != nil {
		t.Fatal(err)
	}
	check(trip.Audit(t, media), verify.StatusIncomplete, verify.KindUnsealed)
	if err := os.Remove(blob); err != nil {
		t.Fatal(err)
	}
	check(trip.Audit(t, media), verify.StatusIncomplete, verify.KindMissing, verify.KindUnsealed)
}

// An audit of one release leaves the others out, however bad they are.
func TestAuditOneRelease(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	media := trip.Drive(t)
	trip.NewOrigin(t, r1, r2).Pack(media, "4.8.21", "4.8.22")
	var alone digest.Digest
	for _, c := range r2.Components {
		if _, shared := r1.Blobs[c.Digest]; !shared {
			alone = c.Digest
		}
	}
	if alone == "" {
		t.Fatal("every component is shared")
	}
	trip.Flip(t, trip.Blob(media, alone), 1)
	for release, want := range map[string]verify.Status{
		"4.8.21": verify.StatusComplete, "4.8.22-x86_64": verify.StatusDamaged, "4.8.22-amd64": verify.StatusDamaged,
	} {
		r, err := verify.Audit(t.Context(), verify.AuditOptions{Media: media, Releases: []string{release}, Signatures: trip.Verifier(t, trip.Key()), Cache: t.TempDir()})
		if err != nil || r.Status != want || len(r.Releases) != 1 {
			t.Errorf("%s: %v, %v", release, r, err)
		}
	}
	_, err := verify.Audit(t.Context(), verify.AuditOptions{Media: media, Releases: []string{"4.9.0"}, Cache: t.TempDir()})
	if !errors.Is(err, bundle.ErrNoRelease) || !strings.Contains(err.Error(), "4.8.21-x86_64") {
		t.Errorf("%v", err)
	}
}

// An audit leaves the drive, times of access apart, as it is, and works where nothing can
// be written.
func TestAuditWritesNothing(t *testing.T) {
	media, _ := small(t)
	before := trip.Tree(t, media)
	trip.Whole(t, media)
	if _, err := verify.Inspect(t.Context(), verify.InspectOptions{Media: media, Cache: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before, trip.Tree(t, media)) {
		t.Error("the drive changed")
	}
	cache := t.TempDir()
	if _, err := verify.Audit(t.Context(), verify.AuditOptions{Media: media, Cache: cache}); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(cache); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
}

func TestAuditRefusals(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, media := range []string{file, t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if _, err := verify.Audit(t.Context(), verify.AuditOptions{Media: media, Cache: t.TempDir()}); !errors.Is(err, bundle.ErrNotBundle) {
			t.Errorf("%s: %v", media, err)
		}
	}
}

func TestInspect(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	extra, err := r.AddImage("quay.io/extra/tool", "v1", sample.Image{})
	if err != nil {
		t.Fatal(err)
	}
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	opts := o.Options(media, "4.8.21")
	opts.Additional = append(opts.Additional, trip.Image(t, "quay.io/extra/tool:v1"))
	res := trip.Pack(t, opts)
	got, err := verify.Inspect(t.Context(), verify.InspectOptions{Media: media, Signatures: o.Verifier, Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if !got.Sealed || got.BundleID != res.BundleID || got.Program != "pannier test" || got.Blobs.Count != res.Blobs || got.Blobs.Bytes != res.Bytes || got.Blobs.Partial != 0 {
		t.Errorf("%+v", got)
	}
	if len(got.AdditionalImages) != 1 || got.AdditionalImages[0].Digest != extra.Digest.String() || got.AdditionalImages[0].Reference != "quay.io/extra/tool:v1" {
		t.Errorf("additional images: %+v", got.AdditionalImages)
	}
	rel := got.Releases[0]
	if len(got.Releases) != 1 || rel.Version != "4.8.21" || rel.Arch != "x86_64" || rel.Digest != r.Descriptor.Digest.String() || rel.Source != r.Repository ||
		rel.Signatures != 1 || rel.Signature != bundle.SignatureVerified || rel.Digests.Payload != rel.Digest || rel.Digests.Signature != rel.Digest {
		t.Errorf("%+v", rel)
	}
	names := map[string]string{}
	for _, img := range rel.Images {
		names[img.Name] = img.Digest
		var bytes int64
		seen := map[digest.Digest]bool{}
		err := r.Walk(descriptorOf(r, digest.Digest(img.Digest)), func(d descriptor) error {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				bytes += d.Size
			}
			return nil
		})
		if err != nil || img.Bytes != bytes || img.Source != r.ComponentRepository {
			t.Errorf("%+v, %d bytes, %v", img, bytes, err)
		}
	}
	for _, c := range r.Components {
		if names[c.Name] != c.Digest.String() {
			t.Errorf("%s: %s", c.Name, names[c.Name])
		}
	}
	b, err := bundle.Open(t.Context(), media, bundle.OpenOptions{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if i := slices.IndexFunc(b.Contents.Images, func(i store.Image) bool { return i.Kind == store.KindRelease }); i < 0 {
		t.Error("no release image")
	}
}
