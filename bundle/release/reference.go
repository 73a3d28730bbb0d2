package release

import "github.com/opencontainers/go-digest"

// File is a file found inside a release payload.
type File struct {
	Name string
	Data []byte
}

// Image is one component of a release, as its image-references names it.
type Image struct {
	Name       string // component name, "etcd"
	Repository string // "quay.io/openshift-release-dev/ocp-v4.0-art-dev"
	Digest     digest.Digest
}
