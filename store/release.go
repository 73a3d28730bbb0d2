package store

import (
	"bytes"
	"fmt"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// PutImages writes images in one transaction, each in place of the one of the same ref name.
// Errors wrap [content.ErrInvalid] if an image cannot be; then none is written.
func (x *Index) PutImages(images ...Image) error {
	entries := make([]entry, len(images))
	for i, image := range images {
		value, err := encodeImage(image)
		if err != nil {
			return err
		}
		entries[i] = entry{[]byte(image.Tag), value}
	}
	return x.update(func(tx *bolt.Tx) error {
		for _, e := range entries {
			if err := tx.Bucket(bucketImages).Put(e.key, e.value); err != nil {
				return err
			}
		}
		return nil
	})
}

// Images calls fn for every image in the order of ref names, until fn returns an error,
// which it returns. fn may change the index, as for [Index.Records].
func (x *Index) Images(fn func(Image) error) error {
	return x.each(bucketImages, func(e entry) error {
		i, err := decodeImage(e)
		if err != nil {
			return err
		}
		return fn(i)
	})
}

// ImageByTag returns the image of a ref name, or an error wrapping [ErrNotFound].
func (x *Index) ImageByTag(tag string) (Image, error) {
	value, err := x.get(bucketImages, tag)
	if err != nil {
		return Image{}, err
	}
	return decodeImage(entry{[]byte(tag), value})
}

// DeleteImage removes images in one transaction. Ref names that are not there are passed
// over.
func (x *Index) DeleteImage(tags ...string) error {
	return x.update(func(tx *bolt.Tx) error {
		for _, tag := range tags {
			if err := tx.Bucket(bucketImages).Delete([]byte(tag)); err != nil {
				return err
			}
		}
		return nil
	})
}

// PutRelease writes a release and its documents in one transaction, in place of the release
// of the same tag and all its documents. docs holds the bytes of the documents by name; one
// that is stored already may be left out. Errors wrap [content.ErrInvalid] if the release
// cannot be, if docs has another document than release names, or other bytes.
func (x *Index) PutRelease(release Release, docs map[string][]byte) error {
	value, err := encodeRelease(release)
	if err != nil {
		return err
	}
	named := make(map[string]bool, len(release.Documents))
	for _, d := range release.Documents {
		named[d.Name] = true
	}
	for name := range docs {
		if !named[name] {
			return fmt.Errorf("release %s: %w", release.Tag, invalid("document %.80q is not listed", name))
		}
	}
	return x.update(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(bucketDocuments)
		stored := collect(bucket, documentKey(release.Tag, ""))
		for _, d := range release.Documents {
			key := documentKey(release.Tag, d.Name)
			data, given := docs[d.Name]
			if !given {
				data = stored[string(key)]
			}
			if int64(len(data)) != d.Size || digest.FromBytes(data) != d.Digest {
				return fmt.Errorf("release %s: %w", release.Tag, invalid("document %s is not what its digest names", d.Name))
			}
			if err := bucket.Put(key, data); err != nil {
				return err
			}
			delete(stored, string(key))
		}
		for key := range stored {
			if err := bucket.Delete([]byte(key)); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketReleases).Put([]byte(release.Tag), value)
	})
}

// documentKey is the key of a document in bucket "documents".
func documentKey(tag, name string) []byte { return []byte(tag + "/" + name) }

// collect copies the entries whose keys begin with prefix.
func collect(b *bolt.Bucket, prefix []byte) map[string][]byte {
	found := make(map[string][]byte)
	c := b.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		found[string(k)] = clone(v)
	}
	return found
}

// Releases calls fn for every release in the order of tags, until fn returns an error, which
// it returns. fn may change the index, as for [Index.Records].
func (x *Index) Releases(fn func(Release) error) error {
	return x.each(bucketReleases, func(e entry) error {
		r, err := decodeRelease(e)
		if err != nil {
			return err
		}
		return fn(r)
	})
}

// ReleaseByTag returns the release of a tag, or an error wrapping [ErrNotFound].
func (x *Index) ReleaseByTag(tag string) (Release, error) {
	value, err := x.get(bucketReleases, tag)
	if err != nil {
		return Release{}, err
	}
	return decodeRelease(entry{[]byte(tag), value})
}

// Document returns the bytes of a document of the release of tag, as they were captured, or
// an error wrapping [ErrNotFound].
func (x *Index) Document(tag, name string) ([]byte, error) {
	return x.get(bucketDocuments, string(documentKey(tag, name)))
}

// DeleteRelease removes releases and their documents in one transaction; records and images
// stay. Tags that are not there are passed over.
func (x *Index) DeleteRelease(tags ...string) error {
	return x.update(func(tx *bolt.Tx) error {
		documents := tx.Bucket(bucketDocuments)
		for _, tag := range tags {
			for key := range collect(documents, documentKey(tag, "")) {
				if err := documents.Delete([]byte(key)); err != nil {
					return err
				}
			}
			if err := tx.Bucket(bucketReleases).Delete([]byte(tag)); err != nil {
				return err
			}
		}
		return nil
	})
}
