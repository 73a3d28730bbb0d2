// Package apply puts what a drive holds into a disconnected site: blobs and manifests into
// the local registry, and then the objects that make a cluster use them.
package apply

import (
	"context"
	"errors"
	"log/slog"

	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/remote"
)

// UnpackOptions says what [Unpack] pushes, from where and to where. Media, Destination and
// Client must be set.
type UnpackOptions struct {
	Media       []string // one or more drives
	Destination objects.Destination
	Cluster     *objects.Destination // the name by which the nodes know the registry, if another
	Releases    []string             // only these, "4.8.21" or "4.8.21-x86_64"; nil means all
	Client      *remote.Client       // should be confined (remote.Options.Confined)

	Signatures  bundle.SignatureVerifier
	Policy      bundle.Policy
	StoreClient *remote.Client // asks Stores for releases whose drive carries no signature; nil asks nobody
	Stores      []string

	MirrorSet   objects.Kind
	Prefix      string // what stands before the path of additional images
	ObjectsDir  string // folder to write the cluster objects to; "" writes none
	CheckAll    bool   // ask the registry for every blob, not only every manifest
	MissingOnly bool   // read only what the registry lacks
	DryRun      bool
	Jobs        int
	Cache       string
	Progress    bundle.ProgressFunc
	Logger      *slog.Logger
}

// Refusal is a blob or an image that was not pushed.
type Refusal struct {
	Digest string
	Images []string
	Err    error
}

// UnpackResult is what [Unpack] did. It is returned, as far as it came, with an error too.
type UnpackResult struct {
	Plan          bundle.Plan
	Releases      []UnpackedRelease
	Objects       []objects.Object // to be applied, in order
	Alternatives  []objects.Object // the mirror set in its other form, never to be applied beside Objects
	InstallConfig []byte           // the same mirrors for install-config.yaml
	Pushed        bundle.Totals    // read, verified and pushed
	Present       bundle.Totals    // read and verified, the registry had them
	Skipped       bundle.Totals    // not read: the registry had them (MissingOnly)
	Refused       []Refusal
	Contacts      []remote.Contact
	Warnings      []string
}

// UnpackedRelease is one release of an [UnpackResult].
type UnpackedRelease struct {
	Tag       string
	Digest    string
	Image     string // REG/REPO@sha256:…, by which the nodes know it
	Complete  bool   // everything it needs is at the registry
	Signature bundle.SignatureVerdict
}

// Unpack checks the drives, pushes what they hold and renders the cluster objects. It never
// writes to a drive. A bad blob is not pushed, nor is anything that names it; the rest is,
// and the error joins one error for each refusal. Unsealed releases are refused with
// [bundle.ErrUnsealed].
func Unpack(ctx context.Context, opts UnpackOptions) (*UnpackResult, error) {
	return nil, errors.New("unpack: not there yet")
}
