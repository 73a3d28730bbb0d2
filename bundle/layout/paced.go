package layout

import "io"

// paced writes to a file and keeps the medium busy: no more than two windows wait in memory.
type paced struct {
	f      File
	end    int64 // where the next byte is written
	pushed int64 // start of the window that is being written back
}

// Write implements [io.Writer].
func (p *paced) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := p.f.Write(b)
	p.end += int64(n)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	for err == nil && p.end-p.pushed >= 2*windowSize {
		// Wait for the window before this one, then let this one go.
		if err = writeback(p.f, p.pushed, windowSize, true); err == nil {
			p.pushed += windowSize
			err = writeback(p.f, p.pushed, windowSize, false)
		}
	}
	return n, err
}
