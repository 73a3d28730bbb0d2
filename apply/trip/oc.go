package trip

import (
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/release/sample"
	"pannier/verify/signature/sign"
)

// OCOptions say how a folder of oc is written; see [sample.OCOptions].
type OCOptions struct {
	Windows, Old bool
	Unsigned     bool // no signatures in config
	Ext          string
}

// OC writes what oc adm release mirror --to-dir writes for releases, signed with [Key], and
// returns the folder.
func OC(tb testing.TB, o OCOptions, releases ...*sample.Release) string {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "mirror")
	opts := sample.OCOptions{Windows: o.Windows, Old: o.Old, Ext: o.Ext}
	if !o.Unsigned {
		opts.Signature = func(d digest.Digest) []byte {
			for _, r := range releases {
				if r.Descriptor.Digest == d {
					return Key().Message(sign.Payload(d, r.Reference()), signedAt)
				}
			}
			return nil
		}
	}
	if err := sample.WriteOC(dir, opts, releases...); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// Folders of what oc writes, below its folder.
const (
	OCBlobs     = sample.OCBlobs
	OCManifests = sample.OCManifests
)

// OCBlob is the path of a blob in a folder of oc.
func OCBlob(dir string, d digest.Digest) string { return filepath.Join(dir, OCBlobs, d.String()) }

// OCTag is the path of a tag, or of a manifest by its digest, in a folder of oc.
func OCTag(dir, tag string) string { return filepath.Join(dir, OCManifests, tag) }
