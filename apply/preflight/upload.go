package preflight

import (
	"context"
	"errors"
	"net/http"

	"pannier/bundle/content"
	"pannier/bundle/remote"
)

// usualLargest is the size, in bytes, that is asked about where no drive says how large blobs
// are: the largest layers of releases have about as much.
const usualLargest = 1 << 30

// registryUploads sees how blobs may be sent: whether a body as long as the largest blob is
// let pass, by the registry and by proxies before it, and whether chunks are taken, which are
// what is sent where it is not.
func registryUploads(ctx context.Context, f *far) Check {
	if _, err := f.greet(ctx); err != nil {
		return skipAfter("registry-api")
	}
	if err := f.push(ctx); err != nil {
		return skipAfter("registry-push")
	}
	size := f.largest(ctx)
	trial, err := f.repo.TryUpload(ctx, size)
	if err != nil {
		return warn(err, hostRemedy(err), "it could not be found out: %v", err)
	}
	text := "a request of " + content.SizeText(size)
	tooLong := trial.Whole != nil && statusOf(trial.Whole) == http.StatusRequestEntityTooLarge
	switch {
	case tooLong && trial.Chunks != nil:
		return fail(trial.Whole, hostRemedy(trial.Whole), "%s is refused, and so are chunks: %v; %v", text, trial.Whole, trial.Chunks)
	case tooLong:
		return warn(trial.Whole, hostRemedy(trial.Whole), "%s is refused: blobs will be sent in chunks, which takes longer: %v", text, trial.Whole)
	case trial.Chunks != nil:
		return pass("%s is let pass; chunks are not taken, so that an upload that breaks off begins anew: %v", text, trial.Chunks)
	}
	return pass("%s is let pass, and chunks are taken", text)
}

func statusOf(err error) int {
	var e *remote.Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// largest is the size of the largest blob on the drive.
func (f *far) largest(ctx context.Context) int64 {
	if f.opts.Media == "" {
		return usualLargest
	}
	b, err := f.bundle(ctx)
	if err != nil {
		return usualLargest
	}
	var n int64
	for _, r := range b.Contents.Records {
		if !content.IsManifest(r.MediaType) {
			n = max(n, r.Size)
		}
	}
	return max(n, 1<<20)
}
