package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"pannier/apply"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/objects"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/bundle/remote"
	"pannier/verify"
	"pannier/verify/signature"
	"pannier/verify/signature/sign"
)

func (s *session) demoCommand() *cli.Command {
	f := &logFlags{}
	return &cli.Command{
		Name: "demo", Usage: "the whole trip, embedded: no network, no cluster",
		Description: "Makes a small release, serves it from a registry inside this process, packs, audits,\n" +
			"damages and heals it, and unpacks it into a second registry. Everything really happens, in\n" +
			"a temporary folder that is removed. It takes a few seconds.",
		Flags:  f.flags(),
		Action: func(c *cli.Context) error { return s.demo(c.Context, f, c.Args().Slice()) },
	}
}

// demoRepository is where the demo unpacks to.
const demoRepository = "ocp4/openshift4"

// demo is the story and its props. Every step checks what it tells.
type demo struct {
	*session
	dir      string
	media    string
	source   *sample.Registry
	target   *sample.Registry
	release  *sample.Release
	verifier *signature.Verifier
	err      error // of printing
}

func (s *session) demo(ctx context.Context, f *logFlags, args []string) error {
	if len(args) > 0 {
		return usagef(s.command, "demo takes no arguments")
	}
	if err := s.start(f, nil); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pannier-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{session: s, dir: dir, media: filepath.Join(dir, "usb", "mirror")}
	begun := time.Now()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"make a release", d.make},
		{"pack", d.pack},
		{"audit", d.audit},
		{"damage", d.damage},
		{"unpack", d.unpack},
	} {
		if err := step.do(ctx); err != nil {
			d.closeAll()
			return fmt.Errorf("demo: %s: %w", step.name, err)
		}
	}
	d.closeAll()
	d.tell("Done in %.1f seconds. The real trip is the same three commands.\n", time.Since(begun).Seconds())
	return d.err
}

func (d *demo) closeAll() {
	for _, r := range []*sample.Registry{d.source, d.target} {
		if r != nil {
			r.Close()
		}
	}
}

// tell prints one piece of the story.
func (d *demo) tell(format string, args ...any) {
	if err := d.console.print(format, args...); err != nil && d.err == nil {
		d.err = err
	}
}

func (d *demo) make(context.Context) error {
	key, err := sign.NewKey(sign.KeyOptions{Name: "demo key, thrown away at the end <demo@example.com>"})
	if err != nil {
		return err
	}
	if d.release, err = sample.Make(sample.Options{Previous: []string{"4.8.20", "4.7.37"}}); err != nil {
		return err
	}
	message := key.Message(sign.Payload(d.release.Descriptor.Digest, d.release.Reference()), sign.Options{})
	store := filepath.Join(d.dir, "signatures", "sha256="+d.release.Descriptor.Digest.Encoded())
	if err := os.MkdirAll(store, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(store, "signature-1"), message, 0o644); err != nil {
		return err
	}
	ring := signature.NewKeyring()
	if err := ring.AddTrusted("demo-key.asc", key.Public()); err != nil {
		return err
	}
	d.verifier = &signature.Verifier{Keyring: ring, Logger: d.log}
	if d.source, err = sample.Serve(sample.RegistryOptions{}, d.release); err != nil {
		return err
	}
	if d.target, err = sample.Serve(sample.RegistryOptions{}); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Dir(d.media), 0o755); err != nil {
		return err
	}
	d.tell("A registry in this process plays quay.io. It holds OpenShift %s for %s: %d images,\n%d blobs and manifests, %s; the release is %s,\nsigned with a key that is thrown away at the end.\n\n",
		d.release.Version, d.release.Arch, len(d.release.Components)+1, len(d.release.Digests()), content.SizeText(d.release.Size()), d.release.Descriptor.Digest)
	return nil
}

func (d *demo) client(confined bool) (*remote.Client, error) {
	return remote.New(remote.Options{
		Mirrors: []remote.Mirror{{From: "quay.io", To: d.source.Host}}, Confined: confined, Logger: d.log, GiveUpAfter: 10 * time.Second,
	})
}

func (d *demo) pack(ctx context.Context) error {
	d.tell("$ pannier pack %s %s\n", d.release.Version, d.shown())
	ref, err := release.ParseReference(d.release.Version, release.Defaults{})
	if err != nil {
		return err
	}
	client, err := d.client(false)
	if err != nil {
		return err
	}
	opts := bundle.PackOptions{
		Releases: []release.Reference{ref}, Media: d.media, Client: client, Signatures: d.verifier,
		Stores: []string{filepath.Join(d.dir, "signatures")}, Cache: filepath.Join(d.dir, "cache"), Program: "pannier demo", Logger: d.log,
	}
	r, err := bundle.Pack(ctx, opts)
	if err != nil {
		return err
	}
	switch {
	case !r.Sealed:
		return fmt.Errorf("the drive is %w", bundle.ErrUnsealed)
	case len(r.Releases) != 1 || r.Releases[0].Signature.Status != bundle.SignatureVerified:
		return fmt.Errorf("the signature was not verified")
	case r.Releases[0].Digest != d.release.Descriptor.Digest.String():
		return fmt.Errorf("packed %s", r.Releases[0].Digest)
	}
	d.tell("  %s fetched, signature %s;\n  %d blobs and manifests read back from the drive; sealed.\n", content.SizeText(r.Moved), signatureText(r.Releases[0].Signature), r.ReadBack.Blobs)
	again, err := bundle.Pack(ctx, opts)
	if err != nil {
		return err
	}
	if !again.Unchanged || again.Moved != 0 {
		return fmt.Errorf("packing again moved %d bytes", again.Moved)
	}
	d.tell("  The same command again: nothing to do.\n\n")
	return nil
}

// shown is the drive's name in the story.
func (d *demo) shown() string { return "usb/mirror" }

func (d *demo) report(ctx context.Context) (*verify.Report, error) {
	return verify.Audit(ctx, verify.AuditOptions{Media: d.media, Signatures: d.verifier, Cache: filepath.Join(d.dir, "cache"), Logger: d.log})
}

func (d *demo) audit(ctx context.Context) error {
	d.tell("$ pannier audit %s\n", d.shown())
	r, err := d.report(ctx)
	if err != nil {
		return err
	}
	if r.Status != verify.StatusComplete || len(r.Findings) > 0 {
		return fmt.Errorf("the drive that was just packed is %s: %v", r.Status, r.Findings)
	}
	d.tell("  %s: %d blobs hashed, %s, every manifest walked, signature %s.\n\n", statusWords[r.Status], r.Blobs.Count, content.SizeText(r.Blobs.Bytes), r.Releases[0].Signature)
	return nil
}

// damage flips a bit of a layer, as a tired drive does, shows that it is found, and puts it
// right again.
func (d *demo) damage(ctx context.Context) error {
	name, victim, err := d.victim()
	if err != nil {
		return err
	}
	if err := flipBit(name); err != nil {
		return err
	}
	d.tell("Now one bit of the drive flips, in %s…\n$ pannier audit %s\n", filepath.ToSlash(layout.BlobPath(victim))[:24], d.shown())
	r, err := d.report(ctx)
	if err != nil {
		return err
	}
	if r.Status != verify.StatusDamaged || len(r.Findings) != 1 || r.Findings[0].Kind != verify.KindCorrupt || r.Findings[0].Digest != victim.String() {
		return fmt.Errorf("a flipped bit in %s was reported as %s: %v", victim, r.Status, r.Findings)
	}
	for _, line := range strings.Split(strings.TrimSpace(findingText(r.Findings[0])), "\n") {
		d.tell("  %s\n", line)
	}
	if err := flipBit(name); err != nil {
		return err
	}
	if r, err = d.report(ctx); err != nil {
		return err
	}
	if r.Status != verify.StatusComplete {
		return fmt.Errorf("with the bit put right the drive is %s: %v", r.Status, r.Findings)
	}
	d.tell("The bit is put right again: the drive is %s.\n\n", statusWords[r.Status])
	return nil
}

// victim is the largest blob of the release: some layer.
func (d *demo) victim() (file string, victim digest.Digest, err error) {
	var size int
	for _, candidate := range d.release.Digests() {
		if n := len(d.release.Blobs[candidate]); n > size {
			victim, size = candidate, n
		}
	}
	file = filepath.Join(d.media, filepath.FromSlash(layout.BlobPath(victim)))
	_, err = os.Stat(file)
	return file, victim, err
}

func flipBit(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return os.WriteFile(name, data, 0o644)
}

func (d *demo) unpack(ctx context.Context) error {
	dest := objects.Destination{Registry: d.target.Host, Repository: demoRepository}
	cluster := objects.Destination{Registry: "registry.example:5000", Repository: demoRepository}
	d.tell("The drive is carried to the other side, where a second registry waits, empty.\n$ pannier unpack %s %s --cluster-registry %s\n", d.shown(), dest, cluster)
	client, err := d.client(true)
	if err != nil {
		return err
	}
	r, err := apply.Unpack(ctx, apply.UnpackOptions{
		Media: []string{d.media}, Destination: dest, Cluster: &cluster, Client: client, Signatures: d.verifier,
		Cache: filepath.Join(d.dir, "cache"), Logger: d.log,
	})
	if err != nil {
		return err
	}
	if len(r.Releases) != 1 || !r.Releases[0].Complete {
		return fmt.Errorf("the release did not arrive")
	}
	if err := d.arrived(); err != nil {
		return err
	}
	for _, c := range r.Contacts {
		if c.Host != d.target.Host {
			return fmt.Errorf("%s was contacted", c.Host)
		}
	}
	d.tell("  %s, %s, verified while they passed and pushed; nobody but %s was asked.\n\nFor the cluster:\n", content.Plural(r.Pushed.Blobs, "blob", "blobs"), content.SizeText(r.Pushed.Bytes), d.target.Host)
	kinds := map[string]bool{}
	for _, o := range r.Objects {
		kinds[o.Kind] = true
		d.tell("---\n%s", trusted(document(o.YAML)))
	}
	if !kinds["ConfigMap"] || !kinds[string(objects.ICSP)] {
		return fmt.Errorf("objects are missing: there are %v", kinds)
	}
	d.tell("---\n\nAnd the update:\n$ oc adm upgrade --allow-explicit-upgrade --to-image %s\n\n", r.Releases[0].Image)
	return nil
}

// arrived compares the second registry with what was made, byte for byte.
func (d *demo) arrived() error {
	for _, placed := range d.release.Images {
		desc, raw, err := d.target.Manifest(demoRepository, placed.Descriptor.Digest.String())
		if err != nil {
			return err
		}
		if desc.Digest != placed.Descriptor.Digest || string(raw) != string(d.release.Blobs[placed.Descriptor.Digest]) {
			return fmt.Errorf("manifest %s arrived as %s", placed.Descriptor.Digest, desc.Digest)
		}
	}
	for _, want := range d.release.Digests() {
		if !d.target.Has(demoRepository, want) {
			return fmt.Errorf("blob %s did not arrive", want)
		}
	}
	desc, _, err := d.target.Manifest(demoRepository, release.Tag(d.release.Version, d.release.Arch))
	if err != nil {
		return err
	}
	if desc.Digest != d.release.Descriptor.Digest {
		return fmt.Errorf("the release tag names %s", desc.Digest)
	}
	return nil
}
