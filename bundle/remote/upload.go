package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// opener opens a blob for an upload.
type opener func(ctx context.Context, offset int64) (io.ReadCloser, error)

// sourceError is an error of the source of an upload, which ends it and is returned as it is.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// uploadBody is the body of one PUT, for as many requests as that takes: a token that
// expired means a second one. Every request gets a reader of its own, because net/http may
// still be reading for a request that was answered early.
type uploadBody struct {
	ctx  context.Context
	desc ocispec.Descriptor
	open opener

	commit time.Duration // how long the answer may take once all is sent

	mu      sync.Mutex
	watch   *watch
	readers []*uploadReader
	err     error // of the source, the first
	done    bool  // what the source says from now on does not matter
	most    int64 // bytes that any one reader has handed out
}

func (b *uploadBody) use(w *watch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watch = w
}

// attach makes b the body of req.
func (b *uploadBody) attach(req *http.Request) error {
	body, err := b.next()
	if err != nil {
		return err
	}
	req.Body, req.GetBody = body, b.next
	req.ContentLength = b.desc.Size
	req.Header.Set("Content-Type", "application/octet-stream")
	if b.desc.Size == 0 {
		req.Body, req.GetBody = http.NoBody, nil
	}
	if b.desc.Size >= expectAbove {
		// So that a refusal comes before the bytes and not in the midst of them.
		req.Header.Set("Expect", "100-continue")
	}
	return nil
}

// expectAbove is from which size on, in bytes, an upload asks before it sends.
const expectAbove = 1 << 20

// next opens the source anew.
func (b *uploadBody) next() (io.ReadCloser, error) {
	rc, err := b.open(b.ctx, 0)
	if err != nil {
		b.fail(err)
		return nil, &sourceError{err}
	}
	r := &uploadReader{b: b, rc: rc, left: b.desc.Size}
	if b.desc.Size == 0 {
		if err := r.atEnd(); err != nil {
			rc.Close()
			b.fail(err)
			return nil, &sourceError{err}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readers = append(b.readers, r)
	return r, nil
}

func (b *uploadBody) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil && !b.done {
		b.err = err
	}
}

// finish returns the source's error, if it had one by itself, and then ends it by cancel and
// waits until nobody reads any more.
func (b *uploadBody) finish(cancel func()) error {
	b.mu.Lock()
	b.done = true
	readers, err := b.readers, b.err
	b.mu.Unlock()
	cancel()
	for _, r := range readers {
		r.Close()
	}
	return err
}

// sent is how many bytes were handed to the network at most.
func (b *uploadBody) sent() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.most
}

// uploadReader hands out exactly as many bytes as the descriptor says. The last ones are
// held back until the source has ended properly, so that a verifying source that fails then
// leaves the request short, which no registry commits.
type uploadReader struct {
	b  *uploadBody
	mu sync.Mutex // held while reading; Close waits for it

	rc     io.ReadCloser
	left   int64
	err    error
	closed bool
}

// errBodyClosed is what net/http gets that reads on after the upload was given up.
var errBodyClosed = errors.New("upload ended")

// Read implements [io.Reader].
func (r *uploadReader) Read(p []byte) (int, error) {
	r.b.mu.Lock()
	w := r.b.watch
	r.b.mu.Unlock()
	if w != nil {
		w.disarm() // while the source is read the network is not to blame
		defer func() {
			if r.left > 0 {
				w.arm()
			} else {
				w.armFor(max(w.after, r.b.commit)) // a registry may hash all of it now
			}
		}()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return 0, errBodyClosed
	case r.err != nil:
		return 0, r.err
	case r.left == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	n, err := r.rc.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	switch {
	case err == io.EOF && r.left > 0:
		err = fmt.Errorf("%s: %w: %d bytes of %d: %w", r.b.desc.Digest, content.ErrSize, r.b.desc.Size-r.left, r.b.desc.Size, io.ErrUnexpectedEOF)
	case err == io.EOF:
		err = nil
	case err == nil && r.left == 0:
		err = r.atEnd()
	}
	if err != nil {
		r.err = err
		r.b.fail(err)
		return 0, err
	}
	r.b.mu.Lock()
	r.b.most = max(r.b.most, r.b.desc.Size-r.left)
	r.b.mu.Unlock()
	return n, nil
}

// atEnd makes sure that the source ends here, and well.
func (r *uploadReader) atEnd() error {
	var one [1]byte
	for range 100 {
		n, err := r.rc.Read(one[:])
		switch {
		case n > 0:
			return fmt.Errorf("%s: %w: more than %d bytes", r.b.desc.Digest, content.ErrSize, r.b.desc.Size)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}

// Close implements [io.Closer]; when it returns, nobody reads the source.
func (r *uploadReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return r.rc.Close()
}
