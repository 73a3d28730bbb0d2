package apply_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/release/sample"
	"pannier/bundle/remote"
)

// What is presumed may be lost after the registry was asked for it. That is told as if it had been
// found out then; any other failure of such a push is told as it is.
func TestPresumedIsLostAmidThePush(t *testing.T) {
	r := trip.Make(t, sample.Options{Components: 4, LayerSize: 8 << 10})
	o := trip.NewOrigin(t, r)
	whole := trip.Drive(t)
	o.Pack(whole, r.Reference())
	site := trip.NewSite(t)
	site.Unpack(whole)
	to := objects.Destination{Registry: site.Registry.Host, Repository: trip.Repository}
	held := map[digest.Digest]int64{}
	for d, data := range r.Blobs {
		held[d] = int64(len(data))
	}
	opts := o.Options(trip.Drive(t), r.Reference())
	opts.Have = []bundle.Holdings{{Registry: to, Blobs: map[string]map[digest.Digest]int64{to.String(): held}}}
	trip.Pack(t, opts)
	gone := layerOf(t, r, r.Components[2].Digest)

	for name, tc := range map[string]struct {
		loses bool
		want  error
	}{"the blob is lost": {true, bundle.ErrPresumed}, "the registry refuses": {false, remote.ErrRefused}} {
		t.Run(name, func(t *testing.T) {
			var lost atomic.Bool
			site.Log.Before(func(w http.ResponseWriter, q *http.Request) bool {
				manifest := strings.Contains(q.URL.Path, "/manifests/")
				switch {
				case manifest && q.Method == http.MethodPut:
					lost.Store(true)
					w.WriteHeader(http.StatusBadRequest)
					w.Write([]byte(`{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}`))
				case manifest && q.Method == http.MethodHead, tc.loses && lost.Load() && strings.HasSuffix(q.URL.Path, gone.String()):
					w.WriteHeader(http.StatusNotFound)
				default:
					return false
				}
				return true
			})
			res, err := apply.Unpack(t.Context(), site.Options(opts.Media))
			if !errors.Is(err, tc.want) || errors.Is(err, remote.ErrRefused) == tc.loses {
				t.Errorf("%v", err)
			}
			if tc.loses && (len(res.Refused) != 1 || res.Refused[0].Digest != gone.String() || !strings.Contains(err.Error(), gone.String())) {
				t.Errorf("%+v: %v", res.Refused, err)
			}
		})
	}
}
