package layout

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"
)

func TestPulse(t *testing.T) {
	eio := &fs.PathError{Op: "read", Path: "x", Err: syscall.EIO}
	pulled := &fs.PathError{Op: "open", Path: "x", Err: syscall.ENODEV}
	for name, test := range map[string]struct {
		reads []error
		gone  bool
	}{
		"nothing read":                       {},
		"one bad place":                      {reads: []error{nil, eio, nil}},
		"bad places apart":                   {reads: []error{eio, eio, nil, eio, eio, nil}},
		"other errors are not its":           {reads: []error{errors.New("a"), errors.New("b"), errors.New("c"), errors.New("d")}},
		"three in a row":                     {reads: []error{nil, eio, eio, eio}, gone: true},
		"other errors do not bring one back": {reads: []error{eio, errors.New("a"), eio, eio}, gone: true},
		"no such device":                     {reads: []error{nil, pulled}, gone: true},
	} {
		var p Pulse
		var last error
		for _, err := range test.reads {
			last = p.Feel(err)
		}
		if errors.Is(last, ErrGone) != test.gone || test.gone && !errors.Is(last, test.reads[len(test.reads)-1]) {
			t.Errorf("%s: %v", name, last)
		}
	}
}
