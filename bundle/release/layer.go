package release

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/objects"
)

// Limits on what a release image may make us read. The release images of 4.x have base layers
// of up to 80 MiB and about a thousand manifests in a layer of half a MiB.
const (
	maxFile      = 64 << 20 // bytes of one file in release-manifests
	maxLayer     = 2 << 30  // bytes of one layer, compressed
	maxInflated  = 8 << 30  // bytes of all layers that are read, inflated
	maxEntries   = 2 << 20  // entries of all layers that are read
	maxWindow    = 64 << 20 // bytes of memory that a zstd layer may ask for
	maxTrust     = 1000     // manifests with keys or policies
	maxTrustSize = 32 << 20 // bytes of those

	// A layer may grow to ratioFree bytes, and beyond that to ratio times its size: what is
	// worth more is a bomb.
	ratio     = 200
	ratioFree = 256 << 20
)

const manifestDir = "release-manifests/"

// Only manifests with one of these texts are parsed. A thousand others need not be valid by
// our rules, and parsing them would take longer than reading them.
var trustRule = regexp.MustCompile(`["']?kind["']?\s*:\s*["']?` + policyKind + `|` + regexp.QuoteMeta(keyAnnotation))

// found is what the layers hold that matters.
type found struct {
	references, metadata []byte // nil if not found yet
	manifests            []File // that may hold keys or policies
	trustSize            int
}

// budget counts what is left of the limits over all layers.
type budget struct {
	inflated int64
	entries  int
}

// readLayers looks for the files of a release from the top layer down, and stops with the
// layer that completes them. Files of upper layers win.
func readLayers(ctx context.Context, f content.Fetcher, layers []ocispec.Descriptor) (*found, error) {
	all := &found{}
	left := &budget{inflated: maxInflated, entries: maxEntries}
	for i := len(layers) - 1; i >= 0; i-- {
		if len(layers[i].URLs) > 0 {
			continue // not held by registries; release images have none
		}
		one, err := readLayer(ctx, f, layers[i], left)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", layers[i].Digest, err)
		}
		all.below(one)
		if all.references != nil && all.metadata != nil {
			return all, nil
		}
	}
	if all.references == nil && all.metadata == nil {
		return nil, fmt.Errorf("%w: no layer of it has image-references or release-metadata in %s", ErrNotRelease, manifestDir)
	}
	missing := "image-references"
	if all.references != nil {
		missing = "release-metadata"
	}
	return nil, fmt.Errorf("%w: no %s in %s of any layer", ErrPayload, missing, manifestDir)
}

// below adds what a lower layer holds.
func (a *found) below(b *found) {
	if a.references == nil {
		a.references = b.references
	}
	if a.metadata == nil {
		a.metadata = b.metadata
	}
	have := map[string]bool{}
	for _, m := range a.manifests {
		have[m.Name] = true
	}
	for _, m := range b.manifests {
		if !have[m.Name] {
			a.manifests = append(a.manifests, m)
		}
	}
}

// readLayer reads one layer to its end: its files are returned only after its digest has been
// found right.
func readLayer(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor, left *budget) (out *found, err error) {
	err = openLayer(ctx, f, desc, func(r *bufio.Reader) error {
		out, err = scanLayer(r, desc.Size, left)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// openLayer lets scan read a layer, and then reads it to its end: what scan was given is what
// the digest names only if openLayer returns nil.
func openLayer(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor, scan func(*bufio.Reader) error) error {
	if desc.Size > maxLayer {
		return fmt.Errorf("%w: %d bytes, at most %d are read", ErrPayload, desc.Size, int64(maxLayer))
	}
	rc, err := f.Fetch(ctx, desc, 0)
	if err != nil {
		return err
	}
	defer rc.Close()
	verified, err := content.NewReader(rc, desc)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPayload, err)
	}
	source := &sourceReader{ctx: ctx, r: verified}
	err = scan(bufio.NewReaderSize(source, 64<<10))
	// Whatever the scan says: if the bytes are not the right ones, that is the news.
	if _, drain := io.Copy(io.Discard, source); drain != nil && source.err == nil {
		source.err = drain
	}
	if source.err != nil {
		return source.err
	}
	return err
}

// sourceReader remembers how the source failed, whatever a decompressor makes of it.
type sourceReader struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if err := s.ctx.Err(); err != nil {
		s.err = err
		return 0, err
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// scanLayer reads the tar in r, compressed or not, of size bytes as it is. Errors that are not
// of the source wrap [ErrPayload].
func scanLayer(r *bufio.Reader, size int64, left *budget) (*found, error) {
	out := &found{}
	err := scanTar(r, size, left, func(h *tar.Header, t io.Reader) error {
		if name, ok := manifestName(h); ok {
			if err := out.take(name, h.Size, t); err != nil {
				return fmt.Errorf("%s%s: %w", manifestDir, name, err)
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrPayload) {
		err = fmt.Errorf("%w: %w", ErrPayload, err)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// scanTar calls fn with every entry of the tar in r, compressed or not, of size bytes as it is.
func scanTar(r *bufio.Reader, size int64, left *budget, fn func(*tar.Header, io.Reader) error) error {
	plain, done, err := inflate(r)
	if err != nil {
		return err
	}
	defer done()
	limited := &limitReader{r: plain, left: left, ratio: ratioFree + size*ratio}
	t := tar.NewReader(limited)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("tar: %w", err)
		}
		if left.entries--; left.entries < 0 {
			return fmt.Errorf("%w: more than %d files", ErrPayload, maxEntries)
		}
		if err := fn(h, t); err != nil {
			return err
		}
	}
	// The compressor's own checksum stands behind the end of the archive.
	_, err = io.Copy(io.Discard, limited)
	return err
}

// Lengths are compared apart: a rule that counts to hundreds takes a millisecond to compile,
// at the start of every command.
var fileRule = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

func validFile(name string) bool { return len(name) <= 255 && fileRule.MatchString(name) }

// manifestName returns the name of a regular file that lies in release-manifests itself.
// Names that hold anything unusual, or a further folder, are not such.
func manifestName(h *tar.Header) (string, bool) {
	if h.Typeflag != tar.TypeReg {
		return "", false
	}
	name := h.Name
	for strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") {
		name = strings.TrimPrefix(strings.TrimPrefix(name, "/"), "./")
	}
	name, ok := strings.CutPrefix(name, manifestDir)
	return name, ok && validFile(name)
}

// take reads one file, if it is one that matters.
func (a *found) take(name string, size int64, r io.Reader) error {
	if size > maxFile {
		return fmt.Errorf("%w: %d bytes, at most %d are read", ErrPayload, size, maxFile)
	}
	switch name {
	case "image-references":
		return once(&a.references, size, r)
	case "release-metadata":
		return once(&a.metadata, size, r)
	}
	ext := name[strings.LastIndexByte(name, '.')+1:]
	if ext != "yaml" && ext != "yml" && ext != "json" || size > objects.MaxDocument {
		return nil
	}
	data, err := readFile(size, r)
	if err != nil {
		return err
	}
	if !trustRule.Match(data) {
		return nil
	}
	for _, m := range a.manifests {
		if m.Name == name {
			return nil // first sight wins
		}
	}
	a.trustSize += len(data)
	if len(a.manifests) >= maxTrust || a.trustSize > maxTrustSize {
		return fmt.Errorf("%w: too many manifests with keys and policies", ErrPayload)
	}
	a.manifests = append(a.manifests, File{Name: name, Data: data})
	return nil
}

// once reads a file that must not stand twice in a layer with different contents: one tool
// would take the first, another the last.
func once(to *[]byte, size int64, r io.Reader) error {
	data, err := readFile(size, r)
	if err != nil {
		return err
	}
	if *to != nil && !bytes.Equal(*to, data) {
		return fmt.Errorf("%w: it stands twice in one layer, with different contents", ErrPayload)
	}
	*to = data
	return nil
}

// readFile reads size bytes, which a header claims, without believing them before they came.
func readFile(size int64, r io.Reader) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(size, 1<<20)))
	n, err := io.Copy(&b, io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	if n != size {
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrPayload, n, size)
	}
	if b.Len() == 0 {
		return []byte{}, nil
	}
	return b.Bytes(), nil
}
