package release

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// Limits on what files are taken from an image. The largest client of 4.x has less than a GiB.
const (
	maxImageFile = 4<<30 - 1 // bytes of one file: what FAT32 can hold
	maxIndexed   = 20_000    // entries that are remembered of an image
	maxLinks     = 8         // links behind one name
)

// Files gives the regular files that stand under the names want in an image, as a container
// would see them: upper layers hide lower ones, whiteouts hide, links are followed inside the
// image. Of a list that image is taken which is for arch, as in tags, or the one whose payload
// [Read] takes. Only names in the folders of names that are wanted, and links from there, are
// looked at; what is not there is left out. Nothing is held in memory: take reads each file
// once, and gets the names that it stands under.
//
// Until Files returns nil what take was given is not verified: whoever wrote it must remove it
// on an error. Errors wrap [ErrPayload]; or they are those of content, of f or of take.
func Files(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor, arch string, want []string, take func(names []string, size int64, r io.Reader) error) error {
	layers, err := fileLayers(ctx, f, desc, arch)
	if err != nil {
		return err
	}
	x, err := indexFiles(ctx, f, layers, want)
	if err != nil {
		return err
	}
	places := map[int]map[string][]string{} // layer, name there, names wanted
	for _, name := range want {
		if e, ok := x.resolve(name); ok {
			if places[e.layer] == nil {
				places[e.layer] = map[string][]string{}
			}
			places[e.layer][e.name] = append(places[e.layer][e.name], name)
		}
	}
	left := &budget{inflated: maxInflated, entries: maxEntries}
	for i := range layers {
		if len(places[i]) == 0 {
			continue
		}
		if err := takeFiles(ctx, f, layers[i], places[i], left, take); err != nil {
			return fmt.Errorf("layer %s: %w", layers[i].Digest, err)
		}
	}
	return nil
}

// indexFiles finds out what stands under the names that are wanted, and behind links there. A
// link into a folder that was not looked at so far costs another reading.
func indexFiles(ctx context.Context, f content.Fetcher, layers []ocispec.Descriptor, want []string) (*fileIndex, error) {
	var dirs []string
	for _, name := range want {
		dirs = append(dirs, path.Dir(name))
	}
	for range maxLinks {
		x := &fileIndex{at: map[string]fileEntry{}, dirs: dirs}
		left := &budget{inflated: maxInflated, entries: maxEntries}
		for i := len(layers) - 1; i >= 0 && !x.knows(want); i-- {
			if err := x.read(ctx, f, layers[i], i, left); err != nil {
				return nil, fmt.Errorf("layer %s: %w", layers[i].Digest, err)
			}
		}
		if x.knows(want) || len(x.dirs) == len(dirs) {
			return x, nil
		}
		dirs = x.dirs
	}
	return nil, fmt.Errorf("%w: more than %d links behind one name", ErrPayload, maxLinks)
}

// fileLayers are the layers of an image, or of one of a list.
func fileLayers(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor, arch string) ([]ocispec.Descriptor, error) {
	m, err := readManifest(ctx, f, desc)
	if err == nil && content.IsIndex(desc.MediaType) {
		if len(m.Manifests) == 0 {
			return nil, fmt.Errorf("%w: an empty list", ErrPayload)
		}
		child := m.Manifests[mainChild(m.Manifests)]
		for _, c := range m.Manifests {
			if c.Platform != nil && c.Platform.OS == "linux" && c.Platform.Architecture == GoArch(arch) {
				child = c
			}
		}
		m, err = readManifest(ctx, f, child)
	}
	if err != nil {
		return nil, err
	}
	if len(m.Layers) == 0 || len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("%w: an image of %d layers", ErrPayload, len(m.Layers))
	}
	for _, l := range m.Layers {
		if len(l.URLs) > 0 {
			return nil, fmt.Errorf("%w: layer %s is not held by registries", ErrPayload, l.Digest)
		}
	}
	return m.Layers, nil
}

// fileEntry is what an image has under a name.
type fileEntry struct {
	layer int
	name  string
	link  string // name that it is a link to; "" for a regular file
	other bool   // a folder, a device: nothing that can be taken
}

// fileIndex is what the layers that were read have under the names that matter.
type fileIndex struct {
	dirs   []string
	at     map[string]fileEntry
	hidden []string // by whiteouts of the layers read so far: names, and folders with a slash at their end
}

// knows reports whether nothing more can be learnt of the names from lower layers.
func (x *fileIndex) knows(want []string) bool {
	for _, name := range want {
		if _, ok := x.resolve(name); !ok && !x.isHidden(name) {
			if e, ok := x.at[name]; !ok || !e.other {
				return false
			}
		}
	}
	return true
}

func (x *fileIndex) isHidden(name string) bool {
	return slices.ContainsFunc(x.hidden, func(h string) bool {
		return h == name || strings.HasPrefix(name, strings.TrimSuffix(h, "/")+"/")
	})
}

// resolve follows links.
func (x *fileIndex) resolve(name string) (fileEntry, bool) {
	for range maxLinks {
		e, ok := x.at[name]
		if !ok || e.other {
			return e, false
		}
		if e.link == "" {
			return e, true
		}
		name = e.link
	}
	return fileEntry{}, false
}

// read adds a layer below those that were read.
func (x *fileIndex) read(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor, layer int, left *budget) error {
	here := map[string]bool{}
	var hides []string
	err := openLayer(ctx, f, desc, func(r *bufio.Reader) error {
		return payloadError(scanTar(r, desc.Size, left, func(h *tar.Header, _ io.Reader) error {
			name, ok := entryName(h.Name)
			if !ok {
				return nil
			}
			dir, base := path.Split(name)
			if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
				if hidden == ".wh..opq" {
					hides = append(hides, dir)
				} else {
					hides = append(hides, dir+hidden)
				}
				if len(hides)+len(x.hidden) > maxIndexed {
					return fmt.Errorf("%w: more than %d whiteouts", ErrPayload, maxIndexed)
				}
				return nil
			}
			if !x.matters(name) {
				return nil
			}
			e := fileEntry{layer: layer, name: name}
			switch h.Typeflag {
			case tar.TypeReg:
			case tar.TypeLink:
				e.link, ok = entryName(h.Linkname)
			case tar.TypeSymlink:
				target := h.Linkname
				if !path.IsAbs(target) {
					target = path.Join(dir, target)
				}
				e.link, ok = entryName(target)
			default:
				e.other = true
			}
			e.other = e.other || !ok
			if here[name] && !e.other {
				return fmt.Errorf("%w: %s stands twice in one layer", ErrPayload, short(name))
			}
			here[name] = true
			if _, above := x.at[name]; above || x.isHidden(name) {
				return nil
			}
			if len(x.at) >= maxIndexed {
				return fmt.Errorf("%w: more than %d files where clients are", ErrPayload, maxIndexed)
			}
			x.at[name] = e
			if e.link != "" && !x.matters(e.link) {
				x.dirs = append(x.dirs, path.Dir(e.link))
			}
			return nil
		}))
	})
	x.hidden = append(x.hidden, hides...)
	return err
}

// matters reports whether a name stands in a folder where something wanted, or linked to, is.
func (x *fileIndex) matters(name string) bool { return slices.Contains(x.dirs, path.Dir(name)) }

// entryName cleans the name of an entry, which may be anything: nothing leads out of the image.
func entryName(s string) (name string, ok bool) {
	if len(s) > 4096 {
		return "", false
	}
	name = path.Clean("/" + s)[1:]
	return name, name != ""
}

// takeFiles reads the files named from one layer.
func takeFiles(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor, names map[string][]string, left *budget, take func([]string, int64, io.Reader) error) error {
	return openLayer(ctx, f, desc, func(r *bufio.Reader) error {
		var failed error
		err := scanTar(r, desc.Size, left, func(h *tar.Header, t io.Reader) error {
			name, ok := entryName(h.Name)
			if !ok || h.Typeflag != tar.TypeReg || names[name] == nil {
				return nil
			}
			if h.Size > maxImageFile {
				return fmt.Errorf("%w: %s has %d bytes, at most %d are taken", ErrPayload, name, h.Size, int64(maxImageFile))
			}
			failed = take(names[name], h.Size, t)
			return failed
		})
		if failed != nil {
			return failed // whatever take could not write
		}
		return payloadError(err)
	})
}

// payloadError says of a broken archive that it is the payload's fault.
func payloadError(err error) error {
	if err != nil && !errors.Is(err, ErrPayload) {
		return fmt.Errorf("%w: %w", ErrPayload, err)
	}
	return err
}
