package bundle_test

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

// child packs in a process of its own, from o onto media. fetching is closed when it asks for
// the first blob.
func child(t *testing.T, o *trip.Origin, media string) (cmd *exec.Cmd, fetching chan struct{}) {
	t.Helper()
	fetching = make(chan struct{})
	var once sync.Once
	o.Log.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		if isBlob(r) {
			once.Do(func() { close(fetching) })
		}
		return false
	})
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), packHere+"="+o.Registry.Host+" "+media+" "+filepath.Join(filepath.Dir(media), "cache"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, fetching
}

// A pack that is killed, at any moment, has lost nothing that was there: the same command
// goes on without fetching a whole blob again, and ends with the same bundle.
func TestKilled(t *testing.T) {
	kills := 12
	if allFaults {
		kills = 200
	}
	r := trip.Make(t, sample.Options{Components: 4, LayerSize: 8 << 10, LargeLayer: 2 << 20, LargeLayers: 2})
	o := trip.NewOrigin(t, r)
	reference := trip.Drive(t)
	cmd, fetching := child(t, o, reference)
	<-fetching
	began := time.Now()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	want := refer(t, reference)
	sizes := map[string]int64{}
	for d, rec := range want.records {
		sizes[d.Encoded()] = rec.Size
	}
	total := (&recovery{sizes: sizes}).total()
	dice := rand.New(rand.NewPCG(1, 2))
	ended, kept, resumed := 0, 0, int64(0)
	for i := range kills {
		media := trip.Drive(t)
		cmd, fetching := child(t, o, media)
		<-fetching
		time.Sleep(time.Duration(dice.Int64N(int64(took))))
		cmd.Process.Kill()
		if cmd.Wait() == nil {
			ended++
		}
		report, err := verify.Audit(t.Context(), verify.AuditOptions{Media: media, Policy: bundle.PolicyWarn, Cache: t.TempDir()})
		switch {
		case errors.Is(err, bundle.ErrNotBundle): // it has not come to that
		case err != nil || report.Status != verify.StatusIncomplete && report.Status != verify.StatusComplete:
			t.Errorf("kill %d: audit: %v %+v", i, err, report)
		}
		whole := (&recovery{sizes: sizes}).whole(t, media)
		planned := maps.Clone(whole) // or will be, when the plan is made
		for d, rec := range want.records {
			if content.IsManifest(rec.MediaType) || ofRelease(t, r, d.String()) {
				planned[d.Encoded()] = true
			}
		}
		begun := begunRight(t, media, reference, planned)
		o.Log.Before(nil)
		o.Log.Take()
		opts, err := aloneOptions([]string{o.Registry.Host, media, filepath.Join(t.TempDir(), "cache")})
		if err != nil {
			t.Fatal(err)
		}
		res, err := bundle.Pack(t.Context(), opts)
		if err != nil {
			t.Errorf("kill %d: again: %v", i, err)
			continue
		}
		for d, times := range trip.Blobs(o.Log.Take()) {
			hex := strings.TrimPrefix(d, "sha256:")
			if whole[hex] && !ofRelease(t, r, d) || times > 2 {
				t.Errorf("kill %d: %s was whole and was fetched again, %d times", i, d, times)
			}
		}
		there := int64(0)
		for hex, size := range sizes {
			if whole[hex] {
				there += size
				kept++
			}
		}
		resumed += res.Resumed
		if !res.Unchanged && res.Moved > total-there-res.Resumed {
			t.Errorf("kill %d: %d bytes were moved, with %d of %d there and %d resumed", i, res.Moved, there, total, res.Resumed)
		}
		// Of what was begun only what had not arrived is fetched: a killed program loses nothing
		// that it wrote.
		if !res.Unchanged && res.Moved > total-there-begun {
			t.Errorf("kill %d: %d bytes were moved, with %d of %d there and %d begun", i, res.Moved, there, total, begun)
		}
		got := refer(t, media)
		if got.id != want.id || !maps.Equal(got.blobs, want.blobs) || !reflect.DeepEqual(got.records, want.records) {
			t.Errorf("kill %d: the bundle is another than without it", i)
		}
	}
	t.Logf("%d kills, %d of them too late; %d whole blobs were kept and %d bytes resumed", kills, ended, kept, resumed)
	if ended > kills*3/4 || kept == 0 && allFaults {
		t.Error("the kills came too late, or nothing was there yet")
	}
}

// begunRight counts the bytes in partial files that are the beginning of their blobs, as the
// reference has them. What is whole, or read anew for every plan, does not count.
func begunRight(t *testing.T, media, reference string, except map[string]bool) (n int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(media, "pannier", "partial", "*.download"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		hex := strings.TrimSuffix(filepath.Base(name), ".download")
		have, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(reference, "blobs", "sha256", hex))
		if err == nil && !except[hex] && bytes.HasPrefix(want, have) {
			n += int64(len(have))
		}
	}
	return n
}
