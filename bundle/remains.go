package bundle

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// layoutMarker is the text of oci-layout.
const layoutMarker = `{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`

// ownSums is a line of every SHA256SUMS of ours.
var ownSums = regexp.MustCompile(`(?m)^[0-9a-f]{64}  ` + dirOwn + `/index-[0-9]+\.db$`)

// left is what stands in a root that has no folder pannier.
type left struct {
	files  map[string][]byte // of a bundle's root, by name, with or without ".new", as far as they have any byte but zeros
	hollow map[string]bool   // those of which nothing is left but zeros
	blobs  bool              // there are blobs
}

// remains reports whether dir holds what a power cut leaves of a bundle on a drive that calls
// durable what is not: the folder pannier is lost, and of the rest some is there, in part. It
// must be nothing but files of a bundle's root and blobs, with one that shows that they are
// ours; without that, nothing that anybody could miss.
func remains(dir string) (bool, error) {
	l, err := readLeft(dir)
	if l == nil || err != nil {
		return false, err
	}
	if shown, foreign := l.whose(); shown || foreign {
		return shown, nil
	}
	for name, raw := range l.files {
		if name != ocispec.ImageLayoutFile || !strings.HasPrefix(layoutMarker, string(bytes.Trim(raw, "\x00"))) {
			return false, nil
		}
	}
	// Of lost bytes the name is all that is left, and nobody else has that one.
	return l.hollow[fileStart] || !l.blobs && len(l.files)+len(l.hollow) > 0, nil
}

// readLeft reads what is left of a root; nil if somebody else's things stand there.
func readLeft(dir string) (*left, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	l := &left{files: map[string][]byte{}, hollow: map[string]bool{}}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".new")
		switch {
		case SystemFile(e.Name()):
			continue
		case e.Name() == "blobs" && e.IsDir():
			ours, empty, err := onlyBlobs(filepath.Join(dir, "blobs"))
			if err != nil || !ours {
				return nil, err
			}
			l.blobs = !empty
			continue
		case !e.Type().IsRegular() || name != ocispec.ImageLayoutFile && name != fileStart && name != fileSums && name != fileIndexJSON:
			return nil, nil
		}
		raw, err := readStart(filepath.Join(dir, e.Name()), maxIndexJSON)
		if err != nil {
			return nil, err
		}
		switch {
		case len(bytes.Trim(raw, "\x00")) == 0, name == fileStart && bytes.IndexByte(raw, 0) >= 0:
			l.hollow[name] = true // a text with zeros in it has lost bytes, its first ones too
		case l.files[name] == nil || name == e.Name():
			l.files[name] = raw
		}
	}
	return l, nil
}

// whose reports whether what is left is surely ours, or surely somebody else's.
func (l *left) whose() (ours, foreign bool) {
	sums := ownSums.Match(l.files[fileSums])
	start := bytes.Contains(l.files[fileStart], []byte(startSign))
	idx, err := parseIndex(l.files[fileIndexJSON])
	if err != nil {
		return sums || start, false
	}
	line := fmt.Sprintf("%s  %s\n", digest.FromBytes(l.files[fileIndexJSON]).Encoded(), fileIndexJSON)
	ours = writesLike(idx) || sums && bytes.Contains(l.files[fileSums], []byte(line)) ||
		start && bytes.Contains(l.files[fileStart], []byte("Bundle "+ID(idx)))
	return ours, !ours
}

// writesLike reports whether a layout index has what only pannier writes: artifacts of ours
// without a name, that of a release beside the image that it is of.
func writesLike(idx *ocispec.Index) bool {
	versions, named := map[string]bool{}, map[string]bool{}
	parts := 0
	for _, d := range idx.Manifests {
		tag := d.Annotations[ocispec.AnnotationRefName]
		switch {
		case tag != "":
			if m := ofRelease.FindStringSubmatch(tag); m != nil && m[1] == tag {
				named[tag[:strings.LastIndex(tag, "-")]] = true
			}
		case d.ArtifactType == ArtifactRelease:
			versions[d.Annotations[ocispec.AnnotationVersion]] = true
		case d.ArtifactType == ArtifactSupplement || d.ArtifactType == ArtifactPresumes:
			parts++
		default:
			return false
		}
	}
	for v := range versions {
		if !named[v] {
			return false
		}
	}
	return len(versions)+parts > 0
}

// onlyBlobs reports whether a folder holds blobs by their digests and nothing else, and
// whether it holds none.
func onlyBlobs(dir string) (ours, empty bool, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, false, err
	}
	for _, e := range entries {
		if !SystemFile(e.Name()) && (e.Name() != "sha256" || !e.IsDir()) {
			return false, false, nil
		}
	}
	entries, err = os.ReadDir(filepath.Join(dir, "sha256"))
	if os.IsNotExist(err) {
		return true, true, nil
	}
	if err != nil {
		return false, false, err
	}
	empty = true
	for _, e := range entries {
		if SystemFile(e.Name()) {
			continue
		}
		if !e.Type().IsRegular() || content.CheckDigest(digest.NewDigestFromEncoded(digest.SHA256, e.Name())) != nil {
			return false, false, nil
		}
		empty = false
	}
	return true, empty, nil
}

// readStart reads at most limit bytes of a file.
func readStart(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
