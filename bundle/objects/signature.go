package objects

import (
	"bytes"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
)

// Where and how a cluster looks for release signatures.
const (
	SignatureNamespace = "openshift-config-managed"
	SignatureLabel     = "release.openshift.io/verification-signatures"
)

// releaseAnnotation tells people which release a signature ConfigMap is for.
const releaseAnnotation = "pannier/release"

// maxConfigMap is what the API server allows as the sum of all values, in bytes.
const maxConfigMap = 1 << 20

type configMap struct {
	typeMeta   `json:",inline"`
	BinaryData map[string][]byte `json:"binaryData"`
}

// SignatureConfigMap renders the ConfigMap in which a cluster finds the signatures of the
// release image with digest d: in SignatureNamespace, labelled SignatureLabel, one entry
// "sha256-<hex>-<n>" for each signature, from 1. version is noted for people and may be
// empty. Equal signatures are written once. Errors wrap [ErrInvalid]: for no signature, an
// empty one, or more than the 1 MiB that a ConfigMap holds.
func SignatureConfigMap(d digest.Digest, version string, signatures [][]byte) (Object, error) {
	if err := content.CheckDigest(d); err != nil {
		return Object{}, fmt.Errorf("signature config map: %w", err)
	}
	name := "sha256-" + d.Encoded()
	doc := configMap{
		typeMeta: typeMeta{APIVersion: "v1", Kind: "ConfigMap", Metadata: metadata{
			Name: name, Namespace: SignatureNamespace,
			Labels: map[string]string{ManagedByLabel: ManagedBy, SignatureLabel: ""},
		}},
		BinaryData: map[string][]byte{},
	}
	if version != "" {
		doc.Metadata.Annotations = map[string]string{releaseAnnotation: version}
	}
	total := 0
	seen := map[string]bool{}
	for _, sig := range signatures {
		if len(sig) == 0 {
			return Object{}, fmt.Errorf("signature config map %s: %w: an empty signature", name, ErrInvalid)
		}
		if seen[string(sig)] {
			continue
		}
		seen[string(sig)] = true
		total += len(sig)
		doc.BinaryData[name+"-"+strconv.Itoa(len(seen))] = sig
	}
	if total == 0 {
		return Object{}, fmt.Errorf("signature config map %s: %w: no signature", name, ErrInvalid)
	}
	if total > maxConfigMap {
		return Object{}, fmt.Errorf("signature config map %s: %w: %d bytes of signatures, a ConfigMap holds %d", name, ErrInvalid, total, maxConfigMap)
	}
	return render(doc.typeMeta, doc)
}

// ParseSignatureConfigMap returns the signatures that a ConfigMap, of whatever writer, holds
// for each digest: the cluster takes every entry whose key begins with "sha256-<hex>", so
// this does too. Entries are in order of their keys; other entries are left out. Errors
// wrap [ErrInvalid], also for an object that is not labelled as holding signatures.
func ParseSignatureConfigMap(data []byte) (map[digest.Digest][][]byte, error) {
	var doc configMap
	if err := Decode(data, &doc); err != nil {
		return nil, err
	}
	if doc.Kind != "ConfigMap" {
		return nil, fmt.Errorf("%w: a %q, not a ConfigMap", ErrInvalid, doc.Kind)
	}
	if _, ok := doc.Metadata.Labels[SignatureLabel]; !ok {
		return nil, fmt.Errorf("%w: ConfigMap %s has no label %s", ErrInvalid, doc.Metadata.Name, SignatureLabel)
	}
	keys := make([]string, 0, len(doc.BinaryData))
	for k := range doc.BinaryData {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		if len(keys[i]) != len(keys[j]) {
			return len(keys[i]) < len(keys[j]) // …-10 after …-9
		}
		return keys[i] < keys[j]
	})
	out := map[digest.Digest][][]byte{}
	for _, k := range keys {
		const prefix, hex = len("sha256-"), 64
		if !strings.HasPrefix(k, "sha256-") || len(k) < prefix+hex {
			continue
		}
		d := digest.NewDigestFromEncoded(digest.SHA256, k[prefix:prefix+hex])
		if content.CheckDigest(d) != nil {
			continue
		}
		if sig := doc.BinaryData[k]; len(bytes.TrimSpace(sig)) > 0 {
			out[d] = append(out[d], sig)
		}
	}
	return out, nil
}
