package apply

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/remote"
)

// readTries is how often a blob is read that arrives from a registry with wrong bytes.
const readTries = 3

// readGood calls read with each source that has the blob until one copy is right. If none is,
// the blob is noted as bad. It returns errors of the registry, and of a source that is gone.
func (u *unpacker) readGood(ctx context.Context, desc ocispec.Descriptor, read func(*bundle.Source) error) error {
	last := fmt.Errorf("blob %s: %w: it is not there", desc.Digest, bundle.ErrDamaged)
	for _, d := range u.sources.holding(desc) {
		err := read(d)
		for try := 1; d.Registries && try < readTries && errors.Is(err, content.ErrDigest); try++ {
			err = read(d) // the bytes may have been changed on their way, and be right the next time
		}
		if err == nil {
			return d.Feel(nil)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var se *sourceError
		if !errors.As(err, &se) && errors.As(err, new(*remote.Error)) {
			return err
		}
		if gone := d.Feel(err); gone != nil {
			u.forgive()
			return fmt.Errorf("%s: %w", d.Name, gone)
		}
		if !d.Registries {
			err = fmt.Errorf("%w: %w", bundle.ErrDamaged, err)
		}
		last = fmt.Errorf("blob %s on %s: %w", desc.Digest, d.Name, err)
	}
	for _, d := range u.sources.healing(desc) {
		err := read(d)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.As(err, new(*sourceError)) && errors.As(err, new(*remote.Error)) {
			return err
		}
		last = fmt.Errorf("%w; %s: %w", last, d.Name, err)
	}
	u.spoil(desc.Digest, last)
	return nil
}

// forgive takes back what was said of blobs that could not be read when it turns out that the
// drive is gone: that says nothing of them.
func (u *unpacker) forgive() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for d, err := range u.bad {
		if errors.Is(err, syscall.EIO) {
			delete(u.bad, d)
		}
	}
}

func (u *unpacker) isBad(d digest.Digest) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bad[d] != nil
}

func (u *unpacker) count(t *bundle.Totals, size int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t.Blobs++
	t.Bytes += size
}

// prove notes what was read whole and was right.
func (u *unpacker) prove(d digest.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.res.Proven = append(u.res.Proven, d)
}

// proveManifests does so for the manifests, which were read before anything was pushed.
func (u *unpacker) proveManifests() {
	seen := map[digest.Digest]bool{} // images share some
	for _, img := range u.images {
		for _, n := range img.nodes {
			if d := n.Descriptor.Digest; !seen[d] && !u.isBad(d) {
				seen[d] = true
				u.prove(d)
				u.res.Manifests++
			}
		}
	}
}
