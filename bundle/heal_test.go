package bundle_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/release/sample"
	"pannier/bundle/remote"
	"pannier/verify"

	"github.com/opencontainers/go-digest"
)

// ownLayer is the digest of a layer, and of the manifest, that only this release has.
func ownLayer(t *testing.T, r, other *sample.Release) string {
	t.Helper()
	for d, data := range r.Blobs {
		if _, shared := other.Blobs[d]; !shared && len(data) > 4096 && !strings.HasPrefix(string(data), "{") &&
			!ofRelease(t, r, d.Encoded()) {
			return d.String()
		}
	}
	t.Fatal("the releases share every layer")
	return ""
}

// A sealed blob of the right size is trusted by record; Verify hashes it, and fetches what is
// bad, also of releases that the command does not name.
func TestPackVerify(t *testing.T) {
	first := trip.Make(t, sample.Options{Version: "4.8.21", Seed: 1})
	second := trip.Make(t, sample.Options{Version: "4.8.22", Seed: 7})
	o := trip.NewOrigin(t, first, second)
	media := trip.Drive(t)
	o.Pack(media, "4.8.21")
	whole := o.Pack(media, "4.8.22")
	bad := []string{ownLayer(t, first, second), ownLayer(t, second, first), first.Components[0].Digest.String()}
	for _, d := range bad {
		trip.Flip(t, trip.Blob(media, digest.Digest(d)), 100)
	}
	if report := trip.Audit(t, media); report.Status != verify.StatusDamaged {
		t.Fatalf("the damage is %s: %v", report.Status, report.Findings)
	}
	o.Log.Take()
	o.Pack(media, "4.8.22") // reads manifests, and nothing else that the seal covers
	if got := trip.Blobs(o.Log.Take()); got[bad[0]]+got[bad[1]] > 0 {
		t.Error("an ordinary pack read what the seal covers")
	}
	opts := o.Options(media, "4.8.22")
	opts.Verify = true
	res := trip.Pack(t, opts)
	fetched := trip.Blobs(o.Log.Take())
	for _, d := range bad[:2] {
		if fetched[d] != 1 {
			t.Errorf("%s was fetched %d times", d, fetched[d])
		}
	}
	for d, n := range fetched {
		if d != bad[0] && d != bad[1] && !ofRelease(t, second, d) {
			t.Errorf("%s was good and was fetched %d times", d, n)
		}
	}
	if res.BundleID != whole.BundleID {
		t.Errorf("bundle id %s, was %s", res.BundleID, whole.BundleID)
	}
	trip.Whole(t, media)
}

// Bytes of a partial file are counted once, as reused, however far it had come.
func TestPackResumedProgress(t *testing.T) {
	r := trip.Make(t, sample.Options{LayerSize: 64 << 10})
	o := trip.NewOrigin(t, r)
	n := countBlobs(t, o, o.Options(trip.Drive(t), "4.8.21"))
	resumed := int64(0)
	for i := n / 2; i <= n; i++ {
		media := trip.Drive(t)
		if _, err := bundle.Pack(interrupt(t, o, i, true), o.Options(media, "4.8.21")); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		o.Log.Before(nil)

		var mu sync.Mutex
		var last bundle.Event
		opts := o.Options(media, "4.8.21")
		opts.Progress = func(e bundle.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Phase == bundle.PhaseDownload && e.Blobs >= last.Blobs {
				last = e
			}
		}
		res := trip.Pack(t, opts)
		if last.Done+last.Reused != last.Total || last.Done != res.Moved {
			t.Errorf("blob %d: at the end %d moved and %d reused of %d; the result says %d moved", i, last.Done, last.Reused, last.Total, res.Moved)
		}
		resumed += res.Resumed
	}
	if resumed == 0 {
		t.Error("nothing was ever resumed")
	}
}

// Stores that cannot be reached are not stores without a signature.
func TestPackStoresSilent(t *testing.T) {
	o := trip.NewOrigin(t, trip.Small(t, "4.8.21"))
	opts := o.Options(trip.Drive(t), "4.8.21")
	opts.Stores = []string{"http://127.0.0.1:1/signatures"}
	_, err := bundle.Pack(t.Context(), opts)
	if !errors.Is(err, remote.ErrUnreachable) || errors.Is(err, bundle.ErrSignature) {
		t.Errorf("unreachable stores: %v", err)
	}
	// One that answers decides.
	opts.Stores = append(opts.Stores, t.TempDir())
	if _, err := bundle.Pack(t.Context(), opts); !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("a store without signature: %v", err)
	}
	opts.Policy = bundle.PolicyWarn
	opts.Stores = opts.Stores[:1]
	res := trip.Pack(t, opts)
	if res.Releases[0].Signature.Status != bundle.SignatureMissing {
		t.Errorf("with policy warn: %+v", res.Releases[0].Signature)
	}
}

// What is damaged stays until what takes its place is there: parity heals a damaged blob that it
// could not make out of nothing.
func TestPackVerifyKeepsDamaged(t *testing.T) {
	first := trip.Make(t, sample.Options{Version: "4.8.21", Seed: 1})
	second := trip.Make(t, sample.Options{Version: "4.8.22", Seed: 7})
	o := trip.NewOrigin(t, first)
	bad := ownLayer(t, first, second)
	for what, damage := range map[string]func(path string) error{
		"flipped": func(path string) error { trip.Flip(t, path, 100); return nil },
		"cut":     func(path string) error { return os.Truncate(path, 100) },
	} {
		media := trip.Drive(t)
		o.Pack(media, "4.8.21")
		path := trip.Blob(media, digest.Digest(bad))
		if err := damage(path); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		o.Log.Before(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/blobs/"+bad) {
				return false
			}
			w.WriteHeader(http.StatusNotFound)
			return true
		})
		opts := o.Options(media, "4.8.21")
		opts.Verify = true
		if _, err := bundle.Pack(t.Context(), opts); err == nil {
			t.Fatalf("%s: packed without the blob", what)
		}
		o.Log.Before(nil)
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
			t.Errorf("%s: the damaged blob is gone, and nothing took its place: %v", what, err)
		}
		trip.Pack(t, opts)
		trip.Whole(t, media)
	}
}
