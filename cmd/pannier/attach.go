package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"pannier/verify"
	"pannier/verify/custody"
)

type attachFlags struct {
	logFlags
	reportFlags
	as string
}

func (s *session) attachCommand() *cli.Command {
	f := &attachFlags{}
	flags := []cli.Flag{
		&cli.StringFlag{Name: "as", Destination: &f.as, Usage: "`TEXT` says what FILE is, as \"ClamAV 1.4 on kiosk 3\"; it is shown as claimed by the sender"},
		&cli.BoolFlag{Name: "redact", Destination: &f.redact, Usage: "leave the names of host and user out of the custody log"},
		f.reportFlags.keyFlag(),
	}
	flags = append(flags, f.logFlags.flags()...)
	return &cli.Command{
		Name: "attach", Usage: "put somebody's file on the drive, as the result of a scanner", ArgsUsage: "MEDIA FILE --as TEXT",
		Description: "FILE is copied to the drive and entered in its custody log, outside the seal. inspect, audit\n" +
			"and reports show it as what the sender claims, never as a result of their own.",
		Flags:  flags,
		Action: func(c *cli.Context) error { return s.attach(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) attach(ctx context.Context, f *attachFlags, args []string) error {
	if len(args) != 2 {
		return usagef(s.command, "attach takes MEDIA and FILE: pannier attach MEDIA FILE --as \"ClamAV 1.4 on kiosk 3\"")
	}
	if f.as == "" {
		return usagef(s.command, "--as is missing: say what the file is, as --as \"ClamAV 1.4 on kiosk 3\"")
	}
	media, name := s.env.expandHome(args[0]), s.env.expandHome(args[1])
	if isFolder(name) {
		return usagef(s.command, "%s is a folder, and attach takes one FILE: pack the folder into an archive, or name the file in it", args[1])
	}
	s.drives = []string{media}
	if err := s.start(&f.logFlags, nil); err != nil {
		return err
	}
	key, err := s.signKey(f.signKey)
	if err != nil {
		return err
	}
	raw, err := readFile(name, custody.MaxAttachment)
	if err != nil {
		return err
	}
	in, err := verify.Inspect(ctx, verify.InspectOptions{Media: media, Cache: s.cacheDir(), Logger: s.log})
	if err != nil {
		return err
	}
	if in.Directory {
		return usagef(s.command, "%s is a folder that oc wrote, which has no custody log: pack it onto a drive first", media)
	}
	entry := s.entry(custody.Attached, f.redact)
	entry.Bundle, entry.Generation = in.BundleID, in.Generation
	file, err := custody.Attach(media, "pannier "+buildVersion(), key,
		custody.Attachment{Data: raw, Name: filepath.Base(name), As: f.as}, entry)
	if errors.Is(err, custody.ErrAttachment) {
		return usagef(s.command, "%s %v", name, err)
	}
	if err != nil {
		return err
	}
	s.console.say("attached as %q\n    %s\n    %s", file.As, file.Path, file.Digest)
	return nil
}
