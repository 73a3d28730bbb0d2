package store

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// chunkBytes is about how much one transaction of a snapshot holds.
const chunkBytes = 8 << 20

// WriteTo writes a snapshot of the index to w: a complete bbolt database as of one moment.
// Its bytes depend on the entries alone, not on the order in which they came or on what was
// deleted, and it has next to no free pages, so that as little as possible crosses to a slow
// drive. It is built in a file beside the index first; writers wait for that at most, never
// for w.
func (x *Index) WriteTo(w io.Writer) (int64, error) {
	dir, err := os.MkdirTemp(filepath.Dir(x.file.Name()), "snapshot-")
	if err != nil {
		return 0, fmt.Errorf("snapshot of index: %w", err)
	}
	defer os.RemoveAll(dir)
	file, err := os.OpenFile(filepath.Join(dir, "index.db"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("snapshot of index: %w", err)
	}
	dst, err := openFile(file, false)
	if err != nil {
		return 0, fmt.Errorf("snapshot of index: %w", err)
	}
	defer dst.Close()
	if err := x.view(func(tx *bolt.Tx) error { return fill(dst, tx) }); err != nil {
		return 0, fmt.Errorf("snapshot of index: %w", err)
	}
	tx, err := dst.db.Begin(false)
	if err != nil {
		return 0, fmt.Errorf("snapshot of index: %w", err)
	}
	defer tx.Rollback()
	return tx.WriteTo(w)
}

// fill copies all entries of src into the empty dst. One transaction changes one bucket:
// bbolt lays out the buckets of a transaction in random order.
func fill(dst *Index, src *bolt.Tx) error {
	for _, name := range buckets {
		err := dst.update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket(name)
			return err
		})
		if err != nil {
			return err
		}
		c := src.Bucket(name).Cursor()
		k, v := c.First()
		for k != nil {
			err := dst.update(func(tx *bolt.Tx) error {
				b := tx.Bucket(name)
				b.FillPercent = 1 // nothing will be inserted between these keys
				for size := 0; k != nil && size < chunkBytes; k, v = c.Next() {
					if err := b.Put(k, v); err != nil {
						return err
					}
					size += len(k) + len(v)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
