// Package throttle makes a wire or a drive slow, for tests: so many bytes a second pass, of all
// who use it together, and it keeps account of when it was busy and when idle. The account is
// of the line's own clock, on which bytes take exactly their time: a machine that is busy with
// other things, and sleeps that last too long, are not held against whoever uses the line as
// long as there is something in its buffer.
package throttle

import (
	"net/http"
	"sync"
	"time"
)

// Line is a wire or a drive.
type Line struct {
	rate   int64 // bytes a second
	buffer int64 // bytes

	mu    sync.Mutex
	free  time.Time // when all that was given to it has passed
	idle  time.Duration
	bytes int64
}

// New makes a line of rate bytes a second. Whoever gives it bytes waits until no more than
// buffer of them are left: what a drive's cache or a server's socket holds.
func New(rate, buffer int64) *Line { return &Line{rate: rate, buffer: buffer} }

// Account is what a line did from its first byte on.
type Account struct {
	Busy, Idle time.Duration
	Bytes      int64
}

// IdleShare is the share of the time in which it was idle, from 0 to 1.
func (a Account) IdleShare() float64 {
	return float64(a.Idle) / float64(max(1, a.Idle+a.Busy))
}

// Account tells what the line did until now. It is not idle after the last byte: nobody knows
// then that there will be more.
func (l *Line) Account() Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Account{Busy: l.time(l.bytes), Idle: l.idle, Bytes: l.bytes}
}

// Reset begins the account anew.
func (l *Line) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free, l.idle, l.bytes = time.Time{}, 0, 0
}

func (l *Line) time(bytes int64) time.Duration {
	return time.Duration(float64(bytes) / float64(l.rate) * float64(time.Second))
}

// Pass gives the line n bytes.
func (l *Line) Pass(n int) { time.Sleep(time.Until(l.take(int64(n)).Add(-l.time(l.buffer)))) }

// Drain waits until all has passed.
func (l *Line) Drain() { time.Sleep(time.Until(l.take(0))) }

// take puts n bytes behind those that are on their way, and returns when they have passed.
func (l *Line) take(n int64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case n == 0:
		return l.free
	case l.free.IsZero():
		l.free = now
	case now.After(l.free):
		l.idle += now.Sub(l.free)
		l.free = now
	}
	l.bytes += n
	l.free = l.free.Add(l.time(n))
	return l.free
}

// Answer has the bodies of an HTTP handler's answers pass, each of which begins a round trip
// after it was asked for.
func (l *Line) Answer(next http.Handler, roundTrip time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(roundTrip)
		next.ServeHTTP(&writer{w, l}, r)
	})
}

type writer struct {
	http.ResponseWriter
	line *Line
}

// chunk is how many bytes go onto the line at once, so that several answers share it.
const chunk = 16 << 10

func (w *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), chunk)]
		w.line.Pass(len(part))
		var k int
		k, err = w.ResponseWriter.Write(part)
		n, p = n+k, p[len(part):]
	}
	return n, err
}

// Unwrap is for [http.NewResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
