package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
)

// Sizes of a chunk, in bytes. A chunk is held in memory, so that what the registry did not
// take of it can be sent again without reading the source twice.
const (
	maxChunk = 4 << 20
	minChunk = 256 << 10
)

// chunkMinimum is the least size of a chunk that a registry takes, 0 if it does not say or
// asks for more than is ever held in memory.
func chunkMinimum(h http.Header) int64 {
	n, err := strconv.ParseInt(h.Get("Oci-Chunk-Min-Length"), 10, 64)
	if err != nil || n < 0 || n > 16*maxChunk {
		return 0
	}
	return n
}

// chunked sends the blob by PATCH requests, and ends with an empty PUT. It goes on from
// where the registry says that it is.
func (u *upload) chunked(ctx context.Context, location *url.URL, least int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body := &uploadBody{ctx: ctx, desc: u.desc, open: u.open}
	src, err := body.next()
	if err != nil {
		return err
	}
	defer src.Close()
	s := &chunks{u: u, location: location}
	for s.at < u.desc.Size {
		size := min(max(u.chunks, least), u.desc.Size-s.at)
		buf := make([]byte, size)
		if _, err := io.ReadFull(src, buf); err != nil {
			u.r.abandon(ctx, s.location)
			return &sourceError{err}
		}
		if err := s.send(ctx, buf); err != nil {
			return err
		}
	}
	q := u.call()
	q.method, q.upload, q.push = http.MethodPut, withDigest(s.location, u.desc.Digest), true
	q.ok = []int{http.StatusCreated, http.StatusNoContent, http.StatusOK}
	q.patient, u.whole = true, true
	x, e := u.r.send(ctx, q, nil, u.p)
	if e != nil {
		if lostUpload(e) {
			e.transient, e.maxTries = true, 5
		}
		return e
	}
	defer x.close()
	if e := u.committed(x); e != nil {
		return e
	}
	return nil
}

// chunks is an upload under way.
type chunks struct {
	u        *upload
	location *url.URL
	at       int64 // bytes that the registry has
	cuts     int   // chunks in a row that broke
}

// send sends buf, which begins at the registry's position, whole or in smaller pieces.
func (s *chunks) send(ctx context.Context, buf []byte) error {
	u, end := s.u, s.at+int64(len(buf))
	for s.at < end {
		rest := buf[int64(len(buf))-(end-s.at):]
		piece := rest[:min(int64(len(rest)), max(u.chunks, 1))]
		e := s.patch(ctx, piece)
		if e == nil {
			u.reached(s.at)
			s.cuts = 0
			if u.r.host.bodyLimit() > 0 {
				u.r.host.setBodyLimit(u.chunks)
			}
			continue
		}
		if e.Status == http.StatusRequestEntityTooLarge && u.chunks > minChunk {
			u.chunks = max(minChunk, u.chunks/2)
			u.r.host.setBodyLimit(u.chunks)
			continue
		}
		if (e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusNotImplemented) && u.r.host.bodyLimit() == 0 && !u.noChunks {
			u.chunks, u.noChunks = 0, true
			e.transient, e.maxTries = true, 5
			return e
		}
		if lostUpload(e) {
			e.transient, e.maxTries = true, 5
		}
		if e.Status == 0 {
			if s.cuts++; s.cuts >= 2 { // something in between may let no more pass
				u.chunks = max(minChunk, u.chunks/2)
			}
		}
		if err := u.p.pause(ctx, e); err != nil {
			return s.final(err)
		}
		if err := s.ask(ctx, end-int64(len(buf)), end); err != nil {
			return err
		}
	}
	return nil
}

// final marks an error as one that no new upload will mend.
func (s *chunks) final(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.transient = false
	}
	return err
}

// patch sends one piece.
func (s *chunks) patch(ctx context.Context, piece []byte) *Error {
	q := s.u.call()
	q.method, q.upload, q.push, q.body = http.MethodPatch, s.location, true, piece
	q.header = http.Header{
		"Content-Type":  {"application/octet-stream"},
		"Content-Range": {fmt.Sprintf("%d-%d", s.at, s.at+int64(len(piece))-1)},
	}
	q.ok = []int{http.StatusAccepted, http.StatusNoContent, http.StatusCreated}
	x, e := s.u.r.send(ctx, q, nil, s.u.p)
	if e != nil {
		return e
	}
	defer x.close()
	next, e := s.u.r.location(x.resp.Header, x.url)
	if e != nil {
		return e
	}
	s.location = next
	at := s.at + int64(len(piece))
	if have, ok := parseUploadRange(x.resp.Header.Get("Range")); ok && have > s.at && have < at {
		at = have // it took less than was sent
	}
	s.at = at
	return nil
}

// ask finds out what the registry has; it must lie within what is still held, first to end.
func (s *chunks) ask(ctx context.Context, first, end int64) error {
	q := s.u.call()
	q.method, q.upload, q.push = http.MethodGet, s.location, true
	q.ok, q.limit = []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted}, errorLimit
	a, err := s.u.r.do(ctx, q)
	if err != nil {
		var e *Error
		if errors.As(err, &e) && e.Status >= 400 && e.Status < 500 && !errors.Is(e, ErrAuth) {
			e.transient, e.maxTries = true, 5
		}
		return err
	}
	have, ok := parseUploadRange(a.header.Get("Range"))
	if !ok {
		have = 0
	}
	if have < first || have > end {
		return &Error{Host: s.u.r.host.name, transient: true, maxTries: 5, kinds: []error{ErrRefused},
			Message: fmt.Sprintf("it has %d bytes of the upload, and %d to %d were sent", have, first, end)}
	}
	if next, e := s.u.r.location(a.header, a.url); e == nil {
		s.location = next
	}
	s.u.reached(have)
	s.at = have
	return nil
}

var uploadRange = regexp.MustCompile(`^(?:bytes[= ])?0-([0-9]{1,18})$`)

// parseUploadRange reads the Range of an upload's answer, "0-last", as the number of bytes
// that the registry has. "0-0" is how some say that it has nothing, and others one byte:
// nothing is the reading that cannot lose data.
func parseUploadRange(v string) (have int64, ok bool) {
	m := uploadRange.FindStringSubmatch(v)
	if m == nil {
		return 0, false
	}
	last, _ := strconv.ParseInt(m[1], 10, 64)
	if last == 0 {
		return 0, true
	}
	return last + 1, true
}
