package signature

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"

	"pannier/bundle"
)

// maxMessages bounds how many OpenPGP messages of one image are looked at. A store holds at
// most nine.
const maxMessages = 64

// Verifier judges releases by OpenPGP and sigstore signatures. It satisfies
// [bundle.SignatureVerifier]; calls may run at the same time.
type Verifier struct {
	Keyring        *Keyring     // the keys that the user named; nil is none. Not changed.
	SystemKeyFiles []string     // files that may hold a pinned key, "/etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release"; absent ones are passed over
	Logger         *slog.Logger // nil discards
}

var _ bundle.SignatureVerifier = (*Verifier)(nil)

// VerifyRelease judges r. It is verified if a trusted key signed exactly this digest under
// this version and architecture, and if the sigstore signatures are there that the cluster
// will ask for: where a ClusterImagePolicy of the payload covers it, the release image from
// version 4.21 on and the components from 4.22 on; elsewhere they are noted only. Components
// are judged by r.Images: leave it empty as long as their signatures have not been fetched.
//
// Accepted has every message with the form of a signature of this digest, whoever made it,
// unless it is proven false. The error is ctx's, or says that a key file could not be read.
func (v *Verifier) VerifyRelease(ctx context.Context, r bundle.SignedRelease) (bundle.SignatureVerdict, error) {
	out := bundle.SignatureVerdict{Status: bundle.SignatureMissing}
	ring, err := v.ring(r, &out)
	if err != nil {
		return out, err
	}
	best, err := v.messages(ctx, ring, r, &out)
	if err != nil {
		return out, err
	}
	if len(out.Accepted) > 0 {
		out.Status = bundle.SignatureUnverified
	}
	if best == nil {
		return out, nil
	}
	out.Key, out.Fingerprint, out.KeySource, out.Reference = best.KeyName, best.Fingerprint, best.KeySource, best.Reference
	if best.KeyExpired {
		out.Notes = append(out.Notes, fmt.Sprintf("the key %s has expired since it signed this release on %s", best.Fingerprint, day(best.Created)))
	}
	if best.CandidateKey {
		out.Notes = append(out.Notes, "a candidate release, signed with the "+best.KeyName)
	}
	if err := children(ctx, ring, r, &out); err != nil {
		return out, err
	}
	ok, err := checkSigstore(ctx, ring.sigstore, r, &out)
	if err != nil {
		return out, err
	}
	if ok {
		out.Status = bundle.SignatureVerified
	}
	return out, nil
}

// ring returns the user's keys together with the candidates that are pinned.
func (v *Verifier) ring(r bundle.SignedRelease, out *bundle.SignatureVerdict) (*Keyring, error) {
	ring := v.Keyring.clone()
	log := v.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	for _, name := range v.SystemKeyFiles {
		data, err := readKeyFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			log.Debug("no system key file", "file", name)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("system key file: %w", err)
		}
		if err := ring.AddCandidate(name, data); err != nil {
			out.Notes = append(out.Notes, err.Error())
		}
	}
	for _, f := range r.Keys {
		if err := ring.AddCandidate("the release's own "+printable(f.Name), f.Data); err != nil {
			out.Notes = append(out.Notes, err.Error())
		}
	}
	out.Notes = append(out.Notes, ring.skipped...)
	return ring, nil
}

func readKeyFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// messages sorts r's messages into accepted ones and problems, and returns the first that
// verifies the release; nil if none does.
func (v *Verifier) messages(ctx context.Context, ring *Keyring, r bundle.SignedRelease, out *bundle.SignatureVerdict) (*Signature, error) {
	var best *Signature
	for i, message := range r.Messages {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if i == maxMessages {
			out.Problems = append(out.Problems, fmt.Sprintf("%d signatures more than the %d that are looked at", len(r.Messages)-i, maxMessages))
			break
		}
		if slices.ContainsFunc(r.Messages[:i], func(m []byte) bool { return bytes.Equal(m, message) }) {
			continue
		}
		s, err := ring.Verify(message, r.Digest)
		if err != nil && errors.Is(err, ErrUnknownKey) {
			// Nothing can be said about it but what it claims to sign.
			if other := Inspect(message, r.Digest); other != nil {
				err = other
			} else {
				out.Accepted = append(out.Accepted, message)
			}
		}
		var note string
		if err == nil {
			out.Accepted = append(out.Accepted, message)
			if note, err = s.checkTag(r.Version, r.Arch); err == nil {
				err = s.checkCandidate(r.Version)
			}
		}
		if err != nil {
			out.Problems = append(out.Problems, fmt.Sprintf("signature %d: %v", i+1, err))
			continue
		}
		if best == nil {
			best = s
			out.Notes = append(out.Notes, identityNotes(s, r, note)...)
		}
	}
	return best, nil
}

func identityNotes(s *Signature, r bundle.SignedRelease, note string) []string {
	var notes []string
	if note != "" {
		notes = append(notes, note)
	}
	if named, _, _ := splitReference(s.Reference); r.Source != "" && named != r.Source {
		notes = append(notes, fmt.Sprintf("the release comes from %s; it was signed as %q", r.Source, s.Reference))
	}
	return notes
}

// children notes what the signatures of a list's children are worth. They decide nothing:
// the list names its children by digest, and the cluster is asked for the list.
func children(ctx context.Context, ring *Keyring, r bundle.SignedRelease, out *bundle.SignatureVerdict) error {
	signed := 0
	digests := sortedDigests(r.Children)
	for _, d := range digests {
		if err := ctx.Err(); err != nil {
			return err
		}
		good := false
		for i, message := range r.Children[d][:min(len(r.Children[d]), maxMessages)] {
			s, err := ring.Verify(message, d)
			if err == nil || errors.Is(err, ErrUnknownKey) && Inspect(message, d) == nil {
				if out.Children == nil {
					out.Children = map[digest.Digest][][]byte{}
				}
				out.Children[d] = append(out.Children[d], message)
			}
			if err == nil {
				_, err = s.checkChildTag(r.Version)
			}
			if err == nil {
				err = s.checkCandidate(r.Version)
			}
			if err != nil {
				out.Notes = append(out.Notes, fmt.Sprintf("signature %d of child %s: %v", i+1, d, err))
				continue
			}
			good = true
		}
		if good {
			signed++
		}
	}
	if len(digests) > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d of %d images of the list are signed by themselves too", signed, len(digests)))
	}
	return nil
}
