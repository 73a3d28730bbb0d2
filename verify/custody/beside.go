package custody

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// A custody log beside drives tells of those who read a drive and never write to it. It is a
// chain of its own, and each of its lines names the last line that the drive's log had then
// (docs/format.md, "Custody beside a drive").

// LookBeside reads the bytes of a log beside drives, and compares what it has of the drive with that instance
// with the drive's own log. trusted may be nil.
func LookBeside(raw []byte, instance string, drive *Log, trusted *Signers, now time.Time) *State {
	s := &State{Log: Parse(raw)}
	s.Lines, s.Last = len(s.Log.Lines), s.Log.Last()
	for _, line := range s.Log.Lines {
		if line.Err != nil || line.Event == Signed || line.Instance != instance {
			continue
		}
		if line.Drive != "" && !slices.ContainsFunc(drive.Lines, func(d Line) bool { return d.Digest == line.Drive }) {
			s.Log.problem("line %d was written when the log on the drive ended with a line that is not there: that log was changed since", line.Number)
		}
	}
	s.Problems = s.Log.Problems
	s.vouch(trusted, now)
	return s
}

// AppendBeside adds entries to the log in the file name, which is made if it is not there; each has Drive set by
// the caller, and is followed by its signature if key is not nil.
func AppendBeside(name string, key *Key, entries ...Entry) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	raw, err := readBounded(f)
	if err == nil {
		var text []byte
		if text, err = Parse(raw).next(key, entries...); err == nil && len(raw)+len(text) > maxLog {
			err = fmt.Errorf("%w: %d bytes, of which %d are read", ErrFull, len(raw), maxLog)
		}
		if err == nil {
			_, err = f.Write(text)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// ReadBeside reads the file of a log beside a drive; one that is not there is empty.
func ReadBeside(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}

func readBounded(f *os.File) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(f, maxLog+1))
	if err == nil && len(raw) > maxLog {
		err = fmt.Errorf("%s: %w: more than %d bytes", f.Name(), ErrFull, maxLog)
	}
	return raw, err
}
