package bundle

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// maxDepth bounds how deep lists may stand in lists. One level is what registries have.
const maxDepth = 4

// Node is a manifest that [Walk] came by.
type Node struct {
	Descriptor ocispec.Descriptor
	Raw        []byte // as it is stored
	Manifest   *content.Manifest
	Depth      int // 0 for the root
}

// Walk reads the manifest that root names, and those of its children, from f. For each it
// calls manifest, parents first; for every other blob it calls blob. Content that several
// parents name is visited once. An error for one manifest is given to broken, which may
// return nil to go on without what lies below it.
func Walk(ctx context.Context, f content.Fetcher, root ocispec.Descriptor, manifest func(Node) error,
	blob func(ocispec.Descriptor) error, broken func(ocispec.Descriptor, error) error) error {
	seen := map[digest.Digest]bool{}
	var visit func(desc ocispec.Descriptor, depth int) error
	visit = func(desc ocispec.Descriptor, depth int) error {
		if seen[desc.Digest] {
			return nil
		}
		seen[desc.Digest] = true
		if depth == 0 && !content.IsManifest(desc.MediaType) {
			return broken(desc, fmt.Errorf("%s: %w: media type %q is no manifest", desc.Digest, content.ErrInvalid, desc.MediaType))
		}
		if !content.IsManifest(desc.MediaType) {
			return blob(desc)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		node, err := readNode(ctx, f, desc, depth)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return broken(desc, err)
		}
		if err := manifest(node); err != nil {
			return err
		}
		for _, child := range node.Manifest.Children() {
			// What an image names is data, whatever media type it claims: an image manifest
			// that calls a layer a manifest must not make us parse it.
			if content.IsImage(desc.MediaType) {
				if !seen[child.Digest] {
					seen[child.Digest] = true
					if err := blob(child); err != nil {
						return err
					}
				}
				continue
			}
			if err := visit(child, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return visit(root, 0)
}

func readNode(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor, depth int) (Node, error) {
	if depth >= maxDepth {
		return Node{}, fmt.Errorf("%s: %w: lists within lists, %d deep", desc.Digest, content.ErrInvalid, depth)
	}
	raw, err := content.ReadAll(ctx, f, desc, content.MaxManifest)
	if err != nil {
		return Node{}, err
	}
	m, err := content.ParseManifest(desc.MediaType, raw)
	if err != nil {
		return Node{}, fmt.Errorf("%s: %w", desc.Digest, err)
	}
	return Node{Descriptor: desc, Raw: raw, Manifest: m, Depth: depth}, nil
}
