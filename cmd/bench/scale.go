//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"pannier/bundle/release/sample"
	"pannier/bundle/release/sample/olareg"
)

// scaleStep is a drive of many small blobs: releases of 250 images of ten blobs each.
type scaleStep struct{ releases, images int }

func (s scaleStep) blobs() int { return s.releases * s.images * scaleBlobs }

const scaleBlobs = 10 // of each image: manifest, config, eight layers

var scaleSteps = []scaleStep{{1, 100}, {4, 250}, {1, 2000}, {40, 250}}

// scaled is what was measured on one of them.
type scaled struct {
	Blobs, Images      int
	Pack, Again, Audit figures
	Dry                figures // the plan alone, for an empty drive
}

// scale packs and audits drives of more and more blobs of 1 to 3 KB, so that what counts is
// what each blob costs and not its bytes.
func scale(ctx context.Context, o options) error {
	steps := scaleSteps
	if o.small {
		steps = steps[:1]
	}
	fmt.Println("| blobs | images | work | seconds | CPU seconds | µs of CPU a blob | MiB of memory |\n|---|---|---|---|---|---|---|")
	for _, s := range steps {
		got, err := s.measure(ctx, o)
		if err != nil {
			return fmt.Errorf("%d blobs: %w", s.blobs(), err)
		}
		fmt.Print(got.rows())
	}
	return nil
}

func (s scaleStep) measure(ctx context.Context, o options) (got scaled, err error) {
	got.Blobs, got.Images = s.blobs(), s.releases*s.images
	releases, versions, err := s.make()
	if err != nil {
		return got, err
	}
	source, err := olareg.Serve(olareg.Options{}, releases...)
	if err != nil {
		return got, err
	}
	defer source.Close()
	b := &bench{options: o}
	media := filepath.Join(o.dir, "drive")
	defer os.RemoveAll(media)
	pack := func(into *figures, flags ...string) {
		if err == nil {
			args := append([]string{"pack"}, versions...)
			args = append(args, media, "--registry-mirror", "quay.io="+source.Host, "--signature-store", o.dir)
			*into, err = b.pannier(ctx, append(args, flags...)...)
		}
	}
	pack(&got.Dry, "--dry-run")
	pack(&got.Pack)
	pack(&got.Again)
	if err == nil {
		got.Audit, err = b.pannier(ctx, "audit", media)
	}
	return got, err
}

func (s scaleStep) make() (releases []*sample.Release, versions []string, err error) {
	for i := range s.releases {
		layers := make([][]int64, s.images)
		for j := range layers {
			for k := range scaleBlobs - 4 { // one of its own it has besides, and one or two of the release
				layers[j] = append(layers[j], int64(100+k*100))
			}
		}
		version := fmt.Sprintf("4.20.%d", i+1)
		r, err := sample.Make(sample.Options{
			Version: version, Components: s.images, Layers: layers, LayerSize: 1000, Seed: int64(i),
			ComponentRepository: fmt.Sprintf("quay.io/scale/release-%d", i),
		})
		if err != nil {
			return nil, nil, err
		}
		releases, versions = append(releases, r), append(versions, version)
	}
	return releases, versions, nil
}

// rows are the lines of the table.
func (s scaled) rows() string {
	var t strings.Builder
	for _, w := range []struct {
		name string
		figures
	}{{"plan", s.Dry}, {"pack", s.Pack}, {"pack again", s.Again}, {"audit", s.Audit}} {
		fmt.Fprintf(&t, "| %d | %d | %s | %.2f | %.2f | %.0f | %d |\n", s.Blobs, s.Images, w.name, w.Wall, w.CPU, w.CPU/float64(s.Blobs)*1e6, w.Memory>>20)
	}
	return t.String()
}
