package bundle

import (
	"github.com/opencontainers/go-digest"

	"pannier/bundle/objects"
)

// Holdings is what a registry on the other side holds, as a receipt or an inventory of it says.
// Pack believes it; unpack proves what was made of that before it pushes anything.
type Holdings struct {
	Registry objects.Destination                // that releases are in
	Blobs    map[string]map[digest.Digest]int64 // sizes by digest, by repository
}
