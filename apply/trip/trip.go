// Package trip takes sample releases on whole trips, for tests: it signs them, serves them
// from a registry in the process, packs them onto a drive, audits it and unpacks it into
// another registry. Every part is the real one. It stands in the top layer because a trip
// needs all the others; only tests import it.
package trip

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"pannier/apply"
	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/bundle/release/sample/olareg"
	"pannier/bundle/remote"
	"pannier/verify"
	"pannier/verify/signature"
	"pannier/verify/signature/sign"
)

// Key is the key that signs every release of a test process.
var Key = sync.OnceValue(func() *sign.Key { return must(sign.NewKey(sign.KeyOptions{})) })

// Stranger is another key, which nobody trusts.
var Stranger = sync.OnceValue(func() *sign.Key { return must(sign.NewKey(sign.KeyOptions{Name: "stranger"})) })

// Cosign makes sigstore signatures.
var Cosign = sync.OnceValue(func() *sign.CosignKey { return must(sign.NewECDSA()) })

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Verifier trusts keys, and nothing else.
func Verifier(tb testing.TB, keys ...*sign.Key) *signature.Verifier {
	tb.Helper()
	ring := signature.NewKeyring()
	for _, k := range keys {
		if err := ring.AddTrusted("release-key.asc", k.Public()); err != nil {
			tb.Fatal(err)
		}
	}
	return &signature.Verifier{Keyring: ring}
}

var trusting = sync.OnceValue(func() *signature.Verifier {
	ring := signature.NewKeyring()
	if err := ring.AddTrusted("release-key.asc", Key().Public()); err != nil {
		panic(err)
	}
	return &signature.Verifier{Keyring: ring}
})

// Make makes a sample release.
func Make(tb testing.TB, o sample.Options) *sample.Release {
	tb.Helper()
	r, err := sample.Make(o)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// Small is a release of as little as a release can be: three components.
func Small(tb testing.TB, version string) *sample.Release {
	tb.Helper()
	return Make(tb, sample.Options{Version: version, Components: 3, LayerSize: 1 << 10})
}

// AddSigstore puts a sigstore signature image beside an image of r, before r is served.
func AddSigstore(tb testing.TB, r *sample.Release, repository string, subject digest.Digest) *sign.SigImage {
	tb.Helper()
	s, err := Cosign().Sign(subject, repository)
	if err != nil {
		tb.Fatal(err)
	}
	var blobs [][]byte
	for _, b := range s.Blobs() {
		blobs = append(blobs, b)
	}
	r.AddManifest(repository, s.Tag, s.Descriptor.MediaType, s.Manifest, blobs...)
	return s
}

// Origin is the internet side: a registry that stands for quay.io, and a signature store.
type Origin struct {
	tb       testing.TB
	Registry *sample.Registry
	Log      *Log
	Store    string // folder of signatures
	Cache    string
	Verifier *signature.Verifier
}

// NewOrigin signs releases with [Key] and serves them.
func NewOrigin(tb testing.TB, releases ...*sample.Release) *Origin {
	tb.Helper()
	o := &Origin{tb: tb, Log: &Log{}, Store: tb.TempDir(), Cache: tb.TempDir(), Verifier: Verifier(tb, Key())}
	for _, r := range releases {
		o.Sign(Key(), r)
	}
	var err error
	if o.Registry, err = olareg.Serve(olareg.Options{Wrap: o.Log.Wrap}, releases...); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { o.Registry.Close() })
	return o
}

// Sign puts a signature of r by key into the store, in place of any other.
func (o *Origin) Sign(key *sign.Key, r *sample.Release) {
	o.tb.Helper()
	o.PutSignature(r.Descriptor.Digest, key.Message(sign.Payload(r.Descriptor.Digest, r.Reference()), signedAt))
}

// signedAt makes equal signatures of equal releases, wherever they are made.
var signedAt = sign.Options{Created: time.Unix(1_700_000_000, 0)}

// PutSignature makes message the one signature of d in the store; nil removes it.
func (o *Origin) PutSignature(d digest.Digest, message []byte) {
	o.tb.Helper()
	dir := filepath.Join(o.Store, "sha256="+d.Encoded())
	if err := os.RemoveAll(dir); err != nil {
		o.tb.Fatal(err)
	}
	if message == nil {
		return
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		o.tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "signature-1"), message, 0o644); err != nil {
		o.tb.Fatal(err)
	}
}

// Client reaches the origin; it gives up soon.
func (o *Origin) Client() *remote.Client {
	o.tb.Helper()
	c, err := remote.New(remote.Options{
		Mirrors:     []remote.Mirror{{From: "quay.io", To: o.Registry.Host}},
		GiveUpAfter: 20 * time.Second,
	})
	if err != nil {
		o.tb.Fatal(err)
	}
	return c
}

// Options are those of a pack of refs, each a release as on the command line.
func (o *Origin) Options(media string, refs ...string) bundle.PackOptions {
	o.tb.Helper()
	opts := bundle.PackOptions{
		Media: media, Client: o.Client(), Signatures: o.Verifier, Stores: []string{o.Store},
		Cache: o.Cache, Program: "pannier test",
	}
	for _, text := range refs {
		ref, err := release.ParseReference(text, release.Defaults{})
		if err != nil {
			o.tb.Fatal(err)
		}
		opts.Releases = append(opts.Releases, ref)
	}
	return opts
}

// Mirror are the options of what is mirrored from the origin: refs, as for [Origin.Options].
func (o *Origin) Mirror(refs ...string) bundle.ResolveOptions {
	o.tb.Helper()
	p := o.Options("", refs...)
	return bundle.ResolveOptions{Releases: p.Releases, Client: p.Client, Signatures: p.Signatures, Stores: p.Stores}
}

// Pack packs refs onto media, which must succeed.
func (o *Origin) Pack(media string, refs ...string) *bundle.PackResult {
	o.tb.Helper()
	return Pack(o.tb, o.Options(media, refs...))
}

// Pack packs, which must succeed, with a seal.
func Pack(tb testing.TB, opts bundle.PackOptions) *bundle.PackResult {
	tb.Helper()
	res, err := bundle.Pack(tb.Context(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	if !opts.DryRun && !res.Sealed {
		tb.Fatal("pack returned no error and no seal")
	}
	return res
}

// Drive returns a folder for a bundle, not there yet.
func Drive(tb testing.TB) string { return filepath.Join(tb.TempDir(), "drive") }

// Image parses the reference of an additional image.
func Image(tb testing.TB, text string) release.Reference {
	tb.Helper()
	ref, err := release.ParseImageReference(text)
	if err != nil {
		tb.Fatal(err)
	}
	return ref
}

// Audit audits media with the key of this process.
func Audit(tb testing.TB, media string) *verify.Report {
	tb.Helper()
	cache := filepath.Join(filepath.Dir(media), "cache")
	r, err := verify.Audit(context.WithoutCancel(tb.Context()), verify.AuditOptions{Media: media, Signatures: trusting(), Cache: cache})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// Whole fails unless media is sealed, whole and signed.
func Whole(tb testing.TB, media string) *verify.Report {
	tb.Helper()
	r := Audit(tb, media)
	if r.Status != verify.StatusComplete || len(r.Findings) > 0 {
		tb.Errorf("audit: %s: %+v", r.Status, r.Findings)
	}
	return r
}

// WholeAtEnd is [Whole] when the test is over.
func WholeAtEnd(tb testing.TB, media string) {
	tb.Helper()
	tb.Cleanup(func() {
		if !tb.Failed() {
			Whole(tb, media)
		}
	})
}

// Site is the disconnected side: a registry.
type Site struct {
	tb       testing.TB
	Registry *sample.Registry
	Log      *Log
	Cache    string
}

// Repository is where a [Site] keeps releases.
const Repository = "ocp4/openshift4"

// NewSite serves an empty registry, or one that has releases.
func NewSite(tb testing.TB, releases ...*sample.Release) *Site {
	tb.Helper()
	s := &Site{tb: tb, Log: &Log{}, Cache: tb.TempDir()}
	var err error
	if s.Registry, err = olareg.Serve(olareg.Options{Wrap: s.Log.Wrap}, releases...); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Registry.Close() })
	return s
}

// Options are those of an unpack of drives into the site.
func (s *Site) Options(media ...string) apply.UnpackOptions {
	s.tb.Helper()
	c, err := remote.New(remote.Options{Confined: true, GiveUpAfter: 20 * time.Second})
	if err != nil {
		s.tb.Fatal(err)
	}
	return apply.UnpackOptions{
		Media: media, Destination: objects.Destination{Registry: s.Registry.Host, Repository: Repository},
		Client: c, Signatures: Verifier(s.tb, Key()), Cache: s.Cache,
	}
}

// Unpack unpacks drives into the site, which must succeed.
func (s *Site) Unpack(media ...string) *apply.UnpackResult {
	s.tb.Helper()
	res, err := apply.Unpack(s.tb.Context(), s.Options(media...))
	if err != nil {
		s.tb.Fatal(err)
	}
	return res
}

// State is a file as it stands in a folder.
type State struct {
	Mode fs.FileMode
	Size int64
	Time time.Time
	Sum  digest.Digest // of a regular file
}

// Tree describes everything below dir, by slash path.
func Tree(tb testing.TB, dir string) map[string]State {
	tb.Helper()
	out := map[string]State{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		s := State{Mode: fi.Mode(), Time: fi.ModTime()}
		if fi.Mode().IsRegular() {
			s.Size = fi.Size()
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			if s.Sum, err = digest.FromReader(f); err != nil {
				return err
			}
		}
		out[filepath.ToSlash(rel)] = s
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatal(err)
	}
	return out
}

// Copy copies a drive, so that many tests can damage what was packed once.
func Copy(tb testing.TB, dir string) string {
	tb.Helper()
	to := Drive(tb)
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		tb.Fatal(err)
	}
	return to
}

// Flip changes one bit of a file.
func Flip(tb testing.TB, path string, offset int64) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		tb.Fatal(err)
	}
	b[0] ^= 1 << (offset % 8)
	if _, err := f.WriteAt(b[:], offset); err != nil && err != io.EOF {
		tb.Fatal(err)
	}
}

// Blob is the path of a blob on a drive.
func Blob(media string, d digest.Digest) string {
	return filepath.Join(media, "blobs", "sha256", d.Encoded())
}
