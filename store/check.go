package store

import (
	"fmt"
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
		b := tx.Bucket(name)
		if b == nil {
			return corrupt("no bucket %s", name)
		}
		err := b.ForEachBucket(func(k []byte) error {
			return corrupt("%s %.80q: a bucket in place of a value", name, k)
		})
		if err != nil {
			return err
		}
	}
	for _, check := range []func(*bolt.Tx) error{checkMetaEntries, checkBlobs, checkImages, checkReleases} {
		if err := check(tx); err != nil {
			return err
		}
	}
	return nil
}

func checkMetaEntries(tx *bolt.Tx) error {
	return tx.Bucket(bucketMeta).ForEach(func(k, v []byte) error {
		if err := checkMeta(string(k), string(v)); err != nil {
			return corrupt("%w", err)
		}
		return nil
	})
}

// checkBlobs checks records, and that slice sums belong to a record and fit its size.
func checkBlobs(tx *bolt.Tx) error {
	sums, found := tx.Bucket(bucketSlices), 0
	err := tx.Bucket(bucketBlobs).ForEach(func(k, v []byte) error {
		r, err := decodeRecord(entry{k, v})
		if err != nil {
			return err
		}
		if s := sums.Get(k); s != nil {
			found++
			if int64(len(s)) != sumBytes(r.Size) {
				return corrupt("%s %q: %d bytes of sums for %d bytes", bucketSlices, k, len(s), r.Size)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return checkCount(sums, found, "sums of unknown blobs")
}

func checkImages(tx *bolt.Tx) error {
	return tx.Bucket(bucketImages).ForEach(func(k, v []byte) error {
		_, err := decodeImage(entry{k, v})
		return err
	})
}

// checkReleases checks releases, and that the documents are those that releases name.
func checkReleases(tx *bolt.Tx) error {
	documents, found := tx.Bucket(bucketDocuments), 0
	err := tx.Bucket(bucketReleases).ForEach(func(k, v []byte) error {
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
	return checkCount(documents, found, "documents of unknown releases")
}

// checkCount returns an error unless b has as many entries as were found from elsewhere.
func checkCount(b *bolt.Bucket, found int, what string) error {
	err := b.ForEach(func(_, _ []byte) error {
		found--
		return nil
	})
	if err == nil && found != 0 {
		err = fmt.Errorf("%w: %d %s", ErrCorrupt, -found, what)
	}
	return err
}
