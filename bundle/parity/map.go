package parity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
)

const (
	magic   = "PANNIERP"
	version = 1

	headSize  = len(magic) + 7*4 + sha256.Size
	entrySize = sha256.Size + 8

	// MaxMap is the most bytes of a map that are read: 16 Ti bytes of blobs.
	MaxMap = 256 << 20

	maxBlob  = 4 << 40   // bytes of a blob (docs/format.md, "Limits")
	maxBlobs = 1_000_000 // names in blobs/sha256, likewise
)

// Map says what the parity of one generation covers and how (docs/format.md, "The parity
// map").
type Map struct {
	Share  Share
	Bundle digest.Digest  // bundle id of the seal that it was made for
	Blobs  []Blob         // in the order of the row
	Parity content.Slices // sums of the parity slices, group by group

	geometry
	starts []int64
	index  map[digest.Digest]int
}

// newMap plans the parity of blobs, whose order it keeps, in groups of at most that many slots. It returns nil if they hold no byte.
func newMap(bundle digest.Digest, share Share, blobs []Blob, most int) *Map {
	m := &Map{Share: share, Bundle: bundle, Blobs: blobs}
	var slices int
	if m.starts, slices = placement(blobs); slices == 0 {
		return nil
	}
	m.geometry = newGeometry(slices, share, most)
	return m
}

// mapSize returns the bytes of a map that is encoded.
func (m *Map) mapSize() int64 {
	n := int64(headSize) + int64(len(m.Blobs))*int64(entrySize) + int64(m.groups)*int64(m.parity)*content.SumSize + sha256.Size
	for _, b := range m.Blobs {
		n += content.SliceCount(b.Size) * content.SumSize
	}
	return n
}

// encode returns the bytes of the map. Parity must be filled in.
func (m *Map) encode() ([]byte, error) {
	out := make([]byte, 0, m.mapSize())
	out = append(out, magic...)
	for _, n := range []int{version, int(m.Share), m.slices, m.data, m.parity, m.groups, len(m.Blobs)} {
		out = binary.BigEndian.AppendUint32(out, uint32(n))
	}
	raw, err := hex.DecodeString(m.Bundle.Encoded())
	if err != nil {
		return nil, err
	}
	out = append(out, raw...)
	for _, b := range m.Blobs {
		if raw, err = hex.DecodeString(b.Digest.Encoded()); err != nil {
			return nil, err
		}
		out = append(out, raw...)
		out = binary.BigEndian.AppendUint64(out, uint64(b.Size))
	}
	for _, b := range m.Blobs {
		out = append(out, b.Sums...)
	}
	out = append(out, m.Parity...)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...), nil
}

// ParseMap reads a map and checks it: its own checksum, and every number against the others
// and the length of raw. The map keeps raw. Errors are [ErrVersion] and [ErrMap].
func ParseMap(raw []byte) (*Map, error) {
	bad := func(format string, args ...any) (*Map, error) {
		return nil, fmt.Errorf("%w: %s", ErrMap, fmt.Sprintf(format, args...))
	}
	if len(raw) < headSize+sha256.Size || len(raw) > MaxMap || !bytes.HasPrefix(raw, []byte(magic)) {
		return bad("%d bytes that do not begin like one", len(raw))
	}
	body, own := raw[:len(raw)-sha256.Size], raw[len(raw)-sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], own) {
		return bad("its checksum does not match")
	}
	var numbers [7]uint32
	for i := range numbers {
		numbers[i] = binary.BigEndian.Uint32(body[len(magic)+4*i:])
	}
	if numbers[0] != version {
		return nil, fmt.Errorf("%w: %d, this program knows %d", ErrVersion, numbers[0], version)
	}
	m := &Map{
		Share: Share(numbers[1]), Bundle: rawDigest(body[headSize-sha256.Size : headSize]),
		geometry: geometry{slices: int(numbers[2]), data: int(numbers[3]), parity: int(numbers[4]), groups: int(numbers[5])},
	}
	if m.data < 1 || m.parity < 1 || m.data > maxShards || m.parity > maxShards || m.data+m.parity > maxShards {
		return bad("groups of %d and %d slices", m.data, m.parity)
	}
	if m.groups < 1 || int64(m.data-1)*int64(m.groups) >= int64(m.slices) || int64(m.data)*int64(m.groups) < int64(m.slices) {
		return bad("%d slices in %d groups of %d", m.slices, m.groups, m.data)
	}
	rest := body[headSize:]
	if numbers[6] > maxBlobs || int64(numbers[6])*int64(entrySize) > int64(len(rest)) {
		return bad("%d blobs in %d bytes", numbers[6], len(rest))
	}
	if err := m.takeBlobs(rest, int(numbers[6])); err != nil {
		return nil, err
	}
	return m, nil
}

// takeBlobs reads the blobs and the sums after them, which must fill rest.
func (m *Map) takeBlobs(rest []byte, count int) error {
	entries, sums := rest[:count*entrySize], rest[count*entrySize:]
	m.Blobs = make([]Blob, count)
	m.index = make(map[digest.Digest]int, count)
	for i := range m.Blobs {
		e := entries[i*entrySize:]
		b := Blob{Digest: rawDigest(e[:sha256.Size]), Size: int64(binary.BigEndian.Uint64(e[sha256.Size:]))}
		if b.Size < 0 || b.Size > maxBlob {
			return fmt.Errorf("%w: %s is said to have %d bytes", ErrMap, b.Digest, b.Size)
		}
		if _, twice := m.index[b.Digest]; twice {
			return fmt.Errorf("%w: %s stands twice", ErrMap, b.Digest)
		}
		n := content.SliceCount(b.Size) * content.SumSize
		if n > int64(len(sums)) {
			return fmt.Errorf("%w: %s is said to have %d bytes, and there are fewer sums", ErrMap, b.Digest, b.Size)
		}
		b.Sums, sums = content.Slices(sums[:n]), sums[n:]
		m.index[b.Digest], m.Blobs[i] = i, b
	}
	if want := int64(m.groups) * int64(m.parity) * content.SumSize; want != int64(len(sums)) {
		return fmt.Errorf("%w: %d bytes of sums of parity, %d expected", ErrMap, len(sums), want)
	}
	m.Parity = content.Slices(sums)
	var slices int
	if m.starts, slices = placement(m.Blobs); slices != m.slices {
		return fmt.Errorf("%w: its blobs take %d slices, it says %d", ErrMap, slices, m.slices)
	}
	return nil
}

func rawDigest(b []byte) digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(b))
}
