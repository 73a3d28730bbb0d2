//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// works are the lines of the table, in an order in which each finds what it needs.
func (b *bench) works() []work {
	get := b.rawTool("raw4 get", b.empty, func() []string { return []string{"get", b.source.host, componentPath, b.list, b.scratch} })
	return []work{
		{name: "registry to drive, before the seal", floorName: "raw4 get, sync (CPU: and SHA-256)", bar: 1.2, floor: b.hashed(withSync(get)),
			tools: append([]tool{beforeSeal(b.pack("pannier pack", b.empty, b.drive()))}, b.pullers()...)},
		{name: "registry to drive, sealed", floorName: "raw4 get, sync, cold read with xxh3", bar: 1.25, floor: b.readBack(withSync(get)),
			tools: []tool{b.pack("pannier pack", b.empty, b.drive()), b.pack("pannier pack --parity 0", b.empty, b.drive(), "--parity", "0")}},
		{name: "nothing new to pack", floorName: "one request", floor: b.oneRequest(),
			tools: []tool{b.pack("pannier pack", b.packed, b.keep)}},
		{name: "drive to empty docker-registry", floorName: "raw4 put", bar: 1.1,
			floor: b.rawTool("raw4 put", b.newTarget, func() []string { return []string{"put", b.target.host, "raw", b.list, b.fetched} }),
			tools: append([]tool{b.unpack("pannier unpack", both(b.packed, b.newTarget), func() string { return b.target.host })}, b.pushers()...)},
		{name: "drive to empty olareg", floorName: "raw4 put", bar: 1.35,
			floor: b.rawTool("raw4 put", b.newFast, func() []string { return []string{"put", b.fast.Host, "raw", b.list, b.fetched} }),
			tools: []tool{b.unpack("pannier unpack", both(b.packed, b.newFast), func() string { return b.fast.Host })}},
		{name: "nothing new to push", floorName: "raw4 asking for each blob", bar: 0.5,
			floor: b.rawTool("raw4 head", b.pushed, func() []string { return []string{"head", b.target.host, repository, b.list, b.fetched} }),
			tools: []tool{b.unpack("pannier unpack --missing-only", b.pushed, func() string { return b.target.host }, "--missing-only")}},
		{name: "audit, warm", floorName: "SHA-256 of the files", bar: 1.05,
			floor: b.rawTool("sha256", b.warm(b.keepBlobs), func() []string { return []string{"sha256", b.list, b.keepBlobs()} }),
			tools: []tool{b.audit("pannier audit", b.warm(b.keepBlobs))}},
		{name: "audit, cold", floorName: "SHA-256 of the files", bar: 1.05,
			floor: b.rawTool("sha256", b.cold, func() []string { return []string{"sha256", b.list, b.keepBlobs()} }),
			tools: []tool{b.audit("pannier audit", b.cold)}},
	}
}

const repository = "ocp4/openshift4"

func (b *bench) drive() string     { return filepath.Join(b.scratch, "mirror") }
func (b *bench) keepBlobs() string { return filepath.Join(b.keep, "blobs/sha256") }

// withSync counts the time until everything is on the disk.
func withSync(t tool) tool {
	run := t.run
	t.run = func(ctx context.Context) (figures, error) {
		f, err := run(ctx)
		f.Wall += f.Sync
		return f, err
	}
	return t
}

// readBack lets the floor read everything once more, past the page cache.
func (b *bench) readBack(t tool) tool {
	run := t.run
	t.run = func(ctx context.Context) (figures, error) {
		f, err := run(ctx)
		if err != nil {
			return f, err
		}
		began := time.Now()
		if err := forget(b.scratch); err != nil {
			return f, err
		}
		g, _, err := launch(ctx, nil, b.self, rawCommand, "sums", b.list, b.scratch)
		f.Wall += time.Since(began).Seconds() - g.Sync
		f.CPU += g.CPU
		f.Memory = max(f.Memory, g.Memory)
		return f, err
	}
	return t
}

// hashed adds what SHA-256 of all that was fetched costs to the CPU seconds.
func (b *bench) hashed(t tool) tool {
	run := t.run
	t.run = func(ctx context.Context) (figures, error) {
		f, err := run(ctx)
		if err != nil {
			return f, err
		}
		g, _, err := launch(ctx, nil, b.self, rawCommand, "sha256", b.list, b.scratch)
		f.CPU += g.CPU
		return f, err
	}
	return t
}

func both(first, second func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := first(ctx); err != nil {
			return err
		}
		return second(ctx)
	}
}

func (b *bench) pack(name string, before func(context.Context) error, media string, flags ...string) tool {
	return tool{name, before, func(ctx context.Context) (figures, error) {
		f, err := b.pannier(ctx, append([]string{"pack", b.release.Version, media, "--registry-mirror", "quay.io=" + b.source.host,
			"--signature-store", b.dir}, flags...)...)
		f.Disk = usage(media)
		return f, err
	}}
}

// beforeSeal takes off what pannier does after all bytes are hashed and synced: it reads them
// back, computes parity and seals.
func beforeSeal(t tool) tool {
	run := t.run
	t.run = func(ctx context.Context) (figures, error) {
		f, err := run(ctx)
		for phase, seconds := range f.Phases {
			if phase != "plan" && phase != "download" {
				f.Wall -= seconds
			}
		}
		if cpu, ok := f.CPUBefore["read back"]; ok {
			f.CPU = cpu
		}
		return f, err
	}
	return t
}

func (b *bench) unpack(name string, before func(context.Context) error, host func() string, flags ...string) tool {
	return tool{name, before, func(ctx context.Context) (figures, error) {
		return b.pannier(ctx, append([]string{"unpack", b.keep, host() + "/" + repository}, flags...)...)
	}}
}

func (b *bench) audit(name string, before func(context.Context) error) tool {
	return tool{name, before, func(ctx context.Context) (figures, error) { return b.pannier(ctx, "audit", b.keep) }}
}

// packed sees to it that there is a drive with the release.
func (b *bench) packed(ctx context.Context) error {
	if _, err := os.Stat(b.keep); err == nil {
		return nil
	}
	_, err := b.pack("", nil, b.keep).run(ctx)
	return err
}

// pushed sees to it that the target has the release.
func (b *bench) pushed(ctx context.Context) error {
	if err := b.packed(ctx); err != nil {
		return err
	}
	if b.target == nil {
		if err := b.newTarget(ctx); err != nil {
			return err
		}
	}
	_, err := b.unpack("", nil, func() string { return b.target.host }, "--missing-only").run(ctx)
	return err
}

// warm reads the files once, so that they are in the page cache.
func (b *bench) warm(dir func() string) func(context.Context) error {
	return both(b.packed, func(ctx context.Context) error {
		_, _, err := launch(ctx, nil, b.self, rawCommand, "sums", b.list, dir())
		return err
	})
}

func (b *bench) cold(ctx context.Context) error {
	if err := b.packed(ctx); err != nil {
		return err
	}
	return forget(b.keep)
}

func (b *bench) oneRequest() tool {
	return tool{"curl", nil, func(ctx context.Context) (figures, error) {
		f, _, err := launch(ctx, nil, "curl", "-sfIo", "/dev/null", "http://"+b.source.host+"/v2/"+releasePath+"/manifests/"+b.tag())
		return f, err
	}}
}

// pullers are other tools that bring the components onto a disk, each in the way that its own
// documentation has for many images.
func (b *bench) pullers() []tool {
	var out []tool
	add := func(name string, command func() string) {
		out = append(out, withSync(tool{name, b.empty, func(ctx context.Context) (figures, error) {
			f, _, err := launch(ctx, []string{"HOME=" + b.dir}, "sh", "-ec", command())
			f.Disk = usage(b.scratch)
			return f, err
		}}))
	}
	from := b.source.host + "/" + componentPath
	if exe, ok := b.peer("oras"); ok {
		add("oras backup", func() string {
			return fmt.Sprintf("exec %s backup --plain-http --concurrency 4 --output %s %s", exe, b.drive(), from+":"+strings.Join(componentTags(b.release), ","))
		})
	}
	if exe, ok := b.peer("crane"); ok {
		add("crane pull", func() string {
			return fmt.Sprintf("exec %s pull --insecure --format oci %s %s", exe, strings.Join(componentRefs(b.release, from), " "), b.drive())
		})
	}
	if exe, ok := b.peer("regctl"); ok {
		add("regctl image copy", func() string {
			return fmt.Sprintf("%[1]s registry set --tls disabled %[2]s; for r in %[3]s; do %[1]s image copy $r ocidir://%[4]s:${r##*@sha256:}; done",
				exe, b.source.host, strings.Join(componentRefs(b.release, from), " "), b.drive())
		})
	}
	if exe, ok := b.peer("skopeo"); ok {
		add("skopeo copy", func() string {
			return fmt.Sprintf("for r in %s; do %s copy -q --preserve-digests --src-tls-verify=false docker://$r oci:%s:${r##*@sha256:}; done",
				strings.Join(componentRefs(b.release, from), " "), exe, b.drive())
		})
	}
	return out
}

// pushers are other tools that bring what they pulled to an empty registry.
func (b *bench) pushers() []tool {
	var out []tool
	pulled := filepath.Join(b.dir, "peers")
	// What they push they have pulled before, each into a folder of its own.
	ready := func(name, pull string) func(context.Context) error {
		return func(ctx context.Context) error {
			if _, err := os.Stat(filepath.Join(pulled, name)); err != nil {
				if err := os.MkdirAll(pulled, 0o755); err != nil {
					return err
				}
				if _, _, err := launch(ctx, []string{"HOME=" + b.dir}, "sh", "-ec", pull); err != nil {
					return err
				}
			}
			return b.newTarget(ctx)
		}
	}
	add := func(name, pull string, push func() string) {
		out = append(out, tool{name, ready(strings.Fields(name)[0], pull), func(ctx context.Context) (figures, error) {
			f, _, err := launch(ctx, []string{"HOME=" + b.dir}, "sh", "-ec", push())
			return f, err
		}})
	}
	from := b.source.host + "/" + componentPath
	if exe, ok := b.peer("oras"); ok {
		dir := filepath.Join(pulled, "oras")
		add("oras restore", fmt.Sprintf("%s backup --plain-http --output %s %s", exe, dir, from+":"+strings.Join(componentTags(b.release), ",")),
			func() string {
				return fmt.Sprintf("exec %s restore --plain-http --concurrency 4 --input %s %s", exe, dir, b.target.host+"/"+repository)
			})
	}
	if exe, ok := b.peer("crane"); ok {
		dir := filepath.Join(pulled, "crane")
		add("crane push", fmt.Sprintf("%s pull --insecure --format oci %s %s", exe, strings.Join(componentRefs(b.release, from), " "), dir),
			func() string {
				return fmt.Sprintf("exec %s push --insecure --index %s %s", exe, dir, b.target.host+"/"+repository+":all")
			})
	}
	return out
}
