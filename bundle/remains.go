package bundle

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// layoutMarker is the text of oci-layout.
const layoutMarker = `{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`

// signs are what tells a file of ours in the root from one of the same name that somebody else
// wrote.
var signs = map[string]string{
	fileStart:     startSign,
	fileSums:      "  " + dirOwn + "/",
	fileIndexJSON: `"application/vnd.pannier.`,
}

// remains reports whether dir holds what a power cut leaves of a bundle on a drive that calls
// durable what is not: the folder pannier is lost, and of the rest some is there, in part. It
// must be nothing but files of a bundle's root and blobs, with one sign at least that they are
// ours; without a sign, nothing that anybody could miss.
func remains(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	signed, hollow, found := false, true, false
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".new")
		switch {
		case SystemFile(e.Name()):
			continue
		case e.Name() == "blobs" && e.IsDir():
			ours, empty, err := onlyBlobs(filepath.Join(dir, "blobs"))
			if err != nil || !ours {
				return false, err
			}
			hollow = hollow && empty
		case !e.Type().IsRegular():
			return false, nil
		case name == ocispec.ImageLayoutFile:
			// Another text than ours may be another's, or of a version that is not known here.
			raw, err := readStart(filepath.Join(dir, e.Name()), 4096)
			if err != nil {
				return false, err
			}
			found, hollow = true, hollow && strings.HasPrefix(layoutMarker, string(bytes.Trim(raw, "\x00")))
		case signs[name] != "":
			found = true
			sign, empty, err := looksOurs(filepath.Join(dir, e.Name()), signs[name])
			if err != nil {
				return false, err
			}
			// Nobody else has that name, and of lost bytes it is all that is left.
			signed = signed || sign || empty && name == fileStart
			hollow = hollow && empty
		default:
			return false, nil
		}
	}
	return found && (signed || hollow), nil
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

// looksOurs looks for a sign in a file, and reports whether there is nothing in it but zeros.
func looksOurs(name, sign string) (ours, hollow bool, err error) {
	raw, err := readStart(name, maxIndexJSON)
	if err != nil {
		return false, false, err
	}
	return bytes.Contains(raw, []byte(sign)), len(bytes.Trim(raw, "\x00")) == 0, nil
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
