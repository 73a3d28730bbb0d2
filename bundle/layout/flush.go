package layout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ingested remembers that name was given to a file that must be synced once more.
func (l *Layout) ingested(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tick++
	l.unsynced[name] = l.tick
}

// Flush is the second sync: when it returns nil, every blob whose ingest had returned before
// the call is durable, under its name, on every file system including FAT, and may be recorded
// as complete. It is one syncfs where the file system can be relied on for that, else one
// sync for each blob since the last Flush.
//
// A Flush that failed stays failed: the kernel reports lost writes once and then calls the
// same pages clean. Open the layout again and ingest; blobs are then hashed from the medium.
func (l *Layout) Flush(ctx context.Context) error {
	l.mu.Lock()
	err := l.flushErr
	names := slices.Sorted(maps.Keys(l.unsynced))
	until := l.tick
	l.mu.Unlock()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(names) == 0 {
		return nil
	}
	if err := l.flush(ctx, names); err != nil {
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
	for name, tick := range l.unsynced {
		if tick <= until {
			delete(l.unsynced, name)
		}
	}
	return nil
}

func (l *Layout) flush(ctx context.Context, names []string) error {
	err := l.fs.SyncFS()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return classify(err)
	}
	if err != nil {
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := l.resync(name); err != nil {
				return err
			}
		}
	}
	// Also after a syncfs: not every file system makes it flush the cache in the stick
	// itself (vfat has no such hook); a sync of a folder does.
	return l.syncDirs(blobDir, partialDir)
}
