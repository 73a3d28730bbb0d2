package serve

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
)

// manifest answers with a manifest by tag or digest. It is read and hashed anew every time.
func (h *Handler) manifest(w http.ResponseWriter, req *http.Request, repo *repository, reference string, p *Pull) error {
	d := digest.Digest(reference)
	if !strings.Contains(reference, ":") {
		p.Reference, d = reference, repo.tags[reference]
	} else if d.Validate() != nil {
		return &apiError{http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("%q is no digest", reference)}
	}
	desc, ok := repo.manifests[d]
	if !ok {
		return &apiError{http.StatusNotFound, "MANIFEST_UNKNOWN", fmt.Sprintf("no manifest %q is served in this repository", reference)}
	}
	p.Digest = d
	raw, err := h.read(req.Context(), desc, p)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	head(w, desc, desc.MediaType)
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(raw))
	return nil
}

// read reads a manifest from the source, and where that fails from what heals it.
func (h *Handler) read(ctx context.Context, desc ocispec.Descriptor, p *Pull) ([]byte, error) {
	raw, err := content.ReadAll(ctx, h.src, desc, content.MaxManifest)
	if err == nil {
		return raw, nil
	}
	for _, other := range h.heal(desc) {
		raw, herr := content.ReadAll(ctx, other, desc, content.MaxManifest)
		if herr == nil {
			p.Healed = true
			return raw, nil
		}
		other.Forget(desc.Digest)
		err = fmt.Errorf("%w; reconstructing it: %v", err, herr)
	}
	return nil, err
}

// blob answers with a blob or a part of it, proven.
func (h *Handler) blob(w http.ResponseWriter, req *http.Request, repo *repository, reference string, p *Pull) error {
	d := digest.Digest(reference)
	if d.Validate() != nil {
		return &apiError{http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("%q is no digest", reference)}
	}
	desc, ok := repo.blobs[d]
	if !ok {
		return &apiError{http.StatusNotFound, "BLOB_UNKNOWN", fmt.Sprintf("no blob %s is served in this repository", d)}
	}
	p.Digest = d
	if req.Method == http.MethodHead {
		// Asking whether it is there costs no reading of it.
		if err := h.present(req.Context(), desc); err != nil {
			return fmt.Errorf("blob %s: %w", d, err)
		}
		head(w, desc, "application/octet-stream")
		http.ServeContent(w, req, "", time.Time{}, &proven{size: desc.Size})
		return nil
	}
	proof, err := h.proofs.of(req.Context(), desc)
	if err != nil {
		return fmt.Errorf("blob %s: %w", d, err)
	}
	p.Healed = proof.healed
	r := &proven{ctx: req.Context(), src: proof.src, desc: desc, size: desc.Size, sums: proof.sums}
	defer r.Close()
	head(w, desc, "application/octet-stream")
	http.ServeContent(w, req, "", time.Time{}, r)
	if r.err != nil {
		if req.Context().Err() == nil {
			h.proofs.revoke(desc, proof, r.err)
		}
		return fmt.Errorf("blob %s: %w", d, r.err)
	}
	return nil
}

// present reports whether a blob is there with its size, and not known to be damaged; one that
// must be healed is there once it has been.
func (h *Handler) present(ctx context.Context, desc ocispec.Descriptor) error {
	if err := h.proofs.failed(desc.Digest); err != nil {
		return err
	}
	size, err := h.src.Stat(desc.Digest)
	if (err != nil || size != desc.Size) && len(h.heal(desc)) > 0 {
		_, err := h.proofs.of(ctx, desc)
		return err
	}
	switch {
	case err != nil:
		return err
	case size != desc.Size:
		return fmt.Errorf("%w: %d bytes, and it must have %d", content.ErrSize, size, desc.Size)
	}
	return nil
}

// head sets what every answer with content has. The digest is the strongest of all tags.
func head(w http.ResponseWriter, desc ocispec.Descriptor, mediaType string) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", desc.Digest.String())
	w.Header().Set("Etag", `"`+desc.Digest.String()+`"`)
}
