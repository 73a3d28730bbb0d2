package bundle_test

import (
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/layout/baddrive"
	"pannier/bundle/release/sample"
	"pannier/bundle/remote"
	"pannier/bundle/throttle"
)

// mixed is a release of about so many bytes, in blobs of all sizes, as real ones are: a few
// large ones have most of the bytes, and hundreds of small ones the rest.
func mixed(t *testing.T, bytes int64) *sample.Release {
	t.Helper()
	const images = 40
	layers := make([][]int64, images)
	for i := range layers {
		switch {
		case i < 2:
			layers[i] = []int64{bytes / 5}
		case i < 10:
			layers[i] = []int64{bytes / 20, bytes / 200}
		default:
			layers[i] = []int64{bytes / 300, bytes / 1000, bytes / 3000}
		}
	}
	return trip.Make(t, sample.Options{Components: images, Layers: layers, LayerSize: 1000})
}

// over is a client that reaches o by a wire.
func over(t *testing.T, o *trip.Origin, wire *throttle.Line, away time.Duration) *remote.Client {
	t.Helper()
	upstream, err := url.Parse(o.Registry.URL())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(wire.Answer(httputil.NewSingleHostReverseProxy(upstream), away))
	t.Cleanup(s.Close)
	c, err := remote.New(remote.Options{Mirrors: []remote.Mirror{{From: "quay.io", To: strings.TrimPrefix(s.URL, "http://")}}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// downloading packs, and returns what line did from the first blob on until the last was there.
func downloading(t *testing.T, opts bundle.PackOptions, line *throttle.Line) throttle.Account {
	t.Helper()
	var begun, over sync.Once
	var a throttle.Account
	opts.Progress = func(e bundle.Event) {
		switch e.Phase {
		case bundle.PhaseDownload:
			begun.Do(line.Reset)
		case bundle.PhaseReadBack:
			over.Do(func() { a = line.Account() })
		}
	}
	trip.Pack(t, opts)
	return a
}

const (
	mbit = 1_000_000 / 8
	mb   = 1_000_000
)

// A drive that is slower than the wire writes all the time until the last blob is there, and a
// wire that is slower than the drive is never idle, by the account of their own clock. What is
// left is what names on the drive and round trips cost beside so few bytes. Whatever else the
// machine has to do makes the share larger and never smaller, so the least of five tries counts.
func TestNeverIdle(t *testing.T) {
	const most, tries = 0.3, 5
	for _, tc := range []struct {
		name        string
		wire, drive int64 // bytes a second
		away        time.Duration
		bytes       int64
		all         bool // with the tag faults only
		idle        bool // the control: that a drive is found to wait for such a wire
	}{
		{name: "drive of 20 MB/s", wire: 2000 * mb, drive: 20 * mb, bytes: 30 * mb},
		{name: "drive of 100 MB/s", wire: 2000 * mb, drive: 100 * mb, bytes: 300 * mb, all: true},
		{name: "wire of 20 Mbit/s", wire: 20 * mbit, bytes: 4 * mb},
		{name: "wire of 200 Mbit/s", wire: 200 * mbit, bytes: 30 * mb, all: true},
		{name: "wire of 200 Mbit/s and 20 ms", wire: 200 * mbit, bytes: 60 * mb, away: 20 * time.Millisecond, all: true},
		{name: "control, a wire a quarter as fast as the drive", wire: 40 * mbit, drive: 20 * mb, bytes: 8 * mb, idle: true},
	} {
		if tc.all && !allFaults {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			least := 1.0
			for range tries {
				o := trip.NewOrigin(t, mixed(t, tc.bytes))
				wire, media := throttle.New(tc.wire, 128<<10), trip.Drive(t)
				line := wire
				if tc.drive > 0 {
					line = throttle.New(tc.drive, 1<<20)
					media = baddrive.New(t, baddrive.Options{Line: line}).Plug()
				}
				opts := o.Options(media, "4.8.21")
				opts.Client = over(t, o, wire, tc.away)
				a := downloading(t, opts, line)
				t.Logf("%d bytes, busy %.2f s, idle %.2f s: %.0f%%", a.Bytes, a.Busy.Seconds(), a.Idle.Seconds(), 100*a.IdleShare())
				if a.Bytes < tc.bytes*8/10 {
					t.Fatal("that was not all of it")
				}
				if least = min(least, a.IdleShare()); (least > most) == tc.idle {
					break
				}
			}
			if (least > most) != tc.idle {
				t.Errorf("idle for %.0f%% of the time", 100*least)
			}
		})
	}
}
