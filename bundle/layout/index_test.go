package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

const sampleDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func sampleIndex() string {
	return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
		`{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","digest":"` + sampleDigest + `","size":7,` +
		`"annotations":{"org.opencontainers.image.ref.name":"4.8.21-x86_64"}}],"annotations":{"a":"b"},"other":{"x":[1]}}`
}

func TestParseIndex(t *testing.T) {
	x, err := ParseIndex([]byte(sampleIndex() + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Manifests) != 1 || x.Manifests[0].Annotations[RefName] != "4.8.21-x86_64" || x.Annotations["a"] != "b" || x.Manifests[0].Size != 7 {
		t.Errorf("%+v", x)
	}
	if x, err := ParseIndex([]byte(`{"schemaVersion":2,"manifests":[]}`)); err != nil || len(x.Manifests) != 0 {
		t.Errorf("empty: %+v, %v", x, err)
	}
	raw, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: x.Manifests})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseIndex(raw); err != nil {
		t.Errorf("what the specification's own types write: %v", err)
	}
}

func TestParseIndexRefuses(t *testing.T) {
	entry := `{"mediaType":"m","digest":"` + sampleDigest + `","size":1}`
	for name, raw := range map[string]string{
		"nothing":          "",
		"cut":              sampleIndex()[:100],
		"data after":       sampleIndex() + "{}",
		"a list":           "[]",
		"null":             "null",
		"schema 1":         `{"schemaVersion":1,"manifests":[]}`,
		"no schema":        `{"manifests":[]}`,
		"an image":         `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`,
		"a path":           `{"schemaVersion":2,"manifests":[{"digest":"sha256:../../etc/passwd","size":1}]}`,
		"sha512":           `{"schemaVersion":2,"manifests":[{"digest":"sha512:00","size":1}]}`,
		"upper case":       `{"schemaVersion":2,"manifests":[{"digest":"` + strings.ToUpper(sampleDigest) + `","size":1}]}`,
		"negative size":    `{"schemaVersion":2,"manifests":[{"digest":"` + sampleDigest + `","size":-1}]}`,
		"twice":            `{"schemaVersion":2,"manifests":[],"manifests":[` + entry + `]}`,
		"no list":          `{"schemaVersion":2,"manifests":{}}`,
		"null entries":     `{"schemaVersion":2,"manifests":[null]}`,
		"too many entries": `{"schemaVersion":2,"manifests":[` + strings.Repeat(entry+",", 100_000) + entry + `]}`,
		"too large":        `{"schemaVersion":2,"x":"` + strings.Repeat("x", MaxIndex) + `"}`,
	} {
		if x, err := ParseIndex([]byte(raw)); !errors.Is(err, content.ErrInvalid) || x != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var many strings.Builder
	many.WriteString(`{"schemaVersion":2`)
	for i := range 200 {
		fmt.Fprintf(&many, `,"f%d":0`, i)
	}
	if _, err := ParseIndex([]byte(many.String() + "}")); !errors.Is(err, content.ErrInvalid) {
		t.Errorf("many fields: %v", err)
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(sampleIndex()))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"platform":{"os":"linux"},"data":"aGk=","size":1}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := ParseIndex(raw)
		if err != nil {
			if !errors.Is(err, content.ErrInvalid) {
				t.Errorf("%v does not wrap ErrInvalid", err)
			}
			return
		}
		for _, d := range x.Manifests {
			if content.CheckDescriptor(d) != nil {
				t.Errorf("passed: %+v", d)
			}
		}
		if _, err := json.Marshal(x); err != nil {
			t.Error(err)
		}
	})
}
