package preflight

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/layout"
)

// space asks the file system once.
func (n *near) space() (layout.Space, error) {
	return n.spaceOf.get(func() (layout.Space, error) { return n.opts.stat(n.opts.Media) })
}

// driveMounted sees whether MEDIA can be a folder on a drive.
func driveMounted(_ context.Context, n *near) Check {
	media := n.opts.Media
	if media == "" {
		return skip("no MEDIA was named")
	}
	fi, err := os.Stat(media)
	what := "a folder"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		parent, perr := os.Stat(filepath.Dir(filepath.Clean(media)))
		if perr != nil || !parent.IsDir() {
			err := fmt.Errorf("%s: %w: the folder above it does not exist", media, bundle.ErrNotBundle)
			return fail(err, driveRemedy(err), "%v", err)
		}
		what = "not there yet, will be made"
	case err != nil:
		return fail(err, driveRemedy(err), "%v", err)
	case !fi.IsDir():
		err := fmt.Errorf("%s: %w: it is a file, and MEDIA is a folder", media, bundle.ErrNotBundle)
		return fail(err, driveRemedy(err), "%v", err)
	}
	s, err := n.space()
	if err != nil {
		return warn(err, driveRemedy(err), "%s: %s; whether it lies on a drive of its own cannot be told: %v", media, what, err)
	}
	if s.SameDeviceAsRoot {
		return warn(nil, "mount the drive and name a folder on it; findmnt -T "+media+" shows what is mounted there. If you mean to pack onto this disk and copy later, go on",
			"%s: %s, on the same device as /: the drive is perhaps not mounted", media, what)
	}
	return pass("%s: %s, on a device of its own (%s)", media, what, s.Filesystem)
}

// driveBundle looks at what stands in MEDIA already.
func driveBundle(ctx context.Context, n *near) Check {
	media := n.opts.Media
	if media == "" {
		return skip("no MEDIA was named")
	}
	empty, err := isEmpty(media)
	if errors.Is(err, fs.ErrNotExist) {
		return pass("nothing is there yet")
	}
	if err == nil && empty {
		return pass("%s is empty", media)
	}
	b, err := bundle.Open(ctx, media, bundle.OpenOptions{Cache: n.opts.Cache, Logger: n.opts.Logger})
	if err != nil {
		return fail(err, driveRemedy(err), "%v", err)
	}
	defer b.Close()
	var tags []string
	for _, r := range b.Contents.Releases {
		tags = append(tags, r.Tag)
	}
	has := "a bundle with " + counted(len(tags), "release", "releases")
	if len(tags) > 0 {
		has += ": " + listed(tags)
	}
	const again = "nothing: pack continues from what is there. To see what it is, run pannier audit"
	switch {
	case len(b.SealProblems) > 0:
		p := b.SealProblems[0]
		return warn(p.Err, "run pannier audit to see what is wrong; pack hashes again what no valid seal covers", "%s; %s: %v", has, p.Path, p.Err)
	case b.IndexProblem != nil && b.Index != nil:
		return warn(b.IndexProblem, "nothing: pack makes the index again from the layout", "%s; its index cannot be used: %v", has, b.IndexProblem)
	case b.Seal == nil:
		return warn(nil, again, "%s, not sealed: an earlier pack did not finish", has)
	case b.Interrupted || b.Leftovers:
		return warn(nil, again, "%s, sealed %s; a later pack onto it did not finish", has, b.Seal.Sealed.Format("2006-01-02"))
	}
	return pass("%s, sealed %s", has, b.Seal.Sealed.Format("2006-01-02"))
}

// isEmpty reports whether nothing but what operating systems leave stands in dir.
func isEmpty(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if !bundle.SystemFile(e.Name()) {
			return false, nil
		}
	}
	return true, nil
}

// probeFolder is where drive-writable writes, inside MEDIA. It is beside the bundle's own
// folder so that what a killed preflight leaves there is no finding of an audit.
const probeFolder = "pannier-preflight.tmp"

// probeSize is how many bytes are written: more than a cluster of any file system.
const probeSize = 256 << 10

// written is what came of writing to the drive.
type written struct {
	method  layout.CacheMethod // how the cache was passed for reading back
	readErr error              // of reading back
	left    error              // of cleaning up
	made    bool               // the folder was, and is removed again
}

// tryDrive does to the drive what pack does, once, in a folder of its own: create, write,
// fsync, rename, sync, and read back past the cache. It leaves nothing, and does not try on a
// drive that is mounted read-only.
func (n *near) tryDrive(ctx context.Context) (written, error) {
	return n.wrote.get(func() (w written, err error) {
		s, err := n.space()
		if err == nil && s.ReadOnly {
			return w, fmt.Errorf("%s: %w: it is mounted so", n.opts.Media, layout.ErrReadOnly)
		}
		made, err := makeFolder(n.opts.Media)
		if err != nil {
			return w, err
		}
		if made {
			defer os.Remove(n.opts.Media)
		}
		root, err := os.OpenRoot(n.opts.Media)
		if err != nil {
			return w, err
		}
		defer root.Close()
		if fi, err := root.Stat("."); err == nil {
			// The times of the folder are part of what is left as it was.
			defer func() { _ = root.Chtimes(".", fi.ModTime(), fi.ModTime()) }()
		}
		if err := root.RemoveAll(probeFolder); err != nil { // of a preflight that was killed
			return w, err
		}
		defer func() {
			if w.left = root.RemoveAll(probeFolder); w.left != nil && err == nil {
				err = fmt.Errorf("removing what was written: %w", w.left)
			}
		}()
		w, err = n.writeProbe(ctx)
		w.made = made
		return w, err
	})
}

// writeProbe writes one blob as pack does.
func (n *near) writeProbe(ctx context.Context) (written, error) {
	var w written
	l, err := layout.Create(filepath.Join(n.opts.Media, probeFolder), layout.Options{FS: n.opts.FS, Logger: n.opts.Logger})
	if err != nil {
		return w, err
	}
	defer l.Close()
	data := bytes.Repeat([]byte("pannier preflight\n"), probeSize/18+1)[:probeSize]
	desc := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(data), Size: probeSize}
	sums, err := l.IngestBytes(ctx, desc, data)
	if err != nil {
		return w, err
	}
	if err := l.Flush(ctx); err != nil {
		return w, err
	}
	if w.method, w.readErr = l.DropCache(ctx); w.readErr == nil {
		w.readErr = l.ReadBack(ctx, desc, sums, nil)
	}
	return w, l.RemoveBlob(desc.Digest)
}

func makeFolder(dir string) (made bool, err error) {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, syscall.EROFS) {
			err = fmt.Errorf("%w: %w", layout.ErrReadOnly, err)
		}
		return false, err
	}
	return true, nil
}

func driveWritable(ctx context.Context, n *near) Check {
	if n.opts.Media == "" {
		return skip("no MEDIA was named")
	}
	w, err := n.tryDrive(ctx)
	if err != nil {
		return fail(err, driveRemedy(err), "writing to %s failed: %v", n.opts.Media, err)
	}
	made := ""
	if w.made {
		made = ", which was made for that and removed again"
	}
	return pass("a file of %s was created, written, synced, renamed and removed in %s%s", content.SizeText(probeSize), n.opts.Media, made)
}

func driveReadBack(ctx context.Context, n *near) Check {
	if n.opts.Media == "" {
		return skip("no MEDIA was named")
	}
	w, err := n.tryDrive(ctx)
	switch {
	case w.method == "" && w.readErr == nil:
		if err == nil {
			return skip("nothing was read")
		}
		return skipAfter("drive-writable")
	case w.readErr != nil:
		return fail(w.readErr, "do not use this drive: it does not give back what was written to it", "%v", w.readErr)
	case !w.method.Passed():
		return warn(nil, "pack as usual; then unplug the drive, plug it in again and run pannier audit, which reads what is really on it. As root, the cache of exfat-fuse and ntfs-3g can be passed",
			"what was written was read back right, but %s", w.method.Text())
	}
	return pass("what was written was read back right: %s", w.method.Text())
}

// driveFileSystem compares what the file system can hold with the plan.
func driveFileSystem(ctx context.Context, n *near) Check {
	if n.opts.Media == "" {
		return skip("no MEDIA was named")
	}
	s, err := n.space()
	if err != nil {
		return warn(err, driveRemedy(err), "the file system cannot be asked: %v", err)
	}
	if s.MaxFile == 0 && s.MaxNames == 0 {
		if s.Filesystem == "tmpfs" {
			return warn(nil, "name a folder on the drive", "tmpfs: what is packed here is gone when this machine is switched off")
		}
		return pass("%s: no limit on files or names that matters", s.Filesystem)
	}
	limits := fmt.Sprintf("%s: files of at most %d bytes, about %d names in a folder", s.Filesystem, s.MaxFile, s.MaxNames)
	const remedy = "format the drive as exFAT, ext4, XFS or NTFS"
	p, err := n.plan(ctx)
	if err != nil || p == nil {
		return warn(nil, "name a release to have it compared, or "+remedy, "%s; not compared with a release", limits)
	}
	names := p.Plan.Blobs.Total + int64(p.Plan.Manifests)
	blobs := content.Plural(int(names), "blob", "blobs")
	if s.MaxNames > 0 && names > int64(s.MaxNames) {
		err := fmt.Errorf("%d blobs in one folder: %w", names, layout.ErrTooLarge)
		return fail(err, remedy, "%s; the plan has %s", limits, blobs)
	}
	if s.MaxFile > 0 {
		largest, err := n.largest(ctx)
		switch {
		case err != nil:
			return warn(err, remedyFor(err), "%s; %s fit, the largest is not known: %v", limits, blobs, err)
		case largest.Size > s.MaxFile:
			err := fmt.Errorf("blob %s of %d bytes: %w", largest.Digest, largest.Size, layout.ErrTooLarge)
			return fail(err, remedy, "%s; %v", limits, err)
		}
		return pass("%s; the plan has %s, the largest of %s", limits, blobs, content.SizeText(largest.Size))
	}
	return pass("%s; the plan has %s", limits, blobs)
}

// driveSpace compares free space with the plan.
func driveSpace(ctx context.Context, n *near) Check {
	if n.opts.Media == "" {
		return skip("no MEDIA was named")
	}
	s, err := n.space()
	if err != nil {
		return warn(err, driveRemedy(err), "free space cannot be told: %v", err)
	}
	free := fmt.Sprintf("%s free of %s", content.SizeText(s.Free), content.SizeText(s.Total))
	p, err := n.plan(ctx)
	switch {
	case err != nil:
		name := cmp.Or(n.stopper(ctx, err), "release-plan")
		return Check{Status: Skip, Detail: free + "; not compared with the release: see " + name, Remedy: "settle " + name + " first"}
	case p == nil:
		return Check{Status: Skip, Detail: free + "; no release was named to compare it with", Remedy: "name the release; one takes about 20 GB"}
	case p.Plan.Missing > 0:
		err := fmt.Errorf("%s: %d bytes too few: %w", n.opts.Media, p.Plan.Missing, layout.ErrNoSpace)
		return fail(err, driveRemedy(err), "%s; %s are needed with parity and the index, %s too few", free, content.SizeText(p.Plan.Need), content.SizeText(p.Plan.Missing))
	}
	return pass("%s; %s are needed with parity and the index", free, content.SizeText(p.Plan.Need))
}
