package store

import (
	"fmt"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

// Keys of bucket "meta". Values are texts.
const (
	MetaFormat     = "format"     // FormatVersion in decimal, written by Create
	MetaInstance   = "instance"   // random id of the drive: letters, digits, hyphens, at most 64
	MetaGeneration = "generation" // number of this snapshot in decimal
)

// Meta returns a value of bucket "meta", or an error wrapping [ErrNotFound].
func (x *Index) Meta(key string) (string, error) {
	value, err := x.get(bucketMeta, key)
	return string(value), err
}

// SetMeta writes a value of bucket "meta". Errors wrap [content.ErrInvalid] if key or value
// cannot be; the format cannot be changed.
func (x *Index) SetMeta(key, value string) error {
	if key == MetaFormat {
		return invalid("the format is not for setting")
	}
	if err := checkMeta(key, value); err != nil {
		return err
	}
	return x.update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMeta).Put([]byte(key), []byte(value))
	})
}

// checkMeta keeps what others make of these values harmless: the instance becomes the name
// of a folder.
func checkMeta(key, value string) error {
	if !made(key, maxTag, isNameByte) {
		return invalid("meta key %.80q", key)
	}
	switch key {
	case MetaFormat, MetaGeneration:
		if n, err := strconv.ParseUint(value, 10, 64); err != nil || strconv.FormatUint(n, 10) != value {
			return invalid("%s %.80q", key, value)
		}
	case MetaInstance:
		if !made(value, 64, func(c byte) bool { return isTagByte(c) && c != '.' && c != '_' }) {
			return invalid("%s %.80q", key, value)
		}
	}
	return checkTexts(value)
}

// checkFormat reads the format version.
func checkFormat(tx *bolt.Tx) error {
	b := tx.Bucket(bucketMeta)
	if b == nil {
		return corrupt("no bucket %s", bucketMeta)
	}
	value := string(b.Get([]byte(MetaFormat)))
	if err := checkMeta(MetaFormat, value); err != nil {
		return corrupt("%w", err)
	}
	switch n, _ := strconv.ParseUint(value, 10, 64); {
	case n > FormatVersion:
		return fmt.Errorf("%w: format %d, this program reads up to %d", ErrVersion, n, FormatVersion)
	case n == 0:
		return corrupt("format 0")
	}
	return nil
}
