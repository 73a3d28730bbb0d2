package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/parity"
	"pannier/store"
)

// How often finished blobs are made durable and recorded, and snapshots of the index
// published. A crash costs re-hashing what was not recorded, never correctness.
const (
	flushEvery      = 2 * time.Second
	flushBlobs      = 128
	flushBytes      = 256 << 20
	snapshotEvery   = 5 * time.Second
	snapshotPercent = 2 // of the bytes written since the last one
)

// transfer brings every wanted blob onto the drive, manifests and documents after what they
// name.
func (p *packer) transfer(ctx context.Context, res *PackResult) (err error) {
	t := &transfer{p: p, done: make(chan finished, flushBlobs)}
	t.total.TotalBlobs = len(p.items)
	var blobs, small []*item
	for _, d := range slices.Sorted(maps.Keys(p.items)) {
		it := p.items[d]
		t.total.Total += it.desc.Size
		switch {
		case it.state == stateSealed:
			t.total.Reused += it.desc.Size
			t.total.Blobs++
		case it.data != nil:
			small = append(small, it)
		default:
			blobs = append(blobs, it)
		}
	}
	slices.SortStableFunc(blobs, func(a, b *item) int { return int(min(1, max(-1, b.desc.Size-a.desc.Size))) })

	recorded := make(chan error, 1)
	rctx := context.WithoutCancel(ctx) // what is finished is recorded even when interrupted
	fctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		err := t.record(rctx)
		if err != nil {
			fail(err)
			for range t.done { // let the workers finish
			}
		}
		recorded <- err
	}()
	err = t.run(fctx, blobs)
	if err == nil {
		err = t.run(fctx, small)
	}
	close(t.done)
	if rerr := <-recorded; rerr != nil {
		err = rerr
	}
	if err != nil {
		if perr := t.recordPartials(); perr != nil {
			err = errors.Join(err, perr)
		}
	}
	res.Moved, res.Resumed, res.Adopted = t.moved.Load(), t.resumed.Load(), t.adoptedBytes.Load()
	return err
}

type transfer struct {
	p     *packer
	done  chan finished
	moved atomic.Int64 // bytes fetched and written

	adoptedBytes atomic.Int64 // bytes copied from what is taken over

	resumed atomic.Int64 // bytes taken over from partial files
	mu      sync.Mutex
	total   Event
}

// finished is a blob that is whole but not yet durable.
type finished struct {
	it     *item
	slices content.Slices
}

// run brings items into place, the largest of which come first.
func (t *transfer) run(ctx context.Context, items []*item) error {
	return BothEnds(ctx, t.p.opts.Jobs, items, func(ctx context.Context, it *item) error {
		sums, err := t.one(ctx, it)
		if err == nil {
			t.done <- finished{it, sums}
		}
		return err
	})
}

// one brings one blob into place, hashed.
func (t *transfer) one(ctx context.Context, it *item) (content.Slices, error) {
	l := t.p.layout
	if it.state == stateThere {
		// Whoever wrote it may have died before it was durable, and a file of the right size
		// proves nothing.
		sums, ok, err := l.Adopt(ctx, it.desc, nil)
		if err != nil {
			return nil, err
		}
		if ok {
			t.add(func(e *Event) { e.Reused += it.desc.Size; e.Blobs++ })
			return sums, nil
		}
		t.p.warn("%s stood damaged on the drive and is fetched again", it.desc.Digest)
		if err := t.giveWay(it); err != nil {
			return nil, err
		}
	} else if _, err := l.Stat(it.desc.Digest); err == nil {
		if err := t.giveWay(it); err != nil { // of another size
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if it.data != nil {
		sums, err := l.IngestBytes(ctx, it.desc, it.data)
		if err == nil {
			moved := &t.moved
			if t.p.adopt != nil && len(it.repos) == 0 {
				moved = &t.adoptedBytes
			}
			moved.Add(it.desc.Size)
			t.add(func(e *Event) { e.Done += it.desc.Size; e.Blobs++ })
		}
		return sums, err
	}
	if sums, ok, err := t.adopted(ctx, it); ok || err != nil {
		return sums, err
	}
	var got layout.Ingested
	c := t.counter(it, &t.moved)
	err := again(func() (err error) {
		got, err = l.Ingest(ctx, it.desc, it.fetch, c.add)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", someTags(it.tags), err)
	}
	c.done(got)
	return got.Slices, nil
}

// counter tells, while a blob is brought into place, the bytes that were moved from those of an
// earlier download that are only hashed again: these come first.
type counter struct {
	t     *transfer
	moved *atomic.Int64
	ahead int64 // bytes of the partial file that were not met yet
	taken int64 // bytes of it that were
}

func (t *transfer) counter(it *item, moved *atomic.Int64) *counter {
	return &counter{t: t, moved: moved, ahead: it.begun}
}

// add is the progress of an ingest, which takes back what it gives up.
func (c *counter) add(n int64) {
	again := min(n, c.ahead)
	c.ahead -= again
	if n < 0 { // all is to come from its beginning now
		again, c.ahead = -min(-n, c.taken), 0
	}
	c.count(again, n-again)
}

func (c *counter) count(again, moved int64) {
	c.taken += again
	c.moved.Add(moved)
	c.t.add(func(e *Event) { e.Reused += again; e.Done += moved })
}

// done settles what was really taken over.
func (c *counter) done(got layout.Ingested) {
	differ := got.Resumed - c.taken
	c.count(differ, -differ)
	c.t.resumed.Add(got.Resumed)
	c.t.add(func(e *Event) { e.Blobs++ })
}

// giveWay removes what stands damaged under a blob's name, but only if the drive has no room for
// it beside all that is still to come: until its successor is whole, parity makes more of a
// damaged blob than of none.
func (t *transfer) giveWay(it *item) error {
	t.mu.Lock()
	left := t.total.Total - t.total.Done - t.total.Reused
	t.mu.Unlock()
	left += parity.Size(t.p.opts.Parity, t.p.cover.bare) + t.p.programs
	if space, err := layout.StatSpace(t.p.opts.Media); err == nil && space.Free > left {
		return nil
	}
	return t.p.layout.RemoveBlob(it.desc.Digest)
}

// roomSlack, in bytes, is what the estimate of what is still to come may be too high by:
// snapshots of the index are in no plan, and what is under way is counted a little late.
const roomSlack = 64 << 20

// checkRoom compares what is still to come with what is free by now: other programs may write to
// the drive too, and somebody who is told hours before the drive is full can do something.
func (t *transfer) checkRoom() error {
	var left int64
	for _, it := range t.p.items {
		if it.state == stateAbsent {
			left += it.desc.Size - it.begun
		}
	}
	t.mu.Lock()
	left -= t.total.Done
	t.mu.Unlock()
	left += parity.Size(t.p.opts.Parity, t.p.cover.bare)
	space, err := layout.StatSpace(t.p.opts.Media)
	if err != nil || space.Free+roomSlack >= left {
		return nil // a drive that is gone is found by whoever writes to it
	}
	return fmt.Errorf("%s: other programs write to it too: %s are needed still and %s are free: %w",
		t.p.opts.Media, content.SizeText(left), content.SizeText(space.Free), layout.ErrNoSpace)
}

// fetchTries is how often something is fetched that arrives with wrong bytes.
const fetchTries = 3

// again calls fetch anew when the bytes that came were wrong: they may have been changed on
// their way, by a proxy or a bad memory, and right the next time.
func again(fetch func() error) error {
	for try := 1; ; try++ {
		if err := fetch(); try == fetchTries || !errors.Is(err, content.ErrDigest) {
			return err
		}
	}
}

func (t *transfer) add(change func(*Event)) {
	t.mu.Lock()
	change(&t.total)
	e := t.total
	t.mu.Unlock()
	e.Phase = PhaseDownload
	t.p.opts.Progress(e)
}

// record makes finished blobs durable, a batch at a time, and only then says in the index
// that they are complete. Every few seconds a snapshot goes to the drive.
func (t *transfer) record(ctx context.Context) error {
	var batch []finished
	var bytes, sinceSnapshot int64
	last, snapshot := time.Now(), time.Now()
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := t.p.complete(ctx, batch); err != nil {
			return err
		}
		batch, bytes, last = batch[:0], 0, time.Now()
		return nil
	}
	tick := time.NewTicker(flushEvery / 2)
	defer tick.Stop()
	for {
		select {
		case f, ok := <-t.done:
			if !ok {
				return flush()
			}
			batch = append(batch, f)
			bytes += f.it.desc.Size
			sinceSnapshot += f.it.desc.Size
		case <-tick.C:
			if err := t.checkRoom(); err != nil {
				return err
			}
		}
		if len(batch) >= flushBlobs || bytes >= flushBytes || time.Since(last) >= flushEvery {
			if err := flush(); err != nil {
				return err
			}
		}
		if len(batch) == 0 && time.Since(snapshot) >= snapshotEvery && t.p.indexSize()*100 <= sinceSnapshot*snapshotPercent {
			if err := t.p.publishSnapshot(); err != nil {
				return err
			}
			snapshot, sinceSnapshot = time.Now(), 0
		}
	}
}

// complete makes a batch durable and records it.
func (p *packer) complete(ctx context.Context, batch []finished) error {
	if err := p.layout.Flush(ctx); err != nil {
		return err
	}
	done := make([]store.Completed, len(batch))
	for i, f := range batch {
		r := p.recordOf(f.it)
		r.State, r.Offset, r.Sealed = store.StateComplete, r.Size, 0
		done[i] = store.Completed{Record: r, Slices: f.slices}
	}
	return p.index.Complete(done...)
}

// recordOf is the record of a wanted blob: what the plan says of it, and the images that need
// it, those of earlier runs among them.
func (p *packer) recordOf(it *item) store.Record {
	r := store.Record{Digest: it.desc.Digest, Size: it.desc.Size, MediaType: it.desc.MediaType, State: store.StateWanted}
	if r.Source = it.source; len(it.repos) > 0 {
		r.Source = it.repos[0].Name()
	}
	owners := maps.Clone(it.tags)
	if old, err := p.index.Record(it.desc.Digest); err == nil {
		for _, t := range old.Images {
			if !p.planned(t) {
				owners[t] = true
			}
		}
		if old.Source != "" {
			r.Source = old.Source
		}
	}
	r.Images = slices.Sorted(maps.Keys(owners))
	return r
}

// recordPartials notes how far interrupted downloads have come. It is a hint for people who
// read the index: resuming hashes what is on the drive.
func (t *transfer) recordPartials() error {
	partials, err := t.p.layout.Partials()
	if err != nil {
		return err
	}
	var records []store.Record
	for _, f := range partials {
		it, ok := t.p.items[f.Digest]
		if !ok || f.Size > it.desc.Size {
			continue
		}
		r := t.p.recordOf(it)
		r.State, r.Offset = store.StatePartial, f.Size
		records = append(records, r)
	}
	return t.p.index.Put(records...)
}

// someTags names the images that need a blob, few enough for a line.
func someTags(tags map[string]bool) string { return content.Few(slices.Sorted(maps.Keys(tags))) }
