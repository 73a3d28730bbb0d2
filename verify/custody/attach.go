package custody

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/layout"
)

const (
	// Folder holds what was attached, below the root of a drive.
	Folder = "pannier/attached"

	// MaxAttachment bounds one attached file, in bytes.
	MaxAttachment = 16 << 20

	maxAs       = 200 // bytes of a claim
	maxName     = 60  // bytes of a name on the drive, after the digest
	maxAttached = 1000
)

// ErrAttachment says that a file cannot be attached.
var ErrAttachment = errors.New("cannot be attached")

// Attachment is what [Attach] puts on a drive.
type Attachment struct {
	Data []byte
	Name string // its file name, for people
	As   string // what the sender says it is
}

// Check reports what is wrong with an attachment before anything is written. Errors wrap
// [ErrAttachment].
func (a Attachment) Check() error {
	switch {
	case len(a.Data) == 0:
		return fmt.Errorf("%w: it is empty", ErrAttachment)
	case len(a.Data) > MaxAttachment:
		return fmt.Errorf("%w: it has more than %d bytes", ErrAttachment, MaxAttachment)
	case strings.TrimSpace(a.As) == "":
		return fmt.Errorf("%w: nothing says what it is", ErrAttachment)
	case len(a.As) > maxAs || !utf8.ValidString(a.As) || strings.ContainsFunc(a.As, unicode.IsControl):
		return fmt.Errorf("%w: what it is said to be is one line of at most %d bytes", ErrAttachment, maxAs)
	}
	return nil
}

// Attach copies a file onto the drive at media and enters it in the custody log: the file
// first, durable, then its line. Nobody's word is in it but the sender's. Attaching the same again adds
// a line and no file. e is the entry but for its event and file. Errors: [ErrAttachment],
// [ErrFull], and layout's.
func Attach(media, holder string, key *Key, a Attachment, e Entry) (*File, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	l, unlock, err := open(media, holder)
	if err != nil {
		return nil, err
	}
	defer unlock()
	d := digest.FromBytes(a.Data)
	f := &File{Path: AttachedPath(d, a.Name), Digest: d, Size: int64(len(a.Data)), Name: safeName(a.Name), As: a.As}
	if err := room(l, f.Path); err != nil {
		return nil, err
	}
	err = l.WriteFile(f.Path, a.Data)
	if errors.Is(err, fs.ErrExist) {
		// Half of it, from an attach that was interrupted: the name holds the digest.
		if err = l.RemoveFile(f.Path); err == nil {
			err = l.WriteFile(f.Path, a.Data)
		}
	}
	if err != nil {
		return nil, err
	}
	e.Event, e.File = Attached, f
	return f, appendTo(l, key, e)
}

// room refuses more files than a reader lists.
func room(l *layout.Layout, name string) error {
	entries, err := l.List(Folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if Folder+"/"+e.Name == name {
			return nil
		}
	}
	if len(entries) >= maxAttached {
		return fmt.Errorf("%w: there are %d attached files already", ErrAttachment, len(entries))
	}
	return nil
}

// AttachedPath is where a file is put: its digest's first digits, so that no two files
// meet, and what is harmless of its name, for people. FAT, exFAT and NTFS take it.
func AttachedPath(d digest.Digest, name string) string {
	return Folder + "/" + d.Encoded()[:16] + "-" + safeName(name)
}

// safeName keeps letters, digits and dots of the last element of a name, in lower case, as its
// end tells what can read it.
func safeName(name string) string {
	name = path.Base(strings.ReplaceAll(name, `\`, "/"))
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name)
	if len(name) > maxName {
		name = name[len(name)-maxName:]
	}
	if name = strings.Trim(name, ".-"); name == "" {
		return "file"
	}
	return name
}

// inFolder reports whether a path that a log names is one that [Attach] makes; any other is not looked at.
func inFolder(name string, d digest.Digest) bool {
	rest, ok := strings.CutPrefix(name, Folder+"/")
	return ok && !strings.Contains(rest, "/") && name == AttachedPath(d, strings.TrimPrefix(rest, d.Encoded()[:16]+"-"))
}

// State is what the log of a drive tells, and what became of it.
type State struct {
	Log      *Log            `json:"-"`
	Lines    int             `json:"lines"`
	Last     digest.Digest   `json:"last,omitempty"`   // of the last line
	Vouched  string          `json:"vouched"`          // a sentence: who signed the log and who vouches for that
	Trusted  bool            `json:"trusted"`          // the last entry, and so the whole chain, is signed by somebody trusted
	Signed   []SignedEntries `json:"signed,omitempty"` // who signed which entries
	Attached []AttachedFile  `json:"attached,omitempty"`
	Problems []string        `json:"problems,omitempty"` // all that is wrong, the log's own problems first
	Unlisted []string        `json:"unlisted,omitempty"` // files in [Folder] that the log does not name
}

// AttachedFile is a file that the log says was attached.
type AttachedFile struct {
	File
	Time  time.Time `json:"time,omitzero"`
	Whole bool      `json:"whole"` // it is on the drive, as the log says
}

// Drive is what [Look] needs of a drive; a layout.Layout has it.
type Drive interface {
	Reader
	List(name string) ([]layout.Entry, error)
}

// Look reads the log of a drive and compares with it what was attached. trusted may be nil. It never fails:
// a log that cannot be read is a problem like any other.
func Look(d Drive, trusted *Signers, now time.Time) *State {
	s := &State{}
	var err error
	if s.Log, err = Read(d); err != nil {
		s.Log = &Log{Problems: []string{"it cannot be read: " + err.Error()}}
	}
	s.Lines, s.Last = len(s.Log.Lines), s.Log.Last()
	s.Problems = append(s.Problems, s.Log.Problems...)
	s.vouch(trusted, now)
	s.compare(d)
	return s
}

// problem notes what is wrong with a file, once: several lines of the log may claim things of it.
func (s *State) problem(text string) {
	if !slices.Contains(s.Problems, text) {
		s.Problems = append(s.Problems, text)
	}
}

// compare compares the attached files with what the log says of them.
func (s *State) compare(d Drive) {
	entries, err := d.List(Folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Problems = append(s.Problems, err.Error())
	}
	if len(entries) > maxAttached {
		s.Problems = append(s.Problems, fmt.Sprintf("%s has %d files, and %d of them are looked at", Folder, len(entries), maxAttached))
	}
	unlisted := map[string]bool{}
	for _, e := range entries[:min(len(entries), maxAttached)] {
		unlisted[Folder+"/"+e.Name] = true
	}
	seen := map[string]bool{}
	for _, line := range s.Log.Lines {
		f := line.File
		if line.Event != Attached || f == nil {
			continue
		}
		if content.CheckDigest(f.Digest) != nil || !inFolder(f.Path, f.Digest) {
			s.Problems = append(s.Problems, fmt.Sprintf("line %d names %q, which is no place for an attached file", line.Number, f.Path))
			continue
		}
		delete(unlisted, f.Path)
		if key := f.Path + "\n" + f.As; seen[key] || len(seen) >= maxAttached {
			continue
		} else {
			seen[key] = true
		}
		a := AttachedFile{File: *f, Time: line.Time}
		raw, err := d.ReadFile(f.Path, MaxAttachment)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			s.problem("attached " + f.Path + " is not there")
		case err != nil:
			s.problem("attached " + f.Path + ": " + err.Error())
		case digest.FromBytes(raw) != f.Digest || int64(len(raw)) != f.Size:
			s.problem("attached " + f.Path + " is not what the custody log says was attached")
		default:
			a.Whole = true
		}
		s.Attached = append(s.Attached, a)
	}
	for _, e := range entries[:min(len(entries), maxAttached)] {
		if name := Folder + "/" + e.Name; unlisted[name] && !bundle.SystemFile(e.Name) {
			s.Unlisted = append(s.Unlisted, name)
		}
	}
}

// vouch says who signed the log. A signature is of a line, and through the chain of all before
// it; what stands after the last one is nobody's word.
func (s *State) vouch(trusted *Signers, now time.Time) {
	s.Signed = s.Log.signed(trusted, now)
	last, unsigned := (*Line)(nil), 0
	for i := len(s.Log.Lines) - 1; i >= 0 && last == nil; i-- {
		switch line := &s.Log.Lines[i]; {
		case line.Signer != nil:
			last = line
		case line.Event != Signed || line.Err != nil:
			unsigned++
		}
	}
	switch {
	case len(s.Log.Lines) == 0:
		s.Vouched = "there is no custody log"
		return
	case last == nil:
		s.Vouched = "nobody signed it"
		return
	}
	name, ok := trusted.Name(last.Signer, now)
	switch {
	case ok:
		s.Vouched = fmt.Sprintf("%s signed it (%s)", name, last.Signer.Fingerprint)
	case trusted != nil:
		s.Vouched = fmt.Sprintf("the key %s signed it, and --trusted-signers names nobody with that key", last.Signer.Fingerprint)
	default:
		s.Vouched = fmt.Sprintf("the key %s signed it, and nobody vouches for that key (--trusted-signers FILE says whose it is)", last.Signer.Fingerprint)
	}
	if unsigned > 0 {
		s.Vouched += ", but for the last " + content.Plural(unsigned, "line", "lines")
	}
	s.Trusted = ok && unsigned == 0 && len(s.Log.Problems) == 0
}
