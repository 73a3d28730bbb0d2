// Command archive packs the folders dist/OS-ARCH into dist/pannier_VERSION_OS_ARCH.tar.gz
// (.zip for Windows), each with its bill of materials beside it, makes a container image of
// the Linux ones, and writes dist/SHA256SUMS over all that dist holds. With -share it writes
// manual pages and completion into dist/share instead, which comes first. Two runs over equal
// binaries give equal bytes: entries are sorted, owned by nobody, and bear the time of the
// last commit.
package main

import (
	"archive/tar"
	"archive/zip"
	"compress/flate"
	"compress/gzip"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Documents that travel beside the binary. Those that do not exist are left out.
var documents = []string{"CHANGELOG.md", "LICENSE", "README.md"}

type entry struct {
	name string // in the archive
	path string
	mode int64
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("archive: ")
	root := flag.String("root", ".", "root of the source tree")
	dist := flag.String("dist", "dist", "folder of the binaries, and of what is made")
	version := flag.String("version", "dev", "version for the names of the archives")
	program := flag.String("share", "", "ask this pannier for manual pages and completion, and do nothing else")
	epoch := flag.Bool("epoch", false, "print the time that all files get, and do nothing else")
	flag.Parse()
	switch {
	case *epoch:
		fmt.Println(commitTime(*root).Unix())
		return
	case *program != "":
		if err := share(*program, *dist); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := run(*root, *dist, *version); err != nil {
		log.Fatal(err)
	}
}

func run(root, dist, version string) error {
	var folders []string
	list, err := os.ReadDir(dist)
	if err != nil {
		return err
	}
	for _, d := range list {
		if d.IsDir() && d.Name() != "share" {
			folders = append(folders, filepath.Join(dist, d.Name()))
		}
	}
	stamp := commitTime(root)
	if err := writeImage(filepath.Join(dist, fmt.Sprintf("pannier_%s_image.tar", version)), folders, version, stamp); err != nil {
		return err
	}
	for _, folder := range folders {
		goos, arch, _ := strings.Cut(filepath.Base(folder), "-")
		top := fmt.Sprintf("pannier_%s_%s_%s", version, goos, arch)
		entries, err := collect(root, dist, folder, top)
		if err != nil {
			return err
		}
		name, write := top+".tar.gz", writeTar
		if goos == "windows" {
			name, write = top+".zip", writeZip
		}
		if err := writeFile(filepath.Join(dist, name), entries, stamp, write); err != nil {
			return err
		}
		binary := filepath.Join(folder, "pannier")
		if goos == "windows" {
			binary += ".exe"
		}
		if err := writeBOM(filepath.Join(dist, top+".cdx.json"), binary, version, goos, arch, stamp); err != nil {
			return err
		}
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(dist, "share")); err != nil {
		return err
	}
	return writeSums(dist)
}

// writeSums writes SHA256SUMS over all files of a folder.
func writeSums(dist string) error {
	files, err := os.ReadDir(dist) // sorted
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, file := range files {
		f, err := os.Open(filepath.Join(dist, file.Name()))
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", h.Sum(nil), file.Name())
	}
	return os.WriteFile(filepath.Join(dist, "SHA256SUMS"), []byte(sums.String()), 0o644)
}

// commitTime is SOURCE_DATE_EPOCH if set, else the time of the last commit, else a fixed day:
// never now, which would make each run differ. Zip knows no time before 1980.
func commitTime(root string) time.Time {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.Command("git", "-C", root, "log", "-1", "--format=%ct").Output()
		if err == nil {
			text = strings.TrimSpace(string(out))
		}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 315532800 {
		return time.Unix(n, 0).UTC()
	}
	return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
}

func collect(root, dist, folder, top string) ([]entry, error) {
	binaries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, b := range binaries {
		entries = append(entries, entry{top + "/" + b.Name(), filepath.Join(folder, b.Name()), 0o755})
	}
	for _, d := range documents {
		path := filepath.Join(root, d)
		if _, err := os.Stat(path); err == nil {
			entries = append(entries, entry{top + "/" + d, path, 0o644})
		}
	}
	// Manual pages and completion, as the folders of dist/share.
	shared := filepath.Join(dist, "share")
	err = filepath.WalkDir(shared, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(shared, path)
		entries = append(entries, entry{top + "/" + filepath.ToSlash(name), path, 0o644})
		return err
	})
	if err != nil {
		return nil, err
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].name < entries[j].name })
	return entries, nil
}

func writeFile(path string, entries []entry, stamp time.Time, write func(io.Writer, []entry, time.Time) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f, entries, stamp); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func writeTar(w io.Writer, entries []entry, stamp time.Time) error {
	gz, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(gz)
	for _, e := range entries {
		data, err := os.ReadFile(e.path)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(data)), ModTime: stamp, Format: tar.FormatUSTAR}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(data); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return gz.Close()
}

func writeZip(w io.Writer, entries []entry, stamp time.Time) error {
	zw := zip.NewWriter(w)
	zw.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(out, flate.BestCompression)
	})
	for _, e := range entries {
		data, err := os.ReadFile(e.path)
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: stamp}
		h.SetMode(os.FileMode(e.mode))
		f, err := zw.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := f.Write(data); err != nil {
			return err
		}
	}
	return zw.Close()
}
