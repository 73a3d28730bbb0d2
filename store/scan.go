package store

import (
	"bytes"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// Records and images are read by the hundred thousand, and encoding/json takes 5 µs for each.
// What follows reads the very bytes that encode writes, twenty times as fast, and is content
// with nothing else: another order, a blank, an escape, a member that it does not know, a
// value that cannot be. All that is left to [decode], which alone says what is wrong.

// scanner reads a value from its beginning. Once something is not as expected, ok is false.
type scanner struct {
	b  []byte
	at int
	ok bool
}

// span is a part of a scanned value.
type span struct{ from, to int }

func (t span) of(s string) string  { return s[t.from:t.to] }
func (t span) in(b []byte) []byte  { return b[t.from:t.to] }
func (s *scanner) end() bool       { return s.ok && s.at == len(s.b) }
func (s *scanner) fail() (t span)  { s.ok = false; return t }
func (s *scanner) must(lit string) { s.ok = s.skip(lit) && s.ok }

// skip passes lit if it comes next, and reports whether it did.
func (s *scanner) skip(lit string) bool {
	if len(s.b)-s.at < len(lit) || string(s.b[s.at:s.at+len(lit)]) != lit {
		return false
	}
	s.at += len(lit)
	return true
}

// maxDigits are as many as every int64 can have.
const maxDigits = 18

// number passes a number of zero or more, as strconv writes it.
func (s *scanner) number() int64 {
	b := s.b[s.at:]
	digits := run(b, classDigit)
	if digits == 0 || digits > maxDigits || b[0] == '0' && digits > 1 {
		s.fail()
		return 0
	}
	s.at += digits
	var n int64
	for _, c := range b[:digits] {
		n = n*10 + int64(c-'0')
	}
	return n
}

// text passes a text, with its quotes, of at most limit bytes that all are of the class.
func (s *scanner) text(limit int, class byte) span {
	if !s.skip(`"`) {
		return s.fail()
	}
	n := run(s.b[s.at:], class)
	t := span{s.at, s.at + n}
	s.at = t.to
	if n > limit || !s.skip(`"`) {
		return s.fail()
	}
	return t
}

// run counts the bytes at the beginning of b that are of the class.
func run(b []byte, class byte) int {
	for i, c := range b {
		if classes[c]&class == 0 {
			return i
		}
	}
	return len(b)
}

// Classes of bytes that texts are made of.
const (
	classPlain byte = 1 << iota // printable ASCII that stands for itself in JSON
	classRef                    // of a ref name
	classTag                    // of a tag
	classDigit
)

var classes = func() (c [256]byte) {
	for b := range c {
		is := func(class byte, yes bool) {
			if yes {
				c[b] |= class
			}
		}
		b := byte(b)
		is(classPlain, b >= ' ' && b <= '~' && !bytes.ContainsRune([]byte(`"\<>&`), rune(b)))
		is(classRef, isRefByte(b))
		is(classTag, isTagByte(b))
		is(classDigit, b >= '0' && b <= '9')
	}
	return c
}()

// begins reports whether a tag or ref name may begin so.
func begins(b []byte) bool {
	return len(b) > 0 && classes[b[0]]&classTag != 0 && b[0] != '.' && b[0] != '-'
}

// ref passes a ref name or, with its limit and class, a tag.
func (s *scanner) ref(limit int, class byte) span {
	t := s.text(limit, class)
	if s.ok && !begins(t.in(s.b)) {
		s.fail()
	}
	return t
}

// scannedRecord is a [Record] as it lies in its value.
type scannedRecord struct {
	size, offset, sealed int64
	mediaType, source    span
	state                State
	images               span // the list between its brackets
	count                int  // of images
}

// scanRecord reads and checks a record; false leaves it to [decode].
func scanRecord(e entry) (r scannedRecord, ok bool) {
	s := &scanner{b: e.value, ok: content.IsSHA256(e.key)}
	s.must(`{"size":`)
	r.size = s.number()
	if s.skip(`,"mediaType":`) {
		r.mediaType = s.text(maxText, classPlain)
	}
	s.must(`,"state":`)
	r.state = s.state()
	s.must(`,"offset":`)
	r.offset = s.number()
	s.must(`,"source":`)
	r.source = s.text(maxText, classPlain)
	s.must(`,"images":[`)
	r.images.from = s.at
	var last span
	for s.ok && !s.skip(`]`) {
		if r.count > 0 {
			s.must(`,`)
		}
		t := s.ref(maxRef, classRef)
		if r.count > 0 && bytes.Compare(last.in(s.b), t.in(s.b)) >= 0 {
			s.fail()
		}
		last = t
		r.count++
	}
	r.images.to = s.at - 1
	if s.skip(`,"sealed":`) {
		r.sealed = s.number()
	}
	s.must(`}`)
	ok = s.end() && len(e.value) <= maxJSON && r.size <= MaxBlob && r.offset <= r.size &&
		(r.state != StateComplete || r.offset == r.size) && (r.state != StatePresumed || r.offset == 0)
	return r, ok
}

func (s *scanner) state() State {
	for _, state := range [...]State{StateComplete, StateWanted, StatePartial, StatePresumed} {
		if string(s.b[min(s.at+1, len(s.b)):min(s.at+1+len(state), len(s.b))]) == string(state) {
			s.must(`"`)
			s.at += len(state)
			s.must(`"`)
			return state
		}
	}
	s.fail()
	return ""
}

// record makes a record of what was scanned in e. Its texts share one copy of the value.
func (r scannedRecord) record(e entry) Record {
	text := string(e.value)
	out := Record{
		Digest: digest.Digest(e.key), Size: r.size, MediaType: r.mediaType.of(text), State: r.state, Offset: r.offset,
		Source: r.source.of(text), Images: make([]string, 0, r.count), Sealed: uint64(r.sealed),
	}
	for list := (scanner{b: e.value, at: r.images.from, ok: true}); list.at < r.images.to; list.skip(`,`) {
		out.Images = append(out.Images, list.text(maxRef, classRef).of(text))
	}
	return out
}

// scanImage reads and checks an image; false leaves it to [decode]. Without fill the image that
// it returns has no texts.
func scanImage(e entry, fill bool) (img Image, ok bool) {
	s := &scanner{b: e.value, ok: len(e.key) <= maxRef && run(e.key, classRef) == len(e.key) && begins(e.key)}
	var tag span
	s.must(`{"name":`)
	name := s.text(maxText, classPlain)
	s.must(`,"kind":`)
	kind := s.text(maxText, classPlain)
	if s.skip(`,"release":`) {
		tag = s.ref(maxTag, classTag)
	}
	s.must(`,"reference":`)
	reference := s.text(maxText, classPlain)
	s.must(`,"descriptor":{"mediaType":`)
	mediaType := s.text(maxText, classPlain)
	s.must(`,"digest":`)
	dgst := s.text(maxText, classPlain)
	s.must(`,"size":`)
	size := s.number()
	s.must(`},"bytes":`)
	img.Bytes = s.number()
	s.must(`}`)
	if !s.end() || size > MaxBlob || !content.IsSHA256(dgst.in(s.b)) || !isKind(kind.in(s.b)) || len(e.value) > maxJSON {
		return img, false
	}
	if fill {
		text := string(e.value)
		img.Tag, img.Name, img.Kind, img.Release, img.Reference = string(e.key), name.of(text), kind.of(text), tag.of(text), reference.of(text)
		img.Descriptor = ocispec.Descriptor{MediaType: mediaType.of(text), Digest: digest.Digest(dgst.of(text)), Size: size}
	}
	return img, true
}

func isKind(b []byte) bool {
	switch string(b) {
	case KindRelease, KindComponent, KindAdditional, KindSignature, KindDocuments, KindSupplement, KindPresumes:
		return true
	}
	return false
}
