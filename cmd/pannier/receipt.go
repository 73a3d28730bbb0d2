package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"pannier/apply"
	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/objects"
	"pannier/bundle/remote"
	"pannier/verify/custody"
)

// checkReceipt checks --receipt before the work begins. Beside the receipt stands the custody
// log, unless another file is named for it.
func (s *session) checkReceipt(f *unpackFlags, opts *apply.UnpackOptions) error {
	if f.receipt == "" {
		return nil
	}
	if opts.DryRun {
		return usagef(s.command, "--receipt does not go with --dry-run, which writes nothing anywhere")
	}
	f.receipt = s.env.expandHome(f.receipt)
	if err := outside(f.receipt, opts.Media); err != nil {
		return usagef(s.command, "--receipt: %v", err)
	}
	if f.custody == "" {
		f.custody = f.receipt + ".custody.jsonl"
	}
	opts.Confirm = true // a receipt says what was seen
	return nil
}

// newReceipt is a receipt of now, by this program.
func newReceipt(kind string, registry objects.Destination) *custody.Receipt {
	return &custody.Receipt{
		Kind: kind, Format: 1, Time: time.Now().UTC().Truncate(time.Second), Registry: registry.String(),
		Program: "pannier " + buildVersion(), Commit: buildCommit(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}

// leaveReceipt writes the receipt of an unpack and continues the custody log beside the drives,
// also when something failed after the registry was asked: both tell of what was seen. failure
// is what came of the command, and is returned.
func (s *session) leaveReceipt(ctx context.Context, f *unpackFlags, p *pushing, r *apply.UnpackResult, failure error) error {
	if r == nil || p.opts.DryRun || f.receipt == "" && f.custody == "" {
		return failure
	}
	var entries []custody.Entry
	for _, media := range p.opts.Media {
		entry := p.evidence.entry(custody.Unpacked)
		entry.Outcome, entry.Detail = "finished", "to "+p.opts.Destination.String()
		if f.redact {
			entry.Detail = ""
		}
		if failure != nil {
			entry.Outcome = "not finished"
		}
		for _, rel := range r.Releases {
			entry.Releases = append(entry.Releases, custody.Release{Release: rel.Tag, Digest: rel.Digest, Signature: rel.Signature.Status})
		}
		if p.evidence.nameDrive(ctx, &entry, media) {
			entries = append(entries, entry)
		}
	}
	if f.receipt != "" {
		file, err := s.writeReceipt(ctx, f, p, r, entries)
		if err != nil {
			failure = errors.Join(failure, fmt.Errorf("--receipt: %w", err))
		}
		for i := range entries {
			entries[i].File = file
		}
	}
	p.evidence.recordBeside(entries...)
	return failure
}

// writeReceipt writes the receipt, and returns what the custody log says of it; nil if there is
// nothing to write.
func (s *session) writeReceipt(ctx context.Context, f *unpackFlags, p *pushing, r *apply.UnpackResult, drives []custody.Entry) (*custody.File, error) {
	if r.Held == nil {
		s.console.prose("%s is not written: it says what the registry was seen to hold once everything is pushed, and it did not come to that.", f.receipt)
		return nil, nil
	}
	receipt := newReceipt(custody.KindReceipt, p.opts.Destination)
	receipt.Repositories, receipt.Cluster = r.Held, s.clusterSeen(ctx, f, p)
	for _, d := range drives {
		receipt.Bundles = append(receipt.Bundles, custody.ReceiptBundle{Bundle: d.Bundle, Generation: d.Generation, Custody: d.Drive})
	}
	for _, rel := range r.Releases {
		receipt.Releases = append(receipt.Releases, custody.ReceiptRelease{
			Release: rel.Tag, Digest: digest.Digest(rel.Digest), Complete: rel.Complete, Signature: rel.Signature.Status})
	}
	raw, err := receipt.Encode(p.evidence.key)
	if err != nil {
		return nil, err
	}
	if err := replaceFile(f.receipt, raw); err != nil {
		return nil, err
	}
	s.sayReceipt(f.receipt, receipt, len(raw))
	return &custody.File{Digest: digest.FromBytes(raw), Size: int64(len(raw)), Name: filepath.Base(f.receipt), As: "receipt"}, nil
}

func (s *session) sayReceipt(name string, r *custody.Receipt, size int) {
	s.console.prose("%s (%s) names %s, that the registry holds. On the internet side: %s", name, content.SizeText(int64(size)), r.CountText(),
		commandLine("pannier", "pack", "RELEASE", "MEDIA", "--have", filepath.Base(name)))
}

// clusterSeen asks the cluster for its version, if one was named.
func (s *session) clusterSeen(ctx context.Context, f *unpackFlags, p *pushing) *custody.ReceiptCluster {
	var err error
	c := p.chain
	if c == nil {
		if f.kubeconfig == "" && f.context == "" {
			return nil
		}
		c = &chain{}
		c.cluster, err = f.clusterFlags.connect(s)
	}
	version := ""
	if err == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		version, err = c.cluster.Version(ctx)
	}
	if err != nil {
		s.console.warn("the receipt is without the cluster's version: %v", err)
		return nil
	}
	return &custody.ReceiptCluster{Version: version}
}

// holdings reads the files of pack --have.
func (s *session) holdings(f *packFlags) ([]bundle.Holdings, error) {
	names := f.have.Value()
	if f.signers != "" && len(names) == 0 {
		return nil, usagef(s.command, "--trusted-signers goes with --have: of a drive, audit asks for them")
	}
	trusted, err := s.trustedSigners(f.signers)
	if err != nil {
		return nil, err
	}
	var out []bundle.Holdings
	for _, name := range names {
		if err := s.env.checkNamed("--have", name); err != nil {
			return nil, usagef(s.command, "%v", err)
		}
		raw, err := readFile(s.env.expandHome(name), custody.MaxReceipt)
		if err != nil {
			return nil, err
		}
		r, signer, err := custody.ParseReceipt(raw)
		switch {
		case errors.Is(err, content.ErrInvalid):
			return nil, usagef(s.command, "--have %s: %v; it takes what \"pannier unpack --receipt FILE\" or \"pannier inventory\" wrote", name, err)
		case err != nil:
			return nil, fmt.Errorf("--have %s: %w", name, err)
		}
		by, ok := trusted.Name(signer, time.Now())
		switch {
		case trusted != nil && !ok && signer == nil:
			return nil, fmt.Errorf("--have %s: %w: nobody signed it", name, custody.ErrSignature)
		case trusted != nil && !ok:
			return nil, fmt.Errorf("--have %s: %w: nobody vouches for the key %s", name, custody.ErrSignature, signer.Fingerprint)
		case signer == nil:
			by = "nobody"
		case !ok:
			by = "the key " + signer.Fingerprint + ", which nobody vouches for"
		}
		s.console.prose("%s: %s holds %s, as of %s; signed by %s", name, r.Registry, r.CountText(), r.Time.UTC().Format(time.DateTime)+" UTC", by)
		out = append(out, r.Holdings())
	}
	return out, nil
}

type inventoryFlags struct {
	logFlags
	registryFlags
	progressFlags

	receipt string
	digests cli.StringSlice
	signKey string
}

func (s *session) inventoryCommand() *cli.Command {
	f := &inventoryFlags{}
	flags := []cli.Flag{
		&cli.StringFlag{Name: "receipt", Destination: &f.receipt, TakesFile: true, Usage: "write it to `FILE`; without it, to stdout"},
		&cli.StringSliceFlag{Name: "digest", Destination: &f.digests,
			Usage: "the `DIGEST` of a release or image in the first REGISTRY/REPO that no tag leads to; repeatable"},
		&cli.StringFlag{Name: "sign-key", Destination: &f.signKey, TakesFile: true,
			Usage: "sign it with the private SSH key in `FILE`, which has no passphrase"},
	}
	flags = append(flags, f.registryFlags.flags(defaultGiveUp)...)
	flags = append(flags, f.progressFlags.flags("questions at a time (default: 8)")...)
	flags = append(flags, f.logFlags.flags()...)
	return &cli.Command{
		Name: "inventory", Usage: "what a registry holds, for pack --have", ArgsUsage: "REGISTRY/REPO...",
		Description: "Asks a registry what it holds and writes that as a receipt is written, to be carried to the\n" +
			"internet side. A registry lists its tags and no more: what is found is what they lead to, and\n" +
			"what release images among that name. Manifests are read and hashed; of every blob the registry\n" +
			"is asked whether it is there. Nothing is changed anywhere. The first REGISTRY/REPO is the one\n" +
			"that releases are in; name those of additional images too.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.inventory(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) inventory(ctx context.Context, f *inventoryFlags, args []string) error {
	opts := apply.InventoryOptions{Jobs: f.jobs}
	if err := s.inventoryArguments(f, args, &opts); err != nil {
		return err
	}
	if err := s.start(&f.logFlags, &f.progressFlags); err != nil {
		return err
	}
	key, err := s.signKey(f.signKey)
	if err != nil {
		return err
	}
	reach, err := f.registryFlags.options(s)
	if err != nil {
		return err
	}
	reach.Confined = true
	if opts.Client, err = remote.New(reach); err != nil {
		return err
	}
	opts.Progress = s.progress.event
	result, err := apply.Inventory(ctx, opts)
	s.progress.finish(err)
	if err != nil {
		return err
	}
	s.warnAll(result.Warnings)
	receipt := newReceipt(custody.KindInventory, opts.Repositories[0])
	receipt.Repositories, receipt.Releases = result.Held, result.Releases
	raw, err := receipt.Encode(key)
	if err != nil {
		return err
	}
	s.sayInventory(receipt, result)
	if f.receipt == "" {
		_, err := s.console.stdout.Write(raw)
		return err
	}
	if err := replaceFile(f.receipt, raw); err != nil {
		return fmt.Errorf("--receipt: %w", err)
	}
	s.sayReceipt(f.receipt, receipt, len(raw))
	return nil
}

// inventoryArguments reads the arguments, flags and the environment.
func (s *session) inventoryArguments(f *inventoryFlags, args []string, opts *apply.InventoryOptions) error {
	for _, arg := range args {
		dest, err := parseDestination(s.command, "an argument", arg)
		if err != nil {
			return err
		}
		opts.Repositories = append(opts.Repositories, *dest)
	}
	if len(args) == 0 {
		dest, err := s.env.destination()
		if err != nil {
			return err
		}
		if dest == nil {
			return usagef(s.command, "REGISTRY/REPO is missing: name the registry and repository to ask, as registry.example:5000/ocp4/openshift4, or set LOCAL_REGISTRY and LOCAL_REPOSITORY")
		}
		opts.Repositories = []objects.Destination{*dest}
	}
	for _, text := range f.digests.Value() {
		d := digest.Digest(text)
		if err := content.CheckDigest(d); err != nil {
			return usagef(s.command, "--digest %s: it is written sha256: and 64 hex digits", text)
		}
		opts.Digests = append(opts.Digests, d)
	}
	if f.receipt == "" {
		return nil
	}
	f.receipt = s.env.expandHome(f.receipt)
	if err := outside(f.receipt, nil); err != nil {
		return usagef(s.command, "--receipt: %v", err)
	}
	return nil
}

func (s *session) sayInventory(r *custody.Receipt, result *apply.InventoryResult) {
	for _, rel := range r.Releases {
		state := "complete"
		if !rel.Complete {
			state = "NOT COMPLETE"
		}
		s.console.say("release %s, %s\n    %s", rel.Release, state, rel.Digest)
	}
	for _, h := range r.Repositories {
		s.console.say("%s holds %s", h.Repository, h.CountText())
	}
	if result.Missing > 0 {
		s.console.warn("%s named there and not there", content.Plural(result.Missing, "blob or manifest is", "blobs or manifests are"))
	}
	if result.Tags == 0 {
		s.console.warn("there is no tag in %s: is that its name?", r.Registry)
		return
	}
	s.console.prose("This is what %s to; what no tag leads to is not known.", content.Plural(result.Tags, "tag leads", "tags lead"))
}
