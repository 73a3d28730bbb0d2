package bundle

import (
	"fmt"
	"slices"

	"pannier/store"
)

// Differences compares contents read from the bbolt index with contents walked in the layout,
// and says in a sentence each where they differ. Of a blob's record it compares what both can
// know: size, media type, and the images that need it.
func (c *Contents) Differences(walked *Contents) []string {
	var out []string
	differ := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for d, r := range c.Records {
		w, ok := walked.Records[d]
		switch {
		case !ok:
			differ("blob %s is in the index and no image needs it", d)
		case r.State != store.StateComplete:
			differ("blob %s is %s in the index", d, r.State)
		case w.Size != r.Size:
			differ("blob %s has %d bytes in the index and %d in a manifest", d, r.Size, w.Size)
		case !slices.Equal(w.Images, r.Images):
			differ("blob %s is needed by other images than the index says", d)
		}
	}
	for d := range walked.Records {
		if _, ok := c.Records[d]; !ok {
			differ("blob %s is not in the index", d)
		}
	}
	for d, r := range c.Presumed {
		if w, ok := walked.Presumed[d]; !ok || w.Size != r.Size || !slices.Equal(w.Images, r.Images) {
			differ("blob %s is presumed by the index, and otherwise by the layout", d)
		}
	}
	if len(walked.Presumed) != len(c.Presumed) {
		differ("the index presumes %d blobs, and the layout %d", len(c.Presumed), len(walked.Presumed))
	}
	for _, img := range walked.Images {
		i := slices.IndexFunc(c.Images, func(o store.Image) bool { return o.Tag == img.Tag })
		if i < 0 {
			differ("image %s is not in the index", img.Tag)
		} else if c.Images[i].Kind != img.Kind || c.Images[i].Reference != img.Reference || c.Images[i].Name != img.Name {
			differ("image %s is described otherwise in the index", img.Tag)
		}
	}
	for _, rel := range walked.Releases {
		o, ok := c.Release(rel.Tag)
		if !ok {
			differ("release %s is not in the index", rel.Tag)
		} else if o.Source != rel.Source || o.Descriptor.Digest != rel.Descriptor.Digest || !slices.Equal(o.Documents, rel.Documents) {
			differ("release %s is described otherwise in the index", rel.Tag)
		}
	}
	slices.Sort(out)
	return out
}
