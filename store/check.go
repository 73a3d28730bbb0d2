package store

import (
	"bytes"
	"strconv"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// initialise fills an empty database.
func initialise(tx *bolt.Tx) error {
	for _, name := range buckets {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put([]byte(MetaFormat), strconv.AppendInt(nil, FormatVersion, 10))
}

// checkEntries decodes every entry, so that nothing but a failing disk can surprise a reader
// later. Buckets that it does not know are left alone.
func checkEntries(tx *bolt.Tx) error {
	if err := checkFormat(tx); err != nil {
		return err
	}
	for _, name := range buckets {
		if tx.Bucket(name) == nil {
			return corrupt("no bucket %s", name)
		}
	}
	for _, check := range []func(*bolt.Tx) error{checkMetaEntries, checkBlobs, checkImages, checkReleases} {
		if err := check(tx); err != nil {
			return err
		}
	}
	return nil
}

// forEach is ForEach of a bucket that holds values and no buckets.
func forEach(tx *bolt.Tx, name []byte, fn func(k, v []byte) error) error {
	return tx.Bucket(name).ForEach(func(k, v []byte) error {
		if v == nil {
			return corrupt("%s %.80q: a bucket in place of a value", name, k)
		}
		return fn(k, v)
	})
}

func checkMetaEntries(tx *bolt.Tx) error {
	return forEach(tx, bucketMeta, func(k, v []byte) error {
		if err := checkMeta(string(k), string(v)); err != nil {
			return corrupt("%w", err)
		}
		return nil
	})
}

// checkBlobs checks records, and that slice sums belong to a record and fit its size. Both
// buckets are in the order of digests, so one pass over each will do.
func checkBlobs(tx *bolt.Tx) error {
	sums := tx.Bucket(bucketSlices).Cursor()
	next, sum := sums.First()
	err := forEach(tx, bucketBlobs, func(k, v []byte) error {
		size, err := checkedSize(entry{k, v})
		if err != nil {
			return err
		}
		if next == nil || !bytes.Equal(next, k) {
			return nil
		}
		if sum == nil || int64(len(sum)) != sumBytes(size) { // nil is a bucket
			return corrupt("%s %q: %d bytes of sums for %d bytes", bucketSlices, k, len(sum), size)
		}
		next, sum = sums.Next()
		return nil
	})
	if err == nil && next != nil { // passed by, or never come to
		err = corrupt("%s %.80q: sums of an unknown blob", bucketSlices, next)
	}
	return err
}

// checkedSize checks a record and returns the size of its blob.
func checkedSize(e entry) (int64, error) {
	if r, ok := scanRecord(e); ok {
		return r.size, nil
	}
	r, err := decodeRecord(e)
	return r.Size, err
}

func checkImages(tx *bolt.Tx) error {
	return forEach(tx, bucketImages, func(k, v []byte) error {
		if _, ok := scanImage(entry{k, v}, false); ok {
			return nil
		}
		_, err := decodeImage(entry{k, v})
		return err
	})
}

// checkReleases checks releases, and that the documents are those that releases name.
func checkReleases(tx *bolt.Tx) error {
	documents, found := tx.Bucket(bucketDocuments), 0
	err := forEach(tx, bucketReleases, func(k, v []byte) error {
		r, err := decodeRelease(entry{k, v})
		if err != nil {
			return err
		}
		for _, d := range r.Documents {
			data := documents.Get(documentKey(r.Tag, d.Name))
			if data == nil || int64(len(data)) != d.Size || digest.FromBytes(data) != d.Digest {
				return corrupt("%s \"%s/%s\": missing, or not what its digest names", bucketDocuments, r.Tag, d.Name)
			}
			found++
		}
		return nil
	})
	if err != nil {
		return err
	}
	return forEach(tx, bucketDocuments, func(_, _ []byte) error {
		if found--; found < 0 {
			return corrupt("%s: more documents than the releases name", bucketDocuments)
		}
		return nil
	})
}
