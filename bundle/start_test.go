package bundle

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/objects"
	"pannier/store"
)

// Every sentence of START-HERE.txt fits a narrow window; what may be longer is copied, not read.
func TestStartHere(t *testing.T) {
	d := digest.FromString("x")
	idx := &ocispec.Index{Manifests: []ocispec.Descriptor{
		{Digest: d, Annotations: map[string]string{ocispec.AnnotationRefName: "4.8.21-x86_64"}},
		{Digest: d, Annotations: map[string]string{ocispec.AnnotationRefName: "quay.io/a/tools:1"}},
	}}
	rel := store.Release{Version: "4.8.21", Arch: "x86_64", Source: "quay.io/openshift-release-dev/ocp-release", Descriptor: ocispec.Descriptor{Digest: d}}
	next := rel
	next.Version = "4.8.22"
	dest, err := objects.ParseDestination("reg.example:5000/ocp4/openshift4")
	if err != nil {
		t.Fatal(err)
	}

	one, several := startHere(d, idx, []store.Release{rel}, nil, nil), startHere(d, idx, []store.Release{rel, next}, &dest, map[string]digest.Digest{"pannier/bin/linux-amd64/pannier": d})
	for _, text := range []string{one, several} {
		for _, line := range strings.Split(text, "\n") {
			if len(line) > 76 && !strings.Contains(line, "sha256:") {
				t.Errorf("%d columns: %s", len(line), line)
			}
		}
		if !strings.Contains(text, "the image quay.io/a/tools:1") || strings.Contains(text, "the image 4.8") {
			t.Errorf("the additional image is missing, or something else is taken for one:\n%s", text)
		}
	}
	if !strings.Contains(one, "REGISTRY/REPO is like ") || strings.Contains(one, "the commands \"oc adm upgrade\" that step 2") {
		t.Error(one)
	}
	if !strings.Contains(several, "unpack . reg.example:5000/ocp4/openshift4 -a FILE") || !strings.Contains(several, "the commands \"oc adm upgrade\" that step 2") {
		t.Error(several)
	}
}
