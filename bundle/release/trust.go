package release

import (
	"fmt"
	"sort"
	"strings"

	"pannier/bundle/objects"
)

const (
	keyAnnotation = "release.openshift.io/verification-config-map"
	keyPrefix     = "verifier-public-key-"
	policyKind    = "ClusterImagePolicy"
	policyGroup   = "config.openshift.io/"
)

// trust returns the key rings and the image policies among the manifests, by order of their
// names.
func (a *found) trust() (keys, policies []File, err error) {
	sort.SliceStable(a.manifests, func(i, j int) bool { return a.manifests[i].Name < a.manifests[j].Name })
	for _, m := range a.manifests {
		docs, err := objects.Documents(m.Data)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w: %w", m.Name, ErrPayload, err)
		}
		for _, doc := range docs {
			k, policy, err := readTrust(doc)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", m.Name, err)
			}
			keys = append(keys, k...)
			if policy {
				policies = append(policies, File{Name: m.Name, Data: doc})
			}
		}
	}
	return keys, policies, nil
}

// readTrust reads one manifest: the key rings that it holds, and whether it is a policy.
func readTrust(doc []byte) (keys []File, policy bool, err error) {
	var obj struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Annotations map[string]any `json:"annotations"`
		} `json:"metadata"`
		Data any `json:"data"`
	}
	if err := objects.Decode(doc, &obj); err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrPayload, err)
	}
	if obj.Kind == policyKind && strings.HasPrefix(obj.APIVersion, policyGroup) {
		return nil, true, nil
	}
	if _, ok := obj.Metadata.Annotations[keyAnnotation]; !ok || obj.Kind != "ConfigMap" {
		return nil, false, nil
	}
	data, _ := obj.Data.(map[string]any)
	for name, value := range data {
		text, ok := value.(string)
		if ok && strings.HasPrefix(name, keyPrefix) && validFile(name) {
			keys = append(keys, File{Name: name, Data: []byte(text)})
		}
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i].Name < keys[j].Name })
	return keys, false, nil
}
