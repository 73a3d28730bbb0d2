package store

import (
	"encoding/binary"
	"hash/fnv"
	"io"
)

// meta is the part of a meta page that matters here.
type meta struct{ root, freelist, pages, txid uint64 }

// readMetas reads both meta pages and returns the one that counts. bbolt is content with
// one, and then guesses the page size; a file that was copied whole has both.
func readMetas(r io.ReaderAt, size int64) (meta, error) {
	if size < 4*pageSize {
		return meta{}, corrupt("a file of %d bytes", size)
	}
	m, err := readMeta(r, size, 0)
	if err != nil {
		return meta{}, err
	}
	m1, err := readMeta(r, size, 1)
	if err != nil {
		return meta{}, err
	}
	if m.txid == m1.txid {
		return meta{}, corrupt("both meta pages are of transaction %d", m.txid)
	}
	if m1.txid > m.txid {
		m = m1
	}
	return m, nil
}

func readMeta(r io.ReaderAt, size, id int64) (meta, error) {
	b := make([]byte, headerSize+metaSize)
	if err := readAt(r, b, id*pageSize); err != nil {
		return meta{}, err
	}
	ne := binary.NativeEndian
	self, flags := ne.Uint64(b), ne.Uint16(b[8:])
	b = b[headerSize:]
	magic, version, page := ne.Uint32(b), ne.Uint32(b[4:]), ne.Uint32(b[8:])
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	switch {
	case magic == 0xEDDA0CED: // metaMagic read backwards
		return meta{}, ErrByteOrder
	case magic != metaMagic:
		return meta{}, corrupt("meta page %d: not a bbolt database", id)
	case self != uint64(id) || flags != flagMeta:
		return meta{}, corrupt("meta page %d says that it is page %d, flags %#x", id, self, flags)
	case sum.Sum64() != ne.Uint64(b[metaSize-8:]):
		return meta{}, corrupt("meta page %d: wrong checksum", id)
	case version != metaVersion:
		return meta{}, corrupt("meta page %d: bbolt file version %d", id, version)
	case page != pageSize:
		return meta{}, corrupt("meta page %d: pages of %d bytes", id, page)
	}
	m := meta{root: ne.Uint64(b[16:]), freelist: ne.Uint64(b[32:]), pages: ne.Uint64(b[40:]), txid: ne.Uint64(b[48:])}
	if m.pages < 4 || m.txid > maxTxid {
		return meta{}, corrupt("meta page %d: %d pages after %d transactions", id, m.pages, m.txid)
	}
	if m.pages > uint64(size)/pageSize {
		return meta{}, corrupt("cut: %d bytes are left of %d pages", size, m.pages)
	}
	return m, nil
}
