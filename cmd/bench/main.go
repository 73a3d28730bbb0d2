//go:build linux

// Command bench measures pannier against the work that cannot be left out, and against other
// tools, side by side on one machine: `make bench`. What the table means: docs/performance.md.
//
// Every figure is one of a whole process, as the system accounts for it. The tools take
// turns, round by round, so that a machine whose speed drifts is unfair to nobody; ratios are
// taken within a round and the median of the rounds is shown.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) > 2 {
		// Parts of this program in processes of their own.
		parts := map[string]func([]string) error{rawCommand: raw, timeCommand: timed}
		if part := parts[os.Args[1]]; part != nil {
			if err := part(os.Args[2:]); err != nil {
				fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
				os.Exit(1)
			}
			return
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds int
	small  bool
	dir    string
	bin    string
	out    string
	only   string
	scale  bool
	sites  bool
	alone  bool
}

func run(ctx context.Context) error {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often each tool has its turn")
	flag.BoolVar(&o.small, "small", false, "a fiftieth of the bytes, to try the benchmark itself")
	flag.StringVar(&o.dir, "dir", "", "a folder on the disk to measure on (default: a new one in the system's folder for temporary files)")
	flag.StringVar(&o.bin, "bin", "bin", "the folder with pannier, and with the other tools as far as they are there")
	flag.StringVar(&o.out, "out", "", "a file for every single figure, as JSON")
	flag.StringVar(&o.only, "only", "", "only the works whose names contain this")
	flag.BoolVar(&o.alone, "alone", false, "without the other tools")
	flag.BoolVar(&o.scale, "scale", false, "instead of the works, drives of 1,000, 10,000 and 100,000 small blobs")
	flag.BoolVar(&o.sites, "sites", false, "instead of the works, several unpacks and several pulls at once")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("no arguments are taken: %s", strings.Join(flag.Args(), " "))
	}
	var err error
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "pannier-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir)
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if o.scale {
		return scale(ctx, o)
	}
	b, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	if o.sites {
		return b.sites(ctx)
	}
	results, err := b.measure(ctx)
	if len(results) > 0 {
		fmt.Print(table(b, results))
		if o.out != "" {
			err = errors.Join(err, writeJSON(o.out, b, results))
		}
	}
	return err
}
