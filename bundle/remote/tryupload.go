package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// UploadTrial is what was found out about how blobs may be sent.
type UploadTrial struct {
	Chunks error // why a blob may not be sent in several requests; nil if it may
	Whole  error // why a request with a body of the size asked for is refused; nil if nobody objected
}

// tryChunk is how many bytes are sent to see whether chunks are taken.
const tryChunk = 1 << 10

// TryUpload finds out how blobs may be sent: whether in chunks, and whether the registry, or a
// proxy before it, objects to a request of size bytes once it sees the header, before any of
// them is sent. Two uploads are begun and cancelled, and nothing is stored. The error is one
// of beginning an upload, or of a host that ceases to answer.
func (r *Repository) TryUpload(ctx context.Context, size int64) (UploadTrial, error) {
	var t UploadTrial
	zeros := make([]byte, tryChunk)
	q := &call{op: "try upload to", method: http.MethodPatch, push: true, body: zeros,
		header: http.Header{"Content-Type": {"application/octet-stream"}, "Content-Range": {fmt.Sprintf("0-%d", tryChunk-1)}},
		ok:     []int{http.StatusAccepted, http.StatusNoContent, http.StatusCreated}}
	var err error
	if t.Chunks, err = r.tryUpload(ctx, q, nil); err != nil {
		return t, err
	}
	// Whoever reads the body was not refused: that is all that was to be known.
	body := &uploadBody{ctx: ctx, desc: ocispec.Descriptor{Digest: content.Descriptor("", nil).Digest, Size: size},
		open: func(context.Context, int64) (io.ReadCloser, error) { return io.NopCloser(notSent{}), nil }}
	q = &call{op: "try upload to", method: http.MethodPatch, push: true, ok: q.ok}
	t.Whole, err = r.tryUpload(ctx, q, body)
	return t, err
}

// tryUpload begins an upload, sends it one request, and cancels it. refused is the registry's
// answer to that request.
func (r *Repository) tryUpload(ctx context.Context, q *call, body *uploadBody) (refused, err error) {
	location, _, err := r.begin(ctx, q.op, "")
	if err != nil {
		return nil, err
	}
	q.upload = location
	x, e := r.send(ctx, q, body, nil)
	if x != nil {
		if next, lerr := r.location(x.resp.Header, x.url); lerr == nil {
			location = next
		}
		x.close()
	}
	r.abandon(ctx, location)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case e == nil, errors.Is(e, errNotSent):
		return nil, nil
	case e.Status == 0:
		return nil, r.named(e, q)
	}
	return r.named(e, q), nil
}

// notSent is a body that is offered and never sent.
type notSent struct{}

var errNotSent = errors.New("it is not sent")

func (notSent) Read([]byte) (int, error) { return 0, errNotSent }
