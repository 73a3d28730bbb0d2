package layout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// waiting is a blob that is whole under the name of its partial file and has been compared,
// and gets its own name at the next Flush.
type waiting struct {
	replace bool // something else is under the blob's name
}

// whole notes that the partial file of d holds all of it.
func (l *Layout) whole(d digest.Digest, replace bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting[d] = waiting{replace}
}

// isWhole reports whether d waits for the next Flush.
func (l *Layout) isWhole(d digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.waiting[d]
	return ok
}

// named remembers that name was given to a file that must be synced once more.
func (l *Layout) named(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsynced[name] = true
}

// Flush gives every blob whose ingest had returned before the call its name, and makes it
// durable: when it returns nil they are there on every file system including FAT, and may be
// recorded as complete. First their bytes are synced, then the files renamed, then synced a
// second time. Each sync is one syncfs where the file system can be relied on for that, else
// one for each file.
//
// A Flush that failed stays failed: the kernel reports lost writes once and then calls the
// same pages clean. Open the layout again and ingest; what is there is then hashed from the
// medium.
func (l *Layout) Flush(ctx context.Context) error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	l.mu.Lock()
	err := l.flushErr
	todo, again := maps.Clone(l.waiting), maps.Clone(l.unsynced)
	l.mu.Unlock()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(todo)+len(again) == 0 {
		return nil
	}
	if err := l.flush(ctx, todo, again); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return err
		}
		err = fmt.Errorf("flush the drive: %w", err)
		l.mu.Lock()
		l.flushErr = err
		l.mu.Unlock()
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range again {
		delete(l.unsynced, name)
	}
	return nil
}

func (l *Layout) flush(ctx context.Context, todo map[digest.Digest]waiting, again map[string]bool) error {
	digests := slices.Sorted(maps.Keys(todo))
	if len(digests) > 0 {
		partials := make([]string, len(digests))
		for i, d := range digests {
			partials[i] = PartialPath(d)
		}
		if err := l.syncFiles(ctx, partials); err != nil {
			return err
		}
	}
	for _, d := range digests {
		if err := l.rename(d, todo[d]); err != nil {
			return err
		}
		again[BlobPath(d)] = true
	}
	if err := l.syncFiles(ctx, slices.Sorted(maps.Keys(again))); err != nil {
		return err
	}
	// Also after a syncfs: not every file system makes it flush the cache in the stick
	// itself (vfat has no such hook); a sync of a folder does.
	return l.syncDirs(blobDir, partialDir)
}

// syncFiles syncs the files named, by syncing everything where that can be relied on.
func (l *Layout) syncFiles(ctx context.Context, names []string) error {
	err := l.fs.SyncFS()
	if !errors.Is(err, errors.ErrUnsupported) {
		return classify(err)
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.resync(name); err != nil {
			return err
		}
	}
	return nil
}

// rename gives a synced partial file the blob's name. Between this and the second sync a
// power cut may cost the blob on FAT, never a wrong belief in it: no record exists.
func (l *Layout) rename(d digest.Digest, w waiting) error {
	from, to := PartialPath(d), BlobPath(d)
	if w.replace {
		// Never rename over a file: FAT may lose both.
		if err := l.RemoveFile(to); err != nil {
			return err
		}
	}
	if err := l.fs.Rename(from, to); err != nil {
		return classifyCreate(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, d)
	l.unsynced[to] = true
	return nil
}

// FlushNames makes durable which names there are: removals, which [Layout.Flush] does not wait
// for. A file that is back after a power cut would be taken for something that was left
// undone.
func (l *Layout) FlushNames() error {
	if err := l.syncDirs(".", blobDir, partialDir, ownDir); err != nil {
		return err
	}
	// Drivers that cannot sync a folder write all of them when they sync a file.
	return l.resync(ocispec.ImageLayoutFile)
}
