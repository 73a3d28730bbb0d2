package main

import (
	"fmt"
	"slices"
	"strings"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/objects"
)

func (s *session) printPack(f *packFlags, opts bundle.PackOptions, r *bundle.PackResult, asJSON bool, failure error) error {
	switch {
	case failure != nil && (!opts.DryRun || r.Plan.Tags == nil):
		return nil
	case asJSON:
		return s.printPlanJSON(r.Plan, nil)
	case opts.DryRun:
		return s.printPlan(r.Plan, "would be "+moved(opts), "free on the drive")
	}
	if err := s.printObjects(r.Plan.Objects, "for "+destinationText(opts.Destination)); err != nil {
		return err
	}

	s.sayPacked(opts, r)
	if !r.Sealed {
		return fmt.Errorf("the drive is %w", bundle.ErrUnsealed)
	}
	c := s.console
	if r.Unchanged {
		c.prose("Everything was there already; nothing was written. What the seal covers was not read again: %s proves it.",
			commandLine("pannier", "audit", opts.Media))
	}
	if inMemory(r) {
		c.prose("The bundle is sealed.")
		c.warn("%s is in this computer's memory (tmpfs), on no drive: it is gone after power off. Copy the folder to a drive, or mount the drive and pack again.", opts.Media)
	} else if r.SameDisk {
		c.prose("The bundle is sealed and flushed.")
		c.warn("%s is on the system's own disk: there is no drive to remove. Copy the folder to a drive, or mount the drive and pack again.", opts.Media)
	} else {
		c.prose("The drive is sealed and flushed: it is safe to remove once it is unmounted.")
	}
	command, note := nextCommand(f, opts, r)
	if note != "" {
		c.prose("%s", note)
	}
	c.say("On the other side, type:")
	c.say("%s", command)
	return nil
}

// moved is what is done with what is not on the drive yet.
func moved(opts bundle.PackOptions) string {
	switch {
	case opts.Adopt == "":
		return "fetched"
	case len(opts.Releases)+len(opts.Additional)+len(opts.Local) == 0:
		return "taken over"
	}
	return "taken over or fetched"
}

// inMemory reports whether a bundle was packed into memory.
func inMemory(r *bundle.PackResult) bool { return r.Plan.Filesystem == "tmpfs" }

// sayPacked sums up a pack; digests stand on lines of their own, where they can be copied.
func (s *session) sayPacked(opts bundle.PackOptions, r *bundle.PackResult) {
	c := s.console
	for _, rel := range r.Releases {
		if rel.Kept {
			c.say("release %s, sealed before\n    %s\n    signature %s", rel.Tag, rel.Digest, rel.Signature.Status)
			continue
		}
		c.say("release %s, %s\n    %s", rel.Tag, content.Plural(rel.Images, "image", "images"), rel.Digest)
		c.prose("    signature %s", signatureText(rel.Signature))
		if rel.Text != "" {
			c.prose("    its release.txt agrees (%s)", rel.Text)
		}
	}
	for _, n := range r.Notes {
		c.prose("note: %s", n)
	}
	for _, a := range opts.Additional {
		c.say("image %s", a.String())
	}
	for _, l := range opts.Local {
		c.say("image %s, from %s", l.Reference.String(), l.Dir)
	}
	adopted := ""
	if opts.Adopt != "" {
		adopted = content.SizeText(r.Adopted) + " taken over, "
	}
	rows := [][]string{
		{"on the drive", fmt.Sprintf("%s + %s, %s", content.Plural(r.Blobs-r.Manifests, "blob", "blobs"), content.Plural(r.Manifests, "manifest", "manifests"), content.SizeText(r.Bytes))},
		{"this run", adopted + fmt.Sprintf("%s fetched, %s resumed, %s there before", content.SizeText(r.Moved), content.SizeText(r.Resumed), content.SizeText(r.Plan.Bytes.Present-r.Plan.Resumed))},
	}
	if r.Plan.Presumed.Blobs > 0 {
		rows = append(rows, []string{"presumed", presumedText(r.Plan.Presumed)})
	}
	if r.ReadBack.Method != "" && r.ReadBack.Blobs > 0 {
		rows = append(rows, []string{"read back", fmt.Sprintf("%d blobs and manifests, %s, past the cache by: %s", r.ReadBack.Blobs, content.SizeText(r.ReadBack.Bytes), r.ReadBack.Method)})
	}
	c.say("%s", trusted(table(rows)))
	if r.Sealed {
		s.sayTools(r.Tools)
	}
	if r.BundleID != "" {
		c.say("bundle\n    %s", r.BundleID)
	}
}

// nextCommand is the exact command for the disconnected side, with what trust needs there.
func nextCommand(f *packFlags, opts bundle.PackOptions, r *bundle.PackResult) (command, note string) {
	if opts.Only != nil {
		words := []string{"pannier", "audit", "--repair", "MEDIA", "--from", opts.Media}
		for _, name := range f.keyrings.Value() {
			words = append(words, "--keyring", name)
		}
		if len(words) == 6 {
			note = "MEDIA is the damaged drive; add the --keyring FILE that its audit takes, if it takes one."
		}
		return commandLine(words...), note
	}
	words := []string{"pannier", "unpack", opts.Media}
	for _, rel := range r.Releases {
		if rel.Signature.Status != bundle.SignatureVerified {
			words = append(words, "--signature-policy", "warn")
			break
		}
	}
	var keys []string
	for _, name := range f.keyrings.Value() {
		for _, rel := range r.Releases {
			// Whose key signed what was kept is not looked up again.
			if (rel.Kept || rel.Signature.KeySource == name) && !slices.Contains(keys, name) {
				keys = append(keys, name)
			}
		}
	}
	for _, k := range keys {
		words = append(words, "--keyring", k)
	}
	if len(keys) > 0 {
		note = "Take the key " + strings.Join(keys, ", ") + " along by another way: trust never travels on the drive."
	}
	if f.prefix != "" {
		words = append(words, "--additional-prefix", f.prefix)
	}
	dest := "REGISTRY/REPO"
	switch {
	case r.Destination != nil:
		dest = r.Destination.String()
	case len(opts.Have) > 0 && r.Plan.Presumed.Blobs > 0:
		dest = opts.Have[0].Registry.String()
	}
	return commandLine(append(words, dest)...), note
}

func destinationText(d *objects.Destination) string {
	if d == nil {
		return "no destination"
	}
	return d.String()
}
