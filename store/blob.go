package store

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"pannier/bundle/content"
)

// Completed is a blob that is durable on the drive, with its slice sums.
type Completed struct {
	Record
	Slices content.Slices // content.SliceCount(Size) sums
}

// Put writes records in one transaction. A record replaces the one of the same digest as a
// whole, Sealed included. Errors wrap [content.ErrInvalid] if a record cannot be; then none
// is written.
func (x *Index) Put(records ...Record) error {
	entries := make([]entry, len(records))
	for i, r := range records {
		value, err := encodeRecord(r)
		if err != nil {
			return err
		}
		entries[i] = entry{[]byte(r.Digest), value}
	}
	return x.update(func(tx *bolt.Tx) error {
		sums := tx.Bucket(bucketSlices)
		for i, e := range entries {
			if err := tx.Bucket(bucketBlobs).Put(e.key, e.value); err != nil {
				return err
			}
			// Sums are a function of the content and outlive a change of state, but not the
			// correction of a size that was wrong.
			if old := sums.Get(e.key); old != nil && int64(len(old)) != sumBytes(records[i].Size) {
				if err := sums.Delete(e.key); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Complete writes items as complete, each with its slice sums, in one transaction: State and
// Offset are set for the caller. Errors wrap [content.ErrInvalid] if a record cannot be or
// the number of sums is not that of its size; then none is written.
func (x *Index) Complete(items ...Completed) error {
	entries := make([]entry, len(items))
	for i, item := range items {
		r := item.Record
		r.State, r.Offset = StateComplete, r.Size
		value, err := encodeRecord(r)
		if err != nil {
			return err
		}
		if int64(len(item.Slices)) != sumBytes(r.Size) {
			return fmt.Errorf("record %q: %w", r.Digest, invalid("%d bytes of slice sums for %d bytes", len(item.Slices), r.Size))
		}
		entries[i] = entry{[]byte(r.Digest), value}
	}
	return x.update(func(tx *bolt.Tx) error {
		for i, e := range entries {
			if err := tx.Bucket(bucketBlobs).Put(e.key, e.value); err != nil {
				return err
			}
			if err := tx.Bucket(bucketSlices).Put(e.key, items[i].Slices); err != nil {
				return err
			}
		}
		return nil
	})
}

// sumBytes is the length of the slice sums of a blob of size bytes.
func sumBytes(size int64) int64 { return content.SliceCount(size) * content.SumSize }

// Record returns the record of d, or an error wrapping [ErrNotFound].
func (x *Index) Record(d digest.Digest) (Record, error) {
	value, err := x.get(bucketBlobs, string(d))
	if err != nil {
		return Record{}, err
	}
	return decodeRecord(entry{[]byte(d), value})
}

// Slices returns the slice sums of d, or an error wrapping [ErrNotFound] if none are
// recorded, which is no damage.
func (x *Index) Slices(d digest.Digest) (content.Slices, error) {
	return x.get(bucketSlices, string(d))
}

// Records calls fn for every record in the order of digests, until fn returns an error,
// which it returns. fn may change the index; it sees changes to records that are a few
// hundred ahead of the current one or more.
func (x *Index) Records(fn func(Record) error) error {
	return x.each(bucketBlobs, func(e entry) error {
		r, err := decodeRecord(e)
		if err != nil {
			return err
		}
		return fn(r)
	})
}

// Delete removes records and their slice sums in one transaction. Digests that are not there
// are passed over.
func (x *Index) Delete(digests ...digest.Digest) error {
	return x.update(func(tx *bolt.Tx) error {
		for _, d := range digests {
			for _, bucket := range [][]byte{bucketBlobs, bucketSlices} {
				if err := tx.Bucket(bucket).Delete([]byte(d)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Seal notes generation, which is 1 or more, as the seal that first covered every complete
// record and every release that no seal covered before, in one transaction.
func (x *Index) Seal(generation uint64) error {
	if generation == 0 {
		return invalid("generation 0")
	}
	return x.update(func(tx *bolt.Tx) error {
		err := rewrite(tx.Bucket(bucketBlobs), func(e entry) ([]byte, error) {
			r, err := decodeRecord(e)
			if err != nil || r.State != StateComplete || r.Sealed != 0 {
				return nil, err
			}
			r.Sealed = generation
			return encodeRecord(r)
		})
		if err != nil {
			return err
		}
		return rewrite(tx.Bucket(bucketReleases), func(e entry) ([]byte, error) {
			r, err := decodeRelease(e)
			if err != nil || r.Sealed != 0 {
				return nil, err
			}
			r.Sealed = generation
			return encodeRelease(r)
		})
	})
}

// rewrite puts what fn returns for an entry, if it is not nil, in the entry's place. A
// bucket must not change below a cursor, so the changes are collected first.
func rewrite(b *bolt.Bucket, fn func(entry) ([]byte, error)) error {
	var changed []entry
	err := b.ForEach(func(k, v []byte) error {
		value, err := fn(entry{k, v})
		if value != nil {
			changed = append(changed, entry{clone(k), value})
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, e := range changed {
		if err := b.Put(e.key, e.value); err != nil {
			return err
		}
	}
	return nil
}
