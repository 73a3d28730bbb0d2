package main

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"pannier/bundle"
	"pannier/bundle/content"
	"pannier/bundle/release"
)

// toolFlags say for which platforms this program itself goes onto the drive.
type toolFlags struct {
	tools   cli.StringSlice
	toolDir string
}

// ownTool is the value of --with-tool that stands alone: the platform of this program.
const ownTool = "own"

func (f *toolFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "with-tool", Destination: &f.tools,
			Usage: "put this very program onto the drive too, sealed, so that the other side needs nothing else: for the platform that it runs on here, or for each `PLATFORM` that is named, as linux/amd64,windows; all for those of --tool-dir; repeatable"},
		&cli.StringFlag{Name: "tool-dir", Destination: &f.toolDir, TakesFile: true,
			Usage: "the folder `DIR` with the released archives for other platforms and their SHA256SUMS, as \"make dist\" makes it"},
	}
}

// readsPlatforms reports whether a word is a list of platforms, and no argument.
func readsPlatforms(text string) bool {
	for _, one := range strings.Split(text, ",") {
		if _, err := release.ParsePlatform(one); err != nil && one != "all" && one != ownTool {
			return false
		}
	}
	return true
}

// meansPlatform reports whether a word that is no list of platforms was meant as one, as
// "linux/amd65": then that is what is said of it, and not that it is no RELEASE.
func meansPlatform(text string) bool {
	first, _, _ := strings.Cut(text, ",")
	system, _, found := strings.Cut(first, "/")
	return found && !isFolder(text) && slices.ContainsFunc(release.Platforms(), func(p release.Platform) bool { return p.OS == system })
}

// values looks at every program that is asked for, and hashes it.
func (f *toolFlags) values(s *session) (out []bundle.Tool, err error) {
	given := f.tools.Value()
	if len(given) == 0 {
		if f.toolDir != "" {
			return nil, usagef(s.command, "--tool-dir goes with --with-tool")
		}
		return nil, nil
	}
	dir := s.env.expandHome(f.toolDir)
	var archives map[release.Platform]toolArchive
	if dir != "" {
		archives, err = toolArchives(dir, buildVersion())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, usagef(s.command, "--tool-dir %s: it takes the folder of the released archives with their SHA256SUMS, as \"make dist\" makes it: %v", f.toolDir, err)
		case err != nil:
			return nil, fmt.Errorf("--tool-dir %s: %w: %w", f.toolDir, errTool, err)
		}
	}
	platforms, err := f.platforms(s, archives)
	if err != nil {
		return nil, err
	}
	for _, pl := range platforms {
		var t bundle.Tool
		archive, there := archives[pl]
		switch {
		case pl == ownPlatform():
			t, err = ownProgram()
		case there:
			t, err = archive.program(pl)
		case dir != "":
			return nil, usagef(s.command, "--with-tool %s: %s has no archive for it; it has those for %s", pl, f.toolDir, platformsText(archives))
		default:
			return nil, usagef(s.command, "--with-tool %s: this program is the one for %s; for others, name with --tool-dir the folder of the released archives (pannier_VERSION_OS_ARCH.tar.gz or .zip, with their SHA256SUMS), as \"make dist\" makes it", pl, ownPlatform())
		}
		if err != nil {
			return nil, fmt.Errorf("--with-tool %s: %w: %w", pl, errTool, err)
		}
		out = append(out, t)
	}
	return out, nil
}

// platforms reads what was asked for, each once.
func (f *toolFlags) platforms(s *session, archives map[release.Platform]toolArchive) (out []release.Platform, err error) {
	for _, text := range strings.Split(strings.Join(f.tools.Value(), ","), ",") {
		var these []release.Platform
		switch text = strings.TrimSpace(text); text {
		case "":
			continue
		case ownTool:
			these = []release.Platform{ownPlatform()}
		case "all":
			these = []release.Platform{ownPlatform()}
			for _, pl := range release.Platforms() {
				if _, ok := archives[pl]; ok {
					these = append(these, pl)
				}
			}
		default:
			pl, err := release.ParsePlatform(text)
			if err != nil {
				return nil, usagef(s.command, "--with-tool: %s, or all", strings.TrimPrefix(err.Error(), release.ErrReference.Error()+": "))
			}
			these = []release.Platform{pl}
		}
		for _, pl := range these {
			if !slices.Contains(out, pl) {
				out = append(out, pl)
			}
		}
	}
	return out, nil
}

func ownPlatform() release.Platform { return release.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH} }

// ownProgram is the program that runs.
func ownProgram() (bundle.Tool, error) {
	name, err := os.Executable()
	if err != nil {
		return bundle.Tool{}, err
	}
	return toolOf(ownPlatform(), func() (io.ReadCloser, error) { return os.Open(name) })
}

// errTool says that a program cannot be put onto the drive.
var errTool = errors.New("the program cannot be taken along")

// maxTool bounds the size of a program.
const maxTool = 1 << 30

// toolOf hashes what open gives.
func toolOf(pl release.Platform, open func() (io.ReadCloser, error)) (bundle.Tool, error) {
	t := bundle.Tool{Platform: pl, Open: open}
	rc, err := open()
	if err != nil {
		return t, err
	}
	defer rc.Close()
	h := digest.SHA256.Digester()
	if t.Size, err = io.Copy(h.Hash(), io.LimitReader(rc, maxTool+1)); err != nil {
		return t, err
	}
	if t.Size > maxTool || t.Size == 0 {
		return t, fmt.Errorf("%w: a program of %s", content.ErrSize, content.SizeText(t.Size))
	}
	t.Digest = h.Digest()
	return t, nil
}

// toolArchive is a released archive and the digest that its list has of it.
type toolArchive struct {
	path    string
	version string
	digest  digest.Digest
}

// toolArchives finds the archives in a folder that its SHA256SUMS names, those of the given
// version if several are there.
func toolArchives(dir, version string) (map[release.Platform]toolArchive, error) {
	f, err := openRegular(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[release.Platform]toolArchive{}
	var others []string
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() {
		hexes, name, _ := strings.Cut(lines.Text(), " ")
		name = strings.TrimLeft(name, " *")
		pl, of, ok := archiveName(name)
		if !ok {
			continue
		}
		d := digest.NewDigestFromEncoded(digest.SHA256, hexes)
		if err := content.CheckDigest(d); err != nil {
			return nil, fmt.Errorf("SHA256SUMS: %s: %w", name, err)
		}
		switch before, twice := out[pl]; {
		case of != version && version != "devel":
			others = append(others, name)
		case twice:
			return nil, fmt.Errorf("SHA256SUMS names %s and %s; leave one of them there", filepath.Base(before.path), name)
		default:
			out[pl] = toolArchive{path: filepath.Join(dir, name), version: of, digest: d}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("SHA256SUMS: %w", err)
	}
	if len(out) == 0 && len(others) > 0 {
		return nil, fmt.Errorf("this program is pannier %s, and SHA256SUMS names %s", version, content.Few(others))
	}
	if len(out) == 0 {
		return nil, errors.New("SHA256SUMS names no pannier_VERSION_OS_ARCH.tar.gz or .zip")
	}
	return out, nil
}

// archiveName reads pannier_VERSION_OS_ARCH.tar.gz, or .zip.
func archiveName(name string) (pl release.Platform, version string, ok bool) {
	rest, ok := strings.CutPrefix(name, "pannier_")
	stem, tarred := strings.CutSuffix(rest, ".tar.gz")
	if !tarred {
		var zipped bool
		if stem, zipped = strings.CutSuffix(rest, ".zip"); !zipped {
			return pl, "", false
		}
	}
	words := strings.Split(stem, "_")
	if !ok || len(words) < 3 || strings.ContainsAny(name, `/\`) {
		return pl, "", false
	}
	n := len(words)
	pl = release.Platform{OS: words[n-2], Arch: words[n-1]}
	return pl, strings.Join(words[:n-2], "_"), slices.Contains(release.Platforms(), pl)
}

func platformsText(archives map[release.Platform]toolArchive) string {
	var names []string
	for _, pl := range release.Platforms() {
		if _, ok := archives[pl]; ok {
			names = append(names, pl.String())
		}
	}
	return strings.Join(names, ", ")
}

// openRegular opens a regular file: opening a pipe would wait for whoever fills it.
func openRegular(name string) (*os.File, error) {
	fi, err := os.Stat(name)
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: it is not a regular file", name)
	}
	if err != nil {
		return nil, err
	}
	return os.Open(name)
}

// program is the program in an archive, which must be what its list says. What is hashed and what
// is read is one file, opened once.
func (a toolArchive) program(pl release.Platform) (bundle.Tool, error) {
	f, err := openRegular(a.path)
	if err != nil {
		return bundle.Tool{}, err
	}
	defer f.Close()
	h := digest.SHA256.Digester()
	if _, err := io.Copy(h.Hash(), f); err != nil {
		return bundle.Tool{}, err
	}
	if h.Digest() != a.digest {
		return bundle.Tool{}, fmt.Errorf("%s: %w: it is %s, and SHA256SUMS beside it says %s", a.path, content.ErrDigest, h.Digest(), a.digest)
	}
	t, err := toolOf(pl, func() (io.ReadCloser, error) {
		r, err := a.in(f)
		return io.NopCloser(r), err
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", a.path, err)
	}
	t.Open = a.open
	return t, err
}

// open opens the program in the archive.
func (a toolArchive) open() (io.ReadCloser, error) {
	f, err := openRegular(a.path)
	if err != nil {
		return nil, err
	}
	r, err := a.in(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &readCloser{r, f}, nil
}

// in finds the program in the archive f: the file of that name in its one folder.
func (a toolArchive) in(f *os.File) (io.Reader, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if strings.HasSuffix(a.path, ".zip") {
		return inZip(f)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	for files := tar.NewReader(z); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			err = errNoProgram
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg && isProgram(h.Name) {
			return files, nil
		}
	}
}

func inZip(f *os.File) (io.Reader, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(f, fi.Size())
	if err != nil {
		return nil, err
	}
	for _, entry := range z.File {
		if isProgram(entry.Name) {
			return entry.Open()
		}
	}
	return nil, errNoProgram
}

var errNoProgram = fmt.Errorf("no program pannier is in it: %w", fs.ErrNotExist)

// isProgram reports whether a path in an archive is the program's: TOP/pannier.
func isProgram(name string) bool {
	dir, file := path.Split(name)
	return strings.Count(dir, "/") == 1 && strings.TrimSuffix(file, ".exe") == "pannier"
}

// readCloser reads from one thing and closes another.
type readCloser struct {
	io.Reader
	io.Closer
}

// sayTools tells of the programs on the drive what the other side must be told.
func (s *session) sayTools(tools []bundle.InstalledTool) {
	for _, t := range tools {
		s.console.say("program for %s, SHA-256 to be told the other side by another way than on the drive\n    %s", t.Platform, t.Digest.Encoded())
	}
}
