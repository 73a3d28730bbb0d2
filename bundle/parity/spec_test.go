package parity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/zeebo/xxh3"
)

// stranger repairs blobs from the words of docs/format.md alone: beyond this line nothing of
// this package is used, and of others the hash functions.
type stranger struct {
	root, folder string
	N, D, P, G   int
	names        []string // of the blobs, in the order of the row
	sizes        []int
	sums         [][]byte // slice sums of each blob
	parity       []byte   // sums of the parity slices
	starts       []int
	log          [256]int
	exp          [510]byte
}

const mib = 1 << 20

// read takes the map from the copy that is sound.
func (s *stranger) read() error {
	for x, k := 1, 0; k < 255; k++ {
		s.exp[k], s.exp[k+255] = byte(x), byte(x)
		s.log[x] = k
		if x <<= 1; x > 255 {
			x ^= 0x11d
		}
	}
	var raw []byte
	for _, name := range []string{"map-1.bin", "map-2.bin"} {
		b, err := os.ReadFile(filepath.Join(s.root, s.folder, name))
		if err != nil || len(b) < 100 {
			continue
		}
		if sum := sha256.Sum256(b[:len(b)-32]); bytes.Equal(sum[:], b[len(b)-32:]) {
			raw = b[:len(b)-32]
		}
	}
	if raw == nil || string(raw[:8]) != "PANNIERP" || binary.BigEndian.Uint32(raw[8:]) != 1 {
		return fmt.Errorf("no map")
	}
	number := func(at int) int { return int(binary.BigEndian.Uint32(raw[at:])) }
	s.N, s.D, s.P, s.G = number(16), number(20), number(24), number(28)
	blobs, at := number(32), 36+32
	for range blobs {
		s.names = append(s.names, hex.EncodeToString(raw[at:at+32]))
		s.sizes = append(s.sizes, int(binary.BigEndian.Uint64(raw[at+32:])))
		at += 40
	}
	for _, size := range s.sizes {
		n := (size + mib - 1) / mib * 16
		s.sums = append(s.sums, raw[at:at+n])
		at += n
	}
	s.parity = raw[at:]
	if len(s.parity) != s.G*s.P*16 {
		return fmt.Errorf("%d bytes of sums of parity", len(s.parity))
	}
	position := 0
	for _, size := range s.sizes {
		if size >= mib || position%mib+size > mib {
			position = (position + mib - 1) / mib * mib
		}
		s.starts = append(s.starts, position)
		position += size
		if size >= mib {
			position = (position + mib - 1) / mib * mib
		}
	}
	if (position+mib-1)/mib != s.N {
		return fmt.Errorf("%d slices, not %d", (position+mib-1)/mib, s.N)
	}
	return nil
}

func sumIs(b, sum []byte) bool {
	h := xxh3.Hash128(b).Bytes()
	return bytes.Equal(h[:], sum)
}

// slice reads slice i of the row, and says whether it is known.
func (s *stranger) slice(i int) ([]byte, bool) {
	out, known := make([]byte, mib), true
	for k, start := range s.starts {
		for j := range (s.sizes[k] + mib - 1) / mib {
			from := start + j*mib
			n := min(mib, s.sizes[k]-j*mib)
			if from/mib != i {
				continue
			}
			part := out[from%mib : from%mib+n]
			b, err := os.ReadFile(filepath.Join(s.root, "blobs", "sha256", s.names[k]))
			if err == nil && len(b) > j*mib {
				copy(part, b[j*mib:])
			}
			known = known && sumIs(part, s.sums[k][j*16:j*16+16])
		}
	}
	return out, known
}

// row reads parity slice r of group g, and says whether it is known.
func (s *stranger) row(g, r int) ([]byte, bool) {
	file := g / (1024 / s.P)
	b, err := os.ReadFile(filepath.Join(s.root, s.folder, fmt.Sprintf("slices-%d.bin", file+1)))
	at := (g%(1024/s.P)*s.P + r) * mib
	if err != nil || len(b) < at+mib {
		return nil, false
	}
	n := (g*s.P + r) * 16
	return b[at : at+mib], sumIs(b[at:at+mib], s.parity[n:n+16])
}

func (s *stranger) inverse(a int) byte { return s.exp[255-s.log[a]] }

func (s *stranger) times(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return s.exp[s.log[a]+s.log[b]]
}

// addTimes adds f times from to to.
func (s *stranger) addTimes(to, from []byte, f byte) {
	for i, b := range from {
		to[i] ^= s.times(f, b)
	}
}

// heal returns the slices of a group, by slot.
func (s *stranger) heal(g int) ([][]byte, error) {
	slots := make([][]byte, s.D)
	var unknown []int
	for c := range s.D {
		i := c*s.G + g
		if i >= s.N {
			slots[c] = make([]byte, mib)
		} else if b, known := s.slice(i); known {
			slots[c] = b
		} else {
			unknown = append(unknown, c)
		}
	}
	// One equation for each parity slice that is known: coefficients, and what they make.
	var left, right [][]byte
	for r := 0; r < s.P && len(left) < len(unknown); r++ {
		p, known := s.row(g, r)
		if !known {
			continue
		}
		made, row := bytes.Clone(p), make([]byte, len(unknown))
		for c, b := range slots {
			if b != nil {
				s.addTimes(made, b, s.inverse((s.D+r)^c))
			}
		}
		for k, c := range unknown {
			row[k] = s.inverse((s.D + r) ^ c)
		}
		left, right = append(left, row), append(right, made)
	}
	if len(left) < len(unknown) {
		return nil, fmt.Errorf("group %d is lost", g)
	}
	for k := range unknown { // Gauss and Jordan
		pivot := k
		for left[pivot][k] == 0 {
			pivot++
		}
		left[k], left[pivot], right[k], right[pivot] = left[pivot], left[k], right[pivot], right[k]
		f := s.inverse(int(left[k][k])) ^ 1 // adding f times itself makes it 1
		s.addTimes(left[k], bytes.Clone(left[k]), f)
		s.addTimes(right[k], bytes.Clone(right[k]), f)
		for n := range left {
			if f := left[n][k]; n != k && f != 0 {
				s.addTimes(left[n], left[k], f)
				s.addTimes(right[n], right[k], f)
			}
		}
	}
	for k, c := range unknown {
		slots[c] = right[k]
	}
	return slots, nil
}

// blob returns the blob of that name, which counts only if its digest is its name.
func (s *stranger) blob(name string) ([]byte, error) {
	for k, n := range s.names {
		if n != name {
			continue
		}
		var out []byte
		for j := range (s.sizes[k] + mib - 1) / mib {
			at := s.starts[k] + j*mib
			slots, err := s.heal(at / mib % s.G)
			if err != nil {
				return nil, err
			}
			out = append(out, slots[at/mib/s.G][at%mib:at%mib+min(mib, s.sizes[k]-j*mib)]...)
		}
		if sum := sha256.Sum256(out); hex.EncodeToString(sum[:]) != name {
			return nil, fmt.Errorf("blob %s comes out wrong", name)
		}
		return out, nil
	}
	return nil, fmt.Errorf("blob %s is not covered", name)
}

// A stranger who has the specification and nothing else repairs what Write has protected.
func TestStranger(t *testing.T) {
	d := newDrive(t, 11, 3*sliceSize+99, 2*sliceSize, 700_000, 500_000, 1000, 0)
	d.write(5, 5000, 5)
	// The row: slices 0 to 3, 4 and 5, 6, and two small blobs in 7; two groups of 4 and 2. Two slices
	// of the first group are damaged, and of the second one and a parity slice.
	for _, lost := range []int{3, 5} {
		if err := os.Remove(d.path(d.blobs[lost])); err != nil {
			t.Fatal(err)
		}
	}
	d.spoil(d.path(d.blobs[1]), 5, 1)
	d.spoil(d.path(d.blobs[2]), 5, 1)
	d.spoil(filepath.Join(d.dir, filepath.FromSlash(mapName(5, 1))), 50, 1)
	d.spoil(filepath.Join(d.dir, filepath.FromSlash(slicesName(5, 0))), 2*sliceSize+9, 1)
	s := &stranger{root: d.dir, folder: filepath.FromSlash(Dir(5))}
	if err := s.read(); err != nil {
		t.Fatal(err)
	}
	if s.N != 8 || s.G != 2 || s.D != 4 || s.P != 2 {
		t.Fatalf("%d slices in %d groups of %d and %d", s.N, s.G, s.D, s.P)
	}
	for _, b := range d.blobs {
		got, err := s.blob(b.Digest.Encoded())
		if err != nil || digest.FromBytes(got) != b.Digest {
			t.Errorf("blob of %d bytes: %v", b.Size, err)
		}
	}
	d.spoil(d.path(d.blobs[1]), sliceSize+5, 1)
	lost := 0
	for _, b := range d.blobs {
		if _, err := s.blob(b.Digest.Encoded()); err != nil {
			lost++
		}
	}
	if lost == 0 {
		t.Error("more was damaged than there is parity, and nothing was lost")
	}
}
