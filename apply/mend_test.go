package apply_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/apply"
	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/parity"
	"pannier/bundle/release/sample"
)

// A blob of which no copy is right is reconstructed from parity on the way to the registry; the
// report says so, and the drive stays as it is.
func TestUnpackMends(t *testing.T) {
	r, sealed := mendable(t)
	for name, tc := range mendableDamage(t, r) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, sealed)
			if err := tc.hurt(t, trip.Blob(media, tc.bad)); err != nil {
				t.Fatal(err)
			}
			before := trip.Tree(t, media)
			site := trip.NewSite(t)
			opts := site.Options(media)
			res, err := apply.Unpack(t.Context(), opts)
			if err != nil || len(res.Refused) > 0 || len(res.Releases) != 1 || !res.Releases[0].Complete {
				t.Fatalf("%v: %+v", err, res.Refused)
			}
			releaseArrived(t, site, r)
			if !slices.ContainsFunc(res.Warnings, func(w string) bool { return strings.Contains(w, "reconstructed from its parity") }) {
				t.Errorf("the report does not say it: %q", res.Warnings)
			}
			if !maps.Equal(before, trip.Tree(t, media)) {
				t.Error("the drive has changed")
			}
			if left, _ := filepath.Glob(filepath.Join(opts.Cache, "*")); len(left) > 0 {
				t.Errorf("left in the cache: %q", left)
			}

			// With the parity damaged as well nothing is made up.
			slices1, err := filepath.Glob(filepath.Join(media, "pannier", "parity", "*", "slices-1.bin"))
			if err != nil || len(slices1) != 1 {
				t.Fatal(slices1, err)
			}
			if err := os.Truncate(slices1[0], 0); err != nil {
				t.Fatal(err)
			}
			_, res, err = hostile(t, media)
			if !errors.Is(err, bundle.ErrDamaged) && !errors.Is(err, parity.ErrLost) || len(res.Refused) == 0 && len(res.Releases) > 0 && res.Releases[0].Complete {
				t.Errorf("without parity: %v, %+v", err, res)
			}
		})
	}
}

// mendable is a release on a drive half of which is parity.
func mendable(t *testing.T) (*sample.Release, string) {
	t.Helper()
	r := trip.Make(t, sample.Options{Components: 4, LayerSize: 2<<20 + 5})
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	opts := o.Options(media, r.Reference())
	opts.Parity = 5000
	trip.Pack(t, opts)
	return r, media
}

// damage is done to one blob.
type damage struct {
	bad  digest.Digest
	hurt func(t *testing.T, path string) error
}

func mendableDamage(t *testing.T, r *sample.Release) map[string]damage {
	t.Helper()
	comp := r.Components[2]
	layer := layerOf(t, r, comp.Digest)
	flip := func(at int64) func(*testing.T, string) error {
		return func(t *testing.T, p string) error { trip.Flip(t, p, at); return nil }
	}
	remove := func(_ *testing.T, p string) error { return os.Remove(p) }
	return map[string]damage{
		"flip":           {layer, flip(1)},
		"cut":            {layer, func(_ *testing.T, p string) error { return os.Truncate(p, 1<<20+7) }},
		"gone":           {layer, remove},
		"manifest":       {comp.Digest, flip(5)},
		"manifest, gone": {comp.Digest, remove},
		"release image":  {r.Descriptor.Digest, remove},
	}
}

// What is damaged before or while it is served is reconstructed in the same way; the drive
// stays as it is, and the log and the end say so. Without enough parity it is refused.
func TestServeMends(t *testing.T) {
	r, sealed := mendable(t)
	for name, tc := range mendableDamage(t, r) {
		for _, since := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, while it is served %v", name, since), func(t *testing.T) {
				t.Parallel()
				media := trip.Copy(t, sealed)
				hurt := func() {
					if err := tc.hurt(t, trip.Blob(media, tc.bad)); err != nil {
						t.Fatal(err)
					}
				}
				var s *service
				if !since {
					hurt()
					s = serveDrive(t, media, nil)
				} else {
					s = serveDrive(t, media, nil)
					s.pullAll(t, r) // proven once
					hurt()
					// Of what was proven before, a first answer may end early, and never with another byte.
					if a := s.pull(r, tc.bad); a.err == nil && a.status == 200 && digest.FromBytes(a.body) != tc.bad {
						t.Error("other bytes")
					}
				}
				before := trip.Tree(t, media)
				s.pullAll(t, r)
				if n := s.healed(tc.bad); n == 0 {
					t.Error("no answer says that it was reconstructed")
				}
				s.ask("HEAD", s.place(r, tc.bad)).wants(t, 200)
				if err := s.end(); err != nil || len(s.ready.Healed) != 1 || !strings.Contains(s.ready.Healed[0], "reconstructed from its parity") {
					t.Errorf("%v, %q", err, s.ready.Healed)
				}
				if !maps.Equal(before, trip.Tree(t, media)) {
					t.Error("the drive has changed")
				}

				// With the parity damaged as well nothing is made up.
				slices1, err := filepath.Glob(filepath.Join(media, "pannier", "parity", "*", "slices-1.bin"))
				if err != nil || len(slices1) != 1 {
					t.Fatal(slices1, err)
				}
				if err := os.Truncate(slices1[0], 0); err != nil {
					t.Fatal(err)
				}
				s = serveDrive(t, media, nil)
				if s.ready != nil {
					if a := s.pull(r, tc.bad); a.err == nil && a.status == 200 {
						t.Errorf("%d", a.status)
					}
				}
				if err := s.end(); !errors.Is(err, bundle.ErrDamaged) && !errors.Is(err, parity.ErrLost) {
					t.Error(err)
				}
			})
		}
	}
}

// What is damaged again after it was reconstructed is reconstructed again.
func TestServeMendsAgain(t *testing.T) {
	r, sealed := mendable(t)
	layer := layerOf(t, r, r.Components[2].Digest)
	for name, hurt := range map[string][]func(path string) error{
		"slice by slice": {
			func(p string) error { trip.Flip(t, p, 1); return nil },
			func(p string) error { trip.Flip(t, p, 1<<20+1); return nil },
			func(p string) error { trip.Flip(t, p, 2<<20+1); return nil },
		},
		"flipped, cut, gone": {
			func(p string) error { trip.Flip(t, p, 1); return nil },
			func(p string) error { return os.Truncate(p, 2<<20) },
			os.Remove,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			media := trip.Copy(t, sealed)
			s := serveDrive(t, media, nil)
			for i, damage := range hurt {
				if err := damage(trip.Blob(media, layer)); err != nil {
					t.Fatal(err)
				}
				// The first answer may end early, if it was proven before; the next is whole.
				if a := s.pull(r, layer); a.err == nil && a.status == 200 && digest.FromBytes(a.body) != layer {
					t.Error("other bytes")
				}
				if a := s.pull(r, layer); a.err != nil || a.status != 200 || digest.FromBytes(a.body) != layer {
					t.Errorf("damage %d: %d %v", i, a.status, a.err)
				}
			}
		})
	}
}

// place is where a blob or manifest of r is asked for.
func (s *service) place(r *sample.Release, d digest.Digest) string {
	for _, img := range r.Images {
		_, path, _ := strings.Cut(img.Repository, "/")
		if img.Descriptor.Digest == d {
			return "/v2/" + path + "/manifests/" + d.String()
		}
	}
	return "/v2/" + componentRepo + "/blobs/" + d.String()
}

func (s *service) pull(r *sample.Release, d digest.Digest) answer { return s.ask("GET", s.place(r, d)) }

// pullAll pulls every image of r, which must come right.
func (s *service) pullAll(t *testing.T, r *sample.Release) {
	t.Helper()
	for _, img := range r.Images {
		_, path, _ := strings.Cut(img.Repository, "/")
		base := "/v2/" + path
		raw := s.ask("GET", base+"/manifests/"+img.Descriptor.Digest.String()).wants(t, 200)
		m, err := content.ParseManifest(img.Descriptor.MediaType, raw.body)
		if err != nil {
			t.Fatal(err)
		}
		for _, child := range m.Children() {
			if b := s.ask("GET", base+"/blobs/"+child.Digest.String()).wants(t, 200); digest.FromBytes(b.body) != child.Digest {
				t.Errorf("%s: other bytes", child.Digest)
			}
		}
	}
}

// healed counts the answers that were made from parity.
func (s *service) healed(d digest.Digest) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pulls {
		if p.Healed && p.Digest == d {
			n++
		}
	}
	return n
}
