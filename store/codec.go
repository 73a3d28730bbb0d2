package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
)

// encode checks a record, image or release and returns its value. Equal arguments give equal
// bytes: struct fields are written in their order, absent lists as empty ones.
func encode(v interface{ check() error }) ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, invalid("%w", err)
	}
	if len(raw) > maxJSON {
		return nil, invalid("a value of %d bytes", len(raw))
	}
	return raw, nil
}

func encodeRecord(r Record) ([]byte, error) {
	r.Images = append([]string{}, r.Images...)
	slices.Sort(r.Images)
	r.Images = slices.Compact(r.Images)
	value, err := encode(&r)
	if err != nil {
		return nil, fmt.Errorf("record %.80q: %w", string(r.Digest), err)
	}
	return value, nil
}

func encodeImage(i Image) ([]byte, error) {
	value, err := encode(&i)
	if err != nil {
		return nil, fmt.Errorf("image %.80q: %w", i.Tag, err)
	}
	return value, nil
}

func encodeRelease(r Release) ([]byte, error) {
	r.Created = r.Created.UTC()
	r.Previous = append([]string{}, r.Previous...)
	r.Documents = append([]Document{}, r.Documents...)
	value, err := encode(&r)
	if err != nil {
		return nil, fmt.Errorf("release %.80q: %w", r.Tag, err)
	}
	return value, nil
}

// decode reads value into v, whose key field is set, and checks it. Members that it does not
// know are left alone: a later version of the same format may add some.
func decode(bucket, key, value []byte, v interface{ check() error }) error {
	err := func() error {
		if len(value) > maxJSON {
			return invalid("a value of %d bytes", len(value))
		}
		if !bytes.HasPrefix(value, []byte("{")) { // null would decode to anything
			return invalid("not a JSON object")
		}
		if err := json.Unmarshal(value, v); err != nil {
			return err
		}
		return v.check()
	}()
	if err != nil {
		return fmt.Errorf("%s %.80q: %w: %w", bucket, key, ErrCorrupt, err)
	}
	return nil
}

func decodeRecord(e entry) (Record, error) {
	if r, ok := scanRecord(e); ok {
		return r.record(e), nil
	}
	r := Record{Digest: digest.Digest(e.key)}
	err := decode(bucketBlobs, e.key, e.value, &r)
	return r, err
}

func decodeImage(e entry) (Image, error) {
	if i, ok := scanImage(e, true); ok {
		return i, nil
	}
	i := Image{Tag: string(e.key)}
	err := decode(bucketImages, e.key, e.value, &i)
	return i, err
}

func decodeRelease(e entry) (Release, error) {
	r := Release{Tag: string(e.key)}
	err := decode(bucketReleases, e.key, e.value, &r)
	return r, err
}
