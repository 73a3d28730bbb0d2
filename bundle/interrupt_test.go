package bundle_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/parity"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

// isBlob reports whether r fetches a blob.
func isBlob(r *http.Request) bool {
	return trip.Request{Method: r.Method, Path: r.URL.Path}.Blob() != ""
}

// interrupt has the n-th fetch of a blob from o end ctx instead. With half, the fetch is
// answered up to the middle first.
func interrupt(t *testing.T, o *trip.Origin, n int, half bool) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var count atomic.Int64
	o.Log.Before(func(w http.ResponseWriter, r *http.Request) bool {
		if !isBlob(r) || count.Add(1) < int64(n) {
			return false
		}
		if half {
			_, d, _ := strings.Cut(r.URL.Path, "/blobs/")
			raw, err := o.Registry.Blob(strings.TrimPrefix(strings.TrimSuffix(r.URL.Path, "/blobs/"+d), "/v2/"), digest.Digest(d))
			if err == nil {
				w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
				w.WriteHeader(http.StatusOK)
				w.Write(raw[:len(raw)/2])
				w.(http.Flusher).Flush()
				time.Sleep(50 * time.Millisecond) // so that the half arrives, most times
			}
		}
		cancel()
		<-r.Context().Done() // the client hangs up
		return true
	})
	t.Cleanup(func() { o.Log.Before(nil) })
	return ctx
}

// countBlobs is how many blobs a pack with opts fetches. The drive is a copy.
func countBlobs(t *testing.T, o *trip.Origin, opts bundle.PackOptions) int {
	t.Helper()
	o.Log.Take()
	trip.Pack(t, opts)
	n := 0
	for _, q := range o.Log.Take() {
		if q.Blob() != "" {
			n++
		}
	}
	return n
}

// ofRelease reports whether the release image itself needs the blob d: those are read to
// make the plan, every time.
func ofRelease(t *testing.T, r *sample.Release, d string) bool {
	t.Helper()
	return strings.Contains(string(r.Blobs[r.Descriptor.Digest]), d)
}

func TestPackInterruptedAtEveryBlob(t *testing.T) {
	for _, half := range []bool{false, true} {
		t.Run(fmt.Sprintf("half=%v", half), func(t *testing.T) {
			t.Parallel()
			r := trip.Make(t, sample.Options{Components: 4, LayerSize: 4 << 10})
			o := trip.NewOrigin(t, r)
			reference := trip.Drive(t)
			n := countBlobs(t, o, o.Options(reference, "4.8.21"))
			want := blobs(t, reference)
			if n < 10 {
				t.Fatalf("only %d blobs", n)
			}
			resumed := int64(0)
			for i := 1; i <= n; i++ {
				media := trip.Drive(t)
				opts := o.Options(media, "4.8.21")
				opts.Jobs = 1 + i%3
				_, err := bundle.Pack(interrupt(t, o, i, half), opts)
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("blob %d: %v", i, err)
				}
				o.Log.Before(nil)
				had := blobs(t, media)
				for name, sum := range had {
					if name != sum.Encoded() {
						t.Errorf("blob %d: %s stands in blobs/ and is %s", i, name, sum)
					}
				}
				if _, err := os.Lstat(media); err == nil {
					if a := trip.Audit(t, media); a.Status != verify.StatusIncomplete {
						t.Errorf("blob %d: audit: %s %+v", i, a.Status, a.Findings)
					}
				}
				o.Log.Take()
				res := o.Pack(media, "4.8.21")
				for d, times := range trip.Blobs(o.Log.Take()) {
					_, complete := had[strings.TrimPrefix(d, "sha256:")]
					if complete && !ofRelease(t, r, d) || times > 2 {
						t.Errorf("blob %d: %s was complete and was fetched again", i, d)
					}
				}
				if !maps.Equal(blobs(t, media), want) {
					t.Errorf("blob %d: other blobs than without interruption", i)
				}
				resumed += res.Resumed
				trip.Whole(t, media)
			}
			if half && resumed == 0 {
				t.Error("nothing was ever resumed")
			}
		})
	}
}

// While a second release is packed onto a sealed drive, what was sealed can be unpacked at
// every moment.
func TestPackSecondReleaseInterrupted(t *testing.T) {
	r1, r2 := trip.Make(t, sample.Options{Version: "4.8.21", Components: 4}), trip.Make(t, sample.Options{Version: "4.8.22", Components: 4})
	o := trip.NewOrigin(t, r1, r2)
	sealed := trip.Drive(t)
	o.Pack(sealed, "4.8.21")
	reference := trip.Copy(t, sealed)
	n := countBlobs(t, o, o.Options(reference, "4.8.22"))
	reached := 0
	for i := 1; i <= n; i++ {
		media := trip.Copy(t, sealed)
		_, err := bundle.Pack(interrupt(t, o, i, i%2 == 0), o.Options(media, "4.8.22"))
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("blob %d: %v", i, err)
		}
		o.Log.Before(nil)
		a := trip.Audit(t, media)
		b := open(t, media)
		if b.Interrupted {
			reached++
			if a.Status != verify.StatusIncomplete || len(a.Releases) != 1 || a.Releases[0].Version != "4.8.21" {
				t.Errorf("blob %d: audit: %s %+v %+v", i, a.Status, a.Findings, a.Releases)
			}
		} else if a.Status != verify.StatusComplete {
			t.Errorf("blob %d: nothing was begun, audit: %s %+v", i, a.Status, a.Findings)
		}
		site := trip.NewSite(t)
		res, err := apply.Unpack(t.Context(), site.Options(media))
		if b.Interrupted != errors.Is(err, bundle.ErrUnsealed) || errors.Is(err, bundle.ErrDamaged) {
			t.Errorf("blob %d: unpack: %v", i, err)
		}
		if len(res.Releases) != 1 || !res.Releases[0].Complete {
			t.Errorf("blob %d: unpacked %+v", i, res.Releases)
		}
		for _, d := range r1.Digests() {
			if !site.Registry.Has(trip.Repository, d) {
				t.Errorf("blob %d: %s did not arrive", i, d)
			}
		}
		if _, _, err := site.Registry.Manifest(trip.Repository, "4.8.22-x86_64"); err == nil {
			t.Errorf("blob %d: the unsealed release arrived", i)
		}
		o.Pack(media, "4.8.22")
		if !maps.Equal(blobs(t, media), blobs(t, reference)) {
			t.Errorf("blob %d: other blobs than without interruption", i)
		}
		trip.Whole(t, media)
	}
	if reached == 0 {
		t.Error("no interruption was in the middle")
	}
}

// A drive may be pulled between any two calls that change it, and in the middle of any
// write: the audit never finds damage, a seal that stood stays good, and the same command
// again ends with the same blobs, sealed and whole.
func TestPackPulledAnywhere(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	if _, err := r1.AddImage("quay.io/extra/tool", "v1", sample.Image{}); err != nil {
		t.Fatal(err)
	}
	o := trip.NewOrigin(t, r1, r2)
	sealed := trip.Drive(t)
	first := o.Options(sealed, "4.8.21")
	first.Additional = []release.Reference{trip.Image(t, "quay.io/extra/tool:v1")}
	trip.Pack(t, first)

	// From here on the signature of the first release and the image are others.
	o.PutSignature(r1.Descriptor.Digest, trip.Key().Message(signedAs(r1.Descriptor.Digest, r1.Reference()), packetOptions3))
	if _, err := r1.AddImage("quay.io/extra/tool", "v1", sample.Image{Layers: [][]byte{[]byte("another")}}); err != nil {
		t.Fatal(err)
	}
	if err := o.Registry.Load(r1); err != nil {
		t.Fatal(err)
	}

	tool := []release.Reference{trip.Image(t, "quay.io/extra/tool:v1")}
	for _, tc := range []struct {
		name   string
		sealed bool
		opts   func(media string) bundle.PackOptions
		again  func(media string) bundle.PackOptions // nil: the same
	}{
		{"fresh", false, func(m string) bundle.PackOptions { return o.Options(m, "4.8.22") }, nil},
		{"second release", true, func(m string) bundle.PackOptions { return o.Options(m, "4.8.22") }, nil},
		{"second release, with parity", true, func(m string) bundle.PackOptions {
			opts := o.Options(m, "4.8.22")
			opts.Parity = parity.DefaultShare
			return opts
		}, nil},
		{"refresh", true, func(m string) bundle.PackOptions {
			opts := o.Options(m, "4.8.21")
			opts.Refresh = true
			return opts
		}, nil},
		{"moved tag", true, func(m string) bundle.PackOptions {
			opts := o.Options(m)
			opts.Additional = tool
			return opts
		}, nil},
		{"refresh, then something else", true, func(m string) bundle.PackOptions {
			opts := o.Options(m, "4.8.21")
			opts.Refresh = true
			return opts
		}, func(m string) bundle.PackOptions {
			opts := o.Options(m, "4.8.21")
			opts.Additional = tool
			return opts
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			fresh := func() string {
				if tc.sealed {
					return trip.Copy(t, sealed)
				}
				return trip.Drive(t)
			}
			counter := &trip.Cut{}
			reference := fresh()
			opts := tc.opts(reference)
			opts.FS, opts.Jobs = counter.FS, 1
			trip.Pack(t, opts)
			trip.Whole(t, reference)
			want := blobs(t, reference)
			n := counter.Calls()
			if n < 20 {
				t.Fatalf("only %d calls", n)
			}
			t.Logf("%d calls", n)
			every := 4
			if allFaults || !tc.sealed {
				every = 1
			}
			for k := 1; k <= n && !t.Failed(); k += every {
				media := fresh()
				cut := &trip.Cut{At: k}
				opts := tc.opts(media)
				opts.FS, opts.Jobs = cut.FS, 1
				res, err := bundle.Pack(t.Context(), opts)
				at := fmt.Sprintf("call %d of %d, %s", k, n, cut.Call)
				if err == nil && !tolerated(cut.Call) {
					t.Errorf("%s: no error: %+v", at, res)
				}
				if report, aerr := verify.Audit(t.Context(), verify.AuditOptions{Media: media, Signatures: o.Verifier, Cache: t.TempDir()}); aerr != nil {
					if tc.sealed || !errors.Is(aerr, bundle.ErrNotBundle) {
						t.Errorf("%s: audit: %v", at, aerr)
					}
				} else if report.Status != verify.StatusIncomplete && report.Status != verify.StatusComplete {
					t.Errorf("%s: audit: %s %+v", at, report.Status, report.Findings)
				} else if b := open(t, media); tc.sealed && b.Seal == nil {
					t.Errorf("%s: the seal is gone", at)
				}
				again := tc.opts
				if tc.again != nil {
					again = tc.again
				}
				opts = again(media)
				opts.FS = (&trip.Cut{}).FS
				if _, err := bundle.Pack(t.Context(), opts); err != nil {
					t.Errorf("%s: again: %v", at, err)
					continue
				}
				trip.Whole(t, media)
				if tc.again == nil && !maps.Equal(blobs(t, media), want) {
					t.Errorf("%s: other blobs than without the pull", at)
				}
				if left, _ := filepath.Glob(filepath.Join(media, "pannier", "*")); len(left) > 6+strings.Count(strings.Join(left, " "), "/parity") {
					t.Errorf("%s: left behind: %q", at, left)
				}
				if t.Failed() {
					t.Logf("%s", at)
				}
			}
		})
	}
}

// tolerated reports whether a call may fail without the pack failing.
func tolerated(call string) bool { return strings.HasSuffix(call, "pannier/lock") }
