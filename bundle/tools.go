package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"pannier/bundle/content"
	"pannier/bundle/release"
)

// dirTools is where this program is for whoever finds the drive (docs/format.md, "Tools").
const dirTools = "pannier/bin"

// toolSums is the name of the file with the sums of the tools.
const toolSums = dirTools + "/" + clientSums

// Tool is this program for one platform. Digest and Size are those of the program that Open
// gives; it is compared with them when it is written.
type Tool struct {
	Platform release.Platform
	Digest   digest.Digest
	Size     int64
	Open     func() (io.ReadCloser, error)
}

// InstalledTool is this program for one platform, as a seal covers it on a drive. That it is
// genuine no seal can say: its digest must reach whoever runs it by another way.
type InstalledTool struct {
	Platform string        `json:"platform"` // "linux/amd64"
	Path     string        `json:"path"`     // below the root of the drive
	Digest   digest.Digest `json:"digest"`
}

// Tools lists the programs that the seal covers; none without one.
func (b *Bundle) Tools() []InstalledTool {
	if b.Seal == nil {
		return nil
	}
	return installedTools(b.sums())
}

// installedTools are the tools among the files that a seal covers, in the order of platforms.
func installedTools(sums map[string]digest.Digest) []InstalledTool {
	var out []InstalledTool
	for _, pl := range release.Platforms() {
		if d, ok := sums[toolPath(pl)]; ok {
			out = append(out, InstalledTool{Platform: pl.String(), Path: toolPath(pl), Digest: d})
		}
	}
	return out
}

// toolPath is where the tool for a platform lies on a drive.
func toolPath(pl release.Platform) string {
	name := "pannier"
	if pl.OS == "windows" {
		name += ".exe"
	}
	return path.Join(dirTools, pl.Folder(), name)
}

// isTool reports whether a path on a drive is that of a tool.
func isTool(name string) bool {
	return slices.ContainsFunc(release.Platforms(), func(pl release.Platform) bool { return toolPath(pl) == name })
}

// toolsIn are the tools among the files that a seal covers.
func toolsIn(sums map[string]digest.Digest) map[string]digest.Digest {
	out := map[string]digest.Digest{}
	for name, d := range sums {
		if isTool(name) {
			out[name] = d
		}
	}
	return out
}

// lackingTools are the tools that are asked for and that the seal does not cover, or in
// another version.
func (p *packer) lackingTools() []Tool {
	sealed := toolsIn(p.sealedPrograms(dirTools))
	var out []Tool
	for _, t := range p.opts.Tools {
		if sealed[toolPath(t.Platform)] != t.Digest {
			out = append(out, t)
		}
	}
	return out
}

// toolsNeed is how many bytes the tools take that are not there.
func (p *packer) toolsNeed() (n int64) {
	for _, t := range p.lackingTools() {
		n += t.Size
	}
	return n
}

// keptTools are the tools that go on standing on the drive: those that its seal covers, each of
// them hashed where the seal alone is not trusted. Of one that goes somebody is told who may
// have counted on it.
func (p *packer) keptTools(ctx context.Context) (map[string]digest.Digest, error) {
	kept := toolsIn(p.sealedPrograms(dirTools))
	if p.have == nil {
		return kept, nil
	}
	sealed := map[string]digest.Digest{}
	if p.have.Seal != nil {
		sealed = toolsIn(p.have.sums())
	}
	for _, pl := range release.Platforms() {
		name := toolPath(pl)
		if kept[name] != "" || slices.ContainsFunc(p.opts.Tools, func(t Tool) bool { return t.Platform == pl }) {
			continue
		}
		f, err := p.have.Layout.OpenFile(name)
		if err == nil {
			f.Close()
		} else if errors.Is(err, fs.ErrNotExist) && sealed[name] == "" {
			continue // it never had one
		}
		ok, err := isSealed(ctx, p.have.Layout, name, sealed[name])
		if err != nil {
			return nil, err
		}
		if !ok {
			p.warn("%s goes from the drive: no seal vouches for it as it is; --with-tool puts it there again", name)
			continue
		}
		kept[name] = sealed[name]
	}
	return kept, nil
}

// writeTools writes the tools that are asked for beside those that the seal covers, with their
// sums, and leaves nothing else in their folder. Nothing names them before SHA256SUMS does.
func (p *packer) writeTools(ctx context.Context) error {
	all, err := p.keptTools(ctx)
	if err != nil {
		return err
	}
	for _, t := range p.lackingTools() {
		name := toolPath(t.Platform)
		p.opts.Progress(Event{Phase: PhaseTools, Item: name})
		if err := p.writeTool(ctx, name, t); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all[name] = t.Digest
	}
	for name, d := range all {
		p.clients[name] = d
	}
	if len(all) > 0 {
		text := encodeSums(toolSumsOf(all))
		p.clients[toolSums] = digest.FromBytes(text)
		if err := p.layout.ReplaceFile(toolSums, text); err != nil {
			return err
		}
	}
	return p.removeClients(dirTools)
}

func (p *packer) writeTool(ctx context.Context, name string, t Tool) error {
	rc, err := t.Open()
	if err != nil {
		return err
	}
	defer rc.Close()
	if err := p.writeClient(name, &contextReader{ctx, io.LimitReader(rc, t.Size+1)}); err != nil {
		return err
	}
	if got := p.clients[name]; got != t.Digest {
		return fmt.Errorf("%w: it has changed since it was looked at, from %s to %s", content.ErrDigest, t.Digest, got)
	}
	return nil
}

// toolSumsOf are the sums of tools by their paths below the folder of tools.
func toolSumsOf(tools map[string]digest.Digest) map[string]digest.Digest {
	out := map[string]digest.Digest{}
	for name, d := range tools {
		out[strings.TrimPrefix(name, dirTools+"/")] = d
	}
	return out
}

// CheckTools judges what the seal covers in the folder of tools: whether only tools are there,
// and their sums are theirs. Nothing on a drive can say whether a tool is genuine. It returns
// how many there are, and one error for each path that is wrong.
func CheckTools(sums map[string]digest.Digest) (n int, wrong map[string]error) {
	tools := toolsIn(sums)
	wrong = map[string]error{}
	for name := range sums {
		if strings.HasPrefix(name, dirTools+"/") && name != toolSums && !isTool(name) {
			wrong[name] = fmt.Errorf("%w: no pack writes a file of that name", ErrDamaged)
		}
	}
	if d, ok := sums[toolSums]; ok && d != digest.FromBytes(encodeSums(toolSumsOf(tools))) {
		wrong[toolSums] = fmt.Errorf("%w: its sums are not those of the programs", ErrDamaged)
	}
	return len(tools), wrong
}
