package store

import (
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// entry is a copy of one key and its value.
type entry struct{ key, value []byte }

// Limits of one batch of each: it ends at whichever is reached first.
const (
	batchEntries = 512
	batchBytes   = 4 << 20
)

// each calls fn for every entry of a bucket in key order, until fn returns an error. fn runs
// outside of any transaction and may change the index: a long read transaction would block
// the writer as soon as the file has to grow, for ever if fn itself is the writer.
func (x *Index) each(bucket []byte, fn func(entry) error) error {
	var last []byte
	for {
		batch, err := x.batch(bucket, last)
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, e := range batch {
			if err := fn(e); err != nil {
				return err
			}
		}
		last = batch[len(batch)-1].key
	}
}

// batch copies the entries after last; all from the first if last is nil.
func (x *Index) batch(bucket, last []byte) (batch []entry, err error) {
	err = x.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		k, v := c.First()
		if last != nil {
			if k, v = c.Seek(last); string(k) == string(last) {
				k, v = c.Next()
			}
		}
		for size := 0; k != nil && len(batch) < batchEntries && size < batchBytes; k, v = c.Next() {
			batch = append(batch, entry{clone(k), clone(v)})
			size += len(k) + len(v)
		}
		return nil
	})
	return batch, err
}

// get returns a copy of the value under key, or an error wrapping [ErrNotFound].
func (x *Index) get(bucket []byte, key string) (value []byte, err error) {
	err = x.view(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucket).Get([]byte(key))
		if v == nil {
			return fmt.Errorf("%s %q: %w", bucket, key, ErrNotFound)
		}
		value = clone(v)
		return nil
	})
	return value, err
}

// clone copies bytes out of the mapping. Unlike bytes.Clone it never returns nil, which
// bbolt takes to mean absent.
func clone(b []byte) []byte { return append(make([]byte, 0, len(b)), b...) }
