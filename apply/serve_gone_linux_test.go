package apply_test

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/layout"
	"pannier/bundle/layout/baddrive"
	"pannier/bundle/parity"
	"pannier/bundle/release/sample"
)

// A drive that is unplugged while it is served: every answer is right or an error, nothing is
// said to be damaged, parity or not, and the service ends by itself and says why.
func TestServeUnplugged(t *testing.T) {
	for name, tc := range map[string]struct {
		errno  syscall.Errno
		parity parity.Share
	}{
		"unplugged":              {syscall.ENODEV, 0},
		"fails":                  {syscall.EIO, 0},
		"unplugged, with parity": {syscall.ENODEV, 500},
		"fails, with parity":     {syscall.EIO, 500},
	} {
		t.Run(name, func(t *testing.T) {
			r := trip.Make(t, sample.Options{Components: 5, LayerSize: 64 << 10, LargeLayer: 3 << 20})
			o := trip.NewOrigin(t, r)
			d := baddrive.New(t, baddrive.Options{})
			media := filepath.Join(d.Plug(), "drive")
			opts := o.Options(media, r.Reference())
			opts.Parity = tc.parity
			trip.Pack(t, opts)
			d.Pull()
			d.Plug()
			s := serveDrive(t, media, nil)
			first := layerOf(t, r, r.Components[2].Digest)
			if a := s.pull(r, first).wants(t, 200); digest.FromBytes(a.body) != first {
				t.Fatal("other bytes")
			}
			always := func(baddrive.Op) bool { return true }
			d.Fail(baddrive.Fault{Errno: tc.errno, At: always, Then: always})
			var refused int
			for _, img := range r.Images {
				wanted := []digest.Digest{img.Descriptor.Digest}
				err := r.Walk(img.Descriptor, func(d ocispec.Descriptor) error { wanted = append(wanted, d.Digest); return nil })
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range wanted {
					switch a := s.pull(r, want); {
					case a.err != nil: // it is ending, or cut
					case a.status == 503:
						refused++
						if !strings.Contains(string(a.body), "UNAVAILABLE") || strings.Contains(string(a.body), media) {
							t.Errorf("%s", a.body)
						}
					case a.status != 200:
						t.Errorf("%d %s", a.status, a.body)
					case digest.FromBytes(a.body) != want: // the page cache may still have it
						t.Errorf("%s: other bytes", want)
					}
				}
			}
			if refused == 0 {
				t.Error("nothing was refused")
			}
			select {
			case err := <-s.done:
				s.done <- err
				if !errors.Is(err, layout.ErrGone) || errors.Is(err, bundle.ErrDamaged) || !strings.Contains(err.Error(), media) {
					t.Error(err)
				}
			case <-time.After(time.Minute):
				t.Error("it goes on without a drive")
			}
		})
	}
}

// One place that cannot be read is no drive that is gone: what lies there is refused, or
// reconstructed, and everything else is served.
func TestServeBadPlace(t *testing.T) {
	for _, share := range []parity.Share{0, 500} {
		r := trip.Make(t, sample.Options{Components: 5, LayerSize: 64 << 10})
		o := trip.NewOrigin(t, r)
		d := baddrive.New(t, baddrive.Options{})
		media := filepath.Join(d.Plug(), "drive")
		opts := o.Options(media, r.Reference())
		opts.Parity = share
		trip.Pack(t, opts)
		d.Pull()
		d.Plug()
		bad := layerOf(t, r, r.Components[2].Digest)
		there := func(op baddrive.Op) bool { return op.Kind == "read" && strings.HasSuffix(op.Path, bad.Encoded()) }
		d.Fail(baddrive.Fault{Errno: syscall.EIO, At: there, Then: there})
		s := serveDrive(t, media, func(o *apply.ServeOptions) { o.Repository = "all" })
		for range 4 {
			want := 503
			if share > 0 {
				want = 200
			}
			if a := s.pull(r, bad).wants(t, want); want == 200 && digest.FromBytes(a.body) != bad {
				t.Error("other bytes")
			}
			s.ask("GET", "/v2/all/manifests/4.8.21-x86_64").wants(t, 200)
		}
		if d.Hit() == nil {
			t.Error("the fault was never met")
		}
		if err := s.end(); err != nil {
			t.Error(err)
		}
	}
}
