package preflight

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"pannier/bundle"
	"pannier/bundle/layout"
	"pannier/bundle/parity"
	"pannier/bundle/release"
	"pannier/bundle/remote"
)

// NearOptions says what [Near] looks at. Client must be set; every other field may be zero.
//
// Client should give up soon (remote.Options.GiveUpAfter of half a minute): a transfer is
// patient with a network that comes and goes, somebody who asks whether it works is not.
type NearOptions struct {
	Media      string                   // where the bundle is, or will be; "" leaves out the drive
	Releases   []release.Reference      // what is going to be packed; may be none
	Additional []release.Reference      // and other images
	Client     *remote.Client           // reaches the source registry and the signature stores
	Stores     []string                 // signature stores; nil means remote.DefaultSignatureStores
	Signatures bundle.SignatureVerifier // judges the releases' signatures; nil leaves that out
	Policy     bundle.Policy            // whether a release without good signature is a fail or a warn

	// Repositories are asked for where no release is named; nil means those of the public
	// releases and their components.
	Repositories []string

	Cache  string                              // folder on the local disk for copies of indexes; must be given with Media
	FS     func(dir string) (layout.FS, error) // opens the drive for writing; nil is layout.OpenFS. Tests put faults here
	Logger *slog.Logger                        // may be nil

	off  []string                               // rows left out, by tests
	stat func(dir string) (layout.Space, error) // nil is layout.StatSpace
}

// PublicRepositories are where releases and their components are published.
var PublicRepositories = []string{
	"quay.io/openshift-release-dev/ocp-release",
	"quay.io/openshift-release-dev/ocp-v4.0-art-dev",
}

// near is one run of [Near]: the options, and what was found out so far.
type near struct {
	opts     NearOptions
	releases []*named

	spaceOf  once[layout.Space]
	wrote    once[written]
	planned  once[*bundle.PackResult]
	greeting map[string]*once[*remote.Greeting] // by host
}

// nearRows are the checks of the near side, in order.
func nearRows() []row[*near] {
	return []row[*near]{
		{"source-registry", sourceRegistry},
		{"source-clock", sourceClock},
		{"source-access", sourceAccess},
		{"signature-stores", signatureStores},
		{"release-plan", releasePlan},
		{"release-signature", releaseSignature},
		{"drive-mounted", driveMounted},
		{"drive-bundle", driveBundle},
		{"drive-writable", driveWritable},
		{"drive-read-back", driveReadBack},
		{"drive-file-system", driveFileSystem},
		{"drive-space", driveSpace},
		{"source-hosts", sourceHosts},
	}
}

// Near makes the checks of the internet side: are the source registry and the signature
// stores there and open to this account, and can the drive take the release? Nothing is
// written but one small file on the drive, which is removed again.
//
// The error is ctx's alone; the report, as far as it came, is returned with it.
func Near(ctx context.Context, opts NearOptions) (Report, error) {
	if opts.Stores == nil {
		opts.Stores = remote.DefaultSignatureStores
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if len(opts.Releases) == 0 && len(opts.Additional) == 0 && opts.Repositories == nil {
		opts.Repositories = PublicRepositories
	}
	if opts.stat == nil {
		opts.stat = layout.StatSpace
	}
	n := &near{opts: opts, greeting: map[string]*once[*remote.Greeting]{}}
	for _, ref := range opts.Releases {
		n.releases = append(n.releases, &named{ref: ref})
	}
	checks := runRows(ctx, nearRows(), n, opts.off)
	return NewReport(checks), ctx.Err()
}

// plan is what pack would do, as pack itself plans it; nil if nothing is to be packed.
func (n *near) plan(ctx context.Context) (*bundle.PackResult, error) {
	if len(n.opts.Releases)+len(n.opts.Additional) == 0 {
		return nil, nil
	}
	return n.planned.get(func() (*bundle.PackResult, error) {
		for _, r := range n.releases {
			if _, err := r.read(ctx, n.opts.Client); err != nil {
				return nil, err // pack would only find out the same again
			}
		}
		media := n.opts.Media
		if media == "" {
			media = filepath.Join(n.opts.Cache, "no-media")
		}
		// The signature has a row of its own: here it must not hide the rest.
		plan, err := bundle.Pack(ctx, bundle.PackOptions{
			DryRun: true, Policy: bundle.PolicyWarn,
			Releases: n.opts.Releases, Additional: n.opts.Additional, Media: media, Client: n.opts.Client,
			Parity:     parity.DefaultShare,
			Signatures: n.opts.Signatures, Stores: n.opts.Stores, Cache: n.opts.Cache, Logger: n.opts.Logger,
		})
		for _, limit := range []error{layout.ErrNoSpace, layout.ErrTooLarge, layout.ErrReadOnly} {
			if errors.Is(err, limit) {
				return plan, nil // the plan stands; the drive has rows of its own
			}
		}
		return plan, err
	})
}
