package preflight

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/remote"
	"pannier/store"
)

// FarOptions says what [Far] looks at. Destination and Client must be set; every other field
// may be zero.
type FarOptions struct {
	Media       string   // the drive; "" leaves it out
	Releases    []string // only these of those on it, "4.8.21" or "4.8.21-x86_64"; nil means all
	Destination objects.Destination
	Cluster     *objects.Destination // the name by which the nodes know the registry, if another
	Prefix      string               // what stands before the path of additional images
	ReadOnly    bool                 // send nothing to the registry: what concerns pushing is left out
	Client      *remote.Client       // should be confined (remote.Options.Confined) and give up soon

	Signatures bundle.SignatureVerifier // judges the releases' signatures; nil leaves that out
	Policy     bundle.Policy            // whether a release without good signature is a fail or a warn

	Cache  string       // folder on the local disk for copies of indexes; must be given with Media
	Logger *slog.Logger // may be nil

	off []string         // rows left out, by tests
	now func() time.Time // nil is time.Now
}

// far is one run of [Far]: the options, and what was found out so far.
type far struct {
	opts FarOptions
	repo *remote.Repository

	opened   once[*drive]
	greeted  once[*remote.Greeting]
	login    once[struct{}]
	tags     once[[]string]
	pushed   once[struct{}]
	released once[[]store.Release]
}

// farRows are the checks of the far side, in order.
func farRows() []row[*far] {
	return []row[*far]{
		{"bundle-readable", bundleReadable},
		{"bundle-sealed", bundleSealed},
		{"bundle-releases", bundleReleases},
		{"bundle-blobs", bundleBlobs},
		{"bundle-signatures", bundleSignatures},
		{"registry-name", registryName},
		{"registry-api", registryAPI},
		{"registry-tls", registryTLS},
		{"registry-clock", registryClock},
		{"registry-auth", registryAuth},
		{"registry-tags", registryTags},
		{"registry-referrers", registryReferrers},
		{"registry-pull", registryPull},
		{"registry-presumed", registryPresumed},
		{"registry-push", registryPush},
		{"registry-project", registryProject},
		{"registry-nesting", registryNesting},
		{"registry-uploads", registryUploads},
		{"registry-docker-manifests", registryDocker},
		{"registry-oci-manifests", registryOCI},
		{"registry-hosts", registryHosts},
	}
}

// pushing are the rows that send something to the registry, or are about sending.
var pushing = []string{"registry-push", "registry-project", "registry-nesting", "registry-uploads", "registry-docker-manifests", "registry-oci-manifests"}

// Far makes the checks of the disconnected side: is the drive one that can be unpacked, and
// will the registry take what is on it? The drive is not written to. At the registry uploads
// are begun and cancelled, and manifests put that cannot be stored because what they name is
// missing; only where a registry's answer to that leaves it open whether it takes Docker's
// manifests, a tiny image is pushed, by digest alone, and removed again where the registry
// allows it (the check says so if not).
//
// The error is ctx's, or that of a Destination that is none; the report, as far as it came,
// is returned with it.
func Far(ctx context.Context, opts FarOptions) (Report, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.now == nil {
		opts.now = time.Now
	}
	repo, err := opts.Client.Repository(opts.Destination.String())
	if err != nil {
		return Report{Checks: []Check{}}, err
	}
	f := &far{opts: opts, repo: repo}
	defer func() {
		if f.opened.value != nil {
			f.opened.value.Close()
		}
	}()
	off := opts.off
	if opts.ReadOnly {
		off = append(slices.Clone(off), pushing...)
	}
	checks := runRows(ctx, farRows(), f, off)
	return NewReport(checks), ctx.Err()
}

// isAbsent reports whether a registry says that it has no such repository or manifest.
func isAbsent(err error) bool {
	return errors.Is(err, remote.ErrNotFound) && !errors.Is(err, remote.ErrNotRegistry)
}
