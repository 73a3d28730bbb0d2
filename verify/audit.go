// Package verify proves a drive whole, or says exactly what is not.
package verify

import (
	"context"
	"errors"
	"log/slog"

	"pannier/bundle"
	"pannier/bundle/remote"
)

// AuditOptions says what [Audit] looks at. Media must be set.
type AuditOptions struct {
	Media      string
	Releases   []string                 // only these, "4.8.21" or "4.8.21-x86_64"; nil means all
	Signatures bundle.SignatureVerifier // nil finds every signature unverified
	Policy     bundle.Policy
	Client     *remote.Client // asks Stores for signatures that the drive lacks; nil asks nobody
	Stores     []string
	Jobs       int    // parallel readers; 0 means one for each processor, at most 4
	Cache      string // folder on the local disk for a copy of the index
	Progress   bundle.ProgressFunc
	Logger     *slog.Logger
}

// Audit reads the whole drive and reports. It never stops at a finding and never writes to
// the drive; it returns an error only if it could not look: [bundle.ErrNotBundle],
// [bundle.ErrVersion], [bundle.ErrNoRelease], or ctx's error.
func Audit(ctx context.Context, opts AuditOptions) (*Report, error) {
	return nil, errors.New("audit: not there yet")
}
