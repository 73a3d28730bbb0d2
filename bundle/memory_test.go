//go:build linux

package bundle_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pannier/apply/trip"
	"pannier/bundle"
	"pannier/bundle/objects"
	"pannier/bundle/parity"
	"pannier/bundle/release"
	"pannier/bundle/release/sample"
	"pannier/bundle/remote"
)

// packHere makes the test binary a program that packs 4.8.21 from a registry onto a drive,
// and prints the most memory that it ever held, in KiB.
const packHere = "PANNIER_TEST_PACK"

func TestMain(m *testing.M) {
	if where := os.Getenv(packHere); where != "" {
		if err := packAlone(strings.Split(where, " ")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// aloneOptions are those of a pack in a process of its own: of a registry's host, a drive,
// a cache, and images beside the release.
func aloneOptions(args []string) (bundle.PackOptions, error) {
	host, media, cache := args[0], args[1], args[2]
	client, err := remote.New(remote.Options{Mirrors: []remote.Mirror{{From: "quay.io", To: host}}})
	if err != nil {
		return bundle.PackOptions{}, err
	}
	ref, err := release.ParseReference("4.8.21", release.Defaults{})
	var images []release.Reference
	for _, text := range args[3:] {
		image, ierr := release.ParseImageReference(text)
		images, err = append(images, image), errors.Join(err, ierr)
	}
	return bundle.PackOptions{
		Releases: []release.Reference{ref}, Additional: images, Media: media, Client: client, Cache: cache, Policy: bundle.PolicyWarn, Stores: []string{},
		Destination: &objects.Destination{Registry: "registry.example", Repository: "a/b"},
	}, err
}

func packAlone(args []string) error {
	opts, err := aloneOptions(args)
	if err != nil {
		return err
	}
	opts.Parity = parity.DefaultShare
	if _, err := bundle.Pack(testContext(), opts); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Println(strings.Fields(value)[0])
		}
	}
	return nil
}

// Packing 2 GB holds less than 150 MB, most of them buffers of the parity, which do not grow with
// the size; the drive holds each byte once, and the parity.
func TestPackMemory(t *testing.T) {
	const gigabytes = 2_000_000_000
	r := trip.Make(t, sample.Options{Components: 4, LargeLayer: gigabytes / 4, LargeLayers: 4})
	o := trip.NewOrigin(t, r)
	media := trip.Drive(t)
	kib := packKiB(t, o, media)
	t.Logf("%d KiB at most, for %d bytes", kib, r.Size())
	if r.Size() < gigabytes || kib > 150_000_000/1024 {
		t.Errorf("%d KiB were held for %d bytes", kib, r.Size())
	}
	var bytes int64
	for _, s := range trip.Tree(t, media) {
		bytes += s.Size
	}
	if ratio := float64(bytes) / float64(r.Size()); ratio > 1.055 {
		t.Errorf("%d bytes on the drive for %d of blobs: %.4f", bytes, r.Size(), ratio)
	}
}

// packKiB packs from o onto media, in a process of its own, and returns the most memory that
// it ever held.
func packKiB(t *testing.T, o *trip.Origin, media string, images ...string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	args := append([]string{o.Registry.Host, media, filepath.Join(t.TempDir(), "cache")}, images...)
	cmd.Env = append(os.Environ(), packHere+"="+strings.Join(args, " "))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	kib, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return kib
}
