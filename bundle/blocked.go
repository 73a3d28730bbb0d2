package bundle

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"pannier/bundle/layout"
	"pannier/bundle/parity"
)

// clear removes what stands where a file of ours must be and is none: a link, a special file,
// an empty folder. It is no use to anybody there, and nothing is followed.
func (r *Repair) clear(name string) error {
	f, err := r.l.OpenFile(name)
	if err == nil {
		return f.Close()
	}
	if errors.Is(err, fs.ErrNotExist) || !errors.Is(err, layout.ErrUnsafe) {
		return nil
	}
	if entries, err := r.l.List(name); err == nil && len(entries) == 0 {
		return r.l.RemoveFolder(name)
	}
	return r.l.RemoveFile(name)
}

// clearFolders removes links and files that stand where folders of small files must be: a file
// could neither be read nor put back below them.
func (r *Repair) clearFolders() error {
	for _, dir := range []string{path.Dir(parity.Folder), parity.Folder} {
		entries, err := r.l.List(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := dir + "/" + e.Name
			if !SmallFolder(name) || e.Mode.IsDir() {
				continue
			}
			if err := r.l.RemoveFile(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// SmallFolder reports whether a slash path is that of a folder in which small files, clients or
// parity stand. What else stands there is no use, and a repair removes it.
func SmallFolder(name string) bool {
	switch name {
	case dirObjects, dirClients, dirTools, parity.Folder:
		return true
	}
	base, ok := strings.CutPrefix(name, parity.Folder+"/")
	base = strings.TrimPrefix(base, copiesPrefix)
	return ok && base != "" && strings.Trim(base, "0123456789") == ""
}

// Blocked reports whether a folder that is not empty stands where the file name belongs, a slash
// path. What is in it may be somebody's: a repair leaves it, and can put nothing there.
func (b *Bundle) Blocked(name string) bool { return blocked(b.Layout, name) }

func blocked(l *layout.Layout, name string) bool {
	entries, err := l.List(name)
	return err == nil && len(entries) > 0
}

// blockedFile is a file that a publication writes or removes and whose place is blocked, or "".
func (b *Bundle) blockedFile() string {
	names := []string{ocispec.ImageLayoutFile, fileIndexJSON, fileStart, fileSums}
	for _, dir := range []string{path.Dir(dirObjects), dirObjects} {
		entries, err := b.Layout.List(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			name := dir + "/" + e.Name
			if _, _, ok := Generation(name); ok || strings.HasSuffix(name, ".yaml") {
				names = append(names, name)
			}
		}
	}
	if i := slices.IndexFunc(names, b.Blocked); i >= 0 {
		return names[i]
	}
	return ""
}
