package main

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"pannier/store"
)

type versionFlags struct {
	logFlags
	outputFlags
}

// versionDocument is what version prints as JSON.
type versionDocument struct {
	Version       string `json:"version"`
	Commit        string `json:"commit,omitempty"`
	FormatVersion int    `json:"formatVersion"` // newest format of drives that it reads, and the one it writes
	GoVersion     string `json:"goVersion"`
	Platform      string `json:"platform"`
}

func (s *session) versionCommand() *cli.Command {
	f := &versionFlags{}
	return &cli.Command{
		Name: "version", Usage: "the version of this program, and of the drives that it reads and writes",
		Flags:  append(f.outputFlags.flags("`FORMAT` of stdout: text (default) or json"), f.logFlags.flags()...),
		Action: func(c *cli.Context) error { return s.version(c.Context, f, c.Args().Slice()) },
	}
}

func (s *session) version(_ context.Context, f *versionFlags, args []string) error {
	asJSON, err := f.json(s.command)
	if err != nil {
		return err
	}
	if len(args) > 0 {
		return usagef(s.command, "version takes no arguments")
	}
	if err := s.start(&f.logFlags, nil); err != nil {
		return err
	}
	doc := versionDocument{
		Version: buildVersion(), Commit: buildCommit(), FormatVersion: store.FormatVersion,
		GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if asJSON {
		return s.console.json(doc)
	}
	return s.console.print("pannier %s\ncommit  %s\nformat  %d\ngo      %s\nfor     %s\n",
		doc.Version, orWord(doc.Commit, "unknown"), doc.FormatVersion, doc.GoVersion, doc.Platform)
}

// buildVersion is the version that the linker was told, or what go install knows.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func buildCommit() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " (modified)"
		}
	}
	if revision == "" {
		return ""
	}
	return revision + dirty
}
