package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What an image needs of the OCI image-spec.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// nobody is the user of the image: packing and unpacking need no privileges.
const nobody = "65532"

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// layout is an OCI image layout in memory, name by name.
type layout map[string][]byte

func (l layout) add(mediaType string, data []byte) descriptor {
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	l["blobs/sha256/"+digest] = data
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(data)}
}

func (l layout) addJSON(mediaType string, doc any) (descriptor, error) {
	data, err := json.Marshal(doc)
	return l.add(mediaType, data), err
}

// writeImage writes one image for all Linux platforms as an OCI image layout in a tar file,
// which skopeo and podman read: the program and nothing else.
func writeImage(path string, folders []string, version string, stamp time.Time) error {
	l := layout{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	var manifests []descriptor
	for _, folder := range folders {
		arch, linux := strings.CutPrefix(filepath.Base(folder), "linux-")
		if !linux {
			continue
		}
		m, err := l.image(filepath.Join(folder, "pannier"), arch, version, stamp)
		if err != nil {
			return err
		}
		manifests = append(manifests, m)
	}
	if len(manifests) == 0 {
		return nil
	}
	index, err := l.addJSON(typeIndex, map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": manifests})
	if err != nil {
		return err
	}
	index.Annotations = map[string]string{"org.opencontainers.image.ref.name": version}
	if l["index.json"], err = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{index}}); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := l.write(f, stamp); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// image adds the image for one platform.
func (l layout) image(program, arch, version string, stamp time.Time) (descriptor, error) {
	binary, err := os.ReadFile(program)
	if err != nil {
		return descriptor{}, err
	}
	var plain bytes.Buffer
	tw := tar.NewWriter(&plain)
	for _, h := range []*tar.Header{
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "usr/bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "usr/bin/pannier", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(binary))},
	} {
		h.ModTime, h.Format = stamp, tar.FormatUSTAR
		if err := tw.WriteHeader(h); err != nil {
			return descriptor{}, err
		}
	}
	tw.Write(binary)
	if err := tw.Close(); err != nil {
		return descriptor{}, err
	}
	diffID := sha256.Sum256(plain.Bytes())
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	if _, err := io.Copy(gz, &plain); err != nil {
		return descriptor{}, err
	}
	if err := gz.Close(); err != nil {
		return descriptor{}, err
	}
	layer := l.add(typeLayer, packed.Bytes())
	config, err := l.addJSON(typeConfig, map[string]any{
		"created": stamp.Format(time.RFC3339), "architecture": arch, "os": "linux",
		"config": map[string]any{
			"User": nobody + ":" + nobody, "Entrypoint": []string{"/usr/bin/pannier"}, "WorkingDir": "/tmp",
			"Env":    []string{"PATH=/usr/bin", "HOME=/tmp"},
			"Labels": map[string]string{"org.opencontainers.image.title": "pannier", "org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "Apache-2.0"},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(diffID[:])}},
		"history": []any{map[string]string{"created": stamp.Format(time.RFC3339), "created_by": "make dist"}},
	})
	if err != nil {
		return descriptor{}, err
	}
	m, err := l.addJSON(typeManifest, map[string]any{"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": []descriptor{layer}})
	m.Platform = &platform{arch, "linux"}
	return m, err
}

// write writes the layout as a tar file.
func (l layout) write(w io.Writer, stamp time.Time) error {
	var names []string
	for name := range l {
		names = append(names, name)
	}
	slices.Sort(names)
	tw := tar.NewWriter(w)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(l[name])), ModTime: stamp, Format: tar.FormatUSTAR}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(l[name]); err != nil {
			return err
		}
	}
	return tw.Close()
}
