package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/content"
	"pannier/bundle/release"
	"pannier/store"
)

// dirClients is where the clients of releases are (docs/format.md, "Clients").
const dirClients = "pannier/clients"

// clientSums is the name of the file with the sums of a release's clients, in its folder.
const clientSums = "sha256sum.txt"

// ErrNoClient says that a release brings no oc for a platform.
var ErrNoClient = errors.New("it brings no such client")

// clientPath is where a client lies on a drive.
func clientPath(tag string, c release.Client) string {
	return path.Join(dirClients, tag, c.Platform.Folder(), c.Name)
}

// clientAt says which release's client a path on a drive is; ok is false for any other path.
func clientAt(name, arch string) (c release.Client, ok bool) {
	dir, file := path.Split(name)
	p, err := release.ParsePlatform(path.Base(dir))
	if err != nil || p.Folder() != path.Base(dir) {
		return c, false
	}
	for _, c := range release.Clients(p, arch) {
		if c.Name == file {
			return c, true
		}
	}
	return c, false
}

// wantedClients are the clients that the drive will have of a release: those that it has, and
// those that are asked for with it.
func (p *packer) wantedClients(rel store.Release) []release.Client {
	platforms := map[release.Platform]bool{}
	if p.have != nil {
		entries, _ := p.have.Layout.List(path.Join(dirClients, rel.Tag)) // what cannot be read is not there
		for _, e := range entries {
			if pl, err := release.ParsePlatform(e.Name); err == nil && pl.Folder() == e.Name {
				platforms[pl] = true
			}
		}
	}
	if slices.Contains(p.asked, rel.Tag) {
		for _, pl := range p.opts.Clients {
			platforms[pl] = true
		}
	}
	var out []release.Client
	for _, pl := range release.Platforms() {
		if platforms[pl] {
			out = append(out, release.Clients(pl, rel.Arch)...)
		}
	}
	return out
}

// sealedPrograms are the sums of the files in a folder of programs that the drive's seal
// covers and that are there.
func (p *packer) sealedPrograms(dir string) map[string]digest.Digest {
	out := map[string]digest.Digest{}
	if !p.trusted {
		return out
	}
	for name, d := range p.have.sums() {
		if !strings.HasPrefix(name, dir+"/") {
			continue
		}
		if f, err := p.have.Layout.OpenFile(name); err == nil {
			f.Close()
			out[name] = d
		}
	}
	return out
}

// lacksClients reports whether a client that is asked for is not on the drive, sealed. Which
// programs a platform has is not known before the image is read: oc is there for all.
func (p *packer) lacksClients() bool {
	if len(p.opts.Clients) == 0 {
		return false
	}
	have := p.sealedPrograms(dirClients)
	for _, rel := range p.allReleases() {
		for _, c := range p.wantedClients(rel) {
			if _, ok := have[clientPath(rel.Tag, c)]; !ok && strings.HasPrefix(c.Name, "oc") {
				return true
			}
		}
	}
	return false
}

// clientsNeed is about how many bytes the clients take that are not there: as many as the
// images that hold them, which are compressed, but hold them for all platforms.
func (p *packer) clientsNeed() int64 {
	var n int64
	if !p.lacksClients() {
		return 0
	}
	for _, rel := range p.allReleases() {
		seen := map[digest.Digest]bool{}
		for _, c := range p.wantedClients(rel) {
			if img, ok := p.componentOf(rel.Tag, c.Component); ok && !seen[img.Descriptor.Digest] {
				seen[img.Descriptor.Digest] = true
				n += img.Bytes
			}
		}
	}
	return n
}

// componentOf is the image of a component of a release that will be on the drive.
func (p *packer) componentOf(tag, name string) (store.Image, bool) {
	for _, img := range p.images {
		if img.Kind == store.KindComponent && img.Release == tag && img.Name == name {
			return img, true
		}
	}
	if p.base == nil {
		return store.Image{}, false
	}
	return p.base.component(tag, name)
}

func (c *Contents) component(tag, name string) (store.Image, bool) {
	for _, img := range c.Images {
		if img.Kind == store.KindComponent && img.Release == tag && img.Name == name {
			return img, true
		}
	}
	return store.Image{}, false
}

// checkClients refuses, before anything is moved, releases that bring no clients at all.
func (p *packer) checkClients() error {
	if len(p.opts.Clients) == 0 {
		return nil
	}
	for _, tag := range p.asked {
		if _, ok := p.componentOf(tag, "cli-artifacts"); !ok {
			return fmt.Errorf("release %s: %w: it has no component cli-artifacts", tag, ErrNoClient)
		}
	}
	return nil
}

// writeClients takes the clients out of the images on the drive, streaming, and leaves nothing
// else in their folder. What the seal covers already stays.
func (p *packer) writeClients(ctx context.Context) error {
	sealed := p.sealedPrograms(dirClients)
	p.clients = map[string]digest.Digest{}
	for _, rel := range p.allReleases() {
		missing := map[string][]release.Client{} // by component
		for _, c := range p.wantedClients(rel) {
			name := clientPath(rel.Tag, c)
			if d, ok := sealed[name]; ok {
				p.clients[name] = d
			} else {
				missing[c.Component] = append(missing[c.Component], c)
			}
		}
		for _, component := range slices.Sorted(maps.Keys(missing)) {
			img, ok := p.componentOf(rel.Tag, component)
			if !ok {
				continue
			}
			p.opts.Progress(Event{Phase: PhaseClients, Item: rel.Tag + "-" + component})
			err := eachClient(ctx, p.layout, img.Descriptor, missing[component], func(c release.Client, _ int64, r io.Reader) error {
				return p.writeClient(clientPath(rel.Tag, c), r)
			})
			if err != nil {
				return fmt.Errorf("clients of %s: component %s: %w", rel.Tag, component, err)
			}
		}
		if err := p.finishClients(rel); err != nil {
			return err
		}
	}
	return p.removeClients(dirClients)
}

// eachClient gives the clients that are in an image, those of one platform after the other.
func eachClient(ctx context.Context, f content.Fetcher, desc ocispec.Descriptor, clients []release.Client, take func(release.Client, int64, io.Reader) error) error {
	native := map[string][]release.Client{} // by the architecture of the image that holds them; all but the installer are in every one
	for _, c := range clients {
		arch := ""
		if c.Component == "installer" {
			arch = c.Platform.Arch
		}
		native[arch] = append(native[arch], c)
	}
	for _, arch := range slices.Sorted(maps.Keys(native)) {
		at := map[string]release.Client{}
		for _, c := range native[arch] {
			at[c.Path] = c
		}
		err := release.Files(ctx, f, desc, arch, slices.Sorted(maps.Keys(at)), func(names []string, size int64, r io.Reader) error {
			return take(at[names[0]], size, r)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeClient writes one client in place: nothing names it before SHA256SUMS does.
func (p *packer) writeClient(name string, r io.Reader) error {
	if err := p.layout.RemoveFile(name); err != nil {
		return err
	}
	sum := digest.SHA256.Digester()
	err := p.layout.WriteStream(name, func(w io.Writer) error {
		_, err := io.Copy(io.MultiWriter(w, sum.Hash()), r)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p.clients[name], p.fresh = sum.Digest(), append(p.fresh, name)
	return nil
}

// finishClients writes the sums of a release's clients, and refuses a platform without oc.
func (p *packer) finishClients(rel store.Release) error {
	prefix := path.Join(dirClients, rel.Tag) + "/"
	own := map[string]digest.Digest{}
	for name, d := range p.clients {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			own[rest] = d
		}
	}
	if slices.Contains(p.asked, rel.Tag) {
		for _, pl := range p.opts.Clients {
			c := release.Clients(pl, rel.Arch)[0]
			if _, ok := own[pl.Folder()+"/"+c.Name]; !ok && !p.opts.AnyClients {
				return fmt.Errorf("release %s: %w: %s for %s", rel.Tag, ErrNoClient, c.Name, pl)
			}
		}
	}
	if len(own) == 0 {
		return nil
	}
	text := encodeSums(own)
	p.clients[prefix+clientSums] = digest.FromBytes(text)
	return p.layout.ReplaceFile(prefix+clientSums, text)
}

// removeClients removes what is in the folder of clients and not one of them.
func (p *packer) removeClients(dir string) error {
	entries, err := p.layout.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name)
		switch {
		case SystemFile(e.Name):
		case e.Mode.IsDir() && strings.Count(name, "/") < 4:
			if err := p.removeClients(name); err != nil {
				return err
			}
		case p.clients[name] == "" && !e.Mode.IsDir():
			if err := p.layout.RemoveFile(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// readClients reads the clients and tools of this run back, past the cache, and compares them.
func (p *packer) readClients(ctx context.Context) error {
	for _, name := range p.fresh {
		f, err := p.layout.OpenMedium(name)
		if err != nil {
			return err
		}
		sum := digest.SHA256.Digester()
		_, err = io.Copy(sum.Hash(), &contextReader{ctx, f})
		f.Close()
		if err == nil && sum.Digest() != p.clients[name] {
			err = content.ErrDigest
		}
		if err != nil {
			return fmt.Errorf("read back: %s: %w", name, err)
		}
	}
	return nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// CheckClients compares the clients on a drive, by path with the sums that its seal covers,
// with those inside the signed release: a drive that somebody else has sealed again can carry
// any program. It returns one error for each path that is wrong; ctx's if it ended. f reads the
// drive that c is the contents of.
func (c *Contents) CheckClients(ctx context.Context, f content.Fetcher, tag string, sums map[string]digest.Digest) (map[string]error, error) {
	rel, ok := c.Release(tag)
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNoRelease, tag)
	}
	prefix := path.Join(dirClients, tag) + "/"
	wrong, own := map[string]error{}, map[string]digest.Digest{}
	byComponent := map[string][]release.Client{}
	for name, d := range sums {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok || rest == clientSums {
			continue
		}
		own[rest] = d
		client, ok := clientAt(rest, rel.Arch)
		if !ok || clientPath(tag, client) != name {
			wrong[name] = fmt.Errorf("%w: it is no client of a release", ErrDamaged)
			continue
		}
		wrong[name] = fmt.Errorf("%w: component %s of the release does not hold it", ErrDamaged, client.Component)
		byComponent[client.Component] = append(byComponent[client.Component], client)
	}
	for component, clients := range byComponent {
		img, ok := c.component(tag, component)
		if !ok {
			continue
		}
		err := eachClient(ctx, f, img.Descriptor, clients, func(client release.Client, _ int64, r io.Reader) error {
			sum := digest.SHA256.Digester()
			if _, err := io.Copy(sum.Hash(), r); err != nil {
				return err
			}
			name := clientPath(tag, client)
			delete(wrong, name)
			if sum.Digest() != sums[name] {
				wrong[name] = fmt.Errorf("%w: component %s of the release holds another one, %s", ErrDamaged, component, sum.Digest())
			}
			return nil
		})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			for _, client := range clients {
				wrong[clientPath(tag, client)] = fmt.Errorf("it could not be compared with component %s: %w", component, err)
			}
		}
	}
	if d, ok := sums[prefix+clientSums]; ok && d != digest.FromBytes(encodeSums(own)) {
		wrong[prefix+clientSums] = fmt.Errorf("%w: its sums are not those of the clients", ErrDamaged)
	}
	return wrong, nil
}

// Clients are the platforms whose clients of a release the drive has, as its folders say.
func (b *Bundle) Clients(tag string) []string {
	entries, _ := b.Layout.List(path.Join(dirClients, tag)) // absent, for most
	var out []string
	for _, e := range entries {
		if pl, err := release.ParsePlatform(e.Name); err == nil && pl.Folder() == e.Name && e.Mode.IsDir() {
			out = append(out, pl.String())
		}
	}
	return out
}
