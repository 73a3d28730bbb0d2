package verify_test

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/release/sample"
)

type descriptor = ocispec.Descriptor

// descriptorOf finds where an image stands in r.
func descriptorOf(r *sample.Release, d digest.Digest) descriptor {
	for _, p := range r.Images {
		if p.Descriptor.Digest == d {
			return p.Descriptor
		}
	}
	return descriptor{}
}
