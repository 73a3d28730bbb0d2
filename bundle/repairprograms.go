package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/layout"
	"pannier/bundle/release"
	"pannier/store"
)

// restorePrograms puts clients and tools back that are not what was sealed. Clients are taken
// once more out of the images of their release, whose blobs have been healed by now; no parity
// need cover them. Lists of sums are made again; what is left, tools among it, is taken from a
// copy of the drive. Each is kept only if it has the sealed digest.
func (r *Repair) restorePrograms(ctx context.Context, b *Bundle, walked *Contents) error {
	if b.Interrupted && !r.opts.Drop {
		return nil // as other files that the later pack may have begun to replace
	}
	wrong := map[string]digest.Digest{}
	sums := b.sums()
	for name, d := range sums {
		if !walked.isProgram(name) || b.Blocked(name) {
			continue
		}
		ok, err := isSealed(ctx, r.l, name, d)
		if err != nil {
			return err
		}
		if !ok {
			wrong[name] = d
		}
	}
	for _, rel := range walked.Releases {
		if err := r.restoreClients(ctx, walked, rel.Tag, rel.Arch, wrong); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		data, ok := r.program(name, wrong[name], sums)
		if !ok {
			continue
		}
		if err := r.put(name, data); err != nil {
			return err
		}
	}
	return nil
}

// isProgram reports whether a path is that of a client of a release that is there, of a tool,
// or of a list of their sums: no other is written here, whatever a drive says.
func (c *Contents) isProgram(name string) bool {
	if name == toolSums || isTool(name) {
		return true
	}
	return slices.ContainsFunc(c.Releases, func(rel store.Release) bool {
		rest, ok := strings.CutPrefix(name, path.Join(dirClients, rel.Tag)+"/")
		_, client := clientAt(rest, rel.Arch)
		return ok && (rest == clientSums || client && strings.Count(rest, "/") == 1)
	})
}

// restoreClients takes those clients of one release that are in wrong out of its images, and
// out of wrong. What an image does not hold, or cannot be read of it, stays in wrong.
func (r *Repair) restoreClients(ctx context.Context, walked *Contents, tag, arch string, wrong map[string]digest.Digest) error {
	byComponent := map[string][]release.Client{}
	for _, pl := range release.Platforms() {
		for _, c := range release.Clients(pl, arch) {
			if _, ok := wrong[clientPath(tag, c)]; ok {
				byComponent[c.Component] = append(byComponent[c.Component], c)
			}
		}
	}
	for _, component := range slices.Sorted(maps.Keys(byComponent)) {
		img, ok := walked.component(tag, component)
		if !ok {
			continue
		}
		var failure error // of writing; an image that cannot be read says nothing of the drive's room
		err := eachClient(ctx, r.l, img.Descriptor, byComponent[component], func(c release.Client, _ int64, from io.Reader) error {
			name := clientPath(tag, c)
			read := &faultReader{r: from}
			err := r.restoreClient(name, wrong[name], read)
			switch {
			case err == nil:
				delete(wrong, name)
			case read.err != nil:
				return read.err
			case !errors.Is(err, content.ErrDigest):
				failure = err
			}
			return failure
		})
		if failure != nil {
			return fmt.Errorf("component %s of %s: %w", component, tag, failure)
		}
		if err = r.l.Diagnose(err); ctx.Err() != nil || errors.Is(err, layout.ErrGone) {
			return errors.Join(ctx.Err(), err)
		}
	}
	return nil
}

// faultReader tells errors of reading from those of whoever writes what is read.
type faultReader struct {
	r   io.Reader
	err error
}

func (f *faultReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// restoreClient writes one client beside the damaged one, and in its place once it is proved.
func (r *Repair) restoreClient(name string, want digest.Digest, from io.Reader) error {
	if err := r.clear(name); err != nil {
		return err
	}
	return r.l.ReplaceStream(name, func(w io.Writer) error {
		sum := digest.SHA256.Digester()
		if _, err := io.Copy(io.MultiWriter(w, sum.Hash()), from); err != nil {
			return err
		}
		if sum.Digest() != want {
			return fmt.Errorf("%s: %w: the image holds another one", name, content.ErrDigest)
		}
		return nil
	})
}

// program returns the bytes of a list of sums, made again, or of a file that a copy of the
// drive has.
func (r *Repair) program(name string, want digest.Digest, sums map[string]digest.Digest) ([]byte, bool) {
	if dir, ok := strings.CutSuffix(name, clientSums); ok {
		own := map[string]digest.Digest{}
		for other, d := range sums {
			if rest, in := strings.CutPrefix(other, dir); in && other != name {
				own[rest] = d
			}
		}
		if text := encodeSums(own); digest.FromBytes(text) == want {
			return text, true
		}
	}
	for _, src := range r.opts.From {
		if src.Files == nil {
			continue
		}
		if data, err := src.Files.ReadFile(name, maxIndexDB); err == nil && digest.FromBytes(data) == want {
			return data, true
		}
	}
	return nil, false
}

// temporaryPrograms lists what an interrupted repair has left beside clients and tools, without
// the ending of it.
func (r *Repair) temporaryPrograms(dir string, depth int) []string {
	var out []string
	entries, _ := r.l.List(dir) // what cannot be listed is reported by the audit
	for _, e := range entries {
		name := dir + "/" + e.Name
		if e.Mode.IsDir() && depth > 0 {
			out = append(out, r.temporaryPrograms(name, depth-1)...)
		}
		if name, ok := strings.CutSuffix(name, ".new"); ok && e.Mode.IsRegular() {
			out = append(out, name)
		}
	}
	return out
}
