package bundle

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrRecordsLost says that MEDIA is a bundle whose folder of records is lost. What raises it
	// wraps [ErrNotBundle] too: nobody can read it as one.
	ErrRecordsLost = errors.New("pannier wrote it, but its folder pannier is lost, and with it seal and records")
	// ErrNotBundle says that MEDIA is a file, or a folder that is neither empty nor a bundle.
	ErrNotBundle = errors.New("not a bundle")
	// ErrVersion says that the bundle is of a newer format version than this program knows.
	ErrVersion = errors.New("newer format version")
	// ErrUnsealed says that packing has not finished: the bundle is incomplete.
	ErrUnsealed = errors.New("not sealed")
	// ErrDamaged says that a sealed bundle is not what its seal promises.
	ErrDamaged = errors.New("damaged")
	// ErrSignature says that a release is not signed by anybody trusted; see [SignatureError].
	ErrSignature = errors.New("release signature not trusted")
	// ErrNoStore says that the signature of a release could not be looked for.
	ErrNoStore = errors.New("its signature could not be looked for, no store answered")
	// ErrNoRelease says that the bundle has no such release.
	ErrNoRelease = errors.New("no such release")
	// ErrSupplement says that a drive is a supplement where none can be, or is none where one
	// must be: releases and what another drive has lost do not share a drive.
	ErrSupplement = errors.New("supplements and releases do not share a drive")
	// ErrDisagree says that two origins name different digests for one release: the registry,
	// its signature, release.txt.
	ErrDisagree = errors.New("its digest is another one there")
	// ErrGraphDisagrees says that the update graph names another digest for a release than it has.
	ErrGraphDisagrees = errors.New("the update graph names another digest")
	// ErrConflict says that a tag names another image on the drive already.
	ErrConflict = errors.New("tag names another image")
)

// SignatureError says why a release was refused. It is [ErrSignature].
type SignatureError struct {
	Tag     string
	Digest  string
	Verdict SignatureVerdict
	Asked   []string // each store that was asked, and what it answered
}

func (e *SignatureError) Error() string {
	var why string
	switch {
	case len(e.Verdict.Problems) > 0:
		why = strings.Join(e.Verdict.Problems, "; ")
	case e.Verdict.Status == SignatureMissing:
		why = "no signature was found"
	default:
		why = "no trusted key made it"
	}
	msg := fmt.Sprintf("release %s (%s): signature %s: %s", e.Tag, e.Digest, e.Verdict.Status, why)
	if len(e.Asked) > 0 {
		msg += "; asked: " + strings.Join(e.Asked, ", ")
	}
	return msg
}

// Is makes errors.Is(err, ErrSignature) true.
func (e *SignatureError) Is(target error) bool { return target == ErrSignature }
