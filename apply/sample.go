package apply

import (
	"bytes"
	"context"
	"errors"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/remote"
)

// sampleSize is how many bytes at the end of a blob are compared where every blob is checked.
const sampleSize = 64 << 10

// holds reports whether the registry has a blob. Where every blob is to be checked its word is
// not enough: the end of the blob, which is what a file that was cut short or never flushed
// lacks, must come back as a source has it. Reading all of it would be the whole download.
func (u *unpacker) holds(ctx context.Context, repo *remote.Repository, desc ocispec.Descriptor) (bool, error) {
	ok, err := repo.Exists(ctx, desc)
	if err != nil || !ok || !u.opts.CheckAll {
		return ok, err
	}
	if u.presumed[desc.Digest] {
		// There is nothing to compare it with but its digest: all of it is read.
		err := content.Verify(ctx, repo, desc)
		if isAbsent(err) || errors.Is(err, content.ErrDigest) || errors.Is(err, content.ErrSize) {
			return false, nil
		}
		return err == nil, err
	}
	got, err := tail(ctx, repo, desc)
	switch {
	case isAbsent(err) || errors.Is(err, content.ErrSize):
		return false, nil
	case err != nil:
		return false, err
	}
	for _, s := range append(u.sources.holding(desc), u.sources.healing(desc)...) { // a copy may be damaged
		if want, err := tail(ctx, s.Blobs, desc); err == nil && bytes.Equal(got, want) {
			return true, nil
		}
	}
	return false, ctx.Err()
}

// tail reads the last bytes of a blob. They are not verified.
func tail(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor) ([]byte, error) {
	n := min(sampleSize, desc.Size)
	rc, err := f.Fetch(ctx, desc, desc.Size-n)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b := make([]byte, n)
	_, err = io.ReadFull(rc, b)
	return b, err
}
