package bundle

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// BothEnds calls do with each of items, the largest of which come first, in jobs goroutines.
// Most of them take the largest that is left, so that the last seconds keep every connection
// busy. One in four takes the smallest: it waits for round trips and for names to be made, on
// a drive or in a registry, and meanwhile the others have enough bytes for the wire.
//
// It ends when all is done, with do's first error, or with the cause of the end of ctx.
func BothEnds[T any](ctx context.Context, jobs int, items []T, do func(context.Context, T) error) error {
	g, gctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	take := func(small bool) (item T, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		switch n := len(items); {
		case n == 0 || gctx.Err() != nil:
			return item, false
		case small:
			item, items = items[n-1], items[:n-1]
		default:
			item, items = items[0], items[1:]
		}
		return item, true
	}
	for i := range max(1, jobs) {
		g.Go(func() error {
			for item, ok := take(i%4 == 1); ok; item, ok = take(i%4 == 1) {
				if err := do(gctx, item); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}
