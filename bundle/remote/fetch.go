package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// Fetch implements [content.Fetcher]. What it returns of a blob is not verified, and never
// longer than desc says: what a server sends beyond is dropped, since the digest decides over
// the bytes before it. The reader mends itself: after a cut, a stall or an answer that is too
// short it asks the registry again, from where it is, until nothing has come for GiveUpAfter.
// Close may be called while Read waits, and ends it. A manifest is read whole, and verified.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := content.CheckDescriptor(desc); err != nil {
		return nil, err
	}
	if offset < 0 || offset > desc.Size {
		return nil, fmt.Errorf("%s: %w: asked from byte %d of %d", desc.Digest, content.ErrSize, offset, desc.Size)
	}
	if content.IsManifest(desc.MediaType) {
		return r.fetchManifest(ctx, desc, offset)
	}
	q := &call{op: "fetch blob", ref: desc.Digest.String(), method: http.MethodGet, path: "blobs/" + desc.Digest.String()}
	f := &reader{r: r, q: q, size: desc.Size, pos: offset, p: r.c.newPatience()}
	f.ctx, f.cancel = context.WithCancel(ctx)
	if offset == desc.Size && offset > 0 {
		return f, nil // nothing is missing
	}
	if err := f.reopen(); err != nil {
		f.cancel()
		return nil, r.named(err, q)
	}
	return f, nil
}

func (r *Repository) fetchManifest(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	have, raw, err := r.Manifest(ctx, desc.Digest.String())
	if err != nil {
		return nil, err
	}
	if have.Size != desc.Size {
		return nil, fmt.Errorf("manifest %s: %w: it has %d bytes, and %d were expected", desc.Digest, content.ErrSize, have.Size, desc.Size)
	}
	return io.NopCloser(bytes.NewReader(raw[offset:])), nil
}

// reader is a body that is asked for again when it breaks.
type reader struct {
	r      *Repository
	ctx    context.Context // of the call: the reader is that call, drawn out
	cancel context.CancelFunc

	mu   sync.Mutex // held while reading
	q    *call
	size int64
	pos  int64 // of the next byte to hand out
	p    *patience

	x       *exchange // nil: to be asked for
	skip    int64     // bytes to drop first, of an answer that begins too early
	noRange bool      // Range was answered wrongly: ask for the whole
	short   int       // answers in a row that ended properly, with nothing new
	moved   int64     // bytes that the present answer has brought
	err     error     // sticky
}

// Read implements [io.Reader].
func (f *reader) Read(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if f.err != nil {
			return 0, f.err
		}
		if len(b) == 0 {
			return 0, nil
		}
		if f.pos == f.size && (f.size > 0 || f.x != nil) {
			f.fail(io.EOF)
			continue
		}
		if f.x == nil {
			if err := f.reopen(); err != nil {
				f.fail(err)
			}
			continue
		}
		if left := f.size - f.pos; int64(len(b)) > left {
			b = b[:left]
		}
		if f.skip > 0 {
			if err := f.discard(); err != nil {
				f.broken(err)
				continue
			}
		}
		n, err := f.x.Read(b)
		if n > 0 {
			f.pos += int64(n)
			f.p.moved(n)
			f.r.host.serves()
			f.moved, f.short = f.moved+int64(n), 0
		}
		if err != nil {
			f.broken(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// atOnce is how many bytes an answer must have brought for the next one to be asked for
// without a pause.
const atOnce = 256 << 10

// discard drops what an answer has before the position. That counts as no progress.
func (f *reader) discard() error {
	buf := make([]byte, 64<<10)
	for f.skip > 0 {
		n, err := f.x.Read(buf[:min(int64(len(buf)), f.skip)])
		f.skip -= int64(n)
		if err != nil && f.skip > 0 {
			return err
		}
	}
	return nil
}

// broken is called when the present answer ended, by error or by io.EOF.
func (f *reader) broken(err error) {
	var e *Error
	if err != io.EOF {
		e = f.x.failure(err)
	}
	from := f.x.from()
	f.drop()
	switch {
	case f.pos >= f.size:
		f.fail(io.EOF) // all is here; how the connection ended does not matter
		return
	case f.ctx.Err() != nil:
		f.fail(f.ctx.Err())
		return
	case e == nil:
		e = &Error{Host: from, Message: fmt.Sprintf("the answer ended after %d bytes of %d", f.pos, f.size), Err: io.ErrUnexpectedEOF, transient: true}
		if f.moved == 0 {
			f.short++
		}
		if f.short >= 3 {
			f.fail(&Error{Host: from, kinds: []error{ErrRefused}, Message: "it has fewer bytes than it should",
				Err: fmt.Errorf("%w: %d bytes of %d: %w", content.ErrSize, f.pos, f.size, io.ErrUnexpectedEOF)})
			return
		}
	}
	if f.moved >= atOnce && f.p.tries == 0 {
		f.p.tries = 1
		return
	}
	if err := f.p.pause(f.ctx, e); err != nil {
		f.fail(err)
	}
}

// reopen asks for the rest until there is an answer to read from.
func (f *reader) reopen() error {
	for {
		e := f.open()
		if e == nil {
			return nil
		}
		if err := f.p.pause(f.ctx, e); err != nil {
			return err
		}
	}
}

// open makes one attempt, at the registry's own address: an earlier redirect may have
// expired.
func (f *reader) open() *Error {
	q := *f.q
	q.header = f.q.header.Clone()
	q.ok = []int{http.StatusOK}
	if f.pos > 0 && !f.noRange {
		if q.header == nil {
			q.header = http.Header{}
		}
		q.header.Set("Range", fmt.Sprintf("bytes=%d-", f.pos))
		q.ok = []int{http.StatusOK, http.StatusPartialContent}
	}
	x, e := f.r.send(f.ctx, &q, nil, f.p)
	if e != nil {
		if e.Status == http.StatusRequestedRangeNotSatisfiable && f.pos > 0 && !f.noRange {
			f.noRange = true
			e.transient = true
		}
		return e
	}
	if isHTML(x.resp.Header.Get("Content-Type"), nil) {
		x.close()
		return f.r.webPage(x.from(), x.resp.StatusCode)
	}
	f.skip = f.pos
	if x.resp.StatusCode == http.StatusPartialContent {
		first, total, ok := parseContentRange(x.resp.Header.Get("Content-Range"))
		if !ok || first > f.pos || total >= 0 && total != f.size {
			x.close()
			f.noRange = true
			return &Error{Host: x.from(), transient: true, Message: "it answered with another range than was asked for", Err: io.ErrUnexpectedEOF}
		}
		f.skip = f.pos - first
	}
	f.x, f.moved = x, 0
	return nil
}

var contentRange = regexp.MustCompile(`^bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)$`)

// parseContentRange reads "bytes first-last/total"; total is -1 if it is not told.
func parseContentRange(v string) (first, total int64, ok bool) {
	m := contentRange.FindStringSubmatch(v)
	if m == nil {
		return 0, 0, false
	}
	first, _ = strconv.ParseInt(m[1], 10, 64)
	last, _ := strconv.ParseInt(m[2], 10, 64)
	total = -1
	if m[3] != "*" {
		total, _ = strconv.ParseInt(m[3], 10, 64)
	}
	return first, total, last >= first
}

func (f *reader) drop() {
	if f.x != nil {
		f.x.close()
		f.x = nil
	}
}

// fail ends the reader with err.
func (f *reader) fail(err error) {
	f.drop()
	if err != io.EOF {
		err = f.r.named(err, f.q)
	}
	f.err = err
}

// errClosed is what a closed reader answers.
var errClosed = errors.New("read after close")

// Close implements [io.Closer].
func (f *reader) Close() error {
	f.cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop()
	if f.err == nil || f.err == io.EOF {
		f.err = errClosed
	}
	return nil
}
