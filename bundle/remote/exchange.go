package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// exchange is an attempt that was answered; its body is still to be read, and closed.
type exchange struct {
	c     *Client
	h     *host // of the registry
	resp  *http.Response
	watch *watch
	url   *url.URL

	got    int64         // bytes of the body since waited began
	waited time.Duration // for them; the time that their reader took does not count
}

// leastBytes is how many bytes must arrive in [Options].StallAfter of waiting. What is slower
// (a server that drips a byte a second) would not end in anybody's life.
const leastBytes = 8 << 10

func (x *exchange) close() {
	x.resp.Body.Close()
	x.watch.end()
}

// from is the host that the answer came from.
func (x *exchange) from() string { return strings.ToLower(x.resp.Request.URL.Host) }

// failure classifies an error of reading the body.
func (x *exchange) failure(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	e = x.c.classify(err, x.watch.cause(), x.c.host(x.from()))
	if len(e.kinds) == 0 || errors.Is(e, ErrAuth) {
		e.kinds, e.transient = nil, true // in the middle of a body nothing is permanent
	}
	return e
}

// Read reads the body under the watch for stalls and drips.
func (x *exchange) Read(b []byte) (int, error) {
	x.watch.armFor(x.watch.after - x.waited)
	start := time.Now()
	n, err := x.resp.Body.Read(b)
	x.watch.disarm()
	x.waited += time.Since(start)
	if x.got += int64(n); x.got >= leastBytes {
		x.got, x.waited = 0, 0
	}
	return n, err
}

func (x *exchange) readAll(limit int64) ([]byte, error) {
	if x.resp.Request.Method == http.MethodHead {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(x, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, &Error{Host: x.from(), Status: x.resp.StatusCode, kinds: []error{ErrRefused}, Message: fmt.Sprintf("an answer of more than %d bytes", limit)}
	}
	return body, nil
}

// watch ends an attempt when nothing happens for a while.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	after  time.Duration

	mu    sync.Mutex
	timer *time.Timer
}

func newWatch(ctx context.Context, after time.Duration) *watch {
	ctx, cancel := context.WithCancelCause(ctx)
	return &watch{ctx: ctx, cancel: cancel, after: after}
}

func (w *watch) arm() { w.armFor(w.after) }

func (w *watch) armFor(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		w.timer = time.AfterFunc(d, func() { w.cancel(errStall) })
	} else {
		w.timer.Reset(d)
	}
}

func (w *watch) disarm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *watch) end() {
	w.disarm()
	w.cancel(context.Canceled)
}

// cause is why the watch, and not its parent, ended the attempt; nil if it did not.
func (w *watch) cause() error {
	if err := context.Cause(w.ctx); errors.Is(err, errStall) || errors.Is(err, errSilent) {
		return err
	}
	return nil
}

// watchSilence looks after the first attempt at a host: if nothing has come back for a
// while, it asks for something small, and ends the attempt if that is not answered either.
// An answer that merely takes long, from a registry that fetches it first, is left alone.
func (c *Client) watchSilence(w *watch, h *host, target *url.URL) (stop func()) {
	if h.hasAnswered() {
		return func() {}
	}
	t := time.AfterFunc(c.timing.dial, func() {
		for range 2 {
			if h.hasAnswered() || w.ctx.Err() != nil {
				return
			}
			if _, err := c.ping(w.ctx, h, target.Scheme+"://"+target.Host+"/v2/"); err == nil {
				return
			}
		}
		if !h.hasAnswered() {
			w.cancel(errSilent)
		}
	})
	return func() { t.Stop() }
}
