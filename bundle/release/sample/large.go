package sample

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// chunkSize is the number of bytes of a large layer that are computed together, so that
// reading may begin anywhere.
const chunkSize = 64 << 10

// bigFile is an uncompressed archive with one file of noise, computed when it is read.
type bigFile struct {
	seed   [32]byte
	header []byte // of the archive
	size   int64  // of the file
	total  int64  // of the archive
}

func newBigFile(path string, size int64, names ...any) (*bigFile, error) {
	var b bytes.Buffer
	h := &tar.Header{Name: path, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return nil, fmt.Errorf("layer entry %q: %w", path, err)
	}
	f := &bigFile{seed: sha256.Sum256([]byte(fmt.Sprintln(names...))), header: b.Bytes(), size: size}
	const block = 512
	f.total = int64(len(f.header)) + (size+block-1)/block*block + 2*block
	return f, nil
}

// ReadAt implements [io.ReaderAt].
func (f *bigFile) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	var chunk []byte
	for n < len(p) && off < f.total {
		at := off - int64(len(f.header))
		var k int
		switch {
		case at < 0:
			k = copy(p[n:], f.header[off:])
		case at >= f.size:
			k = int(min(int64(len(p)-n), f.total-off))
			clear(p[n : n+k])
		default:
			if chunk == nil {
				chunk = make([]byte, chunkSize)
			}
			f.chunk(chunk, at/chunkSize)
			end := min(chunkSize, f.size-at/chunkSize*chunkSize)
			k = copy(p[n:], chunk[at%chunkSize:end])
		}
		n += k
		off += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *bigFile) chunk(b []byte, i int64) {
	seed := f.seed
	binary.BigEndian.PutUint64(seed[:], binary.BigEndian.Uint64(seed[:])^uint64(i))
	_, _ = rand.NewChaCha8(seed).Read(b)
}

// computedLayer adds a layer of about size bytes that is computed when it is read.
func (m *maker) computedLayer(size int64, names ...any) (layer, error) {
	f, err := newBigFile("usr/share/large", size, append([]any{m.Seed, size}, names...)...)
	if err != nil {
		return layer{}, err
	}
	section := io.NewSectionReader(f, 0, f.total)
	h := sha256.New()
	if _, err := io.Copy(h, section); err != nil {
		return layer{}, err
	}
	mediaType := dockerPlainLayer
	if m.OCI {
		mediaType = ocispec.MediaTypeImageLayer
	}
	d := digest.NewDigest(digest.SHA256, h)
	m.r.Large[d] = section
	return layer{ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: f.total}, d}, nil
}

func (m *maker) computedLayers(sizes []int64, names ...any) ([]layer, error) {
	var out []layer
	for i, size := range sizes {
		l, err := m.computedLayer(size, append([]any{i}, names...)...)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}
