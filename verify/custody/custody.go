// Package custody owns the evidence of a crossing: the custody log on the drive, what is
// attached to it, receipts, and the report that people read and sign for.
//
// The custody log (docs/format.md, "The custody log") stands outside the seal. Each of its
// lines names the one before by its digest, so that a line cannot be changed, removed or put
// in without every later line telling; who has the last line has all. Nothing of that proves
// who wrote it, unless the line is signed: then every line before it is, too. No line is
// believed for what the content is: digests and the release's signature decide that.
package custody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/layout"
)

const (
	// LogName is the path of the log below the root of a drive.
	LogName = "pannier/custody.jsonl"

	maxLog  = 16 << 20 // bytes of a log that are read, and that it may grow to
	maxLine = 256 << 10
)

// Events of the log. What only reads a drive does not write to it, but to a log beside it.
const (
	Packed   = "packed"   // pack wrote to the drive; Outcome says whether it finished
	Sealed   = "sealed"   // a generation was sealed
	Repaired = "repaired" // audit --repair changed something
	Attached = "attached" // somebody's file was put on the drive
	Signed   = "signed"   // Signature is of the line before
	Audited  = "audited"  // beside the drive: audit read all of it
	Unpacked = "unpacked" // beside the drive: unpack took from it
)

// ErrFull says that the log has no room for another line.
var ErrFull = errors.New("the custody log is full")

// Entry is one line of the log (docs/format.md, "The custody log"). All but Previous and
// Event may be absent.
type Entry struct {
	Previous   digest.Digest `json:"previous,omitempty"` // of the line before, with its line feed; absent in the first
	Event      string        `json:"event"`
	Time       time.Time     `json:"time,omitzero"`
	Program    string        `json:"program,omitempty"`
	Host       string        `json:"host,omitempty"`
	User       string        `json:"user,omitempty"`
	Bundle     string        `json:"bundle,omitempty"` // bundle id
	Generation uint64        `json:"generation,omitempty"`
	Outcome    string        `json:"outcome,omitempty"`
	Detail     string        `json:"detail,omitempty"` // for people
	Releases   []Release     `json:"releases,omitempty"`
	File       *File         `json:"file,omitempty"`      // what was attached; of an unpack its receipt
	Signature  string        `json:"signature,omitempty"` // SSH signature of the line before
	Instance   string        `json:"instance,omitempty"`  // in a log beside drives: which drive, by its seal
	Drive      digest.Digest `json:"drive,omitempty"`     // and the last line of its own log then
}

// Release is a release that an entry speaks of.
type Release struct {
	Release   string `json:"release"` // "4.8.21-x86_64"
	Digest    string `json:"digest"`
	Signature string `json:"signature,omitempty"` // verified, unverified or missing, as it was judged then
}

// File is an attached file.
type File struct {
	Path   string        `json:"path,omitempty"` // below the root; none of a receipt
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	Name   string        `json:"name,omitempty"` // that it had
	As     string        `json:"as"`             // what the sender says it is: claimed, never checked
}

// Line is a line of a log that was read.
type Line struct {
	Entry
	Number int           // from 1
	Digest digest.Digest // of its bytes, with the line feed
	Signer *Signer       // of the signature that follows it, if that is right; nil otherwise
	Err    error         // why it could not be read

	text []byte // with the line feed
}

// Log is a custody log that was read.
type Log struct {
	Lines    []Line
	Problems []string // where the chain is broken, lines that cannot be read, signatures that are wrong
	raw      []byte
}

// Last is the digest of the last line, "" if there is none.
func (l *Log) Last() digest.Digest {
	if len(l.Lines) == 0 {
		return ""
	}
	return l.Lines[len(l.Lines)-1].Digest
}

// Attached lists the files that the log says were attached, oldest first.
func (l *Log) Attached() []File {
	var out []File
	for _, line := range l.Lines {
		if line.Event == Attached && line.File != nil {
			out = append(out, *line.File)
		}
	}
	return out
}

// Reader reads small files by their slash path below a root, at most limit bytes; a
// layout.Layout is one.
type Reader interface {
	ReadFile(name string, limit int64) ([]byte, error)
}

// Read reads the log of a drive. Without one the log is empty. The error says that it could not be
// read at all; what is wrong inside is in [Log.Problems].
func Read(r Reader) (*Log, error) {
	raw, err := r.ReadFile(LogName, maxLog)
	if errors.Is(err, fs.ErrNotExist) {
		return &Log{}, nil
	}
	if err != nil {
		return nil, err
	}
	return Parse(raw), nil
}

// Parse reads the bytes of a log, and follows the chain.
func Parse(raw []byte) *Log {
	l := &Log{raw: raw}
	for at := 0; at < len(raw); {
		end := len(raw)
		if i := bytes.IndexByte(raw[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		l.add(raw[at:end])
		at = end
	}
	return l
}

func (l *Log) add(text []byte) {
	line := Line{Number: len(l.Lines) + 1, Digest: digest.FromBytes(text), text: text}
	switch {
	case text[len(text)-1] != '\n':
		line.Err = errors.New("it ends early")
	case len(text) > maxLine:
		line.Err = fmt.Errorf("it has %d bytes, more than %d", len(text), maxLine)
	default:
		if err := json.Unmarshal(text, &line.Entry); err != nil {
			line.Err, line.Entry = err, Entry{}
		}
	}
	switch {
	case line.Err != nil:
		l.problem("line %d cannot be read: %v", line.Number, line.Err)
	case line.Previous != l.Last():
		l.problem("line %d does not follow from the line before it: one of the two was changed, or others removed or put in", line.Number)
	}
	if line.Event == Signed && line.Err == nil {
		l.sign(line)
	}
	l.Lines = append(l.Lines, line)
}

// sign takes in a line that signs the one before it.
func (l *Log) sign(line Line) {
	if len(l.Lines) == 0 {
		l.problem("line %d signs a line that is not there", line.Number)
		return
	}
	before := &l.Lines[len(l.Lines)-1]
	signer, err := VerifySignature(Namespace, before.text, []byte(line.Signature))
	if err != nil {
		l.problem("line %d is no signature of the line before it: %v", line.Number, err)
		return
	}
	before.Signer = signer
}

const maxProblems = 100

func (l *Log) problem(format string, args ...any) {
	if len(l.Problems) < maxProblems {
		l.Problems = append(l.Problems, fmt.Sprintf(format, args...))
	}
}

// Append adds entries to the log of the bundle at media, each followed by its signature if key is not nil, and
// makes them durable. The drive is locked while that goes on; holder is the program's name
// for it. Errors: layout's, and [ErrFull].
func Append(media, holder string, key *Key, entries ...Entry) error {
	l, unlock, err := open(media, holder)
	if err != nil {
		return err
	}
	defer unlock()
	return appendTo(l, key, entries...)
}

// open opens a drive for writing, locked.
func open(media, holder string) (*layout.Layout, func(), error) {
	l, err := layout.Open(media, layout.Options{Damaged: true})
	if err != nil {
		return nil, nil, err
	}
	unlock, err := l.Lock(holder)
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	return l, func() { unlock(); l.Close() }, nil
}

func appendTo(l *layout.Layout, key *Key, entries ...Entry) error {
	log, err := Read(l)
	if err != nil {
		return err
	}
	text, err := log.next(key, entries...)
	if err != nil {
		return err
	}
	if len(log.raw)+len(text) > maxLog {
		return fmt.Errorf("%w: %d bytes, of which %d are read", ErrFull, len(log.raw), maxLog)
	}
	return l.AppendFile(LogName, text)
}

// next encodes entries as the lines that follow.
func (l *Log) next(key *Key, entries ...Entry) ([]byte, error) {
	var out []byte
	previous := l.Last()
	if n := len(l.raw); n > 0 && l.raw[n-1] != '\n' {
		// What an interruption left of a line is a line from now on, and named like any other.
		out = append(out, '\n')
		previous = digest.FromBytes(append(slices.Clone(l.Lines[len(l.Lines)-1].text), '\n'))
	}
	for _, e := range entries {
		e.Previous = previous
		line, err := encode(e)
		if err != nil {
			return nil, err
		}
		out, previous = append(out, line...), digest.FromBytes(line)
		if key == nil {
			continue
		}
		signature, err := key.Sign(Namespace, line)
		if err != nil {
			return nil, err
		}
		if line, err = encode(Entry{Previous: previous, Event: Signed, Signature: string(signature)}); err != nil {
			return nil, err
		}
		out, previous = append(out, line...), digest.FromBytes(line)
	}
	return out, nil
}

func encode(e Entry) ([]byte, error) {
	line, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if len(line)+1 > maxLine {
		return nil, fmt.Errorf("a line of the custody log may have %d bytes, and this one has %d", maxLine, len(line)+1)
	}
	return append(line, '\n'), nil
}
