package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"pannier/apply"
	"pannier/apply/cluster"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/graph"
	"pannier/bundle/layout"
	"pannier/bundle/release"
	"pannier/bundle/remote"
	"pannier/store"
	"pannier/verify/signature"
)

func TestExitCode(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("blob sha256:ab: %w", err) }
	for _, test := range []struct {
		err  error
		code int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{bundle.ErrVersion, 1},
		{store.ErrVersion, 1},
		{bundle.ErrConflict, 1},
		{layout.ErrLocked, 1},
		{graph.ErrGraph, 1},
		{&graph.NoPathError{}, 1},
		{context.Canceled, 1}, // nobody interrupted: some part gave up on another
		{usagef("pack", "no"), 2},
		{bundle.ErrNotBundle, 2},
		{layout.ErrNotLayout, 2},
		{bundle.ErrNoRelease, 2},
		{bundle.ErrUnsealed, 3},
		{fmt.Errorf("%w: %w", layout.ErrGone, syscall.EIO), 3},
		{remote.ErrInterrupted, 3},
		{content.ErrDigest, 4},
		{content.ErrSize, 4},
		{content.ErrInvalid, 4},
		{release.ErrPayload, 4},
		{release.ErrText, 4},
		{bundle.ErrDisagree, 4},
		{bundle.ErrGraphDisagrees, 4},
		{bundle.ErrNoStore, 7},
		{syscall.ECONNREFUSED, 7},
		{fmt.Errorf("%w: %w", remote.ErrInterrupted, syscall.ECONNREFUSED), 3},
		{fmt.Errorf("%w: %w", cluster.ErrUnreachable, syscall.ECONNREFUSED), 8},
		{signature.ErrUntrusted, 4},
		{signature.ErrMalformed, 4},
		{&bundle.SignatureError{}, 4},
		{bundle.ErrDamaged, 4},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.EIO}, 4},
		{fmt.Errorf("%w: %w", bundle.ErrUnsealed, syscall.EIO), 3},
		{remote.ErrAuth, 5},
		{remote.ErrAuthFile, 5},
		{layout.ErrNoSpace, 6},
		{layout.ErrTooLarge, 6},
		{layout.ErrReadOnly, 6},
		{syscall.ENOSPC, 6},
		{remote.ErrUnreachable, 7},
		{remote.ErrNotFound, 7},
		{graph.ErrUnknown, 7},
		{fmt.Errorf("%w: %w", bundle.ErrNoStore, remote.ErrUnreachable), 7},
		{remote.ErrRefused, 7},
		{remote.ErrNotRegistry, 7},
		{remote.ErrCertificate, 7},
		{cluster.ErrConfig, 2},
		{cluster.ErrLoopback, 2},
		{apply.ErrElsewhere, 2},
		{apply.ErrNotArrived, 3},
		{cluster.ErrCluster, 8},
		{cluster.ErrUnreachable, 8},
		{cluster.ErrForbidden, 8},
		{cluster.ErrRefused, 8},
		{cluster.ErrForeign, 8},
		{cluster.ErrConflict, 8},
		{cluster.ErrDegraded, 8},
		{cluster.ErrStalled, 8},
		{cluster.ErrGuard, 8},
		{cluster.ErrPayload, 8},
		{&cluster.APIError{Status: 403}, 8},
		{errInterrupted, 130},

		// Of several the contract's first wins, wherever it stands in the tree.
		{errors.Join(bundle.ErrUnsealed, remote.ErrRefused, remote.ErrAuth, layout.ErrNoSpace, content.ErrDigest, errInterrupted), 130},
		{errors.Join(bundle.ErrUnsealed, remote.ErrRefused, remote.ErrAuth, layout.ErrNoSpace, wrap(content.ErrDigest)), 4},
		{errors.Join(bundle.ErrUnsealed, remote.ErrRefused, remote.ErrAuth, wrap(layout.ErrNoSpace)), 6},
		{errors.Join(bundle.ErrUnsealed, remote.ErrRefused, cluster.ErrGuard, wrap(remote.ErrAuth)), 5},
		{errors.Join(bundle.ErrUnsealed, remote.ErrRefused, wrap(cluster.ErrGuard)), 8},
		{errors.Join(bundle.ErrUnsealed, wrap(remote.ErrRefused)), 7},
		{errors.Join(errors.New("x"), wrap(errors.Join(errors.New("y"), bundle.ErrUnsealed))), 3},
	} {
		if got := exitCode(test.err); got != test.code {
			t.Errorf("%v: exit code %d, want %d", test.err, got, test.code)
		}
		if test.err != nil && test.code != 130 {
			if got := exitCode(wrap(test.err)); got != test.code {
				t.Errorf("wrapped %v: exit code %d, want %d", test.err, got, test.code)
			}
		}
	}
}

// Every class of error that has an exit code of its own has advice of its own too.
func TestAdviceCoversCodes(t *testing.T) {
	for _, line := range codes {
		for _, err := range line.any {
			if err != errInterrupted && adviceFor(err) == unknownAdvice { // which run tells of by itself
				t.Errorf("%v: no advice", err)
			}
		}
	}
	for _, line := range catalogue {
		if line.cause == "" || line.todo == "" || line.rerun == "" {
			t.Errorf("%v: advice has a gap", line.is)
		}
	}
}

// Every class of error of the cluster is told what to do about it in words of its own.
func TestAdviceOfTheCluster(t *testing.T) {
	general := adviceFor(cluster.ErrCluster)
	for _, err := range []error{
		cluster.ErrUnreachable, cluster.ErrForbidden, cluster.ErrForeign, cluster.ErrConflict, cluster.ErrDegraded,
		cluster.ErrStalled, cluster.ErrGuard, cluster.ErrPayload, cluster.ErrConfig, cluster.ErrLoopback,
	} {
		if a := adviceFor(fmt.Errorf("x: %w", err)); a == general || a == unknownAdvice {
			t.Errorf("%v: no advice of its own", err)
		}
	}
}

func TestExplain(t *testing.T) {
	plain := func(s string) string { return s }
	text := told(errors.Join(
		fmt.Errorf("image a: %w", content.ErrDigest),
		fmt.Errorf("push to reg.example: %w", remote.ErrRefused),
		fmt.Errorf("image b\x1b[31m: %w", content.ErrDigest),
	), plain)
	if strings.Count(text, "likely cause:") != 2 || strings.Count(text, "run again:") != 2 {
		t.Errorf("two classes of error need two pieces of advice:\n%s", text)
	}
	if strings.Contains(text, "\x1b") || !strings.Contains(text, `image b\u001b[31m`) {
		t.Errorf("an escape of the terminal came through, or got lost:\n%q", text)
	}

	var many []error
	for i := range 1000 {
		many = append(many, fmt.Errorf("blob %d: %w", i, io.ErrUnexpectedEOF))
	}
	text = told(errors.Join(many...), plain)
	if strings.Count(text, "\n") > maxShown+5 || !strings.Contains(text, "and 980 more") {
		t.Errorf("a thousand errors make %d lines", strings.Count(text, "\n"))
	}

	// An error that wraps two is one error in its own words.
	one := fmt.Errorf("store: %w after %w", remote.ErrInterrupted, io.ErrUnexpectedEOF)
	if got := leaves(one); len(got) != 1 {
		t.Errorf("%v was taken apart: %v", one, got)
	}
}

func TestInterruption(t *testing.T) {
	err := interruption(errors.Join(fmt.Errorf("blob a: %w", context.Canceled), fmt.Errorf("blob b: %w", content.ErrDigest)))
	if exitCode(err) != exitInterrupted {
		t.Errorf("exit code %d", exitCode(err))
	}
	if strings.Contains(err.Error(), "blob a") || !strings.Contains(err.Error(), "blob b") {
		t.Errorf("wanted the damage, not the echo of the interrupt: %v", err)
	}
}

// Errors that hold several classes get the advice of the more telling one.
func TestAdviceOfSeveral(t *testing.T) {
	join := func(a, b error) error { return fmt.Errorf("x: %w: %w", a, b) }
	for _, test := range []struct {
		err  error
		want string
	}{
		{join(layout.ErrGone, syscall.EIO), "unplugged"},
		{join(bundle.ErrDamaged, syscall.EIO), "--verify"},
		{join(bundle.ErrDamaged, fs.ErrNotExist), "--verify"},
		{join(bundle.ErrNoStore, remote.ErrUnreachable), "HTTPS_PROXY"},
		{join(remote.ErrUnreachable, syscall.ECONNREFUSED), "nothing listens"},
		{join(remote.ErrInterrupted, syscall.ECONNREFUSED), "the network is back"},
		{syscall.EIO, "mounted before running again"},
		{join(remote.ErrAuthFile, fs.ErrPermission), "pull secret"},
	} {
		a := adviceFor(test.err)
		if !strings.Contains(a.cause+a.todo, test.want) {
			t.Errorf("%v: %+v", test.err, a)
		}
	}
	if a := adviceFor(fs.ErrNotExist); strings.Contains(a.rerun, "nothing was changed") {
		t.Errorf("nobody knows that: %s", a.rerun)
	}
	if text := told(join(bundle.ErrDamaged, errors.Join(io.EOF, io.ErrClosedPipe)), func(s string) string { return s }); !strings.Contains(text, "EOF; io:") {
		t.Errorf("%s", text)
	}
}

// told is all that is printed of an error.
func told(err error, mark func(string) string) string {
	var b strings.Builder
	for _, f := range failures(err) {
		b.WriteString(f.text(mark))
	}
	return b.String()
}
