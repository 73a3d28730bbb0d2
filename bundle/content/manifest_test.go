package content_test

import (
	_ "crypto/sha512" // so that its digests are known, and refused
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

func desc(mediaType, text string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest.FromString(text), len(text))
}

func TestParseManifest(t *testing.T) {
	config := desc(content.MediaTypeDockerConfig, "config")
	layer := desc(content.MediaTypeDockerLayer, "layer")
	foreign := fmt.Sprintf(`{"mediaType":"x","digest":%q,"size":5,"urls":["https://elsewhere.example/x"]}`, digest.FromString("foreign"))
	child := desc(content.MediaTypeDockerManifest, "child")
	const image, list = content.MediaTypeDockerManifest, content.MediaTypeDockerList
	for name, tc := range map[string]struct {
		mediaType, raw string
		children       int
	}{
		"image":                {image, `{"schemaVersion":2,"config":` + config + `,"layers":[` + layer + `]}`, 2},
		"image of its type":    {image, `{"schemaVersion":2,"mediaType":"` + image + `","config":` + config + `}`, 1},
		"oci image":            {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"config":` + config + `,"layers":[` + layer + `,` + layer + `]}`, 3},
		"layer from elsewhere": {image, `{"schemaVersion":2,"config":` + config + `,"layers":[` + foreign + `,` + layer + `]}`, 2},
		"list":                 {list, `{"schemaVersion":2,"manifests":[` + child + `]}`, 1},
		"empty index":          {ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[]}`, 0},
		"subject is no child":  {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"config":` + config + `,"subject":` + child + `}`, 1},
		"unknown fields":       {image, `{"schemaVersion":2,"config":` + config + `,"extra":{"a":[1]}}`, 1},
	} {
		m, err := content.ParseManifest(tc.mediaType, []byte(tc.raw))
		if err != nil || len(m.Children()) != tc.children {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}

	bad := strings.Replace(layer, "sha256:", "sha256:../", 1)
	for name, tc := range map[string]struct{ mediaType, raw string }{
		"no manifest type":           {"application/json", `{"schemaVersion":2,"config":` + config + `}`},
		"not JSON":                   {image, `<html>`},
		"nothing":                    {image, ``},
		"cut":                        {image, `{"schemaVersion":2,"config":` + config},
		"two values":                 {image, `{"schemaVersion":2,"config":` + config + `}{}`},
		"schema 1":                   {image, `{"schemaVersion":1,"config":` + config + `}`},
		"no schema":                  {image, `{"config":` + config + `}`},
		"says another type":          {image, `{"schemaVersion":2,"mediaType":"` + list + `","config":` + config + `}`},
		"image without config":       {image, `{"schemaVersion":2,"layers":[` + layer + `]}`},
		"image with children":        {image, `{"schemaVersion":2,"config":` + config + `,"manifests":[` + child + `]}`},
		"index with config":          {list, `{"schemaVersion":2,"config":` + config + `,"manifests":[` + child + `]}`},
		"index with layers":          {list, `{"schemaVersion":2,"layers":[` + layer + `]}`},
		"index that names a layer":   {list, `{"schemaVersion":2,"manifests":[` + layer + `]}`},
		"path for a digest":          {image, `{"schemaVersion":2,"config":` + config + `,"layers":[` + bad + `]}`},
		"negative size":              {image, `{"schemaVersion":2,"config":` + strings.Replace(config, `"size":6`, `"size":-6`, 1) + `}`},
		"size beyond numbers":        {image, `{"schemaVersion":2,"config":` + strings.Replace(config, `"size":6`, `"size":1e30`, 1) + `}`},
		"sha512":                     {image, `{"schemaVersion":2,"config":` + strings.Replace(config, digest.FromString("config").String(), digest.SHA512.FromString("config").String(), 1) + `}`},
		"too many layers":            {image, `{"schemaVersion":2,"config":` + config + `,"layers":[` + strings.Repeat(layer+",", 10000) + layer + `]}`},
		"a hundred thousand objects": {image, `{"schemaVersion":2,"config":` + config + `,"x":[` + strings.Repeat("{},", 100000) + `{}]}`},
		"too large":                  {image, `{"schemaVersion":2,"config":` + config + `}` + strings.Repeat(" ", content.MaxManifest)},
	} {
		if m, err := content.ParseManifest(tc.mediaType, []byte(tc.raw)); !errors.Is(err, content.ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	config := desc(content.MediaTypeDockerConfig, "config")
	for i := range content.ManifestTypes {
		f.Add(i, []byte(`{"schemaVersion":2,"config":`+config+`,"layers":[`+config+`]}`))
		f.Add(i, []byte(`{"schemaVersion":2,"manifests":[`+desc(content.ManifestTypes[i], "child")+`]}`))
		f.Add(i, []byte(`{"schemaVersion":2,"config":{"digest":"sha256:.."},"manifests":[{}],"subject":null}`))
	}
	f.Fuzz(func(t *testing.T, kind int, raw []byte) {
		mediaType := content.ManifestTypes[uint(kind)%uint(len(content.ManifestTypes))]
		m, err := content.ParseManifest(mediaType, raw)
		if err != nil {
			if !errors.Is(err, content.ErrInvalid) {
				t.Errorf("%v", err)
			}
			return
		}
		for _, d := range m.Children() {
			if err := content.CheckDescriptor(d); err != nil {
				t.Errorf("child: %v", err)
			}
			if content.IsIndex(mediaType) && !content.IsManifest(d.MediaType) {
				t.Errorf("an index leads to %q", d.MediaType)
			}
		}
	})
}
