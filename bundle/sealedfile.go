package bundle

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/layout"
)

// SealedFile is a file as it was when the seal was made.
type SealedFile struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// Check compares raw with the file as it was sealed. Errors wrap content's.
func (f SealedFile) Check(raw []byte) error { return f.compare(sealedFile(raw)) }

// compare compares what was found in place of the file.
func (f SealedFile) compare(found SealedFile) error {
	switch {
	case f.Digest == "":
		return fmt.Errorf("%w: the seal does not name it", content.ErrInvalid)
	case found.Size != f.Size:
		return fmt.Errorf("%w: %d bytes, sealed as %d", content.ErrSize, found.Size, f.Size)
	case found.Digest != f.Digest:
		return fmt.Errorf("%w: sealed as %s", content.ErrDigest, f.Digest)
	}
	return nil
}

func sealedFile(raw []byte) SealedFile {
	return SealedFile{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

// copyFile hands the file name, of at most limit bytes, to w, and returns what a seal would say
// of it. open is [layout.Layout.OpenFile] or OpenMedium. It holds a buffer and no more: an index
// of 100,000 blobs has 50 MB. Errors are those of [layout.Layout.ReadFile], and w's.
func copyFile(open func(string) (*layout.FileReader, error), name string, limit int64, w io.Writer) (SealedFile, error) {
	r, err := open(name)
	if err != nil {
		return SealedFile{}, err
	}
	defer r.Close()
	if r.Size() > limit {
		return SealedFile{}, fmt.Errorf("%s: %w: %d bytes, at most %d are read", name, content.ErrSize, r.Size(), limit)
	}
	h := sha256.New()
	// The size is not believed: what is read is counted.
	n, err := io.CopyBuffer(io.MultiWriter(h, w), io.LimitReader(r, limit+1), make([]byte, 256<<10))
	if err != nil {
		return SealedFile{}, err
	}
	if n > limit {
		return SealedFile{}, fmt.Errorf("%s: %w: more than %d bytes", name, content.ErrSize, limit)
	}
	return SealedFile{Digest: digest.NewDigest(digest.SHA256, h), Size: n}, nil
}
