//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"pannier/bundle/release"
	"pannier/bundle/release/sample"
)

// componentTag is the tag that the source has a component under, for tools that copy by tag.
func componentTag(name string) string { return version + "-" + name }

func componentTags(r *sample.Release) []string {
	var out []string
	for _, c := range r.Components {
		out = append(out, componentTag(c.Name))
	}
	return out
}

func componentRefs(r *sample.Release, repository string) []string {
	var out []string
	for _, c := range unique(r.Components) {
		out = append(out, repository+"@"+c.Digest.String())
	}
	return out
}

func unique(images []release.Image) []release.Image {
	return slices.CompactFunc(slices.Clone(images), func(a, b release.Image) bool { return a.Digest == b.Digest })
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if len(s) == 0 {
		return 0
	}
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

func column(runs []figures, of func(figures) float64) []float64 {
	var out []float64
	for _, f := range runs {
		out = append(out, of(f))
	}
	return out
}

func wall(f figures) float64 { return f.Wall }
func cpu(f figures) float64  { return f.CPU }

// ratios are figures of a tool as multiples of the floor's, round by round.
func (r result) ratios(tool string, of func(figures) float64) []float64 {
	var out []float64
	floor := r.Runs[r.floorTool()]
	for i, f := range r.Runs[tool] {
		if i < len(floor) {
			out = append(out, of(f)/of(floor[i]))
		}
	}
	return out
}

func (r result) floorTool() string {
	for name := range r.Runs {
		if !slices.Contains(r.Tools, name) {
			return name
		}
	}
	return ""
}

// table renders the results as Markdown: medians over the rounds.
func table(b *bench, results []result) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d component images, %d blobs, %.0f MB; %d rounds; %s\n\n", len(b.release.Components), b.count, float64(b.blobs)/mb, b.rounds, machine())
	fmt.Fprintln(&s, "| work | tool | seconds | times the floor (lowest to highest) | target | CPU seconds | times the floor | MiB of memory | MB on disk |")
	fmt.Fprintln(&s, "|---|---|---|---|---|---|---|---|---|")
	for _, r := range results {
		for i, name := range append([]string{r.floorTool()}, r.Tools...) {
			runs := r.Runs[name]
			work, ratio, cpuRatio, bar := "", "1", "1", ""
			if i == 0 {
				work = r.Work
				name = "floor: " + r.Floor
			} else {
				all := r.ratios(name, wall)
				cpuRatio = fmt.Sprintf("%.2f", median(r.ratios(name, cpu)))
				ratio = fmt.Sprintf("%.2f (%.2f to %.2f)", median(all), slices.Min(all), slices.Max(all))
			}
			if r.Bar > 0 && i == 1 {
				bar = fmt.Sprintf("%.2f", r.Bar)
			}
			disk := ""
			if n := median(column(runs, func(f figures) float64 { return float64(f.Disk) })); n > 0 {
				disk = fmt.Sprintf("%.0f", n/mb)
			}
			fmt.Fprintf(&s, "| %s | %s | %.2f | %s | %s | %.2f | %s | %.0f | %s |\n", work, name,
				median(column(runs, wall)), ratio, bar,
				median(column(runs, cpu)), cpuRatio,
				median(column(runs, func(f figures) float64 { return float64(f.Memory) / (1 << 20) })), disk)
		}
	}
	return s.String()
}

// writeJSON keeps every figure of every run.
func writeJSON(name string, b *bench, results []result) error {
	raw, err := json.MarshalIndent(map[string]any{
		"machine": machine(), "images": len(b.release.Components), "blobs": b.count, "bytes": b.blobs, "works": results,
	}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(raw, '\n'), 0o644)
}
