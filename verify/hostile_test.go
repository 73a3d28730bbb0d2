package verify_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/release/sample"
	"pannier/store"
	"pannier/verify"
)

const (
	tag  = "4.8.21-x86_64"
	tool = "quay.io/extra/tool:v1"
)

// policied is a release with keys, policies, a signature, two components of one image and an
// additional image, packed once.
var policied struct {
	once  sync.Once
	media string
	r     *sample.Release
}

// hostile copies a sealed drive for a test to change.
func hostile(t *testing.T) (string, *sample.Release) {
	t.Helper()
	policied.once.Do(func() {
		dir, err := os.MkdirTemp("", "hostile-")
		if err != nil {
			t.Fatal(err)
		}
		r := trip.Make(t, sample.Options{Version: "4.8.21", Components: 3, LayerSize: 64,
			KeyConfigMap: keyConfigMap(trip.Key().Public()), ImagePolicy: []byte(policyYAML)})
		if _, err := r.AddImage("quay.io/extra/tool", "v1", sample.Image{}); err != nil {
			t.Fatal(err)
		}
		media := filepath.Join(dir, "drive")
		o := trip.NewOrigin(t, r)
		opts := o.Options(media, r.Reference())
		opts.Additional = append(opts.Additional, trip.Image(t, tool))
		trip.Pack(t, opts)
		policied.media, policied.r = media, r
	})
	if policied.media == "" {
		t.Fatal("the drive could not be packed")
	}
	return trip.Copy(t, policied.media), policied.r
}

func TestMain(m *testing.M) {
	code := m.Run()
	if policied.media != "" {
		os.RemoveAll(filepath.Dir(policied.media))
	}
	os.Exit(code)
}

// keyConfigMap is a manifest of a release that carries the keys that sign releases.
func keyConfigMap(armored []byte) []byte {
	text := "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: release-verification\n  namespace: openshift-config-managed\n" +
		"  annotations:\n    release.openshift.io/verification-config-map: \"\"\ndata:\n  verifier-public-key-test: |\n"
	for line := range strings.Lines(string(armored)) {
		text += "    " + line
	}
	return []byte(text)
}

// policyYAML demands nothing of the images of a sample.
const policyYAML = `apiVersion: config.openshift.io/v1
kind: ClusterImagePolicy
metadata:
  name: other
spec:
  scopes:
  - registry.example.com/other
  policy:
    rootOfTrust:
      policyType: PublicKey
      publicKey:
        keyData: LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0K
`

func first(r *sample.Release) string { return tag + "-" + r.Components[0].Name }

// says fails unless the audit finds damage, in these words.
func says(t *testing.T, media, words string) *verify.Report {
	t.Helper()
	r := trip.Audit(t, media)
	if r.Status != verify.StatusDamaged || !slices.ContainsFunc(r.Findings, func(f verify.Finding) bool { return strings.Contains(f.Detail, words) }) {
		t.Errorf("%s, and nothing says %q: %.900v", r.Status, words, fmt.Sprint(r.Findings))
	}
	if raw, err := json.Marshal(r); err != nil || !bytes.Contains(raw, []byte(`"status":"damaged"`)) {
		t.Errorf("JSON: %.300s, %v", raw, err)
	}
	return r
}

// A drive that was changed by somebody who seals it again is whole in itself. What the signed
// release image says gives it away.
func TestResealed(t *testing.T) {
	type edit = trip.Edit
	drop := func(prefix string) func(*edit, *sample.Release) {
		return func(e *edit, _ *sample.Release) {
			n := len(e.Documents[tag])
			for name := range e.Documents[tag] {
				if strings.HasPrefix(name, prefix) {
					delete(e.Documents[tag], name)
				}
			}
			if len(e.Documents[tag]) == n {
				t.Errorf("no document %s*", prefix)
			}
		}
	}
	junk := func(name string) func(*edit, *sample.Release) {
		return func(e *edit, _ *sample.Release) { e.Documents[tag][name] = []byte(`{"junk":"\u001b[31m"}`) }
	}
	mediaType := func(mt string) func(*edit, *sample.Release) {
		return func(e *edit, r *sample.Release) {
			e.Put(first(r), func(i *store.Image) { i.Descriptor.MediaType = mt })
		}
	}
	extra := func(name string, kind string) func(*edit, *sample.Release) {
		return func(e *edit, _ *sample.Release) {
			e.Put(name, func(i *store.Image) {
				*i = store.Image{Tag: name, Kind: kind, Release: tag, Name: "extra", Reference: "quay.io/a/b:" + name, Descriptor: e.Foreign(name)}
			})
		}
	}
	source := func(s string) func(*edit, *sample.Release) {
		return func(e *edit, r *sample.Release) {
			e.Releases[0].Source = s
			e.Put(tag, func(i *store.Image) { i.Reference = s + "@" + i.Descriptor.Digest.String() })
			sources := []string{s, r.ComponentRepository}
			slices.Sort(sources)
			e.Documents[tag]["mirror-sources.json"], _ = json.Marshal(map[string]any{"sources": sources, "previous": e.Releases[0].Previous})
		}
	}
	for name, tc := range map[string]struct {
		change func(*edit, *sample.Release)
		words  string
	}{
		"component is no manifest":     {mediaType("application/octet-stream"), `media type "application/octet-stream" is no manifest`},
		"component has no media type":  {mediaType(""), `media type "" is no manifest`},
		"component is called a list":   {mediaType("application/vnd.docker.distribution.manifest.list.v2+json"), "manifest says it is"},
		"component is called an index": {mediaType(ocispec.MediaTypeImageIndex), "manifest says it is"},
		"release is no manifest": {func(e *edit, _ *sample.Release) {
			e.Put(tag, func(i *store.Image) { i.Descriptor.MediaType = "text/plain" })
		}, "is no manifest"},
		"second release image":        {extra("4.9.99-x86_64", store.KindRelease), "image 4.9.99-x86_64 is no part of it"},
		"release image called latest": {extra("latest", store.KindRelease), "image latest is no part of it"},
		"second component":            {extra(tag+"-extra", store.KindComponent), "is no part of it"},
		"additional image without host": {func(e *edit, r *sample.Release) {
			extra("latest", store.KindAdditional)(e, r)
			e.Put("latest", func(i *store.Image) { i.Release = "" })
		}, "named by its full reference"},
		"additional of another digest": {func(e *edit, _ *sample.Release) {
			ref := "quay.io/a/b@" + digest.FromString("x").String()
			e.Put(ref, func(i *store.Image) {
				*i = store.Image{Kind: store.KindAdditional, Reference: ref, Descriptor: e.Foreign("x")}
			})
		}, "its name says another digest"},
		"component of no release": {func(e *edit, _ *sample.Release) {
			e.Put("4.9.1-x86_64-etcd", func(i *store.Image) {
				*i = store.Image{Kind: store.KindComponent, Release: "4.9.1-x86_64", Name: "etcd", Descriptor: e.Foreign("x")}
			})
		}, "which is not on the drive|named by its full reference"},
		"swapped component": {func(e *edit, r *sample.Release) {
			e.Put(first(r), func(i *store.Image) { i.Descriptor = e.Foreign("swap") })
		}, "and the drive has"},
		"component left out":             {func(e *edit, r *sample.Release) { delete(e.Images, first(r)) }, "is not on the drive"},
		"component of another name":      {func(e *edit, r *sample.Release) { e.Put(first(r), func(i *store.Image) { i.Name = "other" }) }, "described otherwise"},
		"component is called additional": {func(e *edit, r *sample.Release) { e.Put(first(r), func(i *store.Image) { i.Kind = store.KindRelease }) }, "described otherwise"},
		"keys dropped":                   {drop("key-"), "document key-1 is not what the release image holds"},
		"policies dropped":               {drop("image-policy-"), "document image-policy-1 is not what the release image holds"},
		"policy added":                   {junk("image-policy-7"), "document image-policy-7 is not from the release image"},
		"key added":                      {junk("key-7"), "document key-7 is not from the release image"},
		"junk references":                {junk("image-references.json"), "document image-references.json is not what"},
		"junk metadata":                  {junk("release-metadata.json"), "document release-metadata.json is not what"},
		"release.txt of another release": {func(e *edit, _ *sample.Release) {
			e.Documents[tag]["release.txt"] = []byte("Digest: sha256:" + zeros64 + "\nPull From: quay.io/a/b@sha256:" + zeros64 + "\n")
		}, "document release.txt: its digest is another one there"},
		"update from nowhere": {func(e *edit, _ *sample.Release) {
			e.Documents[tag]["updates.json"] = []byte(`{"updates":[{"from":""}]}`)
		}, "document updates.json"},
		"junk release.txt": {junk("release.txt"), "invalid release.txt"},
		"source of all":    {source("*.com"), `its source "*.com" is no repository`},
		"source is a host": {source("quay.io"), `its source "quay.io" is no repository`},
		"source with tag":  {source("quay.io/a/b:c"), "is no repository"},
		"more mirror sources": {func(e *edit, _ *sample.Release) {
			e.Documents[tag]["mirror-sources.json"] = []byte(`{"sources":["*.com"]}`)
		}, "its images come from"},
		"other previous versions": {func(e *edit, _ *sample.Release) { e.Releases[0].Previous = []string{"4.1.0"} }, "can be reached from other versions"},
		"bundle id of another":    {func(e *edit, _ *sample.Release) { e.Seal = func(s *bundle.Seal) { s.Bundle = digest.FromString("x") } }, "it is of bundle"},
		"totals of another":       {func(e *edit, _ *sample.Release) { e.Seal = func(s *bundle.Seal) { s.Totals.Bytes++ } }, "it covers"},
		"two entries of a name":   {twice, "two entries are named"},
		"two entries, no index":   {func(e *edit, r *sample.Release) { twice(e, r); e.NoIndex = true }, "two entries are named"},
		"index.json is no JSON":   {func(e *edit, _ *sample.Release) { e.Raw = func([]byte) []byte { return []byte("{") } }, "index.json: invalid"},
		"index.json with a member twice": {func(e *edit, _ *sample.Release) {
			e.Raw = func(b []byte) []byte { return bytes.Replace(b, []byte("{"), []byte(`{"schemaVersion":2,`), 1) }
		}, "comes twice"},
	} {
		for _, noIndex := range []bool{false, true} {
			if noIndex {
				name += ", no index"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				media, r := hostile(t)
				trip.Reseal(t, media, func(e *edit) { tc.change(e, r); e.NoIndex = e.NoIndex || noIndex })
				words, without, differ := strings.Cut(tc.words, "|") // with the index, and without
				if differ && noIndex {
					words = without
				}
				for _, f := range says(t, media, words).Findings {
					if f.Healable && f.Path == "index.json" && len(f.Images) > 0 {
						t.Errorf("nothing heals that: %+v", f)
					}
				}
				inspects(t, media)
				packsOnto(t, media)
			})
		}
	}
}

// inspects looks at a drive that is damaged: there is something to show all the same.
func inspects(t *testing.T, media string) {
	t.Helper()
	i, err := verify.Inspect(t.Context(), verify.InspectOptions{Media: media, Cache: t.TempDir()})
	if i == nil || err != nil && !errors.Is(err, bundle.ErrDamaged) {
		t.Errorf("inspect: %v", err)
	}
}

// packsOnto packs another release onto a drive that somebody else has sealed. Either that is
// refused, or what is sealed then is right: what was not is left out of the seal.
func packsOnto(t *testing.T, media string) {
	t.Helper()
	next.Do(func() { nextRelease = trip.Small(t, "4.8.22") })
	if _, err := bundle.Pack(t.Context(), trip.NewOrigin(t, nextRelease).Options(media, nextRelease.Reference())); err != nil {
		t.Logf("refused: %v", err)
		return
	}
	for _, f := range trip.Audit(t, media).Findings {
		if f.Kind != verify.KindPartial && f.Kind != verify.KindUntrusted {
			t.Errorf("packed and sealed: %+v", f)
		}
	}
}

var (
	next        sync.Once
	nextRelease *sample.Release
)

// twice gives the first component a second entry in index.json.
func twice(e *trip.Edit, r *sample.Release) {
	other := e.Foreign("twice")
	other.Annotations = map[string]string{ocispec.AnnotationRefName: first(r)}
	e.Index = func(idx *ocispec.Index) { idx.Manifests = slices.Insert(idx.Manifests, 0, other) }
}

// The helper itself leaves a drive that audits whole, or the tests above prove nothing.
func TestResealedUnchanged(t *testing.T) {
	media, _ := hostile(t)
	r := trip.Whole(t, media)
	if !slices.ContainsFunc(r.Notes, func(n string) bool {
		return strings.Contains(n, tool) && strings.Contains(n, "no signature is checked")
	}) {
		t.Errorf("nothing is said of the additional image: %q", r.Notes)
	}
	trip.Reseal(t, media, func(*trip.Edit) {})
	trip.Whole(t, media)
}

// What is wrong with one release is no matter where only another is asked for, unless it is
// the drive as a whole.
func TestAuditOneReleaseOfAHostileDrive(t *testing.T) {
	one, two := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	media := trip.Drive(t)
	trip.NewOrigin(t, one, two).Pack(media, one.Reference(), two.Reference())
	trip.Reseal(t, media, func(e *trip.Edit) {
		e.Put(first(one), func(i *store.Image) { i.Descriptor.MediaType = "text/plain" })
		e.Documents[tag]["image-references.json"] = []byte("{}")
	})
	says(t, media, "document image-references.json")
	for only, want := range map[string]verify.Status{"4.8.21": verify.StatusDamaged, "4.8.22": verify.StatusComplete} {
		r, err := verify.Audit(t.Context(), verify.AuditOptions{Media: media, Cache: t.TempDir(), Signatures: trip.Verifier(t, trip.Key()), Releases: []string{only}})
		if err != nil || r.Status != want {
			t.Errorf("%s: %v %+v", only, err, r)
		}
	}
}

// Files that claim to be newer than the seal make a drive incomplete, never complete and never
// one of which nothing can be read.
func TestPlantedGenerations(t *testing.T) {
	for name, want := range map[string]verify.Status{
		"layout-9.json":                  verify.StatusIncomplete,
		"index-9.db":                     verify.StatusIncomplete,
		"seal-9.json":                    verify.StatusIncomplete,
		"index-2147483647.db":            verify.StatusIncomplete,
		"index-9223372036854775807.db":   verify.StatusDamaged, // no name of ours
		"seal-9223372036854775807.json":  verify.StatusDamaged,
		"seal-18446744073709551616.json": verify.StatusDamaged,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media, _ := hostile(t)
			if err := os.WriteFile(at(media, "pannier/"+name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if r := trip.Audit(t, media); r.Status != want {
				t.Errorf("%s %+v", r.Status, r.Findings)
			}
		})
	}
}

// Of a file that the seal names no more is held in memory than was sealed, also where the
// format would allow more.
func TestGrownIndex(t *testing.T) {
	media, _ := hostile(t)
	for _, name := range files(t, media) {
		if !strings.HasPrefix(name, "pannier/index-") {
			continue
		}
		if err := os.Truncate(at(media, name), 900<<20); err != nil {
			t.Skip(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := verify.Inspect(t.Context(), verify.InspectOptions{Media: media, Cache: t.TempDir()}); err != nil {
			t.Error(err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 100<<20 {
			t.Errorf("%d bytes were allocated", n)
		}
	}
}

// No file makes audit or inspect read more than was sealed: a file of 80 GB that holds nothing
// costs its author nothing, and reading it hours.
func TestSparseFiles(t *testing.T) {
	media, _ := hostile(t)
	for _, name := range append(files(t, media), "unsealed index.json") {
		if strings.HasPrefix(name, "blobs/") && !strings.HasPrefix(name, "blobs/sha256/0") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			media := trip.Copy(t, media)
			if name == "unsealed index.json" {
				for f := range trip.Tree(t, media) {
					if strings.HasPrefix(f, "pannier/seal-") {
						os.Remove(at(media, f))
					}
				}
				name = "index.json"
			}
			if err := os.Truncate(at(media, name), 80<<30); err != nil {
				t.Skip(err)
			}
			begun := time.Now()
			r := trip.Audit(t, media)
			if r.Status == verify.StatusComplete {
				t.Errorf("%s %+v", r.Status, r.Findings)
			}
			inspects(t, media)
			if took := time.Since(begun); took > 8*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

var zeros64 = strings.Repeat("0", 64)
