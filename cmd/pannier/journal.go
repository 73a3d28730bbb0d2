package main

import (
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"pannier/verify"
)

// journal is the file that --log-file names. What is logged and what is said goes there, and
// secrets never do: neither log records nor messages hold any, and the command line is taken
// down without the passwords of addresses.
type journal struct {
	file  *os.File
	log   *slog.Logger
	began time.Time
}

// openJournal opens the file to add to it. It is for its owner alone: names of hosts and
// users are in it.
func openJournal(name string, level slog.Level) (*journal, error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(f, opts)
	if strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".jsonl") {
		handler = slog.NewJSONHandler(f, opts)
	}
	return &journal{file: f, log: slog.New(handler), began: time.Now()}, nil
}

// findings takes down what an audit found, each finding by itself; what has not been fetched yet
// is only counted, in the result.
func (j *journal) findings(found []verify.Finding) {
	if j == nil {
		return
	}
	for _, f := range found {
		if f.Awaited == 0 {
			j.log.Info("finding", "kind", f.Kind, "path", f.Path, "digest", f.Digest, "images", f.Images, "detail", f.Detail, "repaired", f.Repaired, "healable", f.Healable)
		}
	}
}

// close notes what came of the command, as the last event of --progress json has it, and how it
// ended.
func (j *journal) close(code int, err error, result map[string]any) {
	if j == nil {
		return
	}
	if result != nil {
		var members []any
		for _, name := range slices.Sorted(maps.Keys(result)) {
			members = append(members, name, result[name])
		}
		j.log.Info("result", members...)
	}
	j.log.Info("ended", "exitCode", code, "codes", codesOf(err), "took", time.Since(j.began).Round(time.Millisecond).String())
	j.file.Close()
}
