package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// share asks the program for its manual pages and completion, into dist/share: they travel in
// every archive and package.
func share(program, dist string) error {
	man, completion := filepath.Join(dist, "share", "man"), filepath.Join(dist, "share", "completion")
	for _, dir := range []string{man, completion} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	list, err := exec.Command(program, "__complete", "man", "").Output()
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	pages := map[string][]string{"pannier": {"man"}}
	for _, line := range strings.Split(string(list), "\n") {
		if name, _, found := strings.Cut(line, "\t"); found {
			pages["pannier-"+name] = []string{"man", name}
		}
	}
	for name, args := range pages {
		page, err := exec.Command(program, args...).Output()
		if err != nil {
			return fmt.Errorf("%s %v: %w", program, args, err)
		}
		var b bytes.Buffer
		gz, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err != nil {
			return err
		}
		gz.Write(page)
		if err := gz.Close(); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(man, name+".1.gz"), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, err := exec.Command(program, "completion", shell).Output()
		if err != nil {
			return fmt.Errorf("%s completion %s: %w", program, shell, err)
		}
		if err := os.WriteFile(filepath.Join(completion, "pannier."+shell), script, 0o644); err != nil {
			return err
		}
	}
	return nil
}
