package bundle_test

import (
	"fmt"
	"strings"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/verify"
)

// One call on a name or a promise fails and the drive works again, so that the pack can tidy
// up after itself: what it tidies is never something that a seal needs.
func TestPackOneFault(t *testing.T) {
	r1, r2 := trip.Small(t, "4.8.21"), trip.Small(t, "4.8.22")
	o := trip.NewOrigin(t, r1, r2)
	sealed := trip.Drive(t)
	o.Pack(sealed, "4.8.21")
	o.PutSignature(r1.Descriptor.Digest, trip.Key().Message(signedAs(r1.Descriptor.Digest, r1.Reference()), packetOptions3))
	promises := func(name string) bool {
		return !strings.Contains(name, "partial/") && !strings.HasSuffix(name, "/lock")
	}
	for name, tc := range map[string]struct {
		sealed bool
		opts   func(string) bundle.PackOptions
	}{
		"fresh": {false, func(m string) bundle.PackOptions { return o.Options(m, "4.8.22") }},
		"refresh and second release": {true, func(m string) bundle.PackOptions {
			opts := o.Options(m, "4.8.21", "4.8.22")
			opts.Refresh = true
			return opts
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := func(cut *trip.Cut) (string, error) {
				media := trip.Drive(t)
				if tc.sealed {
					media = trip.Copy(t, sealed)
				}
				opts := tc.opts(media)
				opts.FS, opts.Jobs = cut.FS, 1
				_, err := bundle.Pack(t.Context(), opts)
				return media, err
			}
			counter := &trip.Cut{Only: promises}
			if _, err := run(counter); err != nil {
				t.Fatal(err)
			}
			n := counter.Calls()
			t.Logf("%d calls", n)
			every := 2
			if allFaults || !tc.sealed {
				every = 1
			}
			for k := 1; k <= n && !t.Failed(); k += every {
				cut := &trip.Cut{At: k, Once: true, Only: promises}
				media, err := run(cut)
				at := fmt.Sprintf("call %d of %d, %s", k, n, cut.Call)
				if err == nil {
					t.Errorf("%s: no error", at)
				}
				r, aerr := verify.Audit(t.Context(), verify.AuditOptions{Media: media, Signatures: o.Verifier, Cache: t.TempDir()})
				if aerr == nil && r.Status != verify.StatusIncomplete && r.Status != verify.StatusComplete {
					t.Errorf("%s: %v: audit: %s %+v", at, err, r.Status, r.Findings)
				}
				if aerr != nil && tc.sealed {
					t.Errorf("%s: audit: %v", at, aerr)
				}
				opts := tc.opts(media)
				opts.FS = (&trip.Cut{}).FS
				if _, err := bundle.Pack(t.Context(), opts); err != nil {
					t.Errorf("%s: again: %v", at, err)
					continue
				}
				trip.Whole(t, media)
				if t.Failed() {
					t.Log(at)
				}
			}
		})
	}
}
