package sample

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/release"
)

// names are those of real components; further ones are numbered.
var names = []string{
	"cluster-version-operator", "cli", "etcd", "pod", "machine-config-operator", "hyperkube", "cluster-etcd-operator", "coredns",
	"haproxy-router", "oauth-server", "console", "installer", "machine-os-content", "prometheus", "kube-proxy", "tests",
}

func componentNames(n int) []string {
	out := make([]string, n)
	for i := range out {
		if i < len(names) {
			out[i] = names[i]
		} else {
			out[i] = fmt.Sprintf("component-%03d", i+1)
		}
	}
	slices.Sort(out)
	return out
}

// base is what release images are built on: an architecture's version operator.
type base struct {
	arch   string
	below  []layer // Options.BaseLayers
	layers []layer
	image  ocispec.Descriptor
}

// components makes all component images and returns those of the version operator.
func (m *maker) components() ([]base, error) {
	bases := make([]base, len(m.Archs))
	for i, arch := range m.Archs {
		os, err := m.fileLayer("usr/lib/os", arch)
		if err != nil {
			return nil, err
		}
		tools, err := m.fileLayer("usr/bin/tools", arch)
		if err != nil {
			return nil, err
		}
		bases[i] = base{arch: arch, layers: []layer{os, tools}}
		if bases[i].below, err = m.computedLayers(m.BaseLayers, "base", arch); err != nil {
			return nil, err
		}
	}
	done := slices.Clone(bases)
	list := componentNames(m.Components)
	if m.Options.Clients {
		list = slices.Compact(slices.Sorted(slices.Values(append(list, clientComponents...))))
	}
	for i, name := range list {
		if m.SharedDigest && i == len(list)-1 {
			last := m.r.Components[i-1]
			last.Name = name
			m.r.Components = append(m.r.Components, last)
			break
		}
		var children []ocispec.Descriptor
		for j := range bases {
			desc, layers, err := m.component(i, name, bases[j])
			if err != nil {
				return nil, fmt.Errorf("component %s: %w", name, err)
			}
			children = append(children, platform(desc, bases[j].arch))
			if name == names[0] {
				done[j].layers, done[j].image = layers, desc
			}
		}
		desc := children[0]
		desc.Platform = nil
		if m.Multi {
			var err error
			if desc, err = m.r.list(m.OCI, children); err != nil {
				return nil, err
			}
		}
		m.r.Images = append(m.r.Images, Placed{Repository: m.ComponentRepository, Descriptor: desc})
		m.r.Components = append(m.r.Components, release.Image{Name: name, Repository: m.ComponentRepository, Digest: desc.Digest})
	}
	return done, nil
}

// component makes one component for one architecture. One in four, and the version
// operator, differs from version to version; the others are the same in all.
func (m *maker) component(i int, name string, on base) (ocispec.Descriptor, []layer, error) {
	version := ""
	if i%4 == 1 || name == names[0] {
		version = m.Version
	}
	layers := slices.Concat(on.below, on.layers[:1+i%2])
	own, err := m.fileLayer("usr/bin/"+name, on.arch, version)
	if m.Options.Clients && isClientComponent(name) {
		own, err = m.clientLayer(name, on.arch)
	}
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	layers = append(layers, own)
	if i < m.LargeLayers {
		large, err := m.computedLayer(m.LargeLayer, name, on.arch)
		if err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		layers = append(layers, large)
	}
	if i < len(m.Layers) {
		further, err := m.computedLayers(m.Layers[i], name, on.arch)
		if err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		layers = append(layers, further...)
	}
	labels := map[string]string{
		"name": "sample/" + name, "version": "v" + version,
		"io.openshift.build.commit.id": commit(name, version),
	}
	if strings.HasSuffix(name, "-operator") {
		labels["io.openshift.release.operator"] = "true"
	}
	desc, err := m.image(release.GoArch(on.arch), labels, "", layers)
	return desc, layers, err
}

func commit(names ...string) string {
	return digest.FromString(strings.Join(names, " ")).Encoded()[:40]
}

// Draft is a release image about to be made, for [Options].Mutate.
type Draft struct {
	Arch         string            // which child of a multi release; as in tags
	Labels       map[string]string // of the config
	Architecture string            // of the config
	Entries      []Entry           // the archive of the top layer
	Layer        []byte            // if set, the top layer as it is, instead of Entries packed
	OnTop        [][]byte          // further layers, put on top as they are
}

// Edit replaces the contents of the entry whose name ends in name. It does nothing if there
// is none.
func (d *Draft) Edit(name string, edit func([]byte) []byte) {
	for i := range d.Entries {
		if strings.HasSuffix(d.Entries[i].Name, name) {
			d.Entries[i].Data = edit(bytes.Clone(d.Entries[i].Data))
		}
	}
}

// Replace replaces text in the entry whose name ends in name.
func (d *Draft) Replace(name, old, text string) {
	d.Edit(name, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(old), []byte(text)) })
}

// releaseImages makes the release image, or one for each architecture and their list.
func (m *maker) releaseImages(bases []base) error {
	entries, err := m.payload()
	if err != nil {
		return err
	}
	var children []ocispec.Descriptor
	for _, b := range bases {
		desc, err := m.releaseImage(b, entries)
		if err != nil {
			return fmt.Errorf("release image: %w", err)
		}
		children = append(children, platform(desc, b.arch))
	}
	m.r.Descriptor = children[0]
	m.r.Descriptor.Platform = nil
	if m.Multi {
		m.r.Children = children
		if m.r.Descriptor, err = m.r.list(m.OCI, children); err != nil {
			return err
		}
		for i, b := range bases {
			child := children[i]
			child.Platform = nil
			m.r.Images = append(m.r.Images, Placed{m.Repository, release.Tag(m.Version, "multi-"+b.arch), child})
		}
	}
	m.r.Images = append(m.r.Images, Placed{m.Repository, release.Tag(m.Version, m.Arch), m.r.Descriptor})
	return nil
}

func (m *maker) releaseImage(b base, entries []Entry) (ocispec.Descriptor, error) {
	d := &Draft{
		Arch: b.arch, Architecture: release.GoArch(b.arch), Entries: slices.Clone(entries),
		Labels: map[string]string{"io.openshift.release": m.Version, "io.openshift.release.base-image-digest": b.image.Digest.String()},
	}
	if m.Mutate != nil {
		m.Mutate(d)
	}
	layers := slices.Clone(b.layers)
	if d.Layer != nil {
		d.OnTop = append([][]byte{d.Layer}, d.OnTop...)
	} else {
		top, err := m.layer(d.Entries)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		layers = append(layers, top)
	}
	for _, raw := range d.OnTop {
		desc := m.r.blob(m.layerType(), raw)
		layers = append(layers, layer{desc, desc.Digest})
	}
	return m.image(d.Architecture, d.Labels, "Release image for OpenShift", layers)
}

// payload returns the entries of the layer that makes an image a release image.
func (m *maker) payload() ([]Entry, error) {
	references, err := m.references()
	if err != nil {
		return nil, err
	}
	metadata, err := m.metadata()
	if err != nil {
		return nil, err
	}
	files := []release.File{{Name: "image-references", Data: references}, {Name: "release-metadata", Data: metadata}}
	for _, c := range m.r.Components {
		if strings.HasSuffix(c.Name, "-operator") {
			files = append(files, release.File{Name: "0000_50_" + c.Name + "_01_deployment.yaml", Data: deployment(c)})
		}
	}
	if m.KeyConfigMap != nil {
		files = append(files, release.File{Name: "0000_90_cluster-update-keys_configmap.yaml", Data: m.KeyConfigMap})
	}
	if m.ImagePolicy != nil {
		files = append(files, release.File{Name: "0000_90_openshift-cluster-image-policy.yaml", Data: m.ImagePolicy})
	}
	entries := []Entry{{Header: tar.Header{Name: "release-manifests", Typeflag: tar.TypeDir, Mode: 0o777, ModTime: m.Created}}}
	for _, f := range append(files, m.Manifests...) {
		entries = append(entries, Entry{tar.Header{Name: "release-manifests/" + f.Name, Mode: 0o444, ModTime: m.Created}, f.Data})
	}
	return entries, nil
}

type object = map[string]any

func (m *maker) references() ([]byte, error) {
	tags := []object{}
	for _, c := range m.r.Components {
		tags = append(tags, object{
			"name": c.Name,
			"annotations": object{
				"io.openshift.build.commit.id":       commit(c.Name),
				"io.openshift.build.commit.ref":      "release-" + m.Version,
				"io.openshift.build.source-location": "https://source.example/" + c.Name,
			},
			"from":            object{"kind": "DockerImage", "name": c.Repository + "@" + c.Digest.String()},
			"generation":      nil,
			"importPolicy":    object{},
			"referencePolicy": object{"type": ""},
		})
	}
	return jsonFile(object{
		"kind": "ImageStream", "apiVersion": "image.openshift.io/v1",
		"metadata": object{
			"name": m.Version, "creationTimestamp": m.Created.Format(time.RFC3339),
			"annotations": object{"release.openshift.io/from-image-stream": "sample/" + m.Version},
		},
		"spec":   object{"lookupPolicy": object{"local": false}, "tags": tags},
		"status": object{"dockerImageRepository": ""},
	})
}

func (m *maker) metadata() ([]byte, error) {
	meta := object{"url": m.URL}
	if m.Multi {
		meta["release.openshift.io/architecture"] = release.Multi
	}
	previous := m.Previous
	if previous == nil {
		previous = []string{}
	}
	return jsonFile(object{"kind": "cincinnati-metadata-v0", "version": m.Version, "previous": previous, "metadata": meta})
}

func jsonFile(v any) ([]byte, error) {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	return append(raw, '\n'), nil
}

func deployment(c release.Image) []byte {
	return []byte(fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
  namespace: openshift-%[1]s
spec:
  selector:
    matchLabels: {app: %[1]s}
  template:
    metadata:
      labels: {app: %[1]s}
    spec:
      containers:
      - name: %[1]s
        image: %[2]s@%[3]s
`, c.Name, c.Repository, c.Digest))
}
