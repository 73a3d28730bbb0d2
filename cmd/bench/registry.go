//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release/sample"
)

// distribution is a running docker-registry, the reference implementation.
type distribution struct {
	host string
	root string
	cmd  *exec.Cmd
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// output keeps what a process says until it has said where it listens.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf.Len() < 1<<20 {
		o.buf.Write(p)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func startDistribution(ctx context.Context, dir string) (*distribution, error) {
	exe, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, fmt.Errorf("%w (Debian's package docker-registry)", err)
	}
	d := &distribution{root: filepath.Join(dir, "storage")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: %s}\nhttp:\n  addr: 127.0.0.1:0\n  secret: bench\n", d.root)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	var out output
	d.cmd = exec.CommandContext(ctx, exe, "serve", config)
	d.cmd.Stdout, d.cmd.Stderr = &out, &out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	for range 1500 {
		if m := listening.FindStringSubmatch(out.String()); m != nil {
			d.host = m[1]
			return d, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.stop()
	return nil, fmt.Errorf("docker-registry did not come up:\n%s", out.String())
}

func (d *distribution) stop() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// Repositories of the source: where the release image is, and where its components are. The
// latter holds every blob, for the floors.
const (
	releasePath   = "openshift-release-dev/ocp-release"
	componentPath = "openshift-release-dev/ocp-v4.0-art-dev"
)

// fill puts a release into a registry, its components by digest and by tag, and returns the
// blobs of all images.
func fill(ctx context.Context, host string, r *sample.Release) ([]ocispec.Descriptor, error) {
	all, err := blobsOf(r, "")
	if err != nil {
		return nil, err
	}
	own, err := blobsOf(r, releasePath)
	if err != nil {
		return nil, err
	}
	for repo, blobs := range map[string][]ocispec.Descriptor{componentPath: all, releasePath: own} {
		c := newRawClient(host, repo, "")
		bySum := map[string]ocispec.Descriptor{}
		for _, d := range blobs {
			bySum[d.Digest.String()] = d
		}
		err := each(rawConnections, slices.Sorted(maps.Keys(bySum)), func(d string) error {
			rc, err := r.Fetch(ctx, bySum[d], 0)
			if err != nil {
				return err
			}
			return errors.Join(c.upload(d, rc, bySum[d].Size), rc.Close())
		})
		if err != nil {
			return nil, err
		}
		for _, p := range r.Images {
			if sample.Path(p.Repository) != repo {
				continue
			}
			raw := r.Blobs[p.Descriptor.Digest]
			for _, ref := range references(r, p) {
				if err := c.manifest(ref, p.Descriptor.MediaType, bytes.NewReader(raw), int64(len(raw))); err != nil {
					return nil, err
				}
			}
		}
	}
	return all, nil
}

// references are what an image is to be found under: its digest, and a tag.
func references(r *sample.Release, p sample.Placed) []string {
	refs := []string{p.Descriptor.Digest.String()}
	if p.Tag != "" {
		refs = append(refs, p.Tag)
	}
	for _, c := range r.Components {
		if c.Digest == p.Descriptor.Digest {
			refs = append(refs, componentTag(c.Name))
		}
	}
	return refs
}

// blobsOf lists the blobs of the images in a repository, or of all, each once.
func blobsOf(r *sample.Release, repo string) ([]ocispec.Descriptor, error) {
	seen := map[digest.Digest]bool{}
	var out []ocispec.Descriptor
	for _, p := range r.Images {
		if repo != "" && sample.Path(p.Repository) != repo {
			continue
		}
		err := r.Walk(p.Descriptor, func(d ocispec.Descriptor) error {
			if !content.IsManifest(d.MediaType) && !seen[d.Digest] {
				seen[d.Digest] = true
				out = append(out, d)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
