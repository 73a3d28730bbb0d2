package apply

import (
	"context"
	"slices"
	"strings"

	"pannier/bundle"
	"pannier/bundle/remote"
)

// Mirror takes releases and images from their registries straight to the destination; nothing
// is stored in between. It is [Unpack] with another source: the same plan, checks and order.
// What is read is what the destination lacks, each blob once, hashed as it passes; a wrong one
// is not committed. Running it again goes on with what is lacking then.
//
// from has a client of its own: what it may do, and the pull secrets that it has, need not be
// those of opts.Client, and neither asks the other's hosts. Of opts the fields Media,
// Releases, Signatures, Policy, StoreClient, Stores, MissingOnly and Cache are not used.
//
// Errors: those of [bundle.Resolve] before anything is pushed, then those of [Unpack].
func Mirror(ctx context.Context, from bundle.ResolveOptions, opts UnpackOptions) (*UnpackResult, error) {
	opts.Media, opts.Releases, opts.MissingOnly = nil, nil, true
	u := newUnpacker(opts)
	defer u.close()
	src, err := bundle.Resolve(ctx, from)
	if err == nil {
		for _, c := range from.Client.Contacts() {
			u.hosts = append(u.hosts, c.Host)
		}
		u.take(src)
		err = u.deliver(ctx)
	}
	u.res.Contacts = contacts(from.Client, opts.Client)
	u.proveManifests()
	return u.res, err
}

// contacts are those of several clients, each once.
func contacts(clients ...*remote.Client) []remote.Contact {
	var out []remote.Contact
	for _, c := range clients {
		out = append(out, c.Contacts()...)
	}
	slices.SortStableFunc(out, func(a, b remote.Contact) int { return strings.Compare(a.Host, b.Host) })
	return slices.Compact(out)
}
