package main

import (
	"log/slog"
	"os"
	"strings"
	"time"
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

// close notes how the command ended.
func (j *journal) close(code int, err error) {
	if j == nil {
		return
	}
	j.log.Info("ended", "exitCode", code, "codes", codesOf(err), "took", time.Since(j.began).Round(time.Millisecond).String())
	j.file.Close()
}
