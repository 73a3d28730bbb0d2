package verify_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle/layout/baddrive"
	"pannier/bundle/release/sample"
	"pannier/verify"
)

// A power cut at the k-th write of a repair, whatever of the unsynced survives, leaves the drive
// at least as good as it was, and the next repair ends where the first would have. Every k, and
// more ways to survive, in make faults.
func TestPowerCutOfRepair(t *testing.T) {
	step, seeds := 9, uint64(1)
	if allFaults {
		step, seeds = 1, 3
	}
	r := trip.Make(t, sample.Options{Components: 3, LayerSize: 40 << 10})
	o := trip.NewOrigin(t, r)
	for _, rules := range []baddrive.Rules{baddrive.POSIX, baddrive.FAT32} {
		t.Run(rules.Name, func(t *testing.T) {
			d := baddrive.New(t, baddrive.Options{Rules: rules})
			media := filepath.Join(d.Plug(), "drive")
			opts := o.Options(media, r.Reference())
			opts.Parity = 5000
			trip.Pack(t, opts)
			all := sums(t, media, "")
			layers := r.Digests()
			trip.Flip(t, trip.Blob(media, layers[0]), 3)
			for _, name := range []string{trip.Blob(media, layers[1]), at(media, "START-HERE.txt"), at(media, name(t, media, "pannier/index-*.db"))} {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
			had := map[string]bool{}
			for _, f := range trip.Audit(t, media).Findings {
				had[f.Path] = true
			}
			d.Pull()
			d.Sync()

			var cuts []*baddrive.Drive
			var names []string
			d.Set(func(o *baddrive.Options) {
				o.OnWrite = func(k int) {
					if k%step != 0 {
						return
					}
					for seed := range seeds {
						cuts = append(cuts, d.Crash(baddrive.Random, seed))
						names = append(names, fmt.Sprintf("cut at call %d, random (%d)", k, seed))
					}
					cuts, names = append(cuts, d.Crash(baddrive.Lost, 0)), append(names, fmt.Sprintf("cut at call %d, all lost", k))
				}
			})
			media = filepath.Join(d.Plug(), "drive")
			if report, err := mend(t, media, nil); err != nil || report.Status != verify.StatusComplete {
				t.Fatalf("%v %+v", err, report)
			}
			d.Pull()
			if len(cuts) < 6 {
				t.Fatalf("%d cuts", len(cuts))
			}
			t.Logf("%d cuts", len(cuts))
			for i, c := range cuts {
				media := filepath.Join(c.Plug(), "drive")
				for _, f := range trip.Audit(t, media).Findings {
					if !had[f.Path] && f.Kind != verify.KindPartial && !strings.HasSuffix(f.Path, ".new") {
						t.Errorf("%s: %s %s: %s", names[i], f.Kind, f.Path, f.Detail)
					}
				}
				report, err := mend(t, media, nil)
				if err != nil || report.Status != verify.StatusComplete {
					t.Errorf("%s: again: %v %+v", names[i], err, report)
				} else if !maps.Equal(sums(t, media, ""), all) {
					t.Errorf("%s: another bundle", names[i])
				}
				c.Pull()
			}
		})
	}
}
