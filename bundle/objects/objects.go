// Package objects renders what a cluster must be given so that it uses a mirrored release,
// as plain YAML: mirror sets (ImageContentSourcePolicy, ImageDigestMirrorSet,
// ImageTagMirrorSet), ConfigMaps with release signatures, install-config snippets, and
// release.json. It also reads such documents.
//
// Invariants: equal input gives equal bytes; whatever is rendered passes the validation of
// the cluster's own definitions; nothing here talks to anything.
package objects

import (
	"errors"
	"fmt"
	"regexp"

	"sigs.k8s.io/yaml"
)

// Kind is the kind of a mirror set.
type Kind string

// The kinds of mirror sets. IDMS and ITMS exist from OpenShift 4.13 on, ICSP in all of 4.x.
const (
	ICSP Kind = "ImageContentSourcePolicy"
	IDMS Kind = "ImageDigestMirrorSet"
	ITMS Kind = "ImageTagMirrorSet"
)

// Names of the objects that pannier makes. They are its own: policies of others are never
// edited.
const (
	ReleaseName    = "pannier-release"    // mirror set of releases
	AdditionalName = "pannier-additional" // mirror sets of additional images
)

// Labels that every object carries, so that it can be found again and told from others'.
const (
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedBy      = "pannier"
)

// Object is one rendered cluster object.
type Object struct {
	APIVersion string
	Kind       string
	Name       string
	Namespace  string // empty if it is cluster-scoped
	YAML       []byte // one document, without document marker
}

// FileName is a name for o as a file: kind and name in lower case, legal on any drive.
func (o Object) FileName() string { return lower(o.Kind) + "-" + o.Name + ".yaml" }

// ErrNoMirror says that there is nothing to mirror: no source, or none that differs from
// its mirrors.
var ErrNoMirror = errors.New("no source needs a mirror")

type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type typeMeta struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
}

// nameRule is DNS-1123 subdomain, what Kubernetes takes as a name.
var nameRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func checkName(name string) error {
	if len(name) > 253 || !nameRule.MatchString(name) {
		return fmt.Errorf("%w: %q is no name for an object: lower-case letters, digits, '-' and '.'", ErrInvalid, name)
	}
	return nil
}

func render(t typeMeta, doc any) (Object, error) {
	raw, err := yaml.Marshal(doc)
	if err != nil {
		return Object{}, fmt.Errorf("render %s %s: %w", t.Kind, t.Metadata.Name, err)
	}
	return Object{APIVersion: t.APIVersion, Kind: t.Kind, Name: t.Metadata.Name, Namespace: t.Metadata.Namespace, YAML: raw}, nil
}
