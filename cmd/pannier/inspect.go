package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/verify"
	"pannier/verify/custody"
)

type inspectFlags struct {
	logFlags
	trustFlags
	outputFlags
	fromDir cli.StringSlice
	images  bool
}

func (s *session) inspectCommand() *cli.Command {
	f := &inspectFlags{}
	flags := []cli.Flag{
		&cli.StringSliceFlag{Name: "from-dir", Destination: &f.fromDir, Usage: "`MEDIA`, for those who are used to oc"},
		&cli.BoolFlag{Name: "images", Destination: &f.images, Usage: "list every image of every release (JSON always does)"},
		f.keyFlag(),
	}
	flags = append(flags, f.outputFlags.flags("`FORMAT` of stdout: text (default) or json")...)
	flags = append(flags, f.logFlags.flags()...)
	return &cli.Command{
		Name: "inspect", Usage: "what is on this drive", ArgsUsage: "MEDIA",
		Description: "Tells what the drive says of itself; only its small files are read. Exit code 3 if packing\n" +
			"has not finished. \"pannier audit\" proves what is told here.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.inspect(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) inspect(ctx context.Context, f *inspectFlags, args []string) error {
	asJSON, err := f.json(s.command)
	if err != nil {
		return err
	}
	opts := verify.InspectOptions{Cache: s.cacheDir()}
	if opts.Media, err = s.oneMedia(append(f.fromDir.Value(), args...)); err != nil {
		return err
	}
	if err := s.start(&f.logFlags, nil); err != nil {
		return err
	}
	opts.Logger = s.log
	verifier, err := f.verifier(s)
	if err != nil {
		return err
	}
	opts.Signatures = verifier

	found, damage := verify.Inspect(ctx, opts)
	if found == nil {
		return damage
	}
	if asJSON {
		err = s.console.json(inspectionDocument(found))
	} else {
		err = s.printInspection(opts.Media, found, f.images)
	}
	if err == nil {
		err = damage
	}
	if err == nil && !found.Sealed && (found.Lacking || !found.Directory) {
		err = &codedError{code: exitIncomplete, is: bundle.ErrUnsealed}
	}
	return err
}

// inspectionDocument makes empty lists of absent ones.
func inspectionDocument(in *verify.Inspection) *verify.Inspection {
	doc := *in
	doc.Releases = append([]verify.InspectedRelease{}, in.Releases...)
	for i := range doc.Releases {
		if doc.Releases[i].Images == nil {
			doc.Releases[i].Images = []verify.InspectedImage{}
		}
	}
	if doc.AdditionalImages == nil {
		doc.AdditionalImages = []verify.AdditionalImage{}
	}
	return &doc
}

func (s *session) printInspection(media string, in *verify.Inspection, images bool) error {
	var err error
	say := func(format string, args ...any) {
		if err == nil {
			err = s.console.print(format, args...)
		}
	}
	for _, rel := range in.Releases {
		say("OpenShift %s for %s\n%s\n", rel.Version, rel.Arch, trusted(table(releaseRows(rel, in.Directory))))
		if images {
			var rows [][]string
			for _, img := range rel.Images {
				rows = append(rows, []string{"  " + img.Name, img.Digest, content.SizeText(img.Bytes)})
			}
			say("%s\n", trusted(table(rows)))
		}
	}
	if len(in.AdditionalImages) > 0 {
		var rows [][]string
		for _, img := range in.AdditionalImages {
			rows = append(rows, []string{img.Reference, img.Digest})
		}
		say("Additional images\n%s\n", trusted(table(rows)))
	}
	for _, t := range in.Tools {
		say("the program pannier for %s, its SHA-256 to be compared with what the sender says another way\n  %s\n  %s\n", t.Platform, t.Path, t.Digest.Encoded())
	}
	if in.Custody == nil { // of a folder that oc wrote
		in.Custody = &custody.State{}
	}
	for _, f := range in.Custody.Attached {
		state := ""
		if !f.Whole {
			state = "  NOT AS IT WAS ATTACHED"
		}
		say("attached, as claimed by the sender: %s\n  %s%s\n", f.As, f.Path, state)
	}
	for _, p := range in.Custody.Problems {
		say("note: custody log: %s\n", p)
	}
	if in.Supplement {
		say("This is a supplement: it holds pieces that another drive has lost, and no release.\n")
	}
	for _, n := range in.Notes {
		say("note: %s\n", n)
	}
	say("%s\n%s\n", media, trusted(table(driveRows(in))))
	return err
}

// driveRows tells of the drive as a whole.
func driveRows(in *verify.Inspection) [][]string {
	blobs := fmt.Sprintf("%d, %s", in.Blobs.Count, content.SizeText(in.Blobs.Bytes))
	if in.Blobs.Partial > 0 {
		blobs += fmt.Sprintf(", %d partial", in.Blobs.Partial)
	}
	rows := [][]string{{"blobs", blobs}, {"state", sealText(in)}}
	if p := in.Presumes; p != nil {
		rows = append(rows, []string{"presumes", fmt.Sprintf("%s, %s, at %s; they are not on the drive", content.Plural(p.Blobs, "blob", "blobs"), content.SizeText(p.Bytes), strings.Join(p.At, ", "))})
	}
	if in.BundleID != "" {
		rows = append(rows, []string{"bundle", in.BundleID})
	}
	if in.Custody.Lines > 0 {
		rows = append(rows, []string{"custody log", fmt.Sprintf("%s; %s", content.Plural(in.Custody.Lines, "line", "lines"), in.Custody.Vouched)})
	}
	return rows
}

// sealText says whether packing finished, and what to do if it did not.
func sealText(in *verify.Inspection) string {
	switch {
	case in.Directory:
		return "written by oc adm release mirror, which seals nothing: pannier audit reads all of it"
	case !in.Sealed && in.Generation > 0:
		var sealed []string
		for _, rel := range in.Releases {
			sealed = append(sealed, release.Tag(rel.Version, rel.Arch))
		}
		return strings.Join(sealed, ", ") + " sealed and usable; a later pack did not finish: the same pack command continues it, pannier audit --repair --drop-unfinished MEDIA gives it up"
	case in.SealLost:
		return "NOT SEALED: the seal is lost, and what it covered is known; pannier audit --repair MEDIA puts it back"
	case !in.Sealed:
		return "NOT SEALED: run the same pack command again on the internet side to finish"
	}
	return "sealed: packing finished"
}

func releaseRows(rel verify.InspectedRelease, directory bool) [][]string {
	rows := [][]string{{"digest", rel.Digest}}
	origins := [][2]string{
		{"in its payload", rel.Digests.Payload},
		{"in its signature", rel.Digests.Signature},
		{"in release.txt", rel.Digests.ReleaseTxt},
	}
	for _, o := range origins {
		switch {
		case o[1] == "":
		case o[1] == rel.Digest:
			rows = append(rows, []string{"  " + o[0], "the same"})
		default:
			rows = append(rows, []string{"  " + o[0], o[1] + "  DISAGREES"})
		}
	}
	signature := fmt.Sprintf("%s (%d on the drive)", rel.Signature, rel.Signatures)
	if rel.Key != "" {
		signature += ", by " + rel.Key
	}
	if rel.Signature == bundle.SignatureUnverified {
		signature += " (its key is not known here: --keyring FILE)"
	}
	source := rel.Source
	if directory {
		source += " (supposed: the folder does not say)"
	}
	rows = append(rows,
		[]string{"signature", signature},
		[]string{"source", source})
	if !rel.Created.IsZero() {
		rows = append(rows, []string{"created", rel.Created.UTC().Format(time.DateTime) + " UTC"})
	}
	rows = append(rows, []string{"images", fmt.Sprintf("%d, %s", len(rel.Images), content.SizeText(rel.Bytes))})
	if len(rel.Clients) > 0 {
		rows = append(rows, []string{"clients for", strings.Join(rel.Clients, ", ")})
	}
	for _, u := range rel.Updates {
		rows = append(rows, []string{"update from", u.From + ", on a path that was packed"})
		for _, r := range u.Risks {
			rows = append(rows, []string{"  conditional", riskText(r)})
		}
	}
	if !rel.Sealed && !directory {
		rows = append(rows, []string{"state", "NOT SEALED"})
	}
	return rows
}
