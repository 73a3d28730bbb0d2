package main

import (
	"errors"
	"slices"
	"syscall"

	"pannier/apply"
	"pannier/apply/cluster"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/graph"
	"pannier/bundle/layout"
	"pannier/bundle/parity"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
	"pannier/verify/custody"
	"pannier/verify/signature"
)

// The exit codes of docs/cli.md.
const (
	exitDone        = 0
	exitError       = 1
	exitUsage       = 2
	exitIncomplete  = 3
	exitUntrusted   = 4 // damage, a drive that fails, a wrong digest, an untrusted or missing signature
	exitAuth        = 5
	exitSpace       = 6 // no space, or a limit of the file system
	exitRegistry    = 7
	exitCluster     = 8 // it refused, cannot be reached, or is in no state to accept
	exitInterrupted = 130
)

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// codes says which errors mean which exit code. Where an error tree holds several, the first
// line that matches wins, so that the order of the lines is the contract's precedence.
var codes = []struct {
	code int
	any  []error
}{
	{exitInterrupted, []error{errInterrupted}},
	{exitUntrusted, []error{
		content.ErrDigest, content.ErrSize, content.ErrInvalid, release.ErrPayload, release.ErrText, bundle.ErrDisagree, bundle.ErrGraphDisagrees,
		signature.ErrUntrusted, bundle.ErrSignature, custody.ErrSignature, bundle.ErrDamaged, layout.ErrUnsafe, store.ErrCorrupt,
		parity.ErrLost, parity.ErrNotCovered, parity.ErrMap,
	}},
	{exitSpace, []error{
		layout.ErrNoSpace, custody.ErrFull, layout.ErrTooLarge, layout.ErrReadOnly,
		syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS,
	}},
	{exitAuth, []error{remote.ErrAuth, remote.ErrAuthFile}},
	{exitCluster, []error{cluster.ErrCluster}},
	{exitRegistry, []error{remote.ErrUnreachable, remote.ErrRefused, remote.ErrNotRegistry, remote.ErrNotFound, graph.ErrUnknown}},
	{exitIncomplete, []error{bundle.ErrUnsealed, bundle.ErrIncomplete, bundle.ErrPresumed, layout.ErrGone, remote.ErrInterrupted, apply.ErrNotArrived}},
	{exitUsage, []error{bundle.ErrNotBundle, bundle.ErrSupplement, layout.ErrNotLayout, bundle.ErrNoRelease, cluster.ErrConfig, cluster.ErrLoopback, apply.ErrElsewhere}},
	{exitRegistry, []error{bundle.ErrNoStore, syscall.ECONNREFUSED}}, // whatever else stood beside it says more
	{exitUntrusted, []error{syscall.EIO}}, // nothing better is known: the drive has bad places
}

// exitCode maps what a command returned to the program's exit code; it is the only place
// that does. It looks at the whole tree of joined and wrapped errors.
func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	var usage *usageError
	var coded *codedError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &coded):
		return coded.code
	}
	for _, line := range codes {
		if slices.ContainsFunc(line.any, func(target error) bool { return errors.Is(err, target) }) {
			return line.code
		}
	}
	return exitError
}

// codedError is an outcome that is no failure of the command and has a code of its own: what
// an audit found, a drive that is not sealed. The command has printed what there is to say,
// unless text adds to it.
type codedError struct {
	code int
	text string
	is   error // the class of error that it amounts to, if any
}

func (e *codedError) Error() string { return e.text }
func (e *codedError) Unwrap() error { return e.is }

// leaves returns the errors that were joined in err, in order, each with the chain that
// stands above and below it as far as it is not joined.
func leaves(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && isPlainJoin(err) {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, leaves(e)...)
		}
		return all
	}
	return []error{err}
}

// isPlainJoin tells errors.Join from fmt.Errorf with several %w, which adds words of its own
// and must be shown as one: the text of a join is nothing but its parts' lines.
func isPlainJoin(err error) bool {
	parts := err.(interface{ Unwrap() []error }).Unwrap()
	n := len(parts) - 1
	for _, p := range parts {
		n += len(p.Error())
	}
	return len(err.Error()) == n && len(parts) > 0
}
