package throttle_test

import (
	"testing"
	"time"

	"pannier/bundle/throttle"
)

func TestAccount(t *testing.T) {
	l := throttle.New(1_000_000, 10_000)
	began := time.Now()
	for range 10 {
		l.Pass(5_000)
	}
	if took := time.Since(began); took < 40*time.Millisecond { // all but what the buffer holds
		t.Errorf("50 ms of bytes passed in %v", took)
	}
	l.Drain()
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("50 ms of bytes are through after %v", took)
	}
	if a := l.Account(); a.Busy != 50*time.Millisecond || a.Bytes != 50_000 {
		t.Errorf("%+v", a)
	}
	time.Sleep(60 * time.Millisecond)
	before := l.Account()
	l.Pass(5_000)
	if a := l.Account(); a.Idle-before.Idle < 60*time.Millisecond || a.Busy != 55*time.Millisecond || a.IdleShare() < 0.5 {
		t.Errorf("%+v, before %+v", a, before)
	}
	l.Reset()
	if a := l.Account(); a != (throttle.Account{}) || a.IdleShare() != 0 {
		t.Errorf("%+v", a)
	}
}
