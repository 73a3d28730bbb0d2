//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// sites measures what a site is planned by: what several unpacks at once bring into one
// docker-registry, and what several clusters at once get out of it (docs/scale.md).
func (b *bench) sites(ctx context.Context) error {
	if err := b.packed(ctx); err != nil {
		return err
	}
	fmt.Println("| work | at once | seconds | MB/s in all |\n|---|---|---|---|")
	row := func(work string, n int, took time.Duration) {
		fmt.Printf("| %s | %d | %.1f | %.0f |\n", work, n, took.Seconds(), float64(b.blobs)*float64(n)/took.Seconds()/mb)
	}
	for _, n := range []int{1, 2, 4} {
		if err := b.newTarget(ctx); err != nil {
			return err
		}
		took, err := atOnce(n, func(i int) error {
			_, err := b.pannier(ctx, "unpack", b.keep, fmt.Sprintf("%s/site-%d/openshift4", b.target.host, i))
			return err
		})
		if err != nil {
			return err
		}
		row("unpack into one registry, each into a repository of its own", n, took)
	}
	for _, n := range []int{1, 2, 4} {
		took, err := atOnce(n, func(i int) error {
			dir := filepath.Join(b.dir, fmt.Sprintf("pulled-%d", i))
			defer os.RemoveAll(dir)
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			_, _, err := launch(ctx, nil, b.self, rawCommand, "get", b.source.host, componentPath, b.list, dir)
			return err
		})
		if err != nil {
			return err
		}
		row("pull everything from one registry, by four connections each", n, took)
	}
	return nil
}

// atOnce runs work n times side by side, and returns how long all of it took.
func atOnce(n int, work func(i int) error) (time.Duration, error) {
	began, errs := time.Now(), make([]error, n)
	var g sync.WaitGroup
	for i := range n {
		g.Go(func() { errs[i] = work(i) })
	}
	g.Wait()
	return time.Since(began), errors.Join(errs...)
}
