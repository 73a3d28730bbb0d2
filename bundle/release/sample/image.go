package sample

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
)

// Entry is one entry of a layer's archive.
type Entry struct {
	tar.Header
	Data []byte
}

// layer is a layer and what its image's config says of it.
type layer struct {
	ocispec.Descriptor
	diffID digest.Digest // of the archive before compression
}

// noise returns n bytes that depend on names only.
func noise(n int, names ...any) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(fmt.Sprintln(names...)))).Read(b)
	return b
}

func archive(entries []Entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.Data))
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("layer entry %q: %w", h.Name, err)
		}
		if _, err := w.Write(e.Data); err != nil {
			return nil, fmt.Errorf("layer entry %q: %w", h.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	return b.Bytes(), nil
}

// Compress compresses data as layers are: "gzip", "zstd" or "none".
func Compress(method string, data []byte) ([]byte, error) {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch method {
	case "none":
		return data, nil
	case "gzip":
		w, err = gzip.NewWriterLevel(&b, gzip.BestSpeed)
	case "zstd":
		w, err = zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	default:
		return nil, fmt.Errorf("compression %q is none of gzip, zstd, none", method)
	}
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (m *maker) layerType() string {
	switch {
	case m.Compression == "zstd":
		return ocispec.MediaTypeImageLayerZstd // Docker's format has no name for it
	case m.OCI && m.Compression == "none":
		return ocispec.MediaTypeImageLayer
	case m.OCI:
		return ocispec.MediaTypeImageLayerGzip
	case m.Compression == "none":
		return dockerPlainLayer
	}
	return content.MediaTypeDockerLayer
}

const dockerPlainLayer = "application/vnd.docker.image.rootfs.diff.tar"

func (m *maker) layer(entries []Entry) (layer, error) {
	plain, err := archive(entries)
	if err != nil {
		return layer{}, err
	}
	packed, err := Compress(m.Compression, plain)
	if err != nil {
		return layer{}, err
	}
	return layer{m.r.blob(m.layerType(), packed), digest.FromBytes(plain)}, nil
}

// fileLayer is a layer of one file of LayerSize bytes that depend on names.
func (m *maker) fileLayer(path string, names ...any) (layer, error) {
	data := noise(m.LayerSize, append([]any{m.Seed, path}, names...)...)
	return m.layer([]Entry{{tar.Header{Name: path, Mode: 0o755, ModTime: time.Unix(0, 0)}, data}})
}

// blob adds data and returns its descriptor.
func (r *Release) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	r.Blobs[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// imageConfig is the part of an image config that both formats share.
type imageConfig struct {
	Created      time.Time         `json:"created"`
	Architecture string            `json:"architecture"`
	OS           string            `json:"os"`
	Config       containerConfig   `json:"config"`
	RootFS       ocispec.RootFS    `json:"rootfs"`
	History      []ocispec.History `json:"history,omitempty"`
}

type containerConfig struct {
	Env    []string          `json:"Env,omitempty"`
	Labels map[string]string `json:"Labels,omitempty"`
}

// image adds a single-architecture image.
func (m *maker) image(goArch string, labels map[string]string, comment string, layers []layer) (ocispec.Descriptor, error) {
	config := imageConfig{
		Created: m.Created, Architecture: goArch, OS: "linux",
		Config: containerConfig{Labels: labels},
		RootFS: ocispec.RootFS{Type: "layers"},
	}
	var descs []ocispec.Descriptor
	for i, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
		h := ocispec.History{Created: &m.Created}
		if i == 0 {
			h.Comment = comment
		}
		config.History = append(config.History, h)
		descs = append(descs, l.Descriptor)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("image config: %w", err)
	}
	configType, manifestType := content.MediaTypeDockerConfig, content.MediaTypeDockerManifest
	if m.OCI {
		configType, manifestType = ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageManifest
	}
	return m.r.manifest(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType,
		Config: m.r.blob(configType, raw), Layers: descs,
	})
}

func (r *Release) manifest(doc ocispec.Manifest) (ocispec.Descriptor, error) {
	raw, err := json.MarshalIndent(doc, "", "   ")
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("manifest: %w", err)
	}
	return r.blob(doc.MediaType, raw), nil
}

func (r *Release) list(oci bool, children []ocispec.Descriptor) (ocispec.Descriptor, error) {
	mediaType := content.MediaTypeDockerList
	if oci {
		mediaType = ocispec.MediaTypeImageIndex
	}
	raw, err := json.MarshalIndent(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: children,
	}, "", "   ")
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("list: %w", err)
	}
	return r.blob(mediaType, raw), nil
}

// platform returns desc as a list's entry for arch.
func platform(desc ocispec.Descriptor, arch string) ocispec.Descriptor {
	desc.Platform = &ocispec.Platform{OS: "linux", Architecture: release.GoArch(arch)}
	return desc
}
