package apply_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle/content"
)

// A registry whose storage lost the end of a blob, or all of it, still says that it has it.
func TestCheckAllReadsWhatTheRegistryClaims(t *testing.T) {
	r := trip.Small(t, "4.8.21")
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	o.Pack(media, "4.8.21")
	m, err := content.ParseManifest(r.Descriptor.MediaType, r.Blobs[r.Descriptor.Digest])
	if err != nil {
		t.Fatal(err)
	}
	lost := m.Layers[len(m.Layers)-1].Digest
	for name, tc := range map[string]struct {
		heals bool
		get   http.HandlerFunc
	}{
		"gone, and put back": {true, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }},
		"zeros, and put back": {true, func(w http.ResponseWriter, q *http.Request) {
			http.ServeContent(w, q, "", time.Time{}, strings.NewReader(string(make([]byte, len(r.Blobs[lost])))))
		}},
		"zeros for ever": {false, func(w http.ResponseWriter, q *http.Request) {
			http.ServeContent(w, q, "", time.Time{}, strings.NewReader(string(make([]byte, len(r.Blobs[lost])))))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			site := trip.NewSite(t)
			site.Unpack(media)
			damaged := true
			site.Log.Before(func(w http.ResponseWriter, q *http.Request) bool {
				if q.Method == http.MethodPut && strings.Contains(q.URL.RawQuery, lost.Encoded()) && tc.heals {
					damaged = false
				}
				if damaged && (trip.Request{Method: q.Method, Path: q.URL.Path}).Blob() == lost.String() {
					tc.get(w, q)
					return true
				}
				return false
			})
			if res, err := apply.Unpack(t.Context(), site.Options(media)); err != nil || res.Pushed.Blobs != 0 {
				t.Fatalf("not asked to look, it noticed: %v, %+v", err, res.Pushed)
			}
			opts := site.Options(media)
			opts.CheckAll = true
			res, err := apply.Unpack(t.Context(), opts)
			if tc.heals && (err != nil || res.Pushed.Blobs != 1) {
				t.Errorf("%v, pushed %+v", err, res.Pushed)
			}
			if !tc.heals && (!errors.Is(err, apply.ErrNotArrived) || !strings.Contains(err.Error(), lost.String())) {
				t.Errorf("%v", err)
			}
		})
	}
}
